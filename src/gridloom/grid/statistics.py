"""Mean and variance of data that does not fit into memory: streamed, masked, mergeable, in float64."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from gridloom.core.errors import DataError

__all__ = ["Moments"]


class Moments:
    """Count, mean, variance, minimum and maximum of values that come in parts.

    Parts are combined by the pairwise update of Chan, Golub & LeVeque (1983), "Algorithms for computing the sample
    variance", equation 2.1: exact where the one-pass formula loses everything (a mean large against the deviation).
    NaN and infinite values count as missing.
    """

    def __init__(self) -> None:
        self._count = 0
        self._mean = 0.0
        self._squares = 0.0  # sum of squared deviations from the mean
        self._minimum = math.inf
        self._maximum = -math.inf

    def update(self, values: np.ndarray, valid: np.ndarray | None = None) -> None:
        """Take in more values.

        Args:
            values: Numbers of any shape and type.
            valid: Boolean, broadcastable to `values`; False is left out.
        """
        # float64 before any arithmetic; float32 holds N(1e4, 0.1) with an error of 1 % of its deviation
        exact = np.asarray(values, dtype=np.float64)
        chosen = np.isfinite(exact)
        if valid is not None:
            chosen &= valid
        exact = exact[chosen]
        if not exact.size:
            return
        part = Moments()
        part._count = exact.size
        part._minimum, part._maximum = float(exact.min()), float(exact.max())
        part._mean = float(exact.mean())
        deviation = exact - part._mean
        # the second term removes the rounding of the mean (Chan et al., equation 1.7)
        part._squares = max(0.0, float(np.square(deviation).sum()) - float(deviation.sum()) ** 2 / exact.size)
        self._take(self.merge(part))

    def merge(self, other: "Moments") -> "Moments":
        """Return the moments of both sets of values together; neither is changed."""
        merged = Moments()
        merged._count = self._count + other._count
        if merged._count:
            apart = other._mean - self._mean
            share = other._count / merged._count
            merged._mean = self._mean + apart * share if self._count else other._mean
            merged._squares = self._squares + other._squares + (apart**2 * self._count * share if self._count else 0.0)
        merged._minimum = min(self._minimum, other._minimum)
        merged._maximum = max(self._maximum, other._maximum)
        return merged

    def _take(self, other: "Moments") -> None:
        self._count, self._mean, self._squares = other._count, other._mean, other._squares
        self._minimum, self._maximum = other._minimum, other._maximum

    @property
    def count(self) -> int:
        """Number of values that were not missing."""
        return self._count

    @property
    def mean(self) -> float:
        """Mean; NaN where there is no value."""
        return self._mean if self._count else math.nan

    @property
    def variance(self) -> float:
        """Population variance; NaN where there is no value, exactly 0 where all are equal."""
        if not self._count:
            return math.nan
        return 0.0 if self._minimum == self._maximum else self._squares / self._count

    @property
    def std(self) -> float:
        """Population standard deviation."""
        return math.sqrt(self.variance)

    @property
    def minimum(self) -> float:
        """Smallest value; NaN where there is none."""
        return self._minimum if self._count else math.nan

    @property
    def maximum(self) -> float:
        """Largest value; NaN where there is none."""
        return self._maximum if self._count else math.nan

    def to_json(self) -> dict[str, Any]:
        """Return what JSON can hold, without loss; `from_json` takes it back."""
        record: dict[str, Any] = {"count": self._count}
        if self._count:
            record |= {"mean": self._mean, "squares": self._squares}
            record |= {"minimum": self._minimum, "maximum": self._maximum}
        return record

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> "Moments":
        """Read a record of `to_json`.

        Raises:
            DataError: A key is missing or unknown, or a value is not a number.
        """
        moments = Moments()
        names = ("mean", "squares", "minimum", "maximum") if record.get("count") else ()
        if set(record) != {"count", *names}:
            raise DataError(f"moments: expected the keys count{''.join(f', {name}' for name in names)}, got {record!r}")
        try:
            moments._count = int(record["count"])
            for name in names:
                setattr(moments, f"_{name}", float(record[name]))
        except (TypeError, ValueError):
            raise DataError(f"moments: expected numbers, got {record!r:.200}") from None
        return moments
