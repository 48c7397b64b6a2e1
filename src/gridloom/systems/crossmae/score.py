"""How good fills are: errors beside the baselines, and whether the spread is what it says."""

from collections.abc import Mapping
from statistics import NormalDist

import numpy as np
import xarray as xr

from gridloom.core.contracts import Task
from gridloom.core.score import Score
from gridloom.evaluate.compare import compare
from gridloom.systems.crossmae.calibrate import LEVEL
from gridloom.systems.crossmae.fill import STD

__all__ = ["coverage", "score"]


def score(task: Task, predictions: Mapping[str, xr.Dataset], seed: int) -> list[Score]:
    """Errors and skill as `evaluate.compare` gives them, then the coverage of those that say a spread."""
    return [*compare(task, predictions, seed), *coverage(task, predictions, seed)]


def coverage(task: Task, predictions: Mapping[str, xr.Dataset], seed: int) -> list[Score]:
    """Share of the truth within one and two standard deviations of the answer, and within its 90 % interval.

    A normal distribution has 0.683, 0.954 and 0.9.
    """
    bounds = {"within 1 sigma": 1.0, "within 2 sigma": 2.0, "90 % interval": NormalDist().inv_cdf(0.5 + LEVEL / 2)}
    scores = []
    for method, answers in predictions.items():
        for variable in task.wanted.data_vars:
            if f"{variable}{STD}" not in answers:
                continue
            dims = task.truth[variable].dims
            truth, value, deviation = (
                data.transpose(*dims).values
                for data in (task.truth[variable], answers[variable], answers[f"{variable}{STD}"])
            )
            counts = task.wanted[variable].transpose(*dims).values & np.isfinite(truth)
            if not counts.any():
                continue
            ratio = np.abs(truth - value)[counts] / np.maximum(deviation[counts], np.finfo(np.float32).tiny)
            for metric, bound in bounds.items():
                scores.append(
                    Score(
                        data=task.name,
                        split=task.split,
                        method=method,
                        metric=metric,
                        unit="1",
                        group=str(variable),
                        seed=seed,
                        value=float((ratio <= bound).mean()),
                        low=np.nan,
                        high=np.nan,
                        num_blocks=0,
                    )
                )
    return scores
