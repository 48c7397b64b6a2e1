"""Gap-filling baselines against slow references, and on data whose answer is known."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import xarray as xr

from gridloom.core.errors import ConfigError, DataError
from gridloom.evaluate.baselines import DINEOF, LinearAnomalies, LinearInSpace, OptimalInterpolation, SmoothClimatology
from gridloom.evaluate.baselines.cubes import Axes
from gridloom.evaluate.baselines.eof import choose_rank, fill_eof
from gridloom.evaluate.baselines.kriging import Covariance, fit_covariance, krige
from gridloom.evaluate.baselines.smooth import smooth_climatology, smooth_in_space
from gridloom.grid.gaps import hide_blocks, hide_cells
from gridloom.grid.samples import open_sample

COVARIANCE = Covariance(time_length=2.0, y_length=3.0, x_length=1.5, sill=2.5, nugget=0.05)


@pytest.fixture
def sparse():
    generator = np.random.default_rng(0)
    values = generator.normal(5, 2, (4, 5, 6))
    values[generator.random(values.shape) < 0.4] = np.nan
    return values


def krige_densely(values, covariance, *, steps, circle=0, leave_one_out=False):
    """Simple kriging over all observations, one cell after another."""
    level = np.nanmean(values)
    places = np.argwhere(np.isfinite(values))
    mean, std = np.full_like(values, np.nan), np.full_like(values, np.nan)

    def correlate(one, other):
        time = np.abs(np.subtract.outer(np.take(steps, one[:, 0]), np.take(steps, other[:, 0])))
        y = np.abs(np.subtract.outer(one[:, 1], other[:, 1]))
        x = np.abs(np.subtract.outer(one[:, 2], other[:, 2]))
        x = np.minimum(x, circle - x) if circle else x
        space = np.sqrt((y / covariance.y_length) ** 2 + (x / covariance.x_length) ** 2)
        return np.exp(-time / covariance.time_length) * np.exp(-space)

    for cell in places if leave_one_out else np.ndindex(values.shape):
        seen = places[(places != cell).any(axis=1)] if leave_one_out else places
        towards = correlate(seen, np.array([cell]))[:, 0]
        weights = np.linalg.solve(correlate(seen, seen) + covariance.nugget * np.eye(len(seen)), towards)
        mean[tuple(cell)] = level + weights @ (values[tuple(seen.T)] - level)
        std[tuple(cell)] = np.sqrt(covariance.sill * (1 + covariance.nugget - weights @ towards))
    return mean, std


@pytest.mark.parametrize(
    ("axes", "steps", "circle"),
    [
        (Axes(), [0, 1, 2, 3], 0),
        (Axes(periodic=True), [0, 1, 2, 3], 6),
        (Axes(times=np.array([0.0, 10.0, 20.0, 60.0])), [0, 1, 2, 6], 0),
    ],
)
@pytest.mark.parametrize("leave_one_out", [False, True])
def test_kriging_from_all_observations_is_dense_simple_kriging(sparse, axes, steps, circle, leave_one_out):
    wanted = np.isfinite(sparse) | (not leave_one_out)
    mean, std = krige(sparse, wanted, COVARIANCE, axes=axes, neighbors=sparse.size, leave_one_out=leave_one_out)
    expected = krige_densely(sparse, COVARIANCE, steps=steps, circle=circle, leave_one_out=leave_one_out)
    np.testing.assert_allclose(mean[wanted], expected[0][wanted], rtol=0, atol=1e-8)
    np.testing.assert_allclose(std[wanted], expected[1][wanted], rtol=0, atol=1e-8)


def test_kriging_keeps_what_is_not_wanted_and_falls_back_to_the_background(sparse):
    far = np.full((40, 5, 6), np.nan)
    far[:4] = sparse
    wanted = np.isnan(far) & (np.arange(40) > 2)[:, None, None]
    mean, std = krige(far, wanted, replace(COVARIANCE, time_length=0.5))
    np.testing.assert_array_equal(mean[np.isfinite(far)], far[np.isfinite(far)])
    assert np.all(std[np.isfinite(far)] == 0)
    np.testing.assert_allclose(mean[-1], np.nanmean(sparse))
    np.testing.assert_allclose(std[-1], np.sqrt(COVARIANCE.sill * (1 + COVARIANCE.nugget)))


def gaussian_field(covariance, shape, seed):
    """A draw from a covariance, by the square roots of its two factors."""
    generator = np.random.default_rng(seed)
    times, height, width = shape
    in_time = np.exp(-np.abs(np.subtract.outer(range(times), range(times))) / covariance.time_length)
    y, x = (axis.ravel() for axis in np.mgrid[:height, :width])
    dy, dx = np.subtract.outer(y, y) / covariance.y_length, np.subtract.outer(x, x) / covariance.x_length
    in_space = np.exp(-np.hypot(dy, dx))
    draw = np.linalg.cholesky(in_time) @ generator.normal(size=(times, y.size)) @ np.linalg.cholesky(in_space).T
    noise = np.sqrt(covariance.nugget) * generator.normal(size=draw.shape)
    return np.sqrt(covariance.sill) * (draw + noise).reshape(shape)


def test_fitted_scales_predict_as_well_as_the_true_ones_and_say_how_well():
    truth = Covariance(time_length=4.0, y_length=6.0, x_length=3.0, sill=4.0, nugget=0.01)
    values = 10 + gaussian_field(truth, (30, 12, 16), seed=1)
    hidden = hide_blocks(np.isfinite(values), share=0.2, box=(2, 3, 3), seed=5)
    given = np.where(hidden, np.nan, values)
    fitted = fit_covariance(given, hide=lambda seen, seed: hide_blocks(seen, share=0.1, box=(2, 3, 3), seed=seed))
    scores = {}
    for name, covariance in {"true": truth, "fitted": fitted}.items():
        mean, std = krige(given, hidden, covariance)
        scores[name] = np.sqrt(np.square(mean - values)[hidden].mean())
    assert scores["fitted"] < 1.05 * scores["true"] < 0.9 * values.std()
    assert np.square((mean - values)[hidden] / std[hidden]).mean() == pytest.approx(1, abs=0.25)
    assert 0.5 < (fitted.y_length / fitted.x_length) / 2 < 2


def test_a_fit_repeats_and_its_record_is_json():
    values = gaussian_field(COVARIANCE, (12, 8, 9), seed=2)
    first, second = fit_covariance(values, seed=3, cells=100), fit_covariance(values, seed=3, cells=100)
    assert first == second == Covariance(**json.loads(json.dumps(asdict(first))))


def test_kriging_refuses_what_it_cannot_fit():
    with pytest.raises(ConfigError, match="lengths above 0"):
        replace(COVARIANCE, x_length=0.0)
    with pytest.raises(DataError, match="observations to hide"):
        fit_covariance(np.full((3, 4, 5), np.nan))


def low_rank(seed, times=30, cells=80, rank=3):
    generator = np.random.default_rng(seed)
    return generator.normal(size=(times, rank)) @ generator.normal(size=(rank, cells)) + generator.normal(size=cells)


@pytest.mark.parametrize("wide", [True, False])
def test_eof_filling_recovers_a_matrix_of_low_rank(wide):
    matrix = low_rank(0) if wide else low_rank(0, times=80, cells=30)
    hidden = np.random.default_rng(1).random(matrix.shape) < 0.2
    filled = fill_eof(np.where(hidden, np.nan, matrix), 3, iterations=2000, tolerance=1e-9)
    np.testing.assert_array_equal(filled[~hidden], matrix[~hidden])
    np.testing.assert_allclose(filled[hidden], matrix[hidden], atol=1e-5)


def test_an_eof_filling_is_a_fixed_point_of_the_truncated_svd():
    matrix = low_rank(2, rank=8)
    hidden = np.random.default_rng(3).random(matrix.shape) < 0.2
    filled = fill_eof(np.where(hidden, np.nan, matrix), 4, iterations=5000, tolerance=1e-10)
    mean = filled.mean(axis=0)
    left, singular, right = np.linalg.svd(filled - mean, full_matrices=False)
    np.testing.assert_allclose(((left[:, :4] * singular[:4]) @ right[:4] + mean)[hidden], filled[hidden], atol=1e-6)


def test_the_rank_chosen_is_that_of_the_data():
    matrix = low_rank(4) + 0.1 * np.random.default_rng(5).normal(size=(30, 80))
    hidden = np.random.default_rng(6).random(matrix.shape) < 0.1
    choice = choose_rank(matrix, hidden, iterations=1000, tolerance=1e-5)
    assert choice.rank == 3 == int(np.argmin(choice.errors)) and len(choice.errors) == 7


def test_eof_filling_answers_what_nobody_has_seen_with_means():
    matrix = low_rank(7)
    matrix[:, 5] = np.nan
    matrix[4] = np.nan
    filled = fill_eof(matrix, 2)
    np.testing.assert_allclose(filled[:, 5], np.nanmean(matrix))
    np.testing.assert_allclose(filled[4, :5], np.nanmean(matrix[:, :5], axis=0), atol=0.05)
    with pytest.raises(ConfigError, match="0 to 30"):
        fill_eof(matrix, 31)
    with pytest.raises(DataError, match="got none"):
        fill_eof(np.full((3, 4), np.nan), 1)


def test_a_climatology_finds_mean_cycle_and_trend():
    times = np.arange(60.0)
    level = np.linspace(0, 5, 12).reshape(3, 4)
    cycle = np.cos(2 * np.pi * (times - 1) / 12) + 0.3 * np.sin(4 * np.pi * times / 12)
    values = level + (cycle + 0.02 * times)[:, None, None]
    found = smooth_climatology(values, axes=Axes(period=12.0), trend=True, radius=0.0)
    assert np.abs(found - values).max() < 0.15  # the prior draws a little
    yearly = smooth_climatology(values, axes=Axes(period=1.0), radius=0.0)
    np.testing.assert_allclose(yearly, np.broadcast_to(values.mean(axis=0), values.shape), atol=1e-6)


def test_blending_takes_the_speckle_of_gaps_out_of_a_climatology():
    values = gaussian_field(Covariance(time_length=6.0, y_length=9.0, x_length=9.0), (60, 10, 12), seed=8)
    given = np.where(hide_blocks(np.isfinite(values), share=0.6, box=(6, 3, 3)), np.nan, values)
    whole = smooth_climatology(values, axes=Axes(period=12.0), radius=0.0)
    errors = [np.square(smooth_climatology(given, axes=Axes(period=12.0), radius=r) - whole).mean() for r in (0.0, 1.0)]
    assert errors[1] < 0.8 * errors[0]


@pytest.mark.parametrize("periodic", [False, True])
def test_smoothing_in_space_is_a_weighted_mean_of_the_cells_that_are_there(periodic):
    generator = np.random.default_rng(9)
    field, weight = generator.normal(size=(6, 8)), generator.integers(0, 3, (6, 8)).astype(float)
    smooth = smooth_in_space(field, weight, radius=0.5, periodic=periodic)
    y, x = np.mgrid[:6, :8]
    for cell in np.ndindex(6, 8):
        dy, dx = np.abs(y - cell[0]), np.abs(x - cell[1])
        dx = np.minimum(dx, 8 - dx) if periodic else dx
        kernel = weight * np.exp(-2 * (dy**2 + dx**2)) * ((dy <= 2) & (dx <= 2))
        assert smooth[cell] == pytest.approx((kernel * field).sum() / kernel.sum(), abs=1e-9)


def dataset(values, **coords):
    return xr.Dataset({"sst": (("time", "y", "longitude"), values)}, coords=coords)


def question(truth, hidden):
    return dataset(np.where(hidden, np.nan, truth)), dataset(hidden)


def test_linear_in_space_is_exact_on_a_plane_and_nearest_beyond():
    y, x = np.mgrid[:9, :10].astype(float)
    truth = np.stack([2 * y - x, x + 3])
    hidden = np.zeros(truth.shape, dtype=bool)
    hidden[:, 3:6, 4:7] = True
    hidden[1, :, 8:] = True
    answer = LinearInSpace().predict(*question(truth, hidden))["sst"].values
    expected = truth.copy()
    expected[1, :, 8:] = truth[1, :, 7:8]
    np.testing.assert_allclose(answer, expected, atol=1e-12)


def test_linear_in_space_goes_around_the_globe_and_does_with_little():
    longitude = np.arange(0, 360, 30.0)
    truth = np.broadcast_to(np.abs(longitude - 180), (3, 4, 12)).copy()
    hidden = np.zeros(truth.shape, dtype=bool)
    hidden[0, :, [0, 11]] = True
    hidden[1, 1:] = True
    hidden[2] = True
    given, wanted = question(truth, hidden)
    answer = LinearInSpace().predict(given.assign_coords(longitude=longitude), wanted)["sst"].values
    np.testing.assert_allclose(answer[0, 0, [11, 0]], [130, 140])
    np.testing.assert_allclose(answer[1], truth[1])
    np.testing.assert_allclose(answer[2], np.nanmean(given["sst"]))


def test_linear_anomalies_keep_the_cycle_that_a_line_cuts_off():
    dates = np.arange("2001-01", "2007-01", dtype="datetime64[M]").astype("datetime64[ns]")
    truth = np.broadcast_to(np.cos(2 * np.pi * np.arange(72) / 12)[:, None, None], (72, 3, 4)).copy()
    hidden = np.zeros(truth.shape, dtype=bool)
    hidden[20:26] = True
    given, wanted = (part.assign_coords(time=dates) for part in question(truth, hidden))
    answer = LinearAnomalies().predict(given, wanted)["sst"].values
    assert np.abs(answer - truth)[hidden].max() < 0.1


@pytest.mark.parametrize("baseline", [OptimalInterpolation(), DINEOF(), SmoothClimatology(), LinearAnomalies()])
def test_gap_baselines_never_see_what_is_asked_and_keep_the_form(baseline):
    truth = gaussian_field(COVARIANCE, (14, 6, 7), seed=10)
    hidden = hide_cells(np.isfinite(truth), share=0.2)
    given, wanted = question(truth, hidden)
    given, wanted = (part.expand_dims(channel=2).transpose("time", "channel", ...) for part in (given, wanted))
    answer = baseline.predict(given, wanted)
    assert answer["sst"].dims == wanted["sst"].dims and np.isfinite(answer["sst"].values).all()
    np.testing.assert_array_equal(answer["sst"][:, 0], answer["sst"][:, 1])
    assert np.square(answer["sst"][:, 0] - truth).values[hidden].mean() < 1.3 * truth.var()


@pytest.mark.parametrize(("baseline", "known"), [(OptimalInterpolation(), 0.261), (DINEOF(), 0.327)])
def test_winters_of_the_pacific_are_filled_as_well_as_is_known_or_better(baseline, known):
    data = open_sample("ssta")[["sst"]]
    hidden = hide_blocks(np.isfinite(data["sst"].values))
    wanted = xr.Dataset({"sst": (data["sst"].dims, hidden)}, coords=data.coords)
    answer = baseline.predict(data.where(~wanted), wanted)
    assert np.sqrt(np.square(answer["sst"] - data["sst"]).values[hidden].mean()) < known


@pytest.mark.parametrize("baseline", [OptimalInterpolation(), DINEOF(), LinearInSpace(), LinearAnomalies()])
def test_times_that_were_not_given_are_answered(baseline):
    given = dataset(gaussian_field(COVARIANCE, (8, 5, 6), seed=11), time=np.arange(8))
    wanted = dataset(np.ones((2, 5, 6), dtype=bool), time=[8, 9])
    answer = baseline.predict(given, wanted)["sst"]
    assert answer["time"].values.tolist() == [8, 9] and np.abs(answer.values).max() < np.abs(given["sst"].values).max()


@pytest.mark.parametrize("baseline", [OptimalInterpolation(), DINEOF()])
def test_scales_cannot_be_found_without_observations(baseline):
    given, wanted = question(np.zeros((3, 4, 5)), np.ones((3, 4, 5), dtype=bool))
    with pytest.raises(DataError, match="expected observ"):
        baseline.predict(given, wanted)


def test_a_variable_without_space_is_refused():
    series = xr.Dataset({"flow": ("time", np.arange(5.0))})
    with pytest.raises(DataError, match="two dimensions of space"):
        OptimalInterpolation().predict(series, series.notnull())
