"""One file of trades to heatmaps: which cell each trade falls into, and what became of every row."""

import datetime
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Int16, Int32, Int64

from gridloom.core.errors import DataError, GridloomError
from gridloom.grid.events.accounting import Accounting
from gridloom.grid.events.batch import Batch
from gridloom.grid.events.calendar import Calendar, open_calendar
from gridloom.grid.events.counter import CellCounter
from gridloom.grid.events.limits import Limit, r_max_of
from gridloom.grid.events.locate import locate, locate_local
from gridloom.grid.events.read import read_batches
from gridloom.grid.events.side import TickState, tick_rule
from gridloom.grid.events.text import NOT_A_TIME
from gridloom.grid.events.trades_config import TradesConfig, code_of, date_of

__all__ = ["FileResult", "Prices", "StockDay", "rasterize_trades"]

_SECOND = 1_000_000_000
_DAY = 86_400

Prices = Mapping[tuple[str, int], float]
"""(code, days since 1970-01-01) -> reference price."""


@dataclass(frozen=True, kw_only=True)
class StockDay:
    """Counts of one instrument in one session, without zeros."""

    code: str
    day: int
    """Days since 1970-01-01."""
    reference: float
    r_max: float
    cells: Int64[np.ndarray, " cell"]
    """Index into the flattened [slot, channel, y, x], rising."""
    counts: Int64[np.ndarray, " cell"]
    """Not clipped yet."""


@dataclass(frozen=True, kw_only=True)
class FileResult:
    """What became of a file."""

    status: Literal["ok", "skipped", "error"]
    reason: str = ""
    """Why it was skipped, or what is wrong with it."""
    accounting: Accounting = field(default_factory=Accounting)
    days: tuple[StockDay, ...] = ()


@lru_cache(maxsize=8)
def _slots_of_day(record: str, day: int) -> tuple[Int16[np.ndarray, " second"], Int32[np.ndarray, " second"]]:
    """Slot and session of each second of a local day; one more at the end, for -1, that is none."""
    seconds = (day * _DAY + np.arange(_DAY, dtype=np.int64)) * _SECOND
    session, slot = locate_local(Calendar.from_json(record), seconds)
    return np.append(slot, np.int16(-1)), np.append(session, np.int32(day))


def rasterize_trades(
    path: Path | str,
    config: TradesConfig,
    prices: Prices,
    *,
    calendar: Calendar | None = None,
    limits: Sequence[Limit] | None = None,
    where: str | None = None,
) -> FileResult:
    """Bin the trades of one file.

    Args:
        path: CSV or Parquet.
        config: How.
        prices: Reference prices.
        calendar: That of the configuration, opened.
        limits: Those of the configuration, opened.
        where: Path that code and date are taken from, if not `path`.

    Returns:
        Sparse counts, or why there are none. Errors of the file are in the result, not raised.
    """
    place = Path(where if where is not None else path)
    calendar = calendar or open_calendar(config.calendar)
    raster = _TradeRaster(config, calendar, limits, prices, place)
    try:
        for batch in read_batches(path, config.roles, config.reading, names=config.columns):
            raster.add(batch)
    except (GridloomError, OSError) as error:
        return FileResult(status="error", reason=" ".join(str(error).split()))
    return raster.finish()


class _StockDayCounter:
    """Cells of one instrument in one session."""

    def __init__(self, config: TradesConfig, calendar: Calendar, reference: float, r_max: float | None) -> None:
        self.reference = reference
        self.axis = config.price_axis if r_max is None else replace(config.price_axis, r_max=r_max)
        self._volumes = config.volume_axis
        self._on_cents = self.axis.tick == 0.01
        self._value = config.value
        num_cells = calendar.num_slots * 2 * config.volume_axis.size * self.axis.size
        # int32 wherever it is enough: half the memory to go through
        self._index = np.dtype(np.int32 if num_cells < 2**31 else np.int64)
        self.counter = CellCounter(num_cells, weighted=config.value != "count")

    def add(self, slot: np.ndarray, side: np.ndarray, price: np.ndarray, volume: np.ndarray, chosen: Any) -> None:
        """Count the chosen rows."""
        cells = slot.astype(self._index)
        cells *= 2
        cells += side < 0
        cells *= self._volumes.size
        cells += self._volumes.row(volume)
        cells *= self.axis.size
        cells += self._columns(price)
        weight = None
        if self._value != "count":
            money = price / 100 if price.dtype.kind == "i" else price
            weight = (volume if self._value == "volume" else volume * money)[chosen]
        self.counter.add(cells[chosen], weight)

    def _columns(self, price: np.ndarray) -> np.ndarray:
        if price.dtype.kind == "i" and self._on_cents:
            first, table = self.axis.table(self.reference)
            return table.take(price - first, mode="clip")
        return self.axis.column(price / 100 if price.dtype.kind == "i" else price, self.reference)


