"""Where embeddings lie: from rows to coordinates and back, and which rows lie too near to each other to be news.

A row is one window. Rows are numbered as the embeddings are stored, the last dimension fastest, empty ones counted.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Int64, Shaped
from torch import Tensor

from gridloom.core.errors import DataError, UnknownNameError, did_you_mean
from gridloom.evaluate.exact import Hidden
from gridloom.grid.axes import is_longitude

__all__ = ["CELL", "FEATURE", "WINDOW", "Axis", "Places", "any_of", "nearer"]

FEATURE = "feature"
"""The dimension that is not a place."""
CELL = "cell_"
"""What the coordinates begin with that say in which cell of the data a window begins."""
WINDOW = "window_"
"""What the attributes begin with that say how many cells a window has."""
_SECONDS = {"W": 604_800.0, "D": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0}


@dataclass(frozen=True, kw_only=True)
class Axis:
    """Positions of queries and rows along one dimension.

    Attributes:
        queries: Position of each query.
        rows: Position of each row.
        limit: Distance below which the two are near.
        period: Distance after which the axis begins anew; 0 where it does not.
    """

    queries: Tensor
    rows: Tensor
    limit: float
    period: float = 0.0


def nearer(axes: Sequence[Axis]) -> Hidden:
    """Hide the rows that lie near a query along every one of some axes."""

    def hidden(query: Tensor, row: Tensor) -> Tensor:
        near = torch.ones((), dtype=torch.bool)
        for axis in axes:
            distance = (axis.queries[query] - axis.rows[row]).abs()
            if axis.period:
                distance = torch.minimum(distance % axis.period, -distance % axis.period)
            near = near & (distance < axis.limit)
        return near

    return hidden


def any_of(rules: Sequence[Hidden]) -> Hidden:
    """Hide what any of some rules hides."""

    def hidden(query: Tensor, row: Tensor) -> Tensor:
        found = rules[0](query, row)
        for rule in rules[1:]:
            found = found | rule(query, row)
        return found

    return hidden


class Places:
    """Coordinates of the rows of embeddings.

    Args:
        embeddings: With a dimension `feature`; the others are places.
    """

    def __init__(self, embeddings: xr.DataArray) -> None:
        self.dims = tuple(str(dim) for dim in embeddings.dims if dim != FEATURE)
        self.shape = tuple(embeddings.sizes[dim] for dim in self.dims)
        self._attrs = dict(embeddings.attrs)
        # what stacks several coordinates cannot be written; these are kept one by one
        stacked = [dim for dim in self.dims if dim in embeddings.indexes and embeddings.indexes[dim].nlevels > 1]
        kept = [name for name, item in embeddings.coords.items() if FEATURE not in item.dims and name not in stacked]
        self._coordinates = xr.Dataset(coords={name: embeddings.coords[name].variable for name in kept})
        for dim, size in zip(self.dims, self.shape, strict=True):
            if dim not in self._coordinates.coords:
                self._coordinates = self._coordinates.assign_coords({dim: np.arange(size)})

    @property
    def names(self) -> list[str]:
        """Coordinates that say where a row lies, those of the dimensions first."""
        others = [str(name) for name in self._coordinates.coords if name not in self.dims]
        return [*self.dims, *(name for name in others if not name.startswith(CELL))]

    @property
    def constant(self) -> list[str]:
        """Coordinates that are the same for all rows."""
        return [name for name in self.names if self._coordinates[name].size == 1]

    def at(self, name: str, rows: Int64[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
        """Return a coordinate of rows; of row -1 it is missing: NaN, NaT, or no text."""
        where = dict(zip(self.dims, np.unravel_index(np.maximum(rows, 0), self.shape), strict=True))
        coordinate = self._coordinates[name]
        values = np.broadcast_to(coordinate.values[tuple(where[str(dim)] for dim in coordinate.dims)], rows.shape)
        if (rows >= 0).all():
            return values
        if values.dtype.kind == "M":
            return np.where(rows >= 0, values, np.datetime64("NaT", "ns"))
        return np.where(rows >= 0, values, np.nan if values.dtype.kind in "iuf" else "")

    def attributes(self, name: str) -> dict[str, Any]:
        """Return the attributes of a coordinate: its units."""
        return dict(self._coordinates[name].attrs)

    def find(self, place: Mapping[str, Any]) -> Int64[np.ndarray, " rows"]:
        """Find the rows at a place.

        Args:
            place: Value by dimension: the row with the nearest coordinate is taken, for names the equal one. Along a
                dimension that is not named all rows are taken.

        Raises:
            UnknownNameError: A dimension that the embeddings do not have.
            DataError: A value that lies outside the coordinates, or is none.
        """
        for name in place:
            if name not in self.dims:
                raise UnknownNameError("dimension of the embeddings", name, self.dims)
        chosen = [
            np.array([self._nearest(dim, place[dim])]) if dim in place else np.arange(size)
            for dim, size in zip(self.dims, self.shape, strict=True)
        ]
        return np.asarray(np.ravel_multi_index(tuple(np.meshgrid(*chosen, indexing="ij")), self.shape).reshape(-1))

    def _nearest(self, dim: str, value: Any) -> int:
        coordinate = self._coordinates[dim].values
        if coordinate.dtype.kind not in "iufM":
            names = [str(name) for name in coordinate]
            if str(value) not in names:
                raise DataError(
                    f"{dim}={value}: there is no such {dim} in the embeddings{did_you_mean(str(value), names)}"
                )
            return names.index(str(value))
        positions = _positions(coordinate)
        distance = np.abs(positions - _position(dim, value, is_time=coordinate.dtype.kind == "M"))
        if self._period(dim):
            distance = np.minimum(distance % self._period(dim), -distance % self._period(dim))
        nearest = int(np.argmin(distance))
        # a window reaches beyond its center, but hardly beyond where the next center would be
        step = float(np.abs(np.diff(positions)).max()) if len(positions) > 1 else np.inf
        if not distance[nearest] <= step:
            raise DataError(
                f"{dim}={value} lies outside the embeddings, whose {dim} goes from {coordinate.min()} to "
                f"{coordinate.max()}"
            )
        return nearest

    def _period(self, dim: str) -> float:
        return 360.0 if is_longitude(self._coordinates, dim) else 0.0

    def overlap(self, rows: Int64[np.ndarray, " rows"]) -> Hidden | None:
        """Hide rows whose windows share a cell; None where the embeddings do not say which cells theirs are."""
        sizes = {key: float(size) for key, size in self._attrs.items() if key.startswith(WINDOW)}
        names = {key: f"{CELL}{key.removeprefix(WINDOW)}" for key in sizes}
        if not sizes or any(name not in self._coordinates for name in names.values()):
            return None
        cells = {key: torch.from_numpy(self.at(name, rows).astype(np.int64)) for key, name in names.items()}
        return nearer([Axis(queries=cells[key], rows=cells[key], limit=sizes[key]) for key in sizes])

    def closer(
        self,
        rows: Int64[np.ndarray, " rows"],
        others: "Places",
        their_rows: Int64[np.ndarray, " queries"],
        apart: Mapping[str, Any],
    ) -> Hidden:
        """Hide rows that lie closer to a query than asked for, along every coordinate that is named.

        Args:
            rows: Rows to find.
            others: Places of the queries.
            their_rows: The queries' rows.
            apart: Least distance by coordinate, in the coordinate's units; for times like `30D` (W, D, h, m, s).
                Longitudes wrap.

        Raises:
            UnknownNameError: A coordinate that one of both does not have.
            DataError: A coordinate of names, or a distance that is none.
        """
        axes = []
        for dim, distance in apart.items():
            for places in (self, others):
                if dim not in places.names:
                    raise UnknownNameError("coordinate of the embeddings", dim, places.names)
            ours, theirs = self.at(dim, rows), others.at(dim, their_rows)
            for values in (ours, theirs):
                if values.dtype.kind not in "iufM" or (values.dtype.kind == "M") != (ours.dtype.kind == "M"):
                    raise DataError(f"{dim}: expected numbers or times to tell how far apart, got {values.dtype}")
            axes.append(
                Axis(
                    queries=torch.from_numpy(_positions(theirs)),
                    rows=torch.from_numpy(_positions(ours)),
                    limit=_length(dim, distance, is_time=ours.dtype.kind == "M"),
                    period=self._period(dim),
                )
            )
        return nearer(axes)


def _positions(values: np.ndarray) -> np.ndarray:
    """Numbers as they are, times in seconds."""
    if values.dtype.kind == "M":
        return np.asarray(values.astype("datetime64[ns]").astype(np.int64) / 1e9)
    return values.astype(np.float64)


def _position(dim: str, value: Any, *, is_time: bool) -> float:
    try:
        return float(_positions(np.array(value, dtype="datetime64[ns]"))) if is_time else float(value)
    except (TypeError, ValueError):
        example = "a date like 2020-03-01" if is_time else "a number"
        raise DataError(f"{dim}={value}: expected {example}") from None


def _length(dim: str, value: Any, *, is_time: bool) -> float:
    """A distance along a dimension; for times in seconds."""
    length = np.nan
    if is_time and isinstance(value, np.timedelta64):
        length = float(value / np.timedelta64(1, "s"))
    elif is_time and (found := re.fullmatch(r"([0-9.]+) *([WDhms])", str(value))) is not None:
        length = _number(found[1]) * _SECONDS[found[2]]
    elif not is_time:
        length = _number(value)
    if not length > 0:
        example = "a time like 30D or 6h" if is_time else "a number above 0"
        raise DataError(f"{dim}={value}: expected {example} for how far apart")
    return length


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")
