"""Exact Gaussian backgrounds against dense formulas, and on data whose answer is known."""

import numpy as np
import pytest

from gridloom.evaluate.baselines.climate import Climate
from gridloom.evaluate.baselines.cubes import Axes
from gridloom.evaluate.baselines.gaussian import SeparableCovariance, condition

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
