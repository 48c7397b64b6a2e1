"""A trained module that answers the question of the evaluation: the clean frames of a clip with flicker."""

import numpy as np
import torch
import xarray as xr

from gridloom.core.errors import DataError
from gridloom.core.system import Trained
from gridloom.systems.temporal.clips import CLIP_DIMS, FRAMES, as_clip, open_recording
from gridloom.systems.temporal.config import TemporalConfig
from gridloom.systems.temporal.data import BESIDE, NOISE
from gridloom.systems.temporal.objective import FlickerFree
from gridloom.systems.temporal.stream import Clip, Mode, Stabilized, replay, stabilize_clip

__all__ = ["FlickerFilter", "clip_of_question"]


class FlickerFilter:
    """A `core.contracts.Predictor` on the question of `flicker_task`.

    Attributes:
        module: The trained module.
        mode: Whether frames to come are used.
        last: What the last clip became, with weights and variances.
    """

    def __init__(self, trained: Trained[TemporalConfig], *, mode: Mode = "causal") -> None:
        assert isinstance(trained.objective, FlickerFree)
        self.module, self.mode = trained.objective.module, mode
        self.last: Stabilized | None = None

    @torch.inference_mode()
    def predict(self, given: xr.Dataset, wanted: xr.Dataset) -> xr.Dataset:
        """Filter `frames`, and `beside` with the weights that these got.

        Args:
            given: See `flicker_task`.
            wanted: Which frames are asked for: all.

        Raises:
            DataError: Latents of other channels than the module's.
        """
        clip = clip_of_question(given)
        if clip.frames.shape[2] != self.module.channels:
            raise DataError(
                f"expected latents of {self.module.channels} channels, got {clip.frames.shape[2]}; the model was "
                "trained on others"
            )
        if self.module.predictor is not None:
            clip = Clip(frames=clip.frames, cut=clip.cut, noise=clip.noise)
        self.last = stabilize_clip(self.module, clip, mode=self.mode)
        answers = {FRAMES: self.last.frames}
        if BESIDE in given:
            beside = torch.from_numpy(np.nan_to_num(given[BESIDE].transpose(*CLIP_DIMS).values))[None]
            answers[BESIDE] = replay(self.module, self.last, beside)
        coords = {name: given[name] for name in ("time", "channel") if name in given.coords}
        return xr.Dataset({name: (CLIP_DIMS, values[0].numpy()) for name, values in answers.items()}, coords=coords)


def clip_of_question(given: xr.Dataset) -> Clip:
    """Read the clip of a question; `noise` that is NaN is to be estimated."""
    noise = given[NOISE].values if NOISE in given else None
    if noise is not None and not np.isfinite(noise).all():
        noise = None
    names = [name for name in given.data_vars if name not in (BESIDE, NOISE)]
    return as_clip(open_recording(given[names], flow="none"), noise=noise)
