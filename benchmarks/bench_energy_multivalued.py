"""Targets with two right answers: an energy finds one of them, the squared error averages them.

`multimodal` (two squares in an image, either is right) and `branches` (a level x, the answer +-sqrt(x)), each
with an energy and with the regression of the same network on the same data and steps; held-out examples drawn
independently. An answer is on a mode if it is within 2 px of a square, or 0.05 of a root. Beside them the dumb answers.
`--quick` trains a few steps, and its figures mean nothing.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import Bench

SOURCES = ("core/random.py", "nn/spatial.py", "train/loop.py", "train/optim.py", "systems/energy")
NEAR = {"multimodal": 2.0, "branches": 0.05}


def measure(preset: str, kind: str, seed: int, steps: int) -> dict[str, Any]:
    """Train and describe the distance of each answer to the nearest right one, by method."""
    import gridloom
    from gridloom.core.registry import get_system
    from gridloom.systems.energy.score import distances
    from gridloom.workflows.view import open_view

    settings: dict[str, Any] = {"seed": seed, "model.kind": kind, "train.tensorboard": False, "train.snapshots": []}
    if steps:
        settings |= {"train.steps": steps, "train.validate_every": steps}
    system = get_system("energy")
    config = gridloom.configure(system, preset=preset, settings=settings)
    with tempfile.TemporaryDirectory() as folder:
        run = gridloom.train_system(system, config, output=Path(folder) / "run", report=False)
        if run.stopped_by is not None:
            raise SystemExit(f"{run.stopped_by}: stopped, nothing is kept")
        _, _, _, view = open_view(Path(folder) / "run")
    right = view.task.truth["answers"].values
    found = {}
    for method, answer in view.predictions.items():
        error = distances(answer["position"].values.astype(np.float64), right.astype(np.float64))
        found["MSE" if (method, kind) == ("energy", "explicit") else method] = {
            "mean": float(error.mean()),
            "median": float(np.median(error)),
            "worst": float(error.max()),
            "on_a_mode": float((error <= NEAR[preset]).mean()),
        }
    return found


def main() -> None:
    bench = Bench(__file__, __doc__, sources=SOURCES)
    steps = 20 if bench.quick else 0
    rows = []
    for preset in NEAR:
        for seed in range(3 if bench.full else 1):
            energy, explicit = (
                bench.cell(f"{preset} {kind} seed {seed}", measure, preset=preset, kind=kind, seed=seed, steps=steps)
                for kind in ("energy", "explicit")
            )
            methods = {**{name: value for name, value in energy.items() if name != "energy"}, "MSE": explicit["MSE"]}
            for name, value in {**methods, "energy": energy["energy"]}.items():
                figures = [round(value[key], 4) for key in ("mean", "median", "worst")]
                rows.append([preset, seed, name, *figures, f"{value['on_a_mode']:.1%}"])
            bench.figure(f"{preset} {seed}", {"energy": energy["energy"], "MSE": explicit["MSE"]})
            better = energy["energy"]["on_a_mode"] > 0.95 > 0.5 > explicit["MSE"]["on_a_mode"]
            bench.goal(f"{preset} {seed}: the energy on a mode, MSE between them", better)
    bench.table(["task", "seed", "method", "mean", "median", "worst", "on a mode"], rows)
    bench.finish()


if __name__ == "__main__":
    main()
