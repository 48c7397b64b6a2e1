"""Tables of frames: rows of panels that share colors and axes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gridloom.systems.heatmap.pictures.cells import CellAxis, Look
from gridloom.viz.scale import ColorScale, color_scale
from gridloom.viz.style import FULL_CM, figure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage
else:  # matplotlib is imported where something is drawn
    Axes = AxesImage = Figure = Any

__all__ = ["PanelRow", "Table", "draw_table", "film"]

_CHARACTER_CM, _RIGHT_CM, _GAP_CM, _BLOCK_GAP_CM = 0.14, 0.1, 0.1, 0.35
_TITLE_CM, _LINE_CM, _NOTE_CM = 0.12, 0.34, 0.34
_FOOT_CM, _NAME_CM, _BAR_CM, _BAR_FOOT_CM = 0.62, 0.33, 0.2, 0.85
_TICKS_CM, _TICKS_AND_NAME_CM = 0.68, 0.98
_SMALL = 6.5


@dataclass(frozen=True, kw_only=True)
class PanelRow:
    """A row of panels.

    Attributes:
        label: What it shows.
        images: Frames [y, x]; None leaves a place empty.
        notes: Written over the panels; empty for none.
        error: Drawn with the scale of errors.
        apart: Some space before it.
    """

    label: str
    images: Sequence[np.ndarray | None]
    notes: Sequence[str] = ()
    error: bool = False
    apart: bool = False


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table that was drawn.

    Attributes:
        figure: The figure.
        images: What can be changed for a moving picture, row by row.
        title: The line above all.
    """

    figure: Figure
    images: list[list[AxesImage | None]]
    title: Any


def draw_table(
    rows: Sequence[PanelRow],
    *,
    titles: Sequence[str],
    look: Look,
    title: str = "",
    blocks: int = 1,
    divide: int = 0,
    shared: Sequence[np.ndarray] = (),
    width_cm: float = FULL_CM,
) -> Table:
    """Draw rows of frames.

    Args:
        rows: All with as many places as there are titles.
        titles: Of the columns.
        look: How frames are drawn.
        title: A line above all.
        blocks: Groups of columns with some space between them.
        divide: Column before which a line is drawn through all rows; 0 for none.
        shared: More frames that the colors must serve (those of a moving picture).
        width_cm: Width.
    """
    place = _Places.of(rows, titles, look, blocks=blocks, titled=bool(title), width=width_cm)
    everything = [image for row in rows if not row.error for image in row.images if image is not None]
    scale = look.value_scale([*everything, *shared])
    errors = color_scale([image for row in rows if row.error for image in row.images if image is not None], center=0.0)
    drawn: list[list[AxesImage | None]] = []
    with style():
        made = figure(width_cm=place.width, height_cm=place.height, constrained=False)
        for down, row in enumerate(rows):
            drawn.append([])
            for across, image in enumerate(row.images):
                if image is None:
                    drawn[-1].append(None)
                    continue
                axes = made.add_axes(place.panel(down, across))
                drawn[-1].append(look.draw(axes, image, errors if row.error else scale))
                _label(
                    axes, look, bottom=down + 1 == len(rows), left=not any(i is not None for i in row.images[:across])
                )
                if row.notes and row.notes[across]:
                    axes.set_title(row.notes[across], fontsize=_SMALL, pad=1.5)
            _row_label(made, place, down, row, look)
        for across, text in enumerate(titles):
            x, y = place.over(across)
            made.text(x, y, text, ha="center", va="bottom", fontsize=7.5)
        head = made.text(0.5, 1 - 0.1 / place.height, title, ha="center", va="top", fontsize=8.5)
        if divide:
            x, bottom, top = place.divider(divide)
            from matplotlib.lines import Line2D

            made.add_artist(Line2D([x, x], [bottom, top], color="#D55E00", linewidth=1.0))
        _bars(made, place, look, scale, errors if any(row.error for row in rows) else None)
    return Table(figure=made, images=drawn, title=head)


