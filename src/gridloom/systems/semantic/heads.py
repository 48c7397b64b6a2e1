"""Between features and latent: what the encoder ends with, and what the decoder begins with.

Each goes two ways at once: through the network, and linearly from the field to the latent and back. The linear way
starts as the lowest frequencies of the field, so that the network learns what those leave (docs/benchmarks.md measures
what that is worth).
"""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from gridloom.nn.cosine import cosine_basis
from gridloom.systems.semantic.config import ModelConfig

__all__ = ["DOWNSAMPLING", "HEAD_GRID", "QUIET_START", "MapHead", "MapLine", "VectorHead", "VectorLine"]

DOWNSAMPLING = {"vector": 32, "map": 8}
"""Cells of the input per cell of the last feature map, along each axis."""
QUIET_START = 0.1
"""The network starts as a whisper beside the linear way."""

HEAD_GRID = 4
"""Cells along each axis of the feature map that a vector is made of."""
_COARSE_SEEN = 16
_COARSE_DRAWN = 32
_PATCH = DOWNSAMPLING["map"]


def _lowest(config: ModelConfig, size: int, *, points: int) -> Float[Tensor, "latent channels cells"]:
    """The latent's first functions: lowest frequencies of a square, as many for each channel; then zeros.

    They are orthonormal on `size` x `size` cells, so that the way there and back is the identity.
    """
    count = min(config.latent_dim // config.input_channels, size**2)
    basis = torch.zeros(config.latent_dim, config.input_channels, points**2)
    if count:
        functions = cosine_basis(size, count, points=points)
        for channel in range(config.input_channels):
            basis[channel * count : (channel + 1) * count, channel] = functions
    return basis


def _whisper(module: nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(QUIET_START)


class VectorHead(nn.Module):
    """Features to a vector: a 4x4 grid of the last feature map, and the 16x16 block means of the field itself.

    Averaging over the whole field would lose where things are.
    """

    def __init__(self, config: ModelConfig, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, config.head_channels, 1)
        self.project = nn.Linear(config.head_channels * HEAD_GRID**2, config.latent_dim)
        self.coarse = nn.Linear(config.input_channels * _COARSE_SEEN**2, config.latent_dim, bias=False)
        with torch.no_grad():
            self.coarse.weight.copy_(_lowest(config, _COARSE_SEEN, points=_COARSE_SEEN).flatten(1))
        _whisper(self.project)

    def forward(
        self,
        features: Float[Tensor, "batch width y2 x2"],
        seen: Float[Tensor, "batch channel y x"],
        known: Float[Tensor, "batch channel y x"],
    ) -> Float[Tensor, "batch latent"]:
        """Add both ways up.

        Args:
            features: The last feature map.
            seen: The field, 0 where missing.
            known: 1 where it is there.
        """
        x = self.reduce(features)
        if x.shape[-2:] != (HEAD_GRID, HEAD_GRID):
            x = F.adaptive_avg_pool2d(x, HEAD_GRID)
        block = (seen.shape[-2] // _COARSE_SEEN, seen.shape[-1] // _COARSE_SEEN)
        means = F.avg_pool2d(seen, block) / F.avg_pool2d(known, block).clamp(min=1e-6)
        latent: Tensor = self.project(x.flatten(1)) + self.coarse(means.flatten(1))
        return latent


class MapHead(nn.Module):
    """Features to a map with an eighth of the cells along each axis; the linear way sees 8x8 patches."""

    def __init__(self, config: ModelConfig, channels: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(channels, config.latent_dim, 1)
        self.coarse = nn.Conv2d(config.input_channels, config.latent_dim, _PATCH, stride=_PATCH, bias=False)
        with torch.no_grad():
            basis = _lowest(config, _PATCH, points=_PATCH)
            self.coarse.weight.copy_(rearrange(basis, "l c (y x) -> l c y x", y=_PATCH))
        _whisper(self.project)

    def forward(
        self,
        features: Float[Tensor, "batch width y2 x2"],
        seen: Float[Tensor, "batch channel y x"],
        known: Float[Tensor, "batch channel y x"],
    ) -> Float[Tensor, "batch latent y2 x2"]:
        """Add both ways up; arguments as in `VectorHead`."""
        share = F.avg_pool2d(known, _PATCH).clamp(min=1e-6)
        level = seen / F.interpolate(share, scale_factor=float(_PATCH), mode="nearest")
        latent: Tensor = self.project(features) + self.coarse(level)
        return latent


class VectorLine(nn.Module):
    """The linear way back from a vector: a 32x32 picture, drawn bilinearly at any size."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.picture = nn.Linear(config.latent_dim, config.input_channels * _COARSE_DRAWN**2)
        with torch.no_grad():
            self.picture.weight.copy_(_lowest(config, _COARSE_SEEN, points=_COARSE_DRAWN).flatten(1).T)
            self.picture.bias.zero_()

    def forward(
        self, latent: Float[Tensor, "batch latent"], size: tuple[int, int]
    ) -> Float[Tensor, "batch channel y x"]:
        """Draw at a size."""
        picture = rearrange(self.picture(latent), "b (c y x) -> b c y x", y=_COARSE_DRAWN, x=_COARSE_DRAWN)
        return F.interpolate(picture, size=size, mode="bilinear", align_corners=False)


class MapLine(nn.Module):
    """The linear way back from a map: each place draws its 8x8 patch."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.picture = nn.ConvTranspose2d(config.latent_dim, config.input_channels, _PATCH, stride=_PATCH)
        with torch.no_grad():
            basis = _lowest(config, _PATCH, points=_PATCH)
            self.picture.weight.copy_(rearrange(basis, "l c (y x) -> l c y x", y=_PATCH))
            if self.picture.bias is not None:
                self.picture.bias.zero_()

    def forward(
        self, latent: Float[Tensor, "batch latent y2 x2"], size: tuple[int, int]
    ) -> Float[Tensor, "batch channel y x"]:
        """Draw; the size follows from the map."""
        return self.picture(latent)  # type: ignore[no-any-return]
