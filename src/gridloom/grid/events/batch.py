"""A batch of trades as plain arrays, whatever file they came from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int8, Int32, Int64

from gridloom.core.errors import DataError
from gridloom.grid.events import text
from gridloom.grid.events.side import side_from_flag, side_from_orders
from gridloom.grid.events.text import TimeKind, TimeUnit

if TYPE_CHECKING:
    import pyarrow

__all__ = ["Batch", "Reading", "batch_of", "in_cents"]

_NANOSECONDS = 1_000_000_000


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How values are written."""

    kind: TimeKind | None = None
    """Of times that are text; None: as the first one is."""
    unit: TimeUnit = "s"
    """Of times that are numbers."""
    buy: str = "B"
    """Flag of a trade that the buyer started."""
    sell: str = "S"
    """Flag of a trade that the seller started."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows in the order of the file. All arrays have a place for each row that is not malformed."""

    malformed: int
    """Lines that are no rows, and have no place in the arrays."""
    seconds: Int32[np.ndarray, " row"] | None
    """Time of day on the calendar's wall clock; -1 where unreadable."""
    instants: Int64[np.ndarray, " row"] | None
    """If not `seconds`: nanoseconds since 1970; the smallest integer where unreadable."""
    local: bool
    """Whether instants are those of the calendar's wall clock; else UTC."""
    price: np.ndarray
    """int64 hundredths, or float64; not above zero, or NaN, where unusable."""
    volume: np.ndarray
    """int64 or float64; negative or NaN where unusable."""
    side: Int8[np.ndarray, " row"] | None
    """1 bought, -1 sold, 0 unknown; None where it was not asked for."""
    code: Int32[np.ndarray, " row"] | None = None
    """Index into `codes` where the file has a column of instruments."""
    codes: tuple[str, ...] = ()
    """Names of the instruments."""
    key: np.ndarray | None = None
    """What tells duplicates, where asked for."""

    @property
    def num_rows(self) -> int:
        """Rows, with the malformed ones."""
        return len(self.price) + self.malformed


def in_cents(price: np.ndarray) -> Int64[np.ndarray, " row"] | None:
    """Return prices in whole hundredths where that is exact for every one of them, else None; NaN becomes -1."""
    cents = price * 100
    np.rint(cents, out=cents)
    if (cents / 100 == price).all() and cents.max(initial=0) < 2**53 and cents.min(initial=0) > -(2**53):
        return cents.astype(np.int64)
    known = np.abs(cents) < 2**53
    if not known.all():
        if not np.isnan(price[~known]).all():
            return None
        price, cents = np.where(known, price, -0.01), np.where(known, cents, -1)
    if not (cents / 100 == price).all():
        return None
    return cents.astype(np.int64)


def batch_of(columns: "Mapping[str, pyarrow.Array]", reading: Reading, *, malformed: int = 0) -> Batch:
    """Turn Arrow columns of any sensible type into a batch.

    Args:
        columns: time, price, volume, and where they are wanted side, or buy_id and sell_id, code, key.
        reading: How values are written.
        malformed: Lines without a place in the columns.

    Raises:
        DataError: A column of a type that makes no sense; the message names it.
    """
    seconds, instants, local = _times(columns["time"], reading)
    price = _numbers("price", columns["price"])
    volume = _numbers("volume", columns["volume"], whole=True)
    if price.dtype.kind == "f":
        cents = in_cents(price)
        price = price if cents is None else cents
    else:
        price = np.where(price > 0, price, 0) * 100
    code, codes = _codes(columns["code"]) if "code" in columns else (None, ())
    return Batch(
        malformed=malformed,
        seconds=seconds,
        instants=instants,
        local=local,
        price=price,
        volume=volume,
        side=_sides(columns, reading),
        code=code,
        codes=codes,
        key=columns["key"].to_numpy(zero_copy_only=False) if "key" in columns else None,
    )


