"""Baselines against slow references; with missing cells; and never copying what is asked."""

import numpy as np
import pytest
import xarray as xr

from gridloom.core.errors import ConfigError, DataError, UnknownNameError
from gridloom.evaluate.baselines import (
    BlockMean,
    Climatology,
    LinearInTime,
    MeanField,
    PCAReconstruction,
    Persistence,
    SlotMean,
)
from gridloom.evaluate.baselines.pca import principal_components
from gridloom.evaluate.baselines.tiles import block_grid

NAN = float("nan")


def series(values, *, times=None, dims=("time",)):
    values = np.asarray(values, dtype="float32")
    coords = {} if times is None else {"time": times}
    return xr.Dataset({"sst": (dims, values)}, coords=coords)


def ask(dataset, value=True):
    return xr.full_like(dataset, value, dtype=bool)


@pytest.mark.parametrize(
    ("baseline", "expected"),
    [
        (Persistence(), [5.0, 2.0, 5.0, 5.0, 2.0, 2.0]),
        (LinearInTime(), [5.0, 2.0, 3.5, 5.0, 2.0, 2.0]),
    ],
)
def test_time_baselines_answer_a_series_with_gaps(baseline, expected):
    given = series([NAN, 5.0, NAN, 2.0, NAN, NAN])
    np.testing.assert_allclose(baseline.predict(given, ask(given))["sst"], expected)


def test_linear_in_time_respects_uneven_steps_and_dates():
    times = np.array(["2020-01-01", "2020-01-02", "2020-01-11"], dtype="datetime64[ns]")
    given = series([0.0, NAN, 10.0], times=times)
    assert LinearInTime().predict(given, ask(given))["sst"].values[1] == pytest.approx(1.0)


@pytest.mark.parametrize("baseline", [Persistence(), LinearInTime()])
def test_time_baselines_agree_with_a_slow_reference(baseline):
    generator = np.random.default_rng(0)
    values = generator.normal(size=(3, 12, 4))
    values[generator.random(values.shape) < 0.5] = NAN
    values[1, :, 2] = NAN
    given = series(values, times=np.cumsum(generator.integers(1, 4, 12)), dims=("window", "time", "x"))
    answer = baseline.predict(given, ask(given))["sst"].values
    times = given["time"].values
    data = given["sst"].values.astype(float)
    for window, step, cell in np.ndindex(*values.shape):
        line = data[window, :, cell]
        before = [t for t in range(step) if np.isfinite(line[t])]
        after = [t for t in range(step + 1, 12) if np.isfinite(line[t])]
        if not before and not after:
            expected = np.nanmean(data)
        elif isinstance(baseline, Persistence):
            expected = line[before[-1]] if before else line[after[0]]
        elif before and after:
            expected = np.interp(times[step], times[[before[-1], after[0]]], line[[before[-1], after[0]]])
        else:
            expected = line[before[-1]] if before else line[after[0]]
        assert answer[window, step, cell] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("baseline", [Persistence(), LinearInTime()])
def test_an_answer_never_copies_the_cell_that_is_asked(baseline):
    given = series([1.0, 2.0, 3.0, 4.0])
    spiked = given.copy(deep=True)
    spiked["sst"][2] = 1000.0
    before, after = (baseline.predict(data, ask(given))["sst"].values[2] for data in (given, spiked))
    assert before == after


def test_a_forecast_may_have_context_and_future_apart():
    given = series([[1.0, 9.0], [2.0, NAN]], times=[10, 20], dims=("time", "x"))
    wanted = ask(series(np.zeros((2, 2)), times=[30, 40], dims=("time", "x")))
    answer = Persistence().predict(given, wanted)
    np.testing.assert_array_equal(answer["time"], [30, 40])
    np.testing.assert_allclose(answer["sst"], [[2.0, 9.0], [2.0, 9.0]])
    with pytest.raises(DataError, match="give both a coordinate 'time'"):
        Persistence().predict(given.drop_vars("time").isel(time=[0]), wanted.drop_vars("time"))


