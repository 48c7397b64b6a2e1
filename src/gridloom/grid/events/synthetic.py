"""Made-up A-share trade days: for tests, examples and benchmarks, never the same twice and always known.

What is in them: lots of 100 shares and odd lots, auctions without side, limit prices that are reached, an activity
that is high at both ends of the day, comes in bursts and remembers, sides that come in runs, the lunch break, halted
days and hours, and, where asked for, rows that no reader should believe, with a ledger of them. Nothing in it is a
model of a market to trade on.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import pandas as pd

from gridloom.core.errors import ConfigError
from gridloom.grid.events.calendar import CALENDARS, Calendar
from gridloom.grid.events.limits import r_max_of
from gridloom.grid.events.locate import slot_times

__all__ = ["BAD_ROWS", "TradeDays", "trade_days"]

BAD_ROWS: Mapping[str, str] = MappingProxyType(
    {
        "price_unparsable": "invalid",
        "price_not_positive": "invalid",
        "volume_unparsable": "invalid",
        "volume_negative": "invalid",
        "time_empty": "invalid",
        "time_unparsable": "invalid",
        "line_truncated": "invalid",
        "side_unknown": "unknown_side",
    }
)
"""Kinds of bad rows, and what an accounting should call them."""

_BOARDS = ("600", "000", "300", "688")
_AFTER_HOURS = (15 * 60 + 5, 1500)  # minute of the day, seconds
_AUCTION_SECONDS = 3
_DEEPER = 0.15  # share of trades one tick beyond the best price


@dataclass(frozen=True, kw_only=True)
class TradeDays:
    """Trades of some stocks over some days, and what a reader needs to know about them."""

    trades: pd.DataFrame
    """Good rows in order of date, code and time: code, date (YYYY-MM-DD), TranID, Time (HH:MM:SS, local), Price, Volume
    (shares), SaleOrderVolume, BuyOrderVolume, Type (B, S; empty in auctions), SaleOrderID, SaleOrderPrice, BuyOrderID,
    BuyOrderPrice; slot is the slot of the calendar (-1: after hours)."""
    closes: pd.DataFrame
    """code, date, close: the close BEFORE that date, that prices of the date refer to; halted days too."""
    halts: pd.DataFrame
    """code, date, start, stop (HH:MM, half-open): no trades; whole days from the first slot's start to 24:00."""
    bad: pd.DataFrame
    """code, date, row, kind: a damaged copy of a row of `trades` (its index) goes into the file right after it."""
    calendar: Calendar
    """With the half days and holidays that were kept."""

    def ledger(self) -> pd.DataFrame:
        """Count what is in each stock-day's file.

        Returns:
            One row per code and date: rows, binned, out_of_session, unknown_side, invalid, as a reader of flags with
            this calendar must find them (rows is the sum of the others), and each kind of `BAD_ROWS`.
        """
        trades = self.trades
        unknown = (trades["slot"] >= 0) & (trades["Type"] == "")
        good = pd.DataFrame(
            {
                "binned": (trades["slot"] >= 0) & ~unknown,
                "out_of_session": trades["slot"] < 0,
                "unknown_side": unknown,
                "invalid": False,
            }
        )
        by_good = [trades["code"].astype(str), trades["date"].astype(str)]
        counts = good.astype(np.int64).groupby(by_good).sum()
        kinds = pd.DataFrame({kind: (self.bad["kind"] == kind).astype(np.int64) for kind in BAD_ROWS})
        kinds = kinds.groupby([self.bad["code"], self.bad["date"]]).sum()
        counts = counts.join(kinds).fillna(0).astype(np.int64)
        for kind, column in BAD_ROWS.items():
            counts[column] += counts[kind]
        counts.insert(0, "rows", counts[["binned", "out_of_session", "unknown_side", "invalid"]].sum(axis=1))
        return counts.reset_index()


