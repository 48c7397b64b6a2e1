"""Dumb filters that a model must beat, as predictors of clean frames."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr

from gridloom.core.contracts import Predictor
from gridloom.core.errors import DataError
from gridloom.systems.temporal.clips import CLIP_DIMS, FRAMES
from gridloom.systems.temporal.config import TemporalConfig
from gridloom.systems.temporal.data import BESIDE
from gridloom.systems.temporal.filters import Filter, RecursiveFilter, constant, unchanged
from gridloom.systems.temporal.gates import KalmanGate
from gridloom.systems.temporal.predict import clip_of_question

__all__ = ["BASELINES", "FilterPredictor"]

_CLIP = "clip"


@dataclass(frozen=True, kw_only=True)
class FilterPredictor:
    """Answers for the clean frames of a clip with those of a filter."""

    filter: Filter
    """What filters."""

    def predict(self, given: xr.Dataset, wanted: xr.Dataset) -> xr.Dataset:
        """Filter the frames, and put what is beside them through the same weights.

        Args:
            given: A clip: `frames` on (time, channel, y, x), and what is known of `flow`, `flow_next`, `occluded`,
                `occluded_next`, `cut`, and `noise` on (channel): the variance of the flicker, NaN to have it estimated.
                `beside`, of the dimensions of `frames`, does not change the answer for `frames`: it is moved and mixed
                with the weights chosen for them. With a dimension `clip`, each clip is filtered by itself.
            wanted: True where the clean frames are asked; all are answered.

        Returns:
            `frames`, and `beside` where it was given.

        Raises:
            DataError: No clip.
        """
        if FRAMES in given and _CLIP in given[FRAMES].dims:
            answers = [self._answer(given.isel({_CLIP: index})) for index in range(given.sizes[_CLIP])]
            return xr.concat(answers, dim=_CLIP, coords="minimal", compat="override")
        return self._answer(given)

    @torch.inference_mode()
    def _answer(self, given: xr.Dataset) -> xr.Dataset:
        clip = clip_of_question(given)
        filtered = self.filter(clip)
        answers = {FRAMES: filtered.frames}
        if BESIDE in given:
            if set(given[BESIDE].dims) != set(CLIP_DIMS):
                raise DataError(f"{BESIDE} must be on {CLIP_DIMS}, as {FRAMES} is, got {given[BESIDE].dims}")
            beside = torch.from_numpy(given[BESIDE].transpose(*CLIP_DIMS).values.astype(np.float32))[None]
            answers[BESIDE] = filtered.replay(beside)
        coords = {name: given[name] for name in CLIP_DIMS if name in given.coords}
        return xr.Dataset({name: (CLIP_DIMS, values[0].numpy()) for name, values in answers.items()}, coords=coords)


def _moved(filter_: RecursiveFilter, *, flow: str = "flow") -> Callable[[TemporalConfig, xr.Dataset], Predictor | None]:
    """A filter that needs a flow: left out where the data has none."""

    def build(config: TemporalConfig, history: xr.Dataset) -> Predictor | None:
        return FilterPredictor(filter=filter_) if flow in history else None

    return build


BASELINES: Mapping[str, Callable[[TemporalConfig, xr.Dataset], Predictor | None]] = {
    "input": lambda config, history: FilterPredictor(filter=unchanged),
    "no warp 0.5": lambda config, history: FilterPredictor(
        filter=RecursiveFilter(rule=constant(0.5), warping="none", masked=False)
    ),
    "kalman, no flow": lambda config, history: FilterPredictor(
        filter=RecursiveFilter(rule=KalmanGate(), warping="none", masked=False)
    ),
    "constant 0.5": _moved(RecursiveFilter(rule=constant(0.5))),
    "constant 0.8": _moved(RecursiveFilter(rule=constant(0.8))),
    "seed": _moved(RecursiveFilter(rule=constant(0.3), warping="seed", masked=False), flow="flow_next"),
    "kalman": _moved(RecursiveFilter(rule=KalmanGate(), warping="bicubic")),
}
