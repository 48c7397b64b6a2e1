"""Finding the minimum at the specification's defaults, ours against its listing word for word.

16,384 candidates and 3 iterations at batch 1, 8 and 64 on one thread, in turns, CPU time: the listing runs the CNN in
every call of the energy and concatenates features and candidates; ours runs it once, splits the first layer, and keeps
candidates in the cache. Then the default search in two dimensions (a grid and pattern search), with the convolutions in
bfloat16 too, and its distance to the true minimum; peak memory; and a training step.

Goals: at batch 8 and 64 the same search at least 7x faster, with answers within 1e-5 for recorded indices and noise;
the default search 15x and within 0.02 px of the true minimum; with bfloat16 convolutions, where the CPU has them, 25x
and at most 0.02 px of added error; peak memory at batch 64 at most a quarter; a training step 1.3x, with bfloat16 2.5x.
"""

import copy
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import Bench, paired
from listed import ListedEBM, listed_minimize

SOURCES = ("nn/spatial.py", "systems/energy")
BOUNDS = torch.tensor([[-1.0, -1.0], [1.0, 1.0]])
NEGATIVES = 256


def _trained(steps: int) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    """Weights of the listed model after some steps under the public names, test images, and their targets."""
    import gridloom
    from gridloom.core.registry import get_system
    from gridloom.train.distributed import processes
    from gridloom.train.loop import train

    system = get_system("energy")
    settings = {
        "model.compat": "seed",
        "data.num_train": 30,
        "data.num_test": 64,
        "train.steps": steps,
        "train.precision": "bf16",
        "train.tensorboard": False,
        "train.validate_every": 0,
        "train.snapshots": [],
        "loss.near_scales": [0.3, 0.1, 0.03],
    }
    config = system.resolve(gridloom.configure(system, preset="seed", settings=settings))
    prepared = system.prepare(config)
    torch.manual_seed(0)
    objective = system.objective(config)
    with tempfile.TemporaryDirectory() as folder, processes("cpu") as peers:
        train(
            objective,
            prepared.sources,
            config.train,
            seed=0,
            folder=Path(folder),
            peers=peers,
            record={},
            show=False,
        )
    batch = prepared.sources["test"].collate(list(range(64)), 0)
    state = {name.removeprefix("model.").removeprefix("encoder."): v for name, v in objective.state_dict().items()}
    return state, batch.fields["image"].values, batch.fields["target"].values


def _models(state: dict[str, torch.Tensor]) -> tuple[ListedEBM, Any]:
    from gridloom.systems.energy.model import EBMConvMLP, KeypointEncoder, load_listed_weights

    listed = ListedEBM().eval()
    listed.load_state_dict({name.replace(".net.", "."): value for name, value in state.items()})
    ours = EBMConvMLP(KeypointEncoder(compat="seed")).eval()
    load_listed_weights(ours, state)
    return listed, ours


def _seconds(function: Callable[[], Any]) -> Callable[[], float]:
    def measure() -> float:
        started = time.process_time()
        function()
        return time.process_time() - started

    return measure


def measure_speed(batch: int, steps: int, repetitions: int) -> dict[str, Any]:
    """CPU seconds of the listing and of each search of ours, in turns."""
    from gridloom.systems.energy.search import DerivativeFreeOptimizer, PatternSearch

    torch.set_num_threads(1)
    state, images, _ = _trained(steps)
    listed, ours = _models(state)
    x = images[:batch]

    def half() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            PatternSearch().minimize(ours, x, BOUNDS)

    searches = {
        "same search": lambda: DerivativeFreeOptimizer().minimize(ours, x, BOUNDS),
        "pattern search": lambda: PatternSearch().minimize(ours, x, BOUNDS),
        "pattern search, bf16": half,
    }
    found: dict[str, Any] = {}
    for name, search in searches.items():
        search()
        reference, costs = paired(
            _seconds(lambda: listed_minimize(listed, x)), _seconds(search), repetitions=repetitions
        )
        found[name] = {
            "listed": statistics.median(reference),
            "ours": statistics.median(costs),
            "ratio": statistics.median(a / b for a, b in zip(reference, costs, strict=True)),
        }
    return found


