"""What ten SIGKILLs leave behind: is the checkpoint readable, and does the resumed run end bit-equal?

How: runs of 24 steps with a checkpoint every 4, each killed once and then resumed with two loader threads. Where: six
at drawn places (`GRIDLOOM_FAULT=place:nth:kill`: after a step, or inside the writing of a checkpoint), two by a plain
kill after a drawn step, two by a plain kill while a checkpoint is being written. After each kill `latest` must name a
checkpoint that agrees with its manifest; after the resumed end weights, optimizer state and losses must be those of
the run that nothing interrupted, bit by bit. Beside it, one state of 48 MB is written again and again by three ways
of saving, and the process is killed at a drawn moment of its second write.
Goal: ten of ten.
"""

import random
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import Bench
from runs import final_state, join, losses, make_data, same_bits, start_run

_KILLED = -signal.SIGKILL
_STEPS, _EVERY = 24, 4
_PLACES = {
    # place: times that a run passes it, of which the first checkpoint's are spared
    "step": (_EVERY + 1, _STEPS - 1),
    "checkpoint.model": (2, 6),
    "checkpoint.optimizer": (2, 6),
    "atomic.manifest": (2, 6),
    "folder.rename": (2, 6),
    "checkpoint.latest": (2, 6),
    "checkpoint.sweep": (2, 6),
    "atomic.rename": (6, 18),
}
_PLAIN = ("plain kill after a step", "plain kill inside a write")
_ORDER = ("place", "place", _PLAIN[0], "place", _PLAIN[1], "place", "place", _PLAIN[0], "place", _PLAIN[1])
_PATIENCE = 120.0
_HIDDEN = 2_000_000


def _kill_by_place(draw: random.Random, system: str, data: Path, folder: Path) -> tuple[str, int]:
    place = draw.choice(sorted(_PLACES))
    fault = f"{place}:{draw.randint(*_PLACES[place])}:kill"
    return fault, join(start_run(system, data, folder, fault=fault, steps=_STEPS))


def _kill_by_hand(draw: random.Random, kind: str, system: str, data: Path, folder: Path) -> tuple[str, int]:
    """Kill from outside as soon as the run is where it was drawn, and a few milliseconds more."""
    step, delay = draw.randint(_EVERY + 1, _STEPS - 2), draw.uniform(0, 0.003)
    child = start_run(system, data, folder, steps=_STEPS)
    deadline = time.monotonic() + _PATIENCE
    metrics, checkpoints = folder / "metrics.jsonl", folder / "checkpoints"
    while child.is_alive() and time.monotonic() < deadline:
        done = metrics.read_bytes().count(b"\n") if metrics.is_file() else 0
        writing = any(checkpoints.glob(".step-*.tmp-*")) if checkpoints.is_dir() else False
        if done >= step and (kind == _PLAIN[0] or writing):
            time.sleep(delay)
            break
        time.sleep(0.0005)
    child.kill()
    return f"{kind} {step}, {1000 * delay:.1f} ms later", join(child)


def _readable(folder: Path) -> bool:
    """Whether `latest` names a checkpoint that agrees with its manifest, and one is found to go on from."""
    from gridloom.core.atomic import verify_manifest
    from gridloom.core.errors import GridloomError
    from gridloom.train.checkpoint import newest_checkpoint

    checkpoints = folder / "checkpoints"
    try:
        verify_manifest(checkpoints / (checkpoints / "latest").read_text().strip())
        return newest_checkpoint(checkpoints) is not None
    except (GridloomError, OSError):
        return False


def kills(*, system: str, count: int, seed: int) -> dict[str, Any]:
    """Kill and resume runs of one system."""
    draw = random.Random(f"{system} {seed}")
    found = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = make_data(folder)
        assert join(start_run(system, data, folder / "whole", steps=_STEPS)) == 0
        whole, its_losses = final_state(folder / "whole"), losses(folder / "whole")
        for number in range(count):
            run = folder / f"run-{number}"
            kind = _ORDER[number % len(_ORDER)]
            if kind == "place":
                where, code = _kill_by_place(draw, system, data, run)
            else:
                where, code = _kill_by_hand(draw, kind, system, data, run)
            half = any((run / "checkpoints").glob(".step-*.tmp-*"))
            readable = _readable(run)
            resumed = join(start_run(system, data, run, steps=_STEPS, loader_threads=2)) == 0
            equal = resumed and same_bits(final_state(run), whole) and losses(run) == its_losses
            verdicts = {"killed": code == _KILLED, "half": half, "readable": readable, "equal": equal}
            found.append({"where": where, **verdicts})
    return {"kills": found}


