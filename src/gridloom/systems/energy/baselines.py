"""Dumb answers to the question where something is."""

import numpy as np
import xarray as xr

from gridloom.systems.energy.config import EnergyConfig
from gridloom.systems.energy.data import IMAGE, POSITION

__all__ = ["ExtremeCell", "MeanPlace", "NearestImage", "RidgeRegression", "extreme_cell"]


def _flat(dataset: xr.Dataset) -> np.ndarray:
    """Images as rows, missing cells as 0 after standardizing each image by its known ones."""
    values = dataset[IMAGE].values.astype(np.float64)
    axes = tuple(range(1, values.ndim))
    spread = np.nanstd(values, axis=axes, keepdims=True)
    standardized = (values - np.nanmean(values, axis=axes, keepdims=True)) / np.where(spread > 0, spread, 1.0)
    flat: np.ndarray = np.nan_to_num(standardized).reshape(len(values), -1)
    return flat


def _answer(wanted: xr.Dataset, values: np.ndarray) -> xr.Dataset:
    return xr.Dataset({POSITION: (wanted[POSITION].dims, values)}, coords=wanted.coords)


class MeanPlace:
    """Always the mean position of the training part."""

    def __init__(self, history: xr.Dataset) -> None:
        self.mean = history[POSITION].values.mean(axis=0)

    def predict(self, given: xr.Dataset, wanted: xr.Dataset) -> xr.Dataset:
        """Answer without looking."""
        return _answer(wanted, np.broadcast_to(self.mean, wanted[POSITION].shape).copy())


class NearestImage:
    """The position of the training image with the smallest Euclidean distance."""

    def __init__(self, history: xr.Dataset) -> None:
        self.images, self.positions = _flat(history), history[POSITION].values

    def predict(self, given: xr.Dataset, wanted: xr.Dataset) -> xr.Dataset:
        """Answer each image by itself."""
        images = _flat(given)
        distance = (self.images**2).sum(1) - 2 * images @ self.images.T
        return _answer(wanted, self.positions[distance.argmin(axis=1)])


class RidgeRegression:
    """A linear map of the cells, the ridge chosen on the training part by leave-one-out."""

    def __init__(self, history: xr.Dataset) -> None:
        from sklearn.linear_model import RidgeCV

        self.model = RidgeCV(alphas=np.logspace(-2, 5, 15)).fit(_flat(history), history[POSITION].values)

    def predict(self, given: xr.Dataset, wanted: xr.Dataset) -> xr.Dataset:
        """Answer each image by itself."""
        return _answer(wanted, self.model.predict(_flat(given)).reshape(wanted[POSITION].shape))


class ExtremeCell:
    """The highest (lowest) known cell after smoothing with a Gaussian that leaves missing cells out.

    Args:
        history: Training part; the width of the Gaussian is the one with the smallest mean squared error there.
        lowest: Look for the lowest cell.
    """

    widths = (0.0, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
    """Standard deviations that are tried, in cells; 0 does not smooth."""

    def __init__(self, history: xr.Dataset, *, lowest: bool = False, smooth: bool = True) -> None:
        self.sign = -1.0 if lowest else 1.0
        errors = {}
        for width in self.widths if smooth else (0.0,):
            found = self._find(history[IMAGE].values, width)
            errors[width] = float(((found - history[POSITION].values) ** 2).sum(axis=1).mean())
        self.width = min(errors, key=lambda width: errors[width])

    def _find(self, images: np.ndarray, width: float) -> np.ndarray:
        from scipy.ndimage import gaussian_filter

        values = self.sign * images[:, 0].astype(np.float64)
        known = np.isfinite(values)
        if width:
            sigma = (0, width, width)
            weight = gaussian_filter(known.astype(np.float64), sigma, mode="constant")
            values = gaussian_filter(np.where(known, values, 0.0), sigma, mode="constant") / np.maximum(weight, 1e-9)
            known = weight > 1e-3
        values = np.where(known, values, -np.inf).reshape(len(values), -1)
        return np.stack(np.divmod(values.argmax(axis=1), images.shape[3]), axis=1).astype(np.float64)

    def predict(self, given: xr.Dataset, wanted: xr.Dataset) -> xr.Dataset:
        """Answer each image by itself."""
        return _answer(wanted, self._find(given[IMAGE].values, self.width))


def extreme_cell(config: EnergyConfig, history: xr.Dataset, *, smooth: bool) -> ExtremeCell | None:
    """The baseline of the task `extreme`; None for other tasks."""
    if config.data.task != "extreme":
        return None
    return ExtremeCell(history, lowest=config.data.find == "lowest", smooth=smooth)
