"""Pictures of how good filters are: over time, what they pay for calm, and the weight of the past while training."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Shaped

from gridloom.core.system import Drawing
from gridloom.systems.temporal.pictures.tiles import decibels
from gridloom.viz.style import COLORS, COLUMN_CM, FULL_CM, figure, settle, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation
else:  # matplotlib is imported where something is drawn
    Annotation = Axes = Figure = Any

__all__ = ["draw_alpha", "draw_error", "draw_tradeoff"]

_CUT = "#D55E00"
_AROUND = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))
"""Places of a name around its dot, the best first."""
_AWAY = 5.0  # points


def draw_error(
    errors: Mapping[str, Shaped[np.ndarray, " time"]], *, rate: float, cuts: Sequence[int], start: int
) -> Drawing:
    """Draw the error of each frame, by method.

    Args:
        errors: In dB over the variance of the flicker; the model's last.
        rate: Frames per second; 0 where it is not known.
        cuts: Frames that begin a new shot.
        start: First frame that is scored.

    Returns:
        Data: the errors, `cuts`.
    """
    model = list(errors)[-1]
    with style():
        made = figure(width_cm=FULL_CM, height_cm=6.5)
        axes = made.add_subplot()
        axes.axhline(0.0, color="#888888", linewidth=0.6, zorder=1)
        step = 1 / rate if rate else 1.0
        for cut in cuts:
            axes.axvline((cut - 0.5) * step, color="#444444", linewidth=0.9, linestyle=(0, (4, 2)), zorder=1)
            axes.text((cut - 0.5) * step, 1.0, " cut", transform=axes.get_xaxis_transform(), va="top", fontsize=6.5)
        if start:
            axes.axvspan(-0.5 * step, (start - 0.5) * step, color="#f2f2f2", linewidth=0, zorder=0)
        for number, (name, values) in enumerate(errors.items()):
            strong = name == model
            axes.plot(
                np.arange(len(values)) * step,
                values,
                "-" if strong else "--",
                color=_color(number, strong=strong),
                linewidth=1.8 if strong else 0.9,
                label=name,
                zorder=4 if strong else 3,
            )
        axes.set_xlim(-0.5 * step, (len(errors[model]) - 0.5) * step)
        axes.set_xlabel("time [s]" if rate else "frame")
        axes.set_ylabel("error over flicker [dB]")
        axes.grid(axis="y")
        handles, labels = axes.get_legend_handles_labels()
        order = [len(labels) - 1, *range(len(labels) - 1)]
        made.legend(
            [handles[at] for at in order], [labels[at] for at in order], loc="outside upper left", ncols=len(order)
        )
    caption = (
        "Mean squared error of each held-out frame over the variance of the flicker, in dB: 0 is the frame as it came, "
        "lower is better. "
        + ("Frames on gray are not scored: filters settle there. " if start else "")
        + ("Broken vertical lines are cuts." if len(cuts) else "")
    ).strip()
    return Drawing(figure=made, caption=caption, data={**errors, "cuts": np.asarray(cuts, dtype=np.int64)})


def _color(number: int, *, strong: bool) -> str:
    """Color of a method: the model's is always the first."""
    return COLORS[0] if strong else COLORS[1 + number % (len(COLORS) - 1)]


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
    none = min(finite) - 0.18 * span
    names: list[Annotation] = []
    with style():
        made = figure(width_cm=0.72 * FULL_CM, height_cm=8.0)
        axes = made.add_subplot()
        for number, (name, (bias, variation, error)) in enumerate(scores.items()):
            strong = name == model
            color = _color(number, strong=strong)
            x = bias if np.isfinite(bias) else none
            axes.plot(x, variation, "o" if np.isfinite(bias) else "<", color=color, ms=7 if strong else 5, zorder=3)
            text = axes.annotate(
                f"{name} ({decibels(error)})",
                (x, variation),
                xytext=(0, 0),
                textcoords="offset points",
                va="bottom",
                fontsize=7,
                color=color if color != COLORS[-1] else "#222222",
                weight="bold" if strong else "normal",
                zorder=4,
            )
            names.append(text)
        axes.margins(x=0.22, y=0.14)
        if any(not np.isfinite(bias) for bias, _, _ in scores.values()):
            border = none + 0.09 * span
            axes.axvline(border, color="#bbbbbb", linewidth=0.8, linestyle=":")
            low, high = axes.get_xlim()
            axes.set_xticks([tick for tick in axes.get_xticks() if border < tick < high])
            axes.set_xlim(low, high)
            axes.text(none, 0.01, "none", transform=axes.get_xaxis_transform(), ha="center", va="bottom", fontsize=6.5)
        axes.set_xlabel("detail lost: bias over flicker [dB]")
        axes.set_ylabel("flicker left: variation of the error [dB]")
        axes.grid()
        settle(made)
        _spread(made, axes, names)
    caption = (
        "What filters pay for calm: on x the detail that each loses (error of the clean frames, filtered with the "
        "weights that it chose for those with flicker, over the flicker's variance), on y the flicker that it leaves "
        "(how much its error changes from frame to frame, over that of the input), in brackets its whole error, all in "
        "dB. Lower left is better in both; a blend with a large constant weight is calm because it blurs."
    )
    return Drawing(figure=made, caption=caption, data={name: np.asarray(value) for name, value in scores.items()})


