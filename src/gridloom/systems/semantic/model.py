"""The autoencoder: a residual encoder to a latent vector or map, and a decoder back to the field."""

from collections.abc import Mapping
from itertools import pairwise

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from gridloom.core.batch import Batch, Field
from gridloom.core.contracts import Encoder, FieldSpec, InputSpec
from gridloom.core.errors import ConfigError, DataError
from gridloom.nn.conv import BasicBlock, Bottleneck, UpBlock, make_norm
from gridloom.systems.semantic.config import ModelConfig
from gridloom.systems.semantic.heads import (
    DOWNSAMPLING,
    HEAD_GRID,
    QUIET_START,
    MapHead,
    MapLine,
    VectorHead,
    VectorLine,
)

__all__ = ["AutoEncoder", "Decoder", "ResNetEncoder"]

_LAYOUTS = {"resnet18": (BasicBlock, (2, 2, 2, 2), 1), "resnet50": (Bottleneck, (3, 4, 6, 3), 4)}
"""Block, blocks of each layer, and channels of a layer over those of ResNet-18."""
_STRIDES = {"vector": (1, 2, 2, 2), "map": (1, 2, 1, 1)}
_DOUBLINGS = {"vector": (0, 1, 2, 3), "map": (0, 1, 1, 1)}
"""Channels of each layer over the first's, as a power of two: they double where the resolution halves."""
_STEM_AT_ONCE = 4
"""Samples for each thread."""


class ResNetEncoder(Encoder):
    """ResNet-18 or -50 (He et al. 2016, arXiv 1512.03385) with a head that keeps where things are.

    Modules: `stem`, `layer1` to `layer4`, `head`. The stem has one input plane more than the data: the share of the
    channels that are valid in a cell, so that a missing cell differs from one that is 0. For a latent map, layers 3 and
    4 keep the resolution and the width of layer 2.

    Args:
        config: Channels, width, latent, normalization.
        variables: Names of the channels, for the input specification.
        window: Height and width that it is trained on; any other multiple of 32 (vector) or 8 (map) works too.
    """

    def __init__(
        self, config: ModelConfig, *, variables: tuple[str, ...] = (), window: tuple[int, int] = (128, 128)
    ) -> None:
        super().__init__()
        if config.input_channels < 1:
            raise ConfigError(
                f"model.input_channels must be at least 1 to build a model, got {config.input_channels}; "
                f"0 stands for the number of variables and is filled in by `gridloom train`"
            )
        self.config, self.downsampling = config, DOWNSAMPLING[config.latent]
        # The head stays in float32: its linear way carries the level of the field.
        self.bf16_modules = ("stem", "layer1", "layer2", "layer3", "layer4")
        width, norm = config.width, config.norm
        self.stem = nn.Sequential(
            nn.Conv2d(config.input_channels + 1, width, 7, stride=2, padding=3, bias=False),
            make_norm(norm, width),
            nn.MaxPool2d(3, stride=2, padding=1),  # the same before the ReLU as after it, and the ReLU has less to do
            nn.ReLU(inplace=True),
        )
        block, counts, expansion = _LAYOUTS[config.arch]
        channels = width
        shapes = zip(counts, _STRIDES[config.latent], _DOUBLINGS[config.latent], strict=True)
        for number, (count, stride, doublings) in enumerate(shapes, start=1):
            outputs = width * expansion * 2**doublings
            layer = [block(channels, outputs, stride=stride, norm=norm)]
            layer += [block(outputs, outputs, norm=norm) for _ in range(count - 1)]
            self.add_module(f"layer{number}", nn.Sequential(*layer))
            channels = outputs
        self.head = (MapHead if config.latent == "map" else VectorHead)(config, channels)
        spec = FieldSpec(
            dims=("channel", "y", "x"),
            size=(config.input_channels, *window),
            variables=variables,
            multiple_of=self.downsampling,
        )
        self.inputs = InputSpec(fields={"image": spec}, missing="mask")
        self.outputs = {"embedding": ("feature",)}
        if config.latent == "map":
            self.outputs["map"] = ("feature", "y", "x")

    def forward(self, batch: Batch) -> Mapping[str, Tensor]:
        """Encode the field `image` [B, C, H, W].

        Returns:
            `embedding` [B, latent_dim], and for a latent map `map` [B, latent_dim, H/8, W/8], of which the embedding is
            the mean.
        """
        latent = self.latent(batch.fields["image"])
        if self.config.latent == "map":
            return {"embedding": latent.mean((-2, -1)), "map": latent}
        return {"embedding": latent}

    def embed(self, image: Field) -> Float[Tensor, "batch latent"]:
        """Encode one field to a vector, of a latent map the mean."""
        latent = self.latent(image)
        return latent.mean((-2, -1)) if self.config.latent == "map" else latent

    def latent(self, image: Field) -> Float[Tensor, "batch latent *places"]:
        """Encode one field to its vector or map; missing cells are told to the network, their values never seen."""
        values, valid = image.values, image.valid.expand_as(image.values)
        self._check(values)
        known = valid.to(values.dtype)
        seen = torch.where(valid, values, torch.zeros((), dtype=values.dtype, device=values.device))
        x = torch.cat([seen, known.mean(1, keepdim=True)], 1)
        x = self._begin(x.to(next(self.stem.parameters()).dtype).contiguous(memory_format=torch.channels_last))
        for number in range(1, 5):
            x = self.get_submodule(f"layer{number}")(x)
        return self.head(x.to(seen.dtype), seen, known)  # type: ignore[no-any-return]

    def _begin(self, x: Float[Tensor, "batch planes y x"]) -> Float[Tensor, "batch width y4 x4"]:
        """The stem; on a CPU in float32 a few samples at a time, whose large maps then stay in the cache."""
        large = x.device.type == "cpu" and x.dtype == torch.float32 and not self.training
        # an exported graph takes any number of samples; to ask for it here would fix it
        at_once = _STEM_AT_ONCE * torch.get_num_threads()
        if not large or torch.compiler.is_exporting() or len(x) <= at_once:
            return self.stem(x)  # type: ignore[no-any-return]
        return torch.cat([self.stem(part) for part in torch.split(x, at_once)])

    def _check(self, values: Tensor) -> None:
        height, width = values.shape[-2:]
        if values.shape[1] != self.config.input_channels:
            raise DataError(
                f"expected {self.config.input_channels} channels, got {values.shape[1]} in {list(values.shape)}"
            )
        if height % self.downsampling or width % self.downsampling or not height * width:
            raise DataError(
                f"expected height and width to be multiples of {self.downsampling}, got {height}x{width}; "
                f"cut windows of such a size, or pad with missing cells"
            )


