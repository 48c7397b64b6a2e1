"""The energy E(image, coordinate): convolutions once per image, a small network per candidate."""

import itertools
from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from gridloom.core.batch import Batch, Field
from gridloom.core.contracts import Encoder, FieldSpec, InputSpec
from gridloom.core.errors import CheckpointError, ConfigError, DataError
from gridloom.nn.spatial import CoordConv, SpatialSoftArgmax

__all__ = [
    "CNN",
    "EBMMLP",
    "ConvMLP",
    "EBMConvMLP",
    "EnergyHead",
    "KeypointEncoder",
    "ResidualBlock",
    "SignalEncoder",
    "load_listed_weights",
]

Compat = Literal["seed"] | None
Fusion = Literal["concat", "relative"]

_CHUNK = 1024
"""Candidates of one image at a time without gradients: their hidden layer stays in the cache."""


class ResidualBlock(nn.Module):
    """`y = x + conv2(relu(conv1(relu(x))))`.

    Args:
        channels: Of input and output.
        compat: With `"seed"` the second convolution gets `relu(x)`, as in the seed's listing. The first one is then
            dead: it keeps its weights for their names, gets no gradient and is never computed.
    """

    def __init__(self, channels: int, *, compat: Compat = None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.compat = compat
        if compat == "seed":
            self.conv1.requires_grad_(False)

    def forward(self, x: Float[Tensor, "batch channel y x"]) -> Float[Tensor, "batch channel y x"]:
        """Apply the block; the size stays."""
        inner = F.relu(x)
        if self.compat != "seed":
            inner = F.relu(self.conv1(inner))
        return x + self.conv2(inner)  # type: ignore[no-any-return]


class CNN(nn.Module):
    """A 3x3 convolution and a residual block per width; no pooling, so that positions stay exact.

    Args:
        inputs: Channels of the image, those of CoordConv included.
        widths: Channels of each stage.
        compat: See `ResidualBlock`.
    """

    def __init__(self, inputs: int, widths: tuple[int, ...] = (16, 32, 32), *, compat: Compat = None) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise((inputs, *widths)):
            layers += [nn.Conv2d(before, after, 3, padding=1), ResidualBlock(after, compat=compat)]
        self.net = nn.Sequential(*layers)

    def forward(self, x: Float[Tensor, "batch channel y x"]) -> Float[Tensor, "batch feature y x"]:
        """Feature maps of the image's size."""
        return F.relu(self.net(x))


class KeypointEncoder(Encoder):
    """Image to features: CoordConv (or not), CNN, a 1x1 convolution, soft-argmax.

    Its embedding is the expected row and column of each keypoint, [row0, column0, row1, ...] from -1 to 1. The 3x3
    convolutions may run in bfloat16 (under autocast); all else stays float32, since a coordinate in bfloat16 has steps
    of a fifth of a pixel.

    Args:
        channels: Of the image.
        size: Height and width it is made for; any other works too.
        widths: Channels of the CNN's stages.
        keypoints: Feature maps that go through the soft-argmax.
        coord_conv: Give the CNN the coordinates of the cells.
        missing: Missing cells are told to the CNN by a plane of their own, and each image is standardized by the mean
            and deviation of its known cells.
        compat: See `ResidualBlock`.
        variables: Names of the channels, for the input specification.
    """

    def __init__(
        self,
        channels: int = 3,
        *,
        size: tuple[int, int] = (96, 96),
        widths: tuple[int, ...] = (16, 32, 32),
        keypoints: int = 16,
        coord_conv: bool = True,
        missing: bool = False,
        compat: Compat = None,
        variables: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.channels, self.missing = channels, missing
        self.coord_conv = CoordConv() if coord_conv else None
        self.cnn = CNN(channels + 2 * coord_conv + missing, widths, compat=compat)
        self.conv = nn.Conv2d(widths[-1], keypoints, 1)
        self.spatial = SpatialSoftArgmax()
        spec = FieldSpec(dims=("channel", "y", "x"), size=(channels, *size), variables=variables)
        self.inputs = InputSpec(fields={"image": spec}, missing="mask" if missing else "raise")
        self.outputs = {"embedding": ("feature",)}

    @property
    def num_features(self) -> int:
        """Length of the embedding: two coordinates for each keypoint."""
        return 2 * self.conv.out_channels

    def forward(self, batch: Batch) -> Mapping[str, Tensor]:
        """Encode the field `image` [B, C, H, W] to `embedding` [B, 2 * keypoints]."""
        return {"embedding": self.embed(batch.fields["image"])}

    def embed(self, image: Field) -> Float[Tensor, "batch features"]:
        """Features of one field with its mask."""
        return self._locate(self.maps(image.values, image.valid.expand_as(image.values)))

    def encode(self, image: Float[Tensor, "batch channel y x"]) -> Float[Tensor, "batch features"]:
        """Features of images; NaN is missing where the encoder takes missing cells."""
        return self.embed(Field.of(image)) if self.missing else self._locate(self.maps(image))

    def maps(
        self, image: Float[Tensor, "batch channel y x"], valid: Bool[Tensor, "batch channel y x"] | None = None
    ) -> Float[Tensor, "batch keypoint y x"]:
        """Feature maps before the soft-argmax.

        Args:
            image: Images, values of missing cells are of no effect.
            valid: False where missing; only an encoder made with `missing` looks at it.

        Raises:
            DataError: Another number of dimensions or channels.
        """
        if image.ndim != 4 or image.shape[1] != self.channels:
            raise DataError(f"expected images [B, {self.channels}, H, W], got {list(image.shape)}")
        x = image
        if self.missing:
            known = torch.ones_like(image) if valid is None else valid.to(image.dtype)
            x = torch.cat([_standardized(image, known), known.mean(1, keepdim=True)], 1)
        if self.coord_conv is not None:
            x = self.coord_conv(x)
        x = self.cnn(x.contiguous(memory_format=torch.channels_last))
        with torch.autocast(x.device.type, enabled=False):
            return F.relu(self.conv(x.to(image.dtype)))

    def _locate(self, maps: Tensor) -> Tensor:
        with torch.autocast(maps.device.type, enabled=False):
            return self.spatial(maps)  # type: ignore[no-any-return]


def _standardized(image: Tensor, known: Tensor) -> Tensor:
    """Each channel of each image by the mean and deviation of its known cells; missing ones are 0."""
    count = known.sum((2, 3), keepdim=True).clamp(min=1)
    mean = (image * known).sum((2, 3), keepdim=True) / count
    centered = (image - mean) * known
    deviation = (centered.square().sum((2, 3), keepdim=True) / count).sqrt()
    return centered / deviation.clamp(min=1e-6)


class SignalEncoder(Encoder):
    """A signal's share of the first layer of `E(x, y) = MLP([flatten(x), y])`.

    Args:
        inputs: Numbers of a signal.
        hidden: Width of the layer.
    """

    def __init__(self, inputs: int = 100, *, hidden: int = 256) -> None:
        super().__init__()
        self.length = inputs
        self.layer = nn.Linear(inputs, hidden)
        self.inputs = InputSpec(fields={"image": FieldSpec(dims=("x",), size=(inputs,))}, missing="raise")
        self.outputs = {"embedding": ("feature",)}

    @property
    def num_features(self) -> int:
        """Length of the embedding."""
        return self.layer.out_features

    def forward(self, batch: Batch) -> Mapping[str, Tensor]:
        """Encode the field `image` [B, inputs] to `embedding` [B, hidden]."""
        return {"embedding": self.encode(batch.fields["image"].values)}

    def encode(self, x: Float[Tensor, "batch *dims"]) -> Float[Tensor, "batch features"]:
        """The first layer before its ReLU.

        Raises:
            DataError: Another number of values.
        """
        flat = x.flatten(1)
        if flat.shape[1] != self.length:
            raise DataError(f"expected signals of {self.length} numbers, got {list(x.shape)}")
        with torch.autocast(flat.device.type, enabled=False):  # there are no 3x3 convolutions here
            return self.layer(flat)  # type: ignore[no-any-return]


class EnergyHead(nn.Module):
    """Features and candidates to energies, with the first layer split into an image part and a coordinate part.

    `concat`: the network sees `[features, y]`, so that `W [f, y] + b = W_f f + b + W_y y`.
    `relative`: it sees `f_k - y` for every keypoint k, so that `W (f - y) + b = W f + b - (sum_k W_k) y`; the energy
    then moves with the image.

    Args:
        features: Numbers of an image.
        outputs: Coordinates of a candidate.
        hidden: Width of the network.
        depth: Hidden layers; two wells that move by themselves need two.
        fusion: How features meet candidates.

    Raises:
        ConfigError: Relative fusion of features that are not keypoints of as many coordinates.
    """

    def __init__(
        self, features: int, outputs: int, *, hidden: int = 256, depth: int = 1, fusion: Fusion = "concat"
    ) -> None:
        super().__init__()
        if fusion == "relative" and features % outputs:
            raise ConfigError(
                f"relative fusion compares keypoints with candidates of {outputs} coordinates, "
                f"got {features} features; choose fusion concat"
            )
        self.features, self.outputs, self.fusion = features, outputs, fusion
        inputs = features + outputs if fusion == "concat" else features
        deeper = [layer for _ in range(depth - 1) for layer in (nn.Linear(hidden, hidden), nn.ReLU())]
        self.net = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), *deeper, nn.Linear(hidden, 1))

    def split(self) -> tuple[Float[Tensor, "hidden features"], Float[Tensor, "hidden outputs"]]:
        """Weights of the first layer for the features and for the candidate."""
        weight = self._linear(0).weight
        if self.fusion == "concat":
            return weight[:, : self.features], weight[:, self.features :]
        return weight, -weight.view(len(weight), -1, self.outputs).sum(1)

    def _linear(self, place: int) -> nn.Linear:
        layer = self.net[place]
        assert isinstance(layer, nn.Linear)
        return layer

    def forward(
        self, features: Float[Tensor, "batch features"], y: Float[Tensor, "batch candidates outputs"]
    ) -> Float[Tensor, "batch candidates"]:
        """Energies of all candidates; without gradients some at a time, so that memory is bounded."""
        with torch.autocast(y.device.type, enabled=False):
            image_weight, candidate_weight = self.split()
            shared = F.linear(features, image_weight, self._linear(0).bias)
            if torch.is_grad_enabled():
                return self.net[2:](F.relu(F.linear(y, candidate_weight) + shared[:, None])).squeeze(-1)  # type: ignore[no-any-return]
            # The image's part is one more column of weights, for a coordinate that is always 1.
            weights = torch.cat([candidate_weight.expand(len(y), -1, -1), shared[..., None]], dim=2).mT.contiguous()
            padded = F.pad(y, (0, 1), value=1.0)
            energies = y.new_empty(y.shape[:2])
            buffer = y.new_empty(min(_CHUNK, y.shape[1]), shared.shape[1])
            deeper, last = self.net[2:-1], self._linear(-1)
            for image in range(len(y)):
                for start in range(0, y.shape[1], _CHUNK):
                    part = padded[image, start : start + _CHUNK]
                    hidden = deeper(torch.mm(part, weights[image], out=buffer[: len(part)]).relu_())
                    torch.mv(hidden, last.weight[0], out=energies[image, start : start + _CHUNK])
            return energies.add_(last.bias)


