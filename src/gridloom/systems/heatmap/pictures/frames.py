"""Pictures of frames themselves: a strip through a forecast, a forecast beside the truth, a film."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from gridloom.core.system import Drawing
from gridloom.systems.heatmap.pictures.cells import Look
from gridloom.systems.heatmap.pictures.panels import PanelRow, draw_table, film
from gridloom.viz.gif import to_gif

__all__ = ["draw_film", "draw_forecast", "draw_strip", "is_wide"]

_WIDE = 0.75
_FILM_CM, _FILM_DPI = 15.0, 120
_PER_TEN_THOUSAND = 1e4


def is_wide(look: Look) -> bool:
    """Whether panels are so flat that channels go below each other."""
    return look.aspect < _WIDE


def draw_strip(
    seen: Float[np.ndarray, "before channel y x"],
    came: Float[np.ndarray, "after channel y x"],
    forecast: Float[np.ndarray, "after channel y x"],
    *,
    titles: Sequence[str],
    channels: Sequence[str],
    look: Look,
    step: str,
) -> Drawing:
    """Draw consecutive frames: those seen, then those that came, and below these their forecast.

    Args:
        seen: Frames up to the origin.
        came: Frames after it.
        forecast: Of the same.
        titles: Time of each frame.
        channels: Names.
        look: How frames are drawn.
        step: Distance of two frames, for people.
    """
    rows = []
    observed = np.concatenate([seen, came])
    for number, channel in enumerate(channels):
        rows.append(PanelRow(label=channel, images=list(observed[:, number]), apart=True))
        rows.append(PanelRow(label="forecast", images=[*[None] * len(seen), *forecast[:, number]]))
    table = draw_table(rows, titles=titles, look=look, divide=len(seen))
    caption = (
        f"Frames {step} apart, {' and '.join(channels)}: those left of the line were seen; right of it is what came, "
        f"and below it the forecast, in which each frame is fed back for the next. {look.told}"
    )
    return Drawing(figure=table.figure, caption=caption, data={"seen": seen, "came": came, "forecast": forecast})


def draw_forecast(
    frames: Mapping[str, Float[np.ndarray, "lead channel y x"]],
    *,
    titles: Sequence[str],
    channels: Sequence[str],
    look: Look,
    origin: str,
) -> Drawing:
    """Draw truth, forecasts and the error for each lead.

    Args:
        frames: `truth` first, then `forecast`, then what it is compared with.
        titles: Of the leads.
        channels: Names.
        look: How frames are drawn.
        origin: Time of the last frame seen.

    Returns:
        Data: the frames, `error`, and `NAME mse` [lead, channel] of each forecast.
    """
    truth = frames["truth"]
    data: dict[str, np.ndarray] = {**frames, "error": frames["forecast"] - truth}
    for name, answer in frames.items():
        if name != "truth":
            data[f"{name} mse"] = np.square(answer - truth, dtype=np.float64).mean(axis=(-2, -1))
    stacked = is_wide(look) or len(channels) > 2
    groups = [[channel] for channel in range(len(channels))] if stacked else [list(range(len(channels)))]
    rows = []
    for group in groups:
        for name in (*frames, "error"):
            label = "forecast\nminus truth" if name == "error" else name
            notes: list[str] = []
            if f"{name} mse" in data:
                notes = [
                    f"MSE {data[f'{name} mse'][lead, c] * _PER_TEN_THOUSAND:.1f}"
                    for c in group
                    for lead in range(len(titles))
                ]
            if stacked and name == "truth":
                label = f"{channels[group[0]]}\n{label}"
            images = [data[name][lead, c] for c in group for lead in range(len(titles))]
            rows.append(PanelRow(label=label, images=images, notes=notes, error=name == "error", apart=name == "truth"))
    heads = list(titles) if stacked else [f"{channels[c]}\n{title}" for c in groups[0] for title in titles]
    table = draw_table(rows, titles=heads, look=look, blocks=1 if stacked else len(channels))
    caption = (
        f"What came after {origin}, its forecast, {' and '.join(list(frames)[2:])}, and the error of the forecast, by "
        f"lead. The origin is the busiest in the middle of the test part. MSE in 0.0001 squared pixels, mean over the "
        f"cells of a channel. {look.told}"
    )
    return Drawing(figure=table.figure, caption=caption, data=data)


def draw_film(
    frames: Mapping[str, Float[np.ndarray, "step channel y x"]],
    *,
    stills: Mapping[int, str],
    titles: Sequence[str],
    channels: Sequence[str],
    look: Look,
    step: str,
) -> Drawing:
    """Draw a forecast that goes on and on; the animation has all its steps, the figure some.

    Args:
        frames: `truth` first, then forecasts; the first step is the last frame seen.
        stills: Steps of the figure, with the titles of their columns.
        titles: Of each step, for the line above the film.
        channels: Names.
        look: How frames are drawn.
        step: Distance of two frames, for people.
    """
    length = len(titles)
    rows = [
        PanelRow(
            label=f"{channel}\n{name}" if name == "truth" else name,
            images=[values[at, number] for at in stills],
            apart=name == "truth",
        )
        for number, channel in enumerate(channels)
        for name, values in frames.items()
    ]
    still = draw_table(rows, titles=list(stills.values()), look=look)
    moving = draw_table(
        [
            PanelRow(label=channel, images=[values[-1, number] for values in frames.values()])
            for number, channel in enumerate(channels)
        ],
        titles=list(frames),
        look=look,
        title=titles[0],
        shared=list(frames.values()),
        width_cm=_FILM_CM if is_wide(look) else 0.8 * _FILM_CM,
    )
    content = [
        [[values[at, number] for values in frames.values()] for number in range(len(channels))] for at in range(length)
    ]
    caption = (
        f"A forecast that goes on {length - 1} steps of {step} from one origin, each frame fed back, beside the truth "
        f"and {' and '.join(list(frames)[2:])}. {look.told}"
    )
    animation = to_gif(film(moving, content, titles), milliseconds=350, dpi=_FILM_DPI, colors=96, hold=4)
    return Drawing(figure=still.figure, caption=caption, data=dict(frames), animation=animation)
