"""What rows, columns and colors of a frame mean: prices and volumes, longitudes and latitudes, counts."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gridloom.viz.scale import ColorScale
from gridloom.viz.style import MISSING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage
else:  # matplotlib is imported where something is drawn
    Axes = AxesImage = Any

__all__ = ["CellAxis", "Look", "read_look"]

_COUNTS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000)
_PERCENT = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_MOST_TICKS = 4
_MAP = "magma_r"
_LIGHTEST, _DARKEST = 0.1, 0.98
_APART = {"y": 0.13, "x": 0.22}  # of the axis, between two ticks
_MARGIN = 0.08  # of the axis, at its ends, where labels of two panels would meet
_GEOGRAPHIC = {"degrees_north": "SN", "degrees_east": "WE"}


@dataclass(frozen=True, kw_only=True)
class CellAxis:
    """What the rows or the columns of a frame mean.

    Attributes:
        size: Cells.
        label: Name and unit; empty where ticks say it all.
        ticks: Places of ticks in cells; 0 is the middle of the first cell.
        texts: What they say.
        rises: Whether values rise with the number of the cell.
        degrees: Length of a cell in degrees of a meridian or parallel; 0 where it is no map.
    """

    size: int
    label: str
    ticks: tuple[float, ...]
    texts: tuple[str, ...]
    rises: bool = True
    degrees: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Look:
    """How frames are drawn.

    Attributes:
        y: Rows.
        x: Columns.
        aspect: Height over width of a whole frame on paper.
        cap: Count that is pixel 1; 0 where frames are pixels and nothing else.
        scale: How counts become pixels, `log1p` or `linear`.
    """

    y: CellAxis
    x: CellAxis
    aspect: float
    cap: int
    scale: str

    @property
    def unit(self) -> str:
        """What a color bar says."""
        return "events per cell" if self.cap else "pixel"

    @property
    def told(self) -> str:
        """What colors mean, as a sentence for captions."""
        if not self.cap:
            return "Colors are pixels from 0 to 1."
        how = "with the logarithm of" if self.scale == "log1p" else "with"
        return f"Colors rise {how} the number of events in a cell, which is counted up to {self.cap:,}."

    def counts(self, pixels: np.ndarray) -> np.ndarray:
        """Counts of pixels, not rounded; pixels themselves where there are no counts."""
        values = np.asarray(pixels, dtype=np.float64)
        if not self.cap:
            return values
        found: np.ndarray = np.expm1(values * math.log1p(self.cap)) if self.scale == "log1p" else values * self.cap
        return found

    def pixel(self, count: float | int) -> float:
        """Pixel of a count."""
        if not self.cap:
            return float(count)
        return math.log1p(count) / math.log1p(self.cap) if self.scale == "log1p" else count / self.cap

    def draw(self, axes: Axes, image: np.ndarray, scale: ColorScale) -> AxesImage:
        """Draw a frame [y, x] without ticks."""
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_visible(True)
            spine.set_linewidth(0.4)
            spine.set_edgecolor("#888888")
        return axes.imshow(
            image, origin="lower" if self.y.rises else "upper", aspect="auto", norm=scale.norm, cmap=scale.cmap
        )

    def bar_ticks(self, top: float) -> tuple[list[float], list[str]]:
        """Pixels at which a color bar up to `top` has ticks, and the counts that they say."""
        if not self.cap:
            return [0.0, top / 2, top], ["0", f"{top / 2:.2g}", f"{top:.2g}"]
        chosen: list[int] = []
        for count in _COUNTS:
            place = self.pixel(count)
            if place <= top * 1.001 and (not chosen or place - self.pixel(chosen[-1]) >= 0.07 * top):
                chosen.append(count)
        return [self.pixel(count) for count in chosen], [f"{count:,}" for count in chosen]

    def value_scale(self, arrays: list[np.ndarray]) -> ColorScale:
        """One scale of pixels for all of these, from 0; it ends where a ten-thousandth of them is larger."""
        import matplotlib as mpl
        from matplotlib.colors import LinearSegmentedColormap, Normalize

        known = np.concatenate([array[np.isfinite(array)].ravel() for array in arrays])
        top = float(np.quantile(known, 0.9999)) if known.size else 0.0
        # Most cells are empty: white, so that single events and faint forecasts are seen.
        colors = mpl.colormaps[_MAP](np.linspace(_LIGHTEST, _DARKEST, 16))
        white_first = LinearSegmentedColormap.from_list("events", ["white", *colors])
        return ColorScale(
            norm=Normalize(0.0, top or 1.0),
            cmap=white_first.with_extremes(bad=MISSING),
            extend="max" if known.max(initial=0.0) > (top or 1.0) else "neither",
        )


def read_look(attrs: Mapping[str, Any], size: tuple[int, int], *, cap: int, scale: str) -> Look:
    """Read what a frames dataset says of its cells.

    Args:
        attrs: Attributes of the dataset; `axes` is JSON, as `grid.events.axis_record` writes it for `y` and `x`.
        size: Rows and columns.
        cap: Count that is pixel 1, 0 for pixels.
        scale: How counts become pixels.
    """
    told: Mapping[str, Any] = json.loads(attrs.get("axes", "{}"))
    y, x = (_axis(told.get(name, {}), cells, name) for name, cells in zip("yx", size, strict=True))
    aspect = size[0] / size[1]
    if y.degrees and x.degrees:
        middle = math.radians((told["y"]["low"] + told["y"]["high"]) / 2)
        aspect = y.size * y.degrees / (x.size * x.degrees * max(math.cos(middle), 0.2))
    return Look(y=y, x=x, aspect=float(np.clip(aspect, 0.3, 2.0)), cap=cap, scale=scale)


def _axis(told: Mapping[str, Any], size: int, name: str) -> CellAxis:
    kind = told.get("axis", "LinearAxis" if told.get("kind") == "linear" else "")
    if kind == "PriceAxis":
        return _price(told, apart=_APART[name])
    if kind == "VolumeAxis":
        decades = {float(volume): f"{volume:,}" for volume in (1, *_COUNTS[4::3])}
        return _ticked("volume", np.asarray(told["edges"], dtype=np.float64), decades, apart=_APART[name])
    if kind == "LinearAxis":
        return _linear(told, size, name)
    return CellAxis(size=size, label="row" if name == "y" else "column", ticks=(), texts=(), rises=False)


def _price(told: Mapping[str, Any], *, apart: float) -> CellAxis:
    edges = np.asarray(told["edges"], dtype=np.float64)
    if told.get("kind") == "ticks":
        reach = max(1, (len(edges) - 1) // 4)
        values = {float(step): f"{step:+d}" if step else "0" for step in (-reach, 0, reach)}
        return _ticked("price, ticks from reference", edges, values, apart=apart)
    values = {0.0: "0"}
    for percent in reversed(_PERCENT):
        values |= {math.log1p(sign * percent / 100): f"{sign * percent:+g}" for sign in (-1, 1)}
    return _ticked("price, % from reference", edges, values, apart=apart)


def _linear(told: Mapping[str, Any], size: int, name: str) -> CellAxis:
    from matplotlib.ticker import MaxNLocator

    low, high = float(told["low"]), float(told["high"])
    units = str(told.get("units", ""))
    of = str(told.get("of", "y" if name == "y" else "x"))
    label = f"{of} [{units}]" if units not in ("", "1") else of
    if units in _GEOGRAPHIC:
        label = ""
    inside = [float(v) for v in MaxNLocator(4).tick_values(min(low, high), max(low, high))]
    values = {value: _degrees(value, units) for value in inside}
    axis = _ticked(
        label, np.linspace(low, high, size + 1), values, apart=_APART[name] + 0.15 * (name == "x" and not label)
    )
    degrees = abs(high - low) / size if units in _GEOGRAPHIC else 0.0
    return CellAxis(**{**vars(axis), "degrees": degrees})


def _degrees(value: float, units: str) -> str:
    """`90°W`, or the number itself where it is not a place on the Earth."""
    if units not in _GEOGRAPHIC:
        return f"{value:g}"
    return f"{abs(value):g}°{_GEOGRAPHIC[units][value > 0] if value else ''}"


def _ticked(label: str, edges: np.ndarray, values: Mapping[float, str], *, apart: float) -> CellAxis:
    """Ticks at those of the values that lie on the axis, far enough from each other; the first ones have priority."""
    size, rises = len(edges) - 1, bool(edges[-1] > edges[0])
    ordered, places = (edges, np.arange(size + 1) - 0.5) if rises else (edges[::-1], np.arange(size + 1)[::-1] - 0.5)
    chosen: list[tuple[float, str]] = []
    for value, text in values.items():
        if not ordered[0] <= value <= ordered[-1] or len(chosen) == _MOST_TICKS:
            continue
        place = float(np.interp(value, ordered, places))
        if not _MARGIN <= (place + 0.5) / size <= 1 - _MARGIN:
            continue
        if all(abs(place - other) >= apart * size for other, _ in chosen):
            chosen.append((place, text))
    chosen.sort()
    return CellAxis(
        size=size, label=label, ticks=tuple(p for p, _ in chosen), texts=tuple(t for _, t in chosen), rises=rises
    )
