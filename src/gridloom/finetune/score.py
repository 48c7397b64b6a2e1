"""How often classes are right, and how far numbers are off."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import xarray as xr
from jaxtyping import Bool

from gridloom.core.contracts import Task
from gridloom.core.errors import DataError
from gridloom.core.score import Score
from gridloom.evaluate.bootstrap import block_ids, paired_block_bootstrap
from gridloom.evaluate.compare import ALL, compare, per_method

__all__ = ["score_labels"]

_BLOCKS = 20


def score_labels(task: Task, predictions: Mapping[str, xr.Dataset], seed: int) -> list[Score]:
    """Score the labels that several methods give.

    Classes: `skill` is 1 - errors / errors of the first method, `accuracy` the share that is right in percent, and
    `balanced accuracy` the mean of that over the classes that occur. Numbers: as `gridloom.evaluate.compare`, in the
    label's unit. Intervals of 90 % by contiguous blocks of windows.

    Raises:
        DataError: A method leaves a window without an answer.
    """
    (label,) = task.truth.data_vars
    truth = task.truth[label].values
    if truth.dtype.kind == "f":
        return compare(task, predictions, seed, num_blocks=_BLOCKS)
    methods = list(predictions)
    wrong = np.stack([_wrong(task, method, predictions[method][label].values) for method in methods])
    ids = block_ids(len(truth), _BLOCKS)
    summed = np.stack([np.bincount(ids, weights=row) for row in wrong])
    found = paired_block_bootstrap(summed, np.bincount(ids).astype(np.float64), statistic=_percent_right, seed=seed)
    template = Score(
        data=task.name,
        split=task.split,
        method="",
        metric="accuracy",
        unit="%",
        group=ALL,
        seed=seed,
        value=np.nan,
        low=np.nan,
        high=np.nan,
        num_blocks=found.num_blocks,
    )
    scores = per_method(replace(template, metric="skill", unit="1"), methods, found.skill)
    scores += per_method(template, methods, found.statistic)
    by_class = np.stack([wrong[:, truth == name].mean(axis=1) for name in np.unique(truth)])
    balanced = replace(template, metric="balanced accuracy", num_blocks=0)
    return scores + [
        replace(balanced, method=method, value=float(value))
        for method, value in zip(methods, _percent_right(by_class.mean(axis=0)), strict=True)
    ]


def _wrong(task: Task, method: str, said: np.ndarray) -> Bool[np.ndarray, " samples"]:
    (label,) = task.truth.data_vars
    truth = task.truth[label].values
    if said.shape != truth.shape or (said == "").any():
        raise DataError(f"task {task.name!r}: method {method!r} leaves windows without an answer")
    wrong: np.ndarray = said != truth
    return wrong


def _percent_right(error: np.ndarray) -> np.ndarray:
    return np.asarray(100.0 * (1.0 - error))
