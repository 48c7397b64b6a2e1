import json

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from gridloom.core.errors import ConfigError, DataError, UnknownNameError
from gridloom.grid.blocks import blocks, calendar_positions
from gridloom.grid.normalize import Bounds, Climatology, Log1p, Normalizer, Standard, fit_normalizer
from gridloom.grid.synthetic import waves

STEPS = st.one_of(
    st.tuples(st.just(Standard), st.floats(-100, 100), st.floats(0.1, 100)),
    st.tuples(st.just(Bounds), st.floats(-100, 0), st.floats(1, 100)),
    st.tuples(st.just(Climatology), st.just("time"), st.tuples(*[st.floats(-10, 10)] * 3)),
)


def rain(values):
    return xr.Dataset({"rain": (("time", "x"), np.asarray(values, dtype=np.float64))})


@settings(max_examples=30, deadline=None)
@given(st.lists(STEPS, max_size=3), st.booleans(), st.integers(0, 1000))
def test_inverting_undoes_applying(chosen, logarithm, seed):
    steps = [kind(*arguments) for kind, *arguments in chosen]
    generator = np.random.default_rng(seed)
    values = generator.gamma(1.0, 20.0, size=(3, 5))
    values[0, 0] = np.nan
    normalizer = Normalizer({"a": (*((Log1p(),) if logarithm else ()), *steps)})
    position = np.arange(3)[:, None]
    normalized = normalizer.apply("a", values, position=position)
    back = normalizer.invert("a", normalized, position=position)
    assert normalized.dtype == back.dtype == np.float32
    assert np.isnan(normalized[0, 0]) and np.isnan(back[0, 0])
    # float32 in between: an error relative to the largest number that was passed on
    largest = np.nanmax(np.abs(normalized)) + 1
    slope = np.prod([step.scale for step in steps]) if steps else 1.0
    allowed = 4e-7 * (largest * slope * (1 + np.nanmax(values) if logarithm else 1) + 300)
    np.testing.assert_allclose(back, values, rtol=1e-5, atol=allowed)


def test_standard_is_fitted_on_the_training_part_alone():
    data = waves(num_times=40)
    normalizer = fit_normalizer(data, bounds={"time": (0, 20)})
    for name in ("temperature", "salinity"):
        train = data[name].values[:20].astype(np.float64)
        (step,) = normalizer.steps[name]
        assert step.mean == pytest.approx(np.nanmean(train), rel=1e-12)
        assert step.std == pytest.approx(np.nanstd(train), rel=1e-9)
    changed = data.copy(deep=True)
    changed["temperature"][20:] = 1e9
    assert fit_normalizer(changed, bounds={"time": (0, 20)}) == normalizer


def test_blocks_do_not_change_the_range_they_cover():
    variable = waves(num_times=10)["temperature"].transpose("longitude", "time", "latitude")
    bounds = {"longitude": (3, 30), "time": (2, 5), "elsewhere": (0, 1)}
    found = list(blocks(variable, bounds, block_bytes=8 * 3 * 32 * 4))
    assert len(found) == 7
    np.testing.assert_array_equal(np.concatenate([values for _, values in found]), variable.values[3:30, 2:5])
    for ranges, values in found:
        np.testing.assert_array_equal(variable.isel(ranges).values, values)


def test_standard_keeps_a_small_deviation_on_a_large_mean():
    values = np.random.default_rng(0).normal(1e4, 0.1, size=(50, 20)).astype(np.float32)
    data = xr.Dataset({"a": (("time", "x"), values)})
    normalized = fit_normalizer(data).apply("a", values)
    assert abs(normalized.mean()) < 1e-4 and normalized.std() == pytest.approx(1, abs=1e-4)


def test_steps_are_fitted_one_after_the_other():
    values = np.random.default_rng(0).gamma(0.5, 10, size=(40, 8))
    normalizer = fit_normalizer(rain(values), kinds=("log1p", "standard"))
    logarithm, standard = normalizer.steps["rain"]
    assert isinstance(logarithm, Log1p) and standard.mean == pytest.approx(np.log1p(values).mean(), rel=1e-12)


def test_bounds_go_from_minus_one_to_one():
    normalizer = fit_normalizer(rain([[2.0, 4.0], [np.nan, 10.0]]), kinds=("bounds",))
    np.testing.assert_allclose(normalizer.apply("rain", np.array([2.0, 6.0, 10.0, 14.0])), [-1, 0, 1, 2])


def test_a_climatology_is_the_mean_of_each_month():
    times = np.arange("2001-01", "2004-01", dtype="M8[M]").astype("M8[ns]")
    cycle = 10 * np.sin(np.arange(36) * np.pi / 6)
    data = xr.Dataset({"a": (("time", "x"), cycle[:, None] + np.zeros((36, 3)))}, coords={"time": times})
    normalizer = fit_normalizer(data, kinds=("climatology",), bounds={"time": (0, 12)})
    positions = calendar_positions(data)
    assert positions.count == 12
    place = positions.along(("time", "x"), {"time": slice(12, 36)})
    np.testing.assert_allclose(normalizer.apply("a", data["a"].values[12:], position=place), 0, atol=1e-5)
    with pytest.raises(DataError, match="variable 'a': a climatology along 'time' needs the position"):
        normalizer.apply("a", data["a"].values)


