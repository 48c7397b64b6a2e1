"""Energies of one-dimensional answers while they are learned."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Shaped

from gridloom.core.system import Drawing
from gridloom.systems.energy.pictures.frame import (
    INK,
    MINIMUM_COLOR,
    check,
    density,
    few_ticks,
    finish,
    key,
    side_bar,
    spread,
)
from gridloom.viz.scale import ColorScale, color_scale
from gridloom.viz.style import COLORS, COLUMN_CM, figure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
else:  # matplotlib is imported where something is drawn
    Axes = Any

__all__ = ["train_1d"]

_PANELS = 3


def train_1d(
    u: Shaped[np.ndarray, " p"],
    y: Shaped[np.ndarray, " q"],
    energy: Mapping[int, Shaped[np.ndarray, "_ _"]],
    *,
    train: tuple[np.ndarray, np.ndarray],
    curve: tuple[np.ndarray, np.ndarray],
    explicit: Shaped[np.ndarray, " e"] | None = None,
    inside: tuple[float | int, float | int] | None = None,
    label: str = "u",
) -> Drawing:
    """Draw how the density p(y | x) comes to be: snapshots over training, data, lowest energies, an explicit net; loss.

    Args:
        u: A scalar that each signal x was made from, rising.
        y: Candidates, rising.
        energy: Energies by training step, [p, q]; of more than three steps the first, a middle and the last are drawn.
        train: u and y of the training examples.
        curve: Steps and loss.
        explicit: Answers of a net trained with the squared error, at each u.
        inside: Range of u that was trained on; None takes that of the training examples.
        label: Name and unit of u.

    Returns:
        Data: `u`, `y`, `snapshots`, `density` [snapshots, p, q], `argmin` [snapshots, p], `explicit`, `train_u`,
        `train_y`, `steps`, `loss`, `inside`; `argmin_distance` (of each snapshot) and
        `explicit_distance`: mean distance of the curve from the nearest training example in the plane, inside.

    Raises:
        DataError: Arrays that do not belong together.
    """
    _check(u, y, energy, train, curve)
    check(
        explicit is None or len(explicit) == len(u),
        f"{len(u)} explicit answers",
        None if explicit is None else len(explicit),
    )
    steps = [sorted(energy)[number] for number in spread(len(energy), _PANELS)]
    low, high = inside if inside is not None else (float(train[0].min()), float(train[0].max()))
    densities = np.stack([density(energy[step], y) for step in steps])
    argmin = np.stack([y[energy[step].argmin(axis=1)] for step in steps])
    data: dict[str, np.ndarray] = {"u": u, "y": y, "snapshots": np.array(steps), "density": densities}
    data |= {"argmin": argmin, "train_u": train[0], "train_y": train[1], "steps": curve[0], "loss": curve[1]}
    data["inside"] = np.array([low, high])
    data["argmin_distance"] = np.array([_distance(u, row, train, (low, high)) for row in argmin])
    if explicit is not None:
        data["explicit"] = explicit
        data["explicit_distance"] = np.array(_distance(u, explicit, train, (low, high)))
    count = len(steps) + 1
    rows = -(-count // 2)
    most = float(np.quantile(densities, 0.99))
    scale = color_scale([np.zeros(1), np.full(1, most)], cmap="Blues", clip=0.0)
    scale = replace(scale, extend="max" if densities.max() > most else "neither")
    with style():
        made = figure(width_cm=COLUMN_CM, height_cm=1.4 + 4.1 * rows)
        grid = made.add_gridspec(rows, 2)
        first: list[Axes] = []
        for number, step in enumerate(steps):
            share = {"sharex": first[0], "sharey": first[0]} if first else {}
            axes = made.add_subplot(grid[number // 2, number % 2], **share)
            first.append(axes)
            _panel(axes, data, number, scale)
            axes.set_title(f"step {step}")
            axes.set_ylabel("answer y" if number % 2 == 0 else "")
            axes.tick_params(labelleft=number % 2 == 0)
            axes.set_xlabel(label, labelpad=1.5)
        axes = made.add_subplot(grid[rows - 1, (count - 1) % 2])
        _loss(axes, data)
        side_bar(made, first, scale, "density p(y | x)", location="top", aspect=45, fraction=0.03, pad=0.02)
        entries: dict[str, Any] = {"data": {"marker": "o", "markersize": 2.5, "color": INK}}
        entries["lowest energy"] = {"marker": ".", "markersize": 5, "color": MINIMUM_COLOR}
        if explicit is not None:
            entries["squared error"] = {"color": COLORS[2], "linestyle": "--"}
        entries["beyond the data"] = {"marker": "s", "markersize": 6, "color": "#d0d0d0"}
        key(made, entries, columns=4)
        finish(made)
    caption = (
        "Density exp(-E)/Z of answers y for each signal x, over training; dots in orange are the lowest energy for "
        "each x, so that the answer may jump"
        + (", the dashed line is a net trained with the squared error." if explicit is not None else ".")
        + " Gray stripes: beyond the training data."
    )
    return Drawing(figure=made, caption=caption, data=data)


def _panel(axes: Axes, data: Mapping[str, np.ndarray], number: int, scale: ColorScale) -> None:
    """One snapshot."""
    u, y = data["u"], data["y"]
    axes.pcolormesh(u, y, data["density"][number].T, cmap=scale.cmap, norm=scale.norm, shading="nearest",
                    rasterized=True)  # fmt: skip
    low, high = data["inside"]
    for start, end in ((u[0], min(low, u[-1])), (max(high, u[0]), u[-1])):
        if end > start:
            axes.axvspan(start, end, facecolor="#999999", alpha=0.25, linewidth=0)
    axes.plot(data["train_u"], data["train_y"], "o", color=INK, markersize=1.6, markeredgewidth=0)
    axes.plot(u, data["argmin"][number], ".", color=MINIMUM_COLOR, markersize=2.8, markeredgewidth=0)
    if "explicit" in data:
        axes.plot(u, data["explicit"], "--", color=COLORS[2], linewidth=1.1)
    axes.set_xlim(u[0], u[-1])
    axes.set_ylim(y[0], y[-1])
    few_ticks(axes, x=4, y=4)


def _loss(axes: Axes, data: Mapping[str, np.ndarray]) -> None:
    """The loss, and when the snapshots were taken."""
    axes.plot(data["steps"], data["loss"], color=COLORS[0], linewidth=0.9)
    for step in data["snapshots"]:
        axes.axvline(float(step), color="#999999", linewidth=0.7, linestyle=":", zorder=1)
    axes.set_title("training")
    axes.set_xlabel("step", labelpad=1.5)
    axes.set_ylabel("loss [nats]", labelpad=1.5)
    few_ticks(axes, x=3, y=4)


def _distance(
    u: np.ndarray, answers: np.ndarray, train: tuple[np.ndarray, np.ndarray], inside: tuple[float | int, float | int]
) -> float:
    """Mean distance of a curve from the nearest training example in the plane, where there is training data."""
    chosen = (u >= inside[0]) & (u <= inside[1])
    if not chosen.any():
        return float("nan")
    apart = np.hypot(u[chosen, None] - train[0], answers[chosen, None] - train[1])
    return float(apart.min(axis=1).mean())


def _check(
    u: np.ndarray,
    y: np.ndarray,
    energy: Mapping[int, np.ndarray],
    train: tuple[np.ndarray, np.ndarray],
    curve: tuple[np.ndarray, np.ndarray],
) -> None:
    """Refuse what does not belong together."""
    check(min(len(u), len(y)) > 1, "two signals and candidates or more", f"{len(u)} and {len(y)}")
    check(bool((np.diff(u) > 0).all() and (np.diff(y) > 0).all()), "u and y that rise", "some that do not")
    shapes = {step: list(part.shape) for step, part in energy.items()}
    wanted = [len(u), len(y)]
    check(bool(shapes) and all(shape == wanted for shape in shapes.values()), f"energies {wanted}", shapes)
    for name, (first, second) in (("training examples", train), ("curve", curve)):
        fits = first.ndim == 1 and first.shape == second.shape and first.size > 0
        check(fits, f"{name} as two arrays alike", [first.shape, second.shape])
