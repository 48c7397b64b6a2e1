"""The autoencoder: a residual encoder to a latent vector, and a decoder back to the field."""

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
from gridloom.nn.conv import BasicBlock, UpBlock, make_norm
from gridloom.nn.cosine import cosine_basis
from gridloom.systems.semantic.config import ModelConfig

__all__ = ["AutoEncoder", "Decoder", "ResNetEncoder"]

DOWNSAMPLING = 32
"""Cells of the input per cell of the last feature map, along each axis."""

_HEAD_GRID = 4
_HEAD_CHANNELS = 16
_COARSE_SEEN = 16
_COARSE_DRAWN = 32
_QUIET_START = 0.1
_BLOCKS = {"resnet18": (2, 2, 2, 2)}


class ResNetEncoder(Encoder):
    """ResNet-18 (He et al. 2016, arXiv 1512.03385) with a head that keeps where things are.

    Modules: `stem`, `layer1` to `layer4`, `head`. The stem has one input plane more than the data: the share of the
    channels that are valid in a cell, so that a missing cell differs from one that is 0. The head adds up two views: a
    4x4 grid of the last feature map (averaging over the whole field would lose positions), and a linear map of the
    16x16 block means of the field itself, which starts as their lowest frequencies. What a picture of low resolution
    can say need not go through the network, and the network learns what that leaves (docs/benchmarks.md measures it).

    Args:
        config: Channels, width, latent size, normalization.
        variables: Names of the channels, for the input specification.
        window: Height and width that it is trained on; any other multiple of 32 works too.
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
        self.config = config
        width, norm = config.width, config.norm
        self.stem = nn.Sequential(
            nn.Conv2d(config.input_channels + 1, width, 7, stride=2, padding=3, bias=False),
            make_norm(norm, width),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        channels = width
        for number, blocks in enumerate(_BLOCKS[config.arch]):
            outputs = width * 2**number
            layer = [BasicBlock(channels, outputs, stride=1 if number == 0 else 2, norm=norm)]
            layer += [BasicBlock(outputs, outputs, norm=norm) for _ in range(blocks - 1)]
            self.add_module(f"layer{number + 1}", nn.Sequential(*layer))
            channels = outputs
        project = nn.Linear(_HEAD_CHANNELS * _HEAD_GRID**2, config.latent_dim)
        coarse = nn.Linear(config.input_channels * _COARSE_SEEN**2, config.latent_dim, bias=False)
        with torch.no_grad():
            coarse.weight.copy_(_shared_basis(config, _COARSE_SEEN))
            for parameter in project.parameters():  # the network starts as a whisper beside the linear way
                parameter.mul_(_QUIET_START)
        reduce = nn.Conv2d(channels, _HEAD_CHANNELS, 1)
        self.head = nn.ModuleDict({"reduce": reduce, "project": project, "coarse": coarse})
        spec = FieldSpec(
            dims=("channel", "y", "x"),
            size=(config.input_channels, *window),
            variables=variables,
            multiple_of=DOWNSAMPLING,
        )
        self.inputs = InputSpec(fields={"image": spec}, missing="mask")
        self.outputs = {"embedding": ("feature",)}

    def forward(self, batch: Batch) -> Mapping[str, Tensor]:
        """Encode the field `image` [B, C, H, W] to `embedding` [B, latent_dim]."""
        return {"embedding": self.embed(batch.fields["image"])}

    def embed(self, image: Field) -> Float[Tensor, "batch latent"]:
        """Encode one field; missing cells are told to the network, their values are never seen."""
        values, valid = image.values, image.valid.expand_as(image.values)
        self._check(values)
        known = valid.to(values.dtype)
        seen = torch.where(valid, values, torch.zeros((), dtype=values.dtype, device=values.device))
        x = torch.cat([seen, known.mean(1, keepdim=True)], 1)
        x = self.stem(x.contiguous(memory_format=torch.channels_last))
        for number in range(1, 5):
            x = self.get_submodule(f"layer{number}")(x)
        x = self.head["reduce"](x)
        if x.shape[-2:] != (_HEAD_GRID, _HEAD_GRID):
            x = F.adaptive_avg_pool2d(x, _HEAD_GRID)
        means = F.adaptive_avg_pool2d(seen, _COARSE_SEEN) / F.adaptive_avg_pool2d(known, _COARSE_SEEN).clamp(min=1e-6)
        latent: Tensor = self.head["project"](x.flatten(1)) + self.head["coarse"](means.flatten(1))
        return latent

    def _check(self, values: Tensor) -> None:
        height, width = values.shape[-2:]
        if values.shape[1] != self.config.input_channels:
            raise DataError(
                f"expected {self.config.input_channels} channels, got {values.shape[1]} in {list(values.shape)}"
            )
        if height % DOWNSAMPLING or width % DOWNSAMPLING or not height * width:
            raise DataError(
                f"expected height and width to be multiples of {DOWNSAMPLING}, got {height}x{width}; "
                f"cut windows of such a size, or pad with missing cells"
            )


def _shared_basis(config: ModelConfig, points: int) -> Float[Tensor, "latent cells"]:
    """The latent's first functions: lowest frequencies of the block means, as many for each channel; then zeros.

    They are orthonormal, so that the way there and back is the identity.
    """
    count = min(config.latent_dim // config.input_channels, _COARSE_SEEN**2)
    basis = torch.zeros(config.latent_dim, config.input_channels, points**2)
    if count:
        functions = cosine_basis(_COARSE_SEEN, count, points=points)
        for channel in range(config.input_channels):
            basis[channel * count : (channel + 1) * count, channel] = functions
    return basis.flatten(1)


class Decoder(nn.Module):
    """From a latent vector back to a field.

    Five doublings, the last one by pixel shuffle (Shi et al. 2016, arXiv 1609.05158) so that the finest convolution
    works at half the resolution and starts without a checkerboard (Aitken et al. 2017, arXiv 1707.02937); plus a linear
    map of the latent vector to a 32x32 picture, drawn bilinearly, which starts as the inverse of the encoder's.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, norm = config.width, config.norm
        self.channels, self.outputs = width * 8, config.input_channels
        self.coarse = nn.Linear(config.latent_dim, self.outputs * _COARSE_DRAWN**2)
        self.project = nn.Linear(config.latent_dim, self.channels * _HEAD_GRID**2)
        sizes = [width * 8, width * 4, width * 2, width, width]
        self.up = nn.Sequential(*[UpBlock(a, b, norm=norm) for a, b in pairwise(sizes)])
        self.out = nn.Conv2d(width, config.input_channels * 4, 3, padding=1)
        with torch.no_grad():
            self.coarse.weight.copy_(_shared_basis(config, _COARSE_DRAWN).T)
            self.coarse.bias.zero_()
            for parameter in self.out.parameters():  # the four cells of a pixel start equal
                parameter.copy_(_QUIET_START * parameter[::4].repeat_interleave(4, dim=0))

    def forward(
        self, latent: Float[Tensor, "batch latent"], size: tuple[int, int]
    ) -> Float[Tensor, "batch channel y x"]:
        """Decode.

        Args:
            latent: The latent vectors.
            size: Height and width of the field, multiples of 32.
        """
        x = rearrange(self.project(latent), "b (c y x) -> b c y x", y=_HEAD_GRID, x=_HEAD_GRID)
        base = (size[0] // DOWNSAMPLING, size[1] // DOWNSAMPLING)
        if base != (_HEAD_GRID, _HEAD_GRID):
            x = F.interpolate(x, size=base, mode="bilinear", align_corners=False)
        x = F.relu(x).contiguous(memory_format=torch.channels_last)
        fine = F.pixel_shuffle(self.out(self.up(x)), 2)
        picture = rearrange(self.coarse(latent), "b (c y x) -> b c y x", y=_COARSE_DRAWN, x=_COARSE_DRAWN)
        return fine + F.interpolate(picture, size=size, mode="bilinear", align_corners=False)


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
        """Reconstruct a field from its latent vector; missing cells are filled with what the decoder makes of them.

        Args:
            image: Normalized values; NaN is missing.
            valid: False where missing; None means wherever the value is finite.
        """
        latent = self.encoder.embed(Field.of(image, valid))
        return self.decoder(latent, (image.shape[-2], image.shape[-1]))  # type: ignore[no-any-return]
