"""What is said of each window: names of classes, or numbers."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64, Shaped

from gridloom.core.errors import DataError

__all__ = ["as_indices", "as_names", "as_numbers", "class_names", "is_known", "task_of"]

UNLABELED = ""
"""Name of the class of a window that has no label."""
_MOST_CLASSES = 1000


def task_of(
    values: Shaped[np.ndarray, "..."], asked: Literal["auto", "classification", "regression"], *, label: str
) -> Literal["classification", "regression"]:
    """Say what is learned of labels: floating point is regression, all else classification, if not asked otherwise.

    Raises:
        DataError: Labels that are neither, or names that are asked for as numbers.
    """
    if values.dtype.kind not in "fiubUSO":
        raise DataError(f"label {label!r}: expected numbers or names, got {values.dtype}; make it one of them first")
    if asked == "regression" and values.dtype.kind not in "fiub":
        raise DataError(f"label {label!r}: a regression needs numbers, got {values.dtype}; use --task classification")
    if asked != "auto":
        return asked
    return "regression" if values.dtype.kind == "f" else "classification"


def as_names(values: Shaped[np.ndarray, " *dims"]) -> Shaped[np.ndarray, " *dims"]:
    """Labels as names of classes, `3` for 3.0; an empty name where there is none (NaN, None, an empty text)."""
    names = np.array([_name(value) for value in values.reshape(-1).tolist()], dtype=str)
    return names.reshape(values.shape)


def _name(value: Any) -> str:
    if value is None or (isinstance(value, float) and not np.isfinite(value)):
        return UNLABELED
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def as_numbers(values: Shaped[np.ndarray, " *dims"]) -> Float64[np.ndarray, " *dims"]:
    """Labels as numbers; NaN where there is none."""
    numbers = values.astype(np.float64)
    return np.where(np.isfinite(numbers), numbers, np.nan)


def class_names(values: Shaped[np.ndarray, " *dims"], *, label: str) -> tuple[str, ...]:
    """Names of all classes, numbers in their order, others by the alphabet.

    Raises:
        DataError: Fewer than 2, or so many that they are hardly classes.
    """
    found = sorted({name for name in as_names(values).reshape(-1).tolist() if name != UNLABELED}, key=_rank)
    if len(found) < 2:
        raise DataError(f"label {label!r}: expected at least 2 classes, found {found or 'no label at all'}")
    if len(found) > _MOST_CLASSES:
        raise DataError(
            f"label {label!r}: {len(found)} different values are more than {_MOST_CLASSES} classes; "
            f"for numbers use --task regression"
        )
    return tuple(found)


def _rank(name: str) -> tuple[float, str]:
    """Numbers first, by size."""
    try:
        number = float(name)
    except ValueError:
        number = np.nan
    return (number, name) if np.isfinite(number) else (np.inf, name)


def as_indices(names: Shaped[np.ndarray, " samples"], classes: Sequence[str]) -> Int64[np.ndarray, " samples"]:
    """Place of each name among the classes; -1 for one that is not among them."""
    place = {name: index for index, name in enumerate(classes)}
    return np.array([place.get(name, -1) for name in names.tolist()], dtype=np.int64)


def is_known(labels: Shaped[np.ndarray, " samples"]) -> Bool[np.ndarray, " samples"]:
    """Where there is a label, in what `as_names` or `as_numbers` returns."""
    known: np.ndarray = labels != UNLABELED if labels.dtype.kind == "U" else np.isfinite(labels)
    return known
