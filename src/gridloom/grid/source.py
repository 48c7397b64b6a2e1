"""Batches from a dataset: what is missing becomes a mask, what is a window becomes a sample."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
import xarray as xr

from gridloom.core.batch import Batch, Field
from gridloom.core.contracts import Source
from gridloom.core.errors import DataError, UnknownNameError
from gridloom.core.random import window_keys
from gridloom.grid.axes import CHANNEL, numeric_variables
from gridloom.grid.blocks import Positions, blocks, calendar_positions
from gridloom.grid.normalize import Normalizer
from gridloom.grid.windows import Windows

__all__ = ["GridSource", "SubsetSource"]


class GridSource:
    """Windows of a dataset as batches with one field; a `core.contracts.Source`.

    The field is [batch, channel, *dimensions of the windows], float32 and normalized. Channels are the variables in
    order; a variable with a dimension `channel` gives one for each. Dimensions in which a window has one cell are left
    out. A variable that lacks a dimension is repeated along it.
    """

    def __init__(  # noqa: PLR0913 - each is one thing that a batch depends on
        self,
        dataset: xr.Dataset,
        *,
        variables: tuple[str, ...],
        windows: Windows,
        normalizer: Normalizer,
        seed: int,
        field: str = "image",
        label: str | None = None,
        keep_dims: tuple[str, ...] = (),
        memory_bytes: int = 2 * 1024**3,
    ) -> None:
        """Check what is asked, and read the data if it fits.

        Args:
            dataset: Data in its own units; NaN is missing.
            variables: Variables that make the channels.
            windows: Cut from this dataset.
            normalizer: Has steps for every variable.
            seed: Seed of the run; the keys of the samples come from it.
            field: Name of the field in the batch.
            label: Coordinate that `coordinates` gives too, at the center of each window.
            keep_dims: Dimensions that stay although a window has one cell there.
            memory_bytes: What the windows reach is read once and kept as normalized float32 if it is no larger than
                this; else each window is read when it is asked for. The batches are the same.

        Raises:
            UnknownNameError: A variable, a label or a dimension that is not there.
            DataError: A variable that does not hold numbers.
        """
        self._variables = numeric_variables(dataset, variables)
        for name in self._variables:
            if name not in normalizer.variables:
                raise UnknownNameError("normalized variable", name, normalizer.variables)
        for dim in keep_dims:
            if dim not in windows.dims:
                raise UnknownNameError("dimension", dim, windows.dims)
        if label is not None and label not in dataset.coords:
            raise UnknownNameError("coordinate", label, [str(name) for name in dataset.coords])
        self._dataset, self._windows, self._normalizer = dataset, windows, normalizer
        self._seed, self._field, self._label = seed, field, label
        self._kept = tuple(dim for dim in windows.dims if windows.sizes[dim] > 1 or dim in keep_dims)
        cyclic = any(normalizer.needs_position(name) for name in self._variables)
        self._positions: Positions | None = calendar_positions(dataset) if cyclic else None
        self._grids = {name: self._ordered(name) for name in self._variables}
        self._reach = {
            dim: (int(windows.starts[dim].min()), int(windows.starts[dim].max()) + windows.sizes[dim])
            for dim in windows.dims
        }
        needed = 4 * sum(math.prod(self._shape(grid)) for grid in self._grids.values())
        self._memory = {name: self._load(name) for name in self._variables} if needed <= memory_bytes else None

    def __len__(self) -> int:
        return len(self._windows)

    @property
    def windows(self) -> Windows:
        """The windows, by address."""
        return self._windows

    @property
    def in_memory(self) -> bool:
        """Whether the data was read once and kept."""
        return self._memory is not None

    def collate(self, windows: Sequence[int], epoch: int) -> Batch:
        """Read windows. Safe to call from several threads; the same windows always give the same numbers."""
        sizes = self._windows.sizes
        channels = sum(self._num_channels(name) for name in self._variables)
        values = np.empty((len(windows), channels, *(sizes[dim] for dim in self._windows.dims)), dtype=np.float32)
        for index, target in zip(windows, values, strict=True):
            self._read(index, target)
        values = values.reshape(len(windows), channels, *(sizes[dim] for dim in self._kept))
        valid = np.isfinite(values)
        np.copyto(values, 0.0, where=~valid)
        return Batch(
            fields={self._field: Field(values=torch.from_numpy(values), valid=torch.from_numpy(valid))},
            features={},
            window=torch.tensor(list(windows), dtype=torch.int64),
            key=window_keys(self._seed, epoch, windows),
        )

    def coordinates(self, windows: Sequence[int]) -> Mapping[str, np.ndarray]:
        """Return the center of each window along every dimension, and its label."""
        found: dict[str, np.ndarray] = dict(self._windows.centers(self._dataset, windows))
        if self._label is not None:
            label = self._dataset[self._label]
            first = self._windows.first(windows)
            middle = {dim: ("window", first[dim] + self._windows.sizes[dim] // 2) for dim in first if dim in label.dims}
            chosen = label.isel(middle).values
            found[self._label] = np.broadcast_to(chosen, (len(windows),)) if chosen.ndim == 0 else chosen
        return found

    def _ordered(self, name: str) -> xr.DataArray:
        """Return a variable with the channel first and the dimensions of the windows in their order."""
        grid = self._dataset[name]
        own = tuple(dim for dim in self._windows.dims if dim in grid.dims)
        channel = (CHANNEL,) if CHANNEL in grid.dims and CHANNEL not in own else ()
        strange = [str(dim) for dim in grid.dims if dim not in (*own, *channel)]
        if strange:
            raise DataError(f"variable {name!r}: its dimensions {strange} are not cut by the windows; cut them anew")
        return grid.transpose(*channel, *own)

    def _shape(self, grid: xr.DataArray) -> list[int]:
        sizes = {str(dim): size for dim, size in grid.sizes.items()}
        return [high - low for low, high in (self._reach.get(dim, (0, size)) for dim, size in sizes.items())]

    def _load(self, name: str) -> np.ndarray:
        """Read and normalize what the windows reach, block by block."""
        grid = self._grids[name]
        loaded = np.empty(self._shape(grid), dtype=np.float32)
        filled = 0
        for ranges, values in blocks(grid, self._reach):
            normalized = self._normalize(name, values, ranges)
            if not ranges:
                return normalized
            loaded[filled : filled + len(normalized)] = normalized
            filled += len(normalized)
        return loaded

    def _normalize(self, name: str, values: np.ndarray, ranges: Mapping[str, slice]) -> np.ndarray:
        position = None
        if self._positions is not None and self._normalizer.needs_position(name):
            position = self._positions.along(self._grids[name].dims, ranges)
        return self._normalizer.apply(name, values, position=position)

    def _read(self, index: int, target: np.ndarray) -> None:
        """Write one window into [channel, *dimensions of the windows], NaN where missing."""
        slices = self._windows.slices(index)
        channel = 0
        for name in self._variables:
            grid = self._grids[name]
            own = {str(dim): slices[str(dim)] for dim in grid.dims if dim in slices}
            if self._memory is None:
                values = self._normalize(name, grid.isel(own).values, own)
            else:
                moved = [_moved(own.get(str(dim)), self._reach.get(str(dim))) for dim in grid.dims]
                values = self._memory[name][tuple(moved)]
            count = self._num_channels(name)
            cells = [self._windows.sizes[dim] if dim in own else 1 for dim in self._windows.dims]
            np.copyto(target[channel : channel + count], values.reshape(count, *cells))
            channel += count

    def _num_channels(self, name: str) -> int:
        grid = self._grids[name]
        return grid.sizes[CHANNEL] if CHANNEL in grid.dims and CHANNEL not in self._windows.dims else 1


def _moved(place: slice | None, reach: tuple[int, int] | None) -> slice:
    """Shift an index range of the dataset to one of what is in memory."""
    if place is None or reach is None:
        return slice(None)
    return slice(place.start - reach[0], place.stop - reach[0])


class SubsetSource:
    """Chosen windows of a source, as a source: addresses are new, keys and numbers stay."""

    def __init__(self, source: Source, indices: Sequence[int] | np.ndarray) -> None:
        """Choose windows.

        Args:
            source: Any source.
            indices: Addresses in it, in the order wanted.

        Raises:
            DataError: No address, or one outside of the source.
        """
        self._source = source
        self._indices = np.asarray(indices, dtype=np.int64)
        if not len(self._indices) or self._indices.min() < 0 or self._indices.max() >= len(source):
            raise DataError(f"expected addresses between 0 and {len(source) - 1}, got {list(indices)[:5]!r}")

    def __len__(self) -> int:
        return len(self._indices)

    def collate(self, windows: Sequence[int], epoch: int) -> Batch:
        """Read windows; their keys are those of the whole source."""
        batch = self._source.collate(self._inner(windows), epoch)
        return replace(batch, window=torch.tensor(list(windows), dtype=torch.int64))

    def coordinates(self, windows: Sequence[int]) -> Mapping[str, np.ndarray]:
        """Return where the windows lie."""
        return self._source.coordinates(self._inner(windows))

    def _inner(self, windows: Sequence[int]) -> list[int]:
        chosen: list[int] = self._indices[list(windows)].tolist()
        return chosen
