"""How far two gloo ranks are from one process that trains on the same global batches.

How: the losses of 20 steps, printed as float32, for five fake systems (sequence, point, modalities, clip,
autoencoder), a small semantic one with GroupNorm and a small crossmae; the largest absolute difference. Two ranks are
held against one process twice: one that takes the whole batch at once, and one that computes the same halves after
each other (`train.accumulate 2`; crossmae refuses that, its loss is a mean over the cells of the whole batch). The
second figure is what distribution itself changes. The first has rounding in it too: kernels sum a batch of 8 in
another order than two of 4, and training can let that grow from step to step; the float64 twin tells how much of it
is rounding. Then once more through the command line: `python -m torch.distributed.run --nproc-per-node 2 -m gridloom
train semantic` beside the same command without torchrun.
Goal: at most 1e-5, for each of the two. The sequence has dropout, drawn from each sample's own key; with torch's own
dropout each rank would draw its own mask, and two ranks would be another, equally good run.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import ROOT, Bench
from runs import SYSTEMS, join, losses, make_data, start_ranks, start_run

_GOAL = 1e-5


def _difference(one: Path, two: Path) -> float:
    return max(abs(a - b) for a, b in zip(losses(one), losses(two), strict=True))


def _compare(folder: Path) -> dict[str, Any]:
    history = losses(folder / "two")
    halves = (folder / "halves").exists()
    return {
        "steps": len(history),
        "first loss": history[0],
        "last loss": history[-1],
        "to the same halves": _difference(folder / "halves", folder / "two") if halves else None,
        "to the whole batch": _difference(folder / "one", folder / "two"),
    }


def in_the_loop(*, system: str, steps: int) -> dict[str, Any]:
    """Call the loop directly on one process and on two ranks."""
    settings = {"steps": steps, "checkpoint_every": steps}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = make_data(folder)
        codes = [join(start_run(system, data, folder / "one", **settings))]
        if system != "crossmae":
            codes += [join(start_run(system, data, folder / "halves", accumulate=2, **settings))]
        codes += [join(rank) for rank in start_ranks(system, data, folder / "two", world=2, **settings)]
        assert not any(codes), f"a run failed: {codes}"
        return _compare(folder)


def on_the_command_line(*, steps: int) -> dict[str, Any]:
    """Run `gridloom train semantic` alone and under torchrun, artifact and evaluation included."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = make_data(folder)
        flags = f"""--data.window 32 32 --data.stride 8 8 --model.latent-dim 32 --model.width 8
            --train.steps {steps} --train.batch-size 8 --train.log-every 1 --train.validate-every 0
            --train.device cpu""".split()
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        for output, prefix, more in (
            ("one", [], []),
            ("halves", [], ["--train.accumulate", "2"]),
            ("two", torchrun, []),
        ):
            command = [sys.executable, *prefix, "-m", "gridloom", "train", "semantic", str(data), *flags, *more]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            done = subprocess.run(
                [*command, "--output", str(folder / output)],
                cwd=ROOT,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr[-2000:]
            assert (folder / output / "artifact" / "manifest.json").is_file()
        return _compare(folder)


def _row(bench: Bench, name: str, found: dict[str, Any]) -> tuple[Any, ...]:
    bench.figure(name, found)
    row: list[Any] = [name, found["steps"], found["first loss"], found["last loss"]]
    for which in ("to the same halves", "to the whole batch"):
        told = found[which]
        row += ["", ""] if told is None else [told, bench.goal(f"{name}, {which}", told <= _GOAL)]
    return tuple(row)


def main() -> None:
    bench = Bench(__file__, __doc__ or "")
    steps = 10 if bench.quick else 20
    names = ("fake_modalities", "semantic", "crossmae") if bench.quick else (*SYSTEMS, "crossmae")
    rows = [_row(bench, name, bench.cell(name, in_the_loop, system=name, steps=steps)) for name in names]
    if bench.quick:
        print("  torchrun: left out by --quick, it takes a minute")
    else:
        rows.append(_row(bench, "semantic by torchrun", bench.cell("torchrun", on_the_command_line, steps=steps)))
    print(f"\nlargest difference of a loss, goal <= {_GOAL:g}:")
    header = ("system", "steps", "first loss", "last loss", "to the same halves", "goal", "to the whole batch", "goal")
    bench.table(header, rows)
    bench.finish()


if __name__ == "__main__":
    main()
