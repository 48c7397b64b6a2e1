"""One row of cells over time: flicker is noise in it, what moves a slanted line, and what was blurred a soft one."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Shaped

from gridloom.core.system import Drawing
from gridloom.systems.temporal.pictures.tiles import Tiles
from gridloom.viz.scale import color_scale
from gridloom.viz.slices import draw_time_slice, latent_rgb
from gridloom.viz.style import style

__all__ = ["busiest_columns", "busiest_row", "draw_slices"]

_MOST_COLUMNS = 48
_CUT = "#D55E00"
_LEFT_CM = 1.0
_BAR_BELOW_CM = 1.9


def busiest_row(frames: Shaped[np.ndarray, "time channel y x"]) -> int:
    """The row in which neighbors along x differ most, over all frames."""
    return int(_detail(frames).mean(axis=(0, 1, 3)).argmax())


def busiest_columns(frames: Shaped[np.ndarray, "time channel y x"], row: int, most: int) -> slice:
    """The stretch of a row, `most` cells long, in which neighbors differ most; all of it where it is shorter."""
    width = frames.shape[-1]
    if width <= most:
        return slice(0, width)
    detail = _detail(frames[:, :, row]).mean(axis=(0, 1))
    start = int(np.convolve(detail, np.ones(most - 1), mode="valid").argmax())
    return slice(start, start + most)


def _detail(values: np.ndarray) -> np.ndarray:
    """Squared difference of neighbors; 0 where one is missing."""
    return np.nan_to_num(np.diff(values.astype(np.float64), axis=-1) ** 2)


def draw_slices(
    clips: Mapping[str, Shaped[np.ndarray, "time channel y x"]],
    *,
    notes: Mapping[str, str],
    noise: Shaped[np.ndarray, " channel"],
    row: int,
    first: int,
    rate: float,
    cuts: Sequence[int],
    colors: bool | None = None,
) -> Drawing:
    """Draw the row of several clips, and how far each is from the first.

    Args:
        clips: By name; the first is clean.
        notes: More about a clip, for its title.
        noise: Variance of the flicker by channel.
        row: Which.
        first: Number of the first frame.
        rate: Frames per second; 0 where it is not known.
        cuts: Numbers of frames that begin a new shot.
        colors: Whether channels are red, green, blue; see `latent_rgb`.

    Returns:
        Data: each clip [time, x, channel], `error of NAME` [time, x], and `row`.
    """
    names = list(clips)
    columns = busiest_columns(next(iter(clips.values())), row, _MOST_COLUMNS)
    cut_out = {name: values[:, :, row, columns] for name, values in clips.items()}
    pictures = latent_rgb([values[:, :, None] for values in cut_out.values()], colors=colors)
    deviation = np.sqrt(noise.astype(np.float64))[:, None]
    clean = cut_out[names[0]]
    errors = {name: ((cut_out[name] - clean) / deviation).mean(axis=1) for name in names[1:]}
    scale = color_scale(list(errors.values()), center=0.0)
    count = len(clean)
    seconds = count / rate if rate else None
    begin, end = (at / rate if rate else at for at in (first, first + count))
    place = Tiles(feet=(0.95, 0.95), columns=len(names), aspect=_aspect(count), left=_LEFT_CM)
    with style():
        made = place.figure()
        for number, (name, picture) in enumerate(zip(names, pictures, strict=True)):
            title = f"{name}, {notes[name]}" if name in notes else name
            panels = [(picture[:, 0], title)]
            if number:
                panels.append((errors[name], f"{name} \N{MINUS SIGN} {names[0]}"))
            for down, (image, text) in enumerate(panels):
                axes, by = place.axes(made, down, number), scale if down else None
                draw_time_slice(axes, image, scale=by, seconds=seconds)
                for cut in cuts:
                    axes.axhline(cut / rate if rate else cut, color=_CUT, linewidth=0.8)
                axes.images[0].set_extent((columns.start, columns.stop, end, begin))
                axes.set_title(text, loc="left", pad=2.5, fontsize=7)
                if number > down:
                    axes.set_ylabel("")
                    axes.tick_params(labelleft=False)
        place.bar(made, 0, 0, scale, "standard deviations\nof the flicker", below=_BAR_BELOW_CM, share=0.5, middle=0.3)
    caption = (
        f"Row {row} of the held-out frames over time, the one with the most detail: "
        f"{', '.join(names)}. Below, how far each is from the clean frames, in standard deviations of the flicker "
        "(mean over channels, all by one scale): noise there is flicker that is left, lines are detail that was lost."
        f"{' Orange lines are cuts.' if len(cuts) else ''}"
    )
    data = {name: np.moveaxis(values, 1, -1) for name, values in cut_out.items()}
    data |= {f"error of {name}": values for name, values in errors.items()}
    return Drawing(figure=made, caption=caption, data={**data, "row": np.asarray(row)})


def _aspect(count: int) -> float:
    """Height of a panel over its width: long clips get more room."""
    return float(np.clip(count / 40, 0.8, 1.4))
