"""Which slots come after a record."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64

from gridloom.core.errors import ConfigError, DataError
from gridloom.grid.events.calendar import Calendar
from gridloom.grid.events.locate import slot_times

__all__ = ["SlotsAhead", "slots_ahead"]

_DAY_NS = 86_400_000_000_000
_SPARE_DAYS = 21


@dataclass(frozen=True, kw_only=True)
class SlotsAhead:
    """The slots after the last one of a record."""

    slot: Int64[np.ndarray, " step"]
    session: Int64[np.ndarray, " step"]
    """Numbered on from the record's last session."""
    time: np.ndarray
    """In the type of the record's times."""
    valid: Bool[np.ndarray, " step"]
    """False where the calendar says that the slot will not happen."""


def slots_ahead(
    steps: int,
    *,
    time: np.ndarray,
    slot: Int64[np.ndarray, " time"],
    session: Int64[np.ndarray, " time"],
    num_slots: int,
    calendar: str = "",
) -> SlotsAhead:
    """List the slots to come.

    With a calendar that the record's last slot fits, its sessions are followed: lunch breaks, nights, week-ends and
    half days are where they will be. Otherwise slots go round, a new session begins with each round if the record has
    several, and times go on by the median step.

    Args:
        steps: How many, from 1.
        time: Times of the record's frames: datetime64 (UTC) or numbers.
        slot: Their slots.
        session: Their sessions.
        num_slots: Slots of a cycle.
        calendar: JSON record of the calendar; empty if there is none.

    Raises:
        DataError: No step, or no frame.
    """
    if steps < 1 or not len(slot):
        raise DataError(f"expected a record of 1 frame or more and 1 step or more ahead, got {len(slot)} and {steps}")
    if calendar and time.dtype.kind == "M":
        found = _by_calendar(steps, time, slot, session, calendar)
        if found is not None:
            return found
    ahead = (int(slot[-1]) + 1 + np.arange(steps)) % num_slots
    rounds = (int(slot[-1]) + 1 + np.arange(steps)) // num_slots
    several = session[0] != session[-1]
    step = np.median(np.diff(time)).astype(np.diff(time).dtype) if len(time) > 1 else 1
    return SlotsAhead(
        slot=ahead,
        session=session[-1] + (rounds if several else 0 * rounds),
        time=np.asarray(time[-1] + step * np.arange(1, steps + 1)),
        valid=np.ones(steps, dtype=bool),
    )


def _by_calendar(steps: int, time: np.ndarray, slot: np.ndarray, session: np.ndarray, text: str) -> SlotsAhead | None:
    """Follow a calendar; None if the record's last frame is not one of its slots."""
    try:
        calendar = Calendar.from_json(text)
    except (ConfigError, DataError):
        return None
    last = int(time[-1].astype("datetime64[ns]").astype(np.int64))
    cycle = 7 if calendar.cycle == "week" else 1
    first = last // _DAY_NS - 2 * cycle
    count = steps // max(1, calendar.num_slots) + 2
    days = np.arange(first, first + 4 * cycle + (7 * count // 5 + _SPARE_DAYS) * cycle, dtype=np.int64)
    if cycle == 7:
        days = days[(days + 3) % 7 == 0]
    slots = slot_times(calendar, days)
    happens = np.isin(slots.day, np.unique(slots.day[slots.valid]))
    here = np.flatnonzero(happens & (slots.time == last) & (slots.slot == slot[-1]))
    after = np.flatnonzero(happens & (slots.time > last))[:steps]
    if len(here) != 1 or len(after) < steps:
        return None
    numbers = slots.session[np.concatenate([here, after])]
    changes = np.cumsum(np.diff(numbers) != 0)
    return SlotsAhead(
        slot=slots.slot[after].astype(np.int64),
        session=session[-1] + changes,
        time=slots.time[after].astype("datetime64[ns]").astype(time.dtype),
        valid=slots.valid[after],
    )
