"""Made-up trade days: the same for a seed, what they say they have, and a ledger that counts every row."""

import csv
import dataclasses
import math

import numpy as np
import pandas as pd
import pytest

from gridloom.core.errors import ConfigError
from gridloom.grid.events import (
    BAD_ROWS,
    CALENDARS,
    locate_local,
    r_max_of,
    side_from_orders,
    trade_days,
    write_trade_days,
)


@pytest.fixture(scope="module")
def days():
    return trade_days(8, 25, seed=3, trades_per_day=400, halted_share=0.1)


@pytest.fixture(scope="module")
def counts(days):
    """Trades [stock-day, slot]."""
    trades = days.trades[days.trades["slot"] >= 0]
    table = trades.groupby(["code", "date", "slot"], observed=True).size().unstack(fill_value=0)
    return table.reindex(columns=range(239), fill_value=0).to_numpy().astype(float)


def test_a_seed_gives_the_same_trades_and_another_gives_others():
    one, same, other = (trade_days(2, 2, seed, trades_per_day=300, bad_share=0.1) for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(one.trades, same.trades)
    pd.testing.assert_frame_equal(one.bad, same.bad)
    assert not one.trades["Price"].equals(other.trades["Price"])


def test_times_lie_in_the_slots_they_say_and_rise(days):
    trades = days.trades
    local = (trades["date"].astype(str) + "T" + trades["Time"]).to_numpy(dtype="datetime64[ns]")
    _, slot = locate_local(days.calendar, local)
    np.testing.assert_array_equal(slot, trades["slot"])
    assert trades.groupby(["code", "date"], observed=True)["Time"].apply(lambda x: x.is_monotonic_increasing).all()
    assert 0 < (slot < 0).mean() < 0.01


def test_prices_keep_to_ticks_and_limits_and_reach_them(days):
    trades = days.trades.astype({"code": str, "date": str}).merge(days.closes, on=["code", "date"])
    cents = np.rint(trades["Price"] * 100).astype(np.int64)
    np.testing.assert_array_equal(cents / 100, trades["Price"])
    rate = trades["code"].map(
        {code: round(math.expm1(r_max_of(code, "2024-01-02")) * 100) * 100 for code in set(trades["code"])}
    )
    close = np.rint(trades["close"] * 100).astype(np.int64)
    high, low = ((close * (10_000 + sign * rate) + 5_000) // 10_000 for sign in (1, -1))
    assert (cents <= high).all() and (cents >= low).all()
    assert (cents == high).any() and (cents == low).any()


def test_the_close_before_is_the_last_price_of_the_day_before(days):
    closes = days.closes.pivot(index="date", columns="code", values="close")
    in_session = days.trades[days.trades["slot"] == 238]
    last = in_session.groupby(["date", "code"], observed=True)["Price"].last().unstack()
    last = last.reindex(index=closes.index, columns=closes.columns)
    following = closes.shift(-1).where(last.notna())
    np.testing.assert_array_equal(following.iloc[:-1], last.iloc[:-1])


def test_volumes_are_lots_and_a_few_odd_lots_are_sold(days):
    odd = days.trades["Volume"] % 100 > 0
    assert 0.002 < odd.mean() < 0.03
    assert (days.trades["Type"][odd] != "B").all() and (days.trades["Volume"] > 0).all()


def test_auctions_have_no_side_and_orders_know_it_everywhere_else(days):
    trades = days.trades
    auction = trades["slot"].isin([0, 238])
    assert (trades["Type"][auction] == "").all() and trades["Type"][~auction].isin(["B", "S"]).all()
    side = side_from_orders(trades["BuyOrderID"].to_numpy(), trades["SaleOrderID"].to_numpy())
    np.testing.assert_array_equal(np.where(side > 0, "B", "S")[~auction], trades["Type"][~auction])
    one_price = trades[auction].groupby(["code", "date", "slot"], observed=True)["Price"].nunique()
    assert (one_price == 1).all()


def test_halted_days_have_no_trades_and_halted_hours_none_within(days):
    trades = days.trades
    whole = days.halts[days.halts["stop"] == "24:00"]
    part = days.halts[days.halts["stop"] != "24:00"]
    assert len(whole) > 5 and len(part) > 5
    keys = set(zip(trades["code"].astype(str), trades["date"].astype(str), strict=True))
    assert not keys & set(zip(whole["code"], whole["date"], strict=True))
    assert len(keys) == 8 * 25 - len(whole)
    for halt in part.itertuples():
        inside = trades[(trades["code"] == halt.code) & (trades["date"] == halt.date)]
        assert not ((inside["Time"] >= halt.start) & (inside["Time"] < halt.stop)).any()


def test_holidays_have_no_session_and_half_days_end_at_noon():
    calendar = dataclasses.replace(CALENDARS["cn_a"], half_days={"2024-01-03": "11:30"}, holidays=("2024-01-04",))
    days = trade_days(2, 3, trades_per_day=500, calendar=calendar, halted_share=0.0)
    last = days.trades.groupby("date", observed=True)["Time"].max()
    assert last.index.tolist() == ["2024-01-02", "2024-01-03", "2024-01-05"]
    assert last["2024-01-03"] < "11:30" and last["2024-01-05"] >= "15:00"


def test_activity_is_high_at_both_ends_and_remembered(counts):
    continuous = counts[:, 1:238]
    mean = continuous.mean(axis=0)
    assert mean[:20].mean() > 1.3 * mean[60:180].mean() and mean[-15:].mean() > 1.1 * mean[60:180].mean()
    level = np.log1p(continuous)
    persistence = ((level[:, 1:] - level[:, :-1]) ** 2).mean()
    smooth, errors = level[:, 0].copy(), []
    for slot in range(1, 237):
        errors.append(((level[:, slot] - smooth) ** 2).mean())
        smooth = 0.7 * smooth + 0.3 * level[:, slot]
    assert np.mean(errors) < 0.85 * persistence < 0.85 * 2 * level.var(axis=0).mean()


def test_sides_come_in_runs(days):
    flags = days.trades[days.trades["Type"] != ""]["Type"].to_numpy()
    assert (flags[1:] == flags[:-1]).mean() > 0.7
    assert 0.4 < (flags == "B").mean() < 0.6


def test_the_ledger_counts_every_line_of_every_file(tmp_path):
    days = trade_days(4, 4, seed=1, trades_per_day=500, bad_share=0.05)
    files = write_trade_days(days, tmp_path)
    ledger = days.ledger().set_index(["code", "date"])
    assert len(files) == len(ledger)
    for path in files:
        row = ledger.loc[(path.stem, path.parent.name)]
        lines = path.read_text().splitlines()
        assert len(lines) - 1 == row["rows"]
        assert sum(line.count(",") != 10 for line in lines[1:]) == row["line_truncated"]
        found = list(csv.DictReader(line for line in lines if line.count(",") == 10))
        assert sum(record["Time"] == "" for record in found) == row["time_empty"]
        assert sum(record["Time"] in ("25:61:00", "noon") for record in found) == row["time_unparsable"]
        assert sum(record["Type"] in ("X", "BS") for record in found) == row["side_unknown"]
        assert sum(record["Volume"].startswith("-") for record in found) == row["volume_negative"]
        assert sum(record["Volume"] in ("", "many") for record in found) == row["volume_unparsable"]
        assert sum(record["Price"] in ("0.00", "-10.31") for record in found) == row["price_not_positive"]
        assert sum(record["Price"] in ("", "n/a", "12..3") for record in found) == row["price_unparsable"]
    parts = ledger[["binned", "out_of_session", "unknown_side", "invalid"]]
    np.testing.assert_array_equal(ledger["rows"], parts.sum(axis=1))
    assert abs(len(days.bad) / ledger["rows"].sum() - 0.05) < 0.002
    assert (ledger[list(BAD_ROWS)].sum() >= len(days.bad) // len(BAD_ROWS)).all()


def test_files_may_have_whole_timestamps(tmp_path):
    days = trade_days(1, 1, trades_per_day=100, halted_share=0.0)
    (path,) = write_trade_days(days, tmp_path, iso_times=True)
    assert path == tmp_path / "2024-01-02" / "600001.csv"
    assert path.read_text().splitlines()[1].split(",")[1].startswith("2024-01-02T09:25:0")
    assert days.ledger()["rows"].item() == len(days.trades) == len(path.read_text().splitlines()) - 1


@pytest.mark.parametrize(
    "settings", [{"num_stocks": 0}, {"num_stocks": 1000}, {"bad_share": 1.0}, {"halted_share": -0.1}]
)
def test_trade_days_that_make_no_sense_are_refused(settings):
    with pytest.raises(ConfigError, match="expected"):
        trade_days(**settings)
