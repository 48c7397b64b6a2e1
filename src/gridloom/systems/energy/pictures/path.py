"""How optimizers find the minimum of an energy."""

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Shaped

from gridloom.core.system import Drawing
from gridloom.systems.energy.pictures.frame import (
    CROSS,
    INK,
    RING,
    Plane,
    border,
    check,
    cross,
    few_ticks,
    finish,
    key,
    plain_log,
    ring,
    stacked,
)
from gridloom.systems.energy.pictures.frame import spread as evenly
from gridloom.viz.gif import to_gif
from gridloom.viz.style import COLORS, COLUMN_CM, figure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
else:  # matplotlib is imported where something is drawn
    Axes = Any

__all__ = ["optimization"]

_PANELS = 5
_FRAMES = 24
_DASHES = ("-", "--", "-.", ":")

Others = Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]]


def optimization(
    image: np.ndarray,
    energy: Shaped[np.ndarray, "rows columns"],
    *,
    bounds: Shaped[np.ndarray, "_ _"],
    candidates: Sequence[Shaped[np.ndarray, "_ _"]],
    energies: Sequence[Shaped[np.ndarray, " _"]],
    target: Shaped[np.ndarray, "k _"],
    noise: Sequence[float | int] | None = None,
    others: Others | None = None,
) -> Drawing:
    """Draw the candidates of each iteration over the energy, the way of the best one, and several optimizers' progress.

    Args:
        image: [h, w] or [h, w, 3] from 0 to 1.
        energy: Over a grid whose first and last points lie at the bounds.
        bounds: Lower and upper ends of (row, column).
        candidates: Of each iteration, (row, column) from -1 to 1; of more than five iterations some are drawn.
        energies: Their energies.
        target: True places.
        noise: Standard deviation of the noise that each iteration's candidates got, in their units (0: none); drawn as
            a circle around the best one.
        others: Progress by optimizer: evaluations, best energy so far, its distance from the target in cells.

    Returns:
        Data: `best` (lowest candidate of each iteration), `best_energy`, `best_distance` (from the nearest target, in
        cells), `deviation` (of the candidates around their mean, in cells), `evaluations` (in all, after each
        iteration), `shown` (iterations drawn), `energy`, `target`, `bounds`; and `NAME_evaluations`, `NAME_energy`,
        `NAME_distance`. The animation shows the iterations one after another.

    Raises:
        DataError: Arrays that do not belong together.
    """
    _check(image, energy, bounds, target, candidates, energies)
    check(noise is None or len(noise) == len(candidates), f"noise of {len(candidates)} iterations", noise)
    others = others or {}
    for name, progress in others.items():
        sizes = [len(part) for part in progress]
        check(len(sizes) == 3 and len(set(sizes)) == 1 and sizes[0] > 0, f"three curves of {name!r} alike", sizes)
    plane = Plane.of((image.shape[0], image.shape[1]))
    data = _measure(plane, candidates, energies, target)
    data |= {"energy": energy, "bounds": bounds, "target": target}
    data["shown"] = np.array(evenly(len(candidates), _PANELS))
    for name, progress in others.items():
        for quantity, part in zip(("evaluations", "energy", "distance"), progress, strict=True):
            data[f"{name}_{quantity}"] = part
    scene = _Scene(plane, data, candidates, noise)
    columns = 2 if len(data["shown"]) in (1, 3) else 3
    rows = -(-(1 + len(data["shown"])) // columns)
    tall = (2.75 if columns == 3 else 4.0) * min(1.4, plane.cells[0] / plane.cells[1])
    with style():
        made = figure(width_cm=COLUMN_CM, height_cm=1.5 + rows * (tall + 0.55) + (4.6 if others else 0.0))
        heights = [1.5 + rows * (tall + 0.55), 4.6]
        upper, lower = stacked(made, heights) if others else (made, None)
        panels = upper.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        flat = list(panels.flat)
        plane.image(flat[0], image)
        true = plane.place(target)
        cross(flat[0], true[:, 1], true[:, 0], size=5)
        flat[0].set_title("image")
        for axes, iteration in zip(flat[1:], data["shown"], strict=False):
            scene.draw(axes, int(iteration))
        for unused in flat[1 + len(data["shown"]) :]:
            unused.remove()
        for number, axes in enumerate(flat[: 1 + len(data["shown"])]):
            plane.name(axes, row=number % columns == 0, column=number + columns > len(data["shown"]))
            few_ticks(axes, x=2, y=2)
            if number < columns * (rows - 1):  # numbers where nothing is below, names at the bottom
                axes.set_xlabel("")
        entries: dict[str, Any] = {"target": CROSS, "best": {**RING, "markeredgecolor": INK, "markeredgewidth": 1.1}}
        if noise is not None:
            entries["noise radius"] = {"color": INK, "linestyle": ":"}
        key(upper, entries, columns=3)
        if lower is not None:
            _progress(lower, others)
        finish(made)
        animation = to_gif(scene.frame(int(number)) for number in evenly(len(candidates), _FRAMES))
    caption = (
        "Candidates of the iterations (one color each) over lines of equal energy; arrows lead from each iteration's "
        "best candidate to the next one's. "
        + (
            "Below: best energy so far and its distance from the target against the energies computed."
            if others
            else ""
        )
    )
    return Drawing(figure=made, caption=caption.strip(), data=data, animation=animation)


def _measure(
    plane: Plane, candidates: Sequence[np.ndarray], energies: Sequence[np.ndarray], target: np.ndarray
) -> dict[str, np.ndarray]:
    """The way of the best candidate."""
    places = [int(part.argmin()) for part in energies]
    best = np.stack([part[place] for part, place in zip(candidates, places, strict=True)])
    return {
        "best": best,
        "best_energy": np.array([part[place] for part, place in zip(energies, places, strict=True)]),
        "best_distance": plane.distance(best[:, None], target).min(axis=1),
        "deviation": np.array([np.sqrt((plane.distance(p, p.mean(0)) ** 2).mean()) for p in candidates]),
        "evaluations": np.cumsum([len(part) for part in energies]),
    }


class _Scene:
    """One iteration on axes: for the panels, and for the frames of the animation."""

    def __init__(
        self,
        plane: Plane,
        data: Mapping[str, np.ndarray],
        candidates: Sequence[np.ndarray],
        noise: Sequence[float | int] | None,
    ) -> None:
        self.plane, self.data, self.candidates, self.noise = plane, data, candidates, noise

    def draw(self, axes: Axes, iteration: int) -> None:
        """Candidates, the way up to here, target."""
        plane, data = self.plane, self.data
        plane.frame(axes)
        border(axes)
        plane.contours(axes, data["energy"], data["bounds"], color="#8c8c8c")
        color = COLORS[iteration % 6]
        y = plane.place(self.candidates[iteration])
        size = float(np.clip(1500 / len(y), 0.6, 9.0))
        axes.scatter(y[:, 1], y[:, 0], s=size, color=color, alpha=0.6, linewidths=0, rasterized=True, zorder=3)
        true = plane.place(data["target"])
        cross(axes, true[:, 1], true[:, 0], size=5)
        best = plane.place(data["best"][: iteration + 1])
        for before, after in itertools.pairwise(best):
            arrow = {"arrowstyle": "-|>,head_width=0.15,head_length=0.3", "color": INK, "linewidth": 0.9}
            arrow |= {"shrinkA": 0, "shrinkB": 0}
            axes.annotate("", xy=(after[1], after[0]), xytext=(before[1], before[0]), arrowprops=arrow, zorder=5)
        ring(axes, best[-1, 1], best[-1, 0], color=INK, size=5.5)
        if self.noise is not None and self.noise[iteration] > 0:
            _circle(axes, plane, best[-1], self.noise[iteration])
        axes.set_title(f"{iteration}: {data['best_distance'][iteration]:.2g} cells")

    def frame(self, iteration: int) -> Any:
        """A figure with one iteration."""
        made = figure(width_cm=COLUMN_CM, height_cm=1.6 + 7.0 * min(1.2, self.plane.cells[0] / self.plane.cells[1]))
        axes = made.add_subplot()
        self.draw(axes, iteration)
        self.plane.name(axes)
        axes.set_title(
            f"iteration {iteration}, {self.data['evaluations'][iteration]} evaluations: "
            f"{self.data['best_distance'][iteration]:.3f} cells off"
        )
        return made


def _circle(axes: Axes, plane: Plane, center: np.ndarray, radius: float | int) -> None:
    """The noise's standard deviation around the best candidate."""
    from matplotlib.patches import Ellipse

    height, width = np.abs(plane.extent[1] - plane.extent[0]) * radius
    axes.add_patch(
        Ellipse(
            (center[1], center[0]), width, height, fill=False, edgecolor=INK, linestyle=":", linewidth=1.0, zorder=4
        )
    )


def _progress(made: Any, others: Others) -> None:
    """Energy and distance against evaluations."""
    left, right = made.subplots(1, 2, sharex=True)
    for number, (name, (evaluations, energy, distance)) in enumerate(others.items()):
        look = {"color": COLORS[number % len(COLORS)], "linestyle": _DASHES[number % 4], "marker": "o", "markersize": 2}
        left.plot(evaluations, energy, label=name, **look)
        right.plot(evaluations, np.where(distance > 0, distance, np.nan), **look)
    left.set_xscale("log")
    right.set_yscale("log")
    left.set_ylabel("best energy")
    right.set_ylabel("distance [cells]")
    plain_log(right.yaxis)
    for axes in (left, right):
        plain_log(axes.xaxis)
        axes.set_xlabel("evaluations")
        axes.grid(axis="y")
    handles, labels = left.get_legend_handles_labels()
    made.legend(handles, labels, loc="outside lower center", ncols=min(3, len(labels)), columnspacing=1.0)


def _check(
    image: np.ndarray,
    energy: np.ndarray,
    bounds: np.ndarray,
    target: np.ndarray,
    candidates: Sequence[np.ndarray],
    energies: Sequence[np.ndarray],
) -> None:
    """Refuse what does not belong together."""
    check(image.ndim in (2, 3), "an image [h, w] or [h, w, 3]", list(image.shape))
    check(min(energy.shape) > 1, "a grid of 2 x 2 energies or more", list(energy.shape))
    check(bounds.shape == (2, 2) and bool((bounds[0] < bounds[1]).all()), "bounds [2, 2], low < high", bounds.tolist())
    check(target.ndim == 2 and target.shape[1] == 2 and len(target) > 0, "targets [k >= 1, 2]", list(target.shape))
    sizes, wanted = [list(part.shape) for part in candidates], [[len(part), 2] for part in energies]
    check(bool(sizes) and sizes == wanted and all(size[0] for size in sizes), f"candidates {wanted}", sizes)
