"""Calendars: which minutes of which days are slots, and which slot follows which.

A calendar is a list of segments of local wall-clock time, cut into slots that are numbered through the session. Times
of events become a session and a slot in `gridloom.grid.events.locate`.
"""

import dataclasses
import datetime
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal
from zoneinfo import ZoneInfo

import numpy as np
from jaxtyping import Bool, Int8, Int16, Int32

from gridloom.core.config import from_dict, load_yaml, to_dict
from gridloom.core.errors import ConfigError, UnknownNameError

__all__ = ["CALENDARS", "Calendar", "Layout", "Segment", "open_calendar"]

_DAY, _WEEK = 1440, 10080
_WEEKDAYS = (0, 1, 2, 3, 4)
_EVERY_DAY = (0, 1, 2, 3, 4, 5, 6)
_CLOCK = re.compile(r"([01]\d|2[0-3]):([0-5]\d)|24:00")


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A stretch of local wall-clock time that is cut into slots: start <= t < stop."""

    start: str
    """HH:MM, local."""
    stop: str
    """HH:MM, local; up to 24:00. Not after the start: on the next day."""
    minutes: int = 1
    """Length of a slot. Where it does not divide the segment the last slot is shorter."""
    kind: Literal["continuous", "auction"] = "continuous"
    """Of trading; comes along with every slot."""
    days: tuple[int, ...] = _WEEKDAYS
    """Weekdays of the session (cycle `day`) or of the start (cycle `week`), Monday = 0."""
    fold: Literal["none", "next", "previous"] = "none"
    """Make no slots of it, but count its events in the first slot of the next segment or the last of the previous."""

    def __post_init__(self) -> None:
        for name, clock in (("start", self.start), ("stop", self.stop)):
            if not _CLOCK.fullmatch(clock) or (name == "start" and clock == "24:00"):
                raise ConfigError(f"{name}: expected a time of day such as 09:30, got {clock!r}")
        if self.minutes < 1:
            raise ConfigError(f"minutes: expected 1 or more, got {self.minutes}")
        if not self.days or len(set(self.days)) != len(self.days) or not set(self.days) <= set(_EVERY_DAY):
            raise ConfigError(f"days: expected different weekdays from 0 (Monday) to 6, got {list(self.days)}")

    @property
    def num_minutes(self) -> int:
        """Length, in minutes of the clock."""
        return (_minutes(self.stop) - _minutes(self.start) - 1) % _DAY + 1


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What a calendar comes down to: one row per slot, one row per minute of the week."""

    start: Int32[np.ndarray, " slot"]
    """Minutes of the clock from the midnight that begins the session's first date."""
    auction: Bool[np.ndarray, " slot"]
    on_weekday: Bool[np.ndarray, "7 slot"]
    """Whether a session of that weekday has the slot."""
    days_before: int
    """Days from the session's first date to the date that it is named by."""
    slot_of_minute: Int16[np.ndarray, " 10080"]
    """By local minute of the week from Monday 00:00; -1 where there is no slot."""
    session_of_minute: Int8[np.ndarray, " 10080"]
    """Days from the local date to the session."""
    clock_of_minute: Int16[np.ndarray, " 10080"]
    """Minutes of the clock since the session's first midnight, as in `start`."""