class EBMConvMLP(nn.Module):
    """Energy of candidates for images; low is good (Florence et al. 2021, arXiv 2109.00137).

    Args:
        encoder: Image to keypoints; None makes one of the default size (66,001 parameters in all).
        outputs: Coordinates of a candidate.
        hidden: Width of the energy network.
        depth: Its hidden layers.
        fusion: How features meet candidates, see `EnergyHead`.
    """

    def __init__(
        self,
        encoder: KeypointEncoder | None = None,
        *,
        outputs: int = 2,
        hidden: int = 256,
        depth: int = 1,
        fusion: Fusion = "concat",
    ) -> None:
        super().__init__()
        self.encoder = encoder or KeypointEncoder()
        self.outputs = outputs
        self.mlp = EnergyHead(self.encoder.num_features, outputs, hidden=hidden, depth=depth, fusion=fusion)

    def encode(self, x: Float[Tensor, "batch channel y x"]) -> Float[Tensor, "batch features"]:
        """Features, once per image."""
        return self.encoder.encode(x)

    def energy(
        self, features: Float[Tensor, "batch features"], y: Float[Tensor, "batch candidates outputs"]
    ) -> Float[Tensor, "batch candidates"]:
        """Energies of candidates for images whose features are known; cheap."""
        return self.mlp(features, y)  # type: ignore[no-any-return]

    def forward(
        self, x: Float[Tensor, "batch channel y x"], y: Float[Tensor, "batch candidates outputs"]
    ) -> Float[Tensor, "batch candidates"]:
        """Energies of candidates for images."""
        return self.energy(self.encode(x), y)


