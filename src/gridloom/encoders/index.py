"""Search over embeddings: what is near, what repeats itself, what is like nothing else, and where it lies."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
import xarray as xr
from jaxtyping import Int64

from gridloom.core.errors import DataError, UnknownNameError
from gridloom.encoders.approximate import FaissSearch
from gridloom.encoders.places import FEATURE, Places, any_of
from gridloom.evaluate.exact import ExactSearch, Hidden, Metric
from gridloom.grid.read import open_grid

__all__ = ["ROW_NUMBER", "Backend", "EmbeddingIndex", "open_embeddings"]

_LOGGER = logging.getLogger(__name__)

Backend = Literal["exact", "faiss-flat", "faiss-ivf"]
"""What searches: the exact search that is built in, faiss looking at every row, faiss looking at some lists of rows."""

ROW_NUMBER = "row_number"
"""What rows are counted by, among the coordinates of a result."""
_ENCODER = "encoder_sha256"
_BLOCK = 16_384


class EmbeddingIndex:
    """Embeddings that can be searched; rows that are not finite (there was nothing to encode) are left out.

    The embeddings stay in memory as they are; searching adds about 0.3 GiB at most, however many rows there are.

    Args:
        embeddings: As `SemanticEncoder.encode_dataset` gives them: places, and a dimension `feature`; or an array
            `[rows, features]`.
        metric: `cosine`, or `euclidean`.
        backend: `exact` needs nothing else; `faiss-flat` and `faiss-ivf` (not exact, faster from about a million rows)
            need `pip install gridloom[search]`. Duplicates are always found exactly.

    Attributes:
        metric: As given.
        places: Where the rows lie.
        rows: Number of each row that can be found, as the embeddings are stored, empty ones counted.
        num_left_out: Rows that are not finite.
        attrs: Attributes of the embeddings.

    Raises:
        DataError: No dimension `feature`, no numbers, or nothing but empty rows.
        ConfigError: faiss is asked for and not installed.
    """

    def __init__(
        self, embeddings: xr.DataArray | np.ndarray, *, metric: Metric = "cosine", backend: Backend = "exact"
    ) -> None:
        for kind, name, known in (("metric", metric, Metric), ("backend", backend, Backend)):
            if name not in get_args(known):
                raise UnknownNameError(kind, name, get_args(known))
        self.metric: Metric = metric
        self.places, values, self.rows = _take_apart(embeddings)
        self.num_left_out = len(values) - len(self.rows)
        self.attrs = dict(embeddings.attrs) if isinstance(embeddings, xr.DataArray) else {}
        if not len(self.rows):
            raise DataError(f"none of the {len(values)} embeddings is finite: there is nothing to search")
        self._values = values if len(self.rows) == len(values) else values[self.rows]
        self._exact = ExactSearch(self._values, metric)
        self._search = self._exact if backend == "exact" else FaissSearch(self._exact, lists=backend == "faiss-ivf")

    @classmethod
    def open(cls, path: Path | str, *, metric: Metric = "cosine", backend: Backend = "exact") -> "EmbeddingIndex":
        """Read embeddings from `.zarr` or `.nc` and index them."""
        return cls(open_embeddings(path), metric=metric, backend=backend)

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{dim} {size}" for dim, size in zip(self.places.dims, self.places.shape, strict=True))
        left = f", {self.num_left_out} empty left out" if self.num_left_out else ""
        shape = f"{len(self)} x {self._exact.num_features}"
        return f"EmbeddingIndex({shape}, {self.metric}; {sizes}{left})"

    def search(
        self, queries: xr.DataArray | np.ndarray, k: int = 5, *, apart: Mapping[str, Any] | None = None
    ) -> xr.Dataset:
        """Find the k nearest rows of each query.

        Args:
            queries: Embeddings of the same encoder, in any shape with a dimension `feature`; or `[queries, features]`.
                Empty ones are left out.
            k: Rows wanted; all where there are fewer.
            apart: Leave out rows that lie closer to the query than this along every coordinate named here:
                `{"lat": 10, "lon": 10}`, `{"time": "30D"}`.

        Returns:
            `similarity` (cosine) or `distance` (euclidean) over `query` and `rank`, the nearest first. Coordinates say
            where both lie: `query_lat`, `found_lat` and so on, and `query_row_number`, `found_row_number`. Where fewer
            than k are left for a query, the number is -1 and the rest is missing.

        Raises:
            DataError: Another encoder, another number of features, k below 1, or nothing but empty queries.
        """
        places, values, rows = _take_apart(queries)
        if isinstance(queries, xr.DataArray):
            self._check_encoder(queries.attrs)
        if values.shape[1] != self._exact.num_features:
            raise DataError(
                f"queries have {values.shape[1]} features, the embeddings {self._exact.num_features}; "
                f"encode both with one encoder"
            )
        if not len(rows):
            raise DataError(f"none of the {len(values)} queries is finite: there is nothing to search for")
        if len(rows) < len(values):
            _LOGGER.warning("%d of %d queries are empty and left out", len(values) - len(rows), len(values))
        hidden = self.places.closer(self.rows, places, rows, apart) if apart else None
        return self._neighbors(values[rows], places, rows, k, hidden)

    def search_rows(
        self,
        rows: Sequence[int] | Int64[np.ndarray, " rows"],
        k: int = 5,
        *,
        overlapping: bool = False,
        apart: Mapping[str, Any] | None = None,
    ) -> xr.Dataset:
        """Find the k nearest other rows of some of the rows.

        Args:
            rows: Numbers of rows, as the embeddings are stored; see `places.find`.
            k: Rows wanted; all others where there are fewer.
            overlapping: Find windows too that share a cell with the query's; otherwise they are left out, where the
                embeddings say which cells theirs are.
            apart: See `search`.

        Returns:
            See `search`.

        Raises:
            DataError: A row that is not there, or is empty.
        """
        chosen = np.asarray(rows, dtype=np.int64)
        own = torch.from_numpy(self._numbers(chosen))
        rule = self._hidden(overlapping, apart)
        return self._neighbors(
            self._values[own.numpy()], self.places, chosen, k, lambda query, row: rule(own[query], row)
        )

    def duplicates(
        self, threshold: float = 0.99, *, overlapping: bool = False, apart: Mapping[str, Any] | None = None
    ) -> xr.Dataset:
        """Find rows that repeat an earlier one. Without them, no two are left that are as near as the threshold.

        Args:
            threshold: Least similarity (cosine), or greatest distance (euclidean).
            overlapping: Compare windows that share a cell, too.
            apart: Do not compare rows that lie closer; see `search`.

        Returns:
            `similarity` or `distance` over `duplicate`, with the coordinates of the row (`found_lat`) and of the first
            row before it that is as near and repeats none itself (`first_lat`).
        """
        if self.metric == "euclidean" and threshold < 0:
            raise DataError(f"the threshold is a distance, 0 or more, got {threshold}")
        if self.metric == "cosine" and not -1 <= threshold <= 1:
            raise DataError(f"the threshold is a cosine between -1 and 1, got {threshold}")
        hidden = self._hidden(overlapping, apart)
        first, similarity = self._exact.repeats(threshold if self.metric == "cosine" else -threshold, hidden=hidden)
        repeats = np.flatnonzero(first >= 0)
        sides = {"found": (self.places, self.rows[repeats]), "first": (self.places, self.rows[first[repeats]])}
        return self._result(self._measure, similarity[repeats], ("duplicate",), sides).assign_attrs(threshold=threshold)

    def outliers(
        self, count: int = 10, *, k: int = 5, overlapping: bool = False, apart: Mapping[str, Any] | None = None
    ) -> xr.Dataset:
        """Find the rows that are farthest from their k-th nearest neighbor. Every row is searched for.

        Args:
            count: Rows wanted.
            k: Neighbors that a row of a small group of its own may have.
            overlapping: Count windows as neighbors that share a cell with it.
            apart: Do not count rows as neighbors that lie closer; see `search`.

        Returns:
            `score` (the distance, or 1 - cosine; the last neighbor's where there are fewer than k) over `rank`, the
            farthest first, with the row's coordinates (`found_lat`).
        """
        _check_count("the number of outliers", count)
        _check_count("k", k)
        width = min(k, len(self))
        _, similarity = self._search.top(self._values, width, hidden=self._hidden(overlapping, apart))
        last = np.isfinite(similarity).sum(axis=1) - 1
        alone = last < 0
        score = -similarity[np.arange(len(self)), last] + (1.0 if self.metric == "cosine" else 0.0)
        score[alone] = -np.inf  # nothing to compare with
        order = np.argsort(-score, kind="stable")[: min(count, int((~alone).sum()))]
        sides = {"found": (self.places, self.rows[order])}
        return self._result("score", score[order], ("rank",), sides).assign_attrs(k=k)

    def _check_encoder(self, attrs: Mapping[str, Any]) -> None:
        ours, theirs = self.attrs.get(_ENCODER), attrs.get(_ENCODER)
        if ours and theirs and ours != theirs:
            raise DataError(
                f"the queries are of another encoder ({theirs[:12]}) than the embeddings ({ours[:12]}): their numbers "
                f"have nothing to do with each other; encode both with one"
            )
        if not (ours and theirs):
            _LOGGER.warning("not known whether one encoder made both: the embeddings do not all say which did")

    def _numbers(self, rows: np.ndarray) -> np.ndarray:
        """Place of rows among those that can be found."""
        numbers = np.minimum(np.searchsorted(self.rows, rows), len(self) - 1)
        lost = rows[self.rows[numbers] != rows]
        if len(lost):
            total = len(self) + self.num_left_out
            reason = "is empty, there was nothing to encode" if 0 <= lost[0] < total else f"is none of the {total} rows"
            raise DataError(f"row {lost[0]} {reason}; choose another")
        return numbers

    def _hidden(self, overlapping: bool, apart: Mapping[str, Any] | None) -> Hidden:
        """What a row is not to find: itself, windows that overlap with it, windows that are too close."""
        rules: list[Hidden] = [lambda query, row: query == row]
        if not overlapping and (rule := self.places.overlap(self.rows)) is not None:
            rules.append(rule)
        if apart:
            rules.append(self.places.closer(self.rows, self.places, self.rows, apart))
        return any_of(rules)

    def _neighbors(
        self, values: np.ndarray, places: Places, rows: np.ndarray, k: int, hidden: Hidden | None
    ) -> xr.Dataset:
        _check_count("k", k)
        numbers, similarity = self._search.top(values, min(k, len(self)), hidden=hidden)
        some = (numbers >= 0).any(axis=0)
        numbers, similarity = numbers[:, some], similarity[:, some]
        similarity = np.where(numbers >= 0, similarity, np.nan)
        sides = {"query": (places, rows), "found": (self.places, np.where(numbers >= 0, self.rows[numbers], -1))}
        return self._result(self._measure, similarity, ("query", "rank"), sides)

    @property
    def _measure(self) -> str:
        return "similarity" if self.metric == "cosine" else "distance"

    def _result(
        self, name: str, values: np.ndarray, dims: tuple[str, ...], sides: Mapping[str, tuple[Places, np.ndarray]]
    ) -> xr.Dataset:
        """Put coordinates to what was found, each under the name of its side: `query_lat`, `found_lat`."""
        coordinates: dict[str, Any] = {}
        if "rank" in dims:
            coordinates["rank"] = np.arange(1, values.shape[-1] + 1)
        for side, (places, rows) in sides.items():
            at = dims[: rows.ndim]
            coordinates[f"{side}_{ROW_NUMBER}"] = (at, rows)
            coordinates |= {
                f"{side}_{place}": (at, places.at(place, rows), places.attributes(place)) for place in places.names
            }
        about = {"metric": self.metric, "num_embeddings": len(self), "num_left_out": self.num_left_out}
        about |= {key: self.attrs[key] for key in ("system", _ENCODER) if key in self.attrs}
        return xr.Dataset({name: (dims, -values if name == "distance" else values)}, coords=coordinates, attrs=about)


def open_embeddings(source: Path | str | xr.Dataset) -> xr.DataArray:
    """Read embeddings from a file that `gridloom encode` wrote, or any other with a variable over `feature`.

    Raises:
        DataError: No such file, or no or several variables with a dimension `feature`.
    """
    dataset = open_grid(source)
    names = [str(name) for name, variable in dataset.data_vars.items() if FEATURE in variable.dims]
    if "embedding" in names:
        names = ["embedding"]
    if len(names) != 1:
        held = ", ".join(str(name) for name in dataset.data_vars) or "nothing"
        name = "the dataset" if isinstance(source, xr.Dataset) else source
        raise DataError(
            f"{name}: expected embeddings (a variable with a dimension `{FEATURE}`), got {held}; make them with "
            f"gridloom encode, or give the model that encodes this as a query"
        )
    return dataset[names[0]]


def _take_apart(embeddings: xr.DataArray | np.ndarray) -> tuple[Places, np.ndarray, np.ndarray]:
    """Return where rows lie, the rows, and the numbers of those that are finite."""
    if isinstance(embeddings, np.ndarray):
        if embeddings.ndim != 2:
            raise DataError(f"expected an array [rows, features], got {embeddings.ndim} dimensions")
        embeddings = xr.DataArray(embeddings, dims=("item", FEATURE))
    if FEATURE not in embeddings.dims:
        raise DataError(f"expected embeddings with a dimension `{FEATURE}`, got {', '.join(map(str, embeddings.dims))}")
    if embeddings.dtype.kind not in "iuf":
        raise DataError(f"expected embeddings that are numbers, got {embeddings.dtype}")
    ordered = embeddings.transpose(..., FEATURE) if embeddings.ndim > 1 else embeddings.expand_dims("item")
    values = np.asarray(ordered.values).reshape(-1, ordered.sizes[FEATURE])
    finite = [np.isfinite(values[start : start + _BLOCK]).all(axis=1) for start in range(0, len(values), _BLOCK)]
    return Places(ordered), values, np.flatnonzero(np.concatenate(finite)) if finite else np.empty(0, dtype=np.int64)


def _check_count(what: str, count: int) -> None:
    if count < 1:
        raise DataError(f"{what} must be at least 1, got {count}")
