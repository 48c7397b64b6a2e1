"""Looking at data before anything is trained on it: what is in it, what is odd, how to split it, what to run."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from gridloom.core.config import to_dict
from gridloom.core.errors import DataError
from gridloom.grid.axes import (
    CHANNEL,
    axis_steps,
    first_three,
    is_latitude,
    is_time,
    numeric_variables,
    spatial_dims,
    time_dim,
)
from gridloom.grid.blocks import blocks
from gridloom.grid.pad import fits_window, pad_to_windows
from gridloom.grid.prepare import GridConfig, choose_split, open_fields
from gridloom.grid.splits import Splits, decorrelation_length, is_periodic
from gridloom.grid.statistics import Moments

__all__ = ["Diagnosis", "DimReport", "VariableReport", "diagnose", "spatial_dims", "time_dim"]

_MAX_ELEMENTS = 1 << 22
_LARGEST_WINDOW = 128
_SMALLEST_WINDOW = 32
_BLOCKING = ("every cell is missing", "unsorted", "duplicates", "is empty")


@dataclass(frozen=True, kw_only=True)
class VariableReport:
    """What a variable holds."""

    dims: tuple[str, ...]
    """Its dimensions."""
    shape: tuple[int, ...]
    """Cells along each."""
    dtype: str
    """Type of its numbers, after decoding."""
    units: str
    """Its attribute `units`; empty if there is none."""
    missing: float
    """Share of missing cells, 0 to 1."""
    constant: bool
    """Whether all cells that are there are equal."""
    minimum: float | None
    """Smallest value; None where every cell is missing, as for the two below."""
    maximum: float | None
    """Largest value."""
    mean: float | None
    """Mean."""


@dataclass(frozen=True, kw_only=True)
class DimReport:
    """What a dimension looks like."""

    size: int
    """Number of cells."""
    first: str
    """First coordinate; empty where there is no coordinate, as for the three below."""
    last: str
    """Last coordinate."""
    step: str
    """Typical step, with `days` where it is a time."""
    order: str
    """`ascending`, `descending` or `unsorted`."""
    num_gaps: int
    """Time: steps that are not the constant one. Else: steps of at least one and a half typical ones."""
    gaps: tuple[str, ...]
    """The first three coordinates after a gap."""
    num_duplicates: int
    """Coordinates that equal the one before or, in an unsorted axis, any other."""
    duplicates: tuple[str, ...]
    """The first three of them."""
    periodic: bool
    """Whether it closes the circle of 360 degrees."""
    calendar: str
    """Calendar of a time axis; empty for others."""
    decorrelation: int
    """Decorrelation length in cells, the longest among the variables."""


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What `gridloom check` shows."""

    variables: Mapping[str, VariableReport]
    """Variables by name."""
    dims: Mapping[str, DimReport]
    """Dimensions by name."""
    split: Splits | None
    """A proposed split; None where the data is too small for any."""
    command: str
    """A command line to start from; empty where no variable has two dimensions."""
    notes: tuple[str, ...]
    """What is odd, one line each."""

    def to_json(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        record: dict[str, Any] = to_dict(self)
        return record


def diagnose(dataset: xr.Dataset, *, variables: Sequence[str] = ()) -> Diagnosis:
    """Look at every cell of a dataset, block by block, and propose how to train on it.

    Args:
        dataset: Data in its own units.
        variables: Variables to look at; all that hold numbers if none is named.

    Raises:
        UnknownNameError: A variable that is not there.
        DataError: No variable with numbers, or a time axis with a time zone.
    """
    names = numeric_variables(dataset, variables)
    chosen = dataset[list(names)]
    reports = {name: _variable(chosen[name]) for name in names}
    dims = {str(dim): _dimension(chosen, str(dim)) for dim in _dims(chosen)}
    notes = _notes(reports, dims, chosen)
    blocking = [note for note in notes if any(word in note for word in _BLOCKING)]
    if blocking:
        split, command = None, ""
        notes.append("no proposal for a split before this is mended")
    else:
        split, command, reason = _propose(chosen)
        if _are_frames(dataset):
            command, reason = "gridloom train heatmap DATA --preset recommended", ""
        elif _is_clip(dataset):
            preset = " --preset video" if dataset["frames"].dtype == np.uint8 else ""
            command, reason = f"gridloom train temporal DATA{preset}", ""
        notes += _notes_of_split(split, reason)
    left_out = [str(name) for name in dataset.data_vars if dataset[name].dtype.kind not in "biuf"]
    if not variables and left_out:
        notes.append(f"variables that hold no numbers were left out: {', '.join(left_out)}")
    return Diagnosis(variables=reports, dims=dims, split=split, command=command, notes=tuple(notes))


def _are_frames(dataset: xr.Dataset) -> bool:
    """Whether these are heatmaps of events, as `gridloom rasterize` writes them."""
    return (
        "counts" in dataset and dataset["counts"].dims[-4:] == ("time", CHANNEL, "y", "x") and "slot" in dataset.coords
    )


def _is_clip(dataset: xr.Dataset) -> bool:
    """Whether this is a video, or latents of one."""
    return "frames" in dataset and dataset["frames"].dims == ("time", CHANNEL, "y", "x")


def _dims(dataset: xr.Dataset) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(dim) for variable in dataset.data_vars.values() for dim in variable.dims))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _variable(variable: xr.DataArray) -> VariableReport:
    moments = Moments()
    for _, values in blocks(variable, {}):
        moments.update(values)
    return VariableReport(
        dims=tuple(str(dim) for dim in variable.dims),
        shape=tuple(variable.shape),
        dtype=str(variable.dtype),
        units=str(variable.attrs.get("units", "")),
        missing=1 - moments.count / variable.size if variable.size else 1.0,
        constant=moments.count > 0 and moments.minimum == moments.maximum,
        minimum=_finite(moments.minimum),
        maximum=_finite(moments.maximum),
        mean=_finite(moments.mean),
    )


