"""gridloom locate MODEL IMAGES."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

__all__ = ["run"]

_MOST_ROWS = 20


@dataclass(frozen=True, kw_only=True)
class Locate:
    """Say where something is in images: coordinates, energy, how certain, and where else it may be."""

    model: tyro.conf.Positional[Path]
    """Run folder or artifact of an energy model."""
    images: tyro.conf.Positional[str]
    """Folder of images, one image, array, dataset; for a model of fields the field or the name of a sample."""
    output: Path | None = None
    """.nc, .zarr or .csv file."""
    stride: tuple[int, int] | None = None
    """For fields: cells between windows, down and across; the window's size if not given."""
    replace: bool = False
    """Overwrite an existing output."""
    json: bool = False
    """Print JSON."""


def run(arguments: Sequence[str]) -> int:
    """Locate and print."""
    parsed = tyro.cli(Locate, args=list(arguments), prog="gridloom locate")
    from rich.table import Table

    from gridloom.cli.console import console, print_json
    from gridloom.workflows.locate import locate

    found = locate(parsed.model, parsed.images, output=parsed.output, stride=parsed.stride, replace=parsed.replace)
    names = [str(name) for name in found["coordinate"].values]
    if parsed.json:
        print_json(
            [
                {
                    kind: dict(zip(names, _numbers(found[kind].values[row]), strict=True))
                    for kind in ("position", "spread", "second")
                }
                | {kind: _numbers(found[kind].values[[row]])[0] for kind in ("energy", "second_energy")}
                for row in range(found.sizes["sample"])
            ]
        )
        return 0
    unit = str(found["position"].attrs["units"])
    title = "positions" if unit == "1" else f"positions in {unit}"
    table = Table(box=None, padding=(0, 2, 0, 0), title=title, title_justify="left")
    labeled = "sample" in found.coords
    for column in ("sample", *(f"{name} ± spread" for name in names), "energy", "second minimum", "energy"):
        table.add_column(column, justify="left" if column == "sample" else "right")
    for row in range(min(found.sizes["sample"], _MOST_ROWS)):
        position, spread, second = (found[kind].values[row] for kind in ("position", "spread", "second"))
        places = [f"{p:.3f} ± {s:.3f}" if np.isfinite(s) else f"{p:.3f}" for p, s in zip(position, spread, strict=True)]
        other = ", ".join(f"{value:.3f}" for value in second) if np.isfinite(second).all() else "none"
        energies = [_short(float(found[kind][row])) for kind in ("energy", "second_energy")]
        name = str(found["sample"].values[row]) if labeled else str(row)
        table.add_row(name, *places, energies[0], other, energies[1])
    out = console()
    out.print(table)
    if found.sizes["sample"] > _MOST_ROWS:
        out.print(f"... {found.sizes['sample'] - _MOST_ROWS} more; --output writes all of them")
    if parsed.output is not None:
        out.print(f"written: {parsed.output}")
    return 0


def _numbers(values: np.ndarray) -> list[float | None]:
    """JSON has no NaN."""
    return [float(value) if value == value else None for value in values]


def _short(value: float) -> str:
    return f"{value:.3g}" if value == value else ""
