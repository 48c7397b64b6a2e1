"""Pictures of the crossmae system drawn from a run: what it fills, how well, and whether its spread is right."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import xarray as xr

from gridloom.core.system import Drawing, View
from gridloom.grid.axes import axis_steps, is_latitude, is_longitude
from gridloom.grid.splits import is_periodic
from gridloom.systems.crossmae.config import CrossMAEConfig
from gridloom.systems.crossmae.fill import STD
from gridloom.systems.crossmae.nearness import bin_errors, gap_lengths, nearest_observed
from gridloom.systems.crossmae.objective import MaskedModeling
from gridloom.systems.crossmae.pictures.curves import FilledSeries, draw_distance, draw_reliability, draw_series
from gridloom.systems.crossmae.pictures.fills import Axis, FilledField, draw_fills
from gridloom.systems.crossmae.pictures.maps import draw_maps

__all__ = ["FIGURES"]

_ROWS = 3
_WIDEST = 2.5
"""Columns over rows of what is shown of a field."""
_LEVELS = 99
_MOST_STEPS = 120
_MOST_SERIES = 2
_ACRONYM = 5
_CELSIUS = ("degree_celsius", "degrees_celsius", "degc", "celsius")


@dataclass(frozen=True)
class _Answers:
    """A variable of a run's task: everything in the order (time, y, x) or (place, time)."""

    variable: str
    truth: xr.DataArray
    given: np.ndarray
    hidden: np.ndarray
    filled: np.ndarray
    spread: np.ndarray | None
    others: Mapping[str, np.ndarray]

    @staticmethod
    def of(view: View, variable: str) -> "_Answers":
        truth = view.task.truth[variable]

        def ordered(dataset: xr.Dataset, name: str = variable) -> np.ndarray:
            return np.asarray(dataset[name].transpose(*truth.dims).values)

        *others, model = view.predictions
        answers = view.predictions[model]
        return _Answers(
            variable=variable,
            truth=truth,
            given=ordered(view.task.given),
            hidden=ordered(view.task.wanted).astype(bool) & np.isfinite(truth.values),
            filled=ordered(answers),
            spread=ordered(answers, variable + STD) if variable + STD in answers else None,
            others={name: ordered(view.predictions[name]) for name in others if variable in view.predictions[name]},
        )

    @property
    def name(self) -> str:
        """The variable for people."""
        told = str(self.truth.attrs.get("long_name", self.variable)).replace("_", " ")
        return told.lower() if told.isupper() and len(told) > _ACRONYM else told

    @property
    def unit(self) -> str:
        """Its unit, `1` for none."""
        unit = str(self.truth.attrs.get("units", "1"))
        return "°C" if unit.lower() in _CELSIUS else unit


def _asked(view: View, kind: str) -> list[_Answers]:
    """Variables of one kind of which hidden cells were asked, in the order of the modalities."""
    config: CrossMAEConfig = view.trained.config
    found = [
        _Answers.of(view, variable)
        for name, modality in config.modalities.items()
        if modality.kind == kind and modality.target
        for variable in modality.variables or (name,)
    ]
    return [answers for answers in found if answers.hidden.any()]


def fills(view: View) -> Drawing | None:
    """Times of the first image with much that is hidden: truth, seen, filled, error, spread; None without images.

    Where fields are much wider than high, the part with most hidden cells is shown. The data have the same times and
    part of all other images too.
    """
    images = _asked(view, "image")
    if not images:
        return None
    first = images[0]
    box = _crowded(first.hidden, np.isfinite(first.truth.values).any(axis=0))
    times = _crowded_times(first.hidden[(slice(None), *box)])
    time, y, x = (str(dim) for dim in first.truth.dims)
    labels = _time_labels(view.task.truth, time)
    land = ~np.isfinite(first.truth.values).any(axis=0)
    rows = [
        FilledField(
            label=labels[place],
            truth=first.truth.values[place][box],
            seen=first.given[place][box],
            filled=np.where(first.hidden[place], first.filled[place], first.given[place])[box],
            hidden=first.hidden[place][box],
            spread=None if first.spread is None else first.spread[place][box],
        )
        for place in times
    ]
    drawn = draw_fills(
        rows,
        land=land[box],
        axes=(_axis(view.task.truth, y, box[0]), _axis(view.task.truth, x, box[1])),
        name=first.name,
        unit=first.unit,
    )
    data = dict(drawn.data)
    for other in images[1:]:
        part = (times, *box)
        data |= {f"{other.variable} truth": other.truth.values[part], f"{other.variable} seen": other.given[part]}
        data |= {f"{other.variable} filled": other.filled[part]}
    return Drawing(figure=drawn.figure, caption=drawn.caption, data=data)