@dataclass(frozen=True, kw_only=True)
class Calendar:
    """The slots of a session and the days that have one.

    A session is named by a date: days since 1970-01-01. In cycle `week` it is the Monday of the week.
    """

    name: str
    """For people."""
    time_zone: str = "UTC"
    """IANA name, such as Asia/Shanghai; daylight saving follows from it."""
    segments: tuple[Segment, ...]
    """In the order of the session. One that starts before the stop of the one before it belongs to the next day."""
    half_days: Mapping[str, str] = field(default_factory=dict)
    """Date of a session (YYYY-MM-DD) -> HH:MM local from which on it has no slots."""
    holidays: tuple[str, ...] = ()
    """Dates (YYYY-MM-DD) without session, besides the weekdays that no segment has."""
    cycle: Literal["day", "week"] = "day"
    """What the slots are numbered through."""
    session_of: Literal["start", "end"] = "start"
    """Which date names a session that crosses midnight."""
    continuous: bool = False
    """Sessions follow each other without a break, as for the week or for crypto currencies."""

    def __post_init__(self) -> None:
        try:
            ZoneInfo(self.time_zone)
        except (KeyError, ValueError, OSError):
            raise ConfigError(
                f"time_zone: expected an IANA name such as Asia/Shanghai, got {self.time_zone!r} (a right one needs "
                "`pip install tzdata` where the system has no time zones)"
            ) from None
        for date in (*self.half_days, *self.holidays):
            _day_number(date)
        for clock in self.half_days.values():
            if not _CLOCK.fullmatch(clock):
                raise ConfigError(f"half_days: expected a time of day such as 13:00, got {clock!r}")
        if self.cycle == "week" and (self.half_days or self.holidays or self.session_of != "start"):
            raise ConfigError("half_days, holidays, session_of: are for the cycle 'day'; leave them out with 'week'")
        _ = self.layout

    @property
    def num_slots(self) -> int:
        """Slots of a whole session."""
        return len(self.layout.start)

    @cached_property
    def layout(self) -> Layout:
        """The tables that times are looked up in."""
        return _lay_out(self)

    @cached_property
    def stops(self) -> dict[int, int]:
        """Session -> minutes of the clock (as in the layout) from which on it has no slots; 0 on holidays."""
        first = int(self.layout.start[0])
        stops = {_day_number(date): 0 for date in self.holidays}
        for date, clock in self.half_days.items():
            stop = _minutes(clock)
            stops.setdefault(_day_number(date), stop if stop > first else stop + _DAY)
        return stops

    def to_json(self) -> str:
        """Return the whole record as JSON."""
        return json.dumps(to_dict(self))

    @classmethod
    def from_json(cls, text: str) -> "Calendar":
        """Build a calendar from `to_json`, strictly.

        Raises:
            ConfigError: Not JSON, an unknown key, a wrong value.
        """
        try:
            content = json.loads(text)
        except ValueError as error:
            raise ConfigError(f"calendar: expected JSON, got {text!r:.80} ({error})") from None
        return from_dict(cls, content, where="calendar")


def open_calendar(calendar: "str | Path | Mapping[str, Any] | Calendar") -> Calendar:
    """Return a calendar by the name of a preset, from a YAML or JSON file, or from plain dictionaries.

    Raises:
        ConfigError: Not a calendar; the message names the place.
        UnknownNameError: Neither a preset nor a file.
    """
    if isinstance(calendar, Calendar):
        return calendar
    if isinstance(calendar, Mapping):
        return from_dict(Calendar, calendar, where="calendar")
    if str(calendar) in CALENDARS:
        return CALENDARS[str(calendar)]
    path = Path(calendar)
    if path.suffix not in (".yaml", ".yml", ".json"):
        raise UnknownNameError("calendar", str(calendar), CALENDARS)
    return from_dict(Calendar, load_yaml(path), where=str(path))


def _minutes(clock: str) -> int:
    return int(clock[:2]) * 60 + int(clock[3:])


def _day_number(date: str) -> int:
    try:
        return datetime.date.fromisoformat(date).toordinal() - datetime.date(1970, 1, 1).toordinal()
    except ValueError:
        raise ConfigError(f"half_days, holidays: expected dates such as 2024-11-29, got {date!r}") from None


def _placed(calendar: Calendar) -> Iterator[tuple[int, Segment]]:
    """Yield each segment with its start in minutes from the first midnight; in cycle `week` once for each weekday."""
    if calendar.cycle == "week":
        for weekday in _EVERY_DAY:
            for segment in calendar.segments:
                if weekday in segment.days:
                    yield weekday * _DAY + _minutes(segment.start), segment
        return
    stop = 0
    for segment in calendar.segments:
        start = _minutes(segment.start)
        while start < stop:
            start += _DAY
        stop = start + segment.num_minutes
        yield start, segment


