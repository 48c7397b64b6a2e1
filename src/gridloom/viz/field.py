"""Rows of panels that compare fields: truth, answer and error."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gridloom.core.errors import DataError
from gridloom.viz.scale import ColorScale, color_scale, draw_colorbar, mark_missing
from gridloom.viz.style import COLUMN_CM, FULL_CM, figure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
else:  # matplotlib is imported where something is drawn
    Axes = Figure = Any

__all__ = ["field_rows"]

_GAP_CM = 0.12  # between panels
_TITLE_CM = 0.18
_TITLE_LINE_CM = 0.34
_LETTER_CM = 0.16
_LABEL_CM = 0.45
_EDGE_CM = 0.1
_BAR_CM = 0.2
_BAR_TEXT_CM = 0.95
_LINE_CM = 0.4
_BAR_INSET_CM = 0.3  # so that the numbers of two bars stay apart
_NARROW_CM = 2.5  # a color bar for two numbers at most


def field_rows(
    rows: Sequence[Mapping[str, np.ndarray]],
    *,
    labels: Sequence[str] | None = None,
    unit: str = "",
    error_columns: Sequence[str] = ("error",),
    center: float | int | None = None,
    cmap: str | None = None,
    origin: Literal["upper", "lower"] = "upper",
    width_cm: float | int | None = None,
) -> Figure:
    """Draw a table of panels: one row per sample, one column per kind of field.

    All columns but those of errors share one color scale over all rows, so that equal colors are equal values; columns
    of errors share another, symmetric around 0. Half a percent of the values may lie beyond either end (arrows on the
    color bar show it). Missing cells are gray.

    Args:
        rows: For each sample, fields by column name, [height, width], NaN where missing. A row may lack a column.
        labels: Names of the rows.
        unit: Unit of the values, for the color bars.
        error_columns: Names of the columns that hold errors.
        center: Middle of a diverging scale for the values (anomalies, height over the sea); None for magnitudes.
        cmap: Map of the values; None takes the style's.
        origin: Where the first row of an array is drawn; `lower` for fields whose latitude rises.
        width_cm: Width; None takes one column of a page up to four panels a row, else the whole page.

    Raises:
        DataError: Nothing to draw, a field that is not two-dimensional, or as many labels as there are not rows.
    """
    columns = _check(rows, labels)
    errors = [column for column in columns if column in error_columns]
    values = [column for column in columns if column not in error_columns]
    columns = values + errors
    missing = any(bool(np.isnan(field).any()) for row in rows for field in row.values())
    shape = next(iter(rows[0].values())).shape
    layout = _Layout.of(
        len(rows),
        columns,
        aspect=shape[0] / shape[1],
        width=float(width_cm or (COLUMN_CM if len(columns) <= 4 else FULL_CM)),
        left=_EDGE_CM + (_LABEL_CM if labels is not None else 0.0),
        foot=_BAR_CM + _BAR_TEXT_CM,
    )
    with style():
        made = figure(width_cm=layout.width, height_cm=layout.height, constrained=False)
        for kind, members in (("value", values), ("error", errors)):
            if not members:
                continue
            scale = color_scale(
                [row[column] for row in rows for column in members if column in row],
                center=0 if kind == "error" else center,
                cmap=None if kind == "error" else cmap,
            )
            for column in members:
                for number, row in enumerate(rows):
                    axes = _panel(made, layout.panel(number, columns.index(column)), row.get(column), scale, origin)
                    axes.set_title(layout.titles[columns.index(column)] if number == 0 else "", pad=3)
                    if column == columns[0] and labels is not None:
                        axes.set_ylabel(labels[number], labelpad=3)
            first, last = columns.index(members[0]), columns.index(members[-1])
            what = members[0] if kind == "error" and len(members) == 1 else kind
            label = f"{what} [{unit}]" if unit else what
            narrow = (last - first + 1) * layout.panel_width < _NARROW_CM
            draw_colorbar(made.add_axes(layout.bar(first, last)), scale, label, narrow=narrow)
        if missing:
            legend = made.add_axes((layout.left / layout.width, 0.0, 1.0, _LINE_CM / layout.height), frameon=False)
            legend.set_axis_off()
            mark_missing(legend, x=0.0, y=0.25, size=(0.3 / layout.width, 0.5))
    return made


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """Where panels and color bars go, in centimeters; matplotlib wants parts of the figure."""

    width: float
    height: float
    left: float
    head: float
    foot: float
    panel_width: float
    panel_height: float
    titles: tuple[str, ...]

    @staticmethod
    def of(num_rows: int, titles: Sequence[str], *, aspect: float, width: float, left: float, foot: float) -> "_Layout":
        """Give the panels all the width there is, and long titles several lines."""
        panel_width = (width - left - _EDGE_CM - _GAP_CM * (len(titles) - 1)) / len(titles)
        panel_height = panel_width * aspect
        wrapped = tuple(textwrap.fill(title, max(int(panel_width / _LETTER_CM), 6)) for title in titles)
        head = _TITLE_CM + _TITLE_LINE_CM * max(title.count("\n") + 1 for title in wrapped)
        return _Layout(
            width=width,
            height=head + num_rows * (panel_height + _GAP_CM) + foot,
            left=left,
            head=head,
            foot=foot,
            panel_width=panel_width,
            panel_height=panel_height,
            titles=wrapped,
        )

    def panel(self, row: int, column: int) -> tuple[float, float, float, float]:
        """Box of a panel."""
        x = self.left + column * (self.panel_width + _GAP_CM)
        y = self.height - self.head - (row + 1) * self.panel_height - row * _GAP_CM
        return self._box(x, y, self.panel_width, self.panel_height)

    def bar(self, first: int, last: int) -> tuple[float, float, float, float]:
        """Box of the color bar under some columns."""
        inset = min(_BAR_INSET_CM, 0.2 * self.panel_width)
        x = self.left + first * (self.panel_width + _GAP_CM) + inset
        width = (last - first + 1) * (self.panel_width + _GAP_CM) - _GAP_CM - 2 * inset
        return self._box(x, self.foot - _BAR_CM, width, _BAR_CM)

    def _box(self, x: float, y: float, width: float, height: float) -> tuple[float, float, float, float]:
        return x / self.width, y / self.height, width / self.width, height / self.height


def _panel(
    made: Figure,
    box: tuple[float, float, float, float],
    field: np.ndarray | None,
    scale: ColorScale,
    origin: Literal["upper", "lower"],
) -> Axes:
    """One field in a thin frame without ticks; nothing where there is no field."""
    axes = made.add_axes(box)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(field is not None)
        spine.set_linewidth(0.4)
    if field is not None:
        axes.imshow(field, norm=scale.norm, cmap=scale.cmap, origin=origin, aspect="auto")
    return axes


def _check(rows: Sequence[Mapping[str, np.ndarray]], labels: Sequence[str] | None) -> list[str]:
    """Names of the columns in order of appearance."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    if not columns or not rows[0]:
        raise DataError("nothing to draw: expected rows of fields by column name, got none")
    if labels is not None and len(labels) != len(rows):
        raise DataError(f"expected one label per row ({len(rows)}), got {len(labels)}")
    for row in rows:
        for column, field in row.items():
            if field.ndim != 2:
                raise DataError(f"column {column!r}: expected a field [height, width], got shape {field.shape}")
    return columns
