"""gridloom rasterize INPUT."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

if TYPE_CHECKING:
    from gridloom.grid.events.folder import FolderResult

__all__ = ["run"]

_NUM_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Rasterize:
    """Bin trades into heatmaps by minute, side, volume and price; every row is accounted for.

    A run that was stopped goes on where it was when it is called again.
    """

    input: tyro.conf.Positional[Path]
    """CSV or Parquet file, or a folder of them; codes and dates are taken from names, as in 2024-01-02/600000.csv."""
    output: Path
    """.zarr or .nc file of frames."""
    calendar: str | None = None
    """Preset (cn_a, cn_a_240, us_rth, crypto_24h, cme_es, hour_of_week) or YAML file; cn_a if not given."""
    reference: Path | None = None
    """CSV of reference prices: code, date, close (the close before that date)."""
    workers: int = 1
    """Processes."""
    config: Path | None = None
    """YAML file of settings: columns, axes, side, caps; see the documentation of TradesConfig."""
    sparse: bool = False
    """Leave zeros out of the output; every verb reads it all the same."""
    replace: bool = False
    """Overwrite an existing output."""
    json: bool = False
    """Print JSON."""


def run(arguments: Sequence[str]) -> int:
    """Rasterize, and say what became of files and rows."""
    parsed = tyro.cli(Rasterize, args=list(arguments), prog="gridloom rasterize")
    from rich.console import Console
    from rich.progress import Progress

    from gridloom.cli.console import print_json
    from gridloom.grid.events.folder import FileStatus
    from gridloom.workflows.rasterize import rasterize

    with Progress(console=Console(stderr=True), transient=True, disable=parsed.json) as progress:
        task = progress.add_task("files", total=None)

        def show(status: FileStatus, total: int) -> None:
            progress.update(task, total=total, advance=1, description=status.file)

        result = rasterize(
            parsed.input,
            parsed.output,
            config=parsed.config,
            calendar=parsed.calendar,
            reference=parsed.reference,
            workers=parsed.workers,
            sparse=parsed.sparse,
            replace=parsed.replace,
            on_file=show,
        )
    if parsed.json:
        print_json(_record(result, parsed.output))
    else:
        _print(result, parsed.output)
    return 0


def _record(result: "FolderResult", output: Path) -> dict:
    return {
        "output": str(output),
        "sizes": dict(result.frames.sizes),
        "accounting": result.accounting.to_json(),
        "statuses": dict(Counter(file.status for file in result.files)),
        "files": [file.to_json() for file in result.files],
    }


def _print(result: "FolderResult", output: Path) -> None:
    from gridloom.cli.console import console, print_record

    shown = ("series", "time", "channel", "y", "x")
    sizes = " x ".join(f"{dim} {result.frames.sizes[dim]}" for dim in shown if dim in result.frames.sizes)
    record = result.accounting.to_json()
    rows = max(record["rows"], 1)
    cells = {name: record.pop(name) for name in ("saturated", "lost")}
    print_record({"frames": str(output), "shape": sizes})
    named = {name: f"{value:,} ({value / rows:.2%})" for name, value in record.items() if value or name == "invalid"}
    print_record({**named, "cells over the cap": cells["saturated"], "events lost to it": cells["lost"]})
    statuses = Counter(file.status for file in result.files)
    kept = sum(file.kept for file in result.files)
    parts = [f"{count} {status}" for status, count in statuses.most_common()]
    console().print(f"files: {', '.join(parts)}{f' ({kept} finished by an earlier run)' if kept else ''}")
    wrong = [file for file in result.files if file.status != "ok"]
    for file in sorted(wrong, key=lambda file: file.status)[:_NUM_SHOWN]:
        console().print(f"  {file.status} {file.file}: {file.reason}", markup=False, soft_wrap=True)
    if len(wrong) > _NUM_SHOWN:
        console().print(f"  ... and {len(wrong) - _NUM_SHOWN} more, all in {output.name}.status.jsonl", markup=False)
