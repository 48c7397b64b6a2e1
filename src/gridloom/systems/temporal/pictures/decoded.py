"""Latents decoded to images: whether the state was moved to where the frame has it, and what the fusion kept."""

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Shaped

from gridloom.systems.temporal.pictures.tiles import Tiles, scale_between, show, until
from gridloom.viz.style import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure
else:  # matplotlib is imported where something is drawn
    Figure = Any

__all__ = ["draw_decoded"]

_FOOT_CM, _BETWEEN_CM = 0.95, 0.1


def draw_decoded(
    previous: Shaped[np.ndarray, "3 y x"],
    current: Shaped[np.ndarray, "3 y x"],
    warped: Shaped[np.ndarray, "3 y x"],
    fused: Shaped[np.ndarray, "3 y x"],
) -> Figure:
    """Draw four decoded images, and how far three of them are from the current frame.

    A moved latent that decodes to less of a difference than the previous one was moved the right way.

    Args:
        previous: The previous latent, decoded; red, green, blue, 0 to 1.
        current: The current one.
        warped: The previous one, moved onto the current frame.
        fused: Their mix.
    """
    images = {"$z_{prev}$": previous, "$z_{warp}$": warped, "$z_{fused}$": fused, "$z_{cur}$": current}
    moving = list(images)[:3]
    differences = [np.abs(images[name] - current).mean(axis=0) for name in moving]
    scale = scale_between(0, until(np.stack(differences)), "magma", beyond=True)
    place = Tiles(feet=(_BETWEEN_CM, _FOOT_CM), columns=4, aspect=current.shape[1] / current.shape[2])
    with style():
        made = place.figure()
        for column, (name, image) in enumerate(images.items()):
            show(place.axes(made, 0, column), np.clip(np.moveaxis(image, 0, -1), 0, 1), f"{name}, decoded")
        for column, (name, difference) in enumerate(zip(moving, differences, strict=True)):
            title = f"{name} to $z_{{cur}}$: mean {difference.mean():.3f}"
            show(place.axes(made, 1, column), difference, title, scale)
        place.bar(made, 1, 1, scale, "absolute difference of colors, mean of three")
    return made
