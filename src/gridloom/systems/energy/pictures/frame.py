"""What the pictures share: places of coordinates on paper, markers, densities, checks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Shaped

from gridloom.core.errors import DataError
from gridloom.viz.scale import ColorScale, color_scale
from gridloom.viz.style import COLORS, MISSING, SEQUENTIAL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
else:  # matplotlib is imported where something is drawn
    Axes = Figure = Any

__all__ = [
    "CROSS",
    "ENERGY_LABEL",
    "INK",
    "MINIMUM_COLOR",
    "RING",
    "Plane",
    "border",
    "check",
    "cross",
    "density",
    "energy_scale",
    "few_ticks",
    "finish",
    "key",
    "plain_log",
    "ring",
    "side_bar",
    "spread",
    "stacked",
]

INK = "#222222"
MINIMUM_COLOR = COLORS[1]
ENERGY_LABEL = "energy (lower = better)"

Box = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class Plane:
    """Where coordinates lie in an image: -1 is the center of its first row or column, 1 that of its last one.

    Attributes:
        cells: Rows and columns of the image.
        extent: What the axes say at the centers of the first and the last cell, rows first, [2, 2].
        unit: Unit of the extent.
    """

    cells: tuple[int, int]
    extent: Float[np.ndarray, "2 2"]
    unit: str

    @classmethod
    def of(cls, cells: tuple[int, int], *, extent: np.ndarray | None = None, unit: str = "cells") -> "Plane":
        """Make the plane of an image; without an extent the axes count cells from 0."""
        if extent is None:
            return cls(cells=cells, extent=np.array([[0.0, 0.0], [cells[0] - 1.0, cells[1] - 1.0]]), unit="cells")
        return cls(cells=cells, extent=np.asarray(extent, dtype=np.float64), unit=unit)

    def place(self, y: Shaped[np.ndarray, "*points 2"]) -> Float[np.ndarray, "*points 2"]:
        """Coordinates (row, column) from -1 to 1 to what the axes say."""
        share = (np.asarray(y, dtype=np.float64) + 1) / 2
        return np.asarray(self.extent[0] + share * (self.extent[1] - self.extent[0]))

    def distance(
        self, first: Shaped[np.ndarray, "*points 2"], second: Shaped[np.ndarray, "*others 2"]
    ) -> Float[np.ndarray, "..."]:
        """Distance of coordinates, in cells."""
        half = (np.asarray(self.cells, dtype=np.float64) - 1) / 2
        difference = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
        return np.asarray(np.linalg.norm(difference * half, axis=-1))

    @property
    def aspect(self) -> float:
        """Aspect that makes cells square."""
        rows, columns = np.abs(self.extent[1] - self.extent[0]) / np.maximum(np.asarray(self.cells) - 1, 1)
        return float(columns / rows)

    def box(self, bounds: np.ndarray, shape: tuple[int, int]) -> Box:
        """Outer edges (left, right, bottom, top) of a grid whose first and last points lie at the bounds."""
        low, high = self.place(bounds)
        margin = (high - low) / (2 * np.maximum(np.asarray(shape) - 1, 1))
        (top, left), (bottom, right) = low - margin, high + margin
        return float(left), float(right), float(bottom), float(top)

    def frame(self, axes: Axes) -> None:
        """Show the whole image, rows downward."""
        left, right, bottom, top = self.box(np.array([[-1.0, -1.0], [1.0, 1.0]]), self.cells)
        axes.set_xlim(left, right)
        axes.set_ylim(bottom, top)
        axes.set_aspect(self.aspect)

    def image(self, axes: Axes, image: np.ndarray) -> None:
        """Draw an image, gray or in colors, 0 to 1; where cells are missing (NaN), in a map without gray."""
        import matplotlib as mpl

        box = self.box(np.array([[-1.0, -1.0], [1.0, 1.0]]), self.cells)
        holes = bool(np.isnan(image).any())  # gray would hide among grays
        cmap = mpl.colormaps["cividis" if holes else "gray"].with_extremes(bad=MISSING)
        shown = np.clip(image, 0, 1)
        if image.ndim == 3:
            shown = np.where(np.isfinite(shown), shown, 0.85)
        axes.imshow(shown, extent=box, aspect=self.aspect, cmap=cmap, vmin=0, vmax=1)
        self.frame(axes)
        border(axes)

    def energy(self, axes: Axes, energy: np.ndarray, bounds: np.ndarray, scale: ColorScale) -> None:
        """Draw energies as a heat map with contours."""
        box = self.box(bounds, (energy.shape[0], energy.shape[1]))
        axes.imshow(energy, extent=box, aspect=self.aspect, cmap=scale.cmap, norm=scale.norm)
        self.contours(axes, energy, bounds)
        self.frame(axes)
        border(axes)

    def contours(self, axes: Axes, energy: np.ndarray, bounds: np.ndarray, *, color: str = "white") -> None:
        """Draw lines of equal energy."""
        known = energy[np.isfinite(energy)]
        if known.size == 0 or known.max() <= known.min():
            return
        low, high = self.place(bounds)
        levels = np.linspace(known.min(), known.max(), 9)[1:-1]
        rows, columns = np.linspace(low[0], high[0], energy.shape[0]), np.linspace(low[1], high[1], energy.shape[1])
        axes.contour(columns, rows, energy, levels=levels, colors=color, linewidths=0.5, alpha=0.8)

    def name(self, axes: Axes, *, row: bool = True, column: bool = True) -> None:
        """Name the axes and give them few numbers."""
        axes.set_xlabel(f"column [{self.unit}]" if column else "", labelpad=1.5)
        axes.set_ylabel(f"row [{self.unit}]" if row else "", labelpad=1.5)
        few_ticks(axes)
        axes.tick_params(labelbottom=column, labelleft=row)


def few_ticks(axes: Axes, *, x: int = 3, y: int = 3) -> None:
    """At most so many intervals between the numbers of the axes."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=x, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=y, steps=[1, 2, 2.5, 5, 10]))


