"""Warping by a flow, exact where the flow is whole: zero flow changes no bit, a whole shift moves the bits.

A flow here is always backward: for each cell of the current frame, the offset (dx, dy) in cells to where the previous
frame is sampled. `torch.nn.functional.grid_sample` does the sampling; what is exact about it is decided by the
coordinates that it gets. It turns a coordinate g into the cell (g + 1) * size / 2 - 1/2 (`align_corners=False`), and
with a size that is a power of two every step of the way there and back is exact for whole cells.
"""

from functools import lru_cache
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from gridloom.core.errors import DataError
from gridloom.nn.spline import sample_spline

__all__ = ["Interpolation", "Padding", "inside", "rescale_flow", "sampling_grid", "warp"]

Interpolation = Literal["bilinear", "bicubic", "spline", "nearest"]
Padding = Literal["border", "zeros"]
_CACHED_GRIDS = 16


def warp(
    values: Float[Tensor, "batch channel height width"],
    flow: Float[Tensor, "batch 2 rows columns"],
    *,
    mode: Interpolation = "bilinear",
    padding: Padding = "border",
) -> Float[Tensor, "batch channel height width"]:
    """Sample values at x + flow(x): the previous frame as it would look now.

    Zero flow gives the values to the bit, and a whole shift moves them to the bit, in all modes. Coordinates and sums
    are in float32 (float64 if the values are) whatever the type of the values; the error of a coordinate is below
    1e-7 times the size of the frame. Differentiable in values and flow; the gradient to the flow is 0 where the sample
    lies outside, and everywhere with `nearest`. While torch exports or compiles, sizes that are no power of two are
    exact only to that coordinate error.

    Args:
        values: What is sampled. A value that is not finite spreads to every sample that has it among its taps, also
            with weight 0.
        flow: Offsets (dx, dy) in cells from the current frame to the previous one, on the grid of the values. Where a
            component is not finite it counts as 0; `inside` is False there.
        mode: `bilinear` has 4 taps; `bicubic` 16 (a = -0.75), and may overshoot; `spline` keeps most detail where it is
            done again and again (see `gridloom.nn.spline`), at about twice the cost of bicubic; `nearest` has one tap,
            halves to even.
        padding: Outside the frame lies the nearest cell of the border, or zeros; `spline` has the border alone.

    Returns:
        Sampled values, in the type of `values`.

    Raises:
        DataError: The flow is on another grid, or a spline with zeros outside.
    """
    if mode == "spline":
        return _warp_spline(values, flow, padding)
    if torch.compiler.is_compiling() or torch.compiler.is_exporting():
        dtype = torch.promote_types(values.dtype, torch.float32)
        grid = sampling_grid(flow.to(dtype), align_corners=False)
        warped = F.grid_sample(values.to(dtype), grid, mode=mode, padding_mode=padding, align_corners=False)
        return warped.to(values.dtype)
    height, width = values.shape[-2:]
    if flow.shape[-2:] != values.shape[-2:]:
        rows, columns = flow.shape[-2:]
        raise DataError(
            f"the flow must be on the grid of the values, {height} x {width} cells, got {rows} x {columns}; "
            "rescale_flow brings it there"
        )
    dtype = torch.promote_types(values.dtype, torch.float32)
    rows, columns = _power_of_two(height), _power_of_two(width)
    source = values.to(dtype)
    if (rows, columns) != (height, width):
        source = F.pad(source, (0, columns - width, 0, rows - height), mode=_PAD_MODES[padding])
    offsets = flow.to(dtype).nan_to_num(0.0, 0.0, 0.0)
    base, scale = _base_grid(height, width, dtype, flow.device)
    # The product is exact, so a whole offset gives the exact coordinate of a cell.
    grid = torch.addcmul(base, offsets, scale).permute(0, 2, 3, 1)
    warped = F.grid_sample(source, grid, mode=mode, padding_mode=padding, align_corners=False)
    return warped.to(values.dtype)


def _warp_spline(values: Tensor, flow: Tensor, padding: Padding) -> Tensor:
    if padding != "border":
        raise DataError(f"a spline is sampled with padding 'border', got {padding!r}")
    source = values.to(torch.promote_types(values.dtype, torch.float32))
    offsets = flow.to(source.dtype).nan_to_num(0.0, 0.0, 0.0)
    sampled = sample_spline(source, offsets, warp)
    whole = (offsets == offsets.round()).all(dim=1, keepdim=True)
    return torch.where(whole, warp(source, offsets, mode="nearest"), sampled).to(values.dtype)


_PAD_MODES: dict[Padding, str] = {"border": "replicate", "zeros": "constant"}


def inside(flow: Float[Tensor, "batch 2 height width"], *, margin: float = 0.0) -> Bool[Tensor, "batch 1 height width"]:
    """True where the flow is finite and x + flow(x) lies in [0, width - 1] x [0, height - 1].

    Args:
        flow: Offsets (dx, dy) in cells.
        margin: Cells by which the limits are wider. A cell reaches half a cell beyond its center: with 0.5 the smallest
            outward motion at a border does not count as leaving the frame.
    """
    height, width = flow.shape[-2:]
    if torch.compiler.is_compiling() or torch.compiler.is_exporting():
        across, down = _cells_from_middle(flow)
        across, down = (flow[:, :1] + across).abs(), (flow[:, 1:] + down).abs()
        return (across <= (width - 1) / 2 + margin) & (down <= (height - 1) / 2 + margin)
    cells, reach = _centered_cells(height, width, margin, flow.dtype, flow.device)
    # A comparison with NaN is False, and infinity is beyond every limit.
    found = (flow + cells).abs() <= reach
    return found[:, :1] & found[:, 1:]


