"""One file of trades to counts."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gridloom.core.errors import ConfigError
from gridloom.grid.events.calendar import CALENDARS, Calendar, Segment
from gridloom.grid.events.limits import A_SHARE_LIMITS, r_max_of
from gridloom.grid.events.synthetic import trade_days
from gridloom.grid.events.trade_files import write_trade_days
from gridloom.grid.events.trades import FileResult, rasterize_trades
from gridloom.grid.events.trades_config import TradesConfig, code_of, date_of
from tests.grid.events.reference import day_number, slow_counts

CN = CALENDARS["cn_a"]
PRICES = {("600000", day_number("2024-01-02")): 10.0}


def rasterized(
    folder: Path, lines: list[str], config: TradesConfig | None = None, calendar: Calendar = CN
) -> FileResult:
    path = folder / "2024-01-02" / "600000.csv"
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(["Time,Price,Volume,Type", *lines]) + "\n")
    return rasterize_trades(path, config or TradesConfig(), PRICES, calendar=calendar)


def dense(result: FileResult, num_slots: int = 239) -> np.ndarray:
    (day,) = result.days
    counts = np.zeros(num_slots * 2 * 32 * 32, dtype=np.int64)
    counts[day.cells] = day.counts
    return counts.reshape(num_slots, 2, 32, 32)


def slots(result: FileResult) -> list[int]:
    return np.flatnonzero(dense(result).sum(axis=(1, 2, 3))).tolist()


def test_a_file_with_bad_rows_equals_the_slow_reference_row_by_row(tmp_path: Path) -> None:
    days = trade_days(4, 1, seed=5, trades_per_day=1500, bad_share=0.05, halted_share=0.0)
    closes = {(code, day_number(date)): close for code, date, close in days.closes.itertuples(index=False)}
    ledger = days.ledger().set_index(["code", "date"])
    for path in write_trade_days(days, tmp_path):
        code, date = path.stem, path.parent.name
        result = rasterize_trades(path, TradesConfig(), closes, calendar=CN, limits=A_SHARE_LIMITS)
        counts, rows = slow_counts(path, closes[code, day_number(date)], r_max_of(code, date))
        found = result.accounting
        assert np.array_equal(dense(result), counts)
        assert all(getattr(found, name) == number for name, number in rows.items())
        expected = ledger.loc[(code, date)]
        for name in ("rows", "binned", "out_of_session", "unknown_side", "invalid"):
            assert getattr(found, name) == expected[name]
        assert found.invalid > 0 and found.unknown_side > 0


def test_order_of_rows_does_not_matter_and_duplicates_are_kept(tmp_path: Path) -> None:
    lines = [f"09:{30 + i % 20}:{i % 60:02d},{10 + i % 7 / 100:.2f},{100 * (i % 5)},{'BS'[i % 2]}" for i in range(200)]
    shuffled = [lines[i] for i in np.random.default_rng(0).permutation(200)]
    first, second = rasterized(tmp_path, lines), rasterized(tmp_path, shuffled)
    assert np.array_equal(dense(first), dense(second))
    assert np.array_equal(dense(rasterized(tmp_path, lines * 2)), 2 * dense(first))


def test_lunch_break_auctions_and_what_lies_between_them(tmp_path: Path) -> None:
    expected = {
        "09:24:59": None, "09:25:00": 0, "09:25:59": 0, "09:26:00": None, "09:29:59": None, "09:30:00": 1,
        "11:29:59": 120, "11:30:00": None, "12:15:00": None, "13:00:00": 121, "14:56:59": 237, "14:57:00": None,
        "15:00:00": 238, "15:00:59": 238, "15:01:00": None,
    }  # fmt: skip
    for clock, slot in expected.items():
        result = rasterized(tmp_path, [f"{clock},10.00,100,B"])
        if slot is None:
            assert (result.status, result.reason) == ("skipped", "no rows in session")
            assert result.accounting.out_of_session == 1
        else:
            assert slots(result) == [slot]


def test_after_the_close_of_a_half_day_nothing_is_in_session(tmp_path: Path) -> None:
    half = dataclasses.replace(CN, half_days={"2024-01-02": "11:30"})
    result = rasterized(tmp_path, ["11:29:00,10.00,100,B", "13:00:00,10.00,100,B"], calendar=half)
    assert slots(result) == [120]
    assert result.accounting.out_of_session == 1


def test_known_cells(tmp_path: Path) -> None:
    lines = ["09:30:00,10.00,0,B", "09:31:00,11.00,50000,S", "09:32:00,9.00,60000,b", "09:33:00,15,100, s "]
    result = rasterized(tmp_path, lines)
    cells = np.argwhere(dense(result)).tolist()
    assert cells == [[1, 0, 0, 15], [2, 1, 31, 31], [3, 0, 31, 0], [4, 1, 13, 31]]


def test_bad_rows_are_told_apart(tmp_path: Path) -> None:
    lines = [
        "09:30:00,10.00,100,B",
        "25:61:00,10.00,100,B",
        ",10.00,100,B",
        "09:30:00,n/a,100,B",
        "09:30:00,-1.00,100,B",
        "09:30:00,0.00,100,B",
        "09:30:00,10.00,-5,B",
        "09:30:00,10.00,many,S",
        "09:30:00,10.00,100,X",
        "09:30:00,10.00",
        "09:30:00,10.00,100,B,more",
        "08:00:00,10.00,100,X",
    ]
    found = rasterized(tmp_path, lines).accounting
    assert (found.rows, found.binned, found.bad_time, found.bad_price, found.bad_volume) == (12, 1, 2, 3, 2)
    assert (found.unknown_side, found.malformed, found.out_of_session) == (1, 2, 1)
    assert found.invalid == 9


def test_sides_by_ticks_and_by_orders(tmp_path: Path) -> None:
    lines = ["09:30:00,10.00,1,", "09:30:01,10.01,1,", "09:30:02,10.01,1,", "09:30:03,oops,1,", "09:30:04,9.99,1,"]
    ticks = dense(rasterized(tmp_path, lines, TradesConfig(side="tick_rule")))
    assert ticks.sum(axis=(0, 2, 3)).tolist() == [3, 1]
    path = tmp_path / "600000-2024-01-02.csv"
    path.write_text(
        "Time,Price,Volume,BuyOrderID,SaleOrderID\n09:30:00,10,1,7,9\n09:30:00,10,1,12,9\n09:30:00,10,1,0,9\n"
    )
    result = rasterize_trades(path, TradesConfig(side="order_id"), PRICES, calendar=CN)
    assert dense(result).sum(axis=(0, 2, 3)).tolist() == [1, 1]
    assert result.accounting.unknown_side == 1


def test_without_a_reference_price_a_file_is_skipped_unless_its_first_price_will_do(tmp_path: Path) -> None:
    path = tmp_path / "20240102" / "000001.csv"
    path.parent.mkdir()
    path.write_text("Time,Price,Volume,Type\n09:30:00,20.00,100,B\n09:31:00,20.00,100,S\n")
    result = rasterize_trades(path, TradesConfig(), PRICES, calendar=CN)
    assert (result.status, result.accounting.no_reference) == ("skipped", 2)
    assert "no reference price for 000001" in result.reason
    result = rasterize_trades(path, TradesConfig(allow_first_price=True), PRICES, calendar=CN)
    assert result.days[0].reference == 20.0
    assert np.argwhere(dense(result))[:, 3].tolist() == [15, 15]


def test_duplicates_go_where_a_key_tells_them(tmp_path: Path) -> None:
    path = tmp_path / "600000-2024-01-02.csv"
    rows = ["1,09:30:00,10,100,B", "2,09:30:00,10,100,B", "1,09:30:00,10,100,B"]
    path.write_text("\n".join(["TranID,Time,Price,Volume,Type", *rows]))
    result = rasterize_trades(path, TradesConfig(key="TranID"), PRICES, calendar=CN)
    assert (result.accounting.binned, result.accounting.duplicates) == (2, 1)


def test_volume_and_notional_are_summed(tmp_path: Path) -> None:
    lines = ["09:30:00,10.00,200,B", "09:30:30,10.00,200,B", "09:31:00,10.00,300,S"]
    lots = rasterized(tmp_path, lines, TradesConfig(value="volume", value_unit=100.0)).days[0]
    assert lots.counts.tolist() == [4, 3]
    money = rasterized(tmp_path, lines, TradesConfig(value="notional", value_unit=1000.0)).days[0]
    assert money.counts.tolist() == [4, 3]


def test_saturated_cells_and_what_they_lose_are_counted(tmp_path: Path) -> None:
    result = rasterized(tmp_path, ["09:30:00,10.00,100,B"] * 10 + ["09:31:00,10.00,100,B"], TradesConfig(count_cap=4))
    assert (result.accounting.saturated, result.accounting.lost) == (1, 6)


def test_one_file_may_hold_several_instruments_and_sessions(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {
            "Time": pd.to_datetime(["2024-01-02T09:30", "2024-01-03T14:00", "2024-01-02T09:31", "2024-01-02T12:00"]),
            "Price": [10.0, 5.0, 20.0, 10.0],
            "Volume": [100, 200, 300, 400],
            "Type": ["B", "S", "S", "B"],
            "code": ["600000", "600000", "000001", "600000"],
        }
    )
    path = tmp_path / "all.parquet"
    table.to_parquet(path)
    prices = {**PRICES, ("600000", day_number("2024-01-03")): 5.0}
    result = rasterize_trades(path, TradesConfig(code_column="code"), prices, calendar=CN)
    assert [(day.code, day.day, day.counts.sum()) for day in result.days] == [
        ("600000", day_number("2024-01-02"), 1),
        ("600000", day_number("2024-01-03"), 1),
    ]
    assert (result.accounting.no_reference, result.accounting.out_of_session) == (1, 1)


@pytest.mark.parametrize("written", ["aware", "naive", "text", "epoch"])
def test_daylight_saving_moves_utc_but_not_the_slot(tmp_path: Path, written: str) -> None:
    # New York: 9:30 is 14:30 UTC on 8 March 2024, a Friday, and 13:30 UTC on 11 March.
    utc = pd.to_datetime(["2024-03-08 14:30", "2024-03-11 13:30", "2024-03-11 14:30", "2024-03-08 13:30"]).tz_localize(
        "UTC"
    )
    local = utc.tz_convert("America/New_York")
    times = {
        "aware": utc.tz_convert("Europe/Paris"),
        "naive": local.tz_localize(None),
        "text": utc.tz_convert("Asia/Tokyo").map(lambda time: time.isoformat()),
        "epoch": np.asarray(utc.tz_localize(None).to_numpy().astype("datetime64[s]").astype(np.int64)),
    }[written]
    path = tmp_path / "SPY.parquet"
    pd.DataFrame({"Time": times, "Price": 100.25, "Volume": 1, "Type": "B"}).to_parquet(path)
    config = TradesConfig(calendar="us_rth", allow_first_price=True)
    result = rasterize_trades(path, config, {})
    first, second = result.days
    assert (first.day, second.day) == (day_number("2024-03-08"), day_number("2024-03-11"))
    assert (first.cells // 2048).tolist() == [0]
    assert (second.cells // 2048).tolist() == [0, 60]
    assert result.accounting.out_of_session == 1  # 8:30 in New York


def test_a_session_that_crosses_midnight_is_one(tmp_path: Path) -> None:
    path = tmp_path / "2013-09-02" / "ES.csv"
    path.parent.mkdir()
    path.write_text("Time,Price,Volume,Type\n15:59:00,1600.25,1,B\n16:30:00,1600.25,1,B\n17:00:00,1600.25,1,S\n")
    result = rasterize_trades(path, TradesConfig(calendar="cme_es", allow_first_price=True), {})
    sessions = [(day.day, (day.cells // 2048).tolist()) for day in result.days]
    monday = day_number("2013-09-02")
    assert sessions == [(monday, [1379]), (monday + 1, [0])]


def test_slots_of_any_length(tmp_path: Path) -> None:
    calendar = Calendar(name="halves", time_zone="UTC", segments=(Segment(start="00:00", stop="24:00", minutes=720),))
    lines = ["00:00:00,10.00,1,B", "11:59:59,10.00,1,B", "12:00:00,10.00,1,S"]
    result = rasterized(tmp_path, lines, calendar=calendar)
    assert dense(result, 2).sum(axis=(2, 3)).tolist() == [[2, 0], [0, 1]]


def test_what_a_path_says() -> None:
    assert date_of(Path("a/2024-01-02/600000.csv")) == day_number("2024-01-02")
    assert date_of(Path("600000_20240103.csv.gz")) == day_number("2024-01-03")
    assert date_of(Path("13371337/x-123456789.csv")) is None
    assert code_of(Path("600000_20240103.csv.gz")) == "600000"
    assert code_of(Path("2024-01-02/BRK.B.parquet")) == "BRK.B"


def test_problems_of_a_file_are_its_status(tmp_path: Path) -> None:
    missing = rasterize_trades(tmp_path / "none.csv", TradesConfig(), {})
    assert missing.status == "error" and "none.csv" in missing.reason
    undated = tmp_path / "600000.csv"
    undated.write_text("Time,Price,Volume,Type\n09:30:00,10.00,100,B\n")
    config = TradesConfig(allow_first_price=True)
    if date_of(undated) is None:
        assert "without a date" in rasterize_trades(undated, config, {}).reason
    dated = rasterize_trades(undated, dataclasses.replace(config, date="2024-01-02"), {})
    assert dated.status == "ok"
    empty = tmp_path / "2024-01-02.csv"
    empty.write_text("")
    assert rasterize_trades(empty, config, {}).reason == "no rows"


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="count_cap"):
        TradesConfig(count_cap=0)
    with pytest.raises(ConfigError, match="YYYY-MM-DD"):
        TradesConfig(date="yesterday")


def test_float_prices_off_the_ticks_are_binned_by_the_formula(tmp_path: Path) -> None:
    prices = 10 * np.exp(np.linspace(-0.09, 0.09, 50))
    lines = [f"09:30:00,{price!r},100,B" for price in prices.tolist()]
    columns = dense(rasterized(tmp_path, lines)).sum(axis=(0, 1, 2))
    r_max = math.log(1.1)
    x = np.tanh(np.clip(np.log(prices / 10), -r_max, r_max) / 0.02) / math.tanh(r_max / 0.02)
    assert columns.tolist() == np.bincount(np.floor((x + 1) / 2 * 31).astype(int), minlength=32).tolist()
