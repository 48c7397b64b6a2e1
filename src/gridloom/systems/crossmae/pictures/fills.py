"""Fields that were filled: truth, what was seen, what was made of it, the error and the spread that was told."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool

from gridloom.core.errors import DataError
from gridloom.core.system import Drawing
from gridloom.viz.scale import ColorScale, color_scale
from gridloom.viz.style import FULL_CM, MISSING, figure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
else:  # matplotlib is imported where something is drawn
    Axes = Figure = Any

__all__ = ["Axis", "FilledField", "draw_fills"]

_HIDDEN, _ABSENT = ("//////", "#777777"), ("......", "#999999")
"""Hatch and its color, of cells that are asked and of those that the data do not have."""
_SPREAD_MAP = "cividis"
_FIELDS = 3
"""Columns that are fields; those after them know hidden cells alone."""


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis of the fields.

    Attributes:
        values: Centers of the cells, evenly spaced.
        label: Name and unit; empty where the numbers say it.
        suffixes: What follows a number below 0 and above, for degrees; empty for plain numbers.
    """

    values: np.ndarray
    label: str = ""
    suffixes: tuple[str, str] | tuple[()] = ()

    @property
    def edges(self) -> tuple[float, float]:
        """Outer edges of the first and the last cell."""
        values = self.values
        half = (values[-1] - values[0]) / (2 * max(len(values) - 1, 1)) or 0.5
        return float(values[0] - half), float(values[-1] + half)


@dataclass(frozen=True, kw_only=True)
class FilledField:
    """One time: fields [height, width], NaN where there is no value.

    Attributes:
        label: The time.
        truth: What was measured.
        seen: What the model was given.
        filled: `seen` with the answers in it.
        hidden: Cells that were asked and whose truth is known.
        spread: Standard deviation that the model says; None for a model that says none.
    """

    label: str
    truth: np.ndarray
    seen: np.ndarray
    filled: np.ndarray
    hidden: np.ndarray
    spread: np.ndarray | None


def draw_fills(
    rows: Sequence[FilledField],
    *,
    land: Bool[np.ndarray, "height width"],
    axes: tuple[Axis, Axis],
    name: str,
    unit: str,
) -> Drawing:
    """Draw a row for each time, with one color scale for each quantity over all rows.

    Args:
        rows: Times, at least one.
        land: Cells that were never observed.
        axes: Of y and x.
        name: Name of the variable.
        unit: Its unit; `1` for none.

    Returns:
        Data: `truth`, `seen`, `filled`, `error` and, where the model says one, `spread`, each [row, height, width].
    """
    if not rows:
        raise DataError("nothing to draw: expected one time or more, got none")
    columns = {
        "truth": np.stack([row.truth for row in rows]),
        "seen by the model": np.stack([row.seen for row in rows]),
        "filled": np.stack([row.filled for row in rows]),
        "error": np.stack([np.where(row.hidden, row.filled - row.truth, np.nan) for row in rows]),
    }
    spreads = [np.where(row.hidden, row.spread, np.nan) for row in rows if row.spread is not None]
    if spreads:
        columns["standard deviation"] = np.stack(spreads)
    values = color_scale([columns["truth"], columns["filled"]])
    scales = {
        **dict.fromkeys(("truth", "seen by the model", "filled"), values),
        "error": color_scale([columns["error"]], center=0),
        "standard deviation": color_scale(spreads, cmap=_SPREAD_MAP),
    }
    panel = (FULL_CM - 1.4) / len(columns)
    height = panel * min(max(land.shape[0] / land.shape[1], 0.25), 1.5)
    with style():
        made = figure(width_cm=FULL_CM, height_cm=2.9 + len(rows) * (height + 0.25))
        panels = made.subplots(len(rows), len(columns), sharex=True, sharey=True, squeeze=False)
        for across, (title, fields) in enumerate(columns.items()):
            for down, row in enumerate(rows):
                own = panels[down, across]
                gaps = {
                    "hidden": row.hidden if title == "seen by the model" else np.zeros_like(row.hidden),
                    "absent": np.isnan(row.truth) & ~land if across < _FIELDS else np.zeros_like(land),
                }
                blank = land if across < _FIELDS else ~row.hidden
                _panel(own, fields[down], scales[title], blank, gaps, axes)
                if across == 0:
                    own.set_ylabel("\n".join(part for part in (row.label, axes[0].label) if part))
            panels[0, across].set_title(title)
            panels[-1, across].set_xlabel(axes[1].label)
        _bars(made, panels, list(columns), scales, f"{name} [{unit}]" if unit != "1" else name, unit)
        _legend(made, absent=any(bool((np.isnan(row.truth) & ~land).any()) for row in rows))
    caption = (
        f"{name}: truth, what the model saw, what it made of it, the error of the hidden cells (answer minus truth)"
        f"{' and the standard deviation that it says' if spreads else ''}, each quantity in one color scale."
    )
    data = {title.split(" ")[0]: fields for title, fields in columns.items()}
    if spreads:
        data["spread"] = data.pop("standard")
    return Drawing(figure=made, caption=caption, data=data)