def sampling_grid(
    flow: Float[Tensor, "batch 2 height width"], *, align_corners: bool = True
) -> Float[Tensor, "batch height width 2"]:
    """The `grid` for `torch.nn.functional.grid_sample` that samples at x + flow(x).

    Right for either convention, as long as grid_sample is given the same one; the error is that of float32, about 1e-7
    times the size in cells. Built in the type of the flow: give it float32 or more.

    Args:
        flow: Offsets (dx, dy) in cells; not finite counts as 0.
        align_corners: Whether -1 and 1 are the centers of the outermost cells, or their outer edges. With centers, an
            axis of one cell has no coordinate but that cell's, 0, and offsets along it are lost.
    """
    height, width = flow.shape[-2:]
    across, down = _sampled_places(torch.where(flow.isfinite(), flow, torch.zeros_like(flow)))
    return torch.stack([_normalized(across, width, align_corners), _normalized(down, height, align_corners)], dim=-1)


def rescale_flow(
    flow: Float[Tensor, "batch 2 height width"], size: tuple[int, int]
) -> Float[Tensor, "batch 2 rows columns"]:
    """The same motion on another grid: resampled, and its offsets in the cells of that grid.

    Args:
        flow: Offsets (dx, dy) in cells. A value that is not finite stays so in every cell that it touches.
        size: Rows and columns wanted. An axis that shrinks is averaged over areas, one that grows is bilinear; dx is
            multiplied by the ratio of the widths, dy by that of the heights.

    Raises:
        DataError: A size below 1.
    """
    if min(size) < 1:
        raise DataError(f"size must be rows and columns of at least 1, got {size}")
    height, width = flow.shape[-2:]
    least = (min(size[0], height), min(size[1], width))
    if least != (height, width):
        flow = F.interpolate(flow, size=least, mode="area")
    if least != size:
        flow = F.interpolate(flow, size=size, mode="bilinear", align_corners=False)
    ratio = flow.new_tensor([size[1] / width, size[0] / height])
    return flow * ratio.view(1, 2, 1, 1)


def _cells_from_middle(flow: Tensor) -> tuple[Tensor, Tensor]:
    """Columns [width] and rows [height, 1] of the cells, counted from the middle: whole numbers or halves."""
    height, width = flow.shape[-2:]
    across = torch.arange(width, dtype=flow.dtype, device=flow.device) - (width - 1) / 2
    down = torch.arange(height, dtype=flow.dtype, device=flow.device) - (height - 1) / 2
    return across, down[:, None]


def _sampled_places(flow: Tensor) -> tuple[Tensor, Tensor]:
    """Column and row, [batch, height, width] each, at which every cell is sampled."""
    height, width = flow.shape[-2:]
    across = flow[:, 0] + torch.arange(width, dtype=flow.dtype, device=flow.device)
    down = flow[:, 1] + torch.arange(height, dtype=flow.dtype, device=flow.device)[:, None]
    return across, down


def _normalized(place: Tensor, size: int | torch.SymInt, align_corners: bool) -> Tensor:
    """Cells to grid_sample's coordinates from -1 to 1."""
    if not align_corners:
        return (2.0 * place + 1.0) / size - 1.0
    if size == 1:
        return torch.zeros_like(place)
    return 2.0 * place / (size - 1) - 1.0


def _power_of_two(size: int) -> int:
    """The least power of two that is not below the size."""
    return 1 << (size - 1).bit_length()


@lru_cache(maxsize=_CACHED_GRIDS)
def _base_grid(height: int, width: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Coordinates of the cells in the padded frame, planar [1, 2, height, width], and of one cell's step."""
    with torch.inference_mode(False):  # kept for later calls, which may be under autograd
        scale = torch.tensor([2.0 / _power_of_two(width), 2.0 / _power_of_two(height)], dtype=dtype, device=device)
        scale = scale.view(1, 2, 1, 1)
        across = torch.arange(width, dtype=dtype, device=device).expand(height, width)
        down = torch.arange(height, dtype=dtype, device=device)[:, None].expand(height, width)
        return (torch.stack([across, down])[None] + 0.5) * scale - 1.0, scale


@lru_cache(maxsize=_CACHED_GRIDS)
def _centered_cells(
    height: int, width: int, margin: float, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Columns and rows of the cells, counted from the middle, [1, 2, height, width]; and how far inside reaches."""
    with torch.inference_mode(False):
        across, down = _cells_from_middle(torch.empty(height, width, dtype=dtype, device=device))
        cells = torch.stack([across.expand(height, width), down.expand(height, width)])
        reach = torch.tensor([(width - 1) / 2 + margin, (height - 1) / 2 + margin], dtype=dtype, device=device)
        return cells[None], reach.view(1, 2, 1, 1)
