"""Windows: boxes of a dataset, each with an address that leads back to its coordinates."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import xarray as xr

from gridloom.core.errors import DataError, UnknownNameError
from gridloom.grid.axes import CHANNEL, axis_steps, check_time_axis, data_dims, is_time

__all__ = ["Windows", "cut_windows"]


@dataclass(frozen=True, eq=False)
class Windows:
    """Boxes of one size, addressed by a single number; the last dimension varies fastest.

    Attributes:
        dims: Dimensions that are cut, leading first. `channel` is not among them unless it was asked for.
        sizes: Cells of a window along each dimension.
        starts: Where windows may start along each dimension, int64.
    """

    dims: tuple[str, ...]
    sizes: Mapping[str, int]
    starts: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return math.prod(len(self.starts[dim]) for dim in self.dims)

    def first(self, indices: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
        """Return where each window starts along each dimension.

        Raises:
            IndexError: An address outside 0 .. len - 1.
        """
        address = np.asarray(indices, dtype=np.int64)
        if address.size and (address.min() < 0 or address.max() >= len(self)):
            raise IndexError(f"windows go from 0 to {len(self) - 1}, got {address.min()} to {address.max()}")
        places = np.unravel_index(address, tuple(len(self.starts[dim]) for dim in self.dims))
        return {dim: self.starts[dim][place] for dim, place in zip(self.dims, places, strict=True)}

    def slices(self, index: int) -> dict[str, slice]:
        """Return the index range of one window along each dimension."""
        first = self.first([index])
        return {dim: slice(int(first[dim][0]), int(first[dim][0]) + self.sizes[dim]) for dim in self.dims}

    def select(self, dataset: xr.Dataset, index: int) -> xr.Dataset:
        """Return one window with its coordinates. Dimensions keep their place, also where the size is 1."""
        return dataset.isel(self.slices(index), missing_dims="ignore")

    def centers(self, dataset: xr.Dataset, indices: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
        """Return the coordinate of each window's center along each dimension.

        Numbers and datetime64: mean of the first and the last coordinate. Calendar dates and names: the middle one.
        Without a coordinate: the index of the middle.
        """
        return {
            dim: _center(dataset, dim, first, first + self.sizes[dim] - 1) for dim, first in self.first(indices).items()
        }


def _center(dataset: xr.Dataset, dim: str, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    middle = (first + last + 1) // 2
    if dim not in dataset.coords or dataset[dim].dims != (dim,):
        return np.asarray(middle)
    values = dataset[dim].values
    if values.dtype.kind in "mM":
        return np.asarray(values[first] + (values[last] - values[first]) // 2)
    if values.dtype.kind in "iuf" and (first != last).any():
        return np.asarray((values[first].astype(np.float64) + values[last].astype(np.float64)) / 2)
    return np.asarray(values[middle])


def cut_windows(
    dataset: xr.Dataset,
    *,
    sizes: Mapping[str, int],
    strides: Mapping[str, int] | None = None,
    bounds: Mapping[str, tuple[int, int]] | None = None,
    cover: bool = False,
) -> Windows:
    """Cut a dataset into windows.

    A window never straddles a gap in time: a step that is not the constant one, calendar months counting as constant.
    After a gap the cutting starts anew. Nothing is read.

    Args:
        dataset: Its data variables decide which dimensions are cut.
        sizes: Cells along each dimension; 1 where nothing is said (one window per step).
        strides: Cells from one window to the next; the size where nothing is said, so that windows do not overlap.
        bounds: Half-open index ranges to stay in, for instance one part of a split.
        cover: Add a last window that ends where the range (or the stretch between two gaps) ends.

    Raises:
        DataError: A window larger than its range, a size or stride below 1, a range outside the axis, no window at
            all, or a time axis that is unsorted or repeats itself.
        UnknownNameError: A dimension that the data variables do not have.
    """
    strides, bounds = strides or {}, bounds or {}
    dims = tuple(dim for dim in data_dims(dataset) if dim != CHANNEL or CHANNEL in sizes)
    if not dims:
        raise DataError("expected a dataset with a dimension to cut along, got none")
    for given in (sizes, strides, bounds):
        for dim in given:
            if dim not in dims:
                raise UnknownNameError("dimension", dim, dims)
    whole = {dim: int(sizes.get(dim, 1)) for dim in dims}
    starts = {}
    for dim in dims:
        stride = int(strides.get(dim, whole[dim]))
        low, high = bounds.get(dim, (0, dataset.sizes[dim]))
        _check_range(dim, whole[dim], stride, (low, high), dataset.sizes[dim])
        starts[dim] = _starts(_stretches(dataset, dim, low, high), whole[dim], stride, cover)
        if not len(starts[dim]):
            raise DataError(
                f"no window fits: dimension {dim!r} has {high - low} steps from {low} to {high} in "
                f"{len(_stretches(dataset, dim, low, high))} stretches between gaps, none of them {whole[dim]} long; "
                f"use smaller windows, or fill the gaps"
            )
    return Windows(dims=dims, sizes=whole, starts=starts)


def _check_range(dim: str, size: int, stride: int, bounds: tuple[int, int], length: int) -> None:
    low, high = bounds
    if size < 1 or stride < 1:
        raise DataError(f"dimension {dim!r}: size and stride must be at least 1, got size {size} and stride {stride}")
    if not 0 <= low <= high <= length:
        raise DataError(f"dimension {dim!r}: the range {low} to {high} does not lie in its {length} cells")
    if high == low:
        raise DataError(f"dimension {dim!r}: no window fits, the range {low} to {high} is empty")
    if size > high - low:
        raise DataError(
            f"dimension {dim!r}: a window of {size} is larger than the range {low} to {high} ({high - low} cells); "
            f"use a window of at most {high - low}, or more data"
        )


def _stretches(dataset: xr.Dataset, dim: str, low: int, high: int) -> list[tuple[int, int]]:
    """Return the half-open ranges between gaps; the whole range where the dimension is not time."""
    if not is_time(dataset, dim):
        return [(low, high)]
    check_time_axis(dataset, dim)
    axis = axis_steps(dataset, dim)
    breaks = axis.breaks() if axis is not None else np.empty(0, dtype=np.int64)
    edges = [low, *(int(place) for place in breaks if low < place < high), high]
    return list(pairwise(edges))


def _starts(stretches: list[tuple[int, int]], size: int, stride: int, cover: bool) -> np.ndarray:
    if size == 1 and len(stretches) > 1:  # a single step straddles nothing
        stretches = [(stretches[0][0], stretches[-1][1])]
    found = []
    for low, high in stretches:
        starts = np.arange(low, high - size + 1, stride, dtype=np.int64)
        if cover and len(starts) and starts[-1] + size < high:
            starts = np.append(starts, high - size)
        found.append(starts)
    return np.concatenate(found)
