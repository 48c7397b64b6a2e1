"""Limits of prices: by board and date, from a table that can be edited."""

import datetime
import math

import pytest

from gridloom.core.errors import ConfigError, DataError
from gridloom.grid.events import A_SHARE_LIMITS, Limit, r_max_of, read_limits


@pytest.mark.parametrize(
    ("code", "date", "rate"),
    [
        ("600000", "2024-01-02", 0.1),
        ("000001", "2005-01-04", 0.1),
        ("002415.SZ", "2024-01-02", 0.1),
        ("300750", "2020-08-23", 0.1),
        ("300750", "2020-08-24", 0.2),
        ("sz301001", "2024-01-02", 0.2),
        ("688981.SH", "2020-07-16", 0.2),
        ("689009", "2024-01-02", 0.2),
        ("830799", "2021-11-15", 0.3),
        ("920002", "2024-10-01", 0.3),
        ("900901", "2024-01-02", 0.1),
    ],
)
def test_boards_have_their_limits_on_their_dates(code, date, rate):
    assert r_max_of(code, date) == math.log(1 + rate)
    assert r_max_of(code, datetime.date.fromisoformat(date)) == math.log(1 + rate)


def test_the_two_figures_of_the_contract_are_exact():
    assert r_max_of("600000", "2024-01-02") == math.log(1.1)
    assert r_max_of("688001", "2024-01-02") == math.log(1.2)


@pytest.mark.parametrize(
    ("code", "date", "rate"),
    [
        ("600001", "2024-01-02", 0.05),
        ("300001", "2020-08-23", 0.05),
        ("300001", "2020-08-24", 0.2),
        ("688001", "2024-01-02", 0.2),
    ],
)
def test_special_treatment_is_a_flag(code, date, rate):
    assert r_max_of(code, date, special_treatment=True) == math.log(1 + rate)


@pytest.mark.parametrize(("code", "date"), [("512000", "2024-01-02"), ("ABC", "2024-01-02"), ("688001", "2019-07-21")])
def test_an_unknown_prefix_is_taken_for_the_main_board_with_a_warning(code, date):
    with pytest.warns(UserWarning, match="taking 10 %"):
        assert r_max_of(code, date) == math.log(1.1)


def test_an_entry_for_one_code_comes_before_its_board():
    first_days = Limit(board="listing", prefixes=("688001",), since="2024-01-02", until="2024-01-08", rate=5.0)
    limits = (*A_SHARE_LIMITS, first_days)
    assert r_max_of("688001", "2024-01-08", limits) == math.log(6.0)
    assert r_max_of("688001", "2024-01-09", limits) == math.log(1.2) == r_max_of("688002", "2024-01-05", limits)


def test_tables_are_read_from_csv_and_yaml(tmp_path):
    table = tmp_path / "limits.csv"
    table.write_text(
        "board,prefixes,since,rate,special_treatment\nmain,600 000,,0.1,\nmain ST,600 000,2000-01-01,0.05,true\n"
    )
    records = tmp_path / "limits.yaml"
    records.write_text(
        "limits:\n  - {board: main, prefixes: ['600', '000'], rate: 0.1}\n"
        "  - {board: main ST, prefixes: ['600', '000'], since: 2000-01-01, rate: 0.05, special_treatment: true}\n"
    )
    expected = (
        Limit(board="main", prefixes=("600", "000"), rate=0.1),
        Limit(board="main ST", prefixes=("600", "000"), since="2000-01-01", rate=0.05, special_treatment=True),
    )
    assert read_limits(table) == expected == read_limits(records)


def test_what_is_wrong_in_a_table_is_named_with_its_line(tmp_path):
    table = tmp_path / "limits.csv"
    table.write_text("board,prefixes,rate\nmain,600,0.1\nother,601,ten\n")
    with pytest.raises(DataError, match=r"limits\.csv:3: expected a rate"):
        read_limits(table)
    table.write_text("board,prefix,rate\nmain,600,0.1\n")
    with pytest.raises(ConfigError, match="did you mean 'prefixes'"):
        read_limits(table)
    with pytest.raises(DataError, match="no such file"):
        read_limits(tmp_path / "none.csv")


@pytest.mark.parametrize("change", [{"prefixes": ()}, {"prefixes": ("SH",)}, {"rate": 0.0}, {"since": "2024"}])
def test_limits_that_make_no_sense_are_refused(change):
    with pytest.raises(ConfigError, match="expected"):
        Limit(**{"board": "main", "prefixes": ("600",), "rate": 0.1, **change})
    with pytest.raises(ConfigError, match="date"):
        r_max_of("600000", "yesterday")