def _slots_of(calendar: Calendar) -> tuple[list[int], list[Segment], list[tuple[int, int, Segment]]]:
    """Return start and segment of each slot, and all pieces: (minute, slot, segment)."""
    starts: list[int] = []
    owners: list[Segment] = []
    pieces: list[tuple[int, int, Segment]] = []
    for start, segment in _placed(calendar):
        minutes = range(start, start + segment.num_minutes)
        if segment.fold != "none":
            slot = len(starts) - (segment.fold == "previous")
            pieces += [(minute, slot, segment) for minute in minutes]
            continue
        pieces += [(minute, len(starts) + (minute - start) // segment.minutes, segment) for minute in minutes]
        new = minutes[:: segment.minutes]
        starts += new
        owners += [segment] * len(new)
    if not starts or any(not 0 <= slot < len(starts) for _, slot, _ in pieces):
        raise ConfigError(
            f"segments: expected some with slots, before and after those that fold, got {calendar.name!r}"
        )
    return starts, owners, pieces


def _lay_out(calendar: Calendar) -> Layout:
    starts, owners, pieces = _slots_of(calendar)
    weekly = calendar.cycle == "week"
    span = pieces[-1][0] + 1 - pieces[0][0]
    if span > (_WEEK if weekly else _DAY):
        raise ConfigError(
            f"segments: expected a session of at most one {calendar.cycle}, got {span} minutes from the first start to "
            "the last stop; are they in order?"
        )
    days_before = starts[-1] // _DAY if calendar.session_of == "end" else 0
    slot_of_minute = np.full(_WEEK, -1, dtype=np.int16)
    session_of_minute = np.zeros(_WEEK, dtype=np.int8)
    clock_of_minute = np.zeros(_WEEK, dtype=np.int16)
    for minute, slot, segment in pieces:
        for weekday in (0,) if weekly else segment.days:
            place = ((weekday - days_before) * _DAY + minute) % _WEEK
            if slot_of_minute[place] >= 0:
                raise ConfigError(f"segments: expected some that do not overlap; {segment.start}-{segment.stop} does")
            slot_of_minute[place] = slot
            session_of_minute[place] = days_before - minute // _DAY
            clock_of_minute[place] = minute
    on_weekday = np.array([[weekly or weekday in segment.days for segment in owners] for weekday in _EVERY_DAY])
    return Layout(
        start=np.array(starts, dtype=np.int32),
        auction=np.array([segment.kind == "auction" for segment in owners]),
        on_weekday=on_weekday,
        days_before=days_before,
        slot_of_minute=slot_of_minute,
        session_of_minute=session_of_minute,
        clock_of_minute=clock_of_minute,
    )


def _a_share(*segments: Segment, name: str) -> Calendar:
    return Calendar(name=name, time_zone="Asia/Shanghai", segments=segments)


_OPENING = Segment(start="09:25", stop="09:26", kind="auction")
_MORNING = Segment(start="09:30", stop="11:30")
_CLOSING = Segment(start="15:00", stop="15:01", kind="auction")

CALENDARS: Mapping[str, Calendar] = MappingProxyType(
    {
        "cn_a": _a_share(_OPENING, _MORNING, Segment(start="13:00", stop="14:57"), _CLOSING, name="cn_a"),
        "cn_a_240": _a_share(
            dataclasses.replace(_OPENING, fold="next"),
            _MORNING,
            Segment(start="13:00", stop="15:00"),
            dataclasses.replace(_CLOSING, fold="previous"),
            name="cn_a_240",
        ),
        "us_rth": Calendar(
            name="us_rth", time_zone="America/New_York", segments=(Segment(start="09:30", stop="16:00"),)
        ),
        "crypto_24h": Calendar(
            name="crypto_24h", segments=(Segment(start="00:00", stop="24:00", days=_EVERY_DAY),), continuous=True
        ),
        "cme_es": Calendar(
            name="cme_es",
            time_zone="America/Chicago",
            segments=(Segment(start="17:00", stop="16:00"),),
            session_of="end",
        ),
        "hour_of_week": Calendar(
            name="hour_of_week",
            segments=(Segment(start="00:00", stop="24:00", minutes=60, days=_EVERY_DAY),),
            cycle="week",
            continuous=True,
        ),
    }
)
"""Presets. Holidays and half days are not among what they know: add yours with `dataclasses.replace`."""
