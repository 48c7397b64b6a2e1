"""Sides: the tick rule over batches and sessions, flags, numbers of orders."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridloom.grid.events import TickState, side_from_flag, side_from_orders, tick_rule


def slow_tick_rule(prices):
    side, last, sides = 1, None, []
    for price in prices:
        if last is not None and price != last:
            side = 1 if price > last else -1
        last = price
        sides.append(side)
    return sides


@settings(max_examples=30, deadline=None)
@given(prices=st.lists(st.integers(1, 4), min_size=1, max_size=40), cut=st.integers(0, 40))
def test_the_tick_rule_goes_on_from_batch_to_batch(prices, cut):
    price = np.array(prices, dtype=np.float64)
    whole, _ = tick_rule(price)
    first, state = tick_rule(price[:cut])
    second, _ = tick_rule(price[cut:], state)
    assert whole.tolist() == slow_tick_rule(prices) == [*first.tolist(), *second.tolist()]


def test_the_tick_rule_carries_its_state():
    side, state = tick_rule(np.array([10.0, 9.0, 9.0]))
    assert side.tolist() == [1, -1, -1] and state == TickState(9.0, -1)
    assert tick_rule(np.array([9.0, 9.0]), state)[0].tolist() == [-1, -1]
    assert tick_rule(np.array([9.5]), state)[0].tolist() == [1]
    assert tick_rule(np.array([]), state)[1] == state


def test_the_tick_rule_starts_afresh_with_each_session():
    price = np.array([10.0, 9.0, 8.0, 8.0, 7.0])
    session = np.array([1, 1, 2, 2, 2])
    assert tick_rule(price, session=session)[0].tolist() == [1, -1, 1, 1, -1]
    assert tick_rule(price)[0].tolist() == [1, -1, -1, -1, -1]


def test_prices_that_are_none_have_no_side_and_change_nothing():
    price = np.array([10.0, np.nan, 9.0, np.inf, 9.0])
    assert tick_rule(price)[0].tolist() == [1, 0, -1, 0, -1]
    assert tick_rule(price, session=np.array([1, 1, 1, 2, 2]))[0].tolist() == [1, 0, -1, 0, 1]


@pytest.mark.parametrize("wrap", [list, np.array, pd.Series, lambda x: pd.Series(x, dtype="category")])
def test_flags_are_read_whatever_their_case_and_blanks(wrap):
    assert side_from_flag(wrap(["B", " s ", "b", "S", "", "X", "BS"])).tolist() == [1, -1, 1, -1, 0, 0, 0]


def test_missing_flags_and_bytes_are_read_too():
    assert side_from_flag(["B", None, float("nan")]).tolist() == [1, 0, 0]
    assert side_from_flag(np.array([b"B", b"S ", b""])).tolist() == [1, -1, 0]
    assert side_from_flag([1, 2, 3], buy="1", sell="2").tolist() == [1, -1, 0]
    assert side_from_flag([]).tolist() == []


def test_the_later_order_is_the_aggressor():
    buy = np.array([5, 3, 4, 0, 7, -1])
    sell = np.array([3, 5, 4, 9, 0, -2])
    assert side_from_orders(buy, sell).tolist() == [1, -1, 0, 0, 0, 0]
    assert side_from_orders(np.array([2.0, np.nan]), np.array([1.0, 1.0])).tolist() == [1, 0]
