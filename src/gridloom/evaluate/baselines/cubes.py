"""Variables as cubes [time, y, x]: what the gap-filling baselines share."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float64

from gridloom.core.errors import DataError
from gridloom.evaluate.baselines.answer import answer_each, require_dims
from gridloom.evaluate.baselines.time_axis import time_values
from gridloom.grid.gaps import hide_blocks, transplant_gaps
from gridloom.grid.splits import is_periodic

__all__ = ["Axes", "Cube", "answer_cubes", "hide_alike", "read_axes"]

_YEAR = 365.2425 * 86400


@dataclass(frozen=True, kw_only=True, eq=False)
class Axes:
    """What the axes of a cube [time, y, x] say."""

    times: Float64[np.ndarray, " time"] | None = None
    """Time of each step, in any unit; None for 0, 1, 2."""
    period: float | None = None
    """Length of the yearly cycle in that unit; None for no cycle."""
    periodic: bool = False
    """Whether x closes a circle."""

    def times_of(self, values: np.ndarray) -> np.ndarray:
        """Time of each step of a cube."""
        return np.arange(len(values), dtype=np.float64) if self.times is None else self.times

    def steps_of(self, values: np.ndarray) -> np.ndarray:
        """The same, counted in typical (median) steps."""
        times = self.times_of(values)
        typical = float(np.median(np.abs(np.diff(times)))) if len(times) > 1 else 0.0
        return times / (typical or 1.0)


def read_axes(values: xr.DataArray, time_dim: str, columns: str) -> Axes:
    """What the coordinates of a variable say: dates have a cycle of a year, columns may close a circle."""
    dated = time_dim in values.coords and values[time_dim].dtype.kind == "M"
    return Axes(
        times=time_values(values, time_dim),
        period=_YEAR if dated else None,
        periodic=columns in values.coords and is_periodic(values.to_dataset(name="values"), columns),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Cube:
    """One variable."""

    values: Float64[np.ndarray, "time y x"]
    """Data; NaN is missing, and at times that are only asked for."""
    wanted: Bool[np.ndarray, "time y x"]
    """Where an answer is asked."""
    axes: Axes


def answer_cubes(
    given: xr.Dataset, wanted: xr.Dataset, time_dim: str, fill: Callable[[Cube], np.ndarray]
) -> xr.Dataset:
    """Answer each variable that is asked by cubes of time and its last two other dimensions.

    Args:
        given: What may be seen. Where it and `wanted` have a coordinate of time, they may cover different ranges of it.
        wanted: What is asked.
        time_dim: Dimension of time; dates have a cycle of a year.
        fill: Takes a cube, gives the answers at all its cells. Dimensions beyond three are gone through one by one.
    """

    def answer(name: str) -> xr.DataArray:
        asked = require_dims(wanted, name, (time_dim,), "wanted")
        seen = require_dims(given, name, (time_dim,), "given")
        if asked.ndim < 3 or set(asked.dims) != set(seen.dims):
            raise DataError(f"{name!r}: expected time and two dimensions of space, got {seen.dims} and {asked.dims}")
        space = [str(dim) for dim in asked.dims if dim != time_dim]
        dims = (*space[:-2], time_dim, *space[-2:])
        seen, asked = seen.astype(np.float64).transpose(*dims), asked.astype(bool).transpose(*dims)
        here = asked[time_dim].values if time_dim in asked.coords and time_dim in seen.coords else None
        if here is not None:
            union = np.union1d(seen[time_dim].values, here)
            seen = seen.reindex({time_dim: union})
            asked = asked.reindex({time_dim: union}, fill_value=False)
        if seen.shape != asked.shape:
            raise DataError(f"{name!r}: expected given and wanted of one size, got {seen.shape} and {asked.shape}")
        axes = read_axes(seen, time_dim, dims[-1])
        values = np.where(np.isfinite(seen.values), seen.values, np.nan).reshape(-1, *seen.shape[-3:])
        pairs = zip(values, asked.values.reshape(values.shape), strict=True)
        filled = np.stack([fill(Cube(values=cube, wanted=where, axes=axes)) for cube, where in pairs])
        answered = seen.copy(data=filled.reshape(seen.shape))
        return answered if here is None else answered.sel({time_dim: here})

    return answer_each(wanted, answer)


def hide_alike(observed: Bool[np.ndarray, "time y x"], seed: int) -> Bool[np.ndarray, "time y x"]:
    """Hide a tenth of the observed cells, in the shape of the gaps there are; in boxes where they hardly change."""
    gaps = ~observed & observed.any(axis=0)
    if gaps.sum() < 0.01 * observed.sum():
        return hide_blocks(observed, share=0.1, seed=seed)
    return transplant_gaps(observed, share=0.1, seed=seed)
