"""What the temporal system is trained on and asked: clips cut in time, and the same with flicker of known strength."""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float

from gridloom.core.contracts import Prepared, Task
from gridloom.core.errors import DataError, UnknownNameError
from gridloom.grid.normalize import Normalizer
from gridloom.grid.splits import PARTS, Splits
from gridloom.systems.temporal.clips import CLIP_DIMS, FRAMES, Recording, open_recording
from gridloom.systems.temporal.config import TemporalConfig
from gridloom.systems.temporal.source import ClipSource

__all__ = ["BESIDE", "NOISE", "flicker_task", "prepare", "resolve", "with_flicker"]

BESIDE, NOISE = "beside", "noise"

_LOGGER = logging.getLogger(__name__)
_FEW_WINDOWS = 7  # starts that a training part should leave
_LEAST_SHARE = 1e-6  # of the largest variance: a channel that is constant still has a scale


def resolve(config: TemporalConfig) -> TemporalConfig:
    """Fill in the channels and their variances over the training part."""
    if config.model.channels and config.model.variances:
        return config
    recordings = _open_all(config, with_motion=False)
    stretches = _parts(recordings, config)["train"]
    channels = recordings[0].frames.shape[1]
    variances = _variances([one.part(*stretch) for one, stretch in zip(recordings, stretches, strict=True)])
    return replace(config, model=replace(config.model, channels=channels, variances=variances))


def prepare(config: TemporalConfig) -> Prepared:
    """Open the clips, cut them in time."""
    config = resolve(config)
    recordings = _open_all(config)
    if recordings[0].frames.shape[1] != config.model.channels:
        raise DataError(
            f"{recordings[0].name}: expected latents of {config.model.channels} channels, as the model has, got "
            f"{recordings[0].frames.shape[1]}"
        )
    parts = _parts(recordings, config)
    sources = {
        part: ClipSource(
            recordings,
            parts[part],
            window=_window(parts[part], config, part),
            stride=config.data.stride,
            crop=config.data.crop,
            seed=config.seed,
            augment=part == "train",
            turn=config.data.turn,
        )
        for part in PARTS
    }
    record = {
        recording.name: {part: parts[part][index] for part in PARTS} for index, recording in enumerate(recordings)
    }
    digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
    first = next(index for index, (low, high) in enumerate(parts["train"]) if high > low)
    return Prepared(
        sources=sources,
        normalizer=Normalizer({FRAMES: ()}).to_json(),
        splits={"dim": "time", "clips": record, "sha256": digest},
        history=recordings[first].part(*parts["train"][first]).dataset(),
        task=partial(_task, config, recordings[0], {part: parts[part][0] for part in PARTS}),
    )


def _open_all(config: TemporalConfig, *, with_motion: bool = True) -> list[Recording]:
    """The clip of the evaluation first."""
    flow = config.data.flow if with_motion else "none"
    opened = [
        open_recording(path, factor=config.data.factor, flow=flow) for path in (config.data.path, *config.data.also)
    ]
    sizes = {recording.frames.shape[1] for recording in opened}
    if len(sizes) > 1:
        found = ", ".join(f"{recording.name} {recording.frames.shape[1]}" for recording in opened)
        raise DataError(f"clips must have the same channels, got {found}")
    for recording in opened:
        if with_motion and recording.flow is None and not config.model.predict_flow:
            _LOGGER.warning("%s: no flow, what moves is not followed (model.predict_flow learns it)", recording.name)
    return opened


def _parts(recordings: Sequence[Recording], config: TemporalConfig) -> dict[str, list[tuple[int, int]]]:
    """Half-open ranges of frames of each clip, by part; empty where a clip has none.

    A clip of `data.also` has no test: its last stretch is validation.
    """
    train, validation, _ = config.data.fractions
    found: dict[str, list[tuple[int, int]]] = {part: [] for part in PARTS}
    for index, recording in enumerate(recordings):
        size = len(recording)
        if index == 0 and config.data.held_out:
            stretches = [(0, 0), (0, 0), (0, size)]
        elif index == 0:
            borders = [int(size * train + 1e-6), int(size * (train + validation) + 1e-6)]
            _check_room(recording, borders, size)
            stretches = [(0, borders[0]), (borders[0], borders[1]), (borders[1], size)]
        else:
            border = int(size * (1 - validation / (train + validation)) + 1e-6)
            stretches = [(0, border), (border, size), (0, 0)]
        for part, stretch in zip(PARTS, stretches, strict=True):
            found[part].append(stretch)
    return found


