"""gridloom data list|prepare."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

__all__ = ["run"]


@dataclass(frozen=True, kw_only=True)
class List:
    """List the data sets that come along: size, origin, license."""

    json: bool = False
    """Print JSON."""


@dataclass(frozen=True, kw_only=True)
class Prepare:
    """Write a sample as a file, for other programs to read."""

    name: tyro.conf.Positional[str]
    """Name of the sample."""
    output: Path
    """.nc or .zarr."""
    replace: bool = False
    """Overwrite an existing file."""


_Verb = (
    Annotated[List, tyro.conf.subcommand("list", prefix_name=False)]
    | Annotated[Prepare, tyro.conf.subcommand("prepare", prefix_name=False)]
)


def run(arguments: Sequence[str]) -> int:
    """List or prepare."""
    parsed: List | Prepare = tyro.cli(
        _Verb,
        args=list(arguments) or ["list"],
        prog="gridloom data",
        config=(tyro.conf.OmitSubcommandPrefixes,),
    )
    from gridloom.cli.console import console, print_json, print_record
    from gridloom.workflows.data import list_samples, prepare_sample

    if isinstance(parsed, Prepare):
        path = prepare_sample(parsed.name, parsed.output, replace=parsed.replace)
        print_record({"written": str(path)})
        return 0
    samples = list_samples()
    if parsed.json:
        print_json(samples)
        return 0
    for sample in samples:
        console().print(f"[bold]{sample['name']}[/]  {sample['summary']}\n    {sample['origin']}; {sample['license']}")
    return 0
