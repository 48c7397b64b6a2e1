"""Going through a variable in blocks that fit into memory."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from gridloom.core.errors import DataError
from gridloom.grid.axes import time_dim

__all__ = ["Positions", "blocks", "calendar_positions"]

_BLOCK_BYTES = 64 * 1024 * 1024


def blocks(
    variable: xr.DataArray, bounds: Mapping[str, tuple[int, int]], *, block_bytes: int = _BLOCK_BYTES
) -> Iterator[tuple[dict[str, slice], np.ndarray]]:
    """Yield a variable's blocks along its first dimension, with the index ranges they come from.

    Args:
        variable: Read from file block by block, if it is not in memory.
        bounds: Half-open index ranges to stay in; dimensions that the variable does not have are ignored.
        block_bytes: Size to aim at, counted as float64; a block has at least one step.
    """
    dims = [str(dim) for dim in variable.dims]
    ranges = {dim: slice(*bounds.get(dim, (0, variable.sizes[dim]))) for dim in dims}
    chosen = variable.isel(ranges)
    if not dims:
        yield {}, chosen.values
        return
    row_bytes = max(1, 8 * chosen.size // max(1, chosen.shape[0]))
    rows = max(1, block_bytes // row_bytes)
    low, high = ranges[dims[0]].start, ranges[dims[0]].stop
    for start in range(low, high, rows):
        stop = min(start + rows, high)
        yield {**ranges, dims[0]: slice(start, stop)}, variable.isel({**ranges, dims[0]: slice(start, stop)}).values


@dataclass(frozen=True, eq=False)
class Positions:
    """Where each step of the time axis stands in its cycle.

    Attributes:
        dim: The time dimension.
        count: Number of positions in the cycle.
        values: Position of each step, int64.
    """

    dim: str
    count: int
    values: np.ndarray

    def along(self, dims: Sequence[Hashable], ranges: Mapping[str, slice]) -> np.ndarray:
        """Return the positions of a box, shaped to broadcast to it.

        Args:
            dims: Dimensions of the box, the time dimension among them.
            ranges: Index range of the box along the time dimension.
        """
        chosen = self.values[ranges[self.dim]]
        return chosen.reshape([-1 if dim == self.dim else 1 for dim in dims])


def calendar_positions(dataset: xr.Dataset) -> Positions:
    """Return the position in the climatology of each step of the time axis.

    Times: month of the year, 12 positions. A `month` axis of numbers 1 to 12: the same. Any other: its own index, one
    position per step.

    Raises:
        DataError: No dimension is time.
    """
    dim = time_dim(dataset)
    if dim is None:
        raise DataError(f"a climatology needs a time dimension, got {', '.join(map(str, dataset.dims)) or 'none'}")
    size = dataset.sizes[dim]
    own = Positions(dim=dim, count=size, values=np.arange(size))
    if dim not in dataset.coords:
        return own
    values = dataset[dim].values
    if values.dtype.kind == "M":
        return Positions(dim=dim, count=12, values=values.astype("datetime64[M]").astype(np.int64) % 12)
    if values.dtype == object and hasattr(values[0], "month"):
        return Positions(dim=dim, count=12, values=np.array([value.month - 1 for value in values], dtype=np.int64))
    if dim.lower() == "month" and bool(np.isin(values, np.arange(1, 13)).all()):
        return Positions(dim=dim, count=12, values=values.astype(np.int64) - 1)
    return own
