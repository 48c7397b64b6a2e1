"""Gap-filling baselines against slow references, and on data whose answer is known."""

from dataclasses import replace

import numpy as np
import pytest

from gridloom.evaluate.baselines.cubes import Axes
from gridloom.evaluate.baselines.kriging import Covariance, krige

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
