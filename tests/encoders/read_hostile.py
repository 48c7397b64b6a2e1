"""Reads every file of a list in one process, and says as JSON what became of each: run as a child by test_hostile."""

import json
import sys
import time
from pathlib import Path

from gridloom.core.errors import CheckpointError
from gridloom.encoders.extract import encoder_from_file


def memory_megabytes(line: str) -> float:
    """Resident memory: `VmRSS` now, `VmHWM` at most so far (getrusage would count the parent before exec too)."""
    for row in Path("/proc/self/status").read_text().splitlines():
        if row.startswith(f"{line}:"):
            return int(row.split()[1]) / 1024
    raise LookupError(line)


def read(path: Path) -> dict[str, object]:
    """Try to load an encoder from a file. Seconds are those of this process, whatever else the machine does."""
    start = time.process_time()
    try:
        encoder_from_file(path)
        error, message = "", "it was loaded"
    except CheckpointError as refused:
        error, message = "CheckpointError", str(refused)
    except BaseException as crash:
        error, message = type(crash).__name__, str(crash)[:500]
    seconds = time.process_time() - start
    return {
        "name": path.name,
        "error": error,
        "message": message,
        "seconds": seconds,
        "peak": memory_megabytes("VmHWM"),
    }


def main(good: Path, paths: list[Path]) -> None:
    """Load a good file first, so that everything is imported, then the others."""
    encoder_from_file(good)
    baseline = memory_megabytes("VmRSS")
    results = [read(path) for path in paths]
    sys.stdout.write(json.dumps({"baseline": baseline, "results": results}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
