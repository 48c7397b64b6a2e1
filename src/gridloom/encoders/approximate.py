"""Search with faiss, for more rows than a matrix product goes through in the time there is."""

from types import ModuleType

import numpy as np
import torch
from jaxtyping import Float64, Int64, Shaped

from gridloom.core.errors import ConfigError
from gridloom.evaluate.exact import ExactSearch, Hidden

__all__ = ["FaissSearch"]

_SPARE = 16
_QUERIES = 256
_ROWS_PER_LIST, _TRAIN_PER_LIST = 39, 64
"""Fewest rows for each list (faiss asks for them), and rows that lists are trained on."""
_PROBES = 16
"""Lists that are looked through for each query."""


class FaissSearch:
    """The rows of an exact search in an index of faiss, which proposes; similarities are computed again in float64.

    It is built from the rows each time: a file that faiss reads could be made to corrupt memory.

    Args:
        exact: Rows, and the metric.
        lists: Cut the rows into lists, the square root of their number, and look at 16, so that neighbors may be
            missed; otherwise look at every row.

    Raises:
        ConfigError: faiss is not installed.
    """

    def __init__(self, exact: ExactSearch, *, lists: bool) -> None:
        faiss = _faiss()
        self._exact = exact
        measure = faiss.METRIC_INNER_PRODUCT if exact.metric == "cosine" else faiss.METRIC_L2
        self._index = faiss.IndexFlat(exact.num_features, measure)
        if lists:
            count = max(1, min(round(len(exact) ** 0.5), len(exact) // _ROWS_PER_LIST))
            self._index = faiss.IndexIVFFlat(self._index, exact.num_features, count, measure)
            self._index.nprobe = min(count, _PROBES)
            some = np.linspace(0, len(exact) - 1, min(len(exact), _TRAIN_PER_LIST * count)).astype(np.int64)
            self._index.train(exact.units(torch.from_numpy(some)).float().numpy())
        for part in exact.parts():
            self._index.add(exact.units(part).float().numpy())

    def top(
        self, queries: Shaped[np.ndarray, "queries features"], k: int, *, hidden: Hidden | None = None
    ) -> tuple[Int64[np.ndarray, "queries k"], Float64[np.ndarray, "queries k"]]:
        """Find k rows of each query as `ExactSearch.top` does; with `faiss-ivf` perhaps not all of the most similar."""
        indices = np.full((len(queries), k), -1, dtype=np.int64)
        similarities = np.full((len(queries), k), -np.inf)
        for start in range(0, len(queries), _QUERIES):
            numbers = np.arange(start, min(start + _QUERIES, len(queries)))
            count = k + _SPARE
            while len(numbers):
                count = min(count, len(self._exact))
                index, similarity, lacking = self._attempt(
                    queries[numbers], torch.from_numpy(numbers), count, k, hidden
                )
                indices[numbers, : index.shape[1]] = index
                similarities[numbers, : index.shape[1]] = similarity
                # what is hidden took places: ask for more, where there is more
                numbers = numbers[lacking] if count < len(self._exact) else numbers[:0]
                count *= 4
        return indices, similarities

    def _attempt(
        self, queries: np.ndarray, numbers: torch.Tensor, count: int, k: int, hidden: Hidden | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Look at `count` proposals; return what was found, and whether a query lacks rows that it could still find."""
        prepared = self._exact.prepare(queries)
        proposed = torch.from_numpy(self._index.search(prepared.float().numpy(), count)[1])
        rows = proposed
        if hidden is not None:
            rows = rows.masked_fill((rows < 0) | hidden(numbers[:, None], rows.clamp(min=0)), -1)
        first = (rows < 0).int().argsort(dim=1, stable=True)[:, : k + _SPARE]  # proposals come in order
        index, similarity = self._exact.decide(prepared, rows.gather(1, first), k)
        lacking = ((rows >= 0).sum(dim=1) < k) & (proposed >= 0).all(dim=1)
        return index.numpy(), similarity.numpy(), lacking.numpy()


def _faiss() -> ModuleType:
    try:
        import faiss
    except ImportError:
        raise ConfigError(
            "this search needs faiss, which is not installed: pip install 'gridloom[search]', or use the exact search"
        ) from None
    return faiss
