"""Comparing answers with the truth: errors per variable, and skill against a reference with a paired interval."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import xarray as xr

from gridloom.core.contracts import Task
from gridloom.core.errors import DataError, UnknownNameError
from gridloom.core.score import Score
from gridloom.evaluate.bootstrap import Estimate, Resampled, paired_block_bootstrap
from gridloom.evaluate.sums import ErrorSums, add_blocks, pool, sum_errors

__all__ = ["ALL", "compare", "judge", "per_method", "verdict"]

ALL = "all"
"""Group of the scores over all variables together."""


def compare(
    task: Task,
    predictions: Mapping[str, xr.Dataset],
    seed: int,
    *,
    reference: str | None = None,
    by: str | None = None,
    num_blocks: int = 20,
) -> list[Score]:
    """Score the answers of several methods to one task.

    A cell counts where it is wanted and its truth is known. For each variable, and for `all` variables together, the
    scores are `rmse`, `mae` and `bias` (answer minus truth) in the variable's unit, and `skill` = 1 - mse / mse of the
    reference. Errors of `all` pool the cells and are left out where units differ; skill of `all` is the mean of the
    variables' skills. Intervals are of 90 %, see `gridloom.evaluate.bootstrap`.

    Args:
        task: Question and truth.
        predictions: Answers by method. An extra dimension `sample` is averaged; of `quantile` the median is taken.
        seed: Seed of the run that made the answers; also draws the blocks.
        reference: Method that skill is measured against; None means the first.
        by: A dimension for whose values everything is scored once more, for example `lead`: groups `lead=3` and
            `sst lead=3`. It must differ from `task.block_dim`.
        num_blocks: Contiguous blocks along `task.block_dim`, over those positions where something counts.

    Returns:
        Scores, `all` first, then the variables in the order of `task.wanted`; methods in the order given.

    Raises:
        DataError: Nothing counts, a method leaves a cell that counts without an answer, or coordinates disagree.
        UnknownNameError: `reference` is not among the predictions.
    """
    methods = list(predictions)
    if not methods:
        raise DataError("nothing to compare: expected the predictions of at least one method, got none")
    if reference is None:
        reference = methods[0]
    if reference not in predictions:
        raise UnknownNameError("reference", reference, methods)
    sums = _sums_that_count(task, predictions)
    if not sums:
        raise DataError(f"task {task.name!r}: nothing to score, no wanted cell has a known truth")
    blocked = add_blocks(sums, num_blocks)
    template = Score(
        data=task.name,
        split=task.split,
        method="",
        metric="",
        unit="1",
        group=ALL,
        seed=seed,
        value=np.nan,
        low=np.nan,
        high=np.nan,
        num_blocks=0,
    )
    scores = _score_groups(template, methods, blocked, methods.index(reference))
    if by is not None:
        scores += _compare_by(task, predictions, seed, by=by, reference=reference, num_blocks=num_blocks)
    return scores


def judge(score: Score) -> Literal["better", "worse", "no difference shown"]:
    """What a skill allows to say: `better` or `worse` only where its interval excludes 0."""
    if score.low > 0:
        return "better"
    return "worse" if score.high < 0 else "no difference shown"


def verdict(scores: Sequence[Score], *, group: str = ALL, reference: str | None = None) -> str:
    """Say in one line per method whether it is better than the reference.

    Args:
        scores: As `compare` and `probe` return them.
        group: Group whose skill is judged.
        reference: Method that skill was measured against; None means the first one with a skill.

    Returns:
        Lines such as `model is better than persistence: skill 0.31 (90 % interval 0.22 to 0.40, 20 blocks)`; empty if
        there is no skill to judge.
    """
    skills = [score for score in scores if score.metric == "skill" and score.group == group]
    if not skills:
        return ""
    if reference is None:
        reference = skills[0].method
    return "\n".join(_sentence(score, reference) for score in skills if score.method != reference)


def _sentence(score: Score, reference: str) -> str:
    judgement = judge(score)
    if judgement == "no difference shown":
        claim = f"{score.method}: no difference from {reference} shown"
    else:
        claim = f"{score.method} is {judgement} than {reference}"
    if score.num_blocks == 0:
        interval = "no interval, too few blocks"
    else:
        interval = f"90 % interval {score.low:.3f} to {score.high:.3f}, {score.num_blocks} blocks"
    return f"{claim}: skill {score.value:.3f} ({interval})"


def _sums_that_count(task: Task, predictions: Mapping[str, xr.Dataset]) -> dict[str, ErrorSums]:
    """Sums of the variables of which at least one cell counts."""
    asked = [str(name) for name, cells in task.wanted.data_vars.items() if cells.any()]
    sums = {name: sum_errors(task, predictions, name) for name in asked}
    return {name: entry for name, entry in sums.items() if entry.count.any()}


def _score_groups(
    template: Score, methods: Sequence[str], sums: Mapping[str, ErrorSums], reference: int
) -> list[Score]:
    """Scores of all variables together, then of each."""

    def resample(losses: np.ndarray, count: np.ndarray, statistic: Callable | None = None) -> Resampled:
        return paired_block_bootstrap(losses, count, statistic=statistic, reference=reference, seed=template.seed)

    def add(metric: str, group: str, unit: str, estimate: Estimate, num_blocks: int) -> None:
        labeled = replace(template, metric=metric, group=group, unit=unit, num_blocks=num_blocks)
        scores.extend(per_method(labeled, methods, estimate))

    scores: list[Score] = []
    overall = _mean_skill(sums, reference, template.seed)
    add("skill", ALL, "1", overall.skill, overall.num_blocks)
    one_unit = len({entry.unit for entry in sums.values()}) == 1
    for group, entry in {**({ALL: pool(sums)} if one_unit else {}), **sums}.items():
        squared = resample(entry.squared, entry.count, np.sqrt)
        if group != ALL:
            add("skill", group, "1", squared.skill, squared.num_blocks)
        add("rmse", group, entry.unit, squared.statistic, squared.num_blocks)
        for metric, losses in (("mae", entry.absolute), ("bias", entry.signed)):
            found = resample(losses, entry.count)
            add(metric, group, entry.unit, found.statistic, found.num_blocks)
    return scores


def _mean_skill(sums: Mapping[str, ErrorSums], reference: int, seed: int) -> Resampled:
    """Resample the mean over the variables of the mse relative to the reference's.

    Dividing each variable's losses by the reference's whole loss gives them equal weight, whatever their units.
    """
    count = np.sum([entry.count for entry in sums.values()], axis=0)
    relative = np.zeros((len(next(iter(sums.values())).squared), len(count)))
    for entry in sums.values():
        whole = entry.squared[reference].sum()
        if whole > 0:  # a variable that the reference knows exactly has no skill
            relative += entry.squared / whole
    return paired_block_bootstrap(relative, count, reference=reference, seed=seed)


def per_method(template: Score, methods: Sequence[str], estimate: Estimate) -> list[Score]:
    """One score per method: the template with its name and figures."""
    return [
        replace(
            template,
            method=method,
            value=float(estimate.value[position]),
            low=float(estimate.low[position]),
            high=float(estimate.high[position]),
        )
        for position, method in enumerate(methods)
    ]


def _compare_by(
    task: Task, predictions: Mapping[str, xr.Dataset], seed: int, *, by: str, reference: str, num_blocks: int
) -> list[Score]:
    """Score each value of one dimension on its own."""
    if by not in task.truth.dims or by == task.block_dim:
        raise DataError(
            f"task {task.name!r}: expected `by` to be a dimension other than {task.block_dim!r}, got {by!r} "
            f"(dimensions: {sorted(map(str, task.truth.dims))})"
        )
    scores: list[Score] = []
    for position in range(task.truth.sizes[by]):
        part = replace(task, wanted=_take(task.wanted, by, position), truth=_take(task.truth, by, position))
        answers = {method: _take(answer, by, position) for method, answer in predictions.items()}
        if not _sums_that_count(part, answers):
            continue  # not asked here: the context before a forecast
        label = f"{by}={_label(task.truth, by, position)}"
        found = compare(part, answers, seed, reference=reference, num_blocks=num_blocks)
        scores += [replace(score, group=label if score.group == ALL else f"{score.group} {label}") for score in found]
    return scores


def _take(dataset: xr.Dataset, dim: str, position: int) -> xr.Dataset:
    """One position of the variables that have the dimension."""
    chosen = dataset[[name for name in dataset.data_vars if dim in dataset[name].dims]]
    return chosen.isel({dim: position}, drop=True)


def _label(dataset: xr.Dataset, dim: str, position: int) -> str:
    """Coordinate value, or the position where there is no coordinate."""
    if dim not in dataset.coords:
        return str(position)
    value = dataset[dim].values[position]
    return np.datetime_as_string(value, unit="m") if isinstance(value, np.datetime64) else f"{value}"
