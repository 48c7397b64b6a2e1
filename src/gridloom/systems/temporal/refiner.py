"""What corrects a moved latent: a small network on it, or one that moves the latent at a finer grid."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from gridloom.core.errors import ConfigError
from gridloom.nn.warp import warp

__all__ = ["Refiner"]

_PARTS = 4  # finer cells along a side of a cell
_WIDTHS = {"plain": 16, "flow": 12}


class Refiner(nn.Module):
    """Adds to a moved latent what interpolation between cells got wrong. Starts as the identity, to the bit.

    `plain` is a small convolutional network on the moved latent. It costs little, but cannot know how far between the
    cells was sampled.

    `flow` is for latents whose cells stand for patches. Where a picture moves by half a patch, the latent of the new
    patch is made of halves of four patches: a linear mix of their latents with a matrix that depends on the offset
    within the cell, which interpolation, one weight for all channels, is not. So each latent is laid out over 4 x 4
    finer cells by learnt weights, these are moved by the same flow (in finer cells), and folded back into a latent. An
    encoder of patches is undone by its decoder, so that decoding, moving the picture and encoding again is about what
    it can learn, at a fraction of the cells.
    """

    def __init__(self, channels: int, *, kind: Literal["plain", "flow"], width: int | None = None) -> None:
        """Build it.

        Args:
            channels: Channels of a latent.
            kind: What it sees; see above.
            width: Channels between; None is 16 for `plain`, and 12 of every finer cell for `flow`.

        Raises:
            ConfigError: An unknown kind, or a size below 1.
        """
        super().__init__()
        if kind not in _WIDTHS:
            raise ConfigError(f"kind must be one of {', '.join(_WIDTHS)}, got {kind!r}")
        width = _WIDTHS[kind] if width is None else width
        if min(channels, width) < 1:
            raise ConfigError(f"channels and width must be at least 1, got {channels} and {width}")
        self.residual = _Convolutions(channels, width) if kind == "plain" else _FinerMotion(channels, width)

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
    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        # Without bias: a constant stays what it is when it is moved.
        self.lay_out = nn.ConvTranspose2d(channels, width, _PARTS, stride=_PARTS, bias=False)
        # No part of a latent is lost or outweighs another at the start; with weights at random it learns more slowly.
        nn.init.orthogonal_(self.lay_out.weight.flatten(1))
        self.fold = _zeroed(nn.Conv2d(width, channels, _PARTS, stride=_PARTS, bias=False))
        self.mix = _zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, warped: Tensor, previous: Tensor, flow: Tensor) -> Tensor:
        # A patch moves as a whole: where neighbors move apart, a flow between theirs is that of neither.
        finer = F.interpolate(flow * _PARTS, scale_factor=_PARTS, mode="nearest")
        folded: Tensor = self.fold(warp(self.lay_out(previous), finer))
        mixed: Tensor = self.mix(warped)
        return folded + mixed


def _zeroed(layer: nn.Conv2d) -> nn.Conv2d:
    with torch.no_grad():
        layer.weight.zero_()
        if layer.bias is not None:
            layer.bias.zero_()
    return layer