def _times(column: "pyarrow.Array", reading: Reading) -> tuple[np.ndarray | None, np.ndarray | None, bool]:
    import pyarrow
    from pyarrow import types

    kind = column.type
    if types.is_dictionary(kind):
        column, kind = column.dictionary_decode(), kind.value_type
    if types.is_timestamp(kind):
        nanoseconds = column.cast(pyarrow.timestamp("ns", kind.tz)).cast(pyarrow.int64()).fill_null(text.NOT_A_TIME)
        return None, nanoseconds.to_numpy(zero_copy_only=False), kind.tz is None
    if types.is_time(kind):
        return _seconds_of_times(column), None, True
    if types.is_integer(kind) or types.is_floating(kind):
        return _times_of_numbers(_numbers("time", column), reading.unit)
    if not types.is_string(kind) and not types.is_large_string(kind):
        raise DataError(f"time: expected times, text or numbers, got a column of {kind}")
    column = column.cast(pyarrow.string())
    written = reading.kind or text.kind_of_times(column) or "clock"
    if written == "clock":
        return text.seconds_of_text(column), None, True
    if written == "number":
        return _times_of_numbers(text.numbers_of_text(column), reading.unit)
    return None, text.instants_of_text(column, written, reading.unit), written == "local"


def _seconds_of_times(column: "pyarrow.Array") -> np.ndarray:
    import pyarrow
    from pyarrow import types

    width = pyarrow.int32() if types.is_time32(column.type) else pyarrow.int64()
    parts = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": _NANOSECONDS}[column.type.unit]
    whole = column.cast(width)
    numbers = (whole.fill_null(-1) if whole.null_count else whole).to_numpy(zero_copy_only=False)
    return np.asarray(numbers if parts == 1 else numbers // parts, dtype=np.int32)


def _times_of_numbers(numbers: np.ndarray, unit: TimeUnit) -> tuple[np.ndarray | None, np.ndarray | None, bool]:
    if unit in ("hhmmss", "hhmmssmmm"):
        whole = numbers if numbers.dtype.kind == "i" else np.where(numbers >= 0, numbers, -1).astype(np.int64)
        return text.seconds_of_numbers(whole, unit), None, True
    return None, text.instants_of_numbers(numbers, unit), False


def _numbers(name: str, column: "pyarrow.Array", *, whole: bool = False) -> np.ndarray:
    """Numbers as int64 where they are whole by type, or by value if that is wanted, else as float64."""
    import pyarrow
    from pyarrow import types

    kind = column.type
    if types.is_dictionary(kind):
        column, kind = column.dictionary_decode(), kind.value_type
    if types.is_integer(kind):
        if column.null_count:
            column = column.fill_null(-1)
        return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.int64)
    if types.is_string(kind) or types.is_large_string(kind):
        numbers = text.numbers_of_text(column)
    elif types.is_floating(kind) or types.is_decimal(kind) or types.is_null(kind):
        numbers = column.cast(pyarrow.float64()).to_numpy(zero_copy_only=False)
    else:
        raise DataError(f"{name}: expected numbers, got a column of {kind}")
    if not whole:
        return np.asarray(numbers)
    rounded = np.where(np.abs(numbers) < 2**53, numbers, -1).astype(np.int64)
    exact = (rounded == numbers) | ~(np.abs(numbers) < 2**53)
    return rounded if exact.all() else np.asarray(numbers)


def _sides(columns: "Mapping[str, pyarrow.Array]", reading: Reading) -> np.ndarray | None:
    if "buy_id" in columns:
        return side_from_orders(_numbers("buy_id", columns["buy_id"]), _numbers("sell_id", columns["sell_id"]))
    if "side" not in columns:
        return None
    import pyarrow
    from pyarrow import types

    column = columns["side"]
    if not types.is_dictionary(column.type):
        column = column.cast(pyarrow.string()).dictionary_encode()
    names = [str(name) if name is not None else "" for name in column.dictionary.to_pylist()]
    table = np.append(side_from_flag(np.array(names, dtype=object), reading.buy, reading.sell), np.int8(0))
    if column.indices.null_count:
        return np.asarray(table[column.indices.fill_null(len(names)).to_numpy(zero_copy_only=False)])
    return np.asarray(table.take(column.indices.to_numpy(zero_copy_only=False)))


def _codes(column: "pyarrow.Array") -> tuple[np.ndarray, tuple[str, ...]]:
    import pyarrow
    from pyarrow import types

    if not types.is_dictionary(column.type):
        column = column.cast(pyarrow.string()).dictionary_encode()
    names = tuple(str(name) for name in column.dictionary.to_pylist())
    indices = column.indices.fill_null(len(names)).to_numpy(zero_copy_only=False)
    return indices.astype(np.int32), (*names, "")