def trade_days(
    num_stocks: int = 4,
    num_days: int = 20,
    seed: int = 0,
    *,
    trades_per_day: int = 4000,
    bad_share: float = 0.0,
    halted_share: float = 0.03,
    start: str = "2024-01-02",
    calendar: Calendar = CALENDARS["cn_a"],
) -> TradeDays:
    """Make trade days.

    Args:
        num_stocks: Codes; their boards take turns: main (Shanghai, Shenzhen), ChiNext, STAR.
        num_days: Sessions from `start` on.
        seed: Other seeds give other trades; the same gives the same.
        trades_per_day: Mean of a stock-day; stocks and days differ.
        bad_share: Share of the rows of the files that are bad, all kinds alike.
        halted_share: Share of the stock-days that are halted, and, of the others, of those halted for up to an hour.
        start: First date that may be a session.
        calendar: With slots of one minute; its half days and holidays are kept.

    Raises:
        ConfigError: Numbers that make no sense.
    """
    if min(num_stocks, num_days, trades_per_day) < 1 or num_stocks > 999:
        raise ConfigError(
            "num_stocks, num_days, trades_per_day: expected 1 or more, and at most 999 stocks, got "
            f"{num_stocks}, {num_days}, {trades_per_day}"
        )
    if not 0 <= bad_share < 1 or not 0 <= halted_share < 1:
        raise ConfigError(f"bad_share, halted_share: expected shares below 1, got {bad_share}, {halted_share}")
    generator = np.random.default_rng(seed)
    codes = [f"{_BOARDS[i % len(_BOARDS)]}{i + 1:03d}" for i in range(num_stocks)]
    days, valid = _sessions(calendar, start, num_days)
    dates = [str(np.datetime64(int(day), "D")) for day in days]
    traded, halts = _halts(generator, calendar, np.broadcast_to(valid, (num_stocks, *valid.shape)), halted_share)
    counts, level = _activity(generator, calendar, traded, trades_per_day)
    pressure = _pressure(generator, counts.shape)
    after = generator.poisson(0.002 * counts.sum(axis=2)) * np.array([code[0] in "36" for code in codes])[:, None]
    after *= traded[..., -1]
    reference = np.round(np.exp(generator.normal(np.log(15), 0.8, num_stocks)) * 100).astype(np.int64)
    parts, closes = [], []
    for day, date in enumerate(dates):
        closes.append(reference)
        rates = np.array([r_max_of(code, date) for code in codes])
        path = _path(generator, level[:, day], pressure[:, day], rates)
        part, close = _one_day(
            generator, np.c_[counts[:, day], after[:, day]], path, pressure[:, day], (reference, rates), calendar
        )
        parts.append({"day": np.full(len(part["stock"]), day), **part})
        reference = np.where(counts[:, day].sum(axis=1) > 0, close, reference)
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    trades = _frame(columns, codes, dates)
    return TradeDays(
        trades=trades,
        closes=pd.DataFrame(
            {
                "code": np.tile(codes, num_days),
                "date": np.repeat(dates, num_stocks),
                "close": np.concatenate(closes) / 100,
            }
        ),
        halts=pd.DataFrame(
            [(codes[stock], dates[day], begin, end) for stock, day, begin, end in halts],
            columns=["code", "date", "start", "stop"],
        ),
        bad=_bad_rows(generator, trades, bad_share),
        calendar=calendar,
    )


