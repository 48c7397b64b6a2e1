"""Splits: contiguous blocks along one dimension, with a gap in between that keeps them independent."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from gridloom.core.config import from_dict, to_dict
from gridloom.core.errors import DataError, UnknownNameError
from gridloom.grid.axes import axis_steps, is_latitude, is_longitude

__all__ = ["PARTS", "Splits", "decorrelation_length", "is_periodic", "split_blocks"]

PARTS = ("train", "validation", "test")
"""Names of the parts, in their order along the dimension."""

_BLOCK_ELEMENTS = 1 << 21


@dataclass(frozen=True, kw_only=True)
class Splits:
    """Which stretch of a dimension is for training, which for validation, which for the test."""

    dim: str
    """Dimension along which the data is split."""
    size: int
    """Its number of cells."""
    gap: int
    """Unused cells between two parts. Smaller than `decorrelation` where there was no room for more."""
    window: int
    """Cells of a window along the dimension; 0 where samples are independent of each other."""
    decorrelation: int
    """Decorrelation length in cells; 0 where samples are independent of each other."""
    periodic: bool
    """Whether the dimension closes a circle, so that there is a gap at its ends too."""
    parts: Mapping[str, tuple[int, int]]
    """Half-open index ranges of `train`, `validation` and `test`, in this order."""

    def __post_init__(self) -> None:
        """Refuse parts that overlap, or come closer than the gap."""
        if tuple(self.parts) != PARTS:
            raise DataError(f"splits: expected the parts {', '.join(PARTS)} in this order, got {', '.join(self.parts)}")
        ranges = list(self.parts.values())
        ends = [*ranges[1:], (ranges[0][0] + self.size if self.periodic else self.size + self.gap, 0)]
        for (start, stop), (following, _) in zip(ranges, ends, strict=True):
            if not 0 <= start < stop <= self.size or following - stop < self.gap:
                raise DataError(f"splits: the parts {dict(self.parts)} overlap, or are nearer than the gap {self.gap}")

    def to_json(self) -> dict[str, Any]:
        """Return what JSON can hold; `from_json` takes it back."""
        record: dict[str, Any] = to_dict(self)
        return record

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> "Splits":
        """Read a record of `to_json`, strictly.

        Raises:
            ConfigError: An unknown or missing key, or a wrong type.
            DataError: Parts that overlap.
        """
        record = {**record, "parts": _in_order(record.get("parts"))} if "parts" in record else record
        return from_dict(Splits, record, where="splits")

    @property
    def digest(self) -> str:
        """SHA-256 of the record, in hexadecimal."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def bounds(self, part: str) -> dict[str, tuple[int, int]]:
        """Return the range of a part by dimension, as `cut_windows` and `fit_normalizer` take it.

        Raises:
            UnknownNameError: No such part.
        """
        if part not in self.parts:
            raise UnknownNameError("part", part, self.parts)
        return {self.dim: self.parts[part]}


def _in_order(parts: Any) -> Any:
    """JSON written with sorted keys is the same record."""
    if isinstance(parts, Mapping) and set(parts) == set(PARTS):
        return {name: parts[name] for name in PARTS}
    return parts