def measure_accuracy(steps: int) -> dict[str, Any]:
    """Replay against the listing, and distances to the true minimum in pixels."""
    from gridloom.systems.energy.descent import polish
    from gridloom.systems.energy.search import DerivativeFreeOptimizer, PatternSearch, Replay

    state, images, target = _trained(steps)
    listed, ours = _models(state)
    generator = torch.Generator().manual_seed(1)
    x, count = images[:8], 16384
    samples = torch.rand(8, count, 2, generator=generator) * 2 - 1
    indices = [torch.randint(count, (8, count), generator=generator) for _ in range(3)]
    noise = [torch.randn(8, count, 2, generator=generator) for _ in range(3)]
    theirs = listed_minimize(listed, x, recorded=(samples, indices, noise))
    replayed = DerivativeFreeOptimizer().minimize(
        ours, x, BOUNDS, replay=Replay(samples=samples, indices=indices, noise=noise)
    )
    with torch.no_grad():
        energy = (listed(x, samples) - ours(x, samples)).abs().max() / listed(x, samples).std()
        features = ours.encode(images)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = ours.encode(images)
    exact = copy.deepcopy(ours).double()
    wide = PatternSearch(grid=192, rounds=16, starts=32).minimize(exact, images.double(), BOUNDS)
    true = polish(exact, images.double(), BOUNDS, wide.best).best
    half = (images.shape[-1] - 1) / 2

    def far(best: torch.Tensor, place: torch.Tensor) -> dict[str, float]:
        distance = (best.double() - place.double()).norm(dim=1) * half
        return {"mean": float(distance.mean()), "worst": float(distance.max())}

    default = PatternSearch().minimize(ours, images, BOUNDS).best
    with torch.autocast("cpu", torch.bfloat16):
        in_half = PatternSearch().minimize(ours, images, BOUNDS).best
    resampled = DerivativeFreeOptimizer().minimize(ours, images, BOUNDS).best
    with torch.no_grad():
        known = exact.encode(images.double())
        above = exact.energy(known, default.double()[:, None]) - exact.energy(known, true[:, None])
    return {
        "energy_above_minimum": float(above.max()),
        "replay_difference": float((theirs - replayed.best).abs().max()),
        "energy_difference": float(energy),
        "feature_change_bf16_px": float((features - rounded).abs().max() * half),
        "derivative-free": far(resampled, true),
        "pattern search": far(default, true),
        "pattern search, bf16": far(in_half, true),
        "error": far(default, target),
        "error, bf16": far(in_half, target),
    }


def _peak(which: str, state: dict[str, Any], images: torch.Tensor, pipe: Any) -> None:
    from gridloom.systems.energy.search import DerivativeFreeOptimizer, PatternSearch

    torch.set_num_threads(1)
    listed, ours = _models(state)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _status("VmRSS")
    if which == "listed":
        listed_minimize(listed, images)
    elif which == "same search":
        DerivativeFreeOptimizer().minimize(ours, images, BOUNDS)
    else:
        PatternSearch().minimize(ours, images, BOUNDS)
    pipe.send(_status("VmHWM") - before)


