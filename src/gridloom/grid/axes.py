"""What an axis says about itself: whether it is time or space, how it steps, where it breaks."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import xarray as xr

from gridloom.core.errors import DataError, UnknownNameError

__all__ = [
    "CHANNEL",
    "AxisSteps",
    "axis_steps",
    "check_time_axis",
    "check_timezone",
    "data_dims",
    "first_three",
    "is_latitude",
    "is_longitude",
    "is_time",
    "numeric_variables",
    "spatial_dims",
    "time_dim",
]

CHANNEL = "channel"
"""A dimension of this name holds several quantities at one place; windows and batches keep it whole."""

_TIME_NAMES = frozenset(
    ("time", "t", "date", "datetime", "valid_time", "year", "month", "week", "day", "day_of_year", "hour")
)
_TIME_KINDS = frozenset(("time", "forecast_reference_time"))
_DAYS_PER = {"day": 1.0, "hour": 1 / 24, "hr": 1 / 24, "h": 1 / 24, "minute": 1 / 1440, "min": 1 / 1440}
_DAYS_PER |= {"d": 1.0, "second": 1 / 86400, "sec": 1 / 86400, "s": 1 / 86400, "week": 7.0}
_CALENDAR_STEPS = ((28, 31), (89, 92), (181, 184), (365, 366))  # month, quarter, half year, year: in days
_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class AxisSteps:
    """Differences between neighbors of an axis.

    Attributes:
        steps: One less than the axis is long; in days where `in_days`, else in the axis's own units.
        in_days: Whether the axis is a time whose unit is known.
    """

    steps: np.ndarray
    in_days: bool

    @property
    def order(self) -> str:
        """`ascending`, `descending` or `unsorted`; equal neighbors do not count."""
        if np.isnan(self.steps).any():
            return "unsorted"
        if (self.steps >= 0).all():
            return "ascending"
        return "descending" if (self.steps <= 0).all() else "unsorted"

    @property
    def typical(self) -> float:
        """Median step, as one of the steps that occur; NaN for an axis of one."""
        moved = np.sort(self.steps[self.steps != 0])
        return float(moved[(len(moved) - 1) // 2]) if len(moved) else float("nan")

    @property
    def duplicates(self) -> np.ndarray:
        """Indices whose value equals the one before."""
        return np.flatnonzero(self.steps == 0) + 1

    def breaks(self) -> np.ndarray:
        """Indices before which the step is not the constant one. Calendar months and years are constant."""
        typical = self.typical
        regular = np.abs(self.steps - typical) <= _TOLERANCE * abs(typical)
        if self.in_days:
            for low, high in _CALENDAR_STEPS:
                if low - 0.01 <= typical <= high + 0.01:
                    regular |= (self.steps >= low - 0.01) & (self.steps <= high + 0.01)
        return np.flatnonzero(~regular) + 1

    def gaps(self) -> np.ndarray:
        """Indices before which at least half a typical step is missing (a Gaussian grid has none)."""
        return np.flatnonzero(np.abs(self.steps) >= 1.5 * abs(self.typical)) + 1


def _is_date(values: np.ndarray) -> bool:
    """Whether an object array holds dates of some calendar (those of cftime, or anything that looks like them)."""
    return (
        values.dtype == object and values.size > 0 and all(hasattr(values.flat[0], name) for name in ("month", "day"))
    )


def check_timezone(name: str, coordinate: xr.DataArray) -> None:
    """Refuse a time axis that carries a time zone: neither netCDF nor numpy can hold one.

    Raises:
        DataError: Names the axis and the line that mends it.
    """
    aware = not isinstance(coordinate.dtype, np.dtype)
    if not aware and coordinate.dtype == object and coordinate.size:
        aware = getattr(coordinate.values.flat[0], "tzinfo", None) is not None
    if aware:
        raise DataError(
            f"axis {name!r}: expected times without a time zone, got {coordinate.dtype}; convert to UTC first: "
            f"data.assign_coords({name}=data.indexes[{name!r}].tz_convert(None))"
        )


def _unit_in_days(coordinate: xr.DataArray) -> float | None:
    """Length of one unit of `UNIT since DATE` in days; None where the axis is no such."""
    unit, separator, _ = str(coordinate.attrs.get("units", "")).partition(" since ")
    unit = unit.strip().lower()
    return _DAYS_PER.get(unit, _DAYS_PER.get(unit.rstrip("s"))) if separator else None


def axis_steps(dataset: xr.Dataset, dim: str) -> AxisSteps | None:
    """Return the steps of a dimension's coordinate; None where it has none, or one of names."""
    if dim not in dataset.coords or dataset[dim].dims != (dim,):
        return None
    coordinate = dataset[dim]
    check_timezone(dim, coordinate)
    values = coordinate.values
    if values.dtype.kind in "mM":
        missing = np.isnat(values)
        steps = np.diff(values) / np.timedelta64(1, "D")
        steps[missing[1:] | missing[:-1]] = np.nan
        return AxisSteps(steps, in_days=True)
    if _is_date(values):
        seconds = [(later - earlier).total_seconds() for earlier, later in pairwise(values)]
        return AxisSteps(np.array(seconds, dtype=np.float64) / 86400, in_days=True)
    if values.dtype.kind not in "iuf":
        return None
    scale = _unit_in_days(coordinate)
    return AxisSteps(np.diff(values.astype(np.float64)) * (scale or 1.0), in_days=scale is not None)


