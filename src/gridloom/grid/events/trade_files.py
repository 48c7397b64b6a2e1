"""Made-up trade days as files: one CSV a stock-day, bad rows and all."""

from pathlib import Path

import numpy as np
import pandas as pd

from gridloom.grid.events.read import STANDARD_COLUMNS
from gridloom.grid.events.synthetic import TradeDays

__all__ = ["write_trade_days"]

_DAMAGE = {
    "price_unparsable": ("Price", ("", "n/a", "12..3")),
    "price_not_positive": ("Price", ("0.00", "-10.31")),
    "volume_unparsable": ("Volume", ("", "many")),
    "volume_negative": ("Volume", ("-100",)),
    "time_empty": ("Time", ("",)),
    "time_unparsable": ("Time", ("25:61:00", "noon")),
    "side_unknown": ("Type", ("X", "BS")),
}


def write_trade_days(days: TradeDays, folder: Path | str, *, iso_times: bool = False) -> list[Path]:
    """Write `FOLDER/YYYY-MM-DD/CODE.csv` for each stock-day that has trades, with a header and its bad rows.

    Args:
        days: From `trade_days`; what a reader must find in each file is `days.ledger()`.
        folder: Made where it is not there.
        iso_times: Write 2024-01-02T09:30:05 (local) in place of 09:30:05.

    Returns:
        The files, in order.
    """
    trades = days.trades
    files = []
    for (date, code), part in trades.groupby(["date", "code"], observed=True, sort=True):
        path = Path(folder) / str(date) / f"{code}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        prefix = f"{date}T" if iso_times else ""
        lines = _lines(part, prefix)
        bad = days.bad[(days.bad["code"] == code) & (days.bad["date"] == date)]
        path.write_text(
            "\n".join([",".join(STANDARD_COLUMNS), *_with_bad_rows(lines, part, bad), ""]), encoding="utf-8"
        )
        files.append(path)
    return files


def _lines(part: pd.DataFrame, prefix: str) -> list[str]:
    columns = []
    for name in STANDARD_COLUMNS:
        values = part[name].tolist()
        if name.endswith("Price"):
            columns.append([f"{value:.2f}" for value in values])
        elif name == "Time":
            columns.append([prefix + value for value in values])
        else:
            columns.append([str(value) for value in values])
    return [",".join(row) for row in zip(*columns, strict=True)]


def _with_bad_rows(lines: list[str], part: pd.DataFrame, bad: pd.DataFrame) -> list[str]:
    """Put a damaged copy after each row that the table names."""
    if bad.empty:
        return lines
    places = np.searchsorted(part.index.to_numpy(), bad["row"].to_numpy())
    after = dict(zip(places.tolist(), bad["kind"].tolist(), strict=True))
    result = []
    for place, line in enumerate(lines):
        result.append(line)
        if place in after:
            result.append(_damaged(line, after[place], place))
    return result


def _damaged(line: str, kind: str, place: int) -> str:
    fields = line.split(",")
    if kind == "line_truncated":
        return ",".join(fields[: 1 + place % 3])
    name, texts = _DAMAGE[kind]
    fields[STANDARD_COLUMNS.index(name)] = texts[place % len(texts)]
    return ",".join(fields)