def feature_maps(view: View) -> Drawing | None:
    """Weights of the feature maps; None for an architecture that mixes none."""
    config: CrossMAEConfig = view.trained.config
    objective = view.trained.objective
    assert isinstance(objective, MaskedModeling)
    model = objective.model
    own = {name: _map_labels(config, modality.kind) for name, modality in config.modalities.items()}
    longest = max(own.values(), key=len)
    weights, labels = {}, {}
    for name, modality in config.modalities.items():
        mixing = model.decoder(name).mixing
        if mixing is None or not modality.target:
            continue
        weights[name] = mixing.weights.detach().double().cpu().numpy()
        common = config.model.fusion in ("cross", "shared")
        labels[name] = [*(longest if common else own[name]), *(["shared"] if config.model.fusion == "shared" else [])]
    return draw_maps(weights, labels) if weights else None


def _map_labels(config: CrossMAEConfig, kind: str) -> list[str]:
    depth = config.model.image_depth if kind == "image" else config.model.vector_depth
    layers = range(depth) if config.model.use_fm_layers is None else config.model.use_fm_layers
    return [*(["input"] if config.model.use_input else []), *(f"layer {n + 1}" for n in layers if n < depth)]


def distance(view: View) -> Drawing | None:
    """Error and spread of hidden cells over the distance to what is observed, in space and in time.

    Of the first image, else of the first series, which has time alone.
    """
    asked = _asked(view, "image") or _asked(view, "vector")
    if not asked:
        return None
    answers = asked[0]
    hidden, truth = answers.hidden, answers.truth.values
    squares = {"model": np.square(answers.filled - truth)[hidden].astype(np.float64)}
    for name in list(answers.others)[:1]:  # the best baseline comes first
        squares[name] = np.square(answers.others[name] - truth)[hidden].astype(np.float64)
    if answers.spread is not None:
        squares["spread"] = np.square(answers.spread[hidden].astype(np.float64))
    observed = np.isfinite(answers.given)
    panels = {}
    if truth.ndim == 3:
        periodic = is_periodic(view.task.truth, str(answers.truth.dims[2]))
        panels["nearest observed cell at the same time [cells]"] = nearest_observed(observed, periodic=periodic)
        panels["length of the gap [times]"] = gap_lengths(observed)
    else:
        panels["length of the gap [times]"] = gap_lengths(observed.T).T
    binned = {label: bin_errors(far[hidden], squares) for label, far in panels.items()}
    return draw_distance(
        {label: found for label, found in binned.items() if found is not None}, name=answers.name, unit=answers.unit
    )


def calibration(view: View) -> Drawing | None:
    """Reliability of the spread of each variable; None for a model that says none."""
    nominal = np.linspace(0.0, 1.0, _LEVELS + 2)[1:-1]
    bounds = np.array([NormalDist().inv_cdf(0.5 + share / 2) for share in nominal])
    covered = {}
    for answers in _asked(view, "image") + _asked(view, "vector"):
        if answers.spread is None:
            continue
        error = np.abs(answers.filled - answers.truth.values)[answers.hidden].astype(np.float64)
        spread = answers.spread[answers.hidden].astype(np.float64)
        ratio = np.sort(error / np.maximum(spread, np.finfo(np.float32).tiny))
        covered[answers.variable] = np.searchsorted(ratio, bounds, side="right") / len(ratio)
    return draw_reliability(nominal, covered) if covered else None


