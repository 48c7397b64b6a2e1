"""Optimal interpolation: the best linear estimate from the nearest observations in space and time."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float64, Int64

from gridloom.core.errors import ConfigError, DataError
from gridloom.evaluate.baselines.cubes import Axes, Cube, answer_cubes, hide_alike
from gridloom.evaluate.baselines.smooth import SMOOTHINGS, smooth_climatology
from gridloom.grid.splits import decorrelation_length

__all__ = ["Covariance", "OptimalInterpolation", "fit_covariance", "krige"]

_CHUNK = 256
"""Estimates solved at once: their matrices (32 x 32 float64) fit into a processor's cache."""


@dataclass(frozen=True, kw_only=True)
class Covariance:
    """How alike two anomalies are: sill * (exp(-|dt| / Lt) * exp(-sqrt((dy / Ly)^2 + (dx / Lx)^2)) + nugget * same).

    It is a record that JSON can hold: `Covariance(**dataclasses.asdict(covariance))` is the same.
    """

    time_length: float
    """Lt in typical steps of time, above 0."""
    y_length: float
    """Ly in cells, above 0."""
    x_length: float
    """Lx in cells, above 0."""
    sill: float = 1.0
    """Variance of what neighbors share, in squared data units."""
    nugget: float = 0.01
    """Variance of what each observation has for itself, as a part of the sill."""
    smoothing: float | None = None
    """Radius of the `smooth_climatology` that anomalies are from, in cells; None for the mean of all observations."""

    def __post_init__(self) -> None:
        """Refuse what is no covariance."""
        if min(self.time_length, self.y_length, self.x_length) <= 0 or self.sill < 0 or self.nugget < 0:
            raise ConfigError(f"covariance: expected lengths above 0, sill and nugget not below, got {self}")


class OptimalInterpolation:
    """Local simple kriging of anomalies (Gandin 1963; Cressie 1993, section 3.2) with scales fitted to what is given.

    Anomalies are from a background, which is what cells far from all observations get. The scales, the nugget and the
    background are those that best predict observed cells hidden in the shape of the gaps.
    """

    def __init__(
        self,
        *,
        time_dim: str = "time",
        neighbors: int = 32,
        hide: Callable[[np.ndarray, int], np.ndarray] = hide_alike,
        covariance: Covariance | None = None,
        seed: int = 0,
    ) -> None:
        """Choose the settings.

        Args:
            time_dim: Dimension of time.
            neighbors: Observations that each estimate is made from.
            hide: Takes the observed cells and a seed, returns those to hide in the fit; by default gaps like those
                that are there.
            covariance: Known scales; None fits them to each variable.
            seed: Of the fit.
        """
        if neighbors < 1:
            raise ConfigError(f"neighbors: expected 1 or more, got {neighbors}")
        self.time_dim, self.neighbors, self.hide = time_dim, neighbors, hide
        self.covariance, self.seed = covariance, seed

    def predict(self, given: xr.Dataset, wanted: xr.Dataset) -> xr.Dataset:
        """Answer every cell that is wanted; others get what is observed, or the background."""
        return answer_cubes(given, wanted, self.time_dim, self._fill)

    def _fill(self, cube: Cube) -> np.ndarray:
        covariance = self.covariance or fit_covariance(
            cube.values, hide=self.hide, seed=self.seed, axes=cube.axes, neighbors=self.neighbors
        )
        mean, _ = krige(cube.values, cube.wanted, covariance, axes=cube.axes, neighbors=self.neighbors)
        return mean


def krige(
    values: Float64[np.ndarray, "time y x"],
    wanted: Bool[np.ndarray, "time y x"],
    covariance: Covariance,
    *,
    axes: Axes | None = None,
    background: Float64[np.ndarray, "time y x"] | None = None,
    neighbors: int = 32,
    leave_one_out: bool = False,
) -> tuple[Float64[np.ndarray, "time y x"], Float64[np.ndarray, "time y x"]]:
    """Estimate cells from their nearest observations by simple kriging.

    Args:
        values: Data; NaN is missing.
        wanted: Cells to estimate.
        covariance: Scales, see `fit_covariance`.
        axes: Times, the period of the cycle, and whether x closes a circle.
        background: What anomalies are from; by default what the covariance names, made from `values`.
        neighbors: Observations that each estimate is made from, the nearest by the lengths of the covariance.
        leave_one_out: Whether an observed cell is estimated without itself. (A background made from `values` has still
            seen it.)

    Returns:
        Estimates, and the standard deviations of an observation about them, in data units. Cells that are not wanted
        hold their observation with deviation 0, or else the background with that of a cell far from all observations.
    """
    axes = axes or Axes()
    if background is None:
        background = _background(values, covariance.smoothing, axes)
    observed = np.isfinite(values)
    far = covariance.sill * (1 + covariance.nugget)
    mean, variance = np.where(observed, values, background), np.where(observed, 0.0, far)
    cells = np.argwhere(wanted)
    if len(cells):
        grid = _Neighborhood(values - background, axes, covariance)
        estimate, unexplained = grid.estimate(cells, neighbors, leave_one_out=leave_one_out)
        mean[wanted] = background[wanted] + estimate
        variance[wanted] = covariance.sill * unexplained
    return mean, np.sqrt(variance)


