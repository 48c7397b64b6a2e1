"""A field over latitude and longitude as a plain map."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Shaped

from gridloom.core.errors import DataError
from gridloom.viz.scale import color_scale, draw_colorbar, mark_missing
from gridloom.viz.style import COLORS, COLUMN_CM, figure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
else:  # matplotlib is imported where something is drawn
    Axes = Figure = Any

__all__ = ["globe"]

_NEARLY_ALL = 350.0
"""A field that spans this many degrees of longitude goes around the globe."""
_SHAPES = "osD^v"


def globe(
    values: Shaped[np.ndarray, "lat lon"],
    latitude: Shaped[np.ndarray, " lat"],
    longitude: Shaped[np.ndarray, " lon"],
    *,
    label: str = "",
    center: float | int | None = None,
    markers: Mapping[str, np.ndarray] | None = None,
    rectangles: Mapping[str, Sequence[tuple[float, float, float, float]]] | None = None,
    width_cm: float | int = COLUMN_CM,
) -> Figure:
    """Draw one map in the rectangular projection (a degree is as long in both directions).

    Args:
        values: NaN where missing.
        latitude: Degrees north, rising or falling.
        longitude: Degrees east, in any range. A field around the globe is turned so that Greenwich is in the middle.
        label: Name and unit of the values, for the color bar.
        center: Middle of a diverging scale; None for magnitudes.
        markers: Points by name, [points, 2], latitude and longitude.
        rectangles: Boxes by name: south, north, west, east.
        width_cm: Width; the height follows.

    Raises:
        DataError: Coordinates that do not rise or fall steadily.
    """
    values, latitude, longitude = _unroll(values, latitude.astype(np.float64), longitude.astype(np.float64))
    west, east = _edges(longitude, "longitude")
    south, north = _edges(latitude, "latitude")
    scale = color_scale([values], center=center)
    missing = bool(np.isnan(values).any())
    left, right, bottom, top = 0.85, 0.4, 1.95 if missing or markers or rectangles else 1.5, 0.15
    map_width = width_cm - left - right
    map_height = map_width * (north - south) / (east - west)
    height = map_height + bottom + top
    with style():
        made = figure(width_cm=width_cm, height_cm=height, constrained=False)
        axes = made.add_axes((left / width_cm, bottom / height, map_width / width_cm, map_height / height))
        axes.imshow(
            values, norm=scale.norm, cmap=scale.cmap, extent=(west, east, south, north), origin="lower", aspect="auto"
        )
        _draw_marks(axes, markers or {}, rectangles or {}, west)
        axes.set_xlim(west, east)
        axes.set_ylim(south, north)
        _degrees(axes)
        for spine in axes.spines.values():
            spine.set_visible(True)
        bar = (left / width_cm, (bottom - 0.75) / height, map_width / width_cm, 0.18 / height)
        draw_colorbar(made.add_axes(bar), scale, label)
        if missing:
            mark_missing(axes, x=0.0, y=-(bottom - 0.05) / map_height, size=(0.3 / map_width, 0.22 / map_height))
        if markers or rectangles:
            place = (1.0, -(bottom + 0.1) / map_height)
            axes.legend(loc="lower right", bbox_to_anchor=place, ncols=4, borderaxespad=0, columnspacing=1.0)
    return made


def _unroll(
    values: np.ndarray, latitude: np.ndarray, longitude: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Latitude rising; longitude rising, from -180 where the field goes around the globe."""
    for what, degrees in (("latitude", latitude), ("longitude", longitude)):
        steps = np.diff(degrees)
        if len(degrees) < 2 or not ((steps > 0).all() or (steps < 0).all()):
            raise DataError(f"{what}: expected at least 2 values that rise or fall steadily, got {degrees[:4]}")
    if np.ptp(longitude) + np.abs(np.diff(longitude)).max() > _NEARLY_ALL:
        longitude = _wrap(longitude, -180.0)
    order = np.argsort(longitude)
    rising = np.argsort(latitude)
    return values[np.ix_(rising, order)], latitude[rising], longitude[order]


def _wrap(longitude: np.ndarray, west: float) -> np.ndarray:
    """Bring degrees into [west, west + 360)."""
    return np.asarray((longitude - west) % 360.0 + west)


def _edges(degrees: Float[np.ndarray, " size"], what: str) -> tuple[float, float]:
    """Outer edges of the cells, half a step beyond their centers."""
    steps = np.diff(degrees)
    if steps.max() > 1.5 * steps.min():
        raise DataError(f"{what}: expected even steps, got steps from {steps.min():g} to {steps.max():g} degrees")
    half = float(steps.mean()) / 2
    return round(float(degrees[0]) - half, 3), round(float(degrees[-1]) + half, 3)


def _draw_marks(
    axes: Axes,
    markers: Mapping[str, np.ndarray],
    rectangles: Mapping[str, Sequence[tuple[float, float, float, float]]],
    west: float,
) -> None:
    """Points and boxes over the map, with a white rim so that they show on any color."""
    from matplotlib.patches import Rectangle

    for number, (name, points) in enumerate(markers.items()):
        axes.scatter(
            _wrap(points[:, 1], west),
            points[:, 0],
            s=14,
            marker=_SHAPES[number % len(_SHAPES)],
            color=COLORS[(number + 1) % len(COLORS)],
            edgecolors="white",
            linewidths=0.6,
            label=name,
            zorder=3,
        )
    for number, (name, boxes) in enumerate(rectangles.items()):
        color = COLORS[(number + len(markers) + 1) % len(COLORS)]
        for position, (box_south, box_north, box_west, box_east) in enumerate(boxes):
            corner = (float(_wrap(np.asarray(box_west), west)), box_south)
            size = ((box_east - box_west) % 360.0 or 360.0, box_north - box_south)
            axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor="white", linewidth=1.8))
            axes.add_patch(
                Rectangle(
                    corner, *size, fill=False, edgecolor=color, linewidth=0.9, label=name if position == 0 else None
                )
            )


def _degrees(axes: Axes) -> None:
    """Ticks such as 60°W and 30°N."""
    from matplotlib.ticker import FuncFormatter, MultipleLocator

    for axis, span, signs in (
        (axes.xaxis, np.ptp(axes.get_xlim()), "EW"),
        (axes.yaxis, np.ptp(axes.get_ylim()), "NS"),
    ):
        step = next((step for step in (1, 2, 5, 10, 15, 30, 60) if span / step <= 6), 60)
        axis.set_major_locator(MultipleLocator(step))
        axis.set_major_formatter(FuncFormatter(_Degrees(signs)))


class _Degrees:
    """Writes degrees with the letter of their side."""

    def __init__(self, signs: str) -> None:
        self.signs = signs

    def __call__(self, value: float, position: int | None = None) -> str:
        if self.signs == "EW":
            value = (value + 180.0) % 360.0 - 180.0
        if value == 0 or abs(value) == 180:
            return f"{abs(value):g}°"
        return f"{abs(value):g}°{self.signs[0] if value > 0 else self.signs[1]}"
