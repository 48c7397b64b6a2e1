"""What becomes of hostile and broken files of weights: read by gridloom, and by plain `torch.load` beside it.

How: the files of `tests/encoders/hostile.py`, each read in its own forked child that has everything imported, may
take 2 GiB more address space and 20 s. A folder that only the files' own code would make tells whether code ran;
memory is the child's peak over its start. Plain is `torch.load(path)` with its defaults (`safetensors.torch.load_file`
for .safetensors), once as it is and once with TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 in the environment; gridloom is
asked with that variable set. Plain reading does not know the model, so "opened" is no fault of it where only shapes,
names or values are wrong. A folder with `.metadata` is read plainly by `dcp_to_torch_save` of
torch.distributed.checkpoint.
The second table is of checkpoints of one small autoencoder that torch itself wrapped and saved, in two processes
(`tests/encoders/wrapped.py`): each is extracted, verified, and compared to the bit with the encoder that went in.
Goals: none executed, all refused as CheckpointError, each within 1 s and 256 MB; every wrapper bit-equal, and what is
not whole refused.
"""

import json
import os
import resource
import signal
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import Bench

_SECONDS, _MEGABYTES = 1.0, 256.0
_MORE_MEMORY, _TIME_LIMIT = 2 * 1024**3, 20
_FORCE = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


def _ours(path: Path) -> None:
    from gridloom.encoders.extract import encoder_from_file

    encoder_from_file(path)


def _plain(path: Path) -> None:
    import safetensors.torch
    import torch

    if path.is_dir():
        from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

        dcp_to_torch_save(path, path / "whole.pth")
    elif path.suffix == ".safetensors":
        safetensors.torch.load_file(path)
    else:
        torch.load(path)


_READERS: dict[str, tuple[Callable[[Path], None], bool]] = {
    "gridloom": (_ours, True),
    "torch.load": (_plain, False),
    "torch.load, forced": (_plain, True),
}


def _pages(number: int) -> int:
    return int(Path("/proc/self/statm").read_text().split()[number]) * resource.getpagesize()


def _attempt(reader: Callable[[Path], None], path: Path) -> dict[str, Any]:
    """Read a file; runs in the child."""
    from gridloom.core.errors import CheckpointError

    before = _pages(1)
    started = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader(path)
        outcome, message = "opened", ""
    except CheckpointError as error:
        outcome, message = "refused", " ".join(str(error).replace(str(path), path.name).split())
    except MemoryError:
        outcome, message = "out of memory", ""
    except BaseException as error:  # whatever it is, the forked child must not go on as its parent
        outcome, message = type(error).__name__, ""
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"outcome": outcome, "message": message, "seconds": seconds, "MB": max(0, peak - before) / 2**20}


def _in_child(reader: Callable[[Path], None], path: Path, *, force: bool) -> dict[str, Any]:
    """Fork, read, and get the verdict back through a pipe; a child that dies is told by its signal."""
    receive, send = os.pipe()
    started = time.perf_counter()
    child = os.fork()
    if child == 0:
        os.close(receive)
        signal.alarm(_TIME_LIMIT)
        resource.setrlimit(resource.RLIMIT_AS, (_pages(0) + _MORE_MEMORY, resource.RLIM_INFINITY))
        if force:
            os.environ[_FORCE] = "1"
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os.write(send, json.dumps(_attempt(reader, path)).encode())
        os._exit(0)
    os.close(send)
    with os.fdopen(receive, "rb") as pipe:
        answer = pipe.read()
    _, status, usage = os.wait4(child, 0)
    if answer:
        return dict(json.loads(answer))
    code = os.waitstatus_to_exitcode(status)
    name = signal.Signals(-code).name if code < 0 else f"exit {code}"
    return {"outcome": name, "message": "", "seconds": time.perf_counter() - started, "MB": usage.ru_maxrss / 1024}


