"""A moving picture: with flicker, without, and how much of the past each frame took."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Shaped

from gridloom.core.system import Drawing
from gridloom.systems.temporal.pictures.tiles import Tiles, scale_between, show
from gridloom.viz.gif import to_gif
from gridloom.viz.slices import latent_rgb
from gridloom.viz.style import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure
else:  # matplotlib is imported where something is drawn
    Figure = Any

__all__ = ["draw_film"]

_STILLS = 5
_FILM_CM, _DPI, _COLORS = 15.0, 100, 128
_USUAL_RATE = 25.0
_LEFT_CM, _FOOT_CM, _BETWEEN_CM, _HEAD_CM, _TOP_CM = 1.6, 1.0, 0.05, 0.12, 0.3
_SLOWER = 2.0  # than the clip: flicker at full speed is hard to look at


def draw_film(
    noisy: Shaped[np.ndarray, "time channel y x"],
    answer: Shaped[np.ndarray, "time channel y x"],
    alpha: Shaped[np.ndarray, "time y x"],
    *,
    model: str,
    titles: Sequence[str],
    rate: float,
    colors: bool | None = None,
) -> Drawing:
    """Draw frames side by side, as a film and as some stills.

    Args:
        noisy: Frames with flicker.
        answer: What the model made of them.
        alpha: Weight of the past in each cell.
        model: Name of the model.
        titles: Which frame each is, for people.
        rate: Frames per second; 0 where it is not known.
        colors: Whether channels are red, green, blue; see `latent_rgb`.

    Returns:
        Data: the three, with `stills`, the frames of the figure.
    """
    before, after = latent_rgb([noisy, answer], colors=colors)
    count, height, width = alpha.shape
    scale = scale_between(0, 1, "viridis")
    stills = np.unique(np.linspace(0, count - 1, min(_STILLS, count)).round().astype(int))
    rows = (("with\nflicker", before, None), (model, after, None), ("weight of\nthe past", alpha, scale))
    place = Tiles(
        feet=(_BETWEEN_CM, _BETWEEN_CM, _FOOT_CM),
        columns=len(stills),
        aspect=height / width,
        head=_HEAD_CM,
        left=_LEFT_CM,
        top=_TOP_CM,
    )
    with style():
        made = place.figure()
        for down, (name, images, by) in enumerate(rows):
            made.text(_LEFT_CM / place.width, place.middle(down), name, ha="right", va="center", fontsize=7.5)
            for across, at in enumerate(stills):
                show(place.axes(made, down, across), images[at], "" if down else titles[at], by)
        place.bar(made, 2, 0, scale, "0: the frame, 1: the past")
        moving = Tiles(feet=(_FOOT_CM,), columns=3, aspect=height / width, width=_FILM_CM, top=0.45)
        screen = moving.figure()
        shown = [
            show(moving.axes(screen, 0, at), images[0], name.replace("\n", " "), by)
            for at, (name, images, by) in enumerate(rows)
        ]
        head = screen.text(0.5, 1 - 0.1 / moving.height, titles[0], ha="center", va="top", fontsize=8)
        moving.bar(screen, 0, 2, scale, "0: the frame, 1: the past")

    def play() -> Iterator[Figure]:
        for at in range(count):
            for image, (_, images, _) in zip(shown, rows, strict=True):
                image.set_data(images[at])
            head.set_text(titles[at])
            yield screen

    speed = (rate or _USUAL_RATE) / _SLOWER
    animation = to_gif(play(), milliseconds=round(1000 / speed), dpi=_DPI, colors=_COLORS, hold=8)
    caption = (
        f"Held-out frames with flicker, the same after {model}, and the weight of the past in each cell, 0 to 1: dark "
        "where a frame is taken as it came, because the past is not visible there or differs by more than the flicker; "
        "so is the first frame of a shot. "
        "The moving picture runs at half speed."
    )
    data = {"noisy": noisy, "answer": answer, "alpha": alpha, "stills": stills}
    return Drawing(figure=made, caption=caption, data=data, animation=animation)