def _panel(
    axes: Axes,
    field: np.ndarray,
    scale: ColorScale,
    blank: np.ndarray,
    gaps: dict[str, np.ndarray],
    sides: tuple[Axis, Axis],
) -> None:
    """One field; what is blank is gray, hidden and absent cells are hatched."""
    from matplotlib.colors import ListedColormap
    from matplotlib.ticker import MaxNLocator

    (bottom, top), (left, right) = sides[0].edges, sides[1].edges
    extent = (left, right, bottom, top)
    told: dict[str, Any] = {"extent": extent, "origin": "lower", "aspect": "auto"}
    axes.imshow(np.where(blank, 1.0, np.nan), cmap=ListedColormap([MISSING]), **told)
    axes.imshow(field, norm=scale.norm, cmap=scale.cmap.with_extremes(bad=(0, 0, 0, 0)), **told)
    for (hatch, color), cells in zip((_HIDDEN, _ABSENT), (gaps["hidden"], gaps["absent"]), strict=True):
        if cells.any():
            _hatch(axes, cells, extent, hatch, color)
    axes.set_xlim(min(left, right), max(left, right))
    axes.set_ylim(min(bottom, top), max(bottom, top))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=3, steps=[1, 2, 2.5, 5, 10]))
    axes.set_xticks(_two_ticks(left, right))
    for axis, side in ((axes.yaxis, sides[0]), (axes.xaxis, sides[1])):
        if side.suffixes:
            axis.set_major_formatter(partial(_degrees, suffixes=side.suffixes))
    for spine in axes.spines.values():
        spine.set(visible=True, linewidth=0.4)


def _two_ticks(left: float, right: float) -> list[float]:
    """Round numbers near either side: more have no room in a narrow panel."""
    from matplotlib.ticker import MaxNLocator

    low, high = min(left, right), max(left, right)
    margin = 0.08 * (high - low)  # a number at the very side would stick out
    ticks = MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    inside = [float(tick) for tick in ticks if low + margin <= tick <= high - margin]
    return [inside[0], inside[-1]] if inside else []


def _few_ticks(scale: ColorScale) -> list[float]:
    """Two numbers, and 0 between them."""
    ticks = _two_ticks(float(scale.norm.vmin or 0.0), float(scale.norm.vmax or 0.0))
    return [ticks[0], 0.0, ticks[-1]] if ticks and ticks[0] < 0 < ticks[-1] else ticks


def _degrees(value: float | int, _: int | None = None, *, suffixes: tuple[str, str]) -> str:
    """Say degrees: 5°S, 170°W."""
    turned = (value + 180) % 360 - 180 if "E" in suffixes else value
    mark = "" if turned in (0, -180) else suffixes[int(turned > 0)]
    return f"{abs(turned):g}°{mark}"


def _hatch(axes: Axes, cells: np.ndarray, extent: tuple[float, float, float, float], hatch: str, color: str) -> None:
    """Hatch cells as one shape, so that the lines run on from cell to cell."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    left, right, bottom, top = extent
    high, wide = (top - bottom) / cells.shape[0], (right - left) / cells.shape[1]
    y, x = np.nonzero(cells)
    west, south = left + wide * x, bottom + high * y
    corners = np.stack(
        [
            np.stack([west + wide * across, south + high * up], axis=-1)
            for across, up in ((0, 0), (1, 0), (1, 1), (0, 1), (0, 0))
        ],
        axis=1,
    )
    codes = np.tile([Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY], len(x))
    path = Path(corners.reshape(-1, 2), codes)
    axes.add_patch(PathPatch(path, facecolor="white", edgecolor=color, hatch=hatch, linewidth=0))


def _bars(
    made: Figure, panels: np.ndarray, columns: list[str], scales: dict[str, ColorScale], label: str, unit: str
) -> None:
    """Color bars under the columns that share a scale."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.ticker import MaxNLocator

    suffix = f"\n[{unit}]" if unit != "1" else ""
    groups = {label: columns[:_FIELDS], **{f"{title}{suffix}": [title] for title in columns[_FIELDS:]}}
    for text, members in groups.items():
        scale = scales[members[0]]
        places = [columns.index(title) for title in members]
        bar = made.colorbar(
            ScalarMappable(scale.norm, scale.cmap),
            ax=list(panels[:, places].ravel()),
            orientation="horizontal",
            extend=scale.extend,
            ticks=_few_ticks(scale) if len(members) == 1 else MaxNLocator(nbins=7, steps=[1, 2, 2.5, 5, 10]),
            shrink=0.9 if len(members) == 1 else 0.6,
            aspect=14 if len(members) == 1 else 36,
            pad=0.02,
        )
        bar.set_label(text, labelpad=2)
        bar.outline.set_linewidth(0.4)
        bar.ax.tick_params(length=2, pad=1.5)


def _legend(made: Figure, *, absent: bool) -> None:
    """What gray and hatched cells are."""
    from matplotlib.patches import Patch

    handles = [Patch(facecolor="white", edgecolor=_HIDDEN[1], hatch=_HIDDEN[0], linewidth=0.4, label="hidden")]
    if absent:
        told = "missing in the data"
        handles.append(Patch(facecolor="white", edgecolor=_ABSENT[1], hatch=_ABSENT[0], linewidth=0.4, label=told))
    handles.append(Patch(facecolor=MISSING, edgecolor="#888888", linewidth=0.4, label="never observed, or not asked"))
    made.legend(handles=handles, loc="outside lower left", ncols=3, handlelength=1.6, handleheight=0.9)