def fit_covariance(
    values: Float64[np.ndarray, "time y x"],
    *,
    hide: Callable[[np.ndarray, int], np.ndarray] = hide_alike,
    seed: int = 0,
    axes: Axes | None = None,
    neighbors: int = 32,
    cells: int = 4000,
) -> Covariance:
    """Find the scales, the nugget and the background that best predict observed cells that are hidden.

    Lengths start at those over which the data decorrelates and are then changed one after another as long as the error
    falls: in steps of 2 on a quarter of the cells, then of 1.25 on all of them.

    Args:
        values: Data; NaN is missing.
        hide: Takes the observed cells and a seed, returns those to hide; gap-shaped, as cells hidden one by one ask
            for other scales.
        seed: Of the hiding, and of the choice of cells.
        axes: Times, the period of the cycle, and whether x closes a circle.
        neighbors: Observations that each estimate is made from.
        cells: Most hidden cells that are predicted in a trial.

    Returns:
        The covariance, its sill such that the squared errors are on average what it says.

    Raises:
        DataError: Too few observations to hide any and keep some.
    """
    axes = axes or Axes()
    observed = np.isfinite(values)
    hidden = hide(observed, seed) if observed.any() else observed
    kept = np.where(hidden, np.nan, values)
    targets = np.argwhere(hidden & observed)
    if not len(targets) or not np.isfinite(kept).any():
        raise DataError(
            f"expected observations to hide and others to keep, got {int(observed.sum())} of which "
            f"{len(targets)} are hidden"
        )
    chosen = np.random.default_rng(seed).permutation(len(targets))[:cells]
    trial = _Trial(values, kept, axes, neighbors)
    best = Covariance(
        time_length=float(max(decorrelation_length(kept, 0), 1)),
        y_length=float(max(decorrelation_length(kept, 1), 1)),
        x_length=float(max(decorrelation_length(kept, 2), 1)),
    )
    for factor, part in ((2.0, chosen[: max(cells // 4, 1)]), (1.25, chosen)):
        trial.ask(targets[np.sort(part)])
        best = min((replace(best, smoothing=radius) for radius in (None, *SMOOTHINGS)), key=trial.error)
        best = _descend(best, trial, factor)
    return replace(best, sill=trial.sill(best))


def _descend(best: Covariance, trial: "_Trial", factor: float) -> Covariance:
    """Multiply or divide one scale after another as long as that makes the error smaller."""
    improved = True
    while improved:
        improved = False
        for name, ratio in (("time_length", factor), ("x_length", factor), ("y_length", factor), ("nugget", factor**2)):
            for change in (ratio, 1 / ratio):
                while trial.error(tried := _moved(best, name, change)) < trial.error(best):
                    best, improved = tried, True
    return best


def _moved(covariance: Covariance, name: str, change: float) -> Covariance:
    """Change one scale, within what can matter."""
    low, high = (1e-4, 1.0) if name == "nugget" else (0.3, 300.0)
    return Covariance(**(asdict(covariance) | {name: float(np.clip(getattr(covariance, name) * change, low, high))}))


class _Trial:
    """Predicts hidden observations, and remembers how well."""

    def __init__(self, values: np.ndarray, kept: np.ndarray, axes: Axes, neighbors: int) -> None:
        self._axes, self._neighbors = axes, neighbors
        self._values = values
        self._backgrounds = {radius: _background(kept, radius, axes) for radius in (None, *SMOOTHINGS)}
        self._kept = kept

    def ask(self, targets: Int64[np.ndarray, "cells 3"]) -> None:
        """Choose the cells to predict."""
        self._targets = targets
        self._known: dict[Covariance, tuple[float, float]] = {}

    def error(self, covariance: Covariance) -> float:
        """Root mean square error."""
        return self._score(covariance)[0]

    def sill(self, covariance: Covariance) -> float:
        """Mean square error in terms of the variance that a sill of 1 promises."""
        return self._score(covariance)[1]

    def _score(self, covariance: Covariance) -> tuple[float, float]:
        if covariance not in self._known:
            background = self._backgrounds[covariance.smoothing]
            grid = _Neighborhood(self._kept - background, self._axes, covariance)
            estimate, unexplained = grid.estimate(self._targets, self._neighbors)
            square = np.square(estimate - (self._values - background)[tuple(self._targets.T)])
            self._known[covariance] = float(np.sqrt(square.mean())), float((square / unexplained).mean())
        return self._known[covariance]


class _Neighborhood:
    """Observed anomalies that can be asked for the nearest, in units of the covariance's lengths."""

    def __init__(self, anomalies: np.ndarray, axes: Axes, covariance: Covariance) -> None:
        from scipy.spatial import cKDTree

        self._scale = 1 / np.array([covariance.time_length, covariance.y_length, covariance.x_length])
        self._nugget = covariance.nugget
        self._steps = axes.steps_of(anomalies)
        self._circle = anomalies.shape[2] * self._scale[2] if axes.periodic else 0.0
        observed = np.isfinite(anomalies)
        self._values = anomalies[observed]
        self._numbers = np.full(anomalies.shape, -1)
        self._numbers[observed] = np.arange(len(self._values))
        points = self._places(np.argwhere(observed))
        self._axes = tuple(np.ascontiguousarray(axis) for axis in points.T)
        self._tree = cKDTree(
            points, leafsize=32, balanced_tree=False, compact_nodes=False, boxsize=[0.0, 0.0, self._circle]
        )

    def _places(self, cells: np.ndarray) -> np.ndarray:
        """Scaled coordinates of cells [n, 3]."""
        return np.stack([self._steps[cells[:, 0]], cells[:, 1], cells[:, 2]], axis=1) * self._scale

    def estimate(
        self, cells: Int64[np.ndarray, "cells 3"], neighbors: int, *, leave_one_out: bool = False
    ) -> tuple[Float64[np.ndarray, " cells"], Float64[np.ndarray, " cells"]]:
        """Estimates of anomalies, and their variances for a sill of 1."""
        count = min(neighbors, len(self._values) - int(leave_one_out))
        estimates, variances = np.zeros(len(cells)), np.full(len(cells), 1 + self._nugget)
        if count < 1:
            return estimates, variances
        diagonal = np.arange(count)
        for start in range(0, len(cells), _CHUNK):
            part = slice(start, start + _CHUNK)
            places = self._places(cells[part])
            if leave_one_out:
                found = self._others(places, self._numbers[tuple(cells[part].T)], count)
            else:
                found = self._tree.query(places, k=np.arange(1, count + 1))[1]
            near = [axis[found] for axis in self._axes]
            towards = self._correlation([place[:, None] for place in places.T], near)
            among = self._correlation([axis[:, :, None] for axis in near], [axis[:, None] for axis in near])
            among[:, diagonal, diagonal] += self._nugget
            weights = np.linalg.solve(among, towards[..., None])[..., 0]
            estimates[part] = (weights * self._values[found]).sum(axis=1)
            variances[part] -= (weights * towards).sum(axis=1)
        return estimates, np.maximum(variances, 0.0)

    def _others(self, places: np.ndarray, own: np.ndarray, count: int) -> np.ndarray:
        """The nearest observations that are not the cell's own."""
        found = self._tree.query(places, k=np.arange(1, count + 2))[1]
        order = np.argsort(found == own[:, None], axis=1, kind="stable")
        return np.take_along_axis(found, order[:, :count], axis=1)

    def _correlation(self, one: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> np.ndarray:
        """Correlation of places, each given by its scaled time, y and x."""
        distance, y, x = (here - there for here, there in zip(one, other, strict=True))
        if self._circle:
            np.abs(x, out=x)
            np.minimum(x, self._circle - x, out=x)
        y *= y  # in place, as half of the time goes into this function
        x *= x
        y += x
        np.abs(distance, out=distance)
        distance += np.sqrt(y, out=y)
        np.negative(distance, out=distance)
        correlation: np.ndarray = np.exp(distance, out=distance)
        return correlation


def _background(values: np.ndarray, smoothing: float | None, axes: Axes) -> np.ndarray:
    """What anomalies are from, at all cells."""
    if smoothing is not None:
        return smooth_climatology(values, axes=axes, radius=smoothing)
    known = values[np.isfinite(values)]
    return np.full(values.shape, float(known.mean()) if known.size else 0.0)