class EBMMLP(nn.Module):
    """The model without a CNN: `E(x, y) = MLP([flatten(x), y])`.

    Args:
        encoder: Signal to its share of the first layer; None makes one for 100 numbers.
        outputs: Coordinates of a candidate.
        depth: Hidden layers.
    """

    def __init__(self, encoder: SignalEncoder | None = None, *, outputs: int = 1, depth: int = 1) -> None:
        super().__init__()
        self.encoder = encoder or SignalEncoder()
        self.outputs = outputs
        hidden = self.encoder.num_features
        self.candidate = nn.Linear(outputs, hidden, bias=False)
        layers: list[nn.Module] = [nn.ReLU()]
        for _ in range(depth - 1):
            layers += [nn.Linear(hidden, hidden), nn.ReLU()]
        self.rest = nn.Sequential(*layers, nn.Linear(hidden, 1))

    def encode(self, x: Float[Tensor, "batch *dims"]) -> Float[Tensor, "batch features"]:
        """The signal's share of the first layer."""
        return self.encoder.encode(x)

    def energy(
        self, features: Float[Tensor, "batch features"], y: Float[Tensor, "batch candidates outputs"]
    ) -> Float[Tensor, "batch candidates"]:
        """Energies of candidates for signals whose features are known; without gradients some at a time."""
        chunk = y.shape[1] if torch.is_grad_enabled() else _CHUNK
        with torch.autocast(y.device.type, enabled=False):
            hidden = (features[:, None] + self.candidate(part) for part in torch.split(y, chunk, 1))
            return torch.cat([self.rest(part).squeeze(-1) for part in hidden], dim=1)

    def forward(
        self, x: Float[Tensor, "batch *dims"], y: Float[Tensor, "batch candidates outputs"]
    ) -> Float[Tensor, "batch candidates"]:
        """Energies of candidates for signals."""
        return self.energy(self.encode(x), y)


