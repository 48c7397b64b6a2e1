"""How exactly an energy locates after 5, 10 and 30 examples, beside the regression of the same network.

500 test images drawn independently of the training ones; 600 steps at batch 8 (5 with five examples) for all, 3x3
convolutions in bfloat16. `seed` is the listed model with the last weights and the derivative-free search; `recommended`
chooses its weights on 32 held-out images. The regression (ConvMLP, MSE) gets the same network, data, steps and choice.
Errors are Euclidean, in pixels of a 96x96 image.

Goals for `recommended`: ten examples: 500 of 500 under 1 px on every seed, mean of the worst seed at most 0.15 px, of
the median seed 0.02 px; 30 examples: 0.03 px; 5 examples: 500 of 500 on the median seed; squared error at least 100
times below the regression's. Then what each part of it is worth, on ten examples.
The usual run measures ten examples with three seeds; `--full` 5, 10 and 30 with five, and the ablation; `--quick`
trains a few steps, and its figures mean nothing.
"""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Bench

SOURCES = (
    "core/random.py",
    "nn/spatial.py",
    "train/loop.py",
    "train/optim.py",
    "systems/energy/config.py",
    "systems/energy/data.py",
    "systems/energy/descent.py",
    "systems/energy/generate.py",
    "systems/energy/loss.py",
    "systems/energy/model.py",
    "systems/energy/objective.py",
    "systems/energy/search.py",
)
STEPS = 600
UNCHOSEN = {"seed": {"train.final_learning_rate": 9.4e-4}, "recommended": {}}
ABLATION: dict[str, dict[str, Any]] = {
    "recommended": {},
    "images not centered": {"data.normalize": "unit"},
    "with CoordConv": {"model.coord_conv": True},
    "fusion by concatenation": {"model.fusion": "concat"},
    "uniform negatives": {"loss.near_scales": []},
    "near negatives, log q left in": {"loss.correct_density": False},
    "listed residual block": {"model.compat": "seed"},
    "weights of the last step": {"train.keep": "last"},
}


def locate(preset: str, kind: str, examples: int, seed: int, steps: int, changes: dict[str, Any]) -> dict[str, Any]:
    """Train one model and measure its errors on the test images, with several searches for an energy."""
    import gridloom
    from gridloom.core.registry import get_system
    from gridloom.systems.energy.descent import polish
    from gridloom.systems.energy.search import DerivativeFreeOptimizer, PatternSearch
    from gridloom.train.distributed import processes
    from gridloom.train.loop import train

    system = get_system("energy")
    settings: dict[str, Any] = {
        "seed": seed,
        "model.kind": kind,
        "data.num_train": examples,
        "train.steps": steps,
        "train.batch_size": min(8, examples),
        "train.precision": "bf16",
        "train.tensorboard": False,
        "train.snapshots": [],
        "train.checkpoint_every": steps,
        **UNCHOSEN[preset],
        **changes,
    }
    if preset == "seed":
        settings |= {"train.validate_every": 0}
    config = system.resolve(gridloom.configure(system, preset=preset, settings=settings))
    prepared = system.prepare(config)
    torch.manual_seed(seed)
    objective = system.objective(config)
    started = time.process_time()
    with tempfile.TemporaryDirectory() as folder, processes("cpu") as peers:
        outcome = train(
            objective,
            prepared.sources,
            config.train,
            seed=seed,
            folder=Path(folder),
            peers=peers,
            record={},
            monitor=system.monitor,
            show=False,
        )
    seconds = time.process_time() - started
    objective.eval()
    batch = prepared.sources["test"].collate(list(range(len(prepared.sources["test"]))), 0)
    images = torch.split(batch.fields["image"].values, 20)
    with torch.no_grad():
        features = torch.cat([objective.encoder.encode(part) for part in images])
    target = batch.fields["answers"].values[:, 0]
    answers = {"answer": objective.answer(features)}
    if kind == "energy" and not changes:
        from gridloom.systems.energy.search import FromFeatures

        model, bounds = FromFeatures(objective.model), objective.bounds
        resampled = [DerivativeFreeOptimizer().minimize(model, part, bounds)[0] for part in torch.split(features, 20)]
        answers["derivative-free"] = torch.cat(resampled)
        answers["derivative-free, polished"] = polish(model, features, bounds, answers["derivative-free"]).best
        answers["pattern search"] = PatternSearch().minimize(model, features, bounds).best
        answers["pattern search, polished"] = polish(model, features, bounds, answers["pattern search"]).best
    measured = {
        name: _describe(((found - target) * objective.half_range).norm(dim=1)) for name, found in answers.items()
    }
    square = float(((answers["answer"] - target) ** 2).mean())
    return {**measured, "squared_error": square, "best_step": outcome.best_step, "cpu_seconds": seconds}


def _describe(error: torch.Tensor) -> dict[str, float]:
    values = error.double().numpy()
    return {
        "mean": float(values.mean()),
        "median": float(np.median(values)),
        "p95": float(np.quantile(values, 0.95)),
        "worst": float(values.max()),
        "under_1px": int((values < 1).sum()),
        "images": len(values),
    }


