"""Exact Gaussian backgrounds against dense formulas, and on data whose answer is known."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import xarray as xr

from gridloom.core.errors import ConfigError, DataError
from gridloom.evaluate.baselines import GaussianProcess, RegularizedEM
from gridloom.evaluate.baselines.climate import Climate, blend
from gridloom.evaluate.baselines.cubes import Axes
from gridloom.evaluate.baselines.em import fit_em
from gridloom.evaluate.baselines.gaussian import SeparableCovariance, condition, fit_separable
from gridloom.evaluate.baselines.separable import cut_tiles
from gridloom.evaluate.baselines.solver import TileSolver
from gridloom.grid.gaps import hide_blocks

COVARIANCE = SeparableCovariance(
    short_time=0.8,
    long_time=5.0,
    short_share=0.4,
    time_nugget=0.1,
    y_length=3.0,
    x_length=4.0,
    space_nugget=0.05,
    sill=2.0,
)
SHAPE = (4, 5, 6)


def matrix(covariance, shape, *, steps=None, circle=0):
    """The whole covariance of a small grid, entry by entry from its definition."""
    cells = np.array(list(np.ndindex(shape)))
    times = np.arange(shape[0]) if steps is None else np.asarray(steps)
    dt = np.abs(np.subtract.outer(times[cells[:, 0]], times[cells[:, 0]]))
    dy, dx = (np.subtract.outer(cells[:, axis], cells[:, axis]) for axis in (1, 2))
    if circle:
        dx = circle / np.pi * np.sin(np.pi * dx / circle)
    share = covariance.short_share
    time = share * np.exp(-dt / covariance.short_time) + (1 - share) * np.exp(-dt / covariance.long_time)
    space = np.exp(-np.sqrt((dy / covariance.y_length) ** 2 + (dx / covariance.x_length) ** 2))
    same_place = (dy == 0) & np.isclose(dx, 0)
    return (
        covariance.sill * (time + covariance.time_nugget * (dt == 0)) * (space + covariance.space_nugget * same_place)
    )


def plain(shape):
    """A climate that changes nothing."""
    return Climate(background=np.zeros(shape), spread=np.ones(shape[1:]))


@pytest.fixture
def sparse():
    generator = np.random.default_rng(0)
    values = generator.normal(0, 2, SHAPE)
    values[generator.random(SHAPE) < 0.4] = np.nan
    values[:, 0, :2] = np.nan
    return values


@pytest.mark.parametrize(
    ("axes", "steps", "circle"),
    [
        (Axes(), [0, 1, 2, 3], 0),
        (Axes(periodic=True), [0, 1, 2, 3], 6),
        (Axes(times=np.array([0.0, 10.0, 20.0, 60.0])), [0, 1, 2, 6], 0),
    ],
)
def test_conditioning_is_the_dense_formula(sparse, axes, steps, circle):
    everywhere = np.ones(SHAPE, dtype=bool)
    mean, std = condition(
        sparse, COVARIANCE, everywhere, axes=axes, climate=plain(SHAPE), tolerance=1e-10, num_samples=1500
    )
    dense, known = matrix(COVARIANCE, SHAPE, steps=steps, circle=circle), np.isfinite(sparse).ravel()
    weights = np.linalg.solve(dense[known][:, known], dense[known][:, ~known])
    np.testing.assert_allclose(mean.ravel()[~known], weights.T @ sparse.ravel()[known], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(mean.ravel()[known], sparse.ravel()[known])
    variance = np.diag(dense)[~known] - (weights * dense[known][:, ~known]).sum(axis=0)
    np.testing.assert_allclose(std.ravel()[~known], np.sqrt(variance), rtol=0.1)
    assert np.all(std.ravel()[known] == 0)


def gaussian_field(covariance, shape, seed):
    """A draw from a covariance."""
    generator = np.random.default_rng(seed)
    over_time = np.linalg.cholesky(covariance.over_time(np.arange(shape[0], dtype=float)))
    y, x = (axis.ravel() for axis in np.mgrid[: shape[1], : shape[2]])
    over_space = np.linalg.cholesky(covariance.over_space(y, x))
    draw = over_time @ generator.normal(size=(shape[0], y.size)) @ over_space.T
    return np.sqrt(covariance.sill) * draw.reshape(shape)


def hide_boxes(observed, seed):
    return hide_blocks(observed, share=0.2, box=(2, 3, 3), seed=seed)


def test_values_of_missing_cells_and_land_do_not_enter(sparse):
    land = np.full((4, 5, 8), np.nan)
    land[:, :, :6] = sparse
    mean, std = condition(sparse, COVARIANCE)
    wider, deviation = condition(land, COVARIANCE)
    np.testing.assert_allclose(wider[:, :, :6], mean, atol=1e-4)
    np.testing.assert_allclose(deviation[:, :, :6], std, rtol=0.01)
    assert np.isfinite(wider).all() and np.isfinite(deviation).all()


def test_tiles_with_margins_make_up_the_grid_once():
    places = np.random.default_rng(1).random((30, 50)) < 0.8
    for periodic in (False, True):
        count = np.zeros((12, 30, 50), dtype=int)
        for tile in cut_tiles(places, 12, periodic=periodic, most_places=200, most_times=6):
            assert len(tile.times) <= 6 and len(tile.y) <= 200
            once = np.zeros_like(count)
            tile.put(once, np.ones(tile.core.shape, dtype=int))
            count += once
        np.testing.assert_array_equal(count, np.broadcast_to(places, count.shape))


def test_a_tile_may_lie_around_the_circle():
    first = next(cut_tiles(np.ones((4, 60), dtype=bool), 3, periodic=True, most_places=80))
    assert set(first.x) == {*range(55, 60), *range(15)}


def test_tiles_change_an_estimate_little():
    truth = replace(COVARIANCE, y_length=2.0, x_length=2.0)
    values = gaussian_field(truth, (3, 20, 70), seed=2)
    hidden = hide_boxes(np.isfinite(values), 3)
    given, places = np.where(hidden, np.nan, values), np.ones((20, 70), dtype=bool)
    tiled = TileSolver(truth, np.arange(3.0), places, periodic=False, tolerance=1e-8)
    whole = TileSolver(truth, np.arange(3.0), places, periodic=False, tolerance=1e-8)
    whole.tiles = list(cut_tiles(places, 3, periodic=False, most_places=places.size))
    assert len(tiled.tiles) > len(whole.tiles) == 1
    np.testing.assert_allclose(tiled.solve(given)[0], whole.solve(given)[0], atol=1e-3)


@pytest.fixture(scope="module")
def drawn():
    truth = replace(COVARIANCE, space_nugget=0.02, y_length=6.0, x_length=12.0)
    values = 10 + gaussian_field(truth, (20, 10, 12), seed=1)
    return truth, values, hide_boxes(np.isfinite(values), 5)


def test_fitted_scales_predict_as_well_as_the_true_ones_and_say_how_well(drawn):
    truth, values, hidden = drawn
    given = np.where(hidden, np.nan, values)
    fitted = fit_separable(given, hide=hide_boxes)
    errors = {}
    for name, covariance in {"true": truth, "fitted": fitted}.items():
        mean, std = condition(given, covariance)
        errors[name] = np.sqrt(np.square(mean - values)[hidden].mean())
    assert errors["fitted"] < 1.05 * errors["true"] < 0.7 * values.std()
    assert np.square((mean - values)[hidden] / std[hidden]).mean() == pytest.approx(1, abs=0.3)
    assert SeparableCovariance(**json.loads(json.dumps(asdict(fitted)))) == fitted


def test_the_same_seed_gives_the_same_numbers_and_another_other_deviations(sparse):
    one, two, other = (condition(sparse, COVARIANCE, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(one[0], other[0])
    assert not np.array_equal(one[1], other[1])


def test_poor_records_are_defined():
    constant = np.full(SHAPE, 3.0)
    constant[1, 2] = np.nan
    mean, std = condition(constant, COVARIANCE)
    np.testing.assert_allclose(mean, 3.0, atol=1e-6)
    np.testing.assert_allclose(std, 0.0, atol=1e-6)
    flat = np.full((6, 8, 9), 3.0)
    learned = fit_em(flat, fit_separable(flat), rounds=1)
    np.testing.assert_allclose(condition(np.where(hide_boxes(flat > 0, 0), np.nan, flat), learned)[0], 3.0, atol=1e-6)
    nothing = np.full(SHAPE, np.nan)
    np.testing.assert_array_equal(condition(nothing, COVARIANCE)[0], 0.0)
    with pytest.raises(DataError, match="observations to hide"):
        fit_separable(nothing)
    with pytest.raises(DataError, match="got none"):
        fit_em(nothing, COVARIANCE)
    once = np.random.default_rng(0).normal(size=(1, 6, 7))
    once[0, 2, 3] = np.nan
    assert np.isfinite(condition(once, COVARIANCE)).all()


def test_a_covariance_refuses_what_is_none():
    for wrong in ({"x_length": 0.0}, {"short_share": 1.5}, {"sill": -1.0}):
        with pytest.raises(ConfigError, match="covariance"):
            replace(COVARIANCE, **wrong)


def test_blending_knows_missing_cells_and_the_circle():
    generator = np.random.default_rng(9)
    fields, weight = generator.normal(size=(2, 6, 8)), generator.integers(0, 3, (6, 8)).astype(float)
    y, x = np.mgrid[:6, :8]
    for periodic in (False, True):
        smooth = blend(fields, weight, y_radius=0.5, x_radius=0.7, periodic=periodic)
        for cell in np.ndindex(6, 8):
            dy, dx = np.abs(y - cell[0]), np.abs(x - cell[1])
            dx = np.minimum(dx, 8 - dx) if periodic else dx
            kernel = weight * np.exp(-(dy**2) / 0.5 - dx**2 / 0.98) * ((dy <= 2) & (dx <= 3))
            expected = (kernel * fields).sum(axis=(1, 2)) / kernel.sum()
            np.testing.assert_allclose(smooth[:, cell[0], cell[1]], expected, atol=1e-9)


def test_a_covariance_that_is_learned_finds_what_distance_does_not_say():
    generator = np.random.default_rng(4)
    patterns = generator.normal(size=(3, 48))  # places far apart go together
    values = (generator.normal(size=(150, 3)) @ patterns + 0.1 * generator.normal(size=(150, 48))).reshape(150, 6, 8)
    hidden = hide_boxes(np.isfinite(values), 6)
    given = np.where(hidden, np.nan, values)
    prior = SeparableCovariance(short_share=0.9, short_time=0.2, y_length=2.0, x_length=2.0)
    learned = fit_em(given, prior, prior_times=20.0)
    errors = [
        np.square(condition(given, covariance, num_samples=0)[0] - values)[hidden].mean()
        for covariance in (prior, learned)
    ]
    assert errors[1] < 0.1 * errors[0]


def test_learning_needs_the_places_that_are_asked_later(sparse):
    learned = fit_em(sparse, COVARIANCE, rounds=1)
    with pytest.raises(DataError, match="others"):
        condition(sparse, learned, np.ones(SHAPE, dtype=bool))
    whole = fit_em(sparse, COVARIANCE, np.ones(SHAPE, dtype=bool), rounds=0)
    everywhere = np.ones(SHAPE, dtype=bool)
    expected = condition(sparse, COVARIANCE, everywhere)
    np.testing.assert_allclose(condition(sparse, whole, everywhere), expected, atol=0.02)
    with pytest.raises(ConfigError, match="rounds"):
        fit_em(sparse, COVARIANCE, rounds=-1)


@pytest.mark.parametrize("method", [GaussianProcess(covariance=COVARIANCE), RegularizedEM(covariance=COVARIANCE)])
def test_predictors_answer_datasets(method, drawn):
    _, values, hidden = drawn
    times = np.arange("2001-01", "2002-09", dtype="datetime64[M]").astype("datetime64[ns]")
    truth = xr.Dataset({"sst": (("time", "y", "x"), values)}, coords={"time": times})
    wanted = truth.notnull() & xr.DataArray(hidden, dims=("time", "y", "x"))
    answer = method.predict(truth.where(~wanted), wanted)["sst"].values
    np.testing.assert_array_equal(answer[~hidden], values[~hidden])
    assert np.square(answer - values)[hidden].mean() < 0.5 * values.var()