def test_slot_mean_averages_each_slot_and_falls_back():
    history = series([1.0, 10.0, 3.0, 20.0, NAN]).assign_coords(slot=("time", [0, 1, 0, 1, 5]))
    wanted = ask(series(np.zeros((2, 2)), dims=("window", "lead"))).assign_coords(
        slot=(("window", "lead"), [[0, 1], [5, 7]])
    )
    answer = SlotMean(history, "slot").predict(xr.Dataset(), wanted)["sst"]
    assert answer.dims == ("window", "lead")
    np.testing.assert_allclose(answer, [[2.0, 15.0], [8.5, 8.5]])


def test_slot_mean_keeps_cells_apart_in_any_order_of_dimensions():
    generator = np.random.default_rng(1)
    values = generator.normal(size=(8, 3, 2))
    values[:, 2, 1] = NAN
    values[[0, 4], 0, 0] = NAN
    history = series(values, dims=("time", "y", "x")).assign_coords(slot=("time", [0, 1, 2, 3] * 2))
    wanted = ask(history.transpose("x", "time", "y"))
    answer = SlotMean(history, "slot").predict(history, wanted)["sst"]
    assert answer.dims == ("x", "time", "y")
    data = history["sst"].values.astype(float)
    assert answer.sel(x=1, y=0).values[2] == pytest.approx((data[2, 0, 1] + data[6, 0, 1]) / 2)
    assert answer.isel(x=0, y=0).values[0] == pytest.approx(np.nanmean(data[:, 0, 0]))
    assert answer.isel(x=1, y=2).values[3] == pytest.approx(np.nanmean(data))


def test_climatology_knows_months_periods_and_none():
    times = np.arange("2000-01", "2003-01", dtype="datetime64[M]").astype("datetime64[ns]")
    values = np.tile(np.arange(12.0), 3) + np.repeat([-1.0, 0.0, 1.0], 12)
    history = series(values, times=times)
    answer = Climatology(history, part="month").predict(history, ask(history))["sst"]
    np.testing.assert_allclose(answer, np.tile(np.arange(12.0), 3))
    numbered = history.assign_coords(time=np.arange(36))
    later = ask(numbered).assign_coords(time=np.arange(36) + 5)
    answer = Climatology(numbered, period=12).predict(numbered, later)["sst"]
    np.testing.assert_allclose(answer, (np.arange(36) + 5) % 12)
    answer = Climatology(numbered).predict(numbered, later)["sst"]
    np.testing.assert_allclose(answer, 5.5)


def test_climatology_refuses_what_does_not_fit():
    history = series([1.0, 2.0], times=[0, 1])
    with pytest.raises(ConfigError, match="got both"):
        Climatology(history, part="month", period=12)
    with pytest.raises(DataError, match="needs dates"):
        Climatology(history, part="month")
    dates = history.assign_coords(time=np.array(["2000-01-01", "2000-02-01"], dtype="datetime64[ns]"))
    with pytest.raises(UnknownNameError, match="did you mean 'month'"):
        Climatology(dates, part="months")
    with pytest.raises(DataError, match="expected a coordinate 'slot'"):
        SlotMean(history, "slot")
    with pytest.raises(DataError, match="history's variables"):
        Climatology(history).predict(history, ask(history.rename(sst="air")))


def test_mean_field_is_the_mean_over_samples_of_known_cells():
    values = np.arange(24.0).reshape(4, 2, 3)
    values[0, 0, 0] = NAN
    values[:, 1, 1] = NAN
    history = series(values, dims=("sample", "y", "x")).assign_coords(y=[5.0, 6.0])
    wanted = ask(history.isel(sample=[0, 1])).assign_coords(y=[7.0, 8.0])
    answer = MeanField(history).predict(history, wanted)["sst"]
    assert answer.shape == (2, 2, 3)
    np.testing.assert_array_equal(answer["y"], [7.0, 8.0])
    assert answer.values[1, 0, 0] == pytest.approx(np.mean([6.0, 12.0, 18.0]))
    assert answer.values[0, 0, 1] == pytest.approx(10.0)
    assert answer.values[0, 1, 1] == pytest.approx(np.nanmean(values))


