"""How good a filter is: skill over the best baseline, then error, bias, variation, sharpness and warping error."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
import xarray as xr

from gridloom.core.contracts import Task
from gridloom.core.score import Score
from gridloom.evaluate.compare import ALL, compare
from gridloom.evaluate.flicker import START, flicker_scores
from gridloom.nn.warp import inside
from gridloom.systems.temporal.clips import CLIP_DIMS, FRAMES
from gridloom.systems.temporal.data import BESIDE, NOISE

__all__ = ["score"]


def score(task: Task, predictions: Mapping[str, xr.Dataset], seed: int) -> list[Score]:
    """Score filters of a clip with flicker.

    `skill` and `rmse` as `evaluate.compare` gives them, then those of `evaluate.flicker`: `error`, `bias` and
    `variation` in dB, `sharpness`, `warp error` with the `warp floor` of the clean clip. They belong together: a filter
    that blurs has the lowest warping error of all.
    """
    expected = {name: answers[[FRAMES]] for name, answers in predictions.items()}
    compared = [one for one in compare(task, expected, seed) if one.group == ALL and one.metric in ("skill", "rmse")]
    clean = task.truth[FRAMES].transpose(*CLIP_DIMS).values
    given = task.given
    start = min(START, max(1, len(clean) // 4))
    flow = given["flow"].values if "flow" in given else None
    occluded = given["occluded"].values if "occluded" in given else None
    if flow is not None:  # what comes from outside of the frame was not seen there, whether a file says so or not
        outside = ~inside(torch.from_numpy(np.ascontiguousarray(flow)))[:, 0].numpy()
        occluded = outside if occluded is None else occluded | outside
    template = Score(
        data=task.name,
        split=task.split,
        method="",
        metric="",
        unit="dB",
        group=ALL,
        seed=seed,
        value=np.nan,
        low=np.nan,
        high=np.nan,
        num_blocks=0,
    )
    found = []
    for method, answers in predictions.items():
        scores = flicker_scores(
            answers[FRAMES].transpose(*CLIP_DIMS).values,
            answers[BESIDE].transpose(*CLIP_DIMS).values,
            noisy=given[FRAMES].values,
            clean=clean,
            noise_variance=given[NOISE].values,
            flow=flow,
            occluded=occluded,
            start=start,
        )
        figures = {
            "error": (scores.error_db, "dB"),
            "bias": (scores.bias_db, "dB"),
            "variation": (scores.variation_db, "dB"),
            "sharpness": (scores.sharpness, "1"),
        }
        if scores.warp is not None:
            figures |= {"warp error": (scores.warp.value, "1"), "warp floor": (scores.warp.floor, "1")}
        found += [
            replace(template, method=method, metric=metric, value=value, unit=unit)
            for metric, (value, unit) in figures.items()
        ]
    skill = [one for one in compared if one.metric == "skill"]
    return [*skill, *found, *[one for one in compared if one.metric != "skill"]]
