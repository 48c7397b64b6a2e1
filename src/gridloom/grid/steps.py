"""Steps of a normalizer: each frozen, invertible, and named by its `kind`.

Every step has `apply(values, position)` and `invert(values, position)` on float64 arrays in which NaN stays NaN, and
`scale`: data units per normalized unit, None where it is not constant.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, TypeAlias

import numpy as np

from gridloom.core.errors import DataError

__all__ = ["STEPS", "Bounds", "Climatology", "Log1p", "Standard", "Step"]


@dataclass(frozen=True)
class Standard:
    """(x - mean) / std."""

    kind: ClassVar[str] = "standard"
    mean: float
    """Mean of the training part, in the units that come in."""
    std: float
    """Standard deviation of the training part; 1 where it is constant."""

    def apply(self, values: np.ndarray, position: np.ndarray | None) -> np.ndarray:
        """Normalize."""
        return np.asarray((values - self.mean) / self.std)

    def invert(self, values: np.ndarray, position: np.ndarray | None) -> np.ndarray:
        """Undo `apply`."""
        return np.asarray(values * self.std + self.mean)

    @property
    def scale(self) -> float | None:
        """Units that come in per unit that goes out; None where it is not constant."""
        return self.std


@dataclass(frozen=True)
class Log1p:
    """log(1 + x), for quantities above -1 with a long tail such as rain."""

    kind: ClassVar[str] = "log1p"

    def apply(self, values: np.ndarray, position: np.ndarray | None) -> np.ndarray:
        """Take the logarithm; refuses values of -1 and below."""
        lowest = np.min(values, initial=0.0, where=np.isfinite(values))
        if lowest <= -1:
            raise DataError(f"log1p needs values above -1, got {lowest:g}; use another step, or shift the data")
        return np.asarray(np.log1p(values))

    def invert(self, values: np.ndarray, position: np.ndarray | None) -> np.ndarray:
        """Undo `apply`."""
        return np.asarray(np.expm1(values))

    @property
    def scale(self) -> float | None:
        """None: a logarithm has no constant scale."""
        return None


@dataclass(frozen=True)
class Bounds:
    """low .. high to -1 .. 1; values outside go beyond. Where both are equal, their value goes to 0, at scale 1."""

    kind: ClassVar[str] = "bounds"
    low: float
    """Smallest value of the training part."""
    high: float
    """Largest value of the training part."""

    def apply(self, values: np.ndarray, position: np.ndarray | None) -> np.ndarray:
        """Normalize."""
        return np.asarray((values - (self.high + self.low) / 2) / self._half)

    def invert(self, values: np.ndarray, position: np.ndarray | None) -> np.ndarray:
        """Undo `apply`."""
        return np.asarray(values * self._half + (self.high + self.low) / 2)

    @property
    def scale(self) -> float | None:
        """Units that come in per unit that goes out; None where it is not constant."""
        return self._half

    @property
    def _half(self) -> float:
        return (self.high - self.low) / 2 or 1.0


@dataclass(frozen=True)
class Climatology:
    """x minus the mean of its position in the cycle, such as the month of the year."""

    kind: ClassVar[str] = "climatology"
    dim: str
    """Time dimension that the positions belong to."""
    values: tuple[float, ...]
    """Mean of the training part at each position."""

    def apply(self, values: np.ndarray, position: np.ndarray | None) -> np.ndarray:
        """Subtract the mean at each position."""
        return np.asarray(values - self._at(position))

    def invert(self, values: np.ndarray, position: np.ndarray | None) -> np.ndarray:
        """Undo `apply`."""
        return np.asarray(values + self._at(position))

    @property
    def scale(self) -> float | None:
        """Units that come in per unit that goes out: 1."""
        return 1.0

    def _at(self, position: np.ndarray | None) -> np.ndarray:
        if position is None:
            raise DataError(f"a climatology along {self.dim!r} needs the position of each value, got none")
        if position.size and not 0 <= position.min() <= position.max() < len(self.values):
            raise DataError(
                f"climatology along {self.dim!r}: positions go from 0 to {len(self.values) - 1}, got "
                f"{position.min()} to {position.max()}"
            )
        return np.asarray(np.asarray(self.values, dtype=np.float64)[position])


Step: TypeAlias = Standard | Log1p | Bounds | Climatology

STEPS: Mapping[str, type[Step]] = MappingProxyType({step.kind: step for step in (Standard, Log1p, Bounds, Climatology)})
"""Steps by name."""
