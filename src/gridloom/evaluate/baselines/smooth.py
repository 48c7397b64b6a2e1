"""What is usual at a place and a time of the year, without the speckle of gaps."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import xarray as xr
from jaxtyping import Float64

from gridloom.core.errors import ConfigError
from gridloom.evaluate.baselines.cubes import Axes, Cube, answer_cubes, hide_alike

__all__ = ["SMOOTHINGS", "SmoothClimatology", "smooth_climatology", "smooth_in_space"]

_PRIOR_OBSERVATIONS = 3.0
"""A harmonic of a cell with this many observations is drawn halfway to nought."""


SMOOTHINGS = (0.0, 1.0, 2.0, 4.0)
"""Radii that are tried, in cells. Few gaps and sharp fronts ask for small ones, many gaps for large ones."""


class SmoothClimatology:
    """Answers with the mean and the yearly cycle of each cell, smoothed in space.

    A mean of the few observations that gaps have left jumps from cell to cell, since neighbors were seen at different
    times. Here each cell's fit is blended with those of its neighbors, by the number of observations.
    """

    def __init__(
        self,
        *,
        time_dim: str = "time",
        radius: float | None = None,
        harmonics: int = 2,
        period: float | None = None,
        trend: bool = False,
    ) -> None:
        """Choose what the climatology can hold.

        Args:
            time_dim: Dimension of time.
            radius: Standard deviation of the blending in cells, 0 for none; None finds, for each variable, the one
                that best predicts observed cells hidden in the shape of the gaps.
            harmonics: Of the cycle: 1 for a sine, 2 for one that need not be symmetric. Fewer are taken where the
                steps of time are too long or the times too few; none of yearly data.
            period: Length of the cycle in the time coordinate's unit. By default a year for dates; numbers have none.
            trend: Whether a line in time is fitted too.
        """
        if (radius or 0) < 0 or harmonics < 0 or (period is not None and period <= 0):
            raise ConfigError(
                f"radius, harmonics, period: expected 0 or more (period above), got {radius}, {harmonics}, {period}"
            )
        self.time_dim, self.radius, self.harmonics = time_dim, radius, harmonics
        self.period, self.trend = period, trend

    def predict(self, given: xr.Dataset, wanted: xr.Dataset) -> xr.Dataset:
        """Answer every cell of `wanted`."""
        return answer_cubes(given, wanted, self.time_dim, self.background)

    def background(self, cube: Cube) -> np.ndarray:
        """Climatology of one variable at all its cells."""
        axes = cube.axes if self.period is None else replace(cube.axes, period=self.period)
        fit = partial(smooth_climatology, axes=axes, harmonics=self.harmonics, trend=self.trend)
        return fit(cube.values, radius=_best_radius(cube.values, fit) if self.radius is None else self.radius)


def _best_radius(values: np.ndarray, fit: Callable[..., np.ndarray]) -> float:
    """The radius with the smallest error at hidden cells, the larger of equals; 1 where nothing can be hidden."""
    observed = np.isfinite(values)
    hidden = hide_alike(observed, 0) if observed.any() else observed
    if not hidden.any():
        return 1.0
    kept = np.where(hidden, np.nan, values)
    return min(SMOOTHINGS[::-1], key=lambda radius: float(np.square(fit(kept, radius=radius) - values)[hidden].mean()))


def smooth_climatology(
    values: Float64[np.ndarray, "time y x"],
    *,
    axes: Axes | None = None,
    harmonics: int = 2,
    trend: bool = False,
    radius: float = 1.0,
) -> Float64[np.ndarray, "time y x"]:
    """Fit mean, cycle and trend by least squares over the observations of each cell, then blend the cells.

    Args:
        values: Data; NaN is missing.
        axes: Times, the period of the cycle, and whether x closes a circle.
        harmonics: Sines and cosines of the cycle: at most as many as the steps can resolve, and only where the times
            span a whole cycle and are eight for each.
        trend: Whether a line in time is fitted.
        radius: Standard deviation of the blending in cells; 0 for none.

    Returns:
        The fit at all cells; one that nothing near has observed has the mean of all fits.
    """
    axes = axes or Axes()
    design, prior = _design(axes.times_of(values), axes.period, harmonics, trend)
    count, height, width = values.shape
    observed = np.isfinite(values).reshape(count, -1)
    level = float(values[np.isfinite(values)].mean()) if observed.any() else 0.0
    anomalies = np.where(observed, values.reshape(count, -1) - level, 0.0)
    products = np.einsum("tp,tq->tpq", design, design).reshape(count, -1)
    normal = (observed.T.astype(np.float64) @ products).reshape(-1, len(prior), len(prior)) + np.diag(prior)
    fits = np.linalg.solve(normal, (anomalies.T @ design)[..., None])[..., 0].T.reshape(-1, height, width)
    weight = observed.sum(axis=0).astype(np.float64).reshape(height, width)
    blended = np.stack([smooth_in_space(fit, weight, radius=radius, periodic=axes.periodic) for fit in fits])
    fitted: np.ndarray = level + np.einsum("tp,pyx->tyx", design, blended)
    return fitted


def smooth_in_space(
    field: Float64[np.ndarray, "y x"], weight: Float64[np.ndarray, "y x"], *, radius: float, periodic: bool = False
) -> Float64[np.ndarray, "y x"]:
    """Normalized convolution with a Gaussian (Knutsson & Westin 1993): cells count by their weight, missing ones not.

    Args:
        field: Finite numbers.
        weight: 0 where a cell is missing.
        radius: Standard deviation in cells; 0 leaves cells with weight as they are.
        periodic: Whether x closes a circle.

    Returns:
        The weighted mean around each cell; the weighted mean of all where the kernel (four radii) reaches no weight.
    """
    from scipy.ndimage import gaussian_filter

    total = float(weight.sum())
    everywhere = float((field * weight).sum()) / total if total else 0.0
    product = weight * (field - everywhere)
    if radius:
        mode = ("constant", "wrap" if periodic else "constant")
        product = gaussian_filter(product, radius, mode=mode)
        weight = gaussian_filter(weight, radius, mode=mode)
    reached = weight > 1e-9 * max(total, 1.0) / weight.size
    blended: np.ndarray = everywhere + np.divide(product, weight, out=np.zeros_like(product), where=reached)
    return blended


def _design(times: np.ndarray, period: float | None, harmonics: int, trend: bool) -> tuple[np.ndarray, np.ndarray]:
    """Columns of the regression, [time, term], and the weight that draws each term to nought."""
    columns, prior = [np.ones(len(times))], [1e-9]  # a cell without observations has a level of nought
    span = float(np.ptp(times)) if len(times) else 0.0
    if trend and span > 0:
        columns.append(2 * (times - times.mean()) / span)
        prior.append(_PRIOR_OBSERVATIONS)
    if period is not None and len(times) > 1:
        step = float(np.median(np.abs(np.diff(times))))
        for order in range(1, harmonics + 1):
            if span + step < 0.99 * period or 2.5 * step * order > period or len(times) < 8 * order:
                break
            angle = 2 * np.pi * order * times / period
            columns += [np.cos(angle), np.sin(angle)]
            prior += [_PRIOR_OBSERVATIONS / 2] * 2  # a sine has a mean square of a half
    return np.stack(columns, axis=1), np.array(prior)
