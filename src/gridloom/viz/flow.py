"""Fields of motion as colors: the direction is the hue, the length how strong it is."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gridloom.core.errors import DataError
from gridloom.viz.style import MISSING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
else:  # matplotlib is imported where something is drawn
    Axes = Any

__all__ = ["draw_flow_wheel", "flow_colors", "largest_motion"]

# Hues around the circle, and the share of it between them: eyes tell reds and blues apart better than greens
# (Baker et al., "A database and evaluation methodology for optical flow", IJCV 2011).
_HUES = ((1, 0, 0), (1, 1, 0), (0, 1, 0), (0, 1, 1), (0, 0, 1), (1, 0, 1), (1, 0, 0))
_STEPS = (0, 15, 21, 25, 36, 49, 55)
_BEYOND = 0.75  # brightness of motion that is larger than the largest of the scale
_WHEEL_PIXELS = 151


def largest_motion(flows: Sequence[np.ndarray], *, clip: float | int = 0.005) -> float:
    """Length for the rim of a wheel that several flows share.

    Args:
        flows: [..., 2, height, width]; non-finite is missing.
        clip: Share of the cells that may move farther, so that a few wrong ones don't make all the others pale.

    Returns:
        Above 0, in the unit of the flows; 1 where nothing moves.
    """
    lengths = [np.hypot(flow[..., 0, :, :], flow[..., 1, :, :]).ravel().astype(np.float64) for flow in flows]
    known = np.concatenate(lengths) if lengths else np.zeros(0)
    known = known[np.isfinite(known)]
    if not known.size:
        return 1.0
    return float(np.quantile(known, 1 - clip)) or float(known.max()) or 1.0


def flow_colors(flow: np.ndarray, *, largest: float | int | None = None) -> np.ndarray:
    """Color a flow: white stands still, red moves to the right, yellow down, azure left, violet up.

    Args:
        flow: [2, height, width], (dx, dy) with dy down; gray where it is not finite.
        largest: Length at which colors are full; darker beyond. None takes `largest_motion` of this flow.

    Returns:
        Red, green, blue [height, width, 3], 0 to 1.

    Raises:
        DataError: Another shape, or `largest` not above 0.
    """
    from matplotlib.colors import to_rgb

    if flow.ndim != 3 or flow.shape[0] != 2:
        raise DataError(f"expected a flow [2, height, width], got shape {flow.shape}")
    reach = largest_motion([flow]) if largest is None else float(largest)
    if not reach > 0:
        raise DataError(f"the largest motion of a scale must be above 0, got {largest}")
    known = np.isfinite(flow).all(axis=0)
    dx, dy = np.where(known, flow, 0.0) / reach
    length = np.hypot(dx, dy)[..., None]
    place = np.arctan2(dy, dx) / (2 * np.pi) % 1.0 * _STEPS[-1]
    hue = np.stack([np.interp(place, _STEPS, channel) for channel in zip(*_HUES, strict=True)], axis=-1)
    colors: np.ndarray = np.where(length <= 1, 1 - length * (1 - hue), _BEYOND * hue)
    colors[~known] = to_rgb(MISSING)
    return colors


def draw_flow_wheel(axes: Axes, *, largest: float | int, unit: str = "cells") -> None:
    """Fill axes with the legend of `flow_colors`: a disk in which each place has the color of the motion to there.

    Args:
        axes: Empty axes; their frame is taken away.
        largest: Length at the rim.
        unit: Its unit.
    """
    from matplotlib.patches import Circle

    y, x = np.mgrid[-1 : 1 : _WHEEL_PIXELS * 1j, -1 : 1 : _WHEEL_PIXELS * 1j]
    image = axes.imshow(flow_colors(np.stack([x, y]), largest=1.0), extent=(-1, 1, 1, -1), interpolation="bilinear")
    image.set_clip_path(Circle((0, 0), 1, transform=axes.transData))
    axes.add_patch(Circle((0, 0), 1, fill=False, edgecolor="#888888", linewidth=0.4, clip_on=False))
    axes.set_axis_off()
    axes.text(0.5, -0.04, f"{largest:.3g} {unit}", transform=axes.transAxes, ha="center", va="top", fontsize=6.5)
