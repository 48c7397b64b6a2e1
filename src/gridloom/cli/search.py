"""gridloom search EMBEDDINGS QUERY."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import tyro

from gridloom.core.errors import ConfigError

if TYPE_CHECKING:
    import xarray as xr

    from gridloom.encoders.index import EmbeddingIndex

__all__ = ["run"]

_MOST_ROWS = 20
_MEASURES = ("similarity", "distance", "score")


@dataclass(frozen=True, kw_only=True)
class Search:
    """Find embeddings that are near a query, that repeat others (--duplicates), or that are like none (--outliers)."""

    embeddings: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="EMBEDDINGS")]
    """.zarr or .nc file that `gridloom encode` wrote."""
    query: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="QUERY")] = None
    """A place in the embeddings (month=3,lat=10.5,lon=200; the nearest is taken) or a row's number; another file of
    embeddings; or, with --model, data: a file, a folder or a sample's name."""
    model: Path | None = None
    """Run folder, artifact or file of weights that encodes the query; the one that made the embeddings."""
    k: int = 5
    """Neighbors of each query; for --outliers the neighbor that counts."""
    metric: Literal["cosine", "euclidean"] = "cosine"
    """What near means."""
    duplicates: float | None = None
    """Instead of a query: the rows that repeat an earlier one, at this cosine or above (at this distance or below)."""
    outliers: int | None = None
    """Instead of a query: this many rows, the farthest from their k-th neighbor first."""
    overlapping: bool = False
    """Compare windows too that share a cell; a window moved by a cell is otherwise its own neighbor."""
    apart: str | None = None
    """Leave out what is closer than this along every coordinate named: lat=10,lon=10 or time=30D."""
    backend: Literal["exact", "faiss-flat", "faiss-ivf"] = "exact"
    """The exact search that is built in, or faiss (pip install 'gridloom[search]'); faiss-ivf is not exact."""
    output: Path | None = None
    """.csv, .nc or .zarr file of all that was found."""
    replace: bool = False
    """Overwrite an existing output."""
    json: bool = False
    """Print JSON."""

    def check(self) -> None:
        """Refuse anything but one question."""
        asked = [name for name in ("query", "duplicates", "outliers") if getattr(self, name) is not None]
        if len(asked) != 1:
            what = " and ".join(asked) or "nothing"
            raise ConfigError(f"expected one of QUERY, --duplicates and --outliers, got {what}")
        if self.model is not None and self.query is None:
            raise ConfigError("--model encodes a query; without QUERY leave it out")


def run(arguments: Sequence[str]) -> int:
    """Search and print."""
    parsed = tyro.cli(Search, args=list(arguments), prog="gridloom search")
    parsed.check()
    from gridloom.cli.console import console, print_json
    from gridloom.workflows.search import as_columns

    index = _index(parsed)
    found = _find(index, parsed)
    columns = as_columns(found)
    if parsed.json:
        lines = zip(*(map(_plain, values) for values in columns.values()), strict=True)
        print_json([dict(zip(columns, line, strict=True)) for line in lines])
        return 0
    out = console()
    left = int(found.attrs["num_left_out"])
    out.print(f"{found.attrs['num_embeddings']:,} embeddings" + (f", {left:,} empty left out" if left else ""))
    _print_table(columns, index.places.constant)
    if parsed.output is not None:
        out.print(f"written: {parsed.output}")
    return 0


def _index(parsed: Search) -> "EmbeddingIndex":
    from gridloom.encoders.index import EmbeddingIndex
    from gridloom.workflows.search import check_output

    check_output(parsed.output, parsed.replace)  # before much is read
    return EmbeddingIndex.open(parsed.embeddings, metric=parsed.metric, backend=parsed.backend)


def _find(index: "EmbeddingIndex", parsed: Search) -> "xr.Dataset":
    from gridloom.workflows.search import find_duplicates, find_outliers, parse_place, search

    apart = parse_place(parsed.apart) if parsed.apart else None
    common: dict[str, Any] = {
        "overlapping": parsed.overlapping,
        "apart": apart,
        "output": parsed.output,
        "replace": parsed.replace,
    }
    if parsed.duplicates is not None:
        return find_duplicates(index, parsed.duplicates, **common)
    if parsed.outliers is not None:
        return find_outliers(index, parsed.outliers, k=parsed.k, **common)
    assert parsed.query is not None
    return search(index, parsed.query, model=parsed.model, k=parsed.k, **common)


def _print_table(columns: dict[str, np.ndarray], constant: Sequence[str]) -> None:
    """Print the first lines; what is the same for all embeddings is left out, and a query is named once."""
    from rich.markup import escape
    from rich.table import Table

    from gridloom.cli.console import console

    count = len(columns["found_row_number"])
    if not count:
        console().print("nothing found")
        return
    hidden = {"row_number", "missing_share", *constant}
    shown = {name: values for name, values in columns.items() if name.partition("_")[2] not in hidden}
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in shown:
        table.add_column(escape(name.replace("_", " ")), justify="right")
    queries = columns.get("query_row_number", np.arange(count))
    for line in range(min(count, _MOST_ROWS)):
        again = line > 0 and queries[line] == queries[line - 1]
        cells = {name: _short(name, values[line]) for name, values in shown.items()}
        table.add_row(*("" if again and name.startswith("query_") else escape(cell) for name, cell in cells.items()))
    console().print(table)
    if count > _MOST_ROWS:
        console().print(f"... {count - _MOST_ROWS:,} more; --output writes all of them")


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    if isinstance(value, np.datetime64):
        return None if np.isnat(value) else str(np.datetime_as_string(value, unit="auto"))
    number = value.item() if isinstance(value, np.generic) else value
    return None if number != number else number


def _short(name: str, value: Any) -> str:
    if isinstance(value, np.datetime64):
        return str(np.datetime_as_string(value, unit="auto"))
    if name in _MEASURES:
        return f"{value:.4f}" if abs(value) < 1e4 else f"{value:.4g}"
    return f"{value:.6g}" if isinstance(value, (float, np.floating)) else str(value)
