"""From times to slots and back.

Times are int64 nanoseconds since 1970: UTC, or local where the name says so. Slots are looked up by minute: for each
minute that the times span where these are few, else by minute of the week.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int16, Int32, Int64

from gridloom.core.errors import DataError
from gridloom.grid.events.calendar import Calendar
from gridloom.grid.events.zone import local_to_utc, offsets_of, utc_to_local

__all__ = ["SlotTimes", "locate", "locate_local", "slot_times"]

_MINUTE = 60_000_000_000
_DAY, _WEEK = 1440, 10080
_MONDAY = 3 * _DAY  # 1970-01-01 was a Thursday
_BLOCK = 65_536
_NOT_A_TIME = np.iinfo(np.int64).min


@dataclass(frozen=True, kw_only=True)
class SlotTimes:
    """All slots of some sessions in order, `num_slots` for each."""

    time: Int64[np.ndarray, " frame"]
    """Start of the slot, UTC nanoseconds since 1970, strictly rising. A slot that daylight saving skips is given one of
    the last nanoseconds before the jump, so that times rise."""
    slot: Int64[np.ndarray, " frame"]
    day: Int64[np.ndarray, " frame"]
    """Session as `locate` says it: days since 1970-01-01."""
    session: Int64[np.ndarray, " frame"]
    """The same, or, where sessions follow each other without a break, the first day of the unbroken run."""
    minutes_since_previous: Float32[np.ndarray, " frame"]
    """From start to start, leaving out slots that daylight saving skips; 0 for these and for the very first."""
    auction: Bool[np.ndarray, " frame"]
    valid: Bool[np.ndarray, " frame"]
    """False: not on this weekday, a holiday, after the close of a half day, skipped by daylight saving."""


def locate(calendar: Calendar, times: np.ndarray) -> tuple[Int32[np.ndarray, " row"], Int16[np.ndarray, " row"]]:
    """Find the session and the slot of each time.

    Args:
        calendar: What sessions and slots are.
        times: UTC; int64 nanoseconds since 1970 or datetime64, in any order. Not-a-time belongs to no slot.

    Returns:
        Session (days since 1970-01-01; without meaning where there is no slot) and slot (-1: none).
    """
    return _locate(calendar, times, local=False)


def locate_local(calendar: Calendar, times: np.ndarray) -> tuple[Int32[np.ndarray, " row"], Int16[np.ndarray, " row"]]:
    """Find the session and the slot of each time of the calendar's own wall clock, as exchanges write them.

    Both instants of a time that the clock shows twice belong to the same slot. For UTC use `zone.local_to_utc`.

    Args:
        calendar: What sessions and slots are.
        times: Local; int64 nanoseconds since 1970-01-01 00:00 of the wall clock or datetime64, in any order.

    Returns:
        As `locate`.
    """
    return _locate(calendar, times, local=True)


def slot_times(calendar: Calendar, days: np.ndarray) -> SlotTimes:
    """List all slots of the given sessions with their times.

    Args:
        calendar: What sessions and slots are.
        days: Sessions as days since 1970-01-01, strictly rising; in cycle `week` Mondays.

    Raises:
        DataError: Days that do not rise, or are no Mondays in cycle `week`.
    """
    days = np.asarray(days, dtype=np.int64)
    layout = calendar.layout
    if (np.diff(days) <= 0).any():
        raise DataError("days: expected sessions in rising order, each once, got others; use np.unique")
    if calendar.cycle == "week" and ((days + 3) % 7).any():
        raise DataError("days: expected Mondays (days since 1970-01-01), got other days; use those that locate gives")
    local = ((days - layout.days_before)[:, None] * _DAY + layout.start[None]) * _MINUTE
    time, skipped = local_to_utc(calendar.time_zone, local.ravel())
    stops = calendar.stops
    stop = np.array([stops.get(int(day), 2 * _WEEK) for day in days], dtype=np.int64)
    valid = layout.on_weekday[(days + 3) % 7] & (layout.start[None] < stop[:, None])
    day = np.repeat(days, calendar.num_slots)
    happened = time[~skipped]
    since = np.zeros(time.shape, dtype=np.float32)
    since[~skipped] = np.diff(happened, prepend=happened[:1]) / _MINUTE
    return SlotTimes(
        time=_risen(time, skipped),
        slot=np.tile(np.arange(calendar.num_slots), len(days)),
        day=day,
        session=np.repeat(_runs(calendar, days), calendar.num_slots) if calendar.continuous else day,
        minutes_since_previous=since,
        auction=np.tile(layout.auction, len(days)),
        valid=valid.ravel() & ~skipped,
    )


def _runs(calendar: Calendar, days: np.ndarray) -> np.ndarray:
    """First day of the unbroken run that each session is in."""
    step = 7 if calendar.cycle == "week" else 1
    begins = np.diff(days, prepend=days[:1] - 2 * step) != step
    return days[np.maximum.accumulate(np.where(begins, np.arange(len(days)), 0))]


def _risen(time: np.ndarray, skipped: np.ndarray) -> np.ndarray:
    """Put skipped slots right before the first slot after the jump, one nanosecond apart."""
    if not skipped.any():
        return time
    time = time.copy()
    places = np.flatnonzero(skipped)
    ends = np.flatnonzero(np.diff(places, append=places[-1] + 2) != 1)
    runs = np.split(places, ends[:-1] + 1)
    for run in runs:
        following = time[run[-1] + 1 : run[-1] + 2]
        time[run] = np.concatenate([time[run[:1]], following]).min() - np.arange(len(run), 0, -1)
    return time


def _locate(calendar: Calendar, times: np.ndarray, *, local: bool) -> tuple[np.ndarray, np.ndarray]:
    times = _nanoseconds(times)
    if not times.size:
        return np.zeros(times.shape, dtype=np.int32), np.zeros(times.shape, dtype=np.int16)
    first, last = int(times.min()), int(times.max())
    if first == _NOT_A_TIME:
        return _locate_real(calendar, times, local=local)
    begin = first // _MINUTE
    num_minutes = last // _MINUTE - begin + 1
    whole_minutes = local or not (offsets_of(calendar.time_zone, first, last).offset % _MINUTE).any()
    if num_minutes > max(times.size // 2, _WEEK) or not whole_minutes:
        return _by_week(calendar, times, local=local)
    minutes = (begin + np.arange(num_minutes, dtype=np.int64)) * _MINUTE
    return _by_minute(times, begin * _MINUTE, *_by_week(calendar, minutes, local=local))


def _locate_real(calendar: Calendar, times: np.ndarray, *, local: bool) -> tuple[np.ndarray, np.ndarray]:
    real = times != _NOT_A_TIME
    session = np.zeros(times.shape, dtype=np.int32)
    slot = np.full(times.shape, -1, dtype=np.int16)
    session[real], slot[real] = _locate(calendar, times[real], local=local)
    return session, slot


def _by_minute(
    times: np.ndarray, begin: int, session_of: np.ndarray, slot_of: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Look times up in tables of the minutes from `begin` on, in blocks that fit the cache."""
    sessions = np.unique(session_of[slot_of >= 0])
    single = len(sessions) <= 1
    session = np.full(times.shape, sessions.sum(), dtype=np.int32) if single else np.empty(times.shape, dtype=np.int32)
    slot = np.empty(times.shape, dtype=np.int16)
    since = np.empty(min(_BLOCK, times.size), dtype=np.int64)
    unsigned, minute = since.view(np.uint64), np.uint64(_MINUTE)  # divides faster, and nothing is negative here
    for start in range(0, times.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        length = len(slot[block])
        np.subtract(times[block], begin, out=since[:length])
        np.floor_divide(unsigned[:length], minute, out=unsigned[:length])
        np.take(slot_of, since[:length], out=slot[block], mode="clip")
        if not single:
            np.take(session_of, since[:length], out=session[block], mode="clip")
    return session, slot


def _nanoseconds(times: np.ndarray) -> np.ndarray:
    if times.dtype.kind == "M":
        return np.ascontiguousarray(times.astype("datetime64[ns]", copy=False)).view(np.int64)
    if times.dtype != np.int64:
        raise DataError(f"times: expected int64 nanoseconds since 1970 or datetime64, got {times.dtype}")
    return times


def _by_week(calendar: Calendar, times: np.ndarray, *, local: bool) -> tuple[np.ndarray, np.ndarray]:
    """Look times up by their local minute of the week, in blocks that fit the cache."""
    layout = calendar.layout
    session = np.empty(times.shape, dtype=np.int32)
    slot = np.empty(times.shape, dtype=np.int16)
    for start in range(0, times.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        clock = times[block] if local else utc_to_local(calendar.time_zone, times[block])
        minute = (clock // _MINUTE).astype(np.int32)
        minute_of_week = (minute + _MONDAY) % _WEEK
        session[block] = minute // _DAY + layout.session_of_minute[minute_of_week]
        slot[block] = layout.slot_of_minute[minute_of_week]
        _close(calendar, session[block], slot[block], minute_of_week)
    return session, slot


def _close(calendar: Calendar, session: np.ndarray, slot: np.ndarray, minute_of_week: np.ndarray) -> None:
    """Take the slots away on holidays and after the close of half days."""
    if not calendar.stops:
        return
    days = np.array(sorted(calendar.stops), dtype=np.int32)
    stop = np.array([calendar.stops[int(day)] for day in days], dtype=np.int32)
    place = np.minimum(np.searchsorted(days, session), len(days) - 1)
    closed = (days[place] == session) & (calendar.layout.clock_of_minute[minute_of_week] >= stop[place])
    slot[closed] = -1
