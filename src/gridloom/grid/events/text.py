"""Columns of text to numbers and times: the slow and thorough way, for whatever `digits` does not read.

Rows that cannot be read come out as -1 (seconds), NaN (numbers) or not-a-time (instants). What a row comes out as does
not depend on its neighbors.
"""

from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Float64, Int32, Int64

from gridloom.core.errors import DataError
from gridloom.grid.events.digits import PADDING, clock_seconds, words_of

if TYPE_CHECKING:
    import pyarrow

__all__ = ["NOT_A_TIME", "TimeKind", "TimeUnit", "instants_of_numbers", "instants_of_text", "kind_of_times"]
__all__ += ["numbers_of_text", "seconds_of_numbers", "seconds_of_text"]

NOT_A_TIME = np.iinfo(np.int64).min
TimeKind = Literal["clock", "local", "utc", "number"]
"""Time of day; date and time of the calendar's wall clock; date and time with an offset from UTC; a whole number."""
TimeUnit = Literal["s", "ms", "us", "ns", "hhmmss", "hhmmssmmm"]
"""What a whole number counts: since 1970 in UTC, or the digits of a time of day."""

_CLOCK = r"^(?P<hour>[0-9]{1,2}):(?P<minute>[0-5][0-9]):(?P<second>[0-5][0-9])(?:[.,][0-9]+)?$"
_NUMBER = r"^-?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]{1,3})?$"
_ZONED = r"(Z|z|[-+][0-9]{2}:?[0-9]{2}|[-+][0-9]{2})$"
_DATED = r"^[0-9]{4}-?[0-9]{2}-?[0-9]{2}"
_WHOLE = r"^-?[0-9]+$"
_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_DAY = 86_400


def kind_of_times(texts: "pyarrow.Array") -> TimeKind | None:
    """Say how a column writes times, from the first value that is any time; None if there is none."""
    for start in range(0, len(texts), 1000):
        for text in texts.slice(start, 1000).to_pylist():
            kind = _kind(str(text or "").strip())
            if kind is not None:
                return kind
    return None


def _kind(text: str) -> TimeKind | None:
    import re

    if re.search(_CLOCK, text):
        return "clock"
    if re.search(_WHOLE, text):
        return "number"
    if re.search(_DATED, text) and ":" in text:
        return "utc" if re.search(_ZONED, text[10:]) else "local"
    return None


def seconds_of_text(texts: "pyarrow.Array") -> Int32[np.ndarray, " row"]:
    """Read times of day, H:MM:SS or HH:MM:SS with or without a fraction, as whole seconds of the day."""
    words, lengths = _words(texts)
    seconds, read = clock_seconds(words, lengths)
    if read.all():
        return seconds
    seconds[~read] = -1
    rest = np.flatnonzero(~read)
    seconds[rest] = _seconds_by_pattern(texts.take(_arrow(rest)))
    return seconds


def _arrow(values: np.ndarray) -> "pyarrow.Array":
    import pyarrow

    return pyarrow.array(values)


def _words(texts: "pyarrow.Array") -> tuple[np.ndarray, np.ndarray]:
    """Return the first eight bytes and the length of each text."""
    import pyarrow

    texts = texts.cast(pyarrow.string()).fill_null("")
    _, offsets, content = texts.buffers()
    ends = np.frombuffer(offsets, dtype=np.int32)[texts.offset : texts.offset + len(texts) + 1]
    first, last = int(ends[0]), int(ends[-1])
    padded = np.zeros(last - first + PADDING, dtype=np.uint8)
    if last > first:
        padded[: last - first] = np.frombuffer(content, dtype=np.uint8)[first:last]
    return words_of(padded)[ends[:-1] - first], np.diff(ends)


def _seconds_by_pattern(texts: "pyarrow.Array") -> np.ndarray:
    import pyarrow
    import pyarrow.compute as compute

    fields = compute.extract_regex(compute.utf8_trim_whitespace(texts), _CLOCK)
    hour, minute, second = (
        compute.struct_field(fields, name).cast(pyarrow.int32()).fill_null(-1).to_numpy(zero_copy_only=False)
        for name in ("hour", "minute", "second")
    )
    read = (hour >= 0) & (hour < 24)
    return np.where(read, hour * 3600 + minute * 60 + second, -1).astype(np.int32)


def seconds_of_numbers(
    numbers: Int64[np.ndarray, " row"], unit: Literal["hhmmss", "hhmmssmmm"]
) -> Int32[np.ndarray, " row"]:
    """Read times of day that are written as whole numbers, such as 93000 or 93000120."""
    clock = numbers if unit == "hhmmss" else np.floor_divide(numbers, 1000)
    hour, minute, second = clock // 10_000, clock // 100 % 100, clock % 100
    read = (clock >= 0) & (hour < 24) & (minute < 60) & (second < 60)
    return np.where(read, hour * 3600 + minute * 60 + second, -1).astype(np.int32)


def numbers_of_text(texts: "pyarrow.Array") -> Float64[np.ndarray, " row"]:
    """Read numbers."""
    import pyarrow
    import pyarrow.compute as compute

    trimmed = compute.utf8_trim_whitespace(texts)
    usable = compute.match_substring_regex(trimmed, _NUMBER)
    kept = compute.if_else(usable, trimmed, pyarrow.scalar(None, trimmed.type))
    numbers: np.ndarray = kept.cast(pyarrow.float64()).fill_null(np.nan).to_numpy(zero_copy_only=False)
    return numbers


def instants_of_text(texts: "pyarrow.Array", kind: TimeKind, unit: TimeUnit) -> Int64[np.ndarray, " row"]:
    """Read dates with times as nanoseconds since 1970: of the wall clock for kind `local`, else in UTC.

    A row that is written in another kind than the column is not a time.
    """
    import pandas
    import pyarrow.compute as compute

    trimmed = compute.utf8_trim_whitespace(texts)
    if kind == "number":
        return instants_of_numbers(numbers_of_text(trimmed), unit)
    zoned = compute.match_substring_regex(compute.utf8_slice_codeunits(trimmed, 10), _ZONED)
    usable = compute.and_(compute.match_substring_regex(trimmed, _DATED), compute.match_substring(trimmed, ":"))
    usable = compute.and_(usable, zoned if kind == "utc" else compute.invert(zoned))
    values = compute.if_else(usable, trimmed, "").to_pandas()
    times = pandas.to_datetime(values, errors="coerce", format="ISO8601", utc=True)
    instants: np.ndarray = times.dt.tz_localize(None).to_numpy().astype("datetime64[ns]").astype(np.int64)
    return instants


def instants_of_numbers(numbers: np.ndarray, unit: TimeUnit) -> Int64[np.ndarray, " row"]:
    """Turn counts of a unit since 1970 into nanoseconds.

    Raises:
        DataError: A unit that is a time of day, or numbers that cannot be times in that unit.
    """
    if unit not in _PER_SECOND:
        raise DataError(f"time_unit: expected s, ms, us or ns for times since 1970, got {unit!r}")
    factor = 1_000_000_000 // _PER_SECOND[unit]
    if numbers.dtype.kind == "f":
        usable = np.isfinite(numbers) & (np.abs(numbers) * factor < 2**63)
        instants = np.where(usable, numbers, 0).astype(np.int64) * factor
        return np.where(usable, instants, NOT_A_TIME)
    instants = numbers.astype(np.int64)
    usable = np.abs(instants) <= (2**63 - 1) // factor
    if factor > 1 and not usable.all():
        raise DataError(f"time_unit: {int(instants[~usable][0])} cannot be {unit} since 1970; is it another unit?")
    return instants * factor
