"""Small tables beside the trades: reference prices, halts."""

import csv
import datetime
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gridloom.core.errors import DataError, did_you_mean
from gridloom.grid.events.trades import Prices

__all__ = ["Halt", "read_halts", "read_references"]

_CLOSES = ("close", "pref", "reference", "prev_close", "pre_close")


@dataclass(frozen=True, kw_only=True)
class Halt:
    """A stretch of a day in which an instrument was not traded."""

    code: str
    day: int
    """Days since 1970-01-01."""
    start: int
    """Minutes of the wall clock since the day's midnight, the first that is halted."""
    stop: int
    """The first that is not."""


def _rows(path: Path, names: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield place and fields of each row, by lower-case name."""
    if not path.is_file():
        raise DataError(f"{path}: expected a CSV table with {', '.join(names)}, there is no such file")
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        header = [field.strip().casefold() for field in next(reader, [])]
        for name in names:
            if name not in header:
                near = did_you_mean(name, header)
                raise DataError(f"{path}: expected a column {name!r}{near}, got {', '.join(header) or 'nothing'}")
        for line, row in enumerate(reader, start=2):
            if row:
                fields = dict(zip(header, (field.strip() for field in row), strict=False))
                if any(name not in fields for name in names):
                    raise DataError(f"{path}:{line}: expected {len(header)} fields, got {len(row)}")
                yield f"{path}:{line}", fields


def _day(text: str, where: str) -> int:
    try:
        return datetime.date.fromisoformat(text).toordinal() - datetime.date(1970, 1, 1).toordinal()
    except ValueError:
        raise DataError(f"{where}: expected a date such as 2024-01-31, got {text!r}") from None


def read_references(path: Path | str) -> Prices:
    """Read reference prices from CSV: code, date, close (or pref, reference, prev_close).

    Args:
        path: One row per stock and session; the price is the close of the session BEFORE that date.

    Raises:
        DataError: Not there, a column that is missing, a row that makes no sense; the message names the line.
    """
    path = Path(path)
    price_column = _CLOSES[0]
    if path.is_file():
        with path.open(encoding="utf-8-sig") as file:
            header = [field.strip().casefold() for field in file.readline().split(",")]
        price_column = next((name for name in _CLOSES if name in header), price_column)
    prices = {}
    days: dict[str, int] = {}
    for where, row in _rows(path, ("code", "date", price_column)):
        date = row["date"]
        if date not in days:
            days[date] = _day(date, where)
        try:
            price = float(row[price_column])
        except ValueError:
            price = math.nan
        if not 0 < price < math.inf:
            raise DataError(f"{where}: expected a price above 0, got {row[price_column]!r}")
        prices[row["code"], days[date]] = price
    return prices


def read_halts(path: Path | str) -> tuple[Halt, ...]:
    """Read halts from CSV: code, date, start, stop (HH:MM on the calendar's wall clock, half-open, stop up to 24:00).

    Raises:
        DataError: Not there, a column that is missing, a row that makes no sense; the message names the line.
    """
    halts = []
    for where, row in _rows(Path(path), ("code", "date", "start", "stop")):
        start, stop = (_minute(row[name], where) for name in ("start", "stop"))
        halts.append(Halt(code=row["code"], day=_day(row["date"], where), start=start, stop=stop))
    return tuple(halts)


def _minute(text: str, where: str) -> int:
    hour, _, minute = text.partition(":")
    if not (hour.isdigit() and minute.isdigit() and int(hour) * 60 + int(minute) <= 1440 and int(minute) < 60):
        raise DataError(f"{where}: expected a time of day such as 13:00, got {text!r}")
    return int(hour) * 60 + int(minute)
