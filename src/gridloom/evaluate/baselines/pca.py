"""Principal components (empirical orthogonal functions): the best linear compressor of the training part."""

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float64

from gridloom.core.errors import ConfigError, DataError
from gridloom.evaluate.baselines.answer import answer_each, require_dims

__all__ = ["PCAReconstruction", "principal_components"]

_EXACT_SIZE = 2500
"""Up to this smaller side of the matrix the decomposition is exact; beyond, randomized (with a fixed seed)."""


class PCAReconstruction:
    """Projects each sample on the history's principal components and back.

    All variables make one vector, each divided by its standard deviation so that units do not weigh; a sample becomes
    `num_components` numbers. Where cells are missing, these are their expectation given the known cells under
    probabilistic PCA (Tipping & Bishop 1999, "Probabilistic principal component analysis", equation 6): least squares
    with a ridge, so that few known cells do not make wild answers.
    """

    def __init__(self, history: xr.Dataset, num_components: int, *, sample_dim: str = "sample") -> None:
        """Fit.

        Args:
            history: Training part in data units; missing cells count as the mean field.
            num_components: Numbers kept per sample; at most samples - 1, and cells.
            sample_dim: Dimension of samples; all others number cells.
        """
        self.sample_dim = sample_dim
        self._shapes: dict[str, dict[str, int]] = {}
        self._scales: dict[str, float] = {}
        for name, values in history.data_vars.items():
            sizes = require_dims(history, str(name), (sample_dim,), "history").sizes
            self._shapes[str(name)] = {str(dim): size for dim, size in sizes.items() if dim != sample_dim}
            self._scales[str(name)] = _spread(values.values)
        matrix = self._matrix(history, "history")
        known = np.isfinite(matrix)
        self._mean = np.where(known, matrix, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
        centered = np.where(known, matrix - self._mean, 0.0)
        limit = min(len(matrix) - 1, matrix.shape[1])
        if not 1 <= num_components <= limit:
            raise ConfigError(f"num_components must be between 1 and {limit} for this history, got {num_components}")
        self._components, self._variance = principal_components(centered, num_components)
        unexplained = np.square(centered).sum() / (len(centered) - 1) - self._variance.sum()
        self._noise = max(float(unexplained) / max(matrix.shape[1] - num_components, 1), 1e-9)

    def predict(self, given: xr.Dataset, wanted: xr.Dataset) -> xr.Dataset:
        """Answer every cell of `wanted` from the known cells of the same sample of `given`."""
        unknown = [str(name) for name in wanted.data_vars if name not in self._shapes]
        if unknown:
            raise DataError(f"expected the history's variables {sorted(self._shapes)}, got {unknown[0]!r}")
        matrix = self._matrix(given, "given")
        known = np.isfinite(matrix)
        centered = np.where(known, matrix - self._mean, 0.0)
        answers = self._split(self._mean + self._coordinates(centered, known) @ self._components)
        return answer_each(wanted, lambda name: answers[name])

    def _matrix(self, dataset: xr.Dataset, what: str) -> Float64[np.ndarray, "samples cells"]:
        """All variables side by side, scaled; NaN where missing."""
        parts = []
        for name, shape in self._shapes.items():
            values = require_dims(dataset, name, (self.sample_dim, *shape), what).transpose(self.sample_dim, *shape)
            if values.shape[1:] != tuple(shape.values()):
                raise DataError(f"{what}: expected {name!r} with cells {shape} as in the history, got {values.sizes}")
            parts.append(values.values.reshape(len(values), -1).astype(np.float64) / self._scales[name])
        return np.concatenate(parts, axis=1)

    def _split(self, matrix: np.ndarray) -> dict[str, xr.DataArray]:
        """Undo `_matrix`."""
        answers, start = {}, 0
        for name, shape in self._shapes.items():
            size = int(np.prod(list(shape.values())))
            values = matrix[:, start : start + size].reshape(len(matrix), *shape.values()) * self._scales[name]
            answers[name] = xr.DataArray(values, dims=(self.sample_dim, *shape))
            start += size
        return answers

    def _coordinates(
        self, centered: Float64[np.ndarray, "samples cells"], known: Bool[np.ndarray, "samples cells"]
    ) -> Float64[np.ndarray, "samples components"]:
        """Coordinates of each sample: the projection, or the expectation where cells are missing."""
        coordinates: np.ndarray = centered @ self._components.T
        prior = np.diag(self._noise / np.maximum(self._variance, 1e-12))
        for row in np.flatnonzero(~known.all(axis=1)):
            seen = self._components[:, known[row]]
            coordinates[row] = np.linalg.solve(seen @ seen.T + prior, coordinates[row])
        return coordinates


def principal_components(
    centered: Float64[np.ndarray, "samples cells"], num_components: int
) -> tuple[Float64[np.ndarray, "components cells"], Float64[np.ndarray, " components"]]:
    """Orthonormal directions of greatest variance, and the variance along each.

    Args:
        centered: Samples with mean 0 in every cell.
        num_components: Directions wanted.

    Returns:
        Directions in falling order of variance, and the variances (divided by samples - 1). The sign makes each
        direction's largest entry positive.
    """
    if num_components * 4 <= len(centered) <= min(_EXACT_SIZE, centered.shape[1]):
        singular, directions = _leading(centered, num_components)
    elif min(centered.shape) <= _EXACT_SIZE:
        _, singular, directions = np.linalg.svd(centered, full_matrices=False)
    else:
        from sklearn.utils.extmath import randomized_svd

        _, singular, directions = randomized_svd(centered, num_components, n_iter=4, random_state=0)
    directions, singular = directions[:num_components], singular[:num_components]
    largest = np.take_along_axis(directions, np.abs(directions).argmax(axis=1)[:, None], axis=1)
    return directions * np.where(largest < 0, -1.0, 1.0), np.square(singular) / (len(centered) - 1)


def _leading(centered: np.ndarray, num_components: int) -> tuple[np.ndarray, np.ndarray]:
    """Leading directions of a wide matrix from the small matrix of products of its rows (Sirovich 1987, "snapshots").

    More than ten times faster than the whole decomposition where few of many directions are wanted. Directions whose
    singular value is lost in rounding are left to the whole decomposition.
    """
    from scipy.linalg import eigh

    size = len(centered)
    squared, left = eigh(centered @ centered.T, subset_by_index=[size - num_components, size - 1])
    squared, left = squared[::-1], left[:, ::-1]
    if squared[-1] <= 1e-10 * squared[0]:
        _, singular, directions = np.linalg.svd(centered, full_matrices=False)
        return singular, directions
    singular = np.sqrt(squared)
    return singular, (left / singular).T @ centered


def _spread(values: np.ndarray) -> float:
    """Standard deviation of the known values; 1 where they do not vary."""
    known = values[np.isfinite(values)].astype(np.float64)
    spread = float(known.std()) if known.size else 0.0
    return spread if spread > 0 else 1.0
