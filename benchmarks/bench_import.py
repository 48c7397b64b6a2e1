"""What it costs to begin: `import gridloom` on top of torch, and `gridloom --help`.

How: fresh processes in pairs (with and without), the median of the differences. The command line is timed from
outside, interpreter and all. `sys.modules` tells which heavy packages `import gridloom` brings in.
Goals: at most 0.3 s on top of `import torch`, under 0.5 s for the help, none of the heavy packages.
"""

import subprocess
import sys
import time
from typing import Any

from common import Bench, median, paired

HEAVY = ("xarray", "sklearn", "matplotlib", "tyro", "zarr", "scipy", "h5py")
_IMPORT_GOAL, _HELP_GOAL = 0.3, 0.5


def _seconds(*arguments: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def imports(*, statement: str, repetitions: int) -> dict[str, Any]:
    """Time `import torch` with and without a statement after it; a first run warms the disk's cache."""
    base, both = "import torch", f"import torch; {statement}"
    _seconds("-c", both)
    without, with_it = paired(lambda: _seconds("-c", base), lambda: _seconds("-c", both), repetitions=repetitions)
    pairs = list(zip(without, with_it, strict=True))
    return {
        "torch": median(without),
        "difference": median([b - a for a, b in pairs]),
        "ratio": median([b / a for a, b in pairs]),
    }


def command_help(*, repetitions: int) -> dict[str, Any]:
    """Time `gridloom --help` beside an interpreter that does nothing."""
    _seconds("-m", "gridloom", "--help")
    nothing, shown = paired(
        lambda: _seconds("-c", "pass"), lambda: _seconds("-m", "gridloom", "--help"), repetitions=repetitions
    )
    return {"python": median(nothing), "help": median(shown)}


def loaded() -> dict[str, Any]:
    """List the heavy packages that `import gridloom` brings in."""
    code = f"import sys, gridloom; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return {"heavy": result.stdout.split()}


def main() -> None:
    bench = Bench(__file__, __doc__ or "")
    repetitions = 3 if bench.quick else 11
    encoder = "from gridloom import SemanticEncoder"
    on_top = bench.cell("import", imports, statement="import gridloom", repetitions=repetitions)
    names = bench.cell("encoder", imports, statement=encoder, repetitions=repetitions)
    shown = bench.cell("help", command_help, repetitions=repetitions)
    heavy = bench.cell("modules", loaded)["heavy"]
    extra = max(0.0, on_top["difference"])
    rows = [
        ("import torch", on_top["torch"], 1.0, "", ""),
        (
            "import gridloom, on top",
            on_top["difference"],
            on_top["ratio"],
            f"<= {_IMPORT_GOAL} s",
            bench.goal("import", extra <= _IMPORT_GOAL),
        ),
        (f"{encoder}, on top", names["difference"], names["ratio"], "", ""),
        ("python -c pass", shown["python"], 1.0, "", ""),
        (
            "gridloom --help",
            shown["help"],
            shown["help"] / shown["python"],
            f"< {_HELP_GOAL} s",
            bench.goal("help", shown["help"] < _HELP_GOAL),
        ),
    ]
    bench.table(("what", "median s", "ratio", "goal", "verdict"), rows)
    print(
        f"heavy packages that `import gridloom` loads: {', '.join(heavy) or 'none'} ({bench.goal('lazy', not heavy)})"
    )
    bench.figure("import_seconds_on_top_of_torch", on_top["difference"])
    bench.figure("import_encoder_seconds_on_top_of_torch", names["difference"])
    bench.figure("help_seconds", shown["help"])
    bench.figure("heavy_packages", heavy)
    bench.finish()


if __name__ == "__main__":
    main()
