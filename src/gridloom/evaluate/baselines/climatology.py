"""What is usual at this time of the year, the week or the day."""

import numpy as np
import xarray as xr

from gridloom.core.errors import ConfigError, DataError, UnknownNameError
from gridloom.evaluate.baselines.answer import answer_each, global_means, mean_over, require_dims

__all__ = ["Climatology", "SlotMean"]


class SlotMean:
    """Answers with the history's mean of the same cell in the same slot: minute of the day, hour of the week, month.

    A slot (or a cell in it) that the history does not know takes the cell's mean over all slots, then the mean of
    everything.
    """

    def __init__(self, history: xr.Dataset, slot: str) -> None:
        """Average the history.

        Args:
            history: Training part in data units; NaN is missing.
            slot: Name of a coordinate with the slot of each step along one dimension. `wanted` must have it too; there
                it may have any number of dimensions (window and lead).
        """
        self.slot = slot
        labels = _slot_labels(history, slot, "history")
        if labels.ndim != 1:
            raise DataError(f"history: coordinate {slot!r} must have one dimension, got {labels.dims}")
        self._table = _SlotTable(history, labels)

    def predict(self, given: xr.Dataset, wanted: xr.Dataset) -> xr.Dataset:
        """Answer every cell of `wanted`; `given` is not looked at."""
        labels = _slot_labels(wanted, self.slot, "wanted")
        return answer_each(wanted, lambda name: self._table.look_up(name, labels))


class Climatology:
    """Answers with the history's mean of the same cell at the same phase of a cycle.

    Where the history does not know the phase, the cell's mean over all phases is taken, then the mean of everything.
    """

    def __init__(
        self, history: xr.Dataset, *, time_dim: str = "time", part: str | None = None, period: int | float | None = None
    ) -> None:
        """Average the history.

        Args:
            history: Training part in data units; NaN is missing.
            time_dim: Dimension and coordinate of time.
            part: For dates: the part that makes the phase, `month`, `dayofyear`, `hour` (any of xarray's `.dt`).
            period: For numbers: length of the cycle in the coordinate's unit; the phase is the whole part of the time
                modulo the period. With neither part nor period there is one phase: the mean over all times.
        """
        if part is not None and period is not None:
            raise ConfigError(f"climatology: expected part or period, got both (part {part!r}, period {period})")
        self.time_dim, self.part, self.period = time_dim, part, period
        self._table = _SlotTable(history, self._phase(history, "history"))

    def predict(self, given: xr.Dataset, wanted: xr.Dataset) -> xr.Dataset:
        """Answer every cell of `wanted`; `given` is not looked at."""
        labels = self._phase(wanted, "wanted")
        return answer_each(wanted, lambda name: self._table.look_up(name, labels))

    def _phase(self, dataset: xr.Dataset, what: str) -> xr.DataArray:
        """Phase of each time."""
        if self.part is None and self.period is None:
            if self.time_dim not in dataset.dims:
                raise DataError(f"{what}: expected a dimension {self.time_dim!r}, got {sorted(map(str, dataset.dims))}")
            return xr.DataArray(np.zeros(dataset.sizes[self.time_dim], dtype=np.int64), dims=self.time_dim)
        times = _slot_labels(dataset, self.time_dim, what)
        if self.part is not None:
            if times.dtype.kind != "M":
                raise DataError(f"{what}: part {self.part!r} needs dates in {self.time_dim!r}, got {times.dtype}")
            if self.part.startswith("_") or not hasattr(times.dt, self.part):
                raise UnknownNameError(
                    "part of a date", self.part, ("month", "dayofyear", "season", "dayofweek", "hour")
                )
            return xr.DataArray(getattr(times.dt, self.part))
        if times.dtype.kind not in "iuf":
            raise DataError(f"{what}: period needs numbers in {self.time_dim!r}, got {times.dtype}; use part for dates")
        return times.copy(data=np.floor(times.values % self.period).astype(np.int64))


class _SlotTable:
    """Means of each variable by slot and cell."""

    def __init__(self, history: xr.Dataset, labels: xr.DataArray) -> None:
        (dim,) = labels.dims
        self.slots, position = np.unique(labels.values, return_inverse=True)
        self._overall = global_means(history)
        self._means: dict[str, xr.DataArray] = {}
        self._tables: dict[str, xr.DataArray] = {}
        for name in history.data_vars:
            values = require_dims(history, str(name), (str(dim),), "history")
            overall = mean_over(values, (str(dim),)).fillna(self._overall[str(name)])
            tables = _means(values, str(dim), position, len(self.slots), overall)
            self._means[str(name)] = overall
            self._tables[str(name)] = tables

    def look_up(self, name: str, labels: xr.DataArray) -> xr.DataArray:
        """Means at these slots; the mean over all slots for one that is not known."""
        if name not in self._tables:
            raise DataError(f"expected one of the history's variables {sorted(self._tables)}, got {name!r}")
        position = np.searchsorted(self.slots, labels.values).clip(max=len(self.slots) - 1)
        position = np.where(self.slots[position] == labels.values, position, len(self.slots))
        return self._tables[name].isel({_SLOT_DIM: xr.DataArray(position, dims=labels.dims)})


_SLOT_DIM = "_slot"


def _means(values: xr.DataArray, dim: str, position: np.ndarray, num_slots: int, overall: xr.DataArray) -> xr.DataArray:
    """Mean of each slot and cell, then the mean over all slots, which takes the place of what is not known."""
    rest = tuple(str(name) for name in values.dims if name != dim)
    ordered = values.transpose(dim, *rest).values
    last = overall.transpose(*rest).values
    tables = np.empty((num_slots + 1, *last.shape))
    for slot in range(num_slots):
        members = ordered[position == slot].astype(np.float64)
        known = np.isfinite(members)
        count = known.sum(axis=0)
        total = np.where(known, members, 0.0).sum(axis=0)
        tables[slot] = np.where(count > 0, total / np.maximum(count, 1), last)
    tables[num_slots] = last
    return xr.DataArray(tables, dims=(_SLOT_DIM, *rest), attrs=overall.attrs)


def _slot_labels(dataset: xr.Dataset, name: str, what: str) -> xr.DataArray:
    """A coordinate without its own coordinates, so that only dimensions count."""
    if name not in dataset.coords:
        raise DataError(f"{what}: expected a coordinate {name!r}, got {sorted(map(str, dataset.coords))}")
    return dataset[name].drop_vars(dataset[name].coords)
