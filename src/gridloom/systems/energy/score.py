"""How far answers are from the nearest right one."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import xarray as xr
from jaxtyping import Float64

from gridloom.core.contracts import Task
from gridloom.core.errors import DataError
from gridloom.core.score import Score
from gridloom.evaluate.bootstrap import block_ids, paired_block_bootstrap
from gridloom.evaluate.compare import ALL, per_method
from gridloom.systems.energy.data import ANSWERS, POSITION

__all__ = ["distances", "score_positions"]

_BLOCKS = 20


def distances(answer: Float64[np.ndarray, "n d"], right: Float64[np.ndarray, "n k d"]) -> Float64[np.ndarray, " n"]:
    """Euclidean distance of each answer to the nearest right one; NaN among the right ones is passed over."""
    distance = np.linalg.norm(answer[:, None] - right, axis=-1)
    found: np.ndarray = np.where(np.isnan(distance), np.inf, distance).min(axis=1)
    return found


def score_positions(task: Task, predictions: Mapping[str, xr.Dataset], seed: int) -> list[Score]:
    """Score the answers of several methods.

    `skill` is 1 - mean squared distance / that of the first method; `rmse`, `mean`, `median`, `p95` and `worst` are of
    the distance to the nearest right answer, in the coordinates' unit; `within 1` is the share of answers within one
    unit (a cell). Intervals of 90 % by blocks of samples, where a figure is a mean.

    Raises:
        DataError: A method leaves a sample without an answer.
    """
    right = task.truth[ANSWERS].transpose("sample", "answer", "coordinate").values.astype(np.float64)
    methods = list(predictions)
    errors = np.stack([distances(predictions[name][POSITION].values.astype(np.float64), right) for name in methods])
    if not np.isfinite(errors).all():
        missing = methods[int(np.flatnonzero(~np.isfinite(errors).all(axis=1))[0])]
        raise DataError(f"task {task.name!r}: method {missing!r} leaves samples without an answer")
    unit = str(task.truth[POSITION].attrs.get("units", "1"))
    ids = block_ids(errors.shape[1], _BLOCKS)
    count = np.bincount(ids).astype(np.float64)
    template = Score(
        data=task.name,
        split=task.split,
        method="",
        metric="",
        unit=unit,
        group=ALL,
        seed=seed,
        value=np.nan,
        low=np.nan,
        high=np.nan,
        num_blocks=0,
    )

    def over_blocks(values: np.ndarray) -> np.ndarray:
        return np.stack([np.bincount(ids, weights=row) for row in values])

    squared = paired_block_bootstrap(over_blocks(errors**2), count, statistic=np.sqrt, seed=seed)
    mean = paired_block_bootstrap(over_blocks(errors), count, seed=seed)
    near = paired_block_bootstrap(over_blocks(100.0 * (errors < 1)), count, seed=seed)
    scores = []
    for metric, metric_unit, found in (
        ("skill", "1", squared.skill),
        ("rmse", unit, squared.statistic),
        ("mean", unit, mean.statistic),
        ("within 1", "%", near.statistic),
    ):
        labeled = replace(template, metric=metric, unit=metric_unit, num_blocks=squared.num_blocks)
        scores += per_method(labeled, methods, found)
    for metric, values in (
        ("median", np.median(errors, axis=1)),
        ("p95", np.quantile(errors, 0.95, axis=1)),
        ("worst", errors.max(axis=1)),
    ):
        scores += [
            replace(template, metric=metric, method=name, value=float(value))
            for name, value in zip(methods, values, strict=True)
        ]
    return scores
