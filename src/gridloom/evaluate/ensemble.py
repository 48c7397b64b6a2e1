"""Scores of sample paths: how near they are as a whole, and whether their bands hold as much as they say."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Float64

from gridloom.core.contracts import Task
from gridloom.core.score import Score
from gridloom.evaluate.bootstrap import paired_block_bootstrap
from gridloom.evaluate.compare import per_method
from gridloom.evaluate.frames import Frames, Group, by_block, groups_of, read_frames, template

__all__ = ["LEVELS", "crps", "ensemble_scores", "pit"]

LEVELS = (0.5, 0.9)
"""Central bands whose coverage is measured."""

_CHUNK = 16  # origins at a time


def ensemble_scores(
    task: Task,
    predictions: Mapping[str, xr.Dataset],
    seed: int,
    *,
    variable: str = "frames",
    num_blocks: int = 20,
) -> list[Score]:
    """Score the methods that give sample paths, and the CRPS of all others beside them.

    `crps` is of pixels, the mean over all; `crps of total` of the sums over the pixels of a channel. That of a method
    without samples is its absolute error. `coverage 50 %` and `coverage 90 %` are the share of the truth inside the
    central bands, in groups that begin with `total` (sums over a channel; also for each channel) and with `pixel`
    (cells that are ever other than 0 in the record). They follow from the rank of the truth among the samples, drawn
    among ties, so that a right forecast has 0.5 and 0.9 however few its samples and however many of its pixels are 0.

    Args:
        task: As for `forecast.forecast_scores`.
        predictions: The same.
        seed: The same; draws the ranks of ties.
        variable: The same.
        num_blocks: The same.

    Returns:
        Scores; none where no method gives at least two samples.
    """
    frames = read_frames(task, variable, num_blocks)
    samples = {method: frames.samples(answers) for method, answers in predictions.items()}
    if not any(paths is not None and len(paths) > 1 for paths in samples.values()):
        return []
    live = _live(task, frames)
    scores: list[Score] = []
    for method, answers in predictions.items():
        paths = samples[method]
        if paths is None or len(paths) < 2:
            paths = frames.point(method, answers)[None]
        measured = _measure(frames, paths, live, seed)
        for group in groups_of(frames, max_slots=0):
            scores += _score(task, frames, group, method, measured, seed)
    return scores


def crps(
    samples: Float[np.ndarray, "sample *cells"], truth: Float[np.ndarray, "*cells"]
) -> Float64[np.ndarray, "*cells"]:
    """Continuous ranked probability score, estimated without bias from a few samples.

    mean |x - y| - sum over pairs |x_i - x_j| / (n (n - 1)): the fair estimator (Ferro 2014, "Fair scores for ensemble
    forecasts"). Of one sample it is the absolute error.
    """
    num_samples = len(samples)
    error: np.ndarray = np.abs(samples - truth).mean(axis=0, dtype=np.float64)
    if num_samples < 2:
        return error
    weights = (2 * np.arange(num_samples) - num_samples + 1) / (num_samples * (num_samples - 1))
    return np.asarray(error - np.tensordot(weights, np.sort(samples, axis=0).astype(np.float64), axes=1))


def pit(
    samples: Float[np.ndarray, "sample *cells"], truth: Float[np.ndarray, "*cells"], generator: np.random.Generator
) -> Float64[np.ndarray, "*cells"]:
    """Rank of the truth among the samples, from 0 to 1, uniform where it is one like them.

    Of the places among equals, and within the step of one rank, one is drawn.
    """
    below = (samples < truth).sum(axis=0)
    equal = (samples == truth).sum(axis=0)
    return np.asarray((below + generator.random(truth.shape) * (equal + 1)) / (len(samples) + 1))


def _live(task: Task, frames: Frames) -> Bool[np.ndarray, "channel y x"]:
    """Cells that are ever other than 0 in what was given or is asked."""
    live = np.asarray((np.nan_to_num(frames.truth) != 0).any(axis=(0, 1, 2)))
    if frames.name in task.given:
        given = task.given[frames.name].transpose(..., "channel", "y", "x").values
        for part in np.array_split(given.reshape(-1, *live.shape), max(1, given.size // 2**24)):
            live |= (np.nan_to_num(part) != 0).any(axis=0)
    return live if live.any() else ~live


def _measure(frames: Frames, paths: np.ndarray, live: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Figures of each frame, [series, origin, lead] or, of totals, [channel, series, origin, lead]."""
    shape = frames.counts.shape
    num_channels = frames.truth.shape[3]
    found = {"crps": np.zeros(shape), "crps of total": np.zeros((num_channels, *shape))}
    if len(paths) > 1:
        found |= {f"total {level}": np.zeros((num_channels, *shape)) for level in LEVELS}
        found |= {f"pixel {level}": np.zeros(shape) for level in LEVELS}
    generator = np.random.default_rng(seed)
    for start in range(0, shape[1], _CHUNK):
        chunk = (slice(None), slice(start, start + _CHUNK))
        truth, drawn = np.nan_to_num(frames.truth[chunk]), paths[(slice(None), *chunk)]
        found["crps"][chunk] = crps(drawn, truth).mean(axis=(3, 4, 5))
        totals = [np.moveaxis(values.sum(axis=(-2, -1), dtype=np.float64), -1, 0) for values in (drawn, truth)]
        sums = np.moveaxis(totals[0], 1, 0)
        found["crps of total"][(slice(None), *chunk)] = crps(sums, totals[1])
        if len(paths) < 2:
            continue
        of_totals = pit(sums, totals[1], generator)
        of_pixels = pit(drawn[..., live], truth[..., live], generator)
        for level in LEVELS:
            found[f"total {level}"][(slice(None), *chunk)] = _inside(of_totals, level)
            found[f"pixel {level}"][chunk] = _inside(of_pixels, level).mean(axis=-1)
    return found


def _inside(rank: np.ndarray, level: float) -> Bool[np.ndarray, "*cells"]:
    """Whether ranks lie in the central band."""
    return np.asarray(np.abs(rank - 0.5) <= level / 2)


def _score(
    task: Task, frames: Frames, group: Group, method: str, measured: Mapping[str, np.ndarray], seed: int
) -> list[Score]:
    """Scores of one method on one group."""
    weights = by_block(frames, group, np.ones(frames.counts.shape))
    rows: list[tuple[str, str, np.ndarray]] = [
        ("crps", group.named(), measured["crps"]),
        ("crps of total", group.named(), measured["crps of total"].mean(axis=0)),
    ]
    for level in LEVELS:
        if f"total {level}" not in measured:
            continue
        metric, totals = f"coverage {level:.0%}".replace("%", " %"), measured[f"total {level}"]
        rows.append((metric, group.named("total"), totals.mean(axis=0)))
        rows += [
            (metric, group.named(f"total {channel}"), totals[index]) for index, channel in enumerate(frames.channels)
        ]
        rows.append((metric, group.named("pixel"), measured[f"pixel {level}"]))
    scores = []
    for metric, name, values in rows:
        found = paired_block_bootstrap(by_block(frames, group, values)[None], weights, seed=seed)
        labeled = replace(template(task, seed), metric=metric, group=name, num_blocks=found.num_blocks)
        scores += per_method(labeled, [method], found.statistic)
    return scores
