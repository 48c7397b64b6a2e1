"""gridloom forecast MODEL DATA."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

__all__ = ["run"]


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Forecast the frames after a record: what is expected, and sample paths if asked."""

    model: tyro.conf.Positional[Path]
    """Run folder or artifact of a heatmap model, or of a crossmae model that has learnt whole times."""
    data: tyro.conf.Positional[str]
    """Frames that `gridloom rasterize` wrote, any file of (time, channel, y, x), or a sample."""
    horizon: int
    """Slots ahead."""
    output: Path
    """.zarr or .nc file."""
    samples: int = 1
    """Sample paths beside what is expected; 1 draws none."""
    feedback: Literal["frames", "latents"] = "frames"
    """What each next step is told: the forecast frame, encoded; or the latent it was decoded from."""
    seed: int = 0
    """Of the sample paths."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16 is faster where the processor computes in it, for many paths above all; a little less exact."""
    replace: bool = False
    """Overwrite an existing output."""
    json: bool = False
    """Print JSON."""


_SHOWN = 8


def run(arguments: Sequence[str]) -> int:
    """Forecast, write, and say what is expected."""
    parsed = tyro.cli(Forecast, args=list(arguments), prog="gridloom forecast")
    import numpy as np
    from rich.table import Table

    from gridloom.cli.console import console, print_json
    from gridloom.workflows.forecast import forecast

    found = forecast(
        parsed.data,
        parsed.model,
        parsed.horizon,
        num_samples=parsed.samples,
        feedback=parsed.feedback,
        seed=parsed.seed,
        precision=parsed.precision,
        output=parsed.output,
        replace=parsed.replace,
    )
    if parsed.json:
        print_json({"output": str(parsed.output), "variables": [str(name) for name in found], "steps": parsed.horizon})
        return 0
    out = console()
    if "activity" in found:
        table = Table(box=None, padding=(0, 2, 0, 0))
        measures = [name for name in ("activity", "imbalance", "center_of_mass") if name in found]
        for column in ("lead", "time", "slot", *(name.replace("_", " ") for name in measures)):
            table.add_column(column, justify="left" if column == "time" else "right")
        steps = np.unique(np.linspace(0, parsed.horizon - 1, min(_SHOWN, parsed.horizon)).round().astype(int))
        for step in steps:
            row = found.isel(time=int(step))
            values = [f"{float(row[name].mean()):.4g}" for name in measures]
            table.add_row(str(int(row["lead"])), str(row["time"].values)[:16], str(int(row["slot"])), *values)
        out.print(table)
    out.print(f"written: {parsed.output} ({parsed.horizon} steps of {', '.join(str(name) for name in found)})")
    return 0