def test_positions_of_a_month_axis_are_its_months_and_of_any_other_its_own():
    months = xr.Dataset({"a": ("month", np.zeros(3))}, coords={"month": [11, 12, 1]})
    assert calendar_positions(months).values.tolist() == [10, 11, 0]
    slots = xr.Dataset({"a": ("t", np.zeros(3))})
    assert (calendar_positions(slots).count, calendar_positions(slots).values.tolist()) == (3, [0, 1, 2])


def test_a_climatology_needs_every_position_in_the_training_part():
    data = waves(num_times=60)
    with pytest.raises(DataError, match=r"needs every position along 'time'.*10 of 12 are missing, first \[2, 3, 4\]"):
        fit_normalizer(data, kinds=("climatology",), bounds={"time": (0, 40)})


@pytest.mark.parametrize("kind", ["standard", "bounds"])
@pytest.mark.parametrize("constant", [0.1, -3e7, 0.0])
def test_a_constant_becomes_exactly_zero_with_a_warning(kind, constant):
    data = rain(np.full((7, 11), constant))
    with pytest.warns(UserWarning, match="variable 'rain' is constant"):
        normalizer = fit_normalizer(data, kinds=(kind,))
    normalized = normalizer.apply("rain", data["rain"].values)
    assert (normalized == 0).all()
    np.testing.assert_allclose(normalizer.invert("rain", normalized), constant, rtol=1e-7)


@pytest.mark.parametrize("kinds", [("standard",), ("bounds",), ("log1p",)])
def test_a_variable_missing_in_the_training_part_is_refused(kinds):
    values = np.full((10, 4), np.nan)
    values[5:] = 1.0
    with pytest.raises(DataError, match="'rain': every cell of the training part is missing"):
        fit_normalizer(rain(values), kinds=kinds, bounds={"time": (0, 5)})


def test_a_logarithm_of_minus_one_is_refused_in_fitting_and_in_applying():
    with pytest.raises(DataError, match="'rain': log1p needs values above -1"):
        fit_normalizer(rain([[0.0, -1.0]]), kinds=("log1p", "standard"))
    with pytest.raises(DataError, match="'rain': log1p needs values above -1"):
        fit_normalizer(rain([[0.0, -1.0]]), kinds=("log1p",))
    with pytest.raises(DataError, match="'rain': log1p needs values above -1, got -2"):
        Normalizer({"rain": (Log1p(),)}).apply("rain", np.array([np.nan, -2.0]))


def test_a_spread_goes_back_only_through_affine_steps():
    normalizer = Normalizer({"a": (Standard(1.0, 4.0), Bounds(-3.0, 3.0)), "b": (Log1p(), Standard(0.0, 1.0))})
    np.testing.assert_allclose(normalizer.invert_scale("a", np.array([0.5])), [6.0])
    with pytest.raises(DataError, match="'b': a spread cannot be brought back through 'log1p'"):
        normalizer.invert_scale("b", np.array([0.5]))


def test_a_normalizer_survives_json():
    normalizer = Normalizer(
        {"a": (Log1p(), Standard(0.1, 0.3)), "b": (Bounds(-1.0, 2.0), Climatology("time", (1.0, 2.5)))}
    )
    assert Normalizer.from_json(json.loads(json.dumps(normalizer.to_json()))) == normalizer
    assert normalizer.variables == ("a", "b")


@pytest.mark.parametrize(
    ("record", "error", "message"),
    [
        ({"a": [{"kind": "standart", "mean": 0, "std": 1}]}, UnknownNameError, "did you mean 'standard'"),
        ({"a": [{"kind": "standard", "mean": 0}]}, ConfigError, r"normalizer\.a\[0\]\.std: missing"),
        ({"a": [{"kind": "standard", "mean": 0, "std": 1, "x": 2}]}, ConfigError, "unknown key"),
        ({"a": [{"kind": "standard", "mean": 0, "std": "1"}]}, ConfigError, "expected a number"),
        ({"a": [{"kind": "standard", "mean": float("nan"), "std": 1}]}, ConfigError, "finite"),
        ({"a": [{"kind": "standard", "mean": 0, "std": 0}]}, ConfigError, "cannot be inverted"),
        ({"a": "standard"}, ConfigError, "expected a list of steps"),
        ({"a": ["standard"]}, ConfigError, "expected a step with its kind"),
    ],
)
def test_a_record_is_read_strictly(record, error, message):
    with pytest.raises(error, match=message):
        Normalizer.from_json(record)


def test_unknown_steps_and_variables_name_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'standard'"):
        fit_normalizer(waves(), kinds=("standarf",))
    with pytest.raises(UnknownNameError, match="did you mean 'salinity'"):
        fit_normalizer(waves()).apply("salinty", np.zeros(2))
    with pytest.raises(DataError, match="'name': expected numbers"):
        fit_normalizer(xr.Dataset({"name": ("x", ["a", "b"])}))
