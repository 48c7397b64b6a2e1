"""Lines that judge fills: error over how far the next observation is, reliability of the spread, series of places."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Shaped

from gridloom.core.system import Drawing
from gridloom.viz.style import COLORS, COLUMN_CM, FULL_CM, figure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
else:  # matplotlib is imported where something is drawn
    Axes = Any

__all__ = ["Binned", "FilledSeries", "draw_distance", "draw_reliability", "draw_series"]

_MODEL, _BASELINE, _SPREAD = COLORS[0], COLORS[1], "#444444"
_NINETY = 1.6449
"""Standard deviations of a normal distribution's interval of 90 %."""


@dataclass(frozen=True, kw_only=True)
class Binned:
    """Errors in bins.

    Attributes:
        edges: Ends of the bins, one more than bins.
        count: Cells in each bin.
        center: Mean of what is binned, NaN in an empty bin.
        lines: A number for each bin by name; NaN where there are too few cells.
    """

    edges: np.ndarray
    count: np.ndarray
    center: np.ndarray
    lines: Mapping[str, np.ndarray]


def draw_distance(panels: Mapping[str, Binned], *, name: str, unit: str) -> Drawing:
    """Draw errors over distances, with the number of cells below.

    Args:
        panels: By the label of x; the lines are the model, `spread`, and perhaps another method.
        name: Name of the variable.
        unit: Its unit.

    Returns:
        Data: of each panel (0, 1) `edges`, `count`, `center` and every line, as `0 count`.
    """
    from matplotlib.ticker import MaxNLocator

    with style():
        made = figure(width_cm=COLUMN_CM if len(panels) == 1 else FULL_CM, height_cm=7.0)
        axes = made.subplots(2, len(panels), sharex="col", sharey="row", squeeze=False, height_ratios=(3, 1))
        for column, (label, binned) in enumerate(panels.items()):
            upper, lower = axes[:, column]
            others = iter((_BASELINE, *COLORS[2:]))
            for line, y in binned.lines.items():
                spread, own = line == "spread", line == "model"
                upper.plot(
                    binned.center,
                    y,
                    "--" if spread else "-",
                    color=_SPREAD if spread else _MODEL if own else next(others),
                    marker=None if spread else "o",
                    label="standard deviation that the model says" if spread else f"rmse, {line}",
                )
            upper.grid(axis="y")
            lower.stairs(binned.count, binned.edges, fill=True, color="#b0b0b0")
            lower.set_yscale("log")
            lower.set_ylim(0.7, 2 * max(1, int(binned.count.max())))
            lower.set_xlabel(label)
            lower.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes[0, 0].set_ylim(0, None)
        axes[0, 0].set_ylabel("error" if unit == "1" else f"error [{unit}]")
        axes[1, 0].set_ylabel("cells")
        made.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper left", ncols=3)
    data = {
        f"{number} {key}": values
        for number, binned in enumerate(panels.values())
        for key, values in {
            "edges": binned.edges,
            "count": binned.count,
            "center": binned.center,
            **binned.lines,
        }.items()
    }
    caption = (
        f"{name}: error of hidden cells by how far observations are, beside the spread that the model says; below, the "
        f"number of cells. Bins of fewer than ten cells have no point."
    )
    return Drawing(figure=made, caption=caption, data=data)


def draw_reliability(nominal: Shaped[np.ndarray, " levels"], covered: Mapping[str, np.ndarray]) -> Drawing:
    """Draw which share of the truth lies within intervals that should hold a certain share.

    Args:
        nominal: What the intervals should hold, from 0 to 1.
        covered: What they hold, by variable.

    Returns:
        Data: `nominal`, and each variable.
    """
    with style():
        made = figure(width_cm=COLUMN_CM, height_cm=COLUMN_CM)
        axes = made.add_subplot()
        axes.plot([0, 1], [0, 1], color="#888888", linewidth=0.6, label="right")
        for number, (name, share) in enumerate(covered.items()):
            axes.plot(nominal, share, color=COLORS[number % len(COLORS)], label=name.replace("_", " "))
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        axes.set_xlabel("share that the interval should hold")
        axes.set_ylabel("share of hidden cells within it")
        axes.grid()
        axes.text(0.04, 0.96, "intervals too wide", va="top", color="#666666", fontsize=7)
        axes.text(0.96, 0.04, "intervals too narrow", ha="right", color="#666666", fontsize=7)
        axes.legend(loc="upper left", bbox_to_anchor=(0.0, 0.92))
    caption = (
        "Reliability: share of the hidden cells whose truth lies within the interval that the model says (of a normal "
        "distribution, in the middle), over the share that should."
    )
    return Drawing(figure=made, caption=caption, data={"nominal": nominal, **covered})


