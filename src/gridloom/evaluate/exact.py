"""Exact search among rows of numbers: float32 proposes, float64 decides.

A matrix product in float32 proposes a few rows more than are wanted. Their similarities are computed again in float64,
row by row. Where a row that was not proposed could still belong to the answer, as far as the rounding of float32 can
tell, the query is searched again in float64. Nothing of the size queries x rows is ever held.

Queries are taken from the mean of the rows before the product: what all rows have in common would only add rounding.
"""

from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64, Shaped
from torch import Tensor

from gridloom.core.errors import DataError

__all__ = ["ExactSearch", "Hidden", "Metric"]

Metric = Literal["cosine", "euclidean"]
"""`cosine`, or `euclidean`, whose similarity is minus the distance. A vector of zeros has the cosine 0 with all."""

Hidden = Callable[[Tensor, Tensor], Tensor]
"""From numbers of queries and numbers of rows, which broadcast: whether the row is not to be found by the query."""

_ROWS, _QUERIES = 16_384, 256
"""Rows and queries of one matrix product: 16 MiB of similarities."""
_PAIR_ENTRIES = 4_000_000
"""Numbers of either side of the pairs that are compared in float64 at a time."""
_SPARE = 16
"""Rows that are proposed beyond those wanted."""
_LONGEST = 1e18
"""Length whose square float32 holds."""
_TIE = 1e-12
"""Two similarities this close are the same to float64."""


