"""The energy of one-dimensional answers."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Shaped

from gridloom.core.system import Drawing
from gridloom.systems.energy.pictures.frame import INK, MINIMUM_COLOR, check, density, few_ticks, finish, key
from gridloom.viz.style import COLORS, COLUMN_CM, figure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
else:  # matplotlib is imported where something is drawn
    Axes = Any

__all__ = ["energy_curve"]


def energy_curve(
    y: Shaped[np.ndarray, " n"],
    energy: Shaped[np.ndarray, "curves points"],
    *,
    target: Shaped[np.ndarray, "targets k"],
    bounds: Shaped[np.ndarray, " two"],
    names: Sequence[str] | None = None,
    signal: Shaped[np.ndarray, "signals length"] | None = None,
) -> Drawing:
    """Draw E(x, y) over y with its minimum and the truth, and the density that it stands for; a panel per curve.

    Args:
        y: Candidates, rising; those beyond the bounds are drawn, and are no minimum.
        energy: Their energies for each x.
        target: True answers of each x; NaN where one has fewer.
        bounds: Lower and upper end of the answers.
        names: Titles of the panels.
        signal: Each x itself, drawn above its curve.

    Returns:
        Data: `y`, `energy`, `density` (0 beyond the bounds), `minimum` and `least` (its energy) of each curve, `error`
        (distance of the minimum from the nearest target; NaN without targets), `target`, `bounds`, `signal`.

    Raises:
        DataError: Arrays that do not belong together.
    """
    count = len(energy)
    check(count > 0 and energy.shape[1] == len(y) > 1, f"energies [curves >= 1, {len(y)}]", list(energy.shape))
    check(bool((np.diff(y) > 0).all()), "candidates that rise", "some that do not")
    check(len(target) == count, f"targets of {count} curves", len(target))
    check(len(bounds) == 2 and bounds[0] < bounds[1], "bounds [low, high] with low < high", bounds.tolist())
    check(names is None or len(names) == count, f"{count} names", names)
    check(signal is None or len(signal) == count, f"signals of {count} curves", None if signal is None else len(signal))
    inside = (y >= bounds[0]) & (y <= bounds[1])
    check(int(inside.sum()) > 1, "candidates inside the bounds", f"{int(inside.sum())} of {len(y)}")
    probability = np.zeros(energy.shape)
    probability[:, inside] = density(energy[:, inside], y[inside])
    place = np.where(inside, energy, np.inf).argmin(axis=1)
    minimum = y[place].astype(np.float64)
    gaps = np.abs(minimum[:, None] - target)
    error = np.array([np.nanmin(row) if np.isfinite(row).any() else np.nan for row in gaps])
    with style():
        made = figure(width_cm=COLUMN_CM, height_cm=0.9 + count * (4.0 if signal is None else 5.2))
        heights = [1.0, 3.2] if signal is not None else [1.0]
        grid = made.add_gridspec(count * len(heights), 1, height_ratios=heights * count)
        first: list[Axes] = []
        for number in range(count):
            panel = made.add_subplot(grid[(number + 1) * len(heights) - 1, 0], sharex=first[0] if first else None)
            first = first or [panel]
            head = panel if signal is None else made.add_subplot(grid[number * 2, 0])
            if signal is not None:
                _signal(head, signal[number])
            _panel(panel, y, energy[number], probability[number], last=number == count - 1)
            _marks(panel, bounds, target[number], minimum[number], energy[number, place[number]])
            name = names[number] if names is not None else f"curve {number + 1}" if count > 1 else "energy"
            gap = f": |minimum - target| = {error[number]:.3g}" if np.isfinite(error[number]) else ""
            head.set_title(f"{name}{gap}", loc="left")
        entries: dict[str, dict[str, Any]] = {
            "energy": {"color": COLORS[0], "linestyle": "-"},
            "density": {"color": COLORS[4], "linestyle": "-", "linewidth": 4, "alpha": 0.5},
            "minimum": {"marker": "o", "color": MINIMUM_COLOR},
            "target": {"color": INK, "linestyle": "--"},
            "bounds": {"color": "#999999", "linestyle": ":"},
        }
        key(made, entries, columns=5)
        finish(made)
    data = {"y": y, "energy": energy, "density": probability, "minimum": minimum, "error": error, "target": target}
    data |= {"least": energy[np.arange(count), place], "bounds": bounds}
    if signal is not None:
        data["signal"] = signal
    caption = (
        "Energy E(x, y) of candidate answers y to one signal x (blue, lower is better) and the density "
        "exp(-E)/Z between the bounds (filled); the dot is the lowest energy, dashed lines are true answers."
    )
    return Drawing(figure=made, caption=caption, data=data)


def _panel(axes: Axes, y: np.ndarray, energy: np.ndarray, probability: np.ndarray, *, last: bool) -> None:
    """The energy, and the density on its own axis."""
    beside = axes.twinx()
    beside.fill_between(y, probability, color=COLORS[4], alpha=0.45, linewidth=0)
    beside.set_ylim(0, 1.15 * float(probability.max()))
    beside.set_ylabel("p(y | x)", color="#8a5f00")
    beside.tick_params(axis="y", labelcolor="#8a5f00")
    beside.spines["right"].set_visible(True)
    few_ticks(beside, x=5)
    axes.plot(y, energy, color=COLORS[0])
    axes.set_zorder(beside.get_zorder() + 1)  # the line over the area
    axes.patch.set_visible(False)
    axes.set_ylabel("energy E(x, y)", color=COLORS[0])
    axes.tick_params(axis="y", labelcolor=COLORS[0])
    axes.tick_params(axis="x", labelbottom=last)
    axes.margins(x=0.02, y=0.08)
    few_ticks(axes, x=6, y=4)
    if last:
        axes.set_xlabel("answer y")


def _marks(axes: Axes, bounds: np.ndarray, target: np.ndarray, minimum: float, least: float) -> None:
    """Bounds, truth and the minimum."""
    for bound in bounds:
        axes.axvline(float(bound), color="#999999", linestyle=":", linewidth=0.9)
    for true in target[np.isfinite(target)]:
        axes.axvline(float(true), color=INK, linestyle="--", linewidth=0.9)
    axes.plot(minimum, least, "o", color=MINIMUM_COLOR, markersize=5.5, markeredgecolor="white", zorder=5)


def _signal(axes: Axes, signal: np.ndarray) -> None:
    """The signal as a line over its places."""
    axes.plot(np.arange(len(signal)), signal, color=INK, linewidth=0.9)
    axes.set_xlabel("place in the signal", labelpad=1)
    axes.set_ylabel("x")
    axes.margins(x=0.0, y=0.15)
    few_ticks(axes, x=5, y=2)
