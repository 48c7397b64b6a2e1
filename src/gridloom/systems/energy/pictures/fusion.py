"""How image and coordinate meet in an energy."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Shaped

from gridloom.core.system import Drawing
from gridloom.systems.energy.pictures.frame import (
    ENERGY_LABEL,
    INK,
    MINIMUM_COLOR,
    Plane,
    border,
    check,
    energy_scale,
    few_ticks,
    finish,
    key,
    ring,
    side_bar,
    stacked,
)
from gridloom.viz.scale import ColorScale
from gridloom.viz.style import COLUMN_CM, figure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
else:  # matplotlib is imported where something is drawn
    Axes = Any

__all__ = ["fusion"]

_MESH = 40
_UPPER_CM = 4.6


def fusion(
    surface: Shaped[np.ndarray, "rows columns"],
    lines: Mapping[str, Shaped[np.ndarray, "_ _"]],
    *,
    bounds: Shaped[np.ndarray, "_ _"],
    size: tuple[int, int],
    positions: Shaped[np.ndarray, " positions"],
    candidates: Shaped[np.ndarray, " candidates"],
    train: Shaped[np.ndarray, " n"],
    line: str = "row",
) -> Drawing:
    """Draw E over coordinates for fixed features, and E over one coordinate for features that change.

    Above: the energy of one image as a surface and as a heat map. Below, for each model: true position along a line of
    the image against candidates along it. A valley on the diagonal is right; outside the hull of the training
    positions it shows how the model extrapolates.

    Args:
        surface: Energies of one image over a grid whose first and last points lie at the bounds.
        lines: Energies by model (or fusion), for each true position (first axis) and candidate (second axis).
        bounds: Lower and upper ends of (row, column).
        size: Rows and columns of the image, for the axes.
        positions: True positions along the line, rising, from -1 to 1.
        candidates: Candidates along the line, rising, from -1 to 1.
        train: Positions of the training examples along the line.
        line: What runs along the line: `row` or `column`.

    Returns:
        Data: `surface`, `minimum` (of the surface), `lines_NAME` (less the lowest of each position), `ridge_NAME`
        (lowest candidate for each position), `inside_NAME` and `outside_NAME` (mean distance of the ridge from the
        diagonal in cells, inside and outside of the hull; NaN where there are no positions), `hull`, `positions`,
        `candidates`, `train`.

    Raises:
        DataError: Arrays that do not belong together.
    """
    _check(surface, lines, bounds, positions, candidates, train)
    check(line in ("row", "column"), "line 'row' or 'column'", repr(line))
    plane = Plane.of(size)
    place = np.array(np.unravel_index(int(surface.argmin()), surface.shape))
    minimum = bounds[0] + (bounds[1] - bounds[0]) * place / (np.array(surface.shape) - 1)
    data: dict[str, np.ndarray] = {"surface": surface, "minimum": minimum, "bounds": bounds}
    data |= {"hull": np.array([train.min(), train.max()]), "positions": positions, "candidates": candidates}
    data["train"] = train
    half = (size[0 if line == "row" else 1] - 1) / 2
    inside = (positions >= data["hull"][0]) & (positions <= data["hull"][1])
    for name, energy in lines.items():
        ridge = candidates[energy.argmin(axis=1)]
        off = np.abs(ridge - positions) * half
        data[f"lines_{name}"] = energy - energy.min(axis=1, keepdims=True)
        data[f"ridge_{name}"] = ridge
        data[f"inside_{name}"] = np.array(off[inside].mean() if inside.any() else np.nan)
        data[f"outside_{name}"] = np.array(off[~inside].mean() if (~inside).any() else np.nan)
    with style():
        made = figure(width_cm=COLUMN_CM, height_cm=_UPPER_CM + 7.0)
        upper, lower = stacked(made, [_UPPER_CM, 7.0])
        scale = energy_scale([surface])
        _surface(upper.add_axes((-0.02, 0.02, 0.5, 0.94), projection="3d"), surface, plane, bounds, scale)
        _heat(upper, plane, data, scale)
        _lines(lower, list(lines), data, line=line, half=half)
        finish(made)
    caption = (
        "Above: energy over (row, column) for the features of one image. Below: energy (less the lowest of each "
        f"column) of candidates along one {line} line while the true position moves; orange: lowest candidate, dashed: "
        "right, ticks: training positions, hatched: outside of them."
    )
    return Drawing(figure=made, caption=caption, data=data)


def _surface(axes: Any, surface: np.ndarray, plane: Plane, bounds: np.ndarray, scale: ColorScale) -> None:
    """The energy as a surface, its contours on the floor."""
    low, high = plane.place(bounds)
    stride = [max(1, -(-count // _MESH)) for count in surface.shape]
    rows, columns = (np.linspace(low[axis], high[axis], surface.shape[axis]) for axis in (0, 1))
    x, y = np.meshgrid(columns, rows)
    least, most = float(surface.min()), float(surface.max())
    floor = least - 0.45 * (most - least)
    look: dict[str, Any] = {"cmap": scale.cmap, "norm": scale.norm}
    axes.plot_surface(x, y, surface, rstride=stride[0], cstride=stride[1], linewidth=0, rasterized=True, **look)
    if most > least:
        axes.contour(x, y, surface, levels=9, zdir="z", offset=floor, linewidths=0.7, **look)
    axes.set_zlim(floor, most)
    axes.set_ylim(high[0], low[0])
    axes.view_init(elev=28, azim=-58)
    axes.set_box_aspect((1, 1, 0.8), zoom=0.86)
    few_ticks(axes, x=3, y=3)
    axes.zaxis.set_major_locator(_locator(3))
    axes.tick_params(labelsize=6.5, pad=-3.5)
    for axis, label in ((axes.xaxis, "column [cells]"), (axes.yaxis, "row [cells]")):
        axis.set_label_text(label, fontsize=7)
        axis.labelpad = -8
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.pane.set_facecolor("white")


def _locator(count: int) -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(nbins=count)


def _heat(made: Any, plane: Plane, data: Mapping[str, np.ndarray], scale: ColorScale) -> None:
    """The same energy as a heat map."""
    wide = 0.27 * COLUMN_CM
    tall = min(3.1, wide * plane.cells[0] / plane.cells[1]) / _UPPER_CM
    bottom = 0.53 - tall / 2
    axes = made.add_axes((0.57, bottom, 0.27, tall))
    plane.energy(axes, data["surface"], data["bounds"], scale)
    minimum = plane.place(data["minimum"])
    ring(axes, minimum[1], minimum[0])
    plane.name(axes)
    axes.set_anchor("C")
    axes.set_title("fixed features")
    side_bar(made, None, scale, ENERGY_LABEL, cax=made.add_axes((0.86, bottom, 0.018, tall)))


def _lines(made: Any, names: list[str], data: Mapping[str, np.ndarray], *, line: str, half: float) -> None:
    """Energy of candidates against the true position, a panel per model, one scale."""
    from matplotlib.ticker import MaxNLocator

    shown = [data[f"lines_{name}"] for name in names]
    most = min(float(energy.max()) for energy in shown)  # so that the flattest model still shows its valley
    scale = energy_scale([np.minimum(energy, most) for energy in shown])
    if any(bool(energy.max() > most) for energy in shown):
        scale = replace(scale, extend="max")
    panels = made.subplots(1, len(names), sharex=True, sharey=True, squeeze=False)[0]
    x, y, train = ((data[name] + 1) * half for name in ("positions", "candidates", "train"))
    steps = [(part[-1] - part[0]) / (2 * (len(part) - 1)) for part in (x, y)]
    low, high = (data["hull"] + 1) * half
    box = (x[0] - steps[0], x[-1] + steps[0], y[0] - steps[1], y[-1] + steps[1])
    for axes, name, energy in zip(panels, names, shown, strict=True):
        axes.pcolormesh(x, y, energy.T, cmap=scale.cmap, norm=scale.norm, shading="nearest", rasterized=True)
        for start, end in ((box[0], min(low, box[1])), (max(high, box[0]), box[1])):
            if end > start:
                axes.axvspan(start, end, facecolor="none", hatch="////", edgecolor="#ffffff", linewidth=0, alpha=0.55)
        axes.plot(x, x, "--", color=INK, linewidth=0.9)
        ridge = (data[f"ridge_{name}"] + 1) * half
        axes.plot(x, ridge, color="white", linewidth=2.6)
        axes.plot(x, ridge, color=MINIMUM_COLOR, linewidth=1.3)
        bottom = np.full(len(train), box[2])
        axes.plot(train, bottom, "|", color=INK, markersize=9, markeredgewidth=1.0, clip_on=False, zorder=8)
        axes.set_xlim(box[0], box[1])
        axes.set_ylim(box[2], box[3])
        axes.set_aspect("equal")
        border(axes)
        few_ticks(axes, x=3, y=3)
        inside, outside = data[f"inside_{name}"], data[f"outside_{name}"]
        beyond = f"\noutside by {outside:.2g} cells" if np.isfinite(outside) else ""
        axes.set_title(f"{name}\noff by {inside:.2g} cells{beyond}")
        axes.set_xlabel(f"true {line} [cells]", labelpad=5)
    panels[0].set_ylabel(f"candidate {line} [cells]")
    side_bar(
        made, list(panels), scale, "energy above lowest", orientation="horizontal", ticks=MaxNLocator(nbins=4),
        aspect=35, fraction=0.05, pad=0.04,
    )  # fmt: skip
    entries: dict[str, Any] = {
        "lowest candidate": {"color": MINIMUM_COLOR, "linestyle": "-"},
        "right": {"color": INK, "linestyle": "--"},
        "training": {"color": INK, "marker": "|", "markersize": 7},
    }
    key(made, entries, columns=3)


def _check(
    surface: np.ndarray,
    lines: Mapping[str, np.ndarray],
    bounds: np.ndarray,
    positions: np.ndarray,
    candidates: np.ndarray,
    train: np.ndarray,
) -> None:
    """Refuse what does not belong together."""
    check(min(surface.shape) > 1, "a grid of 2 x 2 energies or more", list(surface.shape))
    check(bounds.shape == (2, 2) and bool((bounds[0] < bounds[1]).all()), "bounds [2, 2], low < high", bounds.tolist())
    check(min(len(positions), len(candidates)) > 1, "two positions and candidates or more", len(positions))
    rising = bool((np.diff(positions) > 0).all() and (np.diff(candidates) > 0).all())
    check(rising, "positions and candidates that rise", "some that do not")
    shapes = {name: list(energy.shape) for name, energy in lines.items()}
    wanted = [len(positions), len(candidates)]
    check(bool(shapes) and all(shape == wanted for shape in shapes.values()), f"lines {wanted}", shapes)
    check(len(train) > 0, "one training position or more", len(train))