def read_all(*, reader: str) -> dict[str, Any]:
    """Read every file with one reader."""
    import torch
    from tests.encoders.hostile import small_weights, write_hostile_files
    from tests.encoders.hostile_folders import write_sharded

    read, force = _READERS[reader]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        canary = folder / "canary"
        files = write_hostile_files(folder / "files", canary)
        torch.save(small_weights(), folder / "good.pth")
        read(folder / "good.pth")  # so that all that it imports is in the baseline; it must load
        read(write_sharded(folder / "good.dcp", small_weights()))
        verdicts = []
        for file in files:
            verdict = _in_child(read, file.path, force=force)
            executed = canary.exists()
            if executed:
                canary.rmdir()
            verdicts.append({"name": file.path.name, "kind": file.kind, "executed": executed, **verdict})
    return {"files": verdicts}


def read_wrapped() -> dict[str, Any]:
    """Extract every wrapped checkpoint."""
    from tests.encoders.wrapped import REFUSED, read_wrapped_files, write_wrapped_files

    with tempfile.TemporaryDirectory() as name:
        write_wrapped_files(Path(name))
        return {"verdicts": read_wrapped_files(Path(name)), "refused": list(REFUSED)}


def _report_wrapped(bench: Bench) -> None:
    found = bench.cell("wrapped", read_wrapped)
    verdicts = found["verdicts"]
    rows = []
    for name, verdict in verdicts.items():
        refused = verdict.get("refused", "").split(": ", 1)[-1]
        outcome = "refused" if refused else "bit-equal" if verdict["equal"] else "DIFFERS"
        rows.append((name, outcome, verdict.get("tensors", ""), verdict.get("verified", ""), refused[:60]))
    bench.table(("checkpoint", "encoder", "tensors", "verified", "gridloom says"), rows)
    wrong = [name for name, outcome, *_ in rows if (outcome == "refused") != (name in found["refused"])]
    wrong += [name for name, outcome, *_ in rows if outcome == "DIFFERS"]
    print(f"every wrapper bit-equal: {bench.goal('every wrapper bit-equal', not wrong)} {', '.join(wrong)}")
    bench.figure("wrapped", {outcome: sum(row[1] == outcome for row in rows) for outcome in ("bit-equal", "refused")})


def _short(verdict: dict[str, Any]) -> str:
    return "EXECUTED" if verdict["executed"] else str(verdict["outcome"])


def main() -> None:
    bench = Bench(__file__, __doc__ or "")
    found = {reader: bench.cell(reader, read_all, reader=reader)["files"] for reader in _READERS}
    rows = []
    for ours, plain, forced in zip(*found.values(), strict=True):
        yes = ours["outcome"] == "refused"
        rows.append(
            (
                ours["kind"],
                "EXECUTED" if ours["executed"] else "no",
                "yes" if yes else ours["outcome"],
                round(ours["seconds"], 3),
                round(ours["MB"]),
                _short(plain),
                _short(forced),
                ours["message"].split(": ", 1)[-1][:60],
            )
        )
    header = ("file", "executed", "refused", "s", "MB", "torch.load", "torch.load, forced", "gridloom says")
    bench.table(header, rows)
    summary = []
    for reader, verdicts in found.items():
        summary.append(
            (
                reader,
                len(verdicts),
                sum(verdict["executed"] for verdict in verdicts),
                sum(verdict["outcome"] == "refused" for verdict in verdicts),
                sum(verdict["outcome"] == "opened" and not verdict["executed"] for verdict in verdicts),
                sum(verdict["outcome"] not in ("refused", "opened") for verdict in verdicts),
                max(verdict["seconds"] for verdict in verdicts),
                max(verdict["MB"] for verdict in verdicts),
            )
        )
    header = ("reader", "files", "executed", "CheckpointError", "opened", "other exceptions", "slowest s", "most MB")
    bench.table(header, summary)
    _, _, executed, refused, _, _, slowest, largest = summary[0]
    print(f"none executed: {bench.goal('none executed', executed == 0)}")
    print(f"all refused: {bench.goal('all refused', refused == len(rows))}")
    print(f"each within {_SECONDS} s: {bench.goal('within 1 s', slowest <= _SECONDS)}")
    print(f"each within {_MEGABYTES:.0f} MB: {bench.goal('within 256 MB', largest <= _MEGABYTES)}")
    bench.figure("summary", [dict(zip(header, row, strict=True)) for row in summary])
    _report_wrapped(bench)
    bench.finish()


if __name__ == "__main__":
    main()
