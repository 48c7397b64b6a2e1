"""Scores of forecasts of frames: errors in both conventions, skill against several references, by lead and by slot."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import xarray as xr
from jaxtyping import Float64

from gridloom.core.contracts import Task
from gridloom.core.score import Score
from gridloom.evaluate.bootstrap import paired_block_bootstrap
from gridloom.evaluate.compare import per_method
from gridloom.evaluate.ensemble import ensemble_scores
from gridloom.evaluate.frames import Frames, by_block, groups_of, read_frames, scaled, template
from gridloom.evaluate.similarity import psnr, ssim

__all__ = ["REFERENCES", "forecast_scores", "frame_errors"]

REFERENCES = ("persistence", "slot mean")
"""Methods that skill is measured against, of those that are there."""

_CHUNK = 16  # origins at a time
_LEAST_SIZE = 7  # of a picture, for similarity


def forecast_scores(
    task: Task,
    predictions: Mapping[str, xr.Dataset],
    seed: int,
    *,
    variable: str = "frames",
    references: Sequence[str] = REFERENCES,
    max_slots: int = 24,
    num_blocks: int = 20,
) -> list[Score]:
    """Score forecasts: `frame_errors`, then `ensemble.ensemble_scores`.

    Args:
        task: Question and truth: `variable` on (origin, lead, channel, y, x), with or without series. Frames that are
            not wanted, or not known, do not count.
        predictions: Answers by method. Sample paths are the variable `VARIABLE_sample`, or the dimension `sample`.
        seed: Of the run; draws the blocks, and the ranks of ties.
        variable: What is scored.
        references: Methods that skill is measured against; those that are not there are left out.
        max_slots: Most groups of slots; 0 for none.
        num_blocks: Contiguous blocks of origins for the intervals.

    Raises:
        DataError: Nothing counts, or a frame that counts has no answer.
    """
    return [
        *frame_errors(
            task,
            predictions,
            seed,
            variable=variable,
            references=references,
            max_slots=max_slots,
            num_blocks=num_blocks,
        ),
        *ensemble_scores(task, predictions, seed, variable=variable, num_blocks=num_blocks),
    ]


def frame_errors(
    task: Task,
    predictions: Mapping[str, xr.Dataset],
    seed: int,
    *,
    variable: str = "frames",
    references: Sequence[str] = REFERENCES,
    max_slots: int = 24,
    num_blocks: int = 20,
) -> list[Score]:
    """Measure the errors of whole frames.

    `mse` and `mae` are means over pixels; `mse per frame` and `mae per frame` are sums over the pixels of a frame, and
    means over frames (the convention of OpenSTL). `skill vs R` is 1 - mse / mse of R. For all frames and each lead also
    `psnr` (dB) and `ssim`, means over frames, for values from 0 to 1. Groups are `all`, `lead=3`, `slot=7` or, where
    there are many, `slot=7-13`. Intervals are of 90 %, from a bootstrap over blocks of origins.

    Args:
        task: As for `forecast_scores`.
        predictions: As for `forecast_scores`.
        seed: As for `forecast_scores`.
        variable: As for `forecast_scores`.
        references: As for `forecast_scores`.
        max_slots: As for `forecast_scores`.
        num_blocks: As for `forecast_scores`.
    """
    frames = read_frames(task, variable, num_blocks)
    methods = list(predictions)
    sums = {metric: [] for metric in ("mse", "mae", "psnr", "ssim")}  # type: dict[str, list[np.ndarray]]
    for method, answers in predictions.items():
        for metric, values in _measure(frames, frames.point(method, answers)).items():
            sums[metric].append(values)
    measured = {metric: np.stack(values) for metric, values in sums.items() if values}
    known = [reference for reference in references if reference in predictions]
    scores: list[Score] = []
    for group in groups_of(frames, max_slots=max_slots):
        empty = replace(template(task, seed), group=group.named())
        weights = by_block(frames, group, np.ones(frames.counts.shape))
        losses = {metric: by_block(frames, group, values) for metric, values in measured.items()}
        for reference in known:
            found = paired_block_bootstrap(losses["mse"], weights, reference=methods.index(reference), seed=seed)
            labeled = replace(empty, metric=f"skill vs {reference}", num_blocks=found.num_blocks)
            scores += per_method(labeled, methods, found.skill)
        for metric in losses:
            if metric in ("psnr", "ssim") and group.label.startswith("slot"):
                continue
            found = paired_block_bootstrap(losses[metric], weights, seed=seed)
            labeled = replace(empty, metric=metric, unit="dB" if metric == "psnr" else "1", num_blocks=found.num_blocks)
            scores += per_method(labeled, methods, found.statistic)
            if metric in ("mse", "mae"):
                whole = scaled(found.statistic, float(frames.cells))
                scores += per_method(replace(labeled, metric=f"{metric} per frame"), methods, whole)
    return scores


def _measure(frames: Frames, answer: np.ndarray) -> dict[str, Float64[np.ndarray, "series origin lead"]]:
    """Figures of each frame; those that do not count are without meaning."""
    shape = frames.counts.shape
    found = {metric: np.zeros(shape) for metric in ("mse", "mae", "ssim")}
    for start in range(0, shape[1], _CHUNK):
        chunk = (slice(None), slice(start, start + _CHUNK))
        counts = frames.counts[chunk][..., None, None, None]
        truth, guess = (np.where(counts, values[chunk], 0.0) for values in (frames.truth, answer))
        error = guess - truth
        found["mse"][chunk] = np.square(error).mean(axis=(3, 4, 5))
        found["mae"][chunk] = np.abs(error).mean(axis=(3, 4, 5))
        if min(truth.shape[-2:]) >= _LEAST_SIZE:
            found["ssim"][chunk] = ssim(guess, truth).mean(axis=-1)
    if min(frames.truth.shape[-2:]) < _LEAST_SIZE:
        del found["ssim"]
    return {**found, "psnr": psnr(found["mse"])}
