"""gridloom info MODEL."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

__all__ = ["run"]


@dataclass(frozen=True, kw_only=True)
class Info:
    """Say what a run, an artifact or a file of weights is."""

    model: tyro.conf.Positional[Path]
    """Run folder, artifact or file of weights."""
    json: bool = False
    """Print JSON."""


def run(arguments: Sequence[str]) -> int:
    """Print the description."""
    parsed = tyro.cli(Info, args=list(arguments), prog="gridloom info")
    from gridloom.cli.console import print_json, print_record
    from gridloom.workflows.info import info

    described = info(parsed.model)
    if parsed.json:
        print_json(described)
    else:
        print_record(described)
    return 0
