"""What the benchmarks share: cells that are kept, timing in pairs, goals, a table, and a record of the machine."""

import argparse
import hashlib
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

__all__ = ["ROOT", "Bench", "machine", "median", "paired"]

ROOT = Path(__file__).resolve().parent.parent
_PACKAGES = ("gridloom", "torch", "numpy", "xarray", "safetensors")


def median(values: Sequence[float]) -> float:
    """Middle of some measurements."""
    return statistics.median(values)


def paired(
    first: Callable[[], float], second: Callable[[], float], *, repetitions: int
) -> tuple[list[float], list[float]]:
    """Measure two things by turns, so that what else the machine does hits both alike.

    Args:
        first: Does one thing and returns what it cost.
        second: The other.
        repetitions: Pairs. Who begins changes from pair to pair.

    Returns:
        The costs of each, in order.
    """
    costs: tuple[list[float], list[float]] = ([], [])
    for repetition in range(repetitions):
        for which in (0, 1) if repetition % 2 == 0 else (1, 0):
            costs[which].append((first, second)[which]())
    return costs


def machine() -> dict[str, Any]:
    """Say where and with what the figures were taken."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS", "not set"),
        "load": round(os.getloadavg()[0], 1),
        "versions": versions,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def _sources_digest(script: Path, sources: Sequence[str]) -> str:
    """Digest of the script, its helpers and the library: a figure belongs to the code that gave it."""
    library = ROOT / "src" / "gridloom"
    used = [file for source in sources for file in ([library / source] if source.endswith(".py") else [])]
    used += [file for source in sources if not source.endswith(".py") for file in (library / source).rglob("*.py")]
    missing = [str(file) for file in used if not file.is_file()]
    if missing:
        raise SystemExit(f"no such sources: {', '.join(missing)}")
    files = [script, *sorted(Path(__file__).parent.glob("[!b]*.py")), *sorted(used)]
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


class Bench:
    """One benchmark: reads the command line, keeps finished cells, prints the table and the last line.

    Attributes:
        quick: Measure less, in under a minute.
        full: Measure everything, however long it takes.
        name: The script's name without `bench_`.
        folder: Where results go.
    """

    def __init__(self, script: str, description: str, *, sources: Sequence[str] = ("",)) -> None:
        """Read the command line.

        Args:
            script: `__file__` of the script.
            description: Its docstring.
            sources: Files and folders of the library on which the figures depend; a change of others keeps finished
                cells. All of it if not given.
        """
        path = Path(script).resolve()
        parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("--quick", action="store_true", help="one seed and few repetitions, under a minute")
        parser.add_argument("--full", action="store_true", help="everything, where the usual run leaves something out")
        parser.add_argument("--fresh", action="store_true", help="measure again what is kept from earlier runs")
        parser.add_argument(
            "--output", type=Path, default=ROOT / "benchmarks" / "results", help="folder of the results"
        )
        options = parser.parse_args()
        self.name = path.stem.removeprefix("bench_")
        self.quick: bool = options.quick
        self.full: bool = options.full
        self._fresh: bool = options.fresh
        self.folder: Path = options.output / self.name
        self._digest = _sources_digest(path, sources)
        self._goals: dict[str, bool] = {}
        self._figures: dict[str, Any] = {}
        if str(ROOT) not in sys.path:  # the fakes and the hostile files are those of the tests
            sys.path.insert(0, str(ROOT))
        print(f"{(description.splitlines() or [''])[0]}\n")

    def cell(self, name: str, function: Callable[..., dict[str, Any]], /, **arguments: Any) -> dict[str, Any]:
        """Measure one cell, or take it from an earlier run of the same code with the same arguments.

        Args:
            name: What is shown, and part of the file's name.
            function: Measures; returns JSON.
            **arguments: JSON; passed to the function.
        """
        key = hashlib.sha256(json.dumps([self._digest, name, arguments], sort_keys=True).encode()).hexdigest()[:16]
        file = self.folder / f"{name.replace(' ', '-').replace('/', '-')}-{key}.json"
        if file.is_file() and not self._fresh:
            kept = json.loads(file.read_text())
            print(f"  {name}: skipped, kept from {kept['machine']['date']} (--fresh measures again)")
            return dict(kept["figures"])
        started = time.perf_counter()
        # Through JSON, so that a kept cell and a new one are the same.
        figures = json.loads(json.dumps(function(**arguments)))
        print(f"  {name}: measured in {time.perf_counter() - started:.1f} s", flush=True)
        file.parent.mkdir(parents=True, exist_ok=True)
        record = {"cell": name, "arguments": arguments, "figures": figures, "machine": machine()}
        temporary = file.with_suffix(".tmp")
        temporary.write_text(json.dumps(record, indent=1))
        temporary.replace(file)
        return dict(figures)

    def goal(self, name: str, met: bool) -> str:
        """Remember whether a goal is met; returns the word for the table."""
        self._goals[name] = bool(met)
        return "reached" if met else "MISSED"

    def figure(self, name: str, value: Any) -> None:
        """Remember a figure for the last line."""
        self._figures[name] = value

    def table(self, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Print rows in aligned columns, as Markdown takes them too."""
        texts = [[_text(value) for value in row] for row in [header, *rows]]
        columns = range(len(header))
        widths = [max(len(row[column]) for row in texts) for column in columns]
        numeric = [all(row[column] == "" or type(row[column]) in (int, float) for row in rows) for column in columns]
        print()
        for number, row in enumerate(texts):
            cells = [
                text.rjust(width) if right and number else text.ljust(width)
                for text, width, right in zip(row, widths, numeric, strict=True)
            ]
            print(f"| {' | '.join(cells)} |")
            if number == 0:
                marks = [
                    "-" * (width + 1) + (":" if right else "-") for width, right in zip(widths, numeric, strict=True)
                ]
                print(f"|{'|'.join(marks)}|")
        print(flush=True)

    def finish(self) -> None:
        """Print the one JSON object that is the last line, and keep it as `result.json`."""
        option = " --quick" if self.quick else " --full" if self.full else ""
        record = {
            "name": self.name,
            "command": f"python benchmarks/bench_{self.name}.py{option}",
            "figures": self._figures,
            "goals_met": self._goals,
            "machine": machine(),
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "result.json").write_text(json.dumps(record, indent=1) + "\n")
        print(json.dumps(record))


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value).replace("|", "/")
