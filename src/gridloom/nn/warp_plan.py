"""A warp prepared once and applied to several tensors: which cells are read for each cell, and with what weights."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int32
from torch import Tensor
from torch.nn import functional as F

from gridloom.core.errors import DataError
from gridloom.nn.warp import Interpolation, Padding, inside

__all__ = ["WarpPlan"]

_CUBIC = -0.75
"""The parameter of the cubic kernel (Keys 1981) that torch and OpenCV use."""


@dataclass(frozen=True, kw_only=True)
class WarpPlan:
    """What `warp` does with one flow, for inference: latents, their variance and masks are read along the same taps.

    Fastest with many channels stored last (`torch.channels_last`); a tensor stored channels first is copied into that
    order first. The same as `warp` to 1e-5 of the largest value; zero flow and whole shifts are exact to the bit.
    Differentiable in the values, but not in the flow.

    Attributes:
        taps: The cells that are read, counted through the batch: those for the first cell, those for the second, ...
        weights: Their weights; 0 for a tap outside the frame with padding by zeros.
        starts: Where the taps of each cell begin.
        valid: True where the flow is finite and samples inside the frame, as `inside` says.
    """

    taps: Int32[Tensor, " taps"]
    weights: Float[Tensor, " taps"]
    starts: Int32[Tensor, " cells"]
    valid: Bool[Tensor, "batch 1 height width"]

    @classmethod
    def of(
        cls,
        flow: Float[Tensor, "batch 2 height width"],
        *,
        mode: Interpolation = "bilinear",
        padding: Padding = "border",
    ) -> "WarpPlan":
        """Prepare the warp by a flow; arguments as of `warp`. No gradient reaches the flow.

        Raises:
            DataError: The batch has 2^27 cells or more.
        """
        batch, _, height, width = flow.shape
        cells = height * width
        if 16 * batch * cells >= 2**31:
            raise DataError(f"a plan holds fewer than 2^27 cells, got {batch} x {height} x {width}; split the batch")
        with torch.no_grad():
            offsets = flow.to(torch.float32).nan_to_num(0.0, 0.0, 0.0)
            columns, across = _axis(offsets[:, 0], -1, mode, padding)
            rows, down = _axis(offsets[:, 1], -2, mode, padding)
            first = torch.arange(0, batch * cells, cells, dtype=torch.int32, device=flow.device)[:, None, None]
            lines = [row * width + first for row in rows]
            # Planes first and one stack last: products over two or four taps in the last axis are several times slower.
            taps = torch.stack([line + column for line in lines for column in columns], dim=-1)
            weights = torch.stack([one * other for one in down for other in across], dim=-1)
            starts = torch.arange(0, taps.numel(), taps.shape[-1], dtype=torch.int32, device=flow.device)
            return cls(taps=taps.flatten(), weights=weights.flatten(), starts=starts, valid=inside(flow))

    def apply(self, values: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch channel height width"]:
        """Sample values; the result is in their type, stored channels last.

        Args:
            values: On the grid and of the batch size of the flow.

        Raises:
            DataError: They are not.
        """
        batch, channels, height, width = values.shape
        expected = self.valid.shape
        if (batch, height, width) != (expected[0], *expected[-2:]):
            raise DataError(
                f"the plan is for {expected[0]} maps of {expected[-2]} x {expected[-1]} cells, got {batch} of "
                f"{height} x {width}; make one of the flow that belongs to them"
            )
        dtype = torch.promote_types(values.dtype, torch.float32)
        table = values.to(dtype).permute(0, 2, 3, 1).reshape(-1, channels)
        rows = F.embedding_bag(self.taps, table, self.starts, per_sample_weights=self.weights.to(dtype), mode="sum")
        return rows.view(batch, height, width, channels).permute(0, 3, 1, 2).to(values.dtype)


def _axis(offset: Tensor, dim: int, mode: Interpolation, padding: Padding) -> tuple[list[Tensor], list[Tensor]]:
    """Cells along one axis (int32) and their weights, one plane [batch, height, width] for each tap."""
    size = offset.shape[dim]
    cells = torch.arange(size, dtype=torch.float32, device=offset.device)
    place = offset + (cells if dim == -1 else cells[:, None])
    # Farther out all is the same: the border's cell, or nothing. It also keeps whole numbers small enough.
    place = place.clamp(0, size - 1) if padding == "border" and mode != "bicubic" else place.clamp(-3, size + 2)
    whole = place.round() if mode == "nearest" else place.floor()
    shifts, weights = _kernel(place - whole, mode)
    first = whole.to(torch.int32)
    taps = [first + shift for shift in shifts]
    if padding == "zeros":
        weights = [weight * ((tap >= 0) & (tap < size)) for tap, weight in zip(taps, weights, strict=True)]
    return [tap.clamp_(0, size - 1) for tap in taps], weights


def _kernel(fraction: Tensor, mode: Interpolation) -> tuple[tuple[int, ...], list[Tensor]]:
    """Where the taps lie around a cell, and their weights; with a fraction of 0 exactly 1 for the cell itself."""
    if mode == "nearest":
        return (0,), [torch.ones_like(fraction)]
    if mode == "bilinear":
        return (0, 1), [1 - fraction, fraction]

    def near(distance: Tensor) -> Tensor:  # up to 1 cell
        return ((_CUBIC + 2) * distance - (_CUBIC + 3)) * distance * distance + 1

    def far(distance: Tensor) -> Tensor:  # 1 to 2 cells
        return ((_CUBIC * distance - 5 * _CUBIC) * distance + 8 * _CUBIC) * distance - 4 * _CUBIC

    return (-1, 0, 1, 2), [far(fraction + 1), near(fraction), near(1 - fraction), far(2 - fraction)]
