"""gridloom check DATA."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import tyro

if TYPE_CHECKING:
    from gridloom.grid.check import Diagnosis

__all__ = ["run"]


@dataclass(frozen=True, kw_only=True)
class Check:
    """Look at a dataset before training: shapes, missing cells, gaps, duplicates, flipped axes, split, preset."""

    data: tyro.conf.Positional[str]
    """File, folder or name of a sample."""
    variables: tuple[str, ...] = ()
    """Look at these alone."""
    json: bool = False
    """Print JSON."""


def run(arguments: Sequence[str]) -> int:
    """Check and print."""
    parsed = tyro.cli(Check, args=list(arguments), prog="gridloom check")
    from gridloom.cli.console import print_json
    from gridloom.workflows.check import check

    diagnosis = check(parsed.data, variables=parsed.variables)
    if parsed.json:
        print_json(diagnosis.to_json())
    else:
        _print(diagnosis, parsed.data)
    return 0


def _print(diagnosis: "Diagnosis", data: str) -> None:
    from rich.table import Table

    from gridloom.cli.console import console

    out = console()
    variables = Table("variable", "dimensions", "missing", "minimum", "mean", "maximum", "unit", box=None, title=data)
    for name, variable in diagnosis.variables.items():
        shape = " x ".join(f"{dim} {size}" for dim, size in zip(variable.dims, variable.shape, strict=True))
        figures = [
            f"{value:.4g}" if value is not None else "-"
            for value in (variable.minimum, variable.mean, variable.maximum)
        ]
        variables.add_row(name, shape, f"{variable.missing:.1%}", *figures, variable.units or "-")
    dims = Table("dimension", "cells", "from", "to", "step", "order", "gaps", "repeats", "decorrelation", box=None)
    for name, dim in diagnosis.dims.items():
        around = f"{dim.order or '-'}{', closes the circle' if dim.periodic else ''}"
        counts = (str(dim.num_gaps), str(dim.num_duplicates), f"{dim.decorrelation} cells")
        dims.add_row(name, str(dim.size), dim.first or "-", dim.last or "-", dim.step or "-", around, *counts)
    out.print(variables, "", dims, "")
    for note in diagnosis.notes:
        out.print(f"note: {note}", soft_wrap=True)
    if diagnosis.split is not None:
        split = diagnosis.split
        parts = ", ".join(f"{part} {start} to {stop}" for part, (start, stop) in split.parts.items())
        out.print(f"proposed split along {split.dim}: {parts} (gap {split.gap})", soft_wrap=True)
    if diagnosis.command:
        out.print(f"to start from: {diagnosis.command.replace('DATA', data)}", soft_wrap=True, markup=False)