def main() -> None:
    bench = Bench(__file__, __doc__, sources=SOURCES)
    steps = 10 if bench.quick else STEPS
    seeds = range(1 if bench.quick else 5 if bench.full else 3)
    counts = (10, 30, 5) if bench.full else (10,)
    methods = [("recommended", "energy"), ("recommended", "explicit"), ("seed", "energy"), ("seed", "explicit")]
    found: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for preset, kind in methods:
        for count in counts:
            found[preset, kind, count] = [
                bench.cell(
                    f"{preset} {kind} {count} examples seed {seed}",
                    locate,
                    preset=preset,
                    kind=kind,
                    examples=count,
                    seed=seed,
                    steps=steps,
                    changes={},
                )
                for seed in seeds
            ]
    rows = [
        [
            preset,
            "EBM" if kind == "energy" else "MSE",
            count,
            seed,
            *(round(cell["answer"][name], 4) for name in ("mean", "median", "p95", "worst")),
            f"{cell['answer']['under_1px']} of {cell['answer']['images']}",
            f"{cell['squared_error']:.1e}",
            round(cell["cpu_seconds"]),
        ]
        for (preset, kind, count), cells in sorted(found.items(), key=lambda item: (item[0][2], item[0][0], item[0][1]))
        for seed, cell in enumerate(cells)
    ]
    header = ["preset", "model", "examples", "seed", "mean px", "median px", "p95 px", "worst px", "under 1 px"]
    bench.table([*header, "MSE (-1 to 1)", "CPU s"], rows)
    searches = ["derivative-free", "derivative-free, polished", "pattern search", "pattern search, polished"]
    bench.table(
        ["search, recommended model, 10 examples", *(f"seed {seed} mean px" for seed in seeds)],
        [[name, *(round(c[name]["mean"], 4) for c in found["recommended", "energy", 10])] for name in searches],
    )
    goals(bench, found)
    for (preset, kind, count), cells in found.items():
        bench.figure(f"{preset} {kind} {count}", [cell["answer"]["mean"] for cell in cells])
    if bench.full:
        ablate(bench, steps)
        draw(bench, found)
    bench.finish()


def goals(bench: Bench, found: dict[tuple[str, str, int], list[dict[str, Any]]]) -> None:
    """Say which goals are reached."""
    ours = {
        count: cells for (preset, kind, count), cells in found.items() if (preset, kind) == ("recommended", "energy")
    }
    means = {count: [cell["answer"]["mean"] for cell in cells] for count, cells in ours.items()}
    all_near = {count: [cell["answer"]["under_1px"] == 500 for cell in cells] for count, cells in ours.items()}
    rows = [
        ["10 examples: 500 of 500 under 1 px on every seed", bench.goal("10: all", all(all_near[10]))],
        [f"10 examples: worst mean {max(means[10]):.4f} px (0.15)", bench.goal("10: worst", max(means[10]) <= 0.15)],
        [
            f"10 examples: median mean {statistics.median(means[10]):.4f} px (0.02)",
            bench.goal("10: median", statistics.median(means[10]) <= 0.02),
        ],
    ]
    if 30 in means:
        middle = statistics.median(means[30])
        rows.append([f"30 examples: median mean {middle:.4f} px (0.03)", bench.goal("30: median", middle <= 0.03)])
    if 5 in means:
        order = np.argsort(means[5])
        middle = int(order[len(order) // 2])
        rows.append(["5 examples: 500 of 500 on the median seed", bench.goal("5: all", all_near[5][middle])])
    for count, cells in ours.items():
        regression = found["recommended", "explicit", count]
        ratios = [b["squared_error"] / a["squared_error"] for a, b in zip(cells, regression, strict=True)]
        middle = statistics.median(ratios)
        name = f"{count} examples: MSE {middle:.0f} times below the regression's, median of seeds (100)"
        rows.append([name, bench.goal(f"{count}: 100x", middle >= 100)])
    bench.table(["goal", ""], rows)


def ablate(bench: Bench, steps: int) -> None:
    """What each part of the recommended preset is worth."""
    rows = []
    for name, changes in ABLATION.items():
        cells = [
            bench.cell(
                f"ablation {name} seed {seed}",
                locate,
                preset="recommended",
                kind="energy",
                examples=10,
                seed=seed,
                steps=steps,
                changes=changes,
            )
            if changes
            else bench.cell(
                f"recommended energy 10 examples seed {seed}",
                locate,
                preset="recommended",
                kind="energy",
                examples=10,
                seed=seed,
                steps=steps,
                changes={},
            )
            for seed in range(3)
        ]
        means = [cell["answer"]["mean"] for cell in cells]
        rows.append(
            [name, *(round(mean, 4) for mean in means), " ".join(str(cell["answer"]["under_1px"]) for cell in cells)]
        )
        bench.figure(f"ablation {name}", means)
    bench.table(["ablation, 10 examples", *(f"seed {s} mean px" for s in range(3)), "under 1 px of 500"], rows)


def draw(bench: Bench, found: dict[tuple[str, str, int], list[dict[str, Any]]]) -> None:
    """Error over the number of examples, with the spread over seeds."""
    from gridloom.systems.energy.pictures import error_over_examples
    from gridloom.viz.style import save

    names = {("recommended", "energy"): "EBM, recommended", ("seed", "energy"): "EBM, seed"}
    names |= {("recommended", "explicit"): "MSE, recommended", ("seed", "explicit"): "MSE, seed"}
    counts = sorted({count for _, _, count in found})
    errors = {
        label: np.array([[cell["answer"]["mean"] for cell in found[preset, kind, count]] for count in counts])
        for (preset, kind), label in names.items()
    }
    drawing = error_over_examples(np.array(counts), errors, unit="px")
    for suffix in ("png", "svg"):
        save(drawing.figure, bench.folder / f"error_over_examples.{suffix}")


if __name__ == "__main__":
    main()
