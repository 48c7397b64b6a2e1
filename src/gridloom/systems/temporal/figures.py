"""Pictures of the temporal system drawn from a run: one fusion, slices over time, scores, training, a film."""

from collections.abc import Callable, Mapping

import numpy as np
import xarray as xr

from gridloom.core.system import Drawing, View
from gridloom.evaluate.flicker import START, error_by_frame
from gridloom.systems.temporal.clips import CLIP_DIMS, FRAMES
from gridloom.systems.temporal.config import TemporalConfig
from gridloom.systems.temporal.data import BESIDE, NOISE
from gridloom.systems.temporal.pictures.film import draw_film
from gridloom.systems.temporal.pictures.lines import draw_alpha, draw_error
from gridloom.systems.temporal.pictures.pair import PairFrames, draw_pair
from gridloom.systems.temporal.pictures.slices import busiest_row, draw_slices
from gridloom.systems.temporal.pictures.tiles import decibels
from gridloom.systems.temporal.pictures.tradeoff import draw_tradeoff
from gridloom.systems.temporal.predict import FlickerFilter
from gridloom.systems.temporal.stream import Pushed, Stabilized

__all__ = ["FIGURES"]

_INPUT = "input"
_MOST_FRAMES, _FILM_FRAMES = 60, 40
_CELLS = (72, 88)
"""Most rows and columns of the fusion that is shown."""
_SETTLED = 4
"""Frames after a beginning from which on a state is worth to be shown."""
_RGB = 3


