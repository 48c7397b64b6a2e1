"""gridloom train SYSTEM [DATA]."""

import dataclasses
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from gridloom.core.errors import ConfigError
from gridloom.core.registry import get_system, system_names

__all__ = ["run"]

_USAGE = """usage: gridloom train SYSTEM [DATA] [--preset P] [--config FILE] [--output RUN] [settings]

Train a system. Settings are taken from the preset, then the file, then the flags.
Called again with the same --output, a run goes on where it was.
On several processes: torchrun --nproc-per-node 2 -m gridloom train SYSTEM ...

systems:
{systems}

`gridloom train SYSTEM --help` lists all settings.
"""


def _usage() -> str:
    systems = [get_system(name) for name in system_names()]
    lines = [f"  {system.name:12} {system.summary} (presets: {', '.join(system.presets)})" for system in systems]
    return _USAGE.format(systems="\n".join(lines))


def _option(arguments: list[str], name: str) -> str | None:
    """Return the value of `--name VALUE` or `--name=VALUE`, if it is there."""
    for place, argument in enumerate(arguments):
        if argument == name and place + 1 < len(arguments):
            return arguments[place + 1]
        if argument.startswith(f"{name}="):
            return argument.split("=", 1)[1]
    return None


def _parse(arguments: list[str]) -> Any:
    """Parse in two steps: system, preset and file decide the defaults of all other flags."""
    from gridloom.workflows.train import configure, with_data

    system = get_system(arguments[0])
    rest = arguments[1:]
    data = rest.pop(0) if rest and not rest[0].startswith("-") else None
    preset, file = _option(rest, "--preset") or "default", _option(rest, "--config")
    config = configure(system, preset=preset, file=file)
    if data is not None:
        config = with_data(config, data)
    presets = ", ".join(system.presets)
    help_of = {
        "preset": f"Where the settings start from: {presets}.",
        "config": "YAML file whose settings take the place of the preset's.",
        "output": "Run folder.",
    }
    kind = dataclasses.make_dataclass(
        "Train",
        [
            ("preset", Annotated[str, tyro.conf.arg(help=help_of["preset"])]),
            ("config", Annotated[Path | None, tyro.conf.arg(help=help_of["config"])]),
            ("output", Annotated[Path, tyro.conf.arg(help=help_of["output"])]),
            ("settings", Annotated[system.config, tyro.conf.arg(name="")]),
        ],
        kw_only=True,
        frozen=True,
    )
    output = Path("runs") / f"{system.name}-{preset if data is None else Path(data).stem}"
    default = kind(preset=preset, config=Path(file) if file else None, output=output, settings=config)
    description = (
        f"{system.summary}\n\nusage: gridloom train {system.name} [DATA] [--preset P] [--config FILE] [settings]"
    )
    return system, tyro.cli(
        kind, args=rest, default=default, prog=f"gridloom train {system.name} [DATA]", description=description
    )


def run(arguments: Sequence[str]) -> int:
    """Train, then say where everything is."""
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.stdout.write(_usage())
        return 0
    if arguments[0].startswith("-"):
        raise ConfigError(f"the system comes first: gridloom train SYSTEM [DATA] ..., got {arguments[0]!r}")
    system, parsed = _parse(list(arguments))
    from gridloom.cli.console import console
    from gridloom.evaluate.compare import verdict
    from gridloom.evaluate.table import to_rich_tables
    from gridloom.workflows.train import train

    result = train(system, parsed.settings, output=parsed.output)
    if result.stopped_by is not None:
        sys.stderr.write(
            f"gridloom: {result.stopped_by} after step {result.step}; the checkpoint is written, "
            f"run the same command again to go on\n"
        )
        return 128 + int(getattr(signal, result.stopped_by, signal.SIGTERM))
    if result.scores:  # in the first process alone
        out = console()
        for table in to_rich_tables(result.scores):
            out.print(table)
        out.print(verdict(result.scores))
        out.print(f"\nartifact  {result.folder / 'artifact'}\nreport    {result.folder / 'report.html'}")
    return 0