class _TradeRaster:
    """The trades of one file."""

    def __init__(
        self,
        config: TradesConfig,
        calendar: Calendar,
        limits: Sequence[Limit] | None,
        prices: Prices,
        place: Path,
    ) -> None:
        self._config, self._calendar, self._prices, self._place = config, calendar, prices, place
        self._limits = limits
        self._date = date_of(Path(config.date)) if config.date is not None else date_of(place)
        self._record = calendar.to_json()
        self._code = code_of(place)
        self._days: dict[tuple[str, int], _StockDayCounter | None] = {}
        self._ticks: dict[str, TickState | None] = {}
        self._seen: set[Any] = set()
        self._accounting = Accounting()

    def add(self, batch: Batch) -> None:
        """Take in a batch."""
        slot, session, readable = self._slots(batch)
        price, volume = batch.price, batch.volume
        duplicate = self._duplicates(batch)
        usable = (price > 0) & (volume >= 0)
        if price.dtype.kind == "f":
            usable &= price < math.inf
        if readable is not None:
            usable &= readable
        if duplicate is not None:
            usable &= ~duplicate
        good = usable & (slot >= 0)
        num_usable = int(np.count_nonzero(usable))
        outside = num_usable - int(np.count_nonzero(good))
        found = Accounting(rows=batch.num_rows, malformed=batch.malformed, out_of_session=outside)
        if num_usable < len(usable):
            found += self._faults(batch, usable, duplicate, readable)
        groups = [(self._code, session, good)] if isinstance(session, int) and batch.code is None else None
        for code, day, chosen in groups if groups is not None else self._groups(batch, session, good):
            found += self._add_group((code, day), batch, slot, chosen)
        self._accounting += found

    def _slots(self, batch: Batch) -> tuple[np.ndarray, int | np.ndarray, np.ndarray | None]:
        """Slot and session (one for all where that is so) of each row, and which times are readable (None: all)."""
        if batch.seconds is None:
            assert batch.instants is not None
            session, slot = (locate_local if batch.local else locate)(self._calendar, batch.instants)
            readable = batch.instants != NOT_A_TIME
            good = session[slot >= 0]
            same = good.size > 0 and bool((good == good[0]).all())
            return slot, int(good[0]) if same else session, None if readable.all() else readable
        if self._date is None:
            raise DataError(
                f"{self._place}: times of day without a date; expected one in the path (2024-01-31 or 20240131), or "
                "the setting 'date'"
            )
        slots, sessions = _slots_of_day(self._record, self._date)
        slot = slots.take(batch.seconds)
        of_slots = sessions[slots >= 0]
        if of_slots.size and (of_slots == of_slots[0]).all():
            day: int | np.ndarray = int(of_slots[0])
        else:
            day = sessions.take(batch.seconds) if of_slots.size else self._date
        return slot, day, None if batch.seconds.min(initial=0) >= 0 else batch.seconds >= 0

    def _faults(
        self, batch: Batch, usable: np.ndarray, duplicate: np.ndarray | None, readable: np.ndarray | None
    ) -> Accounting:
        """Count rows that cannot be used by the first thing that is wrong with them."""
        wrong = np.flatnonzero(~usable)
        left = np.ones(len(wrong), dtype=bool)

        def drop(mask: np.ndarray) -> int:
            mask = left & mask
            left[mask] = False
            return int(np.count_nonzero(mask))

        price = batch.price[wrong]
        return Accounting(
            duplicates=drop(duplicate[wrong]) if duplicate is not None else 0,
            bad_time=drop(~readable[wrong]) if readable is not None else 0,
            bad_price=drop(~((price > 0) & (price < math.inf))),
            bad_volume=int(np.count_nonzero(left)),
        )

    def _duplicates(self, batch: Batch) -> np.ndarray | None:
        if batch.key is None:
            return None
        repeated = np.zeros(len(batch.key), dtype=bool)
        for number, key in enumerate(batch.key.tolist()):
            repeated[number] = key in self._seen
            self._seen.add(key)
        return repeated

    def _groups(self, batch: Batch, session: int | np.ndarray, good: np.ndarray) -> Iterable[tuple[str, int, Any]]:
        """Rows of each instrument and session, in the order of the file."""
        rows = np.flatnonzero(good)
        days = np.full(len(rows), session) if isinstance(session, int) else session[rows]
        codes = np.zeros(len(rows), dtype=np.int64) if batch.code is None else batch.code[rows].astype(np.int64)
        names = (self._code,) if batch.code is None else batch.codes
        key = codes * 2**32 + days
        order = np.argsort(key, kind="stable")
        begins = np.flatnonzero(np.diff(key[order], prepend=-(2**62)))
        for first, last in zip(begins, np.append(begins[1:], len(rows)), strict=True):
            chosen = rows[order[first:last]]
            yield names[int(codes[order[first]])], int(days[order[first]]), chosen

    def _add_group(self, name: tuple[str, int], batch: Batch, slot: np.ndarray, chosen: np.ndarray) -> Accounting:
        """Count the chosen rows (a mask for all of the batch, or their numbers) of one instrument and session."""
        whole = chosen.dtype == bool
        price, volume = batch.price, batch.volume
        number = int(np.count_nonzero(chosen)) if whole else len(chosen)
        if number == 0:
            return Accounting()
        if not whole:
            price, volume, slot = price[chosen], volume[chosen], slot[chosen]
        if name not in self._days:
            self._days[name] = self._open_day(*name, price[chosen] if whole else price)
        counter = self._days[name]
        side = self._sides(name[0], batch, price, chosen)
        if counter is None:
            return Accounting(no_reference=number)
        known = side != 0
        if whole:
            known &= chosen
        binned = int(np.count_nonzero(known))
        counter.add(slot, side, price, volume, known)
        return Accounting(binned=binned, unknown_side=number - binned)

    def _sides(self, code: str, batch: Batch, price: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        whole = chosen.dtype == bool
        if batch.side is not None:
            return batch.side if whole else batch.side[chosen]
        values = price / 100 if price.dtype.kind == "i" else price
        if whole:
            values = np.where(chosen, values, np.nan)
        side, self._ticks[code] = tick_rule(values, self._ticks.get(code))
        return side

    def _open_day(self, code: str, day: int, price: np.ndarray) -> _StockDayCounter | None:
        reference = self._prices.get((code, day))
        if reference is None and self._config.allow_first_price:
            reference = float(price[0]) / (100 if price.dtype.kind == "i" else 1)
        if reference is None:
            return None
        r_max = None
        if self._limits is not None:
            date = datetime.date.fromordinal(datetime.date(1970, 1, 1).toordinal() + day)
            r_max = r_max_of(code, date, self._limits)
        return _StockDayCounter(self._config, self._calendar, reference, r_max)

    def finish(self) -> FileResult:
        """Return the counts, or why there are none."""
        accounting = self._accounting
        days = []
        cap = self._config.count_cap
        for (code, day), counter in sorted(self._days.items()):
            if counter is None:
                continue
            cells, sums = counter.counter.finish()
            if self._config.value != "count":
                sums = np.rint(sums / self._config.value_unit).astype(np.int64)
            over = sums[sums > cap]
            accounting += Accounting(saturated=len(over), lost=int(over.sum()) - cap * len(over))
            days.append(
                StockDay(
                    code=code,
                    day=day,
                    reference=counter.reference,
                    r_max=counter.axis.r_max,
                    cells=cells,
                    counts=sums,
                )
            )
        accounting.check()
        if days:
            return FileResult(status="ok", accounting=accounting, days=tuple(days))
        if self._days:
            names = sorted({code for code, _ in self._days})
            reason = f"no reference price for {', '.join(names[:3])} on its date"
        else:
            reason = "no rows in session" if accounting.rows else "no rows"
        return FileResult(status="skipped", reason=reason, accounting=accounting)