class ExactSearch:
    """Rows that can be searched.

    Args:
        values: Rows, finite, of any real dtype. float32 and float64 arrays are used where they are, without a copy.
        metric: What near means.

    Raises:
        DataError: No rows.
    """

    def __init__(self, values: Shaped[np.ndarray, "items features"], metric: Metric) -> None:
        if not len(values):
            raise DataError("expected rows to search among, got none")
        self.metric: Metric = metric
        self._values = _as_tensor(values)
        self._scale = torch.ones(len(values), dtype=torch.float64)
        self._bias = torch.empty(len(values), dtype=torch.float64)
        total, longest = torch.zeros(values.shape[1], dtype=torch.float64), 0.0
        for part in self.parts():
            rows = self._values[part].double()
            length = _checked_length(rows)
            if metric == "cosine":
                self._scale[part] = torch.where(length > torch.finfo(torch.float64).tiny, 1 / length, 0.0)
            total += self._scale[part] @ rows
            longest = max(longest, float((length * self._scale[part]).max()))
        self._center, self._longest = total / len(values), longest
        for part in self.parts():
            rows = self._values[part].double()
            if metric == "cosine":
                self._bias[part] = (rows @ self._center) * self._scale[part]
            else:
                self._bias[part] = (rows - self._center).square().sum(dim=1) / -2

    def __len__(self) -> int:
        return len(self._values)

    @property
    def num_features(self) -> int:
        """Numbers in a row."""
        return self._values.shape[1]

    def prepare(self, queries: Shaped[np.ndarray, "queries features"]) -> Float64[Tensor, "queries features"]:
        """Return queries in float64, of length 1 where the metric is cosine."""
        prepared = _as_tensor(queries).double()
        length = _checked_length(prepared)[:, None]
        return prepared / torch.where(length > 0, length, 1.0) if self.metric == "cosine" else prepared

    def parts(self) -> Iterator[slice]:
        """Cut the rows into blocks."""
        for start in range(0, len(self), _ROWS):
            yield slice(start, min(start + _ROWS, len(self)))

    def units(self, part: slice | Int64[Tensor, " rows"]) -> Float64[Tensor, "rows features"]:
        """Return some rows in float64, of length 1 where the metric is cosine."""
        return self._values[part].double() * self._scale[part, None]

    def top(
        self, queries: Shaped[np.ndarray, "queries features"], k: int, *, hidden: Hidden | None = None
    ) -> tuple[Int64[np.ndarray, "queries k"], Float64[np.ndarray, "queries k"]]:
        """Find the k most similar rows of each query, the most similar first; of equals, the first row first.

        Where more rows are equal to float64 than there is place for, any of them may be found.

        Args:
            queries: Finite.
            k: Rows wanted, 1 or more.
            hidden: Pairs that are not to be found.

        Returns:
            Numbers of rows and similarities; -1 and -inf where there are no more.
        """
        indices = np.full((len(queries), k), -1, dtype=np.int64)
        similarities = np.full((len(queries), k), -np.inf)
        for start in range(0, len(queries), _QUERIES):
            part = slice(start, start + _QUERIES)
            query = self.prepare(queries[part])
            numbers = torch.arange(start, start + len(query))
            index, similarity = self._top(query, numbers, k, hidden)
            indices[part, : index.shape[1]], similarities[part, : index.shape[1]] = index.numpy(), similarity.numpy()
        return indices, similarities

    def decide(
        self, query: Float64[Tensor, "queries features"], proposed: Int64[Tensor, "queries some"], k: int
    ) -> tuple[Int64[Tensor, "queries found"], Float64[Tensor, "queries found"]]:
        """Compare prepared queries with proposed rows (-1 is none) in float64, and keep the k most similar."""
        index = proposed.sort(dim=1).values
        which = torch.arange(len(query))[:, None].expand_as(index)
        there = index >= 0
        similarity = torch.full(index.shape, -torch.inf, dtype=torch.float64)
        similarity[there] = self._compare(query, which[there], index[there])
        similarity, order = similarity.sort(dim=1, descending=True, stable=True)
        return index.gather(1, order)[:, :k], similarity[:, :k]

    def repeats(
        self, threshold: float, *, hidden: Hidden | None = None
    ) -> tuple[Int64[np.ndarray, " items"], Float64[np.ndarray, " items"]]:
        """For each row, find the first row before it that it repeats: as similar as the threshold, or more.

        Only rows that repeat none themselves can be repeated. So without the rows that repeat another no two are left
        that are as similar, and no chain links rows that are not.

        Args:
            threshold: Least similarity (for distances, minus the greatest).
            hidden: Pairs that do not count.

        Returns:
            Number of the row that is repeated, -1 where there is none, and the similarity (NaN there).
        """
        repeated = torch.full((len(self),), -1)
        step = 4 * _QUERIES  # the kept rows are copied for each block
        for start in range(0, len(self), step):
            rows = torch.arange(start, min(start + step, len(self)))
            kept = torch.nonzero(repeated[:start] < 0)[:, 0]
            for others in torch.split(kept, _ROWS) if len(kept) else ():
                left = rows[repeated[rows] < 0]
                near = self._near(left, others, threshold, hidden)
                repeated[left] = torch.where(near.any(dim=1), others[near.int().argmax(dim=1)], -1)
            left = rows[repeated[rows] < 0]
            near = self._near(left, left, threshold, hidden)
            for place, row in enumerate(left.tolist()):
                first = near[place] & (repeated[left] < 0)
                if first.any():
                    repeated[row] = left[first.int().argmax()]
        found = torch.nonzero(repeated >= 0)[:, 0]
        similarity = torch.full((len(self),), torch.nan, dtype=torch.float64)
        for part in torch.split(found, _ROWS):
            similarity[part] = self._compare(self.units(part), torch.arange(len(part)), repeated[part])
        return repeated.numpy(), similarity.numpy()

    def _top(self, query: Tensor, numbers: Tensor, k: int, hidden: Hidden | None) -> tuple[Tensor, Tensor]:
        centered = query - self._center
        proposed, last = self._propose(centered.float(), numbers, k + _SPARE, hidden)
        index, similarity = self.decide(query, proposed, k)
        # what was not proposed has at most the last proposed score, give or take the rounding
        sure = self._as_score(similarity[:, -1], centered) >= last + self._rounding(centered)
        if not sure.all():
            again, _ = self._propose(centered[~sure], numbers[~sure], k, hidden)
            index[~sure], similarity[~sure] = self.decide(query[~sure], again, k)
        return index, similarity

    def _propose(self, centered: Tensor, numbers: Tensor, count: int, hidden: Hidden | None) -> tuple[Tensor, Tensor]:
        """Return the rows with the highest scores (-1 where there are no more), and the lowest of these scores."""
        best = torch.empty(len(centered), 0, dtype=centered.dtype)
        index = torch.empty(len(centered), 0, dtype=torch.int64)
        for part in self.parts():
            rows = torch.arange(part.start, part.stop)
            score = self._score(centered, part)
            if hidden is not None:
                score.masked_fill_(hidden(numbers[:, None], rows[None]), -torch.inf)
            value, place = score.topk(min(count, len(rows)), dim=1)
            best, order = torch.cat([best, value], dim=1).topk(min(count, part.stop), dim=1)
            index = torch.cat([index, rows[place]], dim=1).gather(1, order)
        if count >= len(self):
            return index.masked_fill(best == -torch.inf, -1), torch.full((len(centered),), -torch.inf)
        return index.masked_fill(best == -torch.inf, -1), best[:, -1]

    def _score(self, centered: Tensor, part: slice | Tensor) -> Tensor:
        """Similarity but for a constant of the query: the cosine, or half the squared distance with a minus."""
        product: Tensor = centered @ self._values[part].to(centered.dtype).T
        scale, bias = self._scale[part].to(centered.dtype), self._bias[part].to(centered.dtype)
        score: Tensor = torch.addcmul(bias, product, scale, out=product)
        return score

    def _as_score(self, similarity: Tensor, centered: Tensor) -> Tensor:
        """Turn similarities, one per query, into the scores that `_score` gives without rounding."""
        if self.metric == "cosine":
            return similarity
        score: Tensor = (centered @ self._center) + centered.square().sum(dim=1) / 2 - similarity.square() / 2
        return score

    def _rounding(self, centered: Tensor) -> Tensor:
        """Bound of the error of a float32 score: that of a dot product in any order, of the bias, of underflow.

        Source: Higham, Accuracy and Stability of Numerical Algorithms (2002), section 3.1.
        """
        unit = 2.0**-24 if torch.get_float32_matmul_precision() == "highest" else 2.0**-8
        products = torch.linalg.vector_norm(centered, dim=1) * self._longest
        underflow = torch.finfo(torch.float32).tiny * self._scale.max()
        bound: Tensor = unit * ((self.num_features + 8) * products + 4 * self._bias.abs().max())
        return bound + self.num_features * underflow

    def _compare(self, query: Tensor, which: Tensor, rows: Tensor) -> Float64[Tensor, " pairs"]:
        """Similarity of pairs of a prepared query and a row, each by itself, in float64."""
        parts = []
        step = max(1, _PAIR_ENTRIES // self.num_features)
        for chosen, row in zip(torch.split(which, step), torch.split(rows, step), strict=True):
            left, right = query[chosen], self._values[row].double()
            if self.metric == "cosine":
                parts.append(((left * right).sum(dim=1) * self._scale[row]).clamp(-1.0, 1.0))
            else:
                parts.append(-torch.linalg.vector_norm(left - right, dim=1))
        return torch.cat(parts) if parts else torch.empty(0, dtype=torch.float64)

    def _near(
        self, rows: Tensor, others: Tensor, threshold: float, hidden: Hidden | None
    ) -> Bool[Tensor, "rows others"]:
        """Whether rows are as similar as the threshold to others that come before them."""
        query = self.units(rows)
        centered = query - self._center
        floor = self._as_score(torch.full((len(rows),), threshold, dtype=torch.float64), centered)
        margin = self._rounding(centered) + _TIE
        score = self._score(centered.float(), others)
        which, other = torch.nonzero(~(score < _below(floor - margin)[:, None]), as_tuple=True)
        row, earlier = rows[which], others[other]
        allowed = earlier < row
        if hidden is not None:
            allowed &= ~hidden(row, earlier)
        which, other = which[allowed], other[allowed]
        enough = score[which, other] >= (floor + margin)[which]
        enough[~enough] = self._compare(query, which[~enough], others[other[~enough]]) >= threshold - _TIE
        near = torch.zeros(len(rows), len(others), dtype=torch.bool)
        near[which[enough], other[enough]] = True
        return near


def _below(values: Tensor) -> Tensor:
    """Return float32 numbers that are not above the given ones."""
    return torch.nextafter(values.float(), torch.tensor(-torch.inf))


def _as_tensor(values: np.ndarray) -> Tensor:
    """Share the memory of float32 and float64; convert the rest."""
    dtype = np.float32 if values.dtype.kind == "f" and values.dtype.itemsize <= 4 else np.float64
    return torch.from_numpy(np.require(values, dtype=dtype, requirements=["C", "W"]))


def _checked_length(vectors: Tensor) -> Tensor:
    """Length of each vector; refuse what float32 cannot multiply."""
    length: Tensor = torch.linalg.vector_norm(vectors, dim=1)
    if not (length <= _LONGEST).all():
        raise DataError(
            f"a vector of length {float(length.max()):.3g} cannot be searched (at most 1e18); scale it down"
        )
    return length
