"""gridloom evaluate MODEL [DATA]."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

__all__ = ["run"]


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Score a model beside the dumb baselines, on data that it was not trained on."""

    model: tyro.conf.Positional[Path]
    """Run folder, or the artifact of a whole model."""
    data: tyro.conf.Positional[str | None] = None
    """Other data than it was trained on; cut and split in the same way."""
    split: Literal["test", "validation"] = "test"
    """Part that is asked about."""
    output: Path | None = None
    """Folder for scores.json and scores.csv."""
    json: bool = False
    """Print JSON."""


def run(arguments: Sequence[str]) -> int:
    """Evaluate and print the table."""
    parsed = tyro.cli(Evaluate, args=list(arguments), prog="gridloom evaluate")
    from gridloom.cli.console import console
    from gridloom.evaluate.compare import verdict
    from gridloom.evaluate.table import to_json, to_rich_tables
    from gridloom.workflows.evaluate import evaluate

    evaluation = evaluate(parsed.model, parsed.data, split=parsed.split, output=parsed.output)
    if parsed.json:
        sys.stdout.write(to_json(evaluation.scores))
        return 0
    out = console()
    for table in to_rich_tables(evaluation.scores):
        out.print(table)
    out.print(verdict(evaluation.scores))
    return 0