class _Scene:
    """What all pictures ask of a run.

    Attributes:
        view: The run.
        noisy: Frames with flicker.
        clean: Those without.
        noise: Variance of the flicker by channel.
        cut: Frames that begin a new shot.
        rate: Frames per second; 0 where it is not known.
        model: Name of the model's answers.
    """

    def __init__(self, view: View) -> None:
        given = view.task.given
        self.view = view
        self.noisy, self.clean = _ordered(given[FRAMES]), _ordered(given[BESIDE])
        self.noise = given[NOISE].values
        self.cut = np.flatnonzero(given["cut"].values[1:]) + 1 if "cut" in given else np.zeros(0, dtype=np.int64)
        self.rate = float(given.attrs.get("frames_per_second", 0.0))
        self.model = list(view.predictions)[-1]

    @property
    def colors(self) -> bool:
        """Whether frames are red, green, blue from 0 to 1."""
        inside = np.nanmin(self.clean) >= 0 and np.nanmax(self.clean) <= 1
        return bool(inside) and self.clean.shape[1] == _RGB

    def answer(self, method: str) -> np.ndarray:
        """Answers of a method."""
        return _ordered(self.view.predictions[method][FRAMES])

    def errors(self, method: str) -> np.ndarray:
        """Error of each frame, in dB."""
        return error_by_frame(self.answer(method), self.clean, self.noise)

    @property
    def start(self) -> int:
        """First frame that is scored."""
        return min(START, max(1, len(self.clean) // 4))

    def score(self, method: str) -> float:
        """Error of the frames that are scored, in dB."""
        return float(10 * np.log10(np.nanmean(10 ** (self.errors(method)[self.start :] / 10))))

    @property
    def best_baseline(self) -> str | None:
        """The baseline with the least error, beside the frames as they came."""
        others = [name for name in self.view.predictions if name not in (self.model, _INPUT)]
        return min(others, key=self.score) if others else None

    def stabilized(self) -> Stabilized:
        """What the model does to the frames, with its weights and variances."""
        filter_ = FlickerFilter(self.view.trained)
        filter_.predict(self.view.task.given, self.view.task.wanted)
        assert filter_.last is not None
        return filter_.last

    def stretch(self, most: int) -> slice:
        """At most so many frames, around the first cut where there is one."""
        count = len(self.clean)
        middle = int(self.cut[0]) if len(self.cut) else 0
        start = max(0, min(middle - most // 2, count - most))
        return slice(start, min(start + most, count))

    def when(self, frame: int) -> str:
        """A frame, for people."""
        return f"frame {frame}, {frame / self.rate:.2f} s" if self.rate else f"frame {frame}"


def _ordered(frames: xr.DataArray) -> np.ndarray:
    return np.asarray(frames.transpose(*CLIP_DIMS).values)


def fusion(view: View) -> Drawing | None:
    """One fusion: the latents, the flow, what is left, what was trusted, the result."""
    scene = _Scene(view)
    steps = scene.stabilized().passes[0]
    at = _most_moved(steps)
    step = steps[at]
    pair = PairFrames(
        previous=steps[at - 1].z[0].numpy(),
        current=scene.noisy[at],
        warped=step.z_warp[0].numpy(),
        fused=step.z[0].numpy(),
        clean=scene.clean[at],
        flow=None if step.flow is None else step.flow[0].numpy(),
        valid=step.valid[0, 0].numpy(),
        alpha=step.alpha[0, 0].numpy(),
        variance=step.variance[0, 0].numpy(),
        noise=scene.noise,
    )
    return draw_pair(pair, when=scene.when(at), most=_CELLS, colors=scene.colors)


def _most_moved(steps: list[Pushed]) -> int:
    """The frame with the most motion that is followed, of those a few frames after a beginning."""
    since, motion = 0, np.full(len(steps), -1.0)
    for at, step in enumerate(steps):
        since = 0 if bool(step.cut[0]) else since + 1
        if at == 0 or not since:
            continue
        valid = step.valid[0, 0].numpy()
        length = np.zeros(valid.shape) if step.flow is None else np.hypot(*step.flow[0].numpy())
        motion[at] = np.where(valid, np.nan_to_num(length), 0.0).mean() if since >= _SETTLED else -1 + since / _SETTLED
    return int(motion[1:].argmax()) + 1


def slices(view: View) -> Drawing | None:
    """A row over time: clean, with flicker, after the best baseline and after the model."""
    scene = _Scene(view)
    row = busiest_row(scene.clean)
    chosen = {"clean": scene.clean, "with flicker": scene.noisy}
    if (baseline := scene.best_baseline) is not None:
        chosen[baseline] = scene.answer(baseline)
    chosen[scene.model] = scene.answer(scene.model)
    notes = {name: f"{decibels(scene.score(name))} dB" for name in (baseline, scene.model) if name is not None}
    part = scene.stretch(_MOST_FRAMES)
    return draw_slices(
        {name: values[part] for name, values in chosen.items()},
        notes=notes,
        noise=scene.noise,
        row=row,
        first=part.start,
        rate=scene.rate,
        cuts=[int(cut) for cut in scene.cut if part.start < cut < part.stop],
        colors=scene.colors,
    )


def error(view: View) -> Drawing | None:
    """Error over time, by method."""
    scene = _Scene(view)
    errors = {name: scene.errors(name) for name in view.predictions}
    return draw_error(errors, rate=scene.rate, cuts=scene.cut.tolist(), start=scene.start)


def tradeoff(view: View) -> Drawing | None:
    """Detail that is lost against flicker that is left, by method."""
    found = {(score.method, score.metric): score.value for score in view.scores}
    metrics = ("bias", "variation", "error")
    methods = [name for name in view.predictions if all((name, metric) in found for metric in metrics)]
    if not methods:
        return None
    return draw_tradeoff(
        {name: (found[name, "bias"], found[name, "variation"], found[name, "error"]) for name in methods}
    )


def alpha(view: View) -> Drawing | None:
    """Weight of the past while training."""
    config: TemporalConfig = view.trained.config
    lines = {}
    for part in ("train", "validation"):
        records = [record for record in view.metrics if record["part"] == part and "alpha" in record]
        if records:
            lines[part] = (
                np.array([record["step"] for record in records]),
                np.array([record["alpha"] for record in records]),
            )
    if not lines:
        return None
    warmup = None
    if config.warmup.steps:
        steps = np.unique(np.linspace(0, min(config.warmup.steps, config.train.steps) - 1, 50).round())
        warmup = (steps, np.array([config.warmup.alpha(int(step)) for step in steps], dtype=np.float64))
    return draw_alpha(lines, warmup)


def film(view: View) -> Drawing | None:
    """Frames with flicker, without, and the weight of the past, as a moving picture."""
    scene = _Scene(view)
    part = scene.stretch(_FILM_FRAMES)
    return draw_film(
        scene.noisy[part],
        scene.answer(scene.model)[part],
        scene.stabilized().alpha[0, part, 0].numpy(),
        model=scene.model,
        titles=[scene.when(at) for at in range(part.start, part.stop)],
        rate=scene.rate,
        colors=scene.colors,
    )


FIGURES: Mapping[str, Callable[[View], Drawing | None]] = {
    "fusion": fusion,
    "slices": slices,
    "error": error,
    "tradeoff": tradeoff,
    "alpha": alpha,
    "film": film,
}
