"""Lines: the error of filters over time, and the weight of the past while training."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Shaped

from gridloom.core.system import Drawing
from gridloom.systems.temporal.pictures.tiles import method_color
from gridloom.viz.style import COLORS, COLUMN_CM, FULL_CM, figure, style

__all__ = ["draw_alpha", "draw_error"]


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
                color=method_color(number, model=strong),
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