@dataclass(frozen=True, kw_only=True)
class FilledSeries:
    """One variable at one place over time; NaN where there is no value.

    Attributes:
        label: Where.
        name: Name of the variable.
        unit: Its unit.
        truth: What was measured.
        seen: What the model was given.
        filled: Answers, where they were asked.
        spread: Standard deviation of the answers; None for a model that says none.
        climatology: Its answers; None where there is none.
    """

    label: str
    name: str
    unit: str
    truth: np.ndarray
    seen: np.ndarray
    filled: np.ndarray
    spread: np.ndarray | None
    climatology: np.ndarray | None


def draw_series(rows: Sequence[Sequence[FilledSeries]], *, times: np.ndarray, time_label: str) -> Drawing:
    """Draw places as rows and variables as columns.

    Args:
        rows: For each place its variables.
        times: Of all series; dates or numbers.
        time_label: Name of time where it is no date.

    Returns:
        Data: `times`, and of each place and variable (`0 river_flow`) truth, seen, filled, and what else there is.
    """
    data: dict[str, np.ndarray] = {"times": times}
    with style():
        width = COLUMN_CM + 3 if len(rows[0]) == 1 else FULL_CM
        made = figure(width_cm=width, height_cm=1.8 + 3.2 * len(rows))
        axes = made.subplots(len(rows), len(rows[0]), sharex=True, squeeze=False)
        for down, row in enumerate(rows):
            for across, series in enumerate(row):
                _one_series(axes[down, across], times, series)
                axes[down, across].set_title(series.label, loc="left", fontsize=7)
                parts = {"truth": series.truth, "seen": series.seen, "filled": series.filled}
                parts |= {} if series.spread is None else {"spread": series.spread}
                parts |= {} if series.climatology is None else {"climatology": series.climatology}
                data |= {f"{down} {series.name} {part}": values for part, values in parts.items()}
        for last in axes[-1]:
            if times.dtype.kind == "M":
                _date_ticks(last)
            else:
                last.set_xlabel(time_label)
        told = {label: handle for handle, label in zip(*_handles(axes), strict=True)}
        made.legend(list(told.values()), list(told), loc="outside upper left", ncols=5)
    caption = (
        "Series of places: what the model saw, the hidden truth, its answers with their interval of 90 %, and the "
        "climatology; the places with the least, the median and the largest error."
    )
    return Drawing(figure=made, caption=caption, data=data)


def _one_series(axes: Axes, times: np.ndarray, series: FilledSeries) -> None:
    hidden = np.where(np.isnan(series.seen), series.truth, np.nan)
    if series.spread is not None:
        low, high = (series.filled + sign * _NINETY * series.spread for sign in (-1, 1))
        axes.fill_between(times, low, high, color=_MODEL, alpha=0.2, linewidth=0, label="90 % interval")
        known = np.pad(np.isfinite(low), 1)
        alone = known[1:-1] & ~known[:-2] & ~known[2:]  # an answer between two others has an area, this one a line
        axes.vlines(times[alone], low[alone], high[alone], color=_MODEL, alpha=0.2, linewidth=1.2)
    if series.climatology is not None:
        axes.plot(times, series.climatology, color=_BASELINE, linewidth=0.8, marker=".", ms=2, label="climatology")
    axes.plot(times, series.seen, color="#9a9a9a", linewidth=0.8, marker=".", ms=2, label="seen")
    axes.plot(times, series.filled, color=_MODEL, linewidth=1.0, marker=".", ms=2.5, label="filled")
    axes.plot(times, hidden, "o", color="black", ms=2, markeredgewidth=0, label="hidden truth")
    axes.set_ylabel(series.name.replace("_", " ") + ("" if series.unit == "1" else f"\n[{series.unit}]"))
    axes.grid(axis="y")
    axes.margins(x=0.01)


def _date_ticks(axes: Axes) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(minticks=3, maxticks=6)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]


def _handles(axes: np.ndarray) -> tuple[list[Any], list[str]]:
    handles, labels = [], []
    for one in axes.ravel():
        more, told = one.get_legend_handles_labels()
        handles += more
        labels += told
    return handles, labels
