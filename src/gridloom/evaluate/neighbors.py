"""Nearest neighbors by exact search, and embeddings drawn in the plane."""

import numpy as np
import torch
from jaxtyping import Float64, Int64, Shaped
from torch import Tensor

from gridloom.core.errors import DataError
from gridloom.evaluate.baselines.pca import principal_components
from gridloom.evaluate.exact import ExactSearch, Hidden, Metric

__all__ = ["mean_pairwise", "nearest", "project"]


def nearest(
    embeddings: Shaped[np.ndarray, "items features"],
    queries: Shaped[np.ndarray, "queries query_features"],
    k: int,
    *,
    metric: Metric = "cosine",
    exclude: Int64[np.ndarray, " queries"] | None = None,
) -> tuple[Int64[np.ndarray, "queries k"], Float64[np.ndarray, "queries k"]]:
    """Find the k most similar items of each query, exactly.

    Args:
        embeddings: Items to search among, of any real dtype.
        queries: What to search for.
        k: Neighbors wanted, at most the number of items (less one with `exclude`).
        metric: `cosine` (a vector of zeros is similar to nothing: 0), or `euclidean`, whose similarity is minus the
            distance.
        exclude: One item per query that is not to be found: itself.

    Returns:
        Indices of the neighbors, the most similar first (see `ExactSearch.top`), and their similarities.

    Raises:
        DataError: Widths differ, k is too large, or a number is not finite.
    """
    _check(embeddings, queries, k, len(embeddings) - (exclude is not None))
    own = None if exclude is None else torch.from_numpy(exclude)
    hidden: Hidden | None = None if own is None else lambda query, item: own[query] == item
    return ExactSearch(embeddings, metric).top(queries, k, hidden=hidden)


def mean_pairwise(embeddings: Shaped[np.ndarray, "items features"]) -> float:
    """Mean cosine similarity of all pairs of different items: near 1 where a representation has collapsed.

    Needs no matrix of pairs: the squared length of the sum of unit vectors holds them all.

    Raises:
        DataError: Fewer than two items, or a number is not finite.
    """
    if len(embeddings) < 2:
        raise DataError(f"pairs need at least two items, got {len(embeddings)}")
    _check(embeddings, embeddings, 1, len(embeddings))
    unit = _unit(torch.from_numpy(np.array(embeddings, dtype=np.float64)))
    own = unit.square().sum()
    return float((unit.sum(dim=0).square().sum() - own) / (len(unit) * (len(unit) - 1)))


def project(embeddings: Shaped[np.ndarray, "items features"], dims: int = 2) -> Float64[np.ndarray, "items dims"]:
    """Draw embeddings in few dimensions by their principal components.

    Signs are fixed, so that the same embeddings always give the same picture. Dimensions that do not exist (fewer
    features or items than `dims`) are 0.
    """
    _check(embeddings, embeddings, 1, max(len(embeddings), 1))
    centered = np.asarray(embeddings, dtype=np.float64) - np.mean(embeddings, axis=0, dtype=np.float64)
    directions, _ = principal_components(centered, min(dims, *centered.shape))
    points = np.zeros((len(centered), dims))
    points[:, : len(directions)] = centered @ directions.T
    return points


def _check(embeddings: np.ndarray, queries: np.ndarray, k: int, most: int) -> None:
    """Refuse what cannot be searched."""
    if embeddings.shape[1] != queries.shape[1]:
        raise DataError(f"queries have {queries.shape[1]} features, the embeddings {embeddings.shape[1]}")
    if not 1 <= k <= most:
        raise DataError(f"k must be between 1 and the {most} items there are to find, got {k}")
    for what, values in (("embeddings", embeddings), ("queries", queries)):
        if not np.isfinite(values).all():
            raise DataError(f"{what}: {int((~np.isfinite(values)).any(axis=1).sum())} rows are not finite; drop them")


def _unit(vectors: Tensor) -> Tensor:
    length = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    return vectors / torch.where(length > 0, length, torch.ones_like(length))
