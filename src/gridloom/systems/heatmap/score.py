"""How good forecasts are: skill over the best baseline, then over persistence and the slot's mean by lead and slot."""

from collections.abc import Mapping

import xarray as xr

from gridloom.core.contracts import Task
from gridloom.core.score import Score
from gridloom.evaluate.compare import ALL, compare
from gridloom.evaluate.forecast import forecast_scores
from gridloom.systems.heatmap.encoder import FIELD

__all__ = ["score"]

_ORDER = (
    "skill vs persistence",
    "skill vs slot mean",
    "mse",
    "mse per frame",
    "crps",
    "crps of total",
    "mae",
    "ssim",
    "psnr",
)


def score(task: Task, predictions: Mapping[str, xr.Dataset], seed: int) -> list[Score]:
    """Errors and skill as `evaluate.compare` gives them, then what `evaluate.forecast` says."""
    expected = {name: answers[[FIELD]] for name, answers in predictions.items()}
    skill = [one for one in compare(task, expected, seed) if one.metric == "skill" and one.group == ALL]
    scores = forecast_scores(task, predictions, seed)
    # what is printed comes first: a terminal has room for about ten columns
    return [*skill, *sorted(scores, key=lambda one: _ORDER.index(one.metric) if one.metric in _ORDER else len(_ORDER))]
