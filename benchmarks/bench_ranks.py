"""How far two gloo ranks are from one process that trains on the same global batches.

How: the losses of 20 steps on one process and on two ranks, for five fake systems (sequence, point, modalities, clip,
autoencoder) and a small semantic one with GroupNorm; the largest absolute difference. Then once more through the
command line: `python -m torch.distributed.run --nproc-per-node 2 -m gridloom train semantic` beside the same command
without torchrun.
Goal: at most 1e-5. Where there is dropout each rank draws its own mask, so that two ranks are another, equally good
run: fake_sequence is measured as it is, without a goal, and once more with its dropout off, with the goal.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import ROOT, Bench
from runs import SYSTEMS, final_state, join, losses, make_data, start_ranks, start_run

_GOAL = 1e-5
_DROPOUT = "fake_sequence"


def _compare(one: Path, two: Path) -> dict[str, Any]:
    first, second = losses(one), losses(two)
    assert len(first) == len(second) > 0
    weights, others = final_state(one), final_state(two)
    return {
        "steps": len(first),
        "first loss": first[0],
        "last loss": first[-1],
        "difference": max(abs(a - b) for a, b in zip(first, second, strict=True)),
        "weights": max(
            float((weights[name] - others[name]).abs().max()) for name in weights if name.startswith("model/")
        ),
    }


def in_the_loop(*, system: str, steps: int) -> dict[str, Any]:
    """Call the loop directly on one process and on two ranks."""
    settings = {"steps": steps, "checkpoint_every": steps}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = make_data(folder)
        codes = [join(start_run(system, data, folder / "one", **settings))]
        codes += [join(rank) for rank in start_ranks(system, data, folder / "two", world=2, **settings)]
        assert codes == [0, 0, 0], f"a run failed: {codes}"
        return _compare(folder / "one", folder / "two")


def on_the_command_line(*, steps: int) -> dict[str, Any]:
    """Run `gridloom train semantic` alone and under torchrun, artifact and evaluation included."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = make_data(folder)
        flags = f"""--data.window 32 32 --data.stride 8 8 --model.latent-dim 32 --model.width 8
            --train.steps {steps} --train.batch-size 8 --train.warmup-steps 2 --train.log-every 1
            --train.validate-every 0 --train.device cpu""".split()
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        for output, prefix in (("one", []), ("two", torchrun)):
            command = [sys.executable, *prefix, "-m", "gridloom", "train", "semantic", str(data), *flags]
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
        return _compare(folder / "one", folder / "two")


def _row(bench: Bench, name: str, found: dict[str, Any]) -> tuple[Any, ...]:
    judged = name != _DROPOUT
    verdict = bench.goal(name, found["difference"] <= _GOAL) if judged else ""
    goal = f"<= {_GOAL:g}" if judged else "none: dropout"
    bench.figure(name, found)
    return (name, found["steps"], found["first loss"], found["last loss"], found["difference"], goal, verdict)


def main() -> None:
    bench = Bench(__file__, __doc__ or "")
    steps = 10 if bench.quick else 20
    names = ("fake_modalities", "semantic") if bench.quick else SYSTEMS
    rows = [_row(bench, name, bench.cell(name, in_the_loop, system=name, steps=steps)) for name in names]
    rows.append(_row(bench, "semantic by torchrun", bench.cell("torchrun", on_the_command_line, steps=steps)))
    bench.table(("system", "steps", "first loss", "last loss", "largest difference", "goal", "verdict"), rows)
    bench.finish()


if __name__ == "__main__":
    main()
