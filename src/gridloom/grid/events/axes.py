"""Axes: from a number to a row or column, and back to where the bins lie.

The price and volume axes follow floor(u * (size - 1)) with u in [0, 1], so that the last bin holds the top alone and
all else that is clipped to it.
"""

import dataclasses
import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64, Int32, Int64

from gridloom.core.config import to_dict
from gridloom.core.errors import ConfigError

__all__ = ["LinearAxis", "PriceAxis", "VolumeAxis", "axis_record"]

_BLOCK = 16_384


@dataclass(frozen=True, kw_only=True)
class PriceAxis:
    """Columns of a price against a reference price."""

    kind: Literal["tanh", "linear", "ticks"] = "tanh"
    """`tanh`: of the log ratio, finest at the reference. `linear`: in the ratio, from exp(-r_max) to exp(r_max).
    `ticks`: one column per tick, the reference in column (size - 1) // 2, all beyond in the outermost."""
    size: int = 32
    """Number of columns."""
    s: float = 0.02
    """Scale of `tanh`, log ratio."""
    r_max: float = math.log(1.1)
    """Largest log ratio; what is beyond is clipped. By board and date: `limits.r_max_of`."""
    tick: float = 0.01
    """Smallest step of a price."""
    limit_columns: bool = False
    """Give the first and the last column to the limit prices alone, rounded to ticks half up."""

    def __post_init__(self) -> None:
        if self.size < 4:
            raise ConfigError(f"size: expected 4 columns or more, got {self.size}")
        for name, value in (("s", self.s), ("r_max", self.r_max), ("tick", self.tick)):
            if not 0 < value < math.inf:
                raise ConfigError(f"{name}: expected a number above 0, got {value}")

    def column(self, price: np.ndarray, reference: float | np.ndarray) -> Int32[np.ndarray, " row"]:
        """Return the column of each price; -1 where it is not a number above 0.

        Where one reference serves more prices than there are ticks, prices on ticks are looked up: the same, and
        faster.

        Args:
            price: In the unit of the reference.
            reference: Price that the columns are about, one or one per row.
        """
        price = np.asarray(price, dtype=np.float64)
        if np.ndim(reference) == 0 and price.size > _BLOCK and price.size * self.tick > reference:
            first, table = self.table(float(reference))
        else:
            first, table = 0, None
        references = np.broadcast_to(reference, price.shape)
        column = np.empty(price.shape, dtype=np.int32)
        for start in range(0, price.size, _BLOCK):
            block = slice(start, start + _BLOCK)
            ticks = None if table is None else self._on_ticks(price[block])
            if table is None or ticks is None:
                column[block] = self._checked(price[block], references[block])
            else:
                np.take(table, ticks - first, out=column[block], mode="clip")
        return column

    def table(self, reference: float) -> tuple[int, Int32[np.ndarray, " tick"]]:
        """Return the first tick and the column of it and of all that follow, up to where the columns end.

        The column of price p is `table[clip(ticks(p) - first, 0, len(table) - 1)]`, bit-equal to `column` for prices on
        ticks.
        """
        return _table(self, float(reference))

    def column_of_ticks(self, ticks: np.ndarray, reference: float) -> Int32[np.ndarray, " row"]:
        """Return the column of each price that is given in whole ticks: from a table, several times as fast."""
        first, table = self.table(reference)
        column = table.take(ticks - first, mode="clip")
        if ticks.size and ticks.min() <= 0:
            column[ticks <= 0] = -1
        return column

    def ticks(self, price: np.ndarray | float) -> Int64[np.ndarray, "*shape"]:
        """Return prices in whole ticks, the nearest."""
        step = self._step
        scaled = np.asarray(price, dtype=np.float64) * step.denominator
        ticks: np.ndarray = np.rint(scaled if step.numerator == 1 else scaled / step.numerator)
        return np.asarray(ticks, dtype=np.int64)

    def price_of_ticks(self, ticks: np.ndarray | int) -> Float64[np.ndarray, "*shape"]:
        """Return the price of whole ticks: the very float that its decimal digits are read as."""
        step = self._step
        whole = np.asarray(ticks, dtype=np.float64)
        return np.asarray((whole if step.numerator == 1 else whole * step.numerator) / step.denominator)

    def limit_ticks(self, reference: float | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the lower and the upper limit price in ticks: exact integers, rounded half up."""
        center = self.ticks(reference)
        basis_points = round(math.expm1(self.r_max) * 10_000)
        low, high = ((center * (10_000 + sign * basis_points) + 5_000) // 10_000 for sign in (-1, 1))
        return np.asarray(low), np.asarray(high)

    @property
    def edges(self) -> Float64[np.ndarray, " edge"]:
        """Where columns begin, and the last one ends, as log ratio (`ticks`: in ticks from the reference).

        The last column of `tanh` and `linear` holds r_max alone, so that its two edges are the same.
        """
        return self._value(np.minimum(np.arange(self.size + 1), self.size - 1) / (self.size - 1))

    @property
    def centers(self) -> Float64[np.ndarray, " column"]:
        """Log ratio that stands for each column (`ticks`: ticks from the reference)."""
        if self.kind == "ticks":
            return np.arange(self.size, dtype=np.float64) - (self.size - 1) // 2
        return self._value(np.minimum(np.arange(self.size) + 0.5, self.size - 1) / (self.size - 1))

    def center_prices(self, reference: float) -> Float64[np.ndarray, " column"]:
        """Price that stands for each column."""
        if self.kind == "ticks":
            return reference + self.centers * self.tick
        return np.asarray(reference * np.exp(self.centers))

    @cached_property
    def _step(self) -> Fraction:
        return Fraction(repr(self.tick))

    def _on_ticks(self, price: np.ndarray) -> np.ndarray | None:
        """Return the ticks of prices if all are above 0 and just what their ticks say."""
        if not (price.min() > 0 and price.max() < math.inf):
            return None
        ticks = self.ticks(price)
        return ticks if np.array_equal(self.price_of_ticks(ticks), price) else None

    def _checked(self, price: np.ndarray, reference: float | np.ndarray) -> np.ndarray:
        good = (price > 0) & (price < math.inf)
        if not good.all():
            price = np.where(good, price, 1.0)
        column = self._formula(price, reference)
        if self.limit_columns:
            self._fence(column, self.ticks(price), self.limit_ticks(reference))
        if not good.all():
            column[~good] = -1
        return column

    def _formula(self, price: np.ndarray, reference: float | np.ndarray) -> np.ndarray:
        if self.kind == "ticks":
            distance = self.ticks(price) - self.ticks(reference) + (self.size - 1) // 2
            return np.asarray(np.clip(distance, 0, self.size - 1), dtype=np.int32)
        ratio = np.log(price / reference)
        if self.kind == "tanh":
            x = np.tanh(np.clip(ratio, -self.r_max, self.r_max) / self.s)
            x /= math.tanh(self.r_max / self.s)
        else:
            low, high = math.exp(-self.r_max), math.exp(self.r_max)
            x = (np.clip(price / reference, low, high) - low) / (high - low) * 2 - 1
        column: np.ndarray = np.floor((x + 1) / 2 * (self.size - 1)).astype(np.int32)
        # The top is what the formula says without rounding, whichever tanh the machine has.
        column[ratio >= self.r_max] = self.size - 1
        np.clip(column, 0, self.size - 1, out=column)
        return column

    def _fence(self, column: np.ndarray, ticks: np.ndarray, limits: tuple[np.ndarray, np.ndarray]) -> None:
        np.clip(column, 1, self.size - 2, out=column)
        column[ticks <= limits[0]] = 0
        column[ticks >= limits[1]] = self.size - 1

    def _value(self, u: np.ndarray) -> np.ndarray:
        """Log ratio at a share of the axis."""
        if self.kind == "ticks":
            return np.arange(self.size + 1) - (self.size - 1) // 2 - 0.5
        if self.kind == "tanh":
            # Where r_max is many s the tanh is 1 to the last digit; its inverse is not asked there.
            inner = np.clip((2 * u - 1) * math.tanh(self.r_max / self.s), -1 + 1e-16, 1 - 1e-16)
            value = np.clip(np.arctanh(inner) * self.s, -self.r_max, self.r_max)
            return np.select([u <= 0, u >= 1], [-self.r_max, self.r_max], value)
        low, high = math.exp(-self.r_max), math.exp(self.r_max)
        return np.log(low + u * (high - low))


@lru_cache(maxsize=256)
def _table(axis: PriceAxis, reference: float) -> tuple[int, np.ndarray]:
    if axis.kind == "ticks":
        low = int(axis.ticks(reference)) - axis.size
        high = low + 2 * axis.size
    else:
        low = int(min(axis.ticks(reference * math.exp(-axis.r_max)), axis.limit_ticks(reference)[0])) - 2
        high = int(max(axis.ticks(reference * math.exp(axis.r_max)), axis.limit_ticks(reference)[1])) + 2
    first = max(low, 1)
    table = axis.column(axis.price_of_ticks(np.arange(first, high + 1)), reference)
    table.flags.writeable = False
    return first, table


@dataclass(frozen=True, kw_only=True)
class VolumeAxis:
    """Rows of a volume, by its logarithm."""

    size: int = 32
    """Number of rows."""
    v_cap: int = 50_000
    """Volume from which on all is in the last row."""
    v_min: int = 0
    """Volume up to which all is in row 0, such as a lot of 100."""

    def __post_init__(self) -> None:
        if self.size < 2:
            raise ConfigError(f"size: expected 2 rows or more, got {self.size}")
        if not 0 <= self.v_min < self.v_cap:
            raise ConfigError(f"v_min, v_cap: expected 0 <= v_min < v_cap, got {self.v_min} and {self.v_cap}")

    def row(self, volume: np.ndarray) -> Int32[np.ndarray, " row"]:
        """Return the row of each volume; -1 where it is negative or not a number. Integers are looked up."""
        volume = np.asarray(volume)
        if volume.dtype.kind in "iu":
            row = self.table.take(volume, mode="clip")
            good = volume >= 0
        else:
            good = volume >= 0
            row = self._formula(np.where(good, volume, 0))
        if not good.all():
            row[~good] = -1
        return row

    @cached_property
    def table(self) -> Int32[np.ndarray, " volume"]:
        """Row of each whole volume up to `v_cap`."""
        table = self._formula(np.arange(self.v_cap + 1))
        table.flags.writeable = False
        return table

    @property
    def edges(self) -> Float64[np.ndarray, " edge"]:
        """Volumes where rows begin, and the last one ends; the last holds `v_cap` and beyond."""
        return np.asarray(self._value(np.minimum(np.arange(self.size + 1), self.size - 1)))

    @property
    def centers(self) -> Float64[np.ndarray, " row"]:
        """Volume that stands for each row."""
        return np.asarray(self._value(np.minimum(np.arange(self.size) + 0.5, self.size - 1)))

    def _formula(self, volume: np.ndarray) -> np.ndarray:
        low, top = math.log1p(self.v_min), math.log1p(self.v_cap)
        u = np.maximum(np.minimum(np.log1p(volume), top) - low, 0) / (top - low)
        row: np.ndarray = np.floor(u * (self.size - 1)).astype(np.int32)
        row[volume >= self.v_cap] = self.size - 1
        np.clip(row, 0, self.size - 1, out=row)
        return row

    def _value(self, position: np.ndarray) -> np.ndarray:
        low, top = math.log1p(self.v_min), math.log1p(self.v_cap)
        return np.expm1(low + position / (self.size - 1) * (top - low))


@dataclass(frozen=True, kw_only=True)
class LinearAxis:
    """Equal bins between two numbers: longitude, latitude, depth, anything."""

    low: float
    """Where the first bin begins. Above `high` for an axis that runs down, such as latitude from the north."""
    high: float
    """Where the last bin ends."""
    size: int = 32
    """Number of bins."""
    clip: bool = True
    """Count what lies outside in the outermost bins; else it is -1."""

    def __post_init__(self) -> None:
        if self.size < 1 or not math.isfinite(self.low) or not math.isfinite(self.high) or self.low == self.high:
            raise ConfigError(
                f"low, high, size: expected two different numbers and 1 bin or more, got {self.low}, {self.high}, "
                f"{self.size}"
            )

    def index(self, values: np.ndarray) -> Int32[np.ndarray, " row"]:
        """Return the bin of each value; -1 where it is not a number."""
        values = np.asarray(values, dtype=np.float64)
        position = np.floor((values - self.low) / (self.high - self.low) * self.size)
        outside = np.isnan(position)
        if not self.clip:
            outside |= (position < 0) | (position >= self.size)
        return np.where(outside, -1, np.clip(position, 0, self.size - 1)).astype(np.int32)

    @property
    def edges(self) -> Float64[np.ndarray, " edge"]:
        """Where bins begin, and the last one ends."""
        return np.linspace(self.low, self.high, self.size + 1)

    @property
    def centers(self) -> Float64[np.ndarray, " bin"]:
        """Middle of each bin."""
        return np.asarray((self.edges[1:] + self.edges[:-1]) / 2)


def axis_record(axis: PriceAxis | VolumeAxis | LinearAxis) -> dict[str, Any]:
    """Return what an axis is as plain values for JSON: its class, its settings, edges and centers."""
    settings = {item.name: to_dict(getattr(axis, item.name)) for item in dataclasses.fields(axis)}
    return {
        "axis": type(axis).__name__,
        **settings,
        "edges": axis.edges.tolist(),
        "centers": axis.centers.tolist(),
    }
