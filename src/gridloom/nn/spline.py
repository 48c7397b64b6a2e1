"""Sampling by cubic B-splines: what is moved again and again stays sharp.

A cubic spline through the values (Unser 1999, "Splines: a perfect fit for signal and image processing", IEEE Signal
Processing Magazine 16) keeps more of the fine detail than bicubic convolution, which counts where a state is sampled at
every frame. Its coefficients come from a short symmetric filter; the spline is then a mean of four bilinear samples of
them (Sigg & Hadwiger 2005, GPU Gems 2, chapter 20).
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

__all__ = ["coefficients", "sample_spline"]

_POLE = 3.0**0.5 - 2.0
_REACH = 10  # taps to each side: the filter has fallen to 2e-6
_MARGIN = 2  # cells beyond the border that samples at the border need


def sample_spline(
    values: Float[Tensor, "batch channel height width"],
    flow: Float[Tensor, "batch 2 height width"],
    bilinear: Callable[[Tensor, Tensor], Tensor],
) -> Float[Tensor, "batch channel height width"]:
    """Sample values at x + flow(x), no further out than the centers of the outermost cells.

    Args:
        values: What is sampled, float32 or more; mirrored at the border.
        flow: Finite offsets (dx, dy) in cells.
        bilinear: Samples a map by a flow on its own grid.
    """
    height, width = values.shape[-2:]
    down, across = torch.meshgrid(
        torch.arange(height, dtype=flow.dtype, device=flow.device),
        torch.arange(width, dtype=flow.dtype, device=flow.device),
        indexing="ij",
    )
    here = torch.stack([across, down])[None]
    place = here + flow
    place = torch.cat([place[:, :1].clamp(0, width - 1), place[:, 1:].clamp(0, height - 1)], dim=1)
    whole = place.floor()
    part = place - whole
    # weights of the four coefficients around a place, two and two taken together as one bilinear sample
    first, last = (1 - part) ** 3 / 6, part**3 / 6
    second = (3 * part**3 - 6 * part**2 + 4) / 6
    third = 1 - first - second - last
    weights = (first + second, third + last)
    places = (whole - 1 + second / weights[0], whole + 1 + last / weights[1])
    padded = coefficients(values)
    found = torch.zeros_like(values)
    for column in (0, 1):
        for row in (0, 1):
            at = torch.cat([places[column][:, :1], places[row][:, 1:]], dim=1) - here
            weight = weights[column][:, :1] * weights[row][:, 1:]
            found = found + weight * _inner(bilinear(padded, F.pad(at, (_MARGIN,) * 4)))
    return found


def coefficients(values: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch channel rows columns"]:
    """Coefficients of the cubic B-spline through values that are mirrored at the border, two more on each side."""
    taps = _taps(values)
    flat = values.flatten(0, 1)[:, None]
    for dim in (2, 3):
        flat = _mirrored(flat, dim, _REACH + _MARGIN)
        shape = (1, 1, -1, 1) if dim == 2 else (1, 1, 1, -1)
        flat = F.conv2d(flat, taps.view(shape))
    return flat[:, 0].reshape(*values.shape[:2], *flat.shape[2:])


def _inner(padded: Tensor) -> Tensor:
    return padded[..., _MARGIN:-_MARGIN, _MARGIN:-_MARGIN]


def _mirrored(values: Tensor, dim: int, count: int) -> Tensor:
    """Go on beyond both ends of an axis as in a mirror; the outermost cell is not repeated."""
    size = values.shape[dim]
    index = torch.arange(-count, size + count, device=values.device)
    # A tensor, since a size that is not known yet cannot divide in an ONNX file.
    period = (2 * torch.arange(size, device=values.device)[-1:]).clamp(min=1)
    index = index.remainder(period)
    return values.index_select(dim, torch.minimum(index, period - index))


def _taps(like: Tensor) -> Tensor:
    """Inverse of the filter (1, 4, 1) / 6. Not kept for later calls: while torch exports it is no real tensor."""
    powers = [_POLE ** abs(distance) for distance in range(-_REACH, _REACH + 1)]
    total = sum(powers)
    return like.new_tensor([power / total for power in powers])
