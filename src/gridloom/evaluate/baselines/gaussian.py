"""Exact Gaussian backgrounds: the best linear estimate from all observations in space and time."""

from collections.abc import Callable
from dataclasses import asdict, replace

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float64

from gridloom.core.errors import ConfigError, DataError
from gridloom.evaluate.baselines.climate import Climate, describe_climate
from gridloom.evaluate.baselines.cubes import Axes, Cube, answer_cubes, hide_alike
from gridloom.evaluate.baselines.separable import (
    Precision,
    SeparableCovariance,
    Tile,
    apply,
    cut_tiles,
    solve_hidden,
)
from gridloom.grid.splits import decorrelation_length

__all__ = ["GaussianProcess", "SeparableCovariance", "condition", "fit_separable"]

_LOOSE = 0.05
"""Relative residual of draws: their squares are averaged over a few, which is far cruder."""


class GaussianProcess:
    """Simple kriging from all observations at once under a separable covariance that is fitted to what is given.

    Local kriging sees the nearest observations, which lie on one side of a gap; here all around it count, and the times
    before and after. The climatology is fitted to the observations and once more to the filled field.
    """

    def __init__(
        self,
        *,
        time_dim: str = "time",
        hide: Callable[[np.ndarray, int], np.ndarray] = hide_alike,
        covariance: SeparableCovariance | None = None,
        seed: int = 0,
    ) -> None:
        """Choose the settings.

        Args:
            time_dim: Dimension of time.
            hide: Takes the observed cells and a seed, returns those to hide in the fit; by default gaps like those
                that are there.
            covariance: Known scales; None fits them to each variable.
            seed: Of the fit.
        """
        self.time_dim, self.hide, self.covariance, self.seed = time_dim, hide, covariance, seed

    def predict(self, given: xr.Dataset, wanted: xr.Dataset) -> xr.Dataset:
        """Answer every cell that is wanted; others get what is observed, or an estimate too."""
        return answer_cubes(given, wanted, self.time_dim, self._fill)

    def _fill(self, cube: Cube) -> np.ndarray:
        covariance = self.covariance or fit_separable(cube.values, hide=self.hide, seed=self.seed, axes=cube.axes)
        return condition(cube.values, covariance, cube.wanted, axes=cube.axes, num_samples=0)[0]


def condition(
    values: Float64[np.ndarray, "time y x"],
    covariance: SeparableCovariance,
    wanted: Bool[np.ndarray, "time y x"] | None = None,
    *,
    axes: Axes | None = None,
    climate: Climate | None = None,
    num_samples: int = 8,
    seed: int = 0,
    tolerance: float = 2e-3,
) -> tuple[Float64[np.ndarray, "time y x"], Float64[np.ndarray, "time y x"]]:
    """Estimate missing cells from all observations.

    Grids of more than some 2,000 places are solved in overlapping tiles. Places that are never observed (land) take no
    part unless they are wanted.

    Args:
        values: Data; NaN is missing.
        covariance: Scales, see `fit_separable`.
        wanted: Cells to estimate; None for the missing ones of all places that are ever observed.
        axes: Times, the period of the cycle, and whether x closes a circle.
        climate: What anomalies are from; by default what the covariance names, made from `values` and once more from
            the first estimates.
        num_samples: Draws from the conditional distribution (Papandreou & Yuille 2010) that the standard deviations
            come from: with n of them, each is off by a factor of about 1 +- 1 / sqrt(2 n), less what blending with
            neighbors takes away. 0 for none: the deviation of all missing cells is then that of the climate.
        seed: Of the draws.
        tolerance: Relative residual at which an estimate is good enough; below 1e-4 all is done in float64.

    Returns:
        Estimates, and the standard deviations of an observation about them, in data units. Observed cells hold their
        observation with deviation 0; cells of places without any observation that nobody wants, the background.
    """
    axes = axes or Axes()
    observed = np.isfinite(values)
    places = observed.any(axis=0) if wanted is None else observed.any(axis=0) | wanted.any(axis=0)
    solver = _Solver(covariance, axes.steps_of(values), places, axes.periodic, tolerance)
    if climate is None:
        climate = _climate(values, covariance, axes)
        if (~observed & places).any() and observed.any():
            first = np.where(places, climate.background + climate.spread * solver.estimate(climate.anomalies(values)), np.nan)
            smooth = replace(covariance, y_smoothing=covariance.y_smoothing / 3, x_smoothing=covariance.x_smoothing / 3)
            again = _climate(first, smooth, axes).background
            climate = Climate(background=again, spread=climate.spread)
    mean = climate.background + climate.spread * solver.estimate(climate.anomalies(values))
    deviation = solver.deviation(observed, num_samples, seed) if num_samples else np.sqrt(covariance.variance)
    std = np.where(observed, 0.0, climate.spread * deviation)
    return np.where(observed, values, mean), std


def _climate(values: np.ndarray, covariance: SeparableCovariance, axes: Axes) -> Climate:
    """The climate that a covariance names."""
    return describe_climate(
        values,
        axes=axes,
        y_radius=covariance.y_smoothing,
        x_radius=covariance.x_smoothing,
        trend=covariance.trend,
    )


class _Solver:
    """Conditions anomalies of one grid, tile by tile."""

    def __init__(
        self, covariance: SeparableCovariance, steps: np.ndarray, places: np.ndarray, periodic: bool, tolerance: float
    ) -> None:
        self._covariance, self._steps = covariance, steps
        self._circle = places.shape[1] if periodic else 0
        self._tolerance, self._dtype = tolerance, np.float64 if tolerance < 1e-4 else np.float32
        self._tiles = list(cut_tiles(places, len(steps), periodic=periodic))
        self._factors: dict[int, tuple[Precision, Precision]] = {}
"""E
"""
