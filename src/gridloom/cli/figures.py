"""gridloom figures RUN NAME."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

__all__ = ["run"]


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Draw the pictures of a run, as PNG and SVG, with a gallery of them."""

    run: tyro.conf.Positional[Path]
    """Run folder."""
    name: tyro.conf.Positional[str] = "all"
    """Name of a picture, or `all`."""
    output: Path | None = None
    """Folder; RUN/figures if not given. The gallery shows whatever pictures the folder has."""
    beside: Path | None = None
    """Another run to compare with, where a picture does."""
    data: bool = False
    """Also save the numbers behind each picture, as .npz."""


def run(arguments: Sequence[str]) -> int:
    """Draw and say what was written."""
    parsed = tyro.cli(Figures, args=list(arguments), prog="gridloom figures")
    from gridloom.cli.console import print_record
    from gridloom.workflows.figures import figures

    written = figures(parsed.run, parsed.name, output=parsed.output, beside=parsed.beside, data=parsed.data)
    folder = parsed.output or parsed.run / "figures"
    print_record({**{name: str(path) for name, path in written.items()}, "gallery": str(folder / "index.html")})
    return 0
