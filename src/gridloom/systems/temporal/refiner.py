"""What corrects a moved latent: a small network on it, or one that moves the latent at a finer grid."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from gridloom.core.errors import ConfigError
from gridloom.nn.warp import Interpolation, warp

__all__ = ["Refiner"]

_WIDTHS = {"plain": 16, "flow": 12}
_PARTS = 4


class Refiner(nn.Module):
    """Adds to a moved latent what interpolation between cells got wrong. Starts as the identity, to the bit.

    `plain` is a small convolutional network on the moved latent. It costs little, but cannot know how far between the
    cells was sampled.

    `flow` is for latents whose cells stand for patches. Where a picture moves by half a patch, the latent of the new
    patch is made of halves of four patches: a linear mix of their latents with a matrix that depends on the offset
    within the cell, which interpolation, one weight for all channels, is not. So each latent is laid out over finer
    cells by learnt weights, these are moved by the same flow (in finer cells), and folded back into a latent. An
    encoder of patches is undone by its decoder: decoding, moving the picture and encoding again is about what it can
    learn.
    """

    def __init__(
        self,
        channels: int,
        *,
        kind: Literal["plain", "flow"],
        width: int | None = None,
        parts: int = _PARTS,
        interpolation: Interpolation = "bilinear",
    ) -> None:
        """Build it.

        Args:
            channels: Channels of a latent.
            kind: What it sees; see above.
            width: Channels between; None is 16 for `plain`, and 12 of every finer cell for `flow`.
            parts: With `flow`: finer cells along a side of a cell. The cost grows with width x parts^2.
            interpolation: With `flow`: how the finer cells are sampled. `bicubic` loses less detail when a state is
                moved again and again, and makes this step four times as dear.

        Raises:
            ConfigError: An unknown kind, or a size below 1.
        """
        super().__init__()
        if kind not in _WIDTHS:
            raise ConfigError(f"kind must be one of {', '.join(_WIDTHS)}, got {kind!r}")
        width = _WIDTHS[kind] if width is None else width
        if min(channels, width, parts) < 1:
            raise ConfigError(f"channels, width and parts must be at least 1, got {channels}, {width} and {parts}")
        self.residual = (
            _Convolutions(channels, width)
            if kind == "plain"
            else _FinerMotion(channels, width, parts=parts, interpolation=interpolation)
        )

    @classmethod
    def of_patches(
        cls,
        components: Float[Tensor, "channel pixels"],
        mean: Float[Tensor, " pixels"],
        *,
        size: int,
        interpolation: Interpolation = "bilinear",
    ) -> "Refiner":
        """Build one that decodes, moves the picture, and encodes, for latents that are projections of patches.

        It needs no training, may be trained on, and is not the identity at the start.

        Args:
            components: Orthonormal rows, each over the pixels (channel, row, column) of a patch, as
                `PatchPCA.components`.
            mean: The patch that was taken off before projecting.
            size: Pixels along a side of a patch.
            interpolation: How pixels are sampled.

        Raises:
            ConfigError: Rows that are not a whole number of channels of size x size pixels.
        """
        channels, pixels = components.shape
        if size < 1 or pixels % size**2:
            raise ConfigError(f"components must be over whole patches of {size} x {size} pixels, got {pixels}")
        depth = pixels // size**2
        refiner = cls(channels, kind="flow", width=depth, parts=size, interpolation=interpolation)
        assert isinstance(refiner.residual, _FinerMotion)
        with torch.no_grad():
            refiner.residual.lay_out.weight.copy_(torch.cat([components, mean[None]]).view(-1, depth, size, size))
            refiner.residual.fold.weight.copy_(components.view(channels, depth, size, size))
            refiner.residual.mix.weight.copy_(-torch.eye(channels)[:, :, None, None])
            refiner.residual.mix.bias = nn.Parameter(-components @ mean)
        return refiner

    def forward(
        self,
        warped: Float[Tensor, "batch channel y x"],
        previous: Float[Tensor, "batch channel y x"],
        flow: Float[Tensor, "batch 2 y x"],
    ) -> Float[Tensor, "batch channel y x"]:
        """Correct a moved latent.

        Args:
            warped: The previous latent, moved onto the current frame.
            previous: The same before it was moved; finite. `plain` does not look at it.
            flow: What it was moved by: from the current frame to the previous one, in cells. A component that is not
                finite counts as 0. `plain` does not look at it.
        """
        corrected: Tensor = warped + self.residual(warped, previous, flow)
        return corrected


class _Convolutions(nn.Module):
    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.hidden = nn.Conv2d(channels, width, 3, padding=1)
        self.out = _zeroed(nn.Conv2d(width, channels, 1))

    def forward(self, warped: Tensor, _previous: Tensor, _flow: Tensor) -> Tensor:
        answer: Tensor = self.out(F.silu(self.hidden(warped)))
        return answer


class _FinerMotion(nn.Module):
    def __init__(self, channels: int, width: int, *, parts: int, interpolation: Interpolation) -> None:
        super().__init__()
        self._parts, self._interpolation = parts, interpolation
        # One more channel, always 1: what every patch has in common moves too.
        self.lay_out = nn.ConvTranspose2d(channels + 1, width, parts, stride=parts, bias=False)
        # No part of a latent is lost or outweighs another at the start; with weights at random it learns more slowly.
        nn.init.orthogonal_(self.lay_out.weight.flatten(1))
        self.fold = _zeroed(nn.Conv2d(width, channels, parts, stride=parts, bias=False))
        self.mix = _zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, warped: Tensor, previous: Tensor, flow: Tensor) -> Tensor:
        # A patch moves as a whole: where neighbors move apart, a flow between theirs is that of neither.
        finer = F.interpolate(flow * self._parts, scale_factor=self._parts, mode="nearest")
        laid_out = self.lay_out(F.pad(previous, (0, 0, 0, 0, 0, 1), value=1.0))
        folded: Tensor = self.fold(warp(laid_out, finer, mode=self._interpolation))
        mixed: Tensor = self.mix(warped)
        return folded + mixed


def _zeroed(layer: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
