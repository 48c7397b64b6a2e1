"""What latents hold: the slot, or what happened in it."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Shaped

from gridloom.core.system import Drawing
from gridloom.viz.style import COLORS, FULL_CM, figure, style

__all__ = ["draw_latents"]

_BINS = 40


def draw_latents(
    same: Shaped[np.ndarray, " pairs"],
    other: Shaped[np.ndarray, " others"],
    points: Shaped[np.ndarray, "frames 2"],
    slots: Shaped[np.ndarray, " frames"],
    *,
    ticks: tuple[Sequence[int], Sequence[str]],
    when: str,
) -> Drawing:
    """Draw similarities of latents, and the way of one cycle.

    Args:
        same: Cosine similarities of frames of the same slot of different cycles.
        other: Of frames of different slots.
        points: Principal components of the latents of a day, in order of time.
        slots: Their slots.
        ticks: Slots with a tick on the color bar, and their texts.
        when: Date of these frames.
    """
    edges = np.linspace(min(same.min(initial=1.0), other.min(initial=1.0), 0.98), 1.0, _BINS + 1)
    with style():
        made = figure(width_cm=FULL_CM, height_cm=7.5)
        axes, plane = made.subplots(1, 2, width_ratios=(1, 1.1))
        for number, (name, values) in enumerate((("same slot, another cycle", same), ("different slots", other))):
            weights = np.full(len(values), 1 / max(len(values), 1))
            axes.hist(
                values,
                edges,
                weights=weights,
                color=COLORS[number],
                alpha=0.55,
                label=f"{name} (median {np.median(values):.3f})" if len(values) else name,
            )
        axes.set_xlabel("cosine similarity of two latents")
        axes.set_ylabel("share of pairs")
        top = axes.get_ylim()[1]
        axes.set_ylim(top=1.2 * top)
        axes.legend(loc="upper left")
        plane.plot(points[:, 0], points[:, 1], color="#cccccc", linewidth=0.5, zorder=1)
        size = float(np.clip(2000 / max(len(points), 1), 8, 30))
        dots = plane.scatter(
            points[:, 0], points[:, 1], s=size, c=slots, cmap="plasma", linewidths=0.3, edgecolors="#444444", zorder=2
        )
        plane.set_xticks([])
        plane.set_yticks([])
        plane.set_xlabel("principal component 1")
        plane.set_ylabel("principal component 2")
        bar = made.colorbar(dots, ax=plane, fraction=0.05, pad=0.02)
        bar.set_ticks(list(ticks[0]), labels=list(ticks[1]))
        bar.set_label("slot")
        bar.outline.set_linewidth(0.4)
    caption = (
        "Left: cosine similarity of latents of the same slot in different cycles, and of different slots; where the "
        "first lies far above the second, latents say which slot it is more than what happened in it. Right: latents "
        f"of one day{f', {when}' if when else ''}, in order of time, on their first two principal components."
    )
    return Drawing(figure=made, caption=caption, data={"same": same, "other": other, "points": points, "slots": slots})