def _sessions(calendar: Calendar, start: str, num_days: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first sessions that have slots, and which [day, slot]."""
    first = int(np.datetime64(start, "D").astype(np.int64))
    days = np.arange(first, first + 3 * num_days + 30)
    valid = slot_times(calendar, days).valid.reshape(len(days), calendar.num_slots)
    chosen = np.flatnonzero(valid.any(axis=1))[:num_days]
    if len(chosen) < num_days:
        raise ConfigError(f"num_days: expected {num_days} sessions after {start}, the calendar has {len(chosen)}")
    return days[chosen], valid[chosen]


def _halts(
    generator: np.random.Generator, calendar: Calendar, valid: np.ndarray, share: float
) -> tuple[np.ndarray, list[tuple[int, int, str, str]]]:
    """Return which [stock, day, slot] trade, and (stock, day, start, stop) of the halts."""
    traded = valid.copy()
    clock = [f"{minute // 60:02d}:{minute % 60:02d}" for minute in calendar.layout.start.tolist()]
    halts = []
    whole, part = (generator.random(valid.shape[:2]) < share for _ in range(2))
    begin = generator.integers(1, calendar.num_slots - 62, valid.shape[:2])
    length = generator.integers(10, 61, valid.shape[:2])
    for stock, day in np.argwhere(whole | part).tolist():
        first, last = int(begin[stock, day]), int(begin[stock, day] + length[stock, day])
        if whole[stock, day]:
            traded[stock, day] = False
            halts.append((stock, day, clock[0], "24:00"))
        else:
            traded[stock, day, first:last] = False
            halts.append((stock, day, clock[first], clock[last]))
    return traded, halts


def _activity(
    generator: np.random.Generator, calendar: Calendar, traded: np.ndarray, trades_per_day: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw trades per [stock, day, slot]: a self-exciting count, and the level above its profile."""
    stocks, days, slots = traded.shape
    auction = calendar.layout.auction
    minute = np.cumsum(~auction)
    profile = 1 + 1.5 * np.exp(-minute / 20) + np.exp(-(minute.max() - minute) / 15)
    profile /= profile[~auction].sum()
    profile[auction] = 0.01
    size = np.exp(generator.normal(0, 0.4, (stocks, 1)) + generator.normal(0, 0.3, (stocks, days)))
    mean = trades_per_day * size[..., None] * profile * traded
    counts = np.zeros(traded.shape, dtype=np.int64)
    level = np.ones(traded.shape)
    now = np.ones((stocks, days))
    for slot in range(slots):
        level[..., slot] = now
        counts[..., slot] = generator.poisson(mean[..., slot] * now)
        seen = np.divide(counts[..., slot], mean[..., slot], out=now.copy(), where=mean[..., slot] > 0)
        burst = (generator.random(now.shape) < 0.02) * generator.gamma(2.0, 0.75, now.shape)
        now = 0.05 + 0.25 * seen + 0.68 * now + burst * 0.6
    return counts, level


def _pressure(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draw the log odds of a buy for each [stock, day, slot]: they remember half an hour."""
    pressure = np.empty(shape)
    now = generator.normal(0, 0.6, shape[:2])
    for slot in range(shape[2]):
        pressure[..., slot] = now
        now = 0.97 * now + generator.normal(0, 0.15, shape[:2])
    return pressure


def _path(generator: np.random.Generator, level: np.ndarray, pressure: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """Draw the log price against the reference at the end of each [stock, slot]; one day in ten runs to its limit."""
    stocks, slots = level.shape
    change = 0.001 * np.sqrt(level) * generator.normal(size=level.shape) + 0.00015 * pressure
    change[:, 0] += generator.normal(0, 0.005, stocks)
    runs = generator.random((stocks, 1)) < 0.1
    sign = generator.choice([-1.0, 1.0], stocks, p=[0.3, 0.7])
    begin, length = generator.integers(0, slots // 2, stocks), generator.integers(5, 60, stocks)
    slot = np.arange(slots)
    running = runs & (slot >= begin[:, None]) & (slot < (begin + length)[:, None])
    change += running * (sign * 1.5 * rates / length)[:, None]
    return np.cumsum(change, axis=1)


def _one_day(
    generator: np.random.Generator,
    counts: np.ndarray,
    path: np.ndarray,
    pressure: np.ndarray,
    reference: tuple[np.ndarray, np.ndarray],
    calendar: Calendar,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Make the trades of one date, sorted by stock and time, and the closes in ticks; the last slot is after hours."""
    stocks, slots = counts.shape
    close_ticks, rates = reference
    basis_points = np.round(np.expm1(rates) * 10_000).astype(np.int64)
    low = (close_ticks * (10_000 - basis_points) + 5_000) // 10_000
    high = (close_ticks * (10_000 + basis_points) + 5_000) // 10_000
    auction: np.ndarray = np.append(calendar.layout.auction, False)
    start = np.append(calendar.layout.start, _AFTER_HOURS[0]) * 60
    seconds = np.append(np.where(auction[:-1], _AUCTION_SECONDS, 60), _AFTER_HOURS[1])

    flat = np.repeat(np.arange(stocks * slots), counts.ravel())
    second = (generator.random(flat.size) * seconds[flat % slots]).astype(np.int64)
    key = np.sort(flat * 2048 + second)
    flat, second = key // 2048, key % 2048
    stock, slot = flat // slots, flat % slots

    middle = close_ticks[:, None] * np.exp(np.c_[np.zeros(stocks), path, path[:, -1]])
    odds = np.c_[pressure, np.zeros(stocks)].copy()
    odds[middle[:, 1:] >= high[:, None]] = -4
    odds[middle[:, 1:] <= low[:, None]] = 4
    fresh = generator.random(flat.size) < 1 / (1 + np.exp(-odds[stock, slot]))
    stays = generator.random(flat.size) < 0.6
    stays &= np.diff(stock, prepend=-1) == 0
    bought = fresh[np.maximum.accumulate(np.where(stays, 0, np.arange(flat.size)))]

    share = second / seconds[slot]
    before, after = middle[stock, slot], middle[stock, slot + 1]
    bid = np.floor(before + share * (after - before)).astype(np.int64)
    deeper = generator.random(flat.size) < _DEEPER
    price = np.where(bought, bid + 1 + deeper, bid - deeper)
    single = auction[slot] | (slot == slots - 1)
    price = np.where(single, np.round(after).astype(np.int64), price)
    price = np.clip(price, low[stock], high[stock])
    part = {"stock": stock, "slot": np.where(slot == slots - 1, -1, slot), "second": start[slot] + second}
    part |= {"price": price, "bought": bought, "auction": auction[slot], "volume": _volumes(generator, bought)}
    part |= _orders(generator, stock, bought)
    return part, np.clip(np.round(middle[:, -1]).astype(np.int64), low, high)


def _volumes(generator: np.random.Generator, bought: np.ndarray) -> np.ndarray:
    """Draw shares: whole lots of 100, and among the sales a few odd lots."""
    lots = np.ceil(np.exp(generator.normal(np.log(3), 1.3, bought.size)))
    volume: np.ndarray = np.minimum(lots * 100, 1_000_000).astype(np.int64)
    odd = ~bought & (generator.random(bought.size) < 0.03)
    volume[odd] = generator.integers(1, 100, int(odd.sum()))
    return volume


def _orders(generator: np.random.Generator, stock: np.ndarray, bought: np.ndarray) -> dict[str, np.ndarray]:
    """Number trades and orders of each stock: the order that came later, with the larger number, is the aggressor."""
    begins = np.flatnonzero(np.diff(stock, prepend=-1))
    number = np.arange(stock.size) - np.repeat(begins, np.diff(begins, append=stock.size))
    later: np.ndarray = 2 * number + 1_001
    earlier = np.maximum(later - 2 * generator.geometric(0.05, stock.size), 2) // 2 * 2
    return {
        "number": number + 1,
        "buy": np.where(bought, later, earlier),
        "sell": np.where(bought, earlier, later),
        "rest": generator.integers(0, 10, (stock.size, 2)) * 100,
    }


def _frame(columns: dict[str, np.ndarray], codes: list[str], dates: list[str]) -> pd.DataFrame:
    clock = np.full(86_400, "", dtype=object)
    for second in np.flatnonzero(np.bincount(columns["second"])).tolist():
        clock[second] = f"{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}"
    side = np.array(["S", "B", ""], dtype=object)
    price, volume = columns["price"] / 100, columns["volume"]
    return pd.DataFrame(
        {
            "code": pd.Categorical.from_codes(columns["stock"], codes),
            "date": pd.Categorical.from_codes(columns["day"], dates),
            "TranID": columns["number"],
            "Time": clock[columns["second"]],
            "Price": price,
            "Volume": volume,
            "SaleOrderVolume": volume + columns["rest"][:, 0],
            "BuyOrderVolume": volume + columns["rest"][:, 1],
            "Type": side[np.where(columns["auction"], 2, columns["bought"])],
            "SaleOrderID": columns["sell"],
            "SaleOrderPrice": price,
            "BuyOrderID": columns["buy"],
            "BuyOrderPrice": price,
            "slot": columns["slot"].astype(np.int16),
        }
    )


def _bad_rows(generator: np.random.Generator, trades: pd.DataFrame, share: float) -> pd.DataFrame:
    """Choose which rows get a damaged copy, among those that would be binned, so that each is bad in one way alone."""
    good = np.flatnonzero((trades["slot"] >= 0) & (trades["Type"] != ""))
    number = min(round(share / (1 - share) * len(trades)), len(good))
    rows = np.sort(generator.choice(good, number, replace=False))
    kinds = np.array(list(BAD_ROWS), dtype=object)[generator.permutation(np.arange(number) % len(BAD_ROWS))]
    return pd.DataFrame(
        {
            "code": trades["code"].astype(str).to_numpy()[rows],
            "date": trades["date"].astype(str).to_numpy()[rows],
            "row": rows,
            "kind": kinds,
        }
    )