def _window(stretches: Sequence[tuple[int, int]], config: TemporalConfig, part: str) -> int:
    """Frames of a window; fewer where a part is shorter."""
    longest = max(high - low for low, high in stretches)
    if part == "train" and longest < config.data.window + _FEW_WINDOWS:
        window = max(2, longest - _FEW_WINDOWS)
        _LOGGER.warning("%d frames to train on: windows of %d instead of %d", longest, window, config.data.window)
        return window
    return max(2, min(config.data.window, longest))


def _check_room(recording: Recording, borders: Sequence[int], size: int) -> None:
    """Let the check of `Splits` speak: parts follow each other and are not empty."""
    try:
        Splits(
            dim="time",
            size=size,
            gap=0,
            window=0,
            decorrelation=0,
            periodic=False,
            parts={"train": (0, borders[0]), "validation": (borders[0], borders[1]), "test": (borders[1], size)},
        )
    except DataError:
        raise DataError(f"{recording.name}: {size} frames are too few for three parts by data.fractions") from None


def _variances(recordings: Sequence[Recording]) -> tuple[float, ...]:
    """Variance of each channel over several clips, each by its own mean."""
    total, count = 0.0, 0.0
    for recording in recordings:
        if len(recording):
            frames = recording.frames.astype(np.float64)
            known = np.isfinite(frames)
            mean = np.nanmean(frames, axis=(0, 2, 3), keepdims=True)
            total = total + np.where(known, (frames - mean) ** 2, 0.0).sum(axis=(0, 2, 3))
            count = count + known.sum(axis=(0, 2, 3))
    variance = np.asarray(total) / np.maximum(count, 1)
    if not np.isfinite(variance).all() or variance.max() <= 0:
        raise DataError("clips must vary in some channel; they are constant, or missing")
    return tuple(np.maximum(variance, variance.max() * _LEAST_SHARE).tolist())


def _task(config: TemporalConfig, recording: Recording, parts: Mapping[str, tuple[int, int]], split: str) -> Task:
    if split not in parts:
        raise UnknownNameError("part", split, parts)
    low, high = parts[split]
    if high - low < 2:
        raise DataError(f"{recording.name}: no frames in the part {split!r}")
    clip = recording.part(low, min(high, low + config.data.max_frames))
    return flicker_task(clip, level=config.flicker.test, split=split)


def flicker_task(clip: Recording, *, level: float, split: str, seed: int = 0) -> Task:
    """Ask for the clean frames of a clip to which flicker was added.

    `given` has `frames` with the flicker; `beside`, the clean ones, which a filter moves and mixes with the weights
    that it chose for `frames`: that is how its bias is measured. They must not change the answer for `frames`; every
    predictor has a test of that. Then the motion, and `noise`, the variance of the flicker by channel.

    Args:
        clip: Clean frames.
        level: Standard deviation of the flicker as a share of each channel's own.
        split: Name of the part.
        seed: Of the flicker.
    """
    given = clip.dataset()
    noisy, variance = with_flicker(clip.frames, level=level, seed=seed)
    given[BESIDE] = (CLIP_DIMS, clip.frames)
    given[FRAMES] = (CLIP_DIMS, noisy)
    given[NOISE] = ("channel", variance)
    coords = {"time": clip.time, "channel": list(clip.channels)}
    known = np.isfinite(clip.frames)
    return Task(
        name=clip.name,
        split=split,
        given=given,
        wanted=xr.Dataset({FRAMES: (CLIP_DIMS, known)}, coords=coords),
        truth=xr.Dataset({FRAMES: (CLIP_DIMS, clip.frames)}, coords=coords),
        block_dim="time",
    )


def with_flicker(
    frames: Float[np.ndarray, "time channel y x"], *, level: float, seed: int = 0
) -> tuple[Float[np.ndarray, "time channel y x"], Float[np.ndarray, " channel"]]:
    """Add independent normal noise; return the frames and its variance by channel.

    Args:
        frames: Clean.
        level: Its standard deviation as a share of each channel's own.
        seed: Of the draw.
    """
    deviation = level * np.nanstd(frames.astype(np.float64), axis=(0, 2, 3)).astype(np.float32)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(frames.shape, generator=generator).numpy()
    return frames + noise * deviation[None, :, None, None], deviation**2