@dataclass(frozen=True, kw_only=True)
class _Places:
    """Where panels lie, in cm from the lower left."""

    width: float
    height: float
    tile: tuple[float, float]
    tops: tuple[float, ...]
    lefts: tuple[float, ...]

    @staticmethod
    def of(
        rows: Sequence[PanelRow], titles: Sequence[str], look: Look, *, blocks: int, titled: bool, width: float
    ) -> "_Places":
        columns = len(titles)
        gaps = _GAP_CM * (columns - blocks) + _BLOCK_GAP_CM * (blocks - 1)
        longest = max(len(line) for row in rows for line in row.label.split("\n"))
        left = 0.2 + _CHARACTER_CM * longest + (_TICKS_AND_NAME_CM if look.y.label else _TICKS_CM)
        across = (width - left - _RIGHT_CM - gaps) / columns
        down = across * look.aspect
        lines = max(text.count("\n") + 1 for text in titles) if any(titles) else 0
        head = _TITLE_CM + _LINE_CM * lines + (0.6 if titled else 0.0)
        below, offsets = head, []
        for number, row in enumerate(rows):
            below += _NOTE_CM * bool(row.notes) + (_BLOCK_GAP_CM if row.apart and number else 0.0)
            offsets.append(below)
            below += down + _GAP_CM
        height = below - _GAP_CM + _FOOT_CM + _NAME_CM * bool(look.x.label) + _BAR_CM + _BAR_FOOT_CM
        per_block = columns // blocks
        lefts = tuple(
            left + i * (across + _GAP_CM) + (i // per_block) * (_BLOCK_GAP_CM - _GAP_CM) for i in range(columns)
        )
        return _Places(
            width=width, height=height, tile=(across, down), tops=tuple(height - o for o in offsets), lefts=lefts
        )

    def panel(self, row: int, column: int) -> tuple[float, float, float, float]:
        return self.box(self.lefts[column], self.tops[row] - self.tile[1], *self.tile)

    def box(self, left: float, bottom: float, width: float, height: float) -> tuple[float, float, float, float]:
        return left / self.width, bottom / self.height, width / self.width, height / self.height

    def over(self, column: int) -> tuple[float, float]:
        first_top = self.tops[0] + 0.08
        return (self.lefts[column] + self.tile[0] / 2) / self.width, first_top / self.height

    def divider(self, column: int) -> tuple[float, float, float]:
        x = (self.lefts[column] + self.lefts[column - 1] + self.tile[0]) / 2
        return x / self.width, (self.tops[-1] - self.tile[1] - 0.05) / self.height, (self.tops[0] + 0.05) / self.height


def _label(axes: Axes, look: Look, *, bottom: bool, left: bool) -> None:
    if bottom:
        _ticks(axes.set_xticks, look.x)
        axes.set_xlabel(look.x.label if left else "", fontsize=_SMALL, labelpad=1, loc="left")
    if left:
        _ticks(axes.set_yticks, look.y)
        axes.set_ylabel(look.y.label if bottom else "", fontsize=_SMALL, labelpad=1, loc="bottom")
    axes.tick_params(labelsize=5.5, length=1.5, pad=1)


def _ticks(setter: Any, axis: CellAxis) -> None:
    setter(list(axis.ticks), list(axis.texts))


def _row_label(made: Figure, place: _Places, down: int, row: PanelRow, look: Look) -> None:
    """Left of the ticks of the first panel."""
    first = next((across for across, image in enumerate(row.images) if image is not None), 0)
    x = place.lefts[first] - (_TICKS_AND_NAME_CM if look.y.label else _TICKS_CM)
    y = place.tops[down] - place.tile[1] / 2
    made.text(x / place.width, y / place.height, row.label, ha="right", va="center", fontsize=7.5, linespacing=1.15)


def _bars(made: Figure, place: _Places, look: Look, scale: ColorScale, errors: ColorScale | None) -> None:
    """Color bars at the foot: of values, and of errors beside it."""
    from matplotlib.cm import ScalarMappable

    left = place.lefts[0]
    room = place.width - left - _RIGHT_CM
    each = room if errors is None else (room - 0.8) / 2
    top = float(scale.norm.vmax or 1.0)
    axes = made.add_axes(place.box(left, _BAR_FOOT_CM, min(each, 8.0), _BAR_CM))
    bar = made.colorbar(ScalarMappable(scale.norm, scale.cmap), cax=axes, orientation="horizontal", extend=scale.extend)
    ticks, texts = look.bar_ticks(top)
    bar.set_ticks(ticks, labels=texts)
    bar.set_label(look.unit, labelpad=1)
    bar.outline.set_linewidth(0.4)
    if errors is not None:
        axes = made.add_axes(place.box(left + room - min(each, 8.0), _BAR_FOOT_CM, min(each, 8.0), _BAR_CM))
        bar = made.colorbar(
            ScalarMappable(errors.norm, errors.cmap), cax=axes, orientation="horizontal", extend=errors.extend
        )
        bar.set_label("forecast minus truth [pixel]", labelpad=1)
        bar.outline.set_linewidth(0.4)


def film(
    table: Table, frames: Sequence[Sequence[Sequence[np.ndarray | None]]], titles: Sequence[str]
) -> Iterator[Figure]:
    """Put other frames into a table, again and again; at the end it shows the last ones.

    Args:
        table: What is drawn.
        frames: By time, row and column.
        titles: By time.

    Yields:
        The figure of the table, for each time.
    """
    for content, title in zip(frames, titles, strict=True):
        for row, images in zip(table.images, content, strict=True):
            for drawn, image in zip(row, images, strict=True):
                if drawn is not None and image is not None:
                    drawn.set_data(image)
        table.title.set_text(title)
        yield table.figure
