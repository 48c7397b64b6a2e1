"""Any table of events to counts per slot, channel and cell: trades, trips, flights, quakes.

Rows may come in any order and in any number of pieces; what a row becomes does not depend on the others.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Int64, UInt

from gridloom.core.errors import ConfigError, DataError, did_you_mean
from gridloom.grid.events.accounting import Accounting
from gridloom.grid.events.axes import LinearAxis, PriceAxis, VolumeAxis, axis_record
from gridloom.grid.events.calendar import CALENDARS, Calendar, open_calendar
from gridloom.grid.events.counter import CellCounter
from gridloom.grid.events.locate import SlotTimes, locate, locate_local, slot_times
from gridloom.grid.events.text import NOT_A_TIME, TimeUnit, instants_of_numbers

__all__ = ["Accumulator", "EventSpec", "Raster", "rasterize"]

Axis = LinearAxis | PriceAxis | VolumeAxis
Table = Any  # a pandas DataFrame, a pyarrow Table, or a mapping of arrays


@dataclass(frozen=True, kw_only=True)
class EventSpec:
    """Which columns say when, where and what an event is, and into which bins it goes."""

    time: str
    """Column of datetimes (with a time zone: taken as such; without: the calendar's wall clock), ISO text, or whole
    numbers since 1970 in UTC."""
    x: str
    """Column that becomes the column of a cell."""
    y: str
    """Column that becomes the row of a cell."""
    channel: str | None = None
    """Column that says the channel; None: all events are of one."""
    weight: str | None = None
    """Column of numbers to sum, such as a volume; None counts events."""
    key: str | None = None
    """Column that tells events apart: of several with the same value the first one counts. None keeps duplicates."""
    calendar: Calendar = CALENDARS["crypto_24h"]
    """What slots are."""
    x_axis: Axis
    """From x to columns."""
    y_axis: Axis
    """From y to rows."""
    channels: tuple[str, ...] = ("events",)
    """Values of the channel column, in order; other values are counted as of an unknown side."""
    count_cap: int = 128
    """Larger counts are stored as this."""
    reference: float | None = None
    """Reference of a price axis."""
    time_unit: TimeUnit = "ns"
    """Of times that are numbers: s, ms, us or ns."""

    def __post_init__(self) -> None:
        if not self.channels or len(set(self.channels)) != len(self.channels):
            raise ConfigError(f"channels: expected one or more different names, got {list(self.channels)}")
        if self.channel is None and len(self.channels) > 1:
            raise ConfigError(f"channel: expected the column that says which of {list(self.channels)} an event is of")
        if self.count_cap < 1:
            raise ConfigError(f"count_cap: expected 1 or more, got {self.count_cap}")
        prices = any(isinstance(axis, PriceAxis) for axis in (self.x_axis, self.y_axis))
        if prices and self.reference is None:
            raise ConfigError("reference: a price axis needs the price that it is about")

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """Channels, rows, columns."""
        return len(self.channels), self.y_axis.size, self.x_axis.size


@dataclass(frozen=True, kw_only=True)
class Raster:
    """Counts of all slots of all sessions between the first and the last event."""

    counts: UInt[np.ndarray, "frame channel y x"]
    """Clipped at the cap."""
    times: SlotTimes
    """When the frames are."""
    accounting: Accounting
    """What became of the rows."""
    spec: EventSpec
    """How they were binned."""

    @cached_property
    def valid(self) -> Bool[np.ndarray, " frame"]:
        """Whether a slot took place, by the calendar."""
        return self.times.valid

    def to_dataset(self) -> xr.Dataset:
        """Return the frames with coordinates, as every other part of gridloom takes them."""
        from gridloom.grid.events.frames import frames_dataset

        return frames_dataset(
            self.counts,
            self.times,
            self.valid,
            calendar=self.spec.calendar,
            channels=self.spec.channels,
            attrs={
                "axes": {"x": axis_record(self.spec.x_axis), "y": axis_record(self.spec.y_axis)},
                "accounting": self.accounting.to_json(),
                "count_cap": self.spec.count_cap,
            },
        )


class Accumulator:
    """Takes tables piece by piece; memory grows with the sessions seen, not with the rows."""

    def __init__(self, spec: EventSpec) -> None:
        """Start empty."""
        self._spec = spec
        self._counters: dict[int, CellCounter] = {}
        self._accounting = Accounting()
        self._seen: set[Any] = set()

    def add(self, table: Table) -> None:
        """Take in rows.

        Raises:
            DataError: A column that is missing or cannot be read at all.
        """
        spec = self._spec
        times, local = _instants(_column(table, spec.time), spec)
        day, slot = (locate_local if local else locate)(spec.calendar, times)
        row, column, channel, weight = self._bins(table)
        # One after the other: the first that is wrong with a row counts.
        left = np.ones(len(times), dtype=bool)

        def drop(wrong: np.ndarray) -> int:
            wrong = left & wrong
            left[wrong] = False
            return int(np.count_nonzero(wrong))

        bad_weight = ~(weight >= 0) if weight is not None else np.zeros(len(times), dtype=bool)
        self._accounting += Accounting(
            rows=len(times),
            duplicates=drop(self._repeated(table)),
            bad_time=drop(times == NOT_A_TIME),
            bad_price=drop(column == _UNREADABLE),
            bad_volume=drop((row == _UNREADABLE) | bad_weight),
            out_of_session=drop(slot < 0),
            unknown_side=drop(channel < 0),
            out_of_range=drop((column < 0) | (row < 0)),
            binned=int(np.count_nonzero(left)),
        )
        _, height, width = spec.frame_shape
        cells = ((slot.astype(np.int64) * len(spec.channels) + channel) * height + row) * width + column
        for session in np.unique(day[left]):
            chosen = left & (day == session)
            counter = self._counter(int(session))
            counter.add(cells[chosen], None if weight is None else weight[chosen])

    def _counter(self, session: int) -> CellCounter:
        if session not in self._counters:
            size = self._spec.calendar.num_slots * int(np.prod(self._spec.frame_shape))
            self._counters[session] = CellCounter(size, weighted=self._spec.weight is not None)
        return self._counters[session]

    def _bins(self, table: Table) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
        spec = self._spec
        column = _bin(spec.x_axis, _numbers(table, spec.x), spec.reference)
        row = _bin(spec.y_axis, _numbers(table, spec.y), spec.reference)
        weight = None if spec.weight is None else _numbers(table, spec.weight)
        if spec.channel is None:
            return row, column, np.zeros(len(row), dtype=np.int64), weight
        import pandas

        codes, names = pandas.factorize(np.asarray(_column(table, spec.channel)), use_na_sentinel=True)
        places = {name: number for number, name in enumerate(spec.channels)}
        table_of_codes = np.array([*(places.get(str(name).strip(), -1) for name in names), -1], dtype=np.int64)
        return row, column, table_of_codes[codes], weight

    def _repeated(self, table: Table) -> np.ndarray:
        if self._spec.key is None:
            return np.zeros(len(_column(table, self._spec.time)), dtype=bool)
        keys = _column(table, self._spec.key).tolist()
        repeated = np.zeros(len(keys), dtype=bool)
        for number, key in enumerate(keys):
            repeated[number] = key in self._seen
            self._seen.add(key)
        return repeated

    def finish(self) -> Raster:
        """Return the counts.

        Raises:
            DataError: Not a single event was in a slot and on the axes.
        """
        self._accounting.check()
        if not self._counters:
            raise DataError(f"no event falls into the calendar and the axes: {self._accounting.to_json()}")
        spec = self._spec
        times = slot_times(spec.calendar, _sessions(spec.calendar, np.array(sorted(self._counters))))
        sessions = times.day[:: spec.calendar.num_slots]
        cells_per_session = spec.calendar.num_slots * int(np.prod(spec.frame_shape))
        counts = np.zeros((len(sessions), cells_per_session), dtype=np.min_scalar_type(spec.count_cap))
        saturated = lost = 0
        for session, counter in self._counters.items():
            cells, sums = counter.finish()
            sums = np.rint(sums).astype(np.int64)
            over = sums > spec.count_cap
            saturated += int(np.count_nonzero(over))
            lost += int((sums[over] - spec.count_cap).sum())
            counts[np.searchsorted(sessions, session), cells] = np.minimum(sums, spec.count_cap)
        return Raster(
            counts=counts.reshape(-1, *spec.frame_shape),
            times=times,
            accounting=self._accounting + Accounting(saturated=saturated, lost=lost),
            spec=spec,
        )


def rasterize(  # noqa: PLR0913 - each is a choice of its own, and all but the axes have a default
    table: Table,
    *,
    time: str,
    x: str,
    y: str,
    x_axis: Axis,
    y_axis: Axis,
    calendar: str | Mapping[str, Any] | Calendar = "crypto_24h",
    channel: str | None = None,
    channels: tuple[str, ...] = ("events",),
    weight: str | None = None,
    count_cap: int = 128,
    reference: float | None = None,
    drop_duplicates: str | None = None,
    time_unit: TimeUnit = "ns",
) -> Raster:
    """Bin events.

    Earthquakes by the day on a map of longitude and latitude, strong and weak ones apart:

        quakes["class"] = np.where(quakes.magnitude >= 5, "strong", "weak")
        day = Segment(start="00:00", stop="24:00", minutes=1440, days=tuple(range(7)))
        days = Calendar(name="days", segments=(day,))
        raster = rasterize(quakes, time="time", x="longitude", y="latitude", channel="class", calendar=days,
                           channels=("strong", "weak"), x_axis=LinearAxis(low=-180, high=180, size=64),
                           y_axis=LinearAxis(low=90, high=-90, size=32))

    Trips by the hour of the week, seats in place of trips:

        rasterize(trips, time="pickup", x="lon", y="lat", weight="passengers", calendar="hour_of_week", ...)

    Flights, of which each airport sees departures and arrivals:

        rasterize(flights, time="time", x="lon", y="lat", channel="kind", channels=("departures", "arrivals"), ...)

    Args:
        table: DataFrame, Arrow table, or arrays by name.
        time: See `EventSpec`, as for the others.
        x: Column that becomes the column of a cell.
        y: Column that becomes the row of a cell.
        x_axis: From x to columns.
        y_axis: From y to rows.
        calendar: Preset, file, record or calendar.
        channel: Column that says the channel.
        channels: Its values, in order.
        weight: Column of numbers to sum in place of counting.
        count_cap: Larger counts are stored as this.
        reference: Reference of a price axis.
        drop_duplicates: Column whose values tell events apart.
        time_unit: Of times that are numbers.

    Raises:
        DataError: A missing column, or not a single event to count.
        ConfigError: Settings that do not go together.
    """
    accumulator = Accumulator(
        EventSpec(
            time=time,
            x=x,
            y=y,
            channel=channel,
            weight=weight,
            key=drop_duplicates,
            calendar=open_calendar(calendar),
            x_axis=x_axis,
            y_axis=y_axis,
            channels=channels,
            count_cap=count_cap,
            reference=reference,
            time_unit=time_unit,
        )
    )
    accumulator.add(table)
    return accumulator.finish()


_UNREADABLE = -2


def _column(table: Table, name: str) -> Any:
    names = list(getattr(table, "column_names", None) or table)
    if name not in names:
        raise DataError(f"no column {name!r}{did_you_mean(name, names)} (columns: {', '.join(map(str, names))})")
    column = table[name]
    return column.to_pandas() if hasattr(column, "to_pandas") else column


def _numbers(table: Table, name: str) -> np.ndarray:
    import pandas

    column = _column(table, name)
    values = column.to_numpy() if hasattr(column, "to_numpy") else np.asarray(column)
    if values.dtype.kind in "iuf":
        return np.asarray(values)
    return np.asarray(pandas.to_numeric(pandas.Series(values), errors="coerce"), dtype=np.float64)


def _bin(axis: Axis, values: np.ndarray, reference: float | None) -> np.ndarray:
    """Bin of each value; -1 outside of the axis, `_UNREADABLE` where there is no value for it."""
    if isinstance(axis, PriceAxis):
        assert reference is not None
        bins = axis.column(values, reference).astype(np.int64)
        return np.where(bins < 0, _UNREADABLE, bins)
    if isinstance(axis, VolumeAxis):
        bins = axis.row(values).astype(np.int64)
        return np.where(bins < 0, _UNREADABLE, bins)
    bins = axis.index(values).astype(np.int64)
    return np.where(np.isnan(values), _UNREADABLE, bins)


def _instants(column: Any, spec: EventSpec) -> tuple[Int64[np.ndarray, " row"], bool]:
    """Nanoseconds since 1970, and whether they are those of the wall clock."""
    import pandas

    series = pandas.Series(column).reset_index(drop=True)
    if series.dtype.kind in "iu":
        return instants_of_numbers(series.to_numpy(), spec.time_unit), False
    if series.dtype.kind == "f":
        return instants_of_numbers(series.to_numpy(), spec.time_unit), False
    local = True
    if series.dtype.kind != "M":
        texts = series.astype("str")
        zoned = texts.str.slice(10).str.contains(r"(?:Z|[-+]\d{2}:?\d{2})$", regex=True)
        local = not bool(zoned.any())
        texts = texts.where(zoned | local, "")
        series = pandas.to_datetime(texts, errors="coerce", utc=True, format="ISO8601")
    elif getattr(series.dt, "tz", None) is not None:
        local = False
    if getattr(series.dt, "tz", None) is not None:
        series = series.dt.tz_convert("UTC").dt.tz_localize(None)
    return series.to_numpy().astype("datetime64[ns]").astype(np.int64), local


def _sessions(calendar: Calendar, seen: np.ndarray) -> np.ndarray:
    """Sessions from the first to the last seen that have slots, and those seen."""
    days = np.arange(seen[0], seen[-1] + 1, 7 if calendar.cycle == "week" else 1)
    takes_place = slot_times(calendar, days).valid.reshape(len(days), -1).any(axis=1)
    return np.union1d(days[takes_place], seen)
