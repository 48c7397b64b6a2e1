"""gridloom search EMBEDDINGS QUERY."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import tyro

from gridloom.core.errors import ConfigError

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["run"]

_MOST_ROWS = 20


@dataclass(frozen=True, kw_only=True)
class Search:
    """Find embeddings that are near a query, that repeat others (--duplicates), or that are like none (--outliers)."""

    embeddings: tyro.conf.Positional[Path]
    """.zarr or .nc file that `gridloom encode` wrote."""
    query: tyro.conf.Positional[str | None] = None
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
    """Leave out what is closer than this along every dimension named: lat=10,lon=10 or time=30D."""
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

    found = _find(parsed)
    columns = as_columns(found)
    if parsed.json:
        lines = zip(*(map(_plain, values) for values in columns.values()), strict=True)
        print_json([dict(zip(columns, line, strict=True)) for line in lines])
        return 0
    out = console()
    left = int(found.attrs["num_left_out"])
    out.print(f"{found.attrs['num_embeddings']:,} embeddings" + (f", {left:,} empty ones left out" if left else ""))
    _print_table(columns)
    if parsed.output is not None:
        out.print(f"written: {parsed.output}")
    return 0


def _find(parsed: Search) -> "xr.Dataset":
    from gridloom.encoders.index import EmbeddingIndex
    from gridloom.workflows.search import check_output, find_duplicates, find_outliers, parse_place, search

    check_output(parsed.output, parsed.replace)
    index = EmbeddingIndex.open(parsed.embeddings, metric=parsed.metric, backend=parsed.backend)
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


def _print_table(columns: dict[str, np.ndarray]) -> None:
    """Print the first lines; what does not change from row to row is left out, and a query is named once."""
    from rich.markup import escape
    from rich.table import Table

    from gridloom.cli.console import console

    count = len(columns["found_row_number"])
    if not count:
        console().print("nothing found")
        return
    measures = ("rank", "similarity", "distance", "score")
    shown = {name: values for name, values in columns.items() if name in measures or _tells(columns, name)}
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in shown:
        table.add_column(escape(name.replace("_", " ")), justify="right")
    queries = columns.get("query_row_number", np.arange(count))
    for line in range(min(count, _MOST_ROWS)):
        again = line > 0 and queries[line] == queries[line - 1]
        table.add_row(
            *(
                "" if again and name.startswith("query_") else escape(_short(values[line]))
                for name, values in shown.items()
            )
        )
    console().print(table)
    if count > _MOST_ROWS:
        console().print(f"... {count - _MOST_ROWS:,} more; --output writes all of them")


def _tells(columns: dict[str, np.ndarray], name: str) -> bool:
    """Whether a coordinate differs among the lines, on either side."""
    what = name.partition("_")[2]
    values = [str(value) for side in ("query", "found", "first") for value in columns.get(f"{side}_{what}", ())]
    return what not in ("row_number", "missing_share") and len(set(values)) > 1


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    if isinstance(value, np.datetime64):
        return None if np.isnat(value) else str(value)
    number = value.item() if isinstance(value, np.generic) else value
    return None if number != number else number


def _short(value: Any) -> str:
    if isinstance(value, np.datetime64):
        return str(value).removesuffix(".000000000").removesuffix("T00:00:00")
    return f"{value:.4f}".rstrip("0").rstrip(".") if isinstance(value, (float, np.floating)) else str(value)
