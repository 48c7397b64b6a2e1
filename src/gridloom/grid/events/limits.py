"""How far a price may move in a day, by board and date. The table is an ordinary tuple: edit it, or read your own.

Not in it: the first days of a listing, which have other limits or none. Where that matters add an entry for the code
with a large rate and `until`. Rules of boards change; check them against the exchanges' own pages for your dates.
"""

import csv
import datetime
import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gridloom.core.config import from_dict, load_yaml
from gridloom.core.errors import ConfigError, DataError

__all__ = ["A_SHARE_LIMITS", "Limit", "Limits", "r_max_of", "read_limits"]


def _date(value: str | datetime.date, name: str) -> datetime.date:
    try:
        return value if isinstance(value, datetime.date) else datetime.date.fromisoformat(value)
    except ValueError:
        raise ConfigError(f"{name}: expected a date such as 2024-01-31, got {value!r}") from None


@dataclass(frozen=True, kw_only=True)
class Limit:
    """The limit of a board, or of one code, from a date on."""

    board: str
    """For people."""
    prefixes: tuple[str, ...]
    """Codes that begin with one of these; the longest that fits wins."""
    since: str = "1990-12-19"
    """First date, YYYY-MM-DD."""
    until: str = "9999-12-31"
    """Last date."""
    rate: float
    """Largest change from the reference price: 0.1 is 10 %."""
    special_treatment: bool = False
    """For ST stocks only."""

    def __post_init__(self) -> None:
        if not self.prefixes or not all(prefix.isdigit() for prefix in self.prefixes):
            raise ConfigError(f"prefixes: expected beginnings of codes such as 688, got {list(self.prefixes)}")
        if not 0 < self.rate < math.inf:
            raise ConfigError(f"rate: expected a share above 0 such as 0.1, got {self.rate}")
        for name, text in (("since", self.since), ("until", self.until)):
            _date(text, name)

    @property
    def r_max(self) -> float:
        """The rate as a log ratio."""
        return math.log(1 + self.rate)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """A table of limits, as a file holds it."""

    limits: tuple[Limit, ...]


_MAIN = ("000", "001", "002", "003", "200", "600", "601", "603", "605", "900")
_CHINEXT = ("30",)
_BEIJING = ("4", "8", "92")

A_SHARE_LIMITS: tuple[Limit, ...] = (
    Limit(board="main", prefixes=_MAIN, rate=0.1),
    Limit(board="main ST", prefixes=_MAIN, rate=0.05, special_treatment=True),
    Limit(board="ChiNext", prefixes=_CHINEXT, since="2009-10-30", until="2020-08-23", rate=0.1),
    Limit(board="ChiNext ST", prefixes=_CHINEXT, until="2020-08-23", rate=0.05, special_treatment=True),
    Limit(board="ChiNext", prefixes=_CHINEXT, since="2020-08-24", rate=0.2),
    Limit(board="STAR", prefixes=("688", "689"), since="2019-07-22", rate=0.2),
    Limit(board="Beijing", prefixes=_BEIJING, since="2021-11-15", rate=0.3),
)
"""Shanghai, Shenzhen and Beijing. ST stocks of STAR, Beijing and today's ChiNext have the limit of their board."""


def r_max_of(
    code: str,
    date: str | datetime.date,
    limits: Sequence[Limit] = A_SHARE_LIMITS,
    *,
    special_treatment: bool = False,
) -> float:
    """Return the largest log ratio of a price to its reference on a date.

    Args:
        code: Six digits, with or without the exchange (`600000`, `600000.SH`, `sh600000`).
        date: Of the session.
        limits: The table.
        special_treatment: Whether the stock is an ST stock that day.

    Raises:
        ConfigError: A date that is none.
    """
    digits = re.search(r"\d{6}", code)
    number = digits.group() if digits else ""
    day = _date(date, "date")
    fitting = [
        (limit.special_treatment, len(prefix), limit)
        for limit in limits
        for prefix in limit.prefixes
        if number.startswith(prefix)
        and _date(limit.since, "since") <= day <= _date(limit.until, "until")
        and limit.special_treatment <= special_treatment
    ]
    if fitting:
        return max(fitting, key=lambda item: item[:2])[2].r_max
    warnings.warn(
        f"no price limit for codes {number[:3] or code[:3]!r}... on their dates: taking 10 %, as on the main board; "
        "add a line to the table of limits",
        stacklevel=2,
    )
    return math.log(1.1)


def read_limits(path: Path | str) -> tuple[Limit, ...]:
    """Read a table of limits from CSV or YAML.

    CSV has the columns board, prefixes (separated by blanks), rate, and, where wanted, since, until and
    special_treatment (true or false). YAML has the same under `limits:`, with a list of prefixes.

    Raises:
        DataError: No such file, or a line of it that cannot be read.
        ConfigError: A value that makes no sense.
    """
    path = Path(path)
    if path.suffix != ".csv":
        return from_dict(Limits, load_yaml(path), where=str(path)).limits
    if not path.is_file():
        raise DataError(f"{path}: expected a table of limits, there is no such file")
    with path.open(newline="", encoding="utf-8-sig") as file:
        return tuple(_from_row(row, f"{path}:{line}") for line, row in enumerate(csv.DictReader(file), start=2))


def _from_row(row: dict[str, str], where: str) -> Limit:
    content: dict[str, object] = {name: text.strip() for name, text in row.items() if name and text and text.strip()}
    content["prefixes"] = str(content.get("prefixes", "")).split()
    try:
        content["rate"] = float(str(content.get("rate", "")))
    except ValueError:
        raise DataError(f"{where}: expected a rate such as 0.1, got {row.get('rate')!r}") from None
    if "special_treatment" in content:
        content["special_treatment"] = str(content["special_treatment"]).lower() in ("true", "1", "yes")
    return from_dict(Limit, content, where=where)
