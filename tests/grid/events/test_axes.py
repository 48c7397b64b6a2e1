"""Axes: known answers, the plain formula in a loop, edges."""

import json
import math
from decimal import ROUND_HALF_UP, Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridloom.core.errors import ConfigError
from gridloom.grid.events import LinearAxis, PriceAxis, VolumeAxis, axis_record

R_MAX = math.log(1.1)
KINDS = [{}, {"r_max": math.log(1.2)}, {"kind": "linear"}, {"kind": "ticks"}, {"limit_columns": True}]


def slow_column(price, reference, s=0.02, r_max=R_MAX):
    r = min(max(math.log(price / reference), -r_max), r_max)
    x = math.tanh(r / s) / math.tanh(r_max / s)
    return math.floor((x + 1) / 2 * 31)


def slow_row(volume, v_cap=50_000):
    return math.floor(min(math.log1p(volume), math.log1p(v_cap)) / math.log1p(v_cap) * 31)


def test_known_answers_of_prices():
    price = 10 * np.exp([0, math.log(1.1), -math.log(1.1), 1.0, -1.0])
    assert PriceAxis().column(price, 10.0).tolist() == [15, 31, 0, 31, 0]
    assert PriceAxis().column(np.array([11.0, 10.0, 9.0]), 10.0).tolist() == [31, 15, 0]


def test_known_answers_of_volumes():
    for dtype in (np.int64, np.int32, np.uint16, np.float64):
        assert VolumeAxis().row(np.array([0, 50_000, 60_000]).astype(dtype)).tolist() == [0, 31, 31]


@pytest.mark.parametrize("reference", [2.57, 10.0, 123.45])
def test_columns_equal_the_formula_in_a_loop(reference):
    ticks = np.arange(round(reference * 85), round(reference * 115))
    expected = [slow_column(tick / 100, reference) for tick in ticks.tolist()]
    assert PriceAxis().column(ticks / 100, reference).tolist() == expected
    assert PriceAxis().column_of_ticks(ticks, reference).tolist() == expected


def test_rows_equal_the_formula_in_a_loop():
    volume = np.arange(0, 60_000, 7)
    expected = [slow_row(value) for value in volume.tolist()]
    assert VolumeAxis().row(volume).tolist() == expected
    assert VolumeAxis().row(volume.astype(np.float64)).tolist() == expected


@pytest.mark.parametrize("settings", KINDS)
@pytest.mark.parametrize("reference", [3.0, 9.87, 45.06])
def test_prices_looked_up_are_those_computed(settings, reference):
    axis = PriceAxis(**settings)
    ticks = np.random.default_rng(0).integers(round(reference * 70), round(reference * 130), 40_000)
    computed = axis.column(ticks / 100, np.full(ticks.shape, reference))
    np.testing.assert_array_equal(axis.column(ticks / 100, reference), computed)
    np.testing.assert_array_equal(axis.column_of_ticks(ticks.astype(np.int32), reference), computed)


def test_prices_between_ticks_are_not_looked_up():
    price = np.full(40_000, 10.1)
    price[7] = np.nan
    column = PriceAxis(tick=0.25).column(price, 10.0)
    assert column[7] == -1 and set(np.delete(column, 7).tolist()) == {slow_column(10.1, 10.0)}
    assert slow_column(10.1, 10.0) not in (slow_column(10.0, 10.0), slow_column(10.25, 10.0))


def test_ticks_of_a_quarter_are_exact():
    axis = PriceAxis(tick=0.25, r_max=0.012, s=0.006)
    price = np.arange(1600, 1680, 0.25)
    np.testing.assert_array_equal(axis.price_of_ticks(axis.ticks(price)), price)
    expected = [slow_column(value, 1640.0, s=0.006, r_max=0.012) for value in price.tolist()]
    assert axis.column_of_ticks(axis.ticks(price), 1640.0).tolist() == expected


def test_what_is_no_price_or_volume_has_no_bin():
    assert PriceAxis().column(np.array([np.nan, 0.0, -1.0, np.inf, 10.0]), 10.0).tolist() == [-1, -1, -1, -1, 15]
    assert PriceAxis().column_of_ticks(np.array([0, -5, 1000]), 10.0).tolist() == [-1, -1, 15]
    assert VolumeAxis().row(np.array([np.nan, -1.0, 0.0])).tolist() == [-1, -1, 0]
    assert VolumeAxis().row(np.array([-1, 0])).tolist() == [-1, 0]


@settings(max_examples=30, deadline=None)
@given(cents=st.integers(100, 30_000), rate=st.sampled_from(["0.05", "0.1", "0.2", "0.3"]))
def test_limit_prices_own_the_outer_columns(cents, rate):
    def limit(sign):
        return int((cents * (1 + sign * Decimal(rate))).quantize(Decimal(1), rounding=ROUND_HALF_UP))

    low, high = limit(-1), limit(1)
    axis = PriceAxis(limit_columns=True, r_max=math.log(1 + float(rate)))
    assert [int(value) for value in axis.limit_ticks(cents / 100)] == [low, high]
    ticks = np.arange(low, high + 1)
    column = axis.column(ticks / 100, cents / 100)
    assert column[0] == 0 and column[-1] == 31
    assert (column[1:-1] >= 1).all() and (column[1:-1] <= 30).all()
    np.testing.assert_array_equal(column, axis.column_of_ticks(ticks, cents / 100))


