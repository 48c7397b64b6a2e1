"""How alike pictures are, beyond their mean square error."""

import numpy as np
from jaxtyping import Float, Float64

from gridloom.core.errors import DataError

__all__ = ["psnr", "ssim"]

_WINDOW = 7
_LEAST_ERROR = 1e-10


def psnr(mse: Float[np.ndarray, "*frames"], data_range: float = 1.0) -> Float64[np.ndarray, "*frames"]:
    """Peak signal to noise ratio of pictures of this mean square error, in dB; 100 dB at most (for a range of 1)."""
    floored = np.maximum(np.asarray(mse, dtype=np.float64) / data_range**2, _LEAST_ERROR)
    return np.asarray(-10 * np.log10(floored))


def ssim(
    first: Float[np.ndarray, "*frames y x"], second: Float[np.ndarray, "*frames y x"], data_range: float = 1.0
) -> Float64[np.ndarray, "*frames"]:
    """Structural similarity (Wang et al. 2004, equation 13), mean over uniform windows of 7 x 7 that lie inside.

    The same as scikit-image's `structural_similarity` by default: K1 = 0.01, K2 = 0.03, sample covariance.

    Args:
        first: Pictures.
        second: Others.
        data_range: Largest value less the smallest that pixels can have.

    Raises:
        DataError: Pictures smaller than a window.
    """
    if min(first.shape[-2:]) < _WINDOW:
        raise DataError(f"ssim: expected pictures of at least 7 x 7, got {first.shape[-2]} x {first.shape[-1]}")
    a, b = (np.asarray(frames, dtype=np.float64) for frames in (first, second))

    down, across = (_windows(size) for size in first.shape[-2:])

    def mean(values: np.ndarray) -> np.ndarray:
        return np.asarray(down @ values @ across.T)

    mean_a, mean_b = mean(a), mean(b)
    unbiased = _WINDOW**2 / (_WINDOW**2 - 1)
    var_a, var_b = unbiased * (mean(a * a) - mean_a**2), unbiased * (mean(b * b) - mean_b**2)
    covariance = unbiased * (mean(a * b) - mean_a * mean_b)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    structure = (2 * covariance + c2) / (var_a + var_b + c2)
    return np.asarray((luminance * structure).mean(axis=(-2, -1)))


def _windows(size: int) -> Float64[np.ndarray, "window size"]:
    """Weights of the cells in each window along an axis."""
    offset = np.arange(size) - np.arange(size - _WINDOW + 1)[:, None]
    return np.asarray(((offset >= 0) & (offset < _WINDOW)) / _WINDOW)