def _spread(made: Figure, axes: Axes, names: Sequence[Annotation]) -> None:
    """Put each name beside its dot, where it hides neither another name nor a dot, inside of the axes."""
    unit = made.dpi / 72
    dots = [axes.transData.transform(text.xy) for text in names]
    frame = axes.get_window_extent()
    taken: list[tuple[float, float, float, float]] = [
        (x - 5 * unit, y - 5 * unit, x + 5 * unit, y + 5 * unit) for x, y in dots
    ]
    for text, (x, y) in zip(names, dots, strict=True):
        box = text.get_window_extent()
        found = []
        for rank, (across, up) in enumerate(_AROUND):
            away = _AWAY * (1.0 if 0 in (across, up) else 0.7) * 1.4 * unit
            left = x + across * away - (0.0 if across > 0 else box.width if across < 0 else box.width / 2)
            low = y + up * away - (0.0 if up > 0 else box.height if up < 0 else box.height / 2)
            place = (left, low, left + box.width, low + box.height)
            hidden = sum(_overlap(place, other) for other in taken)
            outside = place[0] < frame.x0 or place[2] > frame.x1 or place[1] < frame.y0 or place[3] > frame.y1
            found.append((hidden + (1e6 if outside else 0.0), rank, place))
        _, _, place = min(found)
        text.set_position(((place[0] - x) / unit, (place[1] - y) / unit))
        taken.append(place)


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> float:
    """Area that two boxes share."""
    across = min(one[2], other[2]) - max(one[0], other[0])
    up = min(one[3], other[3]) - max(one[1], other[1])
    return max(across, 0.0) * max(up, 0.0)


def draw_alpha(
    found: Mapping[str, tuple[np.ndarray, np.ndarray]], warmup: tuple[np.ndarray, np.ndarray] | None
) -> Drawing:
    """Draw the weight of the past while training.

    Args:
        found: Steps and mean weight, by part.
        warmup: Steps of the warm-up, and the weight that it sets (for a map of weights, the most that it allows); None
            where there is none.

    Returns:
        Data: `PART steps`, `PART alpha`, and the same of `warm-up`.
    """
    with style():
        made = figure(width_cm=COLUMN_CM, height_cm=5.5)
        axes = made.add_subplot()
        for number, (part, (steps, alpha)) in enumerate(found.items()):
            axes.plot(steps, alpha, color=COLORS[number], label=part, marker="o" if len(steps) < 12 else None, ms=3)
        if warmup is not None:
            axes.plot(*warmup, "--", color="#555555", linewidth=0.9, label="warm-up")
        axes.set_xlabel("step")
        axes.set_ylabel(r"weight of the past $\alpha$")
        axes.set_ylim(0, 1)
        axes.set_xlim(left=0)
        axes.grid(axis="y")
        axes.legend()
    caption = (
        "Mean weight of the past over the cells in which it is visible, while training. Training windows have flicker "
        "of different strength, those of the validation the strength of the evaluation."
        + (" The broken line is the warm-up." if warmup is not None else "")
    )
    lines = {**found, **({} if warmup is None else {"warm-up": warmup})}
    data = {f"{name} {what}": line[at] for name, line in lines.items() for at, what in enumerate(("steps", "alpha"))}
    return Drawing(figure=made, caption=caption, data=data)