def border(axes: Axes) -> None:
    """A frame all around."""
    for spine in axes.spines.values():
        spine.set_visible(True)


def plain_log(axis: Any) -> None:
    """A logarithmic axis with plain numbers: 1, 2 and 5 of each decade if there are few decades, else 1."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    low, high = sorted(abs(end) for end in axis.get_view_interval())
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 50 * low else (1.0,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    if high < 50 * low:
        axis.set_minor_locator(NullLocator())
    else:
        axis.set_minor_formatter("")


def finish(made: Figure) -> None:
    """Lay a figure out for good: with images in it, the layout needs several passes until nothing is cut off."""
    engine = made.get_layout_engine()
    if engine is None:
        return
    for _ in range(3):
        engine.execute(made)
    made.set_layout_engine("none")


def check(fits: bool | np.bool_, what: str, got: object) -> None:
    """Refuse what cannot be drawn.

    Raises:
        DataError: It does not fit.
    """
    if not fits:
        raise DataError(f"nothing drawn: expected {what}, got {got}")


def energy_scale(arrays: Sequence[np.ndarray], *, clip: float = 0.0) -> ColorScale:
    """One scale of energies for several panels; low energies are bright."""
    return color_scale(arrays, cmap=f"{SEQUENTIAL}_r", clip=clip)


def density(energy: Shaped[np.ndarray, "*rows n"], y: Shaped[np.ndarray, " m"]) -> Float[np.ndarray, "*rows n"]:
    """exp(-E) divided by its integral over y (trapezoids)."""
    energy = np.asarray(energy, dtype=np.float64)
    weight = np.exp(energy.min(axis=-1, keepdims=True) - energy)
    return np.asarray(weight / np.trapezoid(weight, y, axis=-1)[..., None])


def cross(axes: Axes, x: Any, y: Any, *, size: float | int = 5.5) -> None:
    """Mark true places: a dark x with a light edge."""
    axes.plot(x, y, "x", color="white", markersize=size + 1.2, markeredgewidth=2.8, zorder=6, clip_on=False)
    axes.plot(x, y, "x", color=INK, markersize=size, markeredgewidth=1.3, zorder=7, clip_on=False)


def ring(axes: Axes, x: Any, y: Any, *, color: str = MINIMUM_COLOR, shape: str = "o", size: float | int = 7) -> None:
    """Mark found places: an open ring with a light edge."""
    plain: dict[str, Any] = {"markerfacecolor": "none", "markersize": size, "clip_on": False, "linestyle": "none"}
    axes.plot(x, y, marker=shape, markeredgecolor="white", markeredgewidth=2.8, zorder=6, **plain)
    axes.plot(x, y, marker=shape, markeredgecolor=color, markeredgewidth=1.4, zorder=7, **plain)


def key(
    made: Any, entries: Mapping[str, Mapping[str, Any]], *, columns: int = 4, loc: str = "outside lower center"
) -> None:
    """A legend outside of all panels of a figure, from the properties of its lines by label."""
    from matplotlib.lines import Line2D

    lines = [Line2D([], [], **{"linestyle": "none", **properties}) for properties in entries.values()]
    made.legend(lines, list(entries), loc="outside lower center", ncols=columns, columnspacing=1.0, handletextpad=0.4)


RING: Mapping[str, Any] = {
    "marker": "o",
    "markersize": 5.5,
    "markerfacecolor": "none",
    "markeredgecolor": MINIMUM_COLOR,
    "markeredgewidth": 1.4,
}
CROSS: Mapping[str, Any] = {"marker": "x", "markersize": 5, "color": INK, "markeredgewidth": 1.3}


def side_bar(made: Any, axes: object, scale: ColorScale, label: str, **options: Any) -> None:
    """A color bar beside panels, or where the options say."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.ticker import MaxNLocator

    settings: dict[str, Any] = {
        "fraction": 0.06,
        "pad": 0.03,
        "aspect": 22,
        "extendfrac": 0.03,
        "ticks": MaxNLocator(nbins=5),
        **options,
    }
    bar = made.colorbar(ScalarMappable(scale.norm, scale.cmap), ax=axes, extend=scale.extend, **settings)
    bar.outline.set_linewidth(0.4)
    bar.set_label(label, labelpad=2)
    bar.ax.tick_params(length=2, pad=1.5)


def stacked(made: Figure, heights: Sequence[float]) -> list[Any]:
    """Parts of a figure, one under the other."""
    parts: Any = made.subfigures(len(heights), 1, height_ratios=list(heights), squeeze=False)
    return list(parts[:, 0])


def spread(count: int, most: int) -> list[int]:
    """Numbers 0 to count - 1, or `most` of them evenly, the first and the last among them."""
    return sorted({int(number) for number in np.linspace(0, count - 1, min(count, most)).round()})
