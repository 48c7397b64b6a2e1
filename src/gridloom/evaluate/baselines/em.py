"""Gaussian backgrounds whose covariance over space is learned from the record itself, gaps and all."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float64

from gridloom.core.errors import ConfigError, DataError
from gridloom.evaluate.baselines.cubes import Axes, Cube, answer_cubes, hide_alike
from gridloom.evaluate.baselines.gaussian import condition, fit_separable, named_climate, refit_climate
from gridloom.evaluate.baselines.separable import LearnedCovariance, SeparableCovariance
from gridloom.evaluate.baselines.solver import TileSolver

__all__ = ["RegularizedEM", "fit_em"]

_TOLERANCE = 0.01
"""Relative residual of the estimates that a covariance is learned from."""


class RegularizedEM:
    """Expectation maximization of the covariance over space (after Schneider 2001), drawn to a parametric one.

    Distance does not say all about how places go together: currents, coasts and waves have their own. From many times
    that can be learned; with few, the parametric covariance decides.
    """

    def __init__(
        self,
        *,
        time_dim: str = "time",
        rounds: int = 3,
        prior_times: float = 100.0,
        hide: Callable[[np.ndarray, int], np.ndarray] = hide_alike,
        covariance: SeparableCovariance | None = None,
        seed: int = 0,
    ) -> None:
        """Choose the settings.

        Args:
            time_dim: Dimension of time.
            rounds: Of the estimation; 0 leaves the parametric covariance.
            prior_times: Number of times that the parametric covariance counts as.
            hide: Takes the observed cells and a seed, returns those to hide in the fit of the parametric covariance.
            covariance: Known parametric covariance; None fits it to each variable.
            seed: Of the fit and of the draws.
        """
        self.time_dim, self.rounds, self.prior_times = time_dim, rounds, prior_times
        self.hide, self.covariance, self.seed = hide, covariance, seed

    def predict(self, given: xr.Dataset, wanted: xr.Dataset) -> xr.Dataset:
        """Answer every cell that is wanted; others get what is observed, or an estimate too."""
        return answer_cubes(given, wanted, self.time_dim, self._fill)

    def _fill(self, cube: Cube) -> np.ndarray:
        prior = self.covariance or fit_separable(cube.values, hide=self.hide, seed=self.seed, axes=cube.axes)
        learned = fit_em(
            cube.values,
            prior,
            cube.wanted,
            axes=cube.axes,
            rounds=self.rounds,
            prior_times=self.prior_times,
            seed=self.seed,
        )
        return condition(cube.values, learned, cube.wanted, axes=cube.axes, num_samples=0)[0]


def fit_em(
    values: Float64[np.ndarray, "time y x"],
    prior: SeparableCovariance,
    wanted: Bool[np.ndarray, "time y x"] | None = None,
    *,
    axes: Axes | None = None,
    rounds: int = 3,
    prior_times: float = 100.0,
    num_samples: int = 2,
    seed: int = 0,
) -> LearnedCovariance:
    """Estimate the covariance over space by expectation maximization, with the parametric one as its prior.

    Each round fills the gaps, takes the moments of the filled field and of what is not known about it (from draws),
    and fits the climatology to it again.

    Args:
        values: Data; NaN is missing.
        prior: What the covariance is drawn to, and what it is over time.
        wanted: Cells to be asked for later; their places take part even if they are never observed.
        axes: Times, the period of the cycle, and whether x closes a circle.
        rounds: Of the estimation.
        prior_times: Number of times that the prior counts as.
        num_samples: Draws of what is not known.
        seed: Of the draws.

    Returns:
        What `condition` takes. It holds a matrix for each tile: places squared.

    Raises:
        DataError: Nothing is observed.
        ConfigError: Settings that make no sense.
    """
    if rounds < 0 or prior_times <= 0 or num_samples < 1:
        raise ConfigError(
            f"rounds, prior_times, num_samples: expected 0 or more, above 0, 1 or more; "
            f"got {rounds}, {prior_times}, {num_samples}"
        )
    axes = axes or Axes()
    observed = np.isfinite(values).any(axis=0)
    if not observed.any():
        raise DataError("expected observations to learn a covariance from, got none")
    places = observed if wanted is None else observed | wanted.any(axis=0)
    scales = replace(prior, sill=1.0)

    def solver_of(covariance: SeparableCovariance | LearnedCovariance) -> TileSolver:
        return TileSolver(covariance, axes.steps_of(values), places, periodic=axes.periodic, tolerance=_TOLERANCE)

    solver = solver_of(prior)
    priors = tuple(prior.sill * solver.over_space(number) for number in range(len(solver.tiles)))
    learned = LearnedCovariance(scales=scales, places=places, over_space=priors)
    climate = named_climate(values, scales, axes)
    for number in range(rounds):
        solver = solver_of(learned)
        anomalies = climate.anomalies(values)
        climate = refit_climate(climate, places, solver.solve(anomalies)[0], scales, axes)
        moments = solver.moments(climate.anomalies(values), num_samples, seed + number)
        parts = zip(solver.tiles, moments, priors, strict=True)
        over_space = tuple(
            (moment + prior_times * before) / (len(tile.times) + prior_times) for tile, moment, before in parts
        )
        learned = replace(learned, over_space=over_space)
    return learned
