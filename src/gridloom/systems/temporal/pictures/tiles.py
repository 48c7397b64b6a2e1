"""Images of one shape in rows and columns, with a title above each and its legend below."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gridloom.viz.scale import ColorScale, draw_colorbar
from gridloom.viz.style import COLORS, FULL_CM, MISSING, figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage
else:  # matplotlib is imported where something is drawn
    Axes = AxesImage = Figure = Any

__all__ = ["Tiles", "decibels", "method_color", "scale_between", "show", "until"]

_OTHERS = (*COLORS[1:], "#8C8C8C")  # one for each baseline; the style's own are one too few

_EDGE_CM, _GAP_CM, _BAR_CM = 0.12, 0.2, 0.17


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """Where images lie on a figure, in cm.

    Attributes:
        feet: Room below each row, for legends; one number for each row.
        columns: Images in a row.
        aspect: Height of an image over its width.
        head: Room above each row, for titles.
        left: Room left of all, for the names of rows.
        top: Room above all.
        width: Of the figure.
    """

    feet: tuple[float, ...]
    columns: int
    aspect: float
    head: float = 0.45
    left: float = 0.0
    top: float = 0.0
    width: float = FULL_CM

    @property
    def tile(self) -> tuple[float, float]:
        """Width and height of an image."""
        across = (self.width - 2 * _EDGE_CM - self.left - (self.columns - 1) * _GAP_CM) / self.columns
        return across, across * self.aspect

    @property
    def height(self) -> float:
        """Height of the figure."""
        return self.top + len(self.feet) * (self.head + self.tile[1]) + sum(self.feet) + _EDGE_CM

    def figure(self) -> Figure:
        """Make the figure, empty."""
        return figure(width_cm=self.width, height_cm=self.height, constrained=False)

    def axes(self, made: Figure, row: int, column: int, *, columns: int = 1) -> Axes:
        """Make the axes of an image, or of one that is several columns wide."""
        across, down = self.tile
        left, top = self._corner(row, column)
        wide = columns * across + (columns - 1) * _GAP_CM
        return made.add_axes(self._box(left, top + down, wide, down))

    def middle(self, row: int) -> float:
        """Height of the middle of a row, as a share of the figure's."""
        return 1 - (self._corner(row, 0)[1] + self.tile[1] / 2) / self.height

    def bar(
        self,
        made: Figure,
        row: int,
        column: int,
        scale: ColorScale,
        label: str,
        *,
        below: float = 0.12,
        share: float = 0.86,
        middle: float = 0.5,
    ) -> None:
        """Draw a color bar so many cm below an image, as long as a share of it, with its middle at another share."""
        across, down = self.tile
        left, top = self._corner(row, column)
        long = share * across
        box = self._box(left + middle * across - long / 2, top + down + below + _BAR_CM, long, _BAR_CM)
        draw_colorbar(made.add_axes(box), scale, label, narrow=True)

    def below(self, made: Figure, row: int, column: int, *, side: float) -> Axes:
        """Make square axes below an image, in its middle."""
        across, down = self.tile
        left, top = self._corner(row, column)
        return made.add_axes(self._box(left + (across - side) / 2, top + down + 0.08 + side, side, side))

    def _corner(self, row: int, column: int) -> tuple[float, float]:
        """Left and top of an image."""
        across, down = self.tile
        top = self.top + row * (self.head + down) + self.head + sum(self.feet[:row])
        return _EDGE_CM + self.left + column * (across + _GAP_CM), top

    def _box(self, left: float, bottom: float, width: float, height: float) -> tuple[float, float, float, float]:
        return left / self.width, 1 - bottom / self.height, width / self.width, height / self.height


def show(axes: Axes, image: np.ndarray, title: str = "", scale: ColorScale | None = None) -> AxesImage:
    """Draw an image in a thin frame: colors [y, x, 3], or [y, x] by a scale."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_color("#999999")
        spine.set_linewidth(0.4)
    if title:
        axes.set_title(title, loc="left", pad=2.5, fontsize=7)
    if scale is None:
        return axes.imshow(image, aspect="auto")
    return axes.imshow(image, norm=scale.norm, cmap=scale.cmap, aspect="auto")


def scale_between(low: float | int, high: float | int, cmap: str, *, beyond: bool = False) -> ColorScale:
    """Make a scale with ends that are known.

    Args:
        low: Lower end.
        high: Upper end.
        cmap: Name of a map of matplotlib.
        beyond: Whether there may be values above it.
    """
    import matplotlib as mpl
    from matplotlib.colors import Normalize

    return ColorScale(
        norm=Normalize(float(low), float(high)),
        cmap=mpl.colormaps[cmap].with_extremes(bad=MISSING),
        extend="max" if beyond else "neither",
    )


def until(values: np.ndarray, *, share: float = 0.99) -> float:
    """Upper end of a scale that begins at 0: all but a few values lie below; 1 where there are none."""
    known = values[np.isfinite(values)]
    return float(np.quantile(known, share)) or 1.0 if known.size else 1.0


def decibels(value: float) -> str:
    """A number of decibels for people, with its sign."""
    return f"{round(value, 1) + 0.0:+.1f}".replace("-", "\N{MINUS SIGN}").replace("+0.0", "0.0")


def method_color(number: int, *, model: bool) -> str:
    """Color of a method by its place among all, the same in all pictures; the model's is the first of the style."""
    return COLORS[0] if model else _OTHERS[number % len(_OTHERS)]
