"""Color scales that several panels share, and their legends."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gridloom.viz.style import DIVERGING, MISSING, SEQUENTIAL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, Normalize
else:  # matplotlib is imported where something is drawn
    Axes = Colormap = Normalize = Any

__all__ = ["ColorScale", "color_scale", "draw_colorbar", "mark_missing"]


@dataclass(frozen=True, kw_only=True)
class ColorScale:
    """How values become colors.

    Attributes:
        norm: From values to 0..1.
        cmap: From 0..1 to colors, gray for missing.
        extend: Ends at which values lie beyond the scale; drawn as arrows on the color bar.
    """

    norm: Normalize
    cmap: Colormap
    extend: Literal["neither", "min", "max", "both"]


def color_scale(
    arrays: Sequence[np.ndarray], *, center: float | int | None = None, cmap: str | None = None, clip: float = 0.005
) -> ColorScale:
    """Choose one scale for several arrays.

    Args:
        arrays: All that is drawn with it; NaN is missing.
        center: Middle of a diverging scale, symmetric around it; None for a scale of magnitudes.
        cmap: Name of a map of matplotlib; None takes the style's.
        clip: Share of the values at either end that may lie beyond the scale, so that one outlier does not turn all
            the rest to one color. 0 shows the whole range.
    """
    import matplotlib as mpl
    from matplotlib.colors import Normalize

    known = np.concatenate([array[np.isfinite(array)].ravel().astype(np.float64) for array in arrays] or [np.zeros(0)])
    if known.size == 0:
        known = np.zeros(1)
    if center is None:
        low, high = np.quantile(known, [clip, 1.0 - clip])
        if high <= low:
            low, high = known.min(), known.max()
    else:
        reach = np.quantile(np.abs(known - center), 1.0 - 2 * clip) or np.abs(known - center).max()
        low, high = center - reach, center + reach
    if high <= low:  # a constant field has no range of its own
        margin = max(abs(low) * 0.01, 0.5)
        low, high = low - margin, high + margin
    below, above = bool(known.min() < low), bool(known.max() > high)
    name = cmap or (SEQUENTIAL if center is None else DIVERGING)
    return ColorScale(
        norm=Normalize(float(low), float(high)),
        cmap=mpl.colormaps[name].with_extremes(bad=MISSING),
        extend="both" if below and above else "min" if below else "max" if above else "neither",
    )


def draw_colorbar(axes: Axes, scale: ColorScale, label: str, *, narrow: bool = False) -> None:
    """Fill axes with a horizontal color bar; a narrow one has room for two numbers only."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.ticker import MaxNLocator

    bar = axes.figure.colorbar(
        ScalarMappable(scale.norm, scale.cmap),
        cax=axes,
        orientation="horizontal",
        extend=scale.extend,
        ticks=_two_ticks(scale.norm) if narrow else MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10], min_n_ticks=2),
    )
    bar.outline.set_linewidth(0.4)
    bar.set_label(label, labelpad=2)
    bar.ax.tick_params(length=2, pad=1.5)


def _two_ticks(norm: Normalize) -> list[float]:
    """A round number near either end."""
    from matplotlib.ticker import MaxNLocator

    low, high = float(norm.vmin or 0.0), float(norm.vmax or 0.0)
    inside = [tick for tick in MaxNLocator(nbins=6).tick_values(low, high) if low <= tick <= high]
    return [inside[0], inside[-1]]


def mark_missing(axes: Axes, *, x: float, y: float, size: tuple[float, float]) -> None:
    """Draw the legend of missing cells: a gray patch and the word, at a place in axes coordinates."""
    from matplotlib.patches import Rectangle

    axes.add_patch(
        Rectangle(
            (x, y),
            *size,
            facecolor=MISSING,
            edgecolor="#888888",
            linewidth=0.4,
            transform=axes.transAxes,
            clip_on=False,
        )
    )
    axes.text(x + 1.4 * size[0], y + size[1] / 2, "missing", transform=axes.transAxes, va="center", fontsize=7)