def _dimension(dataset: xr.Dataset, dim: str) -> DimReport:
    axis = axis_steps(dataset, dim)
    values = dataset[dim].values if dim in dataset.coords and dataset[dim].dims == (dim,) else np.empty(0)
    gaps = repeated = np.empty(0, dtype=np.int64)
    step = order = ""
    if axis is not None and len(axis.steps):
        repeated = _repeated(values)
        gaps = np.setdiff1d(axis.breaks() if is_time(dataset, dim) else axis.gaps(), repeated)
        step = f"{axis.typical:.6g}{' days' if axis.in_days else ''}"
        order = axis.order
    return DimReport(
        size=dataset.sizes[dim],
        first=str(values[0]) if len(values) else "",
        last=str(values[-1]) if len(values) else "",
        step=step,
        order=order,
        num_gaps=len(gaps),
        gaps=first_three(values, gaps),
        num_duplicates=len(repeated),
        duplicates=first_three(values, repeated),
        periodic=is_periodic(dataset, dim),
        calendar=_calendar(dataset, dim, values),
        decorrelation=max(_decorrelation(item, dim) for item in dataset.data_vars.values() if dim in item.dims),
    )


def _repeated(values: np.ndarray) -> np.ndarray:
    """Indices of values that occurred before, wherever that was."""
    seen: set[Any] = set()
    found = []
    for index, value in enumerate(values.tolist()):
        if value in seen:
            found.append(index)
        seen.add(value)
    return np.array(found, dtype=np.int64)


def _calendar(dataset: xr.Dataset, dim: str, values: np.ndarray) -> str:
    if values.dtype.kind == "M":
        return "proleptic_gregorian"
    if values.dtype == object and len(values):
        return str(getattr(values[0], "calendar", ""))
    return str(dataset[dim].attrs.get("calendar", "")) if dim in dataset.coords else ""


