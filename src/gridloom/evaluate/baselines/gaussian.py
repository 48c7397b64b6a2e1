"""Exact Gaussian backgrounds: the best linear estimate from all observations in space and time."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from itertools import product

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float64

from gridloom.core.errors import DataError
from gridloom.evaluate.baselines.climate import Climate, describe_climate
from gridloom.evaluate.baselines.cubes import Axes, Cube, answer_cubes, hide_alike
from gridloom.evaluate.baselines.separable import LearnedCovariance, SeparableCovariance
from gridloom.evaluate.baselines.solver import TileSolver
from gridloom.grid.splits import decorrelation_length

__all__ = ["GaussianProcess", "SeparableCovariance", "condition", "fit_separable", "named_climate", "refit_climate"]

_FINER = 0.25
"""Smoothing of the climatology of a filled field, as a part of that of a gappy one."""

_MOVES = (
    ("y_length", "x_length"),
    ("y_smoothing", "x_smoothing"),
    ("space_nugget",),
    ("time_nugget",),
    ("long_time",),
    ("short_time",),
    ("short_share",),
    ("x_length",),
    ("y_length",),
    ("x_smoothing",),
    ("y_smoothing",),
)
"""What a fit changes together, in this order."""

_BOUNDS = {
    "short_time": (0.1, 20.0),
    "long_time": (0.5, 200.0),
    "short_share": (0.02, 0.98),
    "time_nugget": (1e-3, 1.0),
    "space_nugget": (1e-3, 1.0),
    "y_length": (0.5, 200.0),
    "x_length": (0.5, 200.0),
    "y_smoothing": (0.25, 16.0),
    "x_smoothing": (0.25, 16.0),
}
"""Within what a fit looks."""


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
    covariance: SeparableCovariance | LearnedCovariance,
    wanted: Bool[np.ndarray, "time y x"] | None = None,
    *,
    axes: Axes | None = None,
    climate: Climate | None = None,
    num_samples: int = 24,
    seed: int = 0,
    tolerance: float = 0.01,
) -> tuple[Float64[np.ndarray, "time y x"], Float64[np.ndarray, "time y x"]]:
    """Estimate missing cells from all observations.

    Grids of more than some 1,200 places are solved in overlapping tiles. Places that are never observed (land) take no
    part unless they are wanted.

    Args:
        values: Data; NaN is missing.
        covariance: See `fit_separable` and, for more than scales can say, `fit_em`.
        wanted: Cells to estimate; None for the missing ones of all places that are ever observed.
        axes: Times, the period of the cycle, and whether x closes a circle.
        climate: What anomalies are from; by default what the covariance names, made from `values` and once more from
            the first estimates.
        num_samples: Draws from the conditional distribution (Papandreou & Yuille 2010) that the standard deviations
            come from: with n of them, each is off by a factor of about 1 +- 1 / sqrt(2 n). 0 for none: the deviation
            of all missing cells is then that of an anomaly.
        seed: Of the draws.
        tolerance: Relative residual at which an estimate is good enough; below 1e-4 all is done in float64.

    Returns:
        Estimates, and the standard deviations of an observation about them, in data units. Observed cells hold their
        observation with deviation 0; cells of places without any observation that nobody wants, the background.
    """
    axes = axes or Axes()
    observed = np.isfinite(values)
    places = observed.any(axis=0) if wanted is None else observed.any(axis=0) | wanted.any(axis=0)
    solver = TileSolver(covariance, axes.steps_of(values), places, periodic=axes.periodic, tolerance=tolerance)
    if climate is None:
        scales = covariance if isinstance(covariance, SeparableCovariance) else covariance.scales
        climate = named_climate(values, scales, axes)
        climate = refit_climate(climate, places, solver.solve(climate.anomalies(values))[0], scales, axes)
    filled, variance = solver.solve(climate.anomalies(values), num_samples, seed)
    mean = np.where(observed, values, climate.background + climate.spread * filled)
    return mean, np.where(observed, 0.0, climate.spread * np.sqrt(variance))


def named_climate(values: Float64[np.ndarray, "time y x"], scales: SeparableCovariance, axes: Axes) -> Climate:
    """The climate that a covariance names, of gappy data."""
    return describe_climate(
        values, axes=axes, y_radius=scales.y_smoothing, x_radius=scales.x_smoothing, trend=scales.trend
    )


def refit_climate(
    climate: Climate,
    places: Bool[np.ndarray, "y x"],
    filled: Float64[np.ndarray, "time y x"],
    scales: SeparableCovariance,
    axes: Axes,
) -> Climate:
    """Replace the background by that of a filled field, which asks for less smoothing.

    Args:
        climate: What the anomalies are from; its spread stays.
        places: Those that take part.
        filled: Anomalies without gaps.
        scales: Radii for gappy data.
        axes: See `condition`.
    """
    values = np.where(places, climate.background + climate.spread * filled, np.nan)
    y_radius, x_radius = _FINER * scales.y_smoothing, _FINER * scales.x_smoothing
    finer = describe_climate(values, axes=axes, y_radius=y_radius, x_radius=x_radius, trend=scales.trend)
    return Climate(background=finer.background, spread=climate.spread)


def fit_separable(
    values: Float64[np.ndarray, "time y x"],
    *,
    hide: Callable[[np.ndarray, int], np.ndarray] = hide_alike,
    seed: int = 0,
    axes: Axes | None = None,
    windows: int = 3,
) -> SeparableCovariance:
    """Find the scales and the climatology that best predict observed cells that are hidden.

    One number after another is doubled or halved, later changed by two fifths, as long as the error falls.

    Args:
        values: Data; NaN is missing.
        hide: Takes the observed cells and a seed, returns those to hide; gap-shaped, as cells hidden one by one ask
            for other scales.
        seed: Of the hiding.
        axes: Times, the period of the cycle, and whether x closes a circle.
        windows: Parts of a larger grid, that are tried: some 900 places of 60 times, or half of them of 120.

    Returns:
        The covariance, its sill such that the squared errors are on average what it says.

    Raises:
        DataError: Too few observations to hide any and keep some.
    """
    axes = axes or Axes()
    observed = np.isfinite(values)
    hidden = hide(observed, seed) & observed if observed.any() else observed
    if not hidden.any() or not (observed & ~hidden).any():
        raise DataError(
            f"expected observations to hide and others to keep, got {int(observed.sum())} of which "
            f"{int(hidden.sum())} are hidden"
        )
    trial = _Trial(values, hidden, axes, windows)
    best = SeparableCovariance(
        y_length=2.0 * max(decorrelation_length(trial.sample, 1), 1),
        x_length=2.0 * max(decorrelation_length(trial.sample, 2), 1),
    )
    for factor, rounds in ((2.0, 2), (1.4, 1)):
        best = min((replace(best, trend=trend) for trend in (best.trend, not best.trend)), key=trial.error)
        best = _descend(best, trial.error, factor, rounds)
    return replace(best, sill=_Trial(values, hidden, axes, 4 * windows).sill(best))


def _descend(
    best: SeparableCovariance, error: Callable[[SeparableCovariance], float], factor: float, rounds: int
) -> SeparableCovariance:
    """Multiply or divide one number after another as long as that makes the error smaller."""
    for _ in range(rounds):
        before = best
        for names in _MOVES:
            for change in (factor, 1 / factor):
                start = best
                while error(tried := _moved(best, names, change)) < 0.998 * error(best):
                    best = tried
                if best != start:
                    break
        if best == before:
            break
    return best


def _moved(covariance: SeparableCovariance, names: tuple[str, ...], change: float) -> SeparableCovariance:
    """Change some numbers, within what can matter."""
    record = asdict(covariance)
    for name in names:
        record[name] = float(np.clip(record[name] * change, *_BOUNDS[name]))
    return SeparableCovariance(**record)


class _Trial:
    """Predicts hidden observations in a few parts of a grid, and remembers how well."""

    def __init__(self, values: np.ndarray, hidden: np.ndarray, axes: Axes, windows: int) -> None:
        self._parts: list[tuple[np.ndarray, np.ndarray, Axes]] = []
        for time, y, x in _pick_windows(hidden, windows):
            times = axes.times_of(values)[time]
            whole = axes.periodic and x.stop - x.start == values.shape[2]
            self._parts.append((values[time, y, x], hidden[time, y, x], replace(axes, times=times, periodic=whole)))
        self._known: dict[SeparableCovariance, float] = {}
        first, gaps, _ = self._parts[0]
        self.sample = np.where(gaps, np.nan, first)

    def error(self, covariance: SeparableCovariance) -> float:
        """Root mean square error."""
        if covariance not in self._known:
            errors = [mean[gaps] - values[gaps] for values, gaps, mean, _ in self._answers(covariance, 0, 0.03)]
            self._known[covariance] = float(np.sqrt(np.square(np.concatenate(errors)).mean()))
        return self._known[covariance]

    def sill(self, covariance: SeparableCovariance) -> float:
        """Mean square error in terms of the variance that a sill of 1 promises."""
        answers = list(self._answers(covariance, 16, 0.01))
        square = sum(float(np.square(mean - values)[gaps].sum()) for values, gaps, mean, _ in answers)
        promised = sum(float(np.square(std)[gaps].sum()) for _, gaps, _, std in answers)
        return max(square / promised, 1e-6) if promised else 1.0  # 0 would be no covariance

    def _answers(
        self, covariance: SeparableCovariance, num_samples: int, tolerance: float
    ) -> Iterator[tuple[np.ndarray, ...]]:
        for values, gaps, axes in self._parts:
            kept = np.where(gaps, np.nan, values)
            mean, std = condition(kept, covariance, gaps, axes=axes, num_samples=num_samples, tolerance=tolerance)
            yield values, gaps, mean, std


def _pick_windows(hidden: np.ndarray, count: int) -> list[tuple[slice, slice, slice]]:
    """Parts of the grid with many hidden cells, spread over it."""
    times, height, width = hidden.shape
    length = min(times, 120)
    places = min(900, 54_000 // length)
    rows = min(height, int(np.sqrt(places)))
    columns = min(width, places // rows)
    starts = [range(0, size - part + 1, part) for size, part in zip(hidden.shape, (length, rows, columns), strict=True)]
    windows = [(slice(t, t + length), slice(y, y + rows), slice(x, x + columns)) for t, y, x in product(*starts)]
    shares = [int(hidden[window].sum()) for window in windows]
    full = [window for window, share in zip(windows, shares, strict=True) if share >= max(max(shares) / 2, 1)]
    chosen = np.linspace(0, len(full) - 1, min(count, len(full))).round().astype(int)
    return [full[number] for number in chosen]
