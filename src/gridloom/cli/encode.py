"""gridloom encode MODEL DATA."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

__all__ = ["run"]


@dataclass(frozen=True, kw_only=True)
class Encode:
    """Turn every window of a dataset into an embedding, with coordinates."""

    model: tyro.conf.Positional[Path]
    """Run folder, artifact or file of weights."""
    data: tyro.conf.Positional[str]
    """File, folder or name of a sample."""
    output: Path
    """.zarr or .nc file of embeddings."""
    stride: tuple[int, int] | None = None
    """Cells between windows, down and across; the window's size if not given."""
    window: tuple[int, int] | None = None
    """Height and width of a window in cells; what the encoder was trained on if not given (a .pth file does not say
    it: 128)."""
    batch_size: int = 32
    """Windows at a time."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16 is two to four times faster where the CPU or GPU has it, and less than 1 % off."""
    replace: bool = False
    """Overwrite an existing output."""


def run(arguments: Sequence[str]) -> int:
    """Encode and say what was written."""
    parsed = tyro.cli(Encode, args=list(arguments), prog="gridloom encode")
    from gridloom.cli.console import print_record
    from gridloom.workflows.encode import encode

    embeddings = encode(
        parsed.model,
        parsed.data,
        output=parsed.output,
        stride=parsed.stride,
        window=parsed.window,
        batch_size=parsed.batch_size,
        precision=parsed.precision,
        replace=parsed.replace,
    )
    sizes = " x ".join(f"{dim} {size}" for dim, size in embeddings.sizes.items())
    print_record({"embeddings": str(parsed.output), "shape": sizes, "variable": "embedding"})
    return 0
