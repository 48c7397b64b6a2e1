"""DINEOF: gaps filled by what the leading empirical orthogonal functions say, again and again."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float64

from gridloom.core.errors import ConfigError, DataError
from gridloom.evaluate.baselines.cubes import Cube, answer_cubes, hide_alike

__all__ = ["DINEOF", "RankChoice", "choose_rank", "fill_eof"]


class DINEOF:
    """Data-interpolating empirical orthogonal functions (Beckers & Rixen 2003; Alvera-Azcarate et al. 2005).

    Gaps start as the mean and are replaced by the sum of the leading functions until they no longer change. How many
    functions is decided by observed cells that are hidden in the shape of the gaps; cells hidden one by one ask for too
    many. A time or a cell without any observation gets the mean: use something else for whole times.
    """

    def __init__(
        self,
        *,
        time_dim: str = "time",
        rank: int | None = None,
        max_rank: int = 30,
        hide: Callable[[np.ndarray, int], np.ndarray] = hide_alike,
        seed: int = 0,
    ) -> None:
        """Choose the settings.

        Args:
            time_dim: Dimension of time.
            rank: Number of functions; None finds it for each variable.
            max_rank: Most that are tried.
            hide: Takes the observed cells and a seed, returns those to hide to find the rank; by default gaps like
                those that are there.
            seed: Of the hiding.
        """
        if max_rank < 1 or (rank is not None and rank < 0):
            raise ConfigError(f"rank and max_rank: expected 0 or more and 1 or more, got {rank} and {max_rank}")
        self.time_dim, self.rank, self.max_rank = time_dim, rank, max_rank
        self.hide, self.seed = hide, seed

    def predict(self, given: xr.Dataset, wanted: xr.Dataset) -> xr.Dataset:
        """Answer every cell of `wanted`; observed cells get their observation."""
        return answer_cubes(given, wanted, self.time_dim, self._fill)

    def _fill(self, cube: Cube) -> np.ndarray:
        observed = np.isfinite(cube.values)
        matrix = cube.values.reshape(len(cube.values), -1)
        rank = self.rank
        if rank is None:
            hidden = self.hide(observed, self.seed).reshape(matrix.shape)
            rank = choose_rank(matrix, hidden, max_rank=self.max_rank).rank
        return fill_eof(matrix, rank).reshape(cube.values.shape)


@dataclass(frozen=True, kw_only=True)
class RankChoice:
    """How a rank was chosen."""

    rank: int
    """Number of functions with the smallest error; 0 for the mean of each cell."""
    errors: tuple[float, ...]
    """Root mean square error over the hidden cells with 0, 1, 2 functions and so on, in data units."""


def fill_eof(
    matrix: Float64[np.ndarray, "time cell"],
    rank: int,
    *,
    iterations: int = 50,
    tolerance: float = 1e-2,
    start: Float64[np.ndarray, "time cell"] | None = None,
) -> Float64[np.ndarray, "time cell"]:
    """Fill missing entries with the truncated expansion that they are themselves part of.

    Without a first guess the functions are added one by one: many at once, from gaps that hold the mean, would describe
    the gaps.

    Args:
        matrix: Data; NaN is missing.
        rank: Number of functions; 0 fills with the mean of each cell.
        iterations: Most rounds for each number of functions.
        tolerance: Ends the rounds when the filled entries change by less than this part of the observations' standard
            deviation (root mean square). Going on for long after that fits noise: far smaller ones predict worse.
        start: First guess of the missing entries; by default the mean of each cell.

    Returns:
        The matrix without gaps; observed entries are untouched. A cell that was never observed has the mean of all.

    Raises:
        DataError: No observation at all.
        ConfigError: More functions than the matrix can have.
    """
    known = np.isfinite(matrix)
    if not known.any():
        raise DataError("expected observations to fill from, got none")
    cells = known.any(axis=0)
    if not 0 <= rank <= min(len(matrix), int(cells.sum())):
        raise ConfigError(f"rank: expected 0 to {min(len(matrix), int(cells.sum()))} for this matrix, got {rank}")
    seen, gaps = matrix[:, cells], ~known[:, cells]
    work = np.where(gaps, np.nanmean(seen, axis=0) if start is None else start[:, cells], seen)
    if rank and gaps.any():
        enough = tolerance * float(seen[~gaps].std())
        for leading in range(1, rank + 1) if start is None else (rank,):
            for _ in range(iterations):
                if _expand(work, gaps, leading) <= enough:
                    break
    filled = np.full(matrix.shape, float(matrix[known].mean()))
    filled[:, cells] = work
    return filled


def choose_rank(
    matrix: Float64[np.ndarray, "time cell"],
    hidden: Bool[np.ndarray, "time cell"],
    *,
    max_rank: int = 30,
    patience: int = 3,
    iterations: int = 50,
    tolerance: float = 1e-2,
) -> RankChoice:
    """Find the number of functions that best predicts observed entries which are hidden.

    Each rank starts from what the one before has filled, so that few rounds are enough.

    Args:
        matrix: Data; NaN is missing.
        hidden: Entries to hide; those without an observation do not count.
        max_rank: Most functions that are tried.
        patience: Ranks without improvement after which no more are tried.
        iterations: Most rounds for each rank.
        tolerance: See `fill_eof`.

    Raises:
        DataError: No observation is hidden, or all are.
    """
    hidden = hidden & np.isfinite(matrix)
    kept = np.where(hidden, np.nan, matrix)
    if not hidden.any() or not np.isfinite(kept).any():
        raise DataError(f"expected observations to hide and others to keep, got {int(hidden.sum())} hidden")
    limit = min(max_rank, len(matrix), int(np.isfinite(kept).any(axis=0).sum()))
    errors: list[float] = []
    filled = None
    for rank in range(limit + 1):
        filled = fill_eof(kept, rank, iterations=iterations, tolerance=tolerance, start=filled)
        errors.append(float(np.sqrt(np.square(filled - matrix)[hidden].mean())))
        if rank - int(np.argmin(errors)) >= patience:
            break
    return RankChoice(rank=int(np.argmin(errors)), errors=tuple(errors))


def _expand(work: np.ndarray, gaps: np.ndarray, rank: int) -> float:
    """Replace the gaps in place by the leading functions of anomalies; return the root mean square change.

    The functions come from the eigenvectors of the smaller matrix of products (Sirovich 1987), which is faster than a
    singular value decomposition where there are few times and many cells.
    """
    from scipy.linalg import eigh

    mean = work.mean(axis=0)
    anomalies = work - mean
    if len(work) <= work.shape[1]:
        products, size = anomalies @ anomalies.T, len(work)
        _, vectors = eigh(products, subset_by_index=[size - rank, size - 1])
        expansion = vectors @ (vectors.T @ anomalies)
    else:
        products, size = anomalies.T @ anomalies, work.shape[1]
        _, vectors = eigh(products, subset_by_index=[size - rank, size - 1])
        expansion = (anomalies @ vectors) @ vectors.T
    expansion += mean
    change = float(np.sqrt(np.square(expansion[gaps] - work[gaps]).mean()))
    work[gaps] = expansion[gaps]
    return change