def series(view: View) -> Drawing | None:
    """Places with the least, the median and the largest error of the first series; None where there are no series."""
    asked = _asked(view, "vector")
    if not asked:
        return None
    first = asked[0]
    shown = [one for one in asked if one.truth.dims == first.truth.dims][:_MOST_SERIES]
    squared = np.where(first.hidden, np.square(first.filled - first.truth.values), 0.0).sum(1)
    count = first.hidden.sum(1)
    known = np.flatnonzero(count)
    spread_of = np.nanstd(first.truth.values[known], axis=1)
    order = known[np.argsort(np.sqrt(squared[known] / count[known]) / np.maximum(spread_of, 1e-12), kind="stable")]
    places = {
        int(order[at]): f"{what} error" for at, what in ((0, "least"), (len(order) // 2, "median"), (-1, "largest"))
    }
    place_dim, time = (str(dim) for dim in first.truth.dims)
    start = _crowded_start(first.hidden[list(places)].sum(0), _MOST_STEPS)
    part = slice(start, start + _MOST_STEPS)
    names = view.task.truth[place_dim].values if place_dim in view.task.truth.coords else np.arange(len(count))
    rows = []
    for place, what in places.items():
        where = f"{place_dim} {names[place]}"
        rows.append([_one_series(one, place, part, f"{where}, {what}" if one is first else where) for one in shown])
    return draw_series(rows, times=_times(view.task.truth, time)[part], time_label=time)


def _one_series(answers: _Answers, place: int, part: slice, label: str) -> FilledSeries:
    hidden = answers.hidden[place, part]

    def where_hidden(values: np.ndarray | None) -> np.ndarray | None:
        return None if values is None else np.where(hidden, values[place, part], np.nan)

    filled = where_hidden(answers.filled)
    assert filled is not None
    return FilledSeries(
        label=label,
        name=answers.variable,
        unit=answers.unit,
        truth=answers.truth.values[place, part],
        seen=answers.given[place, part],
        filled=filled,
        spread=where_hidden(answers.spread),
        climatology=where_hidden(answers.others.get("climatology")),
    )


def _crowded(hidden: np.ndarray, observed: np.ndarray) -> tuple[slice, slice]:
    """What is shown: where anything was observed, or the part with most that is hidden if one side is far longer.

    Args:
        hidden: [time, y, x].
        observed: [y, x], cells that were ever observed.
    """
    around = []
    for axis in (0, 1):
        known = np.flatnonzero(observed.any(axis=1 - axis))
        around.append(slice(max(0, int(known[0]) - 1), int(known[-1]) + 2))
    inside = hidden[:, around[0], around[1]]
    boxes = []
    for axis, other in ((1, 2), (2, 1)):
        longest = int(np.ceil(_WIDEST * inside.shape[other]))
        start = _crowded_start(inside.sum(axis=(0, other)), longest)
        first = around[axis - 1].start + start
        boxes.append(slice(first, first + min(longest, inside.shape[axis])))
    return boxes[0], boxes[1]


def _crowded_start(counts: np.ndarray, size: int) -> int:
    """Where the stretch of this size with the largest sum begins."""
    if size >= len(counts):
        return 0
    sums = np.convolve(counts, np.ones(size), mode="valid")
    return int(sums.argmax())


def _crowded_times(hidden: np.ndarray) -> list[int]:
    """Some times with much that is hidden, far from each other, in their order."""
    counts = hidden.reshape(len(hidden), -1).sum(1)
    apart = max(1, len(counts) // (2 * _ROWS))
    chosen: list[int] = []
    for time in np.argsort(-counts, kind="stable").tolist():
        if counts[time] and len(chosen) < _ROWS and all(abs(time - other) >= apart for other in chosen):
            chosen.append(time)
    return sorted(chosen)


def _axis(dataset: xr.Dataset, dim: str, part: slice) -> Axis:
    """Evenly spaced coordinates, else numbers of cells."""
    size = dataset.sizes[dim]
    values = dataset[dim].values if dim in dataset.coords else np.arange(size)
    steps = np.diff(values) if values.dtype.kind in "iuf" else np.zeros(0)
    if size > 1 and (not len(steps) or not np.allclose(steps, steps[0], rtol=1e-2, atol=0)):
        return Axis(values=np.arange(size)[part].astype(np.float64), label=f"{dim} [cells]")
    centers = values[part].astype(np.float64)
    if is_latitude(dataset, dim):
        return Axis(values=centers, suffixes=("S", "N"))
    if is_longitude(dataset, dim):
        return Axis(values=centers, suffixes=("W", "E"))
    unit = str(dataset[dim].attrs.get("units", "")) if dim in dataset.coords else "cells"
    return Axis(values=centers, label=f"{dim} [{unit}]" if unit else dim)


def _times(dataset: xr.Dataset, time: str) -> np.ndarray:
    """Dates or numbers; numbers of steps for calendars that numpy does not know."""
    values = dataset[time].values if time in dataset.coords else np.zeros(0, dtype=object)
    return values if values.dtype.kind in "Miuf" else np.arange(dataset.sizes[time])


def _time_labels(dataset: xr.Dataset, time: str) -> list[str]:
    values = dataset[time].values if time in dataset.coords else np.arange(dataset.sizes[time])
    if values.dtype.kind != "M":
        return [f"{time} {value:g}" if values.dtype.kind in "iuf" else str(value)[:10] for value in values]
    axis = axis_steps(dataset, time)
    step = axis.typical if axis is not None and axis.in_days else 1.0
    unit = "Y" if step > 300 else "M" if step > 27 else "D" if step >= 1 else "h"
    dates: np.ndarray = values.astype(f"M8[{unit}]").astype(str)
    return [str(date) for date in dates]


FIGURES: Mapping[str, Callable[[View], Drawing | None]] = {
    "fills": fills,
    "distance": distance,
    "calibration": calibration,
    "series": series,
    "feature_maps": feature_maps,
}
"""Pictures by name; each is None for a run that it does not apply to."""
