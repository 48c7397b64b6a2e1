"""What filters pay for calm: the detail that they lose beside the flicker that they leave."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gridloom.core.system import Drawing
from gridloom.systems.temporal.pictures.tiles import decibels, method_color
from gridloom.viz.style import FULL_CM, figure, settle, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation
else:  # matplotlib is imported where something is drawn
    Annotation = Axes = Any

__all__ = ["draw_tradeoff"]

_Box = tuple[float, float, float, float]

_AROUND = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))
"""Places of a name around its dot, the best first."""
_DOT, _AWAY, _AWAY_DIAGONAL = 5.0, 7.0, 5.0  # points
_OUTSIDE = 1e6
_NO_BIAS, _BORDER = 0.18, 0.09  # of the range of biases, left of the least one


def draw_tradeoff(scores: Mapping[str, tuple[float, float, float]]) -> Drawing:
    """Draw what filters lose against how much flicker they leave.

    Args:
        scores: Bias, variation and error in dB, by method; the model's last. A bias of minus infinity is drawn at the
            left edge.

    Returns:
        Data: `NAME` [3]: bias, variation, error.
    """
    model = list(scores)[-1]
    finite = [bias for bias, _, _ in scores.values() if np.isfinite(bias)] or [0.0]
    span = max(max(finite) - min(finite), 1.0)
    none = min(finite) - _NO_BIAS * span
    names = []
    with style():
        made = figure(width_cm=0.72 * FULL_CM, height_cm=8.0)
        axes = made.add_subplot()
        for number, (name, (bias, variation, error)) in enumerate(scores.items()):
            strong, lossy = name == model, bool(np.isfinite(bias))
            color = method_color(number, model=strong)
            place = (bias if lossy else none, variation)
            axes.plot(*place, "o" if lossy else "<", color=color, ms=7 if strong else 5, zorder=3)
            names.append(
                axes.annotate(
                    f"{name} ({decibels(error)})",
                    place,
                    xytext=(0, 0),
                    textcoords="offset points",
                    va="bottom",
                    fontsize=7,
                    color=color,
                    weight="bold" if strong else "normal",
                    zorder=4,
                )
            )
        axes.margins(x=0.2, y=0.14)
        axes.set_xlabel("detail lost: bias over flicker [dB]")
        axes.set_ylabel("flicker left: variation of the error [dB]")
        axes.grid()
        border = min(finite) - _BORDER * span if len(finite) < len(scores) else None
        if border is not None:
            _mark_none(axes, none, border)
        settle(made)
        _spread(axes, names, border)
    caption = (
        "What filters pay for calm: on x the detail that each loses (error of the clean frames, filtered with the "
        "weights that it chose for those with flicker, over the flicker's variance), on y the flicker that it leaves "
        "(how much its error changes from frame to frame, over that of the input), in brackets its whole error, all in "
        "dB. Lower left is better in both; a blend with a large constant weight is calm because it blurs."
    )
    return Drawing(figure=made, caption=caption, data={name: np.asarray(value) for name, value in scores.items()})


def _mark_none(axes: Axes, none: float, border: float) -> None:
    """Part the place of filters that lose nothing from the axis, which does not reach it."""
    axes.axvline(border, color="#aaaaaa", linewidth=0.8, linestyle=":")
    axes.text(none, 0.01, "none", transform=axes.get_xaxis_transform(), ha="center", va="bottom", fontsize=6.5)
    low, high = axes.get_xlim()
    axes.set_xticks([tick for tick in axes.get_xticks() if border < tick < high])
    axes.set_xlim(low, high)


def _spread(axes: Axes, names: Sequence[Annotation], border: float | None) -> None:
    """Put each name beside its dot, where it hides nothing, inside of the axes."""
    assert axes.figure is not None
    unit = axes.figure.dpi / 72
    dots = [axes.transData.transform(text.xy) for text in names]
    frame = axes.get_window_extent()
    half = _DOT * unit
    taken: list[_Box] = [(x - half, y - half, x + half, y + half) for x, y in dots]
    if border is not None:
        line = float(axes.transData.transform((border, 0.0))[0])
        taken.append((line - unit, frame.y0, line + unit, frame.y1))
    for text, (x, y) in zip(names, dots, strict=True):
        box = text.get_window_extent()
        found = []
        for rank, (across, up) in enumerate(_AROUND):
            away = (_AWAY_DIAGONAL if across and up else _AWAY) * unit
            left = x + across * away - box.width * (1 - across) / 2
            low = y + up * away - box.height * (1 - up) / 2
            place = (left, low, left + box.width, low + box.height)
            outside = place[0] < frame.x0 or place[2] > frame.x1 or place[1] < frame.y0 or place[3] > frame.y1
            found.append((sum(_overlap(place, other) for other in taken) + _OUTSIDE * outside, rank, place))
        _, _, place = min(found)
        text.set_position(((place[0] - x) / unit, (place[1] - y) / unit))
        taken.append(place)


def _overlap(one: _Box, other: _Box) -> float:
    """Area that two boxes share."""
    across = min(one[2], other[2]) - max(one[0], other[0])
    up = min(one[3], other[3]) - max(one[1], other[1])
    return max(across, 0.0) * max(up, 0.0)
