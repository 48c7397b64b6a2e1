"""search: what embeddings are near a query, which repeat others, and which are like no other."""

import csv
import io
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from gridloom.core.atomic import write_text
from gridloom.core.errors import DataError
from gridloom.encoders.encoder import SemanticEncoder
from gridloom.encoders.index import ROW_NUMBER, EmbeddingIndex, open_embeddings
from gridloom.grid.write import save_grid

__all__ = ["as_columns", "check_output", "find_duplicates", "find_outliers", "parse_place", "search"]

_LOGGER = logging.getLogger(__name__)

_SUFFIXES = (".csv", ".nc", ".zarr")

Source = EmbeddingIndex | xr.DataArray | xr.Dataset | str | Path
"""An index, embeddings (searched by cosine), or their file."""


def search(
    embeddings: Source,
    query: str | Path | int | Mapping[str, Any] | xr.DataArray | xr.Dataset,
    *,
    model: Path | str | None = None,
    k: int = 5,
    overlapping: bool = False,
    apart: Mapping[str, Any] | None = None,
    output: Path | str | None = None,
    replace: bool = False,
) -> xr.Dataset:
    """Find the nearest embeddings of a query.

    Args:
        embeddings: What to search in: an `EmbeddingIndex` (which has the metric), embeddings, or their file.
        query: With `model`, data to encode: a file, a sample's name or a dataset. Otherwise other embeddings of the
            same encoder, or a place in these: `"month=3,lat=10.5"` or a mapping, the number of a row. A place that
            leaves dimensions out is all the windows there.
        model: Run folder, artifact or file of weights that encodes the query.
        k: Neighbors wanted.
        overlapping: For a place: find windows too that share a cell with the one there.
        apart: Leave out what lies closer to the query than this along every coordinate named.
        output: `.csv`, `.nc` or `.zarr`; None writes nothing.
        replace: Overwrite an existing output.

    Returns:
        See `EmbeddingIndex.search`.

    Raises:
        DataError: A query that cannot be read, is nowhere, or was encoded by another encoder; an output that exists.
    """
    check_output(output, replace)
    index = _index(embeddings)
    place = None if model is not None else _place(query)
    if overlapping and place is None:
        _LOGGER.warning("overlapping windows are left out only where the query is a place in the embeddings")
    if place is not None:
        rows = np.array([place]) if isinstance(place, int) else _rows_at(index, place)
        found = index.search_rows(rows, k, overlapping=overlapping, apart=apart)
    elif model is not None:
        if not isinstance(query, str | Path | xr.Dataset):
            raise DataError(f"with a model the query is data (a file, a sample, a dataset), got {type(query).__name__}")
        found = index.search(SemanticEncoder.from_pretrained(model).encode_dataset(query), k, apart=apart)
    else:
        found = index.search(_embeddings(query), k, apart=apart)
    _write(found, output, replace)
    return found


def find_duplicates(
    embeddings: Source,
    threshold: float = 0.99,
    *,
    overlapping: bool = False,
    apart: Mapping[str, Any] | None = None,
    output: Path | str | None = None,
    replace: bool = False,
) -> xr.Dataset:
    """Find embeddings that repeat an earlier one; see `EmbeddingIndex.duplicates` and `search`."""
    check_output(output, replace)
    found = _index(embeddings).duplicates(threshold, overlapping=overlapping, apart=apart)
    _write(found, output, replace)
    return found


def find_outliers(
    embeddings: Source,
    count: int = 10,
    *,
    k: int = 5,
    overlapping: bool = False,
    apart: Mapping[str, Any] | None = None,
    output: Path | str | None = None,
    replace: bool = False,
) -> xr.Dataset:
    """Find the embeddings that are like no other; see `EmbeddingIndex.outliers` and `search`."""
    check_output(output, replace)
    found = _index(embeddings).outliers(count, k=k, overlapping=overlapping, apart=apart)
    _write(found, output, replace)
    return found


def parse_place(text: str) -> dict[str, str]:
    """Read `month=3,lat=10.5`.

    Raises:
        DataError: Something else, or a name twice.
    """
    place: dict[str, str] = {}
    for part in text.split(","):
        name, separator, value = (piece.strip() for piece in part.partition("="))
        if not (name and separator and value) or name in place:
            raise DataError(f"{text!r}: expected each name once with a value, like lat=10.5,lon=200")
        place[name] = value
    return place


def check_output(output: Path | str | None, replace: bool) -> None:
    """Refuse an output before the work begins.

    Raises:
        DataError: It exists and is not to be replaced, or has another ending.
    """
    if output is None:
        return
    if Path(output).suffix not in _SUFFIXES:
        raise DataError(f"{output}: expected a name that ends in {', '.join(_SUFFIXES)}; choose another --output")
    if Path(output).exists() and not replace:
        raise DataError(f"{output} exists already; choose another --output, or pass --replace")


def as_columns(found: xr.Dataset) -> dict[str, np.ndarray]:
    """Lay a result out as columns of one line for each found row: where it lies, then how near it is."""
    lines = [dim for dim in ("query", "rank", "duplicate") if dim in found.dims]
    sizes = {dim: found.sizes[dim] for dim in lines}
    names = [str(name) for name in found.coords]
    order = {"query": 0, "rank": 1, "found": 2, "first": 3}
    names.sort(key=lambda name: order.get(name.partition("_")[0], 4))
    columns = {name: found[name].variable.set_dims(sizes).values.reshape(-1) for name in [*names, *found.data_vars]}
    there = columns[f"found_{ROW_NUMBER}"] >= 0
    return {str(name): values[there] for name, values in columns.items()}


def _index(embeddings: Source) -> EmbeddingIndex:
    if isinstance(embeddings, EmbeddingIndex):
        return embeddings
    return EmbeddingIndex(_embeddings(embeddings))


def _embeddings(given: Any) -> xr.DataArray:
    return given if isinstance(given, xr.DataArray) else open_embeddings(given)


def _place(query: Any) -> Mapping[str, Any] | int | None:
    """A place or a row's number; None where the query is something else."""
    if isinstance(query, int) or (isinstance(query, Mapping) and not isinstance(query, xr.Dataset)):
        return query
    if not isinstance(query, str) or Path(query).exists():
        return None
    if re.fullmatch(r"\d+", query):
        return int(query)
    return parse_place(query) if "=" in query else None


def _rows_at(index: EmbeddingIndex, place: Mapping[str, Any]) -> np.ndarray:
    """Rows at a place without the empty ones, unless there are no others."""
    rows = index.places.find(place)
    full = rows[np.isin(rows, index.rows)]
    if 0 < len(full) < len(rows):
        _LOGGER.warning("%d of %d windows there are empty and left out", len(rows) - len(full), len(rows))
    return full if len(full) else rows


def _write(found: xr.Dataset, output: Path | str | None, replace: bool) -> None:
    if output is None:
        return
    if Path(output).suffix != ".csv":
        save_grid(found, Path(output), replace=replace)
        return
    columns = as_columns(found)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*map(_written, columns.values()), strict=True))
    write_text(output, text.getvalue())


def _written(values: np.ndarray) -> list[Any]:
    """Values as a table of text has them."""
    is_time = values.dtype.kind == "M"
    return [np.datetime_as_string(value, unit="auto") for value in values] if is_time else list(values.tolist())
