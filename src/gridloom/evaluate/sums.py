"""Errors of several methods against one truth, added up by block: all that scores and intervals need."""

from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Float64

from gridloom.core.contracts import Task
from gridloom.core.errors import DataError
from gridloom.evaluate.bootstrap import block_ids

__all__ = ["ErrorSums", "add_blocks", "point_answer", "pool", "sum_errors"]

_MEDIAN = 0.5


@dataclass(frozen=True, kw_only=True)
class ErrorSums:
    """Sums of one variable's errors over the cells of each block (or position along the block dimension).

    Attributes:
        unit: Unit of the variable, `1` where it has none.
        count: Cells that count.
        squared: Sum of squared errors.
        absolute: Sum of absolute errors.
        signed: Sum of errors, answer minus truth.
    """

    unit: str
    count: Float64[np.ndarray, " blocks"]
    squared: Float64[np.ndarray, "methods blocks"]
    absolute: Float64[np.ndarray, "methods blocks"]
    signed: Float64[np.ndarray, "methods blocks"]


def sum_errors(task: Task, predictions: Mapping[str, xr.Dataset], name: str) -> ErrorSums:
    """Compare one variable of every method with the truth, by position along `task.block_dim`.

    A cell counts where it is wanted and its truth is finite.

    Raises:
        DataError: A method does not answer every cell that counts, or dimensions or coordinates disagree.
    """
    if name not in task.truth:
        known = sorted(map(str, task.truth.data_vars))
        raise DataError(f"task {task.name!r}: {name!r} is wanted, but the truth has only {known}")
    truth = task.truth[name]
    if task.block_dim not in truth.dims:
        raise DataError(f"task {task.name!r}: {name!r} has no dimension {task.block_dim!r} to cut into blocks")
    truth = truth.transpose(task.block_dim, ...)
    wanted = _like(task.wanted[name], truth, "wanted").values.astype(bool)
    target = truth.values.astype(np.float64)
    counted = wanted & np.isfinite(target)
    squared, absolute, signed = [], [], []
    for method, answers in predictions.items():
        answer = _answer(method, answers, name, truth, counted)
        error = np.subtract(answer, target, out=np.zeros(target.shape), where=counted).reshape(len(target), -1)
        squared.append(np.square(error).sum(axis=1))
        absolute.append(np.abs(error).sum(axis=1))
        signed.append(error.sum(axis=1))
    return ErrorSums(
        unit=str(truth.attrs.get("units") or "1"),
        count=counted.reshape(len(target), -1).sum(axis=1).astype(np.float64),
        squared=np.stack(squared),
        absolute=np.stack(absolute),
        signed=np.stack(signed),
    )


def point_answer(answer: xr.DataArray, dims: Collection[Hashable]) -> xr.DataArray:
    """The one value of an answer that errors are measured on: the mean over `sample`, the median of `quantile`.

    Args:
        answer: May have those two as extra dimensions.
        dims: Dimensions of the truth; where it has a `sample` of its own, that one is no extra.
    """
    if "quantile" in answer.dims and "quantile" not in dims:
        position = np.flatnonzero(np.isclose(answer["quantile"].values.astype(float), _MEDIAN))
        if len(position) == 0:
            raise DataError(f"{answer.name}: errors are measured on quantile 0.5, which is not among the quantiles")
        answer = answer.isel(quantile=int(position[0]), drop=True)
    if "sample" in answer.dims and "sample" not in dims:
        answer = answer.astype(np.float64).mean("sample", skipna=False)
    return answer


def add_blocks(sums: Mapping[str, ErrorSums], num_blocks: int) -> dict[str, ErrorSums]:
    """Add up positions to contiguous blocks, the same for all variables.

    Positions where no variable has a cell that counts (the context before a forecast) belong to no block, so that
    blocks are of like size in what they measure.
    """
    total = np.sum([entry.count for entry in sums.values()], axis=0)
    active = np.flatnonzero(total)
    starts = np.flatnonzero(np.diff(block_ids(len(active), num_blocks), prepend=-1))

    def add(values: np.ndarray) -> np.ndarray:
        return np.add.reduceat(values[..., active], starts, axis=-1)

    return {
        name: ErrorSums(
            unit=entry.unit,
            count=add(entry.count),
            squared=add(entry.squared),
            absolute=add(entry.absolute),
            signed=add(entry.signed),
        )
        for name, entry in sums.items()
    }


def pool(sums: Mapping[str, ErrorSums]) -> ErrorSums:
    """Put the cells of several variables of one unit together."""
    entries = list(sums.values())
    return ErrorSums(
        unit=entries[0].unit,
        count=np.sum([entry.count for entry in entries], axis=0),
        squared=np.sum([entry.squared for entry in entries], axis=0),
        absolute=np.sum([entry.absolute for entry in entries], axis=0),
        signed=np.sum([entry.signed for entry in entries], axis=0),
    )


def _answer(method: str, answers: xr.Dataset, name: str, truth: xr.DataArray, counted: np.ndarray) -> np.ndarray:
    """One method's answer in the truth's order, checked to be complete."""
    if name not in answers:
        known = sorted(map(str, answers.data_vars))
        raise DataError(f"method {method!r}: expected an answer for variable {name!r}, got only {known}")
    what = f"answer of method {method!r}"
    values = _like(point_answer(answers[name], truth.dims), truth, what).values.astype(np.float64)
    unanswered = int((counted & ~np.isfinite(values)).sum())
    if unanswered:
        raise DataError(
            f"method {method!r}, variable {name!r}: {unanswered} of {int(counted.sum())} wanted cells have no finite "
            "answer; a predictor must answer every cell that is asked"
        )
    return values


def _like(values: xr.DataArray, truth: xr.DataArray, what: str) -> xr.DataArray:
    """Bring an array to the truth's order of dimensions; coordinates must be equal where both have them."""
    if set(values.dims) != set(truth.dims):
        raise DataError(f"{what}, variable {truth.name!r}: expected dimensions {truth.dims}, got {values.dims}")
    try:
        xr.align(values, truth, join="exact", copy=False)
    except ValueError as error:
        reason = " ".join(str(error).split())[:160]
        raise DataError(
            f"{what}, variable {truth.name!r}: sizes or coordinates differ from the truth's ({reason})"
        ) from None
    return values.transpose(*truth.dims)
