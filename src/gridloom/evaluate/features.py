"""Simple features that a learned embedding must beat: moments, raw cells, principal components."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float64, Int64, Shaped

from gridloom.core.errors import DataError
from gridloom.evaluate.baselines.pca import principal_components

__all__ = ["FoldFeatures", "PCAFeatures", "flatten", "moments"]


@runtime_checkable
class FoldFeatures(Protocol):
    """Features that are fitted: once for each fold, on its training samples alone."""

    def fit(self, train: Int64[np.ndarray, " samples"]) -> Shaped[np.ndarray, "all_samples features"]:
        """Fit on the samples `train` and return the features of all samples."""


@dataclass(frozen=True)
class PCAFeatures:
    """Coordinates on the principal components of each fold's training samples.

    Attributes:
        values: Samples as rows, for example from `flatten`.
        num_components: Components kept; fewer where a fold has not one sample more than that, or fewer features: n
            samples differ from their mean in n - 1 directions, and a further one would be rounding errors.
    """

    values: Shaped[np.ndarray, "samples features"]
    num_components: int

    def fit(self, train: Int64[np.ndarray, " samples"]) -> Float64[np.ndarray, "all_samples components"]:
        """Fit on the samples `train` and return the coordinates of all samples."""
        if self.num_components < 1:
            raise DataError(f"num_components must be at least 1, got {self.num_components}")
        mean = self.values[train].mean(axis=0, dtype=np.float64)
        centered = self.values[train].astype(np.float64) - mean
        most = min(self.num_components, max(len(centered) - 1, 1), centered.shape[1])
        directions, _ = principal_components(centered, most)
        coordinates: np.ndarray = (self.values.astype(np.float64) - mean) @ directions.T
        return coordinates


def moments(
    fields: Shaped[np.ndarray, "samples channels height width"],
    valid: Bool[np.ndarray, "samples channels height width"] | None = None,
) -> Float64[np.ndarray, "samples features"]:
    """Four numbers per channel: mean, standard deviation, mean absolute step along x, and along y.

    Trivial, and hard to beat where samples differ in texture.

    Args:
        fields: Any real dtype.
        valid: True where a cell is known; None means every finite one. A step counts where both its cells are known.

    Returns:
        For each channel its four numbers one after another; 0 where nothing is known.
    """
    known = np.isfinite(fields) if valid is None else valid & np.isfinite(fields)
    values = np.where(known, fields, 0).astype(np.float64)
    mean = _mean(values, known)
    spread = np.sqrt(_mean(np.square(np.where(known, values - mean[..., None, None], 0.0)), known))
    parts = [mean, spread]
    for axis in (-1, -2):
        step = np.abs(np.diff(values, axis=axis))
        both = known & np.roll(known, -1, axis=axis)
        both = both[..., :-1] if axis == -1 else both[..., :-1, :]
        parts.append(_mean(np.where(both, step, 0.0), both))
    return np.stack(parts, axis=-1).reshape(len(fields), -1)


def flatten(fields: Shaped[np.ndarray, "samples *dims"]) -> Float64[np.ndarray, "samples features"]:
    """Raw cells as features. A missing one takes its mean over the samples, 0 where no sample knows it."""
    values = fields.reshape(len(fields), -1).astype(np.float64)
    known = np.isfinite(values)
    mean = np.where(known, values, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return np.where(known, values, mean)


def _mean(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Mean over the cells of each channel; unknown cells must be 0 in `values`."""
    count = known.sum(axis=(-2, -1))
    mean: np.ndarray = values.sum(axis=(-2, -1)) / np.maximum(count, 1)
    return mean
