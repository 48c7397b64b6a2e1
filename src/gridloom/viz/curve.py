"""Curves over steps, and scores with their intervals."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gridloom.core.errors import DataError
from gridloom.core.score import Score
from gridloom.viz.style import COLORS, COLUMN_CM, figure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
else:  # matplotlib is imported where something is drawn
    Axes = Figure = Any

__all__ = ["bars", "curves"]

_DASHES = ("-", "--", "-.", ":")


def curves(
    series: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    xlabel: str,
    ylabel: str,
    log: bool = False,
    bands: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None,
    width_cm: float | int = COLUMN_CM,
    height_cm: float | int = 5.5,
) -> Figure:
    """Draw lines with a legend.

    Args:
        series: x and y of each line by name; a line with a single point is a dot, NaN interrupts it.
        xlabel: Name and unit of x.
        ylabel: Name and unit of y.
        log: Logarithmic y; values of 0 or below are left out.
        bands: Lower and upper end around lines, by the line's name (an interval, a range over seeds).
        width_cm: Width.
        height_cm: Height.

    Raises:
        DataError: No line, x and y of other lengths, or a band for no line.
    """
    _check(series, bands or {})
    with style():
        made = figure(width_cm=width_cm, height_cm=height_cm)
        axes = made.add_subplot()
        for number, (name, (x, y)) in enumerate(series.items()):
            color = COLORS[number % len(COLORS)]
            shown = np.where(y > 0, y, np.nan) if log else y
            dash = _DASHES[number // len(COLORS) % len(_DASHES)]
            axes.plot(x, shown, dash, color=color, label=name, marker="o" if len(x) == 1 else None)
            if bands and name in bands:
                axes.fill_between(x, *bands[name], color=color, alpha=0.2, linewidth=0)
        if log:
            axes.set_yscale("log")
            low, high = axes.get_ylim()
            if high < 10 * low:  # within a decade the usual labels are 1.6 x 10^0
                axes.yaxis.set_major_formatter("{x:g}")
                axes.yaxis.set_minor_formatter("{x:g}")
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        axes.grid(axis="y")
        axes.margins(x=0.02)
        if len(series) > 1:
            axes.legend()
    return made


def bars(
    scores: Sequence[Score],
    *,
    metric: str = "skill",
    groups: Sequence[str] | None = None,
    width_cm: float | int = COLUMN_CM,
) -> Figure:
    """Draw one metric of all methods as dots with intervals, methods as rows, groups side by side.

    For skill and bias there is a line at 0, and a dot is hollow where the interval holds 0 (or where there is none):
    there nothing is shown.

    Args:
        scores: From an evaluation; other metrics are left out.
        metric: The metric drawn.
        groups: Groups drawn, one panel each; None for all that there are (but not for the single variable that says the
            same as `all`).
        width_cm: Width; the height follows from the number of methods.

    Raises:
        DataError: There is no score of this metric and these groups.
    """
    chosen = [s for s in scores if s.metric == metric and (groups is None or s.group in groups)]
    if not chosen:
        raise DataError(f"no score to draw: expected metric {metric!r}, got {sorted({s.metric for s in scores})}")
    methods = list(dict.fromkeys(score.method for score in chosen))
    panels = list(dict.fromkeys(score.group for score in chosen))
    if groups is None and "all" in panels and len(panels) == 2:
        panels = ["all"]
    with style():
        made = figure(width_cm=width_cm, height_cm=1.3 + 0.5 * len(methods) + (0.4 if len(panels) > 1 else 0.0))
        axes = made.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
        for panel, group in zip(axes, panels, strict=True):
            if metric in _AROUND_ZERO:
                panel.axvline(0.0, color="#888888", linewidth=0.6, zorder=1)
            for score in chosen:
                if score.group == group:
                    _dot(panel, score, methods.index(score.method))
            if len(panels) > 1:
                panel.set_title(group)
            panel.grid(axis="x")
            panel.tick_params(axis="y", length=0)
            panel.spines["left"].set_visible(False)
        axes[0].set_yticks(range(len(methods)), methods)
        axes[0].set_ylim(len(methods) - 0.5, -0.5)
        axes[0].margins(x=0.08)
        unit = chosen[0].unit
        label = metric if unit == "1" else f"{metric} [{unit}]"
        if len(panels) == 1:
            axes[0].set_xlabel(label)
        else:
            made.supxlabel(label, fontsize=7.5)
    return made


_AROUND_ZERO = ("skill", "bias")


def _dot(axes: Axes, score: Score, row: int) -> None:
    """One method: a dot with its interval, hollow where nothing is shown."""
    color = COLORS[row % len(COLORS)]
    has_interval = bool(np.isfinite([score.low, score.high]).all())
    if has_interval and score.high > score.low:
        axes.plot([score.low, score.high], [row, row], color=color, linewidth=1.4, solid_capstyle="round", zorder=2)
    shown = has_interval and not score.low <= 0 <= score.high
    filled = shown or (has_interval and score.metric not in _AROUND_ZERO)
    axes.plot(score.value, row, "o", color=color, markerfacecolor=color if filled else "white", zorder=3)


def _check(
    series: Mapping[str, tuple[np.ndarray, np.ndarray]], bands: Mapping[str, tuple[np.ndarray, np.ndarray]]
) -> None:
    """Refuse what cannot be drawn."""
    if not series:
        raise DataError("nothing to draw: expected at least one line, got none")
    for name, (x, y) in series.items():
        if x.ndim != 1 or x.shape != y.shape:
            raise DataError(f"line {name!r}: expected x and y of one length, got shapes {x.shape} and {y.shape}")
    unknown = [name for name in bands if name not in series]
    if unknown:
        raise DataError(f"band {unknown[0]!r} belongs to no line (lines: {sorted(series)})")