def _time_rank(dataset: xr.Dataset, dim: str) -> int:
    """3: its values are times; 2: its attributes say so; 1: only its name does; 0: no time."""
    if dim in dataset.coords and dataset[dim].dims == (dim,):
        coordinate = dataset[dim]
        if not isinstance(coordinate.dtype, np.dtype) or coordinate.dtype.kind == "M":
            return 3
        if coordinate.dtype == object and _is_date(coordinate.values):
            return 3
        attrs = coordinate.attrs
        if " since " in str(attrs.get("units", "")) or attrs.get("standard_name") in _TIME_KINDS:
            return 2
        if attrs.get("axis") == "T":
            return 2
    return int(dim.lower() in _TIME_NAMES)


def is_time(dataset: xr.Dataset, dim: str) -> bool:
    """Whether a dimension is time: by its values, its CF attributes, or its name."""
    return _time_rank(dataset, dim) > 0


def time_dim(dataset: xr.Dataset) -> str | None:
    """Return the dimension that is time, the surest first; None if there is none.

    Sure are datetime64 and calendar dates (cftime), then `units` like "days since ..." or a CF standard name, then a
    name such as time, t, date, month.
    """
    ranks = {str(dim): _time_rank(dataset, str(dim)) for dim in data_dims(dataset)}
    best = max(ranks, key=lambda dim: ranks[dim], default=None)
    return best if best is not None and ranks[best] else None


def _is_angle(dataset: xr.Dataset, dim: str, kind: str, direction: str) -> bool:
    attrs = dataset[dim].attrs if dim in dataset.coords else {}
    if attrs.get("standard_name") == kind or dim.lower() in (kind, kind[:3]):
        return True
    unit = str(attrs.get("units", "")).lower()  # CF knows degrees_north, degree_N, degreesN and so on
    return unit.startswith("degree") and unit.removeprefix("degree").strip("s_") in (direction, direction[0])


def is_latitude(dataset: xr.Dataset, dim: str) -> bool:
    """Whether a dimension is latitude: by its standard name, its units (degrees_north) or its name."""
    return _is_angle(dataset, dim, "latitude", "north")


def is_longitude(dataset: xr.Dataset, dim: str) -> bool:
    """Whether a dimension is longitude: by its standard name, its units (degrees_east) or its name."""
    return _is_angle(dataset, dim, "longitude", "east")


def data_dims(dataset: xr.Dataset) -> tuple[str, ...]:
    """Return the dimensions of the data variables, those of the variable with the most first."""
    found: dict[str, None] = {}
    for variable in sorted(dataset.data_vars.values(), key=lambda item: -item.ndim):
        found.update((str(dim), None) for dim in variable.dims)
    return tuple(found)


def numeric_variables(dataset: xr.Dataset, variables: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the variables asked for; without any asked, all that hold numbers.

    Raises:
        UnknownNameError: A variable that is not there.
        DataError: A variable that does not hold numbers, or no variable that does.
    """
    known = [str(name) for name in dataset.data_vars]
    for name in variables:
        if name not in known:
            raise UnknownNameError("variable", name, known)
        if dataset[name].dtype.kind not in "biuf":
            raise DataError(f"variable {name!r}: expected numbers, got {dataset[name].dtype}; leave it out")
    chosen = tuple(variables) or tuple(name for name in known if dataset[name].dtype.kind in "biuf")
    if not chosen:
        raise DataError(f"expected a variable that holds numbers, got {', '.join(known) or 'none'}")
    return chosen


def spatial_dims(dataset: xr.Dataset, variables: Sequence[str] = ()) -> tuple[str, str]:
    """Return the last two dimensions of the first variable asked for (of the one with the most, if none is).

    Raises:
        DataError: A variable with fewer than two dimensions, or whose last two differ from the first one's.
    """
    chosen = numeric_variables(dataset, variables)
    if not variables:
        chosen = tuple(sorted(chosen, key=lambda name: -dataset[name].ndim))[:1]
    dims = tuple(str(dim) for dim in dataset[chosen[0]].dims)
    if len(dims) < 2:
        raise DataError(f"variable {chosen[0]!r}: expected two dimensions or more, got {dims or 'a single number'}")
    for name in chosen:
        if tuple(dataset[name].dims[-2:]) != dims[-2:]:
            raise DataError(
                f"variables must share their last two dimensions: {chosen[0]!r} has {dims[-2:]}, "
                f"{name!r} has {tuple(dataset[name].dims[-2:])}; choose variables that fit, or transpose"
            )
    return dims[-2], dims[-1]


def first_three(values: np.ndarray, indices: np.ndarray) -> tuple[str, ...]:
    """Name the values at the first three indices, for messages."""
    return tuple(str(values[index]) for index in indices[:3])


def check_time_axis(dataset: xr.Dataset, dim: str) -> None:
    """Refuse a time axis on which neighbors in the file are not neighbors in time.

    Raises:
        DataError: Times with a zone, repeated, unsorted or descending; names the first and what mends them.
    """
    axis = axis_steps(dataset, dim)
    if axis is None or not len(axis.steps):
        return
    values = dataset[dim].values
    if axis.order != "ascending":
        where = np.flatnonzero(~(axis.steps >= 0)) + 1
        raise DataError(
            f"time axis {dim!r} is {axis.order}: {len(where)} times do not come after the one before, first at index "
            f"{where[0]} ({values[where[0]]}); sort first: data.sortby({dim!r})"
        )
    if len(axis.duplicates):
        raise DataError(
            f"time axis {dim!r} repeats {len(axis.duplicates)} times, first "
            f"{', '.join(first_three(values, axis.duplicates))}; drop them first: data.drop_duplicates({dim!r})"
        )
