"""Time zones for whole columns: the changes of the offset are looked up once, the rest is arithmetic."""

import datetime
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal
from zoneinfo import ZoneInfo

import numpy as np
from jaxtyping import Bool, Int64

__all__ = ["Offsets", "local_to_utc", "offsets_of", "utc_to_local"]

_SECOND = 1_000_000_000
_DAY = 86_400 * _SECOND
_LIMIT = 2**63 - 1


@dataclass(frozen=True)
class Offsets:
    """Offsets of a zone's wall clock from UTC over some span, in nanoseconds."""

    change: Int64[np.ndarray, " change"]
    """UTC instants from which on the next offset holds."""
    offset: Int64[np.ndarray, " span"]
    """One more than changes."""


def offsets_of(time_zone: str, first: int, last: int) -> Offsets:
    """Return the offsets of a zone that hold from two days before the first to two days after the last instant.

    Args:
        time_zone: IANA name.
        first: Nanoseconds since 1970 (UTC or local: the margin covers either).
        last: The same.
    """
    years = range(_year(first - 2 * _DAY), _year(last + 2 * _DAY) + 1)
    changes = [change for year in years for change in _changes(time_zone, year)]
    start = _offset(ZoneInfo(time_zone), _start_of(years[0]))
    return Offsets(
        np.array([when * _SECOND for when, _ in changes], dtype=np.int64),
        np.array([start * _SECOND, *(offset * _SECOND for _, offset in changes)], dtype=np.int64),
    )


def utc_to_local(time_zone: str, times: Int64[np.ndarray, " row"]) -> Int64[np.ndarray, " row"]:
    """Return the wall clock of a zone, in nanoseconds since 1970-01-01 00:00 of that clock."""
    if not times.size:
        return times
    offsets = offsets_of(time_zone, int(times.min()), int(times.max()))
    if not offsets.change.size:
        return np.asarray(times + offsets.offset[0])
    return np.asarray(times + offsets.offset[np.searchsorted(offsets.change, times, side="right")])


def local_to_utc(
    time_zone: str, times: Int64[np.ndarray, " row"], *, repeated: Literal["first", "second"] = "first"
) -> tuple[Int64[np.ndarray, " row"], Bool[np.ndarray, " row"]]:
    """Return UTC for the wall clock of a zone, and which of the times the clock never showed.

    Args:
        time_zone: IANA name.
        times: Nanoseconds since 1970-01-01 00:00 of the wall clock.
        repeated: Which of the two instants is meant where the clock was set back and shows a time twice.

    Returns:
        UTC (a skipped time counts as so long after the jump as it is after the clock's last time before it), and True
        where the clock was set forward over the time.
    """
    if not times.size:
        return times, np.zeros(0, dtype=bool)
    offsets = offsets_of(time_zone, int(times.min()), int(times.max()))
    before, after = offsets.change + offsets.offset[:-1], offsets.change + offsets.offset[1:]
    until = np.maximum(before, after) if repeated == "first" else after
    index = np.searchsorted(until, times, side="right")
    skipped = np.searchsorted(before, times, side="right") > np.searchsorted(after, times, side="right")
    return times - offsets.offset[index], skipped


def _year(nanoseconds: int) -> int:
    nanoseconds = max(-_LIMIT, min(nanoseconds, _LIMIT))
    return int(np.datetime64(nanoseconds, "ns").astype("datetime64[Y]").astype(np.int64)) + 1970


def _start_of(year: int) -> int:
    return int(np.datetime64(str(year), "s").astype(np.int64))


def _offset(zone: ZoneInfo, seconds: int) -> int:
    when = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(seconds=seconds)
    offset = when.astimezone(zone).utcoffset()
    assert offset is not None
    return round(offset.total_seconds())


@lru_cache(maxsize=1024)
def _changes(time_zone: str, year: int) -> tuple[tuple[int, int], ...]:
    """Return (second since 1970, offset from then on) for each change within a year.

    Changes are looked for every three days: since 1970 there were no two within a week anywhere.
    """
    zone = ZoneInfo(time_zone)
    end = _start_of(year + 1)
    starts = [*range(_start_of(year), end, 3 * 86_400), end]
    offsets = [_offset(zone, start) for start in starts]
    changes = []
    for low, high, old, new in zip(starts, starts[1:], offsets, offsets[1:], strict=False):
        if old == new:
            continue
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if _offset(zone, middle) == old else (low, middle)
        changes.append((high, new))
    return tuple(changes)
