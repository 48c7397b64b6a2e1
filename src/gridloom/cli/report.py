"""gridloom report RUN."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

__all__ = ["run"]


@dataclass(frozen=True, kw_only=True)
class Report:
    """Draw a run as one self-contained HTML page: curves, pictures, table, configuration."""

    run: tyro.conf.Positional[Path]
    """Run folder."""
    output: Path | None = None
    """The page; RUN/report.html if not given."""
    figures: Path | None = None
    """Folder for the pictures by themselves, as PNG and SVG."""


def run(arguments: Sequence[str]) -> int:
    """Draw and say where it is."""
    parsed = tyro.cli(Report, args=list(arguments), prog="gridloom report")
    from gridloom.cli.console import print_record
    from gridloom.workflows.report import report

    page = report(parsed.run, output=parsed.output, figures=parsed.figures)
    print_record({"report": str(page)})
    return 0
