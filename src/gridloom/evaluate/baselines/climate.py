"""What Gaussian backgrounds take for granted: a smooth climatology, and how far the data stray from it."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from gridloom.evaluate.baselines.cubes import Axes
from gridloom.evaluate.baselines.smooth import smooth_climatology

__all__ = ["Climate", "blend", "describe_climate"]

_LEAST_SPREAD = 0.25
"""Least spread of a cell in terms of the root mean square spread: a few observations may agree by chance."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Climate:
    """Anomalies are (values - background) / spread."""

    background: Float64[np.ndarray, "time y x"]
    """What is usual, in data units."""
    spread: Float64[np.ndarray, "y x"]
    """Standard deviation about it, in data units; 0 all over where nothing strays."""

    def anomalies(self, values: Float64[np.ndarray, "time y x"]) -> Float64[np.ndarray, "time y x"]:
        """Deviations in terms of the spread; NaN stays."""
        return np.asarray((values - self.background) / np.where(self.spread > 0, self.spread, 1.0))


def describe_climate(
    values: Float64[np.ndarray, "time y x"],
    *,
    axes: Axes,
    y_radius: float = 1.0,
    x_radius: float = 1.0,
    trend: bool = False,
) -> Climate:
    """Fit mean, yearly cycle and trend of each cell and blend them with their neighbors', then the spread about them.

    Args:
        values: Data; NaN is missing.
        axes: Times, the period of the cycle, and whether x closes a circle.
        y_radius: Standard deviation of the blending in cells. Many gaps ask for a large one: a cell's own fit says more
            about when it was seen than about what is usual.
        x_radius: The same along x.
        trend: Whether a line in time is fitted.
    """
    observed = np.isfinite(values)
    weight = observed.sum(axis=0).astype(np.float64)
    fitted = smooth_climatology(values, axes=axes, trend=trend, radius=0.0)
    background = blend(fitted, weight, y_radius=y_radius, x_radius=x_radius, periodic=axes.periodic)
    square = np.where(observed, np.square(values - background), 0.0).sum(axis=0) / np.maximum(weight, 1)
    overall = float((square * weight).sum() / max(float(weight.sum()), 1.0))
    local = blend(
        square[None], weight, y_radius=max(1.0, y_radius / 2), x_radius=max(1.0, x_radius / 2), periodic=axes.periodic
    )
    return Climate(background=background, spread=np.sqrt(np.maximum(local[0], _LEAST_SPREAD**2 * overall)))


def blend(
    fields: Float64[np.ndarray, "time y x"],
    weight: Float64[np.ndarray, "y x"],
    *,
    y_radius: float,
    x_radius: float,
    periodic: bool = False,
) -> Float64[np.ndarray, "time y x"]:
    """Normalized convolution of each field with one Gaussian, whose radii may differ along y and x.

    Args:
        fields: Finite numbers.
        weight: Of the cells, the same for all fields; 0 where a cell is missing.
        y_radius: Standard deviation in cells, 0 for none.
        x_radius: The same along x.
        periodic: Whether x closes a circle.

    Returns:
        The weighted means around each cell; the weighted mean of all where the kernel (four radii) reaches no weight.
    """
    from scipy.ndimage import gaussian_filter1d

    total = float(weight.sum())
    level = np.tensordot(fields, weight, axes=2)[:, None, None] / (total or 1.0)
    products, weights = weight * (fields - level), weight[None]
    for axis, radius, mode in ((1, y_radius, "constant"), (2, x_radius, "wrap" if periodic else "constant")):
        if radius:
            products, weights = (gaussian_filter1d(part, radius, axis, mode=mode) for part in (products, weights))
    reached = weights > 1e-9 * max(total, 1.0) / weight.size
    blended: np.ndarray = level + np.where(reached, products / np.where(reached, weights, 1.0), 0.0)
    return blended