def test_without_limit_columns_the_upper_limit_is_now_in_one_column_now_in_the_other():
    columns = set()
    for cents in range(200, 400):
        high = (cents * 11 + 5) // 10
        columns.add(int(PriceAxis().column(np.array([high / 100]), cents / 100)[0]))
    assert columns == {30, 31}


def test_a_column_a_tick():
    axis = PriceAxis(kind="ticks")
    column = axis.column(np.array([9.84, 9.85, 9.99, 10.0, 10.01, 10.16, 10.5]), 10.0)
    assert column.tolist() == [0, 0, 14, 15, 16, 31, 31]
    np.testing.assert_allclose(axis.center_prices(10.0)[[0, 15, 31]], [9.85, 10.0, 10.16])


def test_linear_columns_are_equally_wide_in_the_ratio():
    axis = PriceAxis(kind="linear")
    widths = np.diff(np.exp(axis.edges))[:-1]
    np.testing.assert_allclose(widths, widths[0])
    assert axis.column(np.array([10 / 1.1, 11.0]), 10.0).tolist() == [0, 31]


@settings(max_examples=30, deadline=None)
@given(
    kind=st.sampled_from(["tanh", "linear"]),
    size=st.integers(4, 64),
    r_max=st.floats(0.005, 0.1),
    s=st.floats(0.0125, 0.1),
    reference=st.floats(1.0, 500.0),
)
def test_edges_of_prices_enclose_what_is_in_their_columns(kind, size, r_max, s, reference):
    axis = PriceAxis(kind=kind, size=size, r_max=r_max, s=s)
    assert (np.diff(axis.edges)[:-1] > 0).all() and axis.edges[-1] == axis.edges[-2]
    np.testing.assert_allclose(axis.edges[[0, -1]], [-r_max, r_max], rtol=1e-6)
    centers = axis.centers
    assert (centers[:-1] > axis.edges[:-2]).all() and (centers[:-1] < axis.edges[1:-1]).all()
    np.testing.assert_array_equal(axis.column(axis.center_prices(reference), reference)[:-1], np.arange(size - 1))
    gap = 1e-6 * np.diff(axis.edges)[:-1]
    above = axis.column(reference * np.exp(axis.edges[:-2] + gap), reference)
    np.testing.assert_array_equal(above, np.arange(size - 1))


def test_edges_are_finite_where_there_is_no_limit_to_speak_of():
    axis = PriceAxis(r_max=math.log(6.0))
    assert np.isfinite(axis.edges).all() and (np.diff(axis.edges)[:-1] > 0).all()
    assert axis.column(np.array([1.0, 10.0, 60.0]), 10.0).tolist() == [0, 15, 31]


@settings(max_examples=30, deadline=None)
@given(size=st.integers(2, 64), v_min=st.sampled_from([0, 1, 100]), v_cap=st.integers(1000, 100_000))
def test_edges_of_volumes_enclose_what_is_in_their_rows(size, v_min, v_cap):
    axis = VolumeAxis(size=size, v_min=v_min, v_cap=v_cap)
    np.testing.assert_allclose(axis.edges[[0, -1]], [v_min, v_cap], rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(axis.row(axis.centers)[:-1], np.arange(size - 1))
    assert axis.row(np.array([v_cap, v_min])).tolist() == [size - 1, 0]


def test_a_volume_axis_from_a_lot_on_uses_all_rows():
    lots = np.arange(100, 50_100, 100)
    assert set(VolumeAxis(v_min=100).row(lots).tolist()) > set(VolumeAxis().row(lots).tolist())
    assert VolumeAxis(v_min=100).row(lots[:1]).tolist() == [0] and VolumeAxis().row(lots).min() == 13


@settings(max_examples=30, deadline=None)
@given(low=st.floats(-200, 200), width=st.floats(0.1, 100), down=st.booleans(), size=st.integers(1, 50))
def test_bins_of_a_linear_axis_hold_their_centers(low, width, down, size):
    axis = LinearAxis(low=low + width if down else low, high=low if down else low + width, size=size)
    np.testing.assert_array_equal(axis.index(axis.centers), np.arange(size))
    assert axis.index(np.array([axis.low])).tolist() == [0]


def test_a_linear_axis_clips_or_refuses():
    values = np.array([-1.0, 0.0, 9.99, 10.0, np.nan])
    assert LinearAxis(low=0.0, high=10.0, size=5).index(values).tolist() == [0, 0, 4, 4, -1]
    assert LinearAxis(low=0.0, high=10.0, size=5, clip=False).index(values).tolist() == [-1, 0, 4, -1, -1]
    assert LinearAxis(low=49.0, high=25.0, size=32).index(np.array([49.0, 25.0, 37.0])).tolist() == [0, 31, 16]


@pytest.mark.parametrize("axis", [PriceAxis(), VolumeAxis(), LinearAxis(low=0.0, high=1.0)])
def test_records_are_plain_json(axis):
    record = json.loads(json.dumps(axis_record(axis)))
    assert record["axis"] == type(axis).__name__
    assert len(record["edges"]) == 33 and len(record["centers"]) == 32


@pytest.mark.parametrize(
    "build",
    [
        lambda: PriceAxis(size=3),
        lambda: PriceAxis(s=0.0),
        lambda: PriceAxis(r_max=math.inf),
        lambda: VolumeAxis(size=1),
        lambda: VolumeAxis(v_min=100, v_cap=100),
        lambda: LinearAxis(low=1.0, high=1.0),
    ],
)
def test_axes_that_make_no_sense_are_refused(build):
    with pytest.raises(ConfigError, match="expected"):
        build()
