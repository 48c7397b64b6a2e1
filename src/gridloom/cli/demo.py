"""gridloom demo."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

__all__ = ["run"]


@dataclass(frozen=True, kw_only=True)
class Demo:
    """The whole way on real elevation: check, train, extract, encode the globe, evaluate, report."""

    output: Path = Path("demo-output")
    """Folder for everything; called again, it goes on where it was."""
    quick: bool = False
    """A few steps only, to see that it works."""


def run(arguments: Sequence[str]) -> int:
    """Run the demonstration."""
    parsed = tyro.cli(Demo, args=list(arguments), prog="gridloom demo")
    from gridloom.cli.console import console, print_record
    from gridloom.evaluate.compare import verdict
    from gridloom.evaluate.table import to_rich_tables
    from gridloom.workflows.demo import demo

    result = demo(parsed.output, quick=parsed.quick)
    out = console()
    for scores in result.scores.values():
        for table in to_rich_tables(scores):
            out.print(table)
        out.print(verdict(scores))
    print_record(result.places)
    return 0