def decorrelation_length(values: np.ndarray, axis: int) -> int:
    """Return the first lag at which the autocorrelation along an axis falls below 1/e.

    The autocorrelation is pooled over all other axes: covariance at a lag over variance, each the mean over the pairs
    of which both cells are there. Anomalies are from the mean along the axis.

    Args:
        values: Numbers; NaN is missing.
        axis: Axis along which to look.

    Returns:
        A lag in cells: 1 for white noise, at most half the axis. A constant counts as white noise.
    """
    moved = np.moveaxis(np.asarray(values), axis, 0)
    size = int(moved.shape[0])
    longest = size // 2
    columns = moved.reshape(size, -1)
    covariance, pairs = np.zeros(longest + 1), np.zeros(longest + 1)
    block = max(1, _BLOCK_ELEMENTS // max(size, 1))
    for start in range(0, columns.shape[1], block):
        products, counts = _lagged(columns[:, start : start + block].astype(np.float64), longest)
        covariance += products
        pairs += counts
    if longest == 0 or covariance[0] <= 0:
        return min(1, longest)
    seen = pairs > 0.5
    correlation = np.where(seen, covariance / np.maximum(pairs, 1) / (covariance[0] / pairs[0]), 1.0)
    below = np.flatnonzero(correlation[1:] < math.exp(-1)) + 1
    return int(below[0]) if len(below) else longest


def _lagged(values: np.ndarray, longest: int) -> tuple[np.ndarray, np.ndarray]:
    """Sum the products at each lag, and count the pairs, over all columns (by the Wiener-Khinchin theorem)."""
    valid = np.isfinite(values)
    count = valid.sum(axis=0)
    filled = np.where(valid, values, 0.0)
    mean = filled.sum(axis=0) / np.maximum(count, 1)
    anomaly = np.where(valid, values - mean, 0.0)
    # rounding of a constant column is not a signal
    anomaly[:, np.abs(anomaly).max(axis=0, initial=0) <= 1e-12 * np.abs(mean)] = 0.0
    length = 2 * len(values)
    sums = [
        np.fft.irfft((np.abs(np.fft.rfft(item, length, axis=0)) ** 2).sum(axis=1), length)[: longest + 1]
        for item in (anomaly, valid.astype(np.float64))
    ]
    return sums[0], sums[1]


def is_periodic(dataset: xr.Dataset, dim: str) -> bool:
    """Whether a dimension is longitude (or another angle in degrees) that closes the circle of 360."""
    axis = axis_steps(dataset, dim)
    if axis is None or axis.in_days or len(axis.steps) < 2 or is_latitude(dataset, dim):
        return False
    unit = str(dataset[dim].attrs.get("units", "")).lower()
    if not (unit.startswith("degree") or is_longitude(dataset, dim)):
        return False
    step = axis.typical
    if not np.allclose(axis.steps, step, rtol=1e-2, atol=0):
        return False
    return bool(abs(abs(float(axis.steps.sum()) + step) - 360) < 0.01 * abs(step))


def split_blocks(
    size: int,
    *,
    dim: str,
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15),
    window: int = 1,
    decorrelation: int = 0,
    periodic: bool = False,
) -> Splits:
    """Split a dimension into three contiguous blocks with gaps in between.

    The gap is the larger of one window and the decorrelation length; for windows of one cell, the decorrelation length.
    It is made smaller, but not below one window, where the gaps together would take more than half of the dimension or
    a part could not hold a window; `gap` and `decorrelation` of the result then differ. Where a fraction would leave a
    part shorter than a window, the part gets one window and the largest part gives it.

    Args:
        size: Cells along the dimension.
        dim: Its name.
        fractions: Shares of train, validation and test in what the gaps leave.
        window: Cells of a window along the dimension; 0 for samples that do not touch each other.
        decorrelation: Decorrelation length in cells, see `decorrelation_length`; 0 for independent samples.
        periodic: The dimension closes a circle: a gap at the ends too.

    Raises:
        DataError: Fractions that are not three positive shares of 1, or too few cells for three windows and the gaps.
    """
    if len(fractions) != 3 or not all(0 < share < 1 for share in fractions) or abs(sum(fractions) - 1) > 1e-6:
        raise DataError(f"fractions: expected three positive shares that add up to 1, got {fractions}")
    if window < 0 or decorrelation < 0:
        raise DataError(f"window and decorrelation must be 0 or more, got {window} and {decorrelation}")
    num_gaps = 3 if periodic else 2
    shortest = max(window, 1)
    wanted = max(window, decorrelation) if window > 1 else decorrelation
    floor = min(window, wanted)
    room = (size - 3 * shortest) // num_gaps
    gap = max(floor, min(wanted, room, size // 2 // num_gaps))
    if gap > room:
        raise DataError(
            f"dimension {dim!r}: {size} cells are too few for three parts of at least {shortest} and {num_gaps} gaps "
            f"of {floor}: {3 * shortest + num_gaps * floor} are needed; use a smaller window, or split another "
            f"dimension"
        )
    lengths = _share(size - num_gaps * gap, fractions, shortest)
    parts, start = {}, 0
    for name, length in zip(PARTS, lengths, strict=True):
        parts[name] = (start, start + length)
        start += length + gap
    return Splits(
        dim=dim, size=size, gap=gap, window=window, decorrelation=decorrelation, periodic=periodic, parts=parts
    )


def _share(cells: int, fractions: tuple[float, float, float], shortest: int) -> list[int]:
    """Divide cells by fractions, by largest remainder, each part at least `shortest`."""
    exact = [cells * share for share in fractions]
    lengths = [int(value + 1e-9) for value in exact]
    by_remainder = sorted(range(3), key=lambda part: lengths[part] - exact[part])
    for part in by_remainder[: cells - sum(lengths)]:
        lengths[part] += 1
    for part in range(3):
        while lengths[part] < shortest:
            giver = max(range(3), key=lambda other: lengths[other])
            taken = min(shortest - lengths[part], lengths[giver] - shortest)
            lengths[giver] -= taken
            lengths[part] += taken
    return lengths
