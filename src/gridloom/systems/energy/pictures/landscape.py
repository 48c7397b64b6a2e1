"""The energy over the plane, beside the image that it belongs to."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Shaped

from gridloom.core.system import Drawing
from gridloom.systems.energy.pictures.frame import (
    CROSS,
    ENERGY_LABEL,
    RING,
    Plane,
    check,
    cross,
    energy_scale,
    finish,
    key,
    ring,
    side_bar,
)
from gridloom.viz.style import COLORS, COLUMN_CM, figure, style

__all__ = ["energy_landscape"]

_SECOND = COLORS[3]


def energy_landscape(
    image: np.ndarray | Sequence[np.ndarray],
    energy: Shaped[np.ndarray, "... rows columns"],
    *,
    bounds: Shaped[np.ndarray, "_ _"],
    target: Shaped[np.ndarray, "... _"],
    minimum: Shaped[np.ndarray, "... _"],
    second: Shaped[np.ndarray, "... _"] | None = None,
    unit: str = "cells",
    extent: Shaped[np.ndarray, "2 2"] | None = None,
) -> Drawing:
    """Draw images beside their energies, in one orientation (rows downward) and one color scale.

    Coordinates are (row, column); -1 is the center of the image's first row or column, 1 that of the last.

    Args:
        image: [h, w] or [h, w, 3] from 0 to 1; or several of one size, and then all else has an axis more in front.
        energy: Energies over a grid whose first and last points lie at the bounds.
        bounds: Lower and upper ends of the coordinates.
        target: True places; NaN where a panel has fewer.
        minimum: Found place.
        second: Second best place.
        unit: Unit of the extent.
        extent: Row and column, in the data's units, of the first and the last cell's center; None counts cells.

    Returns:
        Data: `image`, `energy`, `bounds`, `target`, `minimum`, `second`; `grid_minimum` (lowest point of the grid),
        `error` (in cells, of the minimum from the nearest target) of each panel; `scale` (the color scale's ends).

    Raises:
        DataError: Arrays that do not belong together.
    """
    images = [image] if isinstance(image, np.ndarray) else list(image)
    if isinstance(image, np.ndarray):
        energy, target, minimum = energy[None], target[None], minimum[None]
        second = None if second is None else second[None]
    _check(images, energy, bounds, target, minimum if second is None else np.stack([minimum, second], 1))
    plane = Plane.of(images[0].shape[:2], extent=extent, unit=unit)
    distance = plane.distance(minimum[:, None], target)
    error = np.array([np.nanmin(row) if np.isfinite(row).any() else np.nan for row in distance])
    scale = energy_scale([energy])
    rows, width = len(images), 3.35
    with style():
        tall = width * plane.cells[0] / plane.cells[1]
        made = figure(width_cm=COLUMN_CM, height_cm=1.5 + rows * (tall + 0.5))
        panels = made.subplots(rows, 2, squeeze=False, sharex=True, sharey=True)
        for number, (left, right) in enumerate(panels):
            plane.image(left, images[number])
            plane.energy(right, energy[number], bounds, scale)
            true = plane.place(target[number])
            for axes in (left, right):
                cross(axes, true[:, 1], true[:, 0])
            if second is not None:
                place = plane.place(second[number])
                ring(right, place[1], place[0], color=_SECOND, shape="s", size=6)
            place = plane.place(minimum[number])
            ring(right, place[1], place[0])
            plane.name(left, column=number == rows - 1)
            plane.name(right, row=False, column=number == rows - 1)
            left.set_title("image" if rows == 1 else f"image {number + 1}")
            right.set_title(f"error {error[number]:.2f} cells" if np.isfinite(error[number]) else "energy")
        side_bar(made, list(panels[:, 1]), scale, ENERGY_LABEL if rows * tall > 3 else "energy")
        entries: dict[str, Any] = {"target": CROSS, "minimum": RING}
        if second is not None:
            entries["second minimum"] = {**RING, "marker": "s", "markeredgecolor": _SECOND}
        key(made, entries, columns=3)
        finish(made)
    lowest = np.stack([_lowest(panel, bounds) for panel in energy])
    data = {"image": np.stack(images), "energy": energy, "bounds": bounds, "target": target, "minimum": minimum}
    data |= {"grid_minimum": lowest, "error": error, "scale": np.array([scale.norm.vmin, scale.norm.vmax])}
    if second is not None:
        data["second"] = second
    caption = (
        f"Images and the energy of each place in them; rows run downward, one color scale for all, axes in "
        f"{plane.unit}. The error is the distance of the lowest energy from the nearest target."
    )
    return Drawing(figure=made, caption=caption, data=data)


def _lowest(energy: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Coordinates of the lowest point of a grid."""
    place = np.array(np.unravel_index(int(np.nanargmin(energy)), energy.shape))
    return np.asarray(bounds[0] + (bounds[1] - bounds[0]) * place / (np.array(energy.shape) - 1))


def _check(
    images: Sequence[np.ndarray], energy: np.ndarray, bounds: np.ndarray, target: np.ndarray, places: np.ndarray
) -> None:
    """Refuse what does not belong together."""
    shapes = [panel.shape for panel in images]
    check(bool(shapes) and all(s == shapes[0] for s in shapes), "one or more images of one size", shapes)
    check(len(shapes[0]) == 2 or (len(shapes[0]) == 3 and shapes[0][2] == 3), "images [h, w] or [h, w, 3]", shapes[0])
    count = len(images)
    check(energy.ndim == 3 and len(energy) == count, f"energies of {count} images", list(energy.shape))
    check(min(energy.shape[1:]) > 1, "a grid of 2 x 2 energies or more", list(energy.shape))
    check(bounds.shape == (2, 2) and bool((bounds[0] < bounds[1]).all()), "bounds [2, 2], low < high", bounds.tolist())
    check(target.ndim == 3 and target.shape[::2] == (count, 2), f"targets [{count}, k, 2]", list(target.shape))
    check(places.shape[:: places.ndim - 1] == (count, 2), f"minima [{count}, 2]", list(places.shape))