def _decorrelation(variable: xr.DataArray, dim: str) -> int:
    """Decorrelation length from the whole dimension, at places spread evenly over the others."""
    others = [other for other in variable.dims if other != dim]
    size = variable.sizes[dim]
    if not variable.size:
        return 0
    places = max(1.0, _MAX_ELEMENTS / size)
    thin: dict[Any, slice] = {}
    left = math.prod(variable.sizes[other] for other in others)
    for other in others:  # the leading dimension is thinned first: whole frames are left out, not cells of every frame
        stride = min(variable.sizes[other], math.ceil(left / places))
        thin[other] = slice(None, None, stride)
        left = math.ceil(left / stride)
    part = variable.isel(thin)
    return decorrelation_length(part.values, part.dims.index(dim))


def _channels(dataset: xr.Dataset) -> tuple[str, ...]:
    """Return the largest set of variables on the same dimensions, two or more."""
    groups: dict[tuple, list[str]] = {}
    for name, variable in dataset.data_vars.items():
        if len([dim for dim in variable.dims if dim != CHANNEL]) >= 2:
            groups.setdefault(variable.dims, []).append(str(name))
    largest: list[str] = max(groups.values(), key=len, default=[])
    return tuple(largest)


def _propose(dataset: xr.Dataset) -> tuple[Splits | None, str, str]:
    """A split and a command to start from; or why there is none."""
    names = _channels(dataset)
    if not names:
        return None, "", "no variable has two dimensions; there is nothing to cut windows from"
    fields = open_fields(dataset[list(names)])
    dims = spatial_dims(fields)
    if not fits_window(min(fields.sizes[dim] for dim in dims), _SMALLEST_WINDOW):
        return (
            None,
            "",
            f"smaller than {_SMALLEST_WINDOW // 2 + 1} cells down or across; semantic needs windows of multiples of "
            f"{_SMALLEST_WINDOW}, filled by more than half (crossmae takes any)",
        )
    fields = pad_to_windows(fields, dict.fromkeys(dims, _SMALLEST_WINDOW))
    reason = ""
    for largest in range(_LARGEST_WINDOW, 0, -_SMALLEST_WINDOW):
        rows, columns = (min(fields.sizes[dim], largest) // _SMALLEST_WINDOW * _SMALLEST_WINDOW for dim in dims)
        try:
            split = choose_split(fields, GridConfig(window=(rows, columns)), dims)
        except DataError as error:
            reason = str(error)
            continue
        command = (
            f"gridloom train semantic DATA --preset default --data.window {rows} {columns} "
            f"--model.input-channels {len(fields.data_vars)}"
        )
        return split, command, ""
    return None, "", f"too small to split into three parts with gaps ({reason})"


def _notes(variables: Mapping[str, VariableReport], dims: Mapping[str, DimReport], dataset: xr.Dataset) -> list[str]:
    notes = []
    for name, variable in variables.items():
        if variable.mean is None:
            notes.append(f"{name}: every cell is missing")
        elif variable.constant:
            notes.append(f"{name}: constant ({variable.mean:g})")
    for dim, report in dims.items():
        notes += _notes_of_dim(dim, report, flipped=is_latitude(dataset, dim))
    return notes


def _notes_of_split(split: Splits | None, reason: str) -> list[str]:
    if split is None:
        return [reason] if reason else []
    if split.gap < split.decorrelation:
        return [
            f"{split.dim}: the gap of the split ({split.gap}) is smaller than the decorrelation length "
            f"({split.decorrelation}); scores will be somewhat too good"
        ]
    return []


def _notes_of_dim(dim: str, report: DimReport, *, flipped: bool) -> list[str]:
    notes = []
    if report.order == "unsorted":
        notes.append(f"{dim}: unsorted; sort it: data.sortby({dim!r})")
    if report.order == "descending":
        notes.append(f"{dim}: {'flipped latitude, north first' if flipped else 'descending'}")
    if report.num_gaps:
        notes.append(f"{dim}: {report.num_gaps} gaps, first before {', '.join(report.gaps)}")
    if report.num_duplicates:
        notes.append(f"{dim}: {report.num_duplicates} duplicates, first {', '.join(report.duplicates)}")
    return notes
