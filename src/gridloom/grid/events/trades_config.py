"""How trades become heatmaps, and what a path says about them."""

import datetime
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from gridloom.core.errors import ConfigError
from gridloom.grid.events.axes import PriceAxis, VolumeAxis
from gridloom.grid.events.batch import Reading
from gridloom.grid.events.calendar import Calendar
from gridloom.grid.events.limits import A_SHARE_LIMITS, Limit, read_limits
from gridloom.grid.events.read import STANDARD_COLUMNS
from gridloom.grid.events.text import TimeKind, TimeUnit

__all__ = ["TradesConfig", "code_of", "date_of"]

_DATE = re.compile(r"(?<!\d)(\d{4})-?(\d{2})-?(\d{2})(?!\d)")


@dataclass(frozen=True, kw_only=True)
class TradesConfig:
    """How trades become heatmaps. The defaults are those of the A-share heatmaps."""

    time: str = "Time"
    """Column: HH:MM:SS with or without fraction, ISO dates and times, datetimes, or whole numbers (`time_unit`)."""
    price: str = "Price"
    """Column."""
    volume: str = "Volume"
    """Column."""
    side: Literal["flag", "tick_rule", "order_id"] = "flag"
    """`flag`: column `side_column`. `tick_rule`: by the last change of price, in the order of the file. `order_id`: the
    larger number of the two orders is the aggressor's."""
    side_column: str = "Type"
    """Column of flags."""
    buy: str = "B"
    """Flag of a trade that the buyer started."""
    sell: str = "S"
    """Flag of a trade that the seller started."""
    buy_order: str = "BuyOrderID"
    """Column, for `order_id`."""
    sell_order: str = "SaleOrderID"
    """Column, for `order_id`."""
    code_column: str | None = None
    """Column of instruments; None: the file's name is the code."""
    key: str | None = None
    """Column that tells trades apart: of several with the same value the first one counts. None keeps duplicates."""
    columns: tuple[str, ...] = STANDARD_COLUMNS
    """Columns of text files without a header."""
    time_kind: TimeKind | None = None
    """`clock`, `local`, `utc` or `number`; None: as the first one is written."""
    time_unit: TimeUnit = "s"
    """Of times that are numbers."""
    date: str | None = None
    """YYYY-MM-DD of times of day; None: from the path."""
    calendar: str | Calendar = "cn_a"
    """Preset, file or record."""
    price_axis: PriceAxis = field(default_factory=PriceAxis)
    """Columns."""
    volume_axis: VolumeAxis = field(default_factory=VolumeAxis)
    """Rows."""
    count_cap: int = 128
    """Larger counts are stored as this."""
    value: Literal["count", "volume", "notional"] = "count"
    """What is summed in a cell."""
    value_unit: float = 1.0
    """Sums are divided by this and rounded, such as lots of 100 shares for `volume`."""
    references: Path | None = None
    """CSV with code, date, close: the close before that date."""
    allow_first_price: bool = False
    """Take the first price of a stock-day where the table has none."""
    limits: str = "auto"
    """Price limits by board, which replace r_max: `a_share`, `none`, a CSV or YAML file, or `auto`: `a_share` for
    calendars in Asia/Shanghai, else `none`."""
    halts: Path | None = None
    """CSV with code, date, start, stop (HH:MM): slots that did not happen."""
    pixel_scale: bool = True
    """Pixels are log1p(count) / log1p(count_cap) when they are read; else count / count_cap. Counts are stored."""

    def __post_init__(self) -> None:
        if self.count_cap < 1 or not self.value_unit > 0:
            raise ConfigError(
                f"count_cap, value_unit: expected 1 or more, and above 0, got {self.count_cap} and {self.value_unit}"
            )
        if self.date is not None and date_of(Path(self.date)) is None:
            raise ConfigError(f"date: expected YYYY-MM-DD, got {self.date!r}")

    @property
    def roles(self) -> dict[str, str]:
        """What for -> column."""
        roles = {"time": self.time, "price": self.price, "volume": self.volume}
        if self.side == "flag":
            roles["side"] = self.side_column
        elif self.side == "order_id":
            roles |= {"buy_id": self.buy_order, "sell_id": self.sell_order}
        if self.code_column is not None:
            roles["code"] = self.code_column
        if self.key is not None:
            roles["key"] = self.key
        return roles

    @property
    def reading(self) -> Reading:
        """How values are written."""
        return Reading(kind=self.time_kind, unit=self.time_unit, buy=self.buy, sell=self.sell)

    def open_limits(self, calendar: Calendar) -> tuple[Limit, ...] | None:
        """Return the table of price limits; None: the price axis has its own."""
        if self.limits == "none" or (self.limits == "auto" and calendar.time_zone != "Asia/Shanghai"):
            return None
        return A_SHARE_LIMITS if self.limits in ("auto", "a_share") else read_limits(self.limits)


def date_of(path: Path) -> int | None:
    """Return the last date (YYYY-MM-DD or YYYYMMDD) in a path, as days since 1970-01-01."""
    for year, month, day in reversed(_DATE.findall(str(path))):
        try:
            date = datetime.date(int(year), int(month), int(day))
        except ValueError:
            continue
        if 1900 <= date.year <= 2200:
            return date.toordinal() - datetime.date(1970, 1, 1).toordinal()
    return None


def code_of(path: Path) -> str:
    """Return the file's name without its ending, and without a date in it."""
    stem = path.name.split(".")[0] if path.name.endswith((".csv.gz", ".tsv.gz", ".txt.gz")) else path.stem
    return _DATE.sub("", stem).strip("-_. ") or stem