def _straight(folder: Path, model: Any, optimizer: Any, step: int) -> None:
    import torch

    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, folder / "latest.pt")


def _renamed(folder: Path, model: Any, optimizer: Any, step: int) -> None:
    import torch

    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, folder / "temporary.pt")
    (folder / "temporary.pt").replace(folder / "latest.pt")


def _checkpoint(folder: Path, model: Any, optimizer: Any, step: int) -> None:
    from gridloom.train.checkpoint import save_checkpoint

    save_checkpoint(folder / "checkpoints", model, optimizer, step=step, record={}, keep=2)


_WAYS: dict[str, Callable[[Path, Any, Any, int], None]] = {
    "torch.save straight to the file": _straight,
    "torch.save, then rename": _renamed,
    "gridloom save_checkpoint": _checkpoint,
}


def _save_twice(way: str, folder: Path) -> None:
    """Save once in peace, say how long that took, and save again; runs in the child."""
    import torch

    model = torch.nn.Linear(2, _HIDDEN, bias=False)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    started = time.perf_counter()
    _WAYS[way](folder, model, optimizer, 1)
    (folder / "seconds.tmp").write_text(str(time.perf_counter() - started))
    (folder / "seconds.tmp").rename(folder / "seconds")
    _WAYS[way](folder, model, optimizer, 2)
    time.sleep(_PATIENCE)


def _loads(way: str, folder: Path) -> bool:
    import torch

    if way == "gridloom save_checkpoint":
        return _readable(folder)
    try:
        torch.load(folder / "latest.pt", weights_only=True)
    except Exception:  # whatever it is, there is no checkpoint
        return False
    return True


def writes(*, way: str, count: int, seed: int) -> dict[str, Any]:
    """Kill a process at a drawn moment of its second write; count what can be read afterwards."""
    from tests.contract.processes import start

    draw = random.Random(f"moments {seed}")  # the same shares of the write for each way
    readable, seconds = [], []
    for _ in range(count):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            child = start(_save_twice, way, folder)
            deadline = time.monotonic() + _PATIENCE
            while not (folder / "seconds").is_file():
                assert child.is_alive() and time.monotonic() < deadline, "the child did not save"
                time.sleep(0.0005)
            seconds.append(float((folder / "seconds").read_text()))
            time.sleep(draw.uniform(0, 0.9) * seconds[-1])
            child.kill()
            assert join(child) == _KILLED
            readable.append(_loads(way, folder))
    return {"readable": readable, "seconds": sorted(seconds)[len(seconds) // 2]}


def main() -> None:
    bench = Bench(__file__, __doc__ or "")
    count = 3 if bench.quick else 10
    rows = []
    for system in ("fake_autoencoder", "semantic"):
        found = bench.cell(system, kills, system=system, count=5 if bench.quick else 10, seed=0)["kills"]
        rows += [
            (system, kill["where"], *(kill[key] for key in ("killed", "half", "readable", "equal"))) for kill in found
        ]
        good = sum(kill["killed"] and kill["readable"] and kill["equal"] for kill in found)
        bench.goal(f"{system}: all readable and bit-equal", good == len(found))
        bench.figure(system, {"kills": len(found), "readable and bit-equal": good})
    bench.table(("system", "killed at", "killed", "half a write left", "latest readable", "resumed bit-equal"), rows)
    rows = []
    for way in _WAYS:
        found = bench.cell(way, writes, way=way, count=count, seed=0)
        unreadable = count - sum(found["readable"])
        ours = way.startswith("gridloom")
        verdict = bench.goal("readable after a kill inside a write", unreadable == 0) if ours else ""
        rows.append((way, f"{unreadable} of {count}", found["seconds"], "0" if ours else "", verdict))
        bench.figure(way, {"kills": count, "unreadable": unreadable})
    bench.table(("killed inside the write of 48 MB", "unreadable", "seconds a write", "goal", "verdict"), rows)
    bench.finish()


if __name__ == "__main__":
    main()