class ConvMLP(nn.Module):
    """The explicit baseline: the same encoder, and a network that regresses the coordinates (trained with MSE).

    Args:
        encoder: Image to keypoints, or signal to its features; None makes the default for images.
        outputs: Coordinates.
        hidden: Width of the network.
    """

    def __init__(
        self, encoder: KeypointEncoder | SignalEncoder | None = None, *, outputs: int = 2, hidden: int = 256
    ) -> None:
        super().__init__()
        self.encoder = encoder or KeypointEncoder()
        if isinstance(self.encoder, SignalEncoder):  # its features are half a layer
            first: list[nn.Module] = [nn.ReLU()]
        else:
            first = []
        self.mlp = nn.Sequential(
            *first, nn.Linear(self.encoder.num_features, hidden), nn.ReLU(), nn.Linear(hidden, outputs)
        )

    def forward(self, x: Float[Tensor, "batch *dims"]) -> Float[Tensor, "batch outputs"]:
        """Coordinates of each image."""
        return self.regress(self.encoder.encode(x))

    def regress(self, features: Float[Tensor, "batch features"]) -> Float[Tensor, "batch outputs"]:
        """Coordinates from features."""
        with torch.autocast(features.device.type, enabled=False):
            return self.mlp(features)  # type: ignore[no-any-return]


def load_listed_weights(model: EBMConvMLP, state: Mapping[str, Tensor]) -> None:
    """Load weights under the names of the public PyTorch version, unchanged.

    Names: `cnn.net.{0,2,4}` convolutions, `cnn.net.{1,3,5}.conv{1,2}` residual blocks, `conv`, `mlp.net.{0,2}`. Make
    the model with `compat="seed"` for the same energies.

    Raises:
        CheckpointError: Lists what is missing, unexpected or misshapen; nothing is loaded then.
    """
    ours = {(f"encoder.{name}" if name.startswith(("cnn.", "conv.")) else name): value for name, value in state.items()}
    wanted = model.state_dict()
    missing, unexpected = sorted(wanted.keys() - ours.keys()), sorted(ours.keys() - wanted.keys())
    shapes = sorted(name for name in wanted.keys() & ours.keys() if wanted[name].shape != ours[name].shape)
    if missing or unexpected or shapes:
        raise CheckpointError(
            f"listed weights do not fit: missing {missing[:4]}, unexpected {unexpected[:4]}, "
            f"other shapes {shapes[:4]}; make the model with the sizes of the listing"
        )
    model.load_state_dict(ours)
