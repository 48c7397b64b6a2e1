"""Reads every file of a list in one process, and says as JSON what became of each: run as a child by test_hostile."""

import json
import resource
import sys
import time
from pathlib import Path

from gridloom.core.errors import CheckpointError
from gridloom.encoders.extract import encoder_from_file


def current_megabytes() -> float:
    """Resident memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def peak_megabytes() -> float:
    """Largest resident memory so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def read(path: Path) -> dict[str, object]:
    """Try to load an encoder from a file."""
    start = time.perf_counter()
    try:
        encoder_from_file(path)
        error, message = "", "it was loaded"
    except CheckpointError as refused:
        error, message = "CheckpointError", str(refused)
    except BaseException as crash:
        error, message = type(crash).__name__, str(crash)[:500]
    seconds = time.perf_counter() - start
    return {"name": path.name, "error": error, "message": message, "seconds": seconds, "peak": peak_megabytes()}


def main(good: Path, paths: list[Path]) -> None:
    """Load a good file first, so that everything is imported, then the others."""
    encoder_from_file(good)
    baseline = current_megabytes()
    results = [read(path) for path in paths]
    sys.stdout.write(json.dumps({"baseline": baseline, "results": results}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
