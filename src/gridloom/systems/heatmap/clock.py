"""When slots are: local times of the frames of a record, and ticks along a cycle."""

import numpy as np

from gridloom.core.errors import ConfigError
from gridloom.grid.events import Calendar, utc_to_local
from gridloom.systems.heatmap.record import Record

__all__ = ["Clock"]

_MINUTE = 60 * 10**9
_DAY = 24 * 60
_EVERY = (1, 2, 5, 10, 15, 30, 60, 120, 180, 240, 360)
_MOST_TICKS = 9


class Clock:
    """Times of a record's frames on the wall clock of its place.

    Attributes:
        local: datetime64[ns] of each frame; None where a record says no times.
    """

    def __init__(self, record: Record) -> None:
        """Read the calendar; where a record has none that is understood, its times are taken as they are."""
        self._record = record
        self.local: np.ndarray | None = None
        if record.time.dtype.kind == "M":
            self.local = record.time.astype("datetime64[ns]")
            zone = _time_zone(record)
            if zone is not None:
                self.local = utc_to_local(zone, self.local.astype(np.int64)).astype("datetime64[ns]")

    def time(self, position: int) -> str:
        """`14:00`, or the number of the slot."""
        if self.local is None:
            return f"slot {self._record.slot[position]}"
        return str(self.local[position].astype("datetime64[m]"))[11:]

    def date(self, position: int) -> str:
        """`Tue 5 Mar 2013`, or nothing."""
        if self.local is None:
            return ""
        day = self.local[position].astype("datetime64[s]").item()
        return f"{day:%a} {day.day} {day:%b %Y}"

    @property
    def step_minutes(self) -> float:
        """Usual distance of two frames; NaN without times."""
        if self.local is None or len(self.local) < 2:
            return np.nan
        return float(np.median(np.diff(self.local).astype(np.int64)) / _MINUTE)

    @property
    def step(self) -> str:
        """The same for people: `1 h`, `5 min`, or `1 slot`."""
        minutes = self.step_minutes
        if not np.isfinite(minutes):
            return "1 slot"
        return f"{minutes / 60:g} h" if minutes % 60 == 0 else f"{minutes:g} min"

    def slot_ticks(self) -> tuple[list[int], list[str], str]:
        """Slots with a tick along the cycle, what they say, and the name of the axis."""
        slots, first = np.unique(self._record.slot, return_index=True)
        if self.local is None or len(slots) < 2:
            return [], [], "slot"
        minute = self.local[first].astype(np.int64) // _MINUTE
        in_day = minute % _DAY
        if len(slots) * self.step_minutes >= 2 * _DAY:
            midnights = np.flatnonzero(in_day == 0)
            names = [str(self.date(int(first[at])))[:3] for at in midnights]
            return slots[midnights].tolist(), names, "slot: hour of the week" if len(slots) == 168 else "slot"
        for every in _EVERY:
            chosen = np.flatnonzero(in_day % every == 0)
            if len(chosen) <= _MOST_TICKS:
                break
        texts = [f"{time // 60:02d}:{time % 60:02d}" for time in in_day[chosen].tolist()]
        return slots[chosen].tolist(), texts, "slot (local time)"


def _time_zone(record: Record) -> str | None:
    """Zone of a calendar by which times are UTC."""
    try:
        return Calendar.from_json(str(record.attrs["calendar"])).time_zone
    except (KeyError, ConfigError):
        return None