class Decoder(nn.Module):
    """From a latent vector or map back to a field.

    Doublings of the resolution, five from a vector and three from a map, the last one by pixel shuffle (Shi et al.
    2016, arXiv 1609.05158) so that the finest convolution works at half the resolution and starts without a
    checkerboard (Aitken et al. 2017, arXiv 1707.02937); plus the linear way back.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, norm = config.width, config.norm
        self.config = config
        if config.latent == "map":
            sizes = [width * 2, width * 2, width]
            self.project: nn.Module = nn.Conv2d(config.latent_dim, sizes[0], 3, padding=1)
            self.coarse: nn.Module = MapLine(config)
        else:
            sizes = [width * 8, width * 4, width * 2, width, width]
            self.project = nn.Linear(config.latent_dim, sizes[0] * HEAD_GRID**2)
            self.coarse = VectorLine(config)
        self.up = nn.Sequential(*[UpBlock(a, b, norm=norm) for a, b in pairwise(sizes)])
        self.out = nn.Conv2d(width, config.input_channels * 4, 3, padding=1)
        with torch.no_grad():
            for parameter in self.out.parameters():  # the four cells of a pixel start equal
                parameter.copy_(QUIET_START * parameter[::4].repeat_interleave(4, dim=0))

    def forward(
        self, latent: Float[Tensor, "batch latent *places"], size: tuple[int, int]
    ) -> Float[Tensor, "batch channel y x"]:
        """Decode.

        Args:
            latent: Latent vectors or maps.
            size: Height and width of the field, multiples of 32 (vector) or 8 (map).
        """
        x = self.project(latent)
        if self.config.latent == "vector":
            x = rearrange(x, "b (c y x) -> b c y x", y=HEAD_GRID, x=HEAD_GRID)
            base = (size[0] // DOWNSAMPLING["vector"], size[1] // DOWNSAMPLING["vector"])
            if base != (HEAD_GRID, HEAD_GRID):
                x = F.interpolate(x, size=base, mode="bilinear", align_corners=False)
        x = F.relu(x).contiguous(memory_format=torch.channels_last)
        fine = F.pixel_shuffle(self.out(self.up(x)), 2)
        return fine + self.coarse(latent, size)  # type: ignore[no-any-return]


class AutoEncoder(nn.Module):
    """Encoder and decoder together."""

    def __init__(
        self, config: ModelConfig, *, variables: tuple[str, ...] = (), window: tuple[int, int] = (128, 128)
    ) -> None:
        super().__init__()
        self.encoder = ResNetEncoder(config, variables=variables, window=window)
        self.decoder = Decoder(config)

    def forward(
        self, image: Float[Tensor, "batch channel y x"], valid: Bool[Tensor, "batch channel y x"] | None = None
    ) -> Float[Tensor, "batch channel y x"]:
        """Reconstruct a field from its latent; missing cells are filled with what the decoder makes of them.

        Args:
            image: Normalized values; NaN is missing.
            valid: False where missing; None means wherever the value is finite.
        """
        latent = self.encoder.latent(Field.of(image, valid))
        return self.decoder(latent, (image.shape[-2], image.shape[-1]))  # type: ignore[no-any-return]
