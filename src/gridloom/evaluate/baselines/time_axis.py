"""Looking backward and forward in time, cell by cell."""

from collections.abc import Callable

import numpy as np
import xarray as xr
from jaxtyping import Float64, Int64

from gridloom.core.errors import DataError
from gridloom.evaluate.baselines.answer import require_dims

__all__ = ["along_time", "next_known", "previous_known", "take", "time_values"]


def along_time(
    given: xr.Dataset,
    wanted: xr.Dataset,
    name: str,
    time_dim: str,
    answer: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> xr.DataArray:
    """Answer one variable from its own series.

    Args:
        given: What may be seen.
        wanted: What is asked. Where both have a coordinate of time, they may cover different ranges of it, as context
            and future of a forecast do.
        name: Variable.
        time_dim: Dimension of time.
        answer: Takes values, [time, ...] float64, and times, [time]; returns an answer for each.
    """
    asked = require_dims(wanted, name, (time_dim,), "wanted")
    seen = require_dims(given, name, (time_dim,), "given").astype(np.float64).transpose(time_dim, ...)
    joined = time_dim in asked.coords and time_dim in seen.coords
    if joined:
        seen = seen.reindex({time_dim: np.union1d(seen[time_dim].values, asked[time_dim].values)})
    elif seen.sizes[time_dim] != asked.sizes[time_dim]:
        raise DataError(
            f"{name!r}: given has {seen.sizes[time_dim]} steps of {time_dim!r}, wanted {asked.sizes[time_dim]}; give "
            f"both a coordinate {time_dim!r} to say which is which"
        )
    answered = seen.copy(data=answer(seen.values, time_values(seen, time_dim)))
    return answered.sel({time_dim: asked[time_dim].values}) if joined else answered


def previous_known(values: Float64[np.ndarray, "time *cells"]) -> Int64[np.ndarray, "time *cells"]:
    """Position of the last finite value strictly before each position; -1 where there is none."""
    position = np.arange(len(values), dtype=np.int64).reshape(-1, *(1,) * (values.ndim - 1))
    latest = np.maximum.accumulate(np.where(np.isfinite(values), position, -1), axis=0)
    return np.concatenate([np.full_like(latest[:1], -1), latest[:-1]])


def next_known(values: Float64[np.ndarray, "time *cells"]) -> Int64[np.ndarray, "time *cells"]:
    """Position of the first finite value strictly after each position; -1 where there is none."""
    mirrored = previous_known(values[::-1])[::-1]
    return np.where(mirrored < 0, -1, len(values) - 1 - mirrored)


def take(
    values: Float64[np.ndarray, "time *cells"], position: Int64[np.ndarray, "time *cells"]
) -> Float64[np.ndarray, "time *cells"]:
    """Values at these positions of their own series; NaN where the position is -1."""
    return np.where(position < 0, np.nan, np.take_along_axis(values, np.maximum(position, 0), axis=0))


def time_values(values: xr.DataArray, dim: str) -> Float64[np.ndarray, " time"]:
    """Times as float64: the coordinate (dates in seconds from the first one), or 0, 1, 2 where there is none."""
    if dim not in values.coords:
        return np.arange(values.sizes[dim], dtype=np.float64)
    times = values[dim].values
    if times.dtype.kind in "mM":
        seconds: np.ndarray = (times - times[0]) / np.timedelta64(1, "s")
        return seconds
    if times.dtype.kind not in "iuf":
        raise DataError(f"coordinate {dim!r}: expected numbers or dates, got {times.dtype}")
    return times.astype(np.float64)
