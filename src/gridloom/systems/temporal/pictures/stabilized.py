"""A row of a clip over time before and after the filter, its last frame, and the weight of the past in it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Shaped

from gridloom.systems.temporal.pictures.slices import busiest_columns
from gridloom.systems.temporal.pictures.tiles import Tiles, scale_between, show
from gridloom.viz.slices import draw_time_slice, latent_rgb
from gridloom.viz.style import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure
else:  # matplotlib is imported where something is drawn
    Figure = Any

__all__ = ["draw_stabilized"]

_MOST_COLUMNS = 240
_LEFT_CM, _RIGHT_CM, _HEAD_CM, _FOOT_CM, _GAP_CM = 1.15, 0.15, 0.5, 1.05, 0.3
_SHORTEST_CM, _TALLEST_CM = 3.0, 9.0
_CELL_CM = 0.05
_GRAY_SHARE = 0.9  # of the values in 0 to 1, for one channel to count as gray that has some noise on it
_MARK = "#D55E00"


def draw_stabilized(
    before: Shaped[np.ndarray, "time x channel"],
    after: Shaped[np.ndarray, "time x channel"],
    *,
    last: tuple[Shaped[np.ndarray, "channel y x"], Shaped[np.ndarray, "channel y x"]],
    alpha: Shaped[np.ndarray, "v u"],
    row: int,
) -> Figure:
    """Draw what the filter did to a clip.

    Args:
        before: The row of all frames as they came. 1 or 3 channels from 0 to 1 are shown as they are; of latents, the
            principal components.
        after: The row after the filter.
        last: The last frame, before and after.
        alpha: Weight of the past in it, perhaps on a coarser grid.
        row: Which row.
    """
    columns = busiest_columns(np.moveaxis(before, -1, 1)[:, :, None], 0, _MOST_COLUMNS)
    slices = [np.moveaxis(values[:, columns], -1, 1)[:, :, None] for values in (before, after)]
    *shown, frame_before, frame_after = _as_colors([*slices, *last])
    count = len(before)
    tall = float(np.clip(_CELL_CM * count, _SHORTEST_CM, _TALLEST_CM))
    place = Tiles(feet=(0.9,), columns=3, aspect=last[0].shape[1] / last[0].shape[2], top=_HEAD_CM + tall + _FOOT_CM)
    wide = (place.width - _LEFT_CM - _RIGHT_CM - _GAP_CM) / 2
    with style():
        made = place.figure()
        for number, (image, name) in enumerate(zip(shown, ("before", "after"), strict=True)):
            left = _LEFT_CM + number * (wide + _GAP_CM)
            bottom = place.height - _HEAD_CM - tall
            axes = made.add_axes((left / place.width, bottom / place.height, wide / place.width, tall / place.height))
            draw_time_slice(axes, image[:, 0])
            axes.images[0].set_extent((columns.start, columns.stop, count, 0))
            axes.set_title(f"row {row} over time, {name}", loc="left", pad=2.5)
            if number:
                axes.set_ylabel("")
                axes.tick_params(labelleft=False)
        for number, (image, name) in enumerate(((frame_before, "before"), (frame_after, "after"))):
            axes = place.axes(made, 0, number)
            show(axes, image, f"last frame, {name}")
            axes.plot([columns.start - 0.5, columns.stop - 0.5], [row, row], color=_MARK, linewidth=0.8)
        scale = scale_between(0, 1, "viridis")
        show(place.axes(made, 0, 2), alpha, "last frame, weight of the past", scale)
        place.bar(made, 0, 2, scale, "")
    return made


def _as_colors(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """As `latent_rgb`; one channel that is nearly all in 0 to 1 is gray as it is."""
    values = np.concatenate([array[np.isfinite(array)] for array in arrays])
    if arrays[0].shape[-3] == 1 and ((values >= 0) & (values <= 1)).mean() >= _GRAY_SHARE:
        return latent_rgb([np.repeat(array, 3, axis=-3) for array in arrays], colors=True)
    return latent_rgb(arrays)
