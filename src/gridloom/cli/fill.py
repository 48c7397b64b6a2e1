"""gridloom fill MODEL DATA."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

__all__ = ["run"]


@dataclass(frozen=True, kw_only=True)
class Fill:
    """Fill every gap of a record: observed cells stay as they are, filled ones come with a standard deviation."""

    model: tyro.conf.Positional[Path]
    """Run folder or artifact of a crossmae model."""
    data: tyro.conf.Positional[str]
    """File, folder or sample with the model's variables."""
    output: Path
    """.zarr or .nc file."""
    forecast: int = 0
    """Fill so many frames after the last one instead, and write these alone."""
    replace: bool = False
    """Overwrite an existing output."""
    json: bool = False
    """Print JSON."""


def run(arguments: Sequence[str]) -> int:
    """Fill, write, and say how much."""
    parsed = tyro.cli(Fill, args=list(arguments), prog="gridloom fill")
    from rich.table import Table

    from gridloom.cli.console import console, print_json
    from gridloom.workflows.fill import HELD_OUT, SOURCE, fill, forecast

    if parsed.forecast:
        ahead = forecast(parsed.data, parsed.model, parsed.forecast, output=parsed.output, replace=parsed.replace)
        names = [str(name) for name in ahead.data_vars]
        if parsed.json:
            print_json({"output": str(parsed.output), "variables": names, "steps": parsed.forecast})
        else:
            console().print(f"written: {parsed.output} ({parsed.forecast} frames of {', '.join(names)})")
        return 0
    filled = fill(parsed.data, parsed.model, output=parsed.output, replace=parsed.replace)
    rows = {}
    for name in [str(n).removesuffix(SOURCE) for n in filled.data_vars if str(n).endswith(SOURCE)]:
        source = filled[f"{name}{SOURCE}"].values
        rows[name] = {what: int((source == flag).sum()) for flag, what in enumerate(("observed", "filled", "never"))}
    told = {str(key): value for key, value in filled.attrs.items() if HELD_OUT in str(key)}
    if parsed.json:
        print_json({"output": str(parsed.output), "cells": rows, "calibration": told})
        return 0
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("variable", "observed", "filled", "never had data"):
        table.add_column(column, justify="left" if column == "variable" else "right")
    for name, counts in rows.items():
        table.add_row(name, *(f"{counts[what]:,}" for what in ("observed", "filled", "never")))
    out = console()
    out.print(table)
    for key, value in told.items():
        out.print(f"{key}: {value:.1%}")
    out.print(f"written: {parsed.output}")
    return 0
