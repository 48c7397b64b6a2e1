"""Counting cells: many indices in, how often each came out; memory stays flat however many come."""

import numpy as np
from jaxtyping import Float64, Int64

__all__ = ["CellCounter"]

_PENDING = 1 << 20
_SPARSE_BELOW = 16
_NARROW = 4


class CellCounter:
    """Sums of weights, or counts, by cell.

    Indices that lie close together (rows in order of time) are counted at once. Others wait until there are many, so
    that small parts do not pay for the whole table each time.
    """

    def __init__(self, num_cells: int, *, weighted: bool = False) -> None:
        """Start at zero.

        Args:
            num_cells: Cells; indices are below it.
            weighted: Sum weights in float64 (exact for whole numbers up to 2^53) in place of counting.
        """
        self._num_cells = num_cells
        self._waiting: list[np.ndarray] = []
        self._weights: list[np.ndarray] | None = [] if weighted else None
        self._num_waiting = 0
        self._table: np.ndarray | None = None

    def add(self, cells: np.ndarray, weights: np.ndarray | None = None) -> None:
        """Count cells.

        Args:
            cells: Whole numbers from 0 on; kept until counted, so do not write into it afterwards.
            weights: One for each, if and only if the counter is weighted.
        """
        assert (weights is None) == (self._weights is None)
        if not len(cells):
            return
        first, last = int(cells.min()), int(cells.max())
        if last - first < _NARROW * len(cells):
            counts = np.bincount(cells - first, weights)
            if self._table is None:
                self._table = np.zeros(self._num_cells, dtype=counts.dtype)
            self._table[first : last + 1] += counts
            return
        self._waiting.append(cells)
        if self._weights is not None and weights is not None:
            self._weights.append(weights.astype(np.float64, copy=False))
        self._num_waiting += len(cells)
        if self._num_waiting >= _PENDING:
            self._flush()

    def _take(self) -> tuple[np.ndarray, np.ndarray | None]:
        cells = np.concatenate(self._waiting) if self._waiting else np.zeros(0, dtype=np.int64)
        weights = None
        if self._weights is not None:
            weights = np.concatenate(self._weights) if self._weights else np.zeros(0)
            self._weights = []
        self._waiting, self._num_waiting = [], 0
        return cells, weights

    def _flush(self) -> None:
        cells, weights = self._take()
        counts = np.bincount(cells, weights, minlength=self._num_cells)
        if self._table is None:
            self._table = counts
        else:
            self._table += counts

    def finish(self) -> tuple[Int64[np.ndarray, " cell"], Int64[np.ndarray, " cell"] | Float64[np.ndarray, " cell"]]:
        """Return the cells that are not zero, in order, and their sums."""
        if self._table is None and self._num_waiting * _SPARSE_BELOW < self._num_cells:
            cells, weights = self._take()
            unique, inverse, counts = np.unique(cells, return_inverse=True, return_counts=True)
            sums = counts if weights is None else np.bincount(inverse, weights, minlength=len(unique))
            return unique.astype(np.int64), sums
        self._flush()
        assert self._table is not None
        cells = np.flatnonzero(self._table)
        return cells, self._table[cells]