@pytest.mark.parametrize(
    ("height", "width", "num_values", "expected"),
    [(32, 32, 64, (8, 8)), (32, 32, 50, (7, 7)), (16, 64, 64, (4, 16)), (4, 4, 100, (4, 4)), (8, 8, 1, (1, 1))],
)
def test_block_grid_is_near_square_and_within_budget(height, width, num_values, expected):
    rows, columns = block_grid(height, width, num_values)
    assert rows * columns <= num_values
    assert (rows, columns) == expected


def test_block_mean_keeps_a_linear_slope_inside_and_the_mean_of_blocks():
    y, x = np.mgrid[0:16, 0:24].astype(float)
    given = series((2 * y - x)[None], dims=("sample", "y", "x"))
    answer = BlockMean(24).predict(given, ask(given))["sst"].values[0]
    np.testing.assert_allclose(answer[2:-2, 2:-2], (2 * y - x)[2:-2, 2:-2])
    whole = BlockMean(16 * 24).predict(given, ask(given))["sst"].values[0]
    np.testing.assert_allclose(whole, 2 * y - x)


def test_block_mean_has_no_more_degrees_of_freedom_than_numbers():
    fields = np.random.default_rng(2).normal(size=(80, 12, 12))
    answer = BlockMean(10).predict(
        series(fields, dims=("sample", "y", "x")), ask(series(fields, dims=("sample", "y", "x")))
    )
    assert np.linalg.matrix_rank(answer["sst"].values.reshape(80, -1)) <= 10


def test_block_mean_shares_its_budget_among_channels_and_variables():
    fields = np.random.default_rng(3).normal(size=(80, 2, 8, 8))
    given = xr.Dataset(
        {name: (("sample", "channel", "y", "x"), fields + shift) for name, shift in (("a", 0), ("b", 1))}
    )
    answer = BlockMean(16).predict(given, ask(given))
    assert np.linalg.matrix_rank(answer["a"].values[:, 0].reshape(80, -1)) == 4
    with pytest.raises(ConfigError, match="3 values cannot hold 4 fields"):
        BlockMean(3).predict(given, ask(given))


def test_block_mean_with_missing_cells_averages_the_known():
    field = np.full((1, 4, 4), 2.0)
    field[0, :2, :2] = [[NAN, 6.0], [NAN, NAN]]
    field[0, 2:, 2:] = NAN
    given = series(field, dims=("sample", "y", "x"))
    answer = BlockMean(4).predict(given, ask(given))["sst"].values[0]
    assert answer[0, 0] == pytest.approx(6.0)
    assert answer[3, 3] == pytest.approx((6.0 + 2.0 + 2.0) / 3)
    nothing = BlockMean(4).predict(given * NAN, ask(given))["sst"].values
    np.testing.assert_array_equal(nothing, 0.0)


def low_rank(num_samples, rank, *, noise=0.0, seed=0):
    generator = np.random.default_rng(seed)
    patterns = np.random.default_rng(99).normal(size=(rank, 6, 8))
    weights = generator.normal(size=(num_samples, rank)) * np.linspace(3, 1, rank)
    fields = np.einsum("nr,ryx->nyx", weights, patterns) + 5.0
    return series(fields + noise * generator.normal(size=fields.shape), dims=("sample", "y", "x"))


def test_pca_agrees_with_sklearn():
    from sklearn.decomposition import PCA

    history, given = low_rank(60, 10, noise=0.3), low_rank(20, 10, noise=0.3, seed=1)
    reference = PCA(4).fit(history["sst"].values.reshape(60, -1).astype(float))
    expected = reference.inverse_transform(reference.transform(given["sst"].values.reshape(20, -1).astype(float)))
    answer = PCAReconstruction(history, 4).predict(given, ask(given))["sst"].values
    np.testing.assert_allclose(answer.reshape(20, -1), expected, atol=1e-6)


def test_pca_fills_missing_cells_of_a_low_rank_field():
    history, truth = low_rank(60, 3), low_rank(10, 3, seed=1)
    hidden = np.random.default_rng(5).random(truth["sst"].shape) < 0.7
    hidden[0] = True
    answer = PCAReconstruction(history, 3).predict(
        truth.where(~xr.DataArray(hidden, dims=truth["sst"].dims)), ask(truth)
    )
    np.testing.assert_allclose(answer["sst"].values[1:], truth["sst"].values[1:], atol=1e-2)
    np.testing.assert_allclose(answer["sst"].values[0], history["sst"].mean("sample"), atol=1e-5)


