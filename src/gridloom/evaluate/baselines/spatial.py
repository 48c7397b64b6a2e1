"""Straight lines in space within one time, and in time between what is unusual."""

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float64

from gridloom.evaluate.baselines.cubes import Cube, answer_cubes
from gridloom.evaluate.baselines.interpolate import line_in_time
from gridloom.evaluate.baselines.smooth import SmoothClimatology

__all__ = ["LinearAnomalies", "LinearInSpace", "fill_frame"]


class LinearInSpace:
    """Interpolates each time linearly between its own observations, and takes the nearest beyond their hull.

    A time without observations gets the mean of all. Where longitude closes a circle, so does the interpolation.
    """

    def __init__(self, time_dim: str = "time") -> None:
        """Choose the dimension of time."""
        self.time_dim = time_dim

    def predict(self, given: xr.Dataset, wanted: xr.Dataset) -> xr.Dataset:
        """Answer every cell that is wanted; others get what is observed, or the mean of all."""
        return answer_cubes(given, wanted, self.time_dim, self._fill)

    def _fill(self, cube: Cube) -> np.ndarray:
        known = np.isfinite(cube.values)
        filled = np.where(known, cube.values, cube.values[known].mean() if known.any() else 0.0)
        for time in np.flatnonzero(cube.wanted.any(axis=(1, 2)) & known.any(axis=(1, 2))):
            where = cube.wanted[time] & ~known[time]
            filled[time][where] = fill_frame(cube.values[time], where, periodic=cube.axes.periodic)
        return filled


class LinearAnomalies:
    """Interpolates linearly in time what differs from a smooth climatology, so that the yearly cycle is not cut off.

    A cell is answered from other times only. One that was never observed gets the climatology.
    """

    def __init__(self, climatology: SmoothClimatology | None = None) -> None:
        """Choose the climatology, and with it the dimension of time; by default its own defaults."""
        self.climatology = climatology or SmoothClimatology()

    def predict(self, given: xr.Dataset, wanted: xr.Dataset) -> xr.Dataset:
        """Answer every cell of `wanted`."""
        return answer_cubes(given, wanted, self.climatology.time_dim, self._fill)

    def _fill(self, cube: Cube) -> np.ndarray:
        background = self.climatology.background(cube)
        anomalies = line_in_time(cube.values - background, cube.axes.times_of(cube.values))
        return background + np.where(np.isnan(anomalies), 0.0, anomalies)


def fill_frame(
    frame: Float64[np.ndarray, "y x"], wanted: Bool[np.ndarray, "y x"], *, periodic: bool = False
) -> Float64[np.ndarray, " wanted"]:
    """Interpolate cells of one field linearly over the triangles between observations (Delaunay).

    Args:
        frame: Data; NaN is missing, at least one cell is not.
        wanted: Missing cells to answer.
        periodic: Whether x closes a circle.

    Returns:
        Answers in the order of the wanted cells; those outside of all triangles have the nearest observation.
    """
    from scipy.interpolate import LinearNDInterpolator, NearestNDInterpolator
    from scipy.ndimage import binary_dilation

    width = frame.shape[1]
    margin = width // 2 if periodic else 0
    wide = np.pad(frame, ((0, 0), (margin, margin)), mode="wrap")
    known = np.isfinite(wide)
    rim = known & binary_dilation(~known, np.ones((3, 3)), iterations=2)  # others are in no triangle over a gap
    places, values = np.argwhere(rim).astype(np.float64), wide[rim]
    targets = np.argwhere(wanted) + np.array([0, margin])
    flat = np.linalg.matrix_rank(places - places.mean(axis=0)) < 2  # all in a line: there are no triangles
    answers = np.full(len(targets), np.nan) if flat else LinearNDInterpolator(places, values)(targets)
    outside = np.isnan(answers)
    if outside.any():
        answers[outside] = NearestNDInterpolator(places, values)(targets[outside])
    return np.asarray(answers, dtype=np.float64)