def _status(name: str) -> float:
    """A figure of this process's memory, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024


def measure_memory() -> dict[str, Any]:
    """Peak resident memory that a search of 64 images adds, each in a process of its own, in MiB."""
    torch.manual_seed(0)
    state, images = ListedEBM().public_names(), torch.rand(64, 3, 96, 96)
    found = {}
    context = multiprocessing.get_context("spawn")
    for which in ("listed", "same search", "pattern search"):
        here, there = context.Pipe()
        child = context.Process(target=_peak, args=(which, state, images, there))
        child.start()
        found[which] = here.recv()
        child.join()
    return found


def measure_step(repetitions: int) -> dict[str, Any]:
    """CPU seconds of a training step at batch 8 with 256 counter-examples, fp32 and bf16 convolutions."""
    from gridloom.systems.energy.loss import info_nce

    torch.set_num_threads(1)
    torch.manual_seed(0)
    listed, ours = _models(ListedEBM().public_names())
    x, y = torch.rand(8, 3, 96, 96), torch.rand(8, NEGATIVES + 1, 2) * 2 - 1
    true = torch.zeros(8, dtype=torch.int64)
    optimizers = {name: torch.optim.Adam(m.parameters()) for name, m in {"listed": listed, "ours": ours}.items()}

    def their_step() -> None:
        optimizers["listed"].zero_grad()
        torch.nn.functional.cross_entropy(-listed(x, y), true).backward()
        optimizers["listed"].step()

    def our_step(half: bool) -> None:
        optimizers["ours"].zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            energies = ours(x, y)
        info_nce(energies, true).mean().backward()
        optimizers["ours"].step()

    found = {}
    for name, half in (("fp32", False), ("bf16", True)):
        their_step(), our_step(half)
        reference, costs = paired(
            _seconds(their_step), _seconds(lambda half=half: our_step(half)), repetitions=repetitions
        )
        found[name] = {
            "listed": statistics.median(reference),
            "ours": statistics.median(costs),
            "ratio": statistics.median(a / b for a, b in zip(reference, costs, strict=True)),
        }
    return found


def main() -> None:
    bench = Bench(__file__, __doc__, sources=SOURCES)
    steps = 20 if bench.quick else 300
    rows = []
    for batch, repetitions in ((1, 7), (8, 5), (64, 3)) if not bench.quick else ((1, 1), (8, 1)):
        cell = bench.cell(f"batch {batch}", measure_speed, batch=batch, steps=5, repetitions=repetitions)
        goals = {"same search": 7.0, "pattern search": 15.0, "pattern search, bf16": 25.0}
        for name, figures in cell.items():
            word = bench.goal(f"{name}, batch {batch}", figures["ratio"] >= goals[name]) if batch > 1 else ""
            goal = f"{goals[name]:.0f}x" if batch > 1 else ""
            rows.append([name, batch, figures["listed"], figures["ours"], f"{figures['ratio']:.1f}x", goal, word])
            bench.figure(f"{name}, batch {batch}", round(figures["ratio"], 2))
    bench.table(["search", "batch", "listing CPU s", "ours CPU s", "ratio", "goal", ""], rows)
    found = bench.cell("accuracy", measure_accuracy, steps=steps)
    added = found["error, bf16"]["mean"] - found["error"]["mean"]
    mean, worst = (found["pattern search"][name] for name in ("mean", "worst"))
    bench.table(
        ["", "value", "goal", ""],
        [
            [
                "replay, difference of the answers",
                found["replay_difference"],
                "1e-5",
                bench.goal("replay", found["replay_difference"] <= 1e-5),
            ],
            ["energies, greatest difference / deviation", found["energy_difference"], "", ""],
            [
                "pattern search to the minimum in float64, mean [px]",
                mean,
                "0.02",
                bench.goal("minimum, mean", mean <= 0.02),
            ],
            ["the same, worst of 64 [px]", worst, "0.02", bench.goal("minimum, worst", worst <= 0.02)],
            ["its energy above the minimum, worst", found["energy_above_minimum"], "", ""],
            ["derivative-free to the true minimum, mean [px]", found["derivative-free"]["mean"], "", ""],
            ["bf16 convolutions, added mean error [px]", added, "0.02", bench.goal("bf16 error", added <= 0.02)],
            ["bf16 convolutions, answers moved, mean [px]", found["pattern search, bf16"]["mean"], "", ""],
            ["bf16 convolutions, a keypoint moves at most [px]", found["feature_change_bf16_px"], "", ""],
        ],
    )
    bench.figure("accuracy", found)
    memory = bench.cell("memory", measure_memory)
    share = memory["same search"] / memory["listed"]
    bench.table(
        ["memory at batch 64", "MiB", "share of the listing's", "goal", ""],
        [
            [name, round(value), f"{value / memory['listed']:.3f}", "", ""]
            if name != "same search"
            else [name, round(value), f"{share:.3f}", "0.25", bench.goal("memory", share <= 0.25)]
            for name, value in memory.items()
        ],
    )
    bench.figure("memory_MiB", memory)
    step = bench.cell("training step", measure_step, repetitions=3 if bench.quick else 15)
    bench.table(
        ["training step, batch 8", "listing CPU s", "ours CPU s", "ratio", "goal", ""],
        [
            [
                name,
                figures["listed"],
                figures["ours"],
                f"{figures['ratio']:.2f}x",
                f"{goal}x",
                bench.goal(f"step {name}", figures["ratio"] >= goal),
            ]
            for (name, figures), goal in zip(step.items(), (1.3, 2.5), strict=True)
        ],
    )
    bench.figure("step", {name: round(figures["ratio"], 2) for name, figures in step.items()})
    bench.finish()


if __name__ == "__main__":
    main()