def test_pca_with_few_known_cells_stays_tame():
    history, truth = low_rank(60, 20, noise=1.0), low_rank(10, 20, noise=1.0, seed=1)
    hidden = np.random.default_rng(6).random(truth["sst"].shape) < 0.8
    answer = PCAReconstruction(history, 20).predict(
        truth.where(~xr.DataArray(hidden, dims=truth["sst"].dims)), ask(truth)
    )
    assert np.abs(answer["sst"].values - 5.0).max() < 2 * np.abs(truth["sst"].values - 5.0).max()


def test_pca_weighs_variables_alike_and_tolerates_gaps_in_the_history():
    history = low_rank(60, 4)
    history["air"] = 1e6 * (history["sst"].isel(x=slice(None, None, -1)) ** 2)
    history["sst"][:, 0, 0] = np.nan
    history["sst"][3] = np.nan
    answer = PCAReconstruction(history, 40).predict(history, ask(history))
    for name in ("sst", "air"):
        known = np.isfinite(history[name].values)
        error = (answer[name].values - history[name].values)[known]
        assert np.sqrt(np.mean(error**2)) < 0.2 * np.nanstd(history[name].values)
    assert np.isfinite(answer["sst"]).all()


def test_randomized_components_agree_with_exact_ones(monkeypatch):
    centered = low_rank(60, 5, noise=0.1)["sst"].values.reshape(60, -1).astype(float)
    centered -= centered.mean(axis=0)
    exact, variance = principal_components(centered, 5)
    monkeypatch.setattr("gridloom.evaluate.baselines.pca._EXACT_SIZE", 10)
    randomized, other = principal_components(centered, 5)
    np.testing.assert_allclose(randomized, exact, atol=1e-4)
    np.testing.assert_allclose(other, variance, rtol=1e-6)


def test_pca_refuses_too_many_components_and_other_grids():
    history = low_rank(6, 3)
    with pytest.raises(ConfigError, match="between 1 and 5"):
        PCAReconstruction(history, 6)
    with pytest.raises(DataError, match="as in the history"):
        PCAReconstruction(history, 2).predict(history.isel(x=slice(3)), ask(history.isel(x=slice(3))))


@pytest.mark.parametrize(
    "make",
    [
        lambda h: Persistence("sample"),
        lambda h: LinearInTime("sample"),
        MeanField,
        lambda h: BlockMean(4),
        lambda h: PCAReconstruction(h, 2),
        lambda h: Climatology(h, time_dim="sample"),
    ],
)
def test_every_baseline_answers_every_cell_in_float64_with_the_coordinates_asked(make):
    history = low_rank(8, 3)
    given = low_rank(4, 3, seed=1).assign_coords(lat=("y", np.arange(6.0)), sample=[8, 9, 10, 11])
    given["sst"][1] = np.nan
    given["sst"][:, 2] = np.nan
    before = given.copy(deep=True)
    answer = make(history).predict(given, ask(given))
    assert answer["sst"].dtype == np.float64
    assert answer["sst"].dims == ("sample", "y", "x")
    assert np.isfinite(answer["sst"]).all()
    xr.testing.assert_identical(answer.coords.to_dataset(), given.coords.to_dataset())
    xr.testing.assert_identical(given, before)


def test_few_of_many_directions_equal_the_whole_decomposition() -> None:
    values = np.cumsum(np.random.default_rng(3).normal(size=(60, 300)), axis=1)
    centered = values - values.mean(axis=0)
    directions, variances = principal_components(centered, 10)
    _, singular, exact = np.linalg.svd(centered, full_matrices=False)
    assert np.abs(np.sum(directions * exact[:10], axis=1)) == pytest.approx(np.ones(10), abs=1e-9)
    assert variances == pytest.approx(singular[:10] ** 2 / 59, rel=1e-9)
