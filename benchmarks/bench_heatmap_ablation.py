"""What the seed's choices cost, and what each switch brings: from the seed's model to the preset, one change at a time.

How: flights by the hour, one step ahead, the same split, windows, batches and steps for all, on one thread. First the
seed's own model at its full size, as it is. Then its topology at the preset's reduced size, so that many can be
trained, with one switch after the other turned on and left on. Beside the error: what a linear probe reads from a
frame's latent on held-out time, after what the slot alone says is taken away: the level of activity (its logarithm),
and where in the frame the events are (center along both axes); and how alike latents of different frames of one slot
are (cosine), beside frames of different slots.
`--quick` trains a few steps; `--full` tries other losses too. The usual run takes about 18 CPU minutes.
"""

from typing import Any

import numpy as np
import torch
from common import Bench
from forecasting import ALL_ORIGINS, errors, question, shorter, train_forecaster

_STEPS = 150
_SEED_STEPS = 200
_SEED: dict[str, Any] = {"data.within_session": False, "train.learning_rate": 1e-3, "train.warmup_steps": 20}
_PLAIN: dict[str, Any] = {
    "model.pool": "gap",
    "model.normalize": "frame",
    "model.alpha": 0.1,
    "model.slot_init_std": 1.0,
    "model.causal.kind": "placeholder",
    "model.next_slot": False,
    "model.residual": "none",
    "model.memory": {"seasonal": [], "lags": [], "deviation_lags": [], "deviation_averages": [], "cells": "all"},
    "model.local": {"width": 0},
}
_MEMORY = {"seasonal": [[168, 0.2]], "lags": [], "deviation_lags": [], "deviation_averages": [], "cells": "seen"}
_LADDER: tuple[tuple[str, dict[str, Any]], ...] = (
    ("the seed's switches, reduced size", {}),
    ("+ output bias: the mean frame", {"model.output_bias": True}),
    ("+ all of the coarsest map, not its mean", {"model.pool": "flatten"}),
    ("+ level of activity told", {"model.normalize": "frame+stats"}),
    ("+ content beside the slot (alpha 1, slots 0.02)", {"model.alpha": 1.0, "model.slot_init_std": 0.02}),
    ("+ causal transformer", {"model.causal.kind": "transformer"}),
    ("+ slot of the next frame told", {"model.next_slot": True}),
    (
        "+ correct the slot's following mean",
        {"model.output_bias": False, "model.residual": "slot_mean", "model.memory": _MEMORY},
    ),
    ("+ frames as deviations from their slot", {"model.normalize": "slot"}),
)
_OTHERS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("the preset: with the local network", {}),
    ("the preset without latents", {"model.decode": False, "model.next_slot": False}),
    ("the preset, Poisson likelihood", {"loss.kind": "poisson"}),
    ("the preset, cross-entropy", {"loss.kind": "bce"}),
    ("the preset, noise on what the encoder sees", {"loss.context_noise": 0.03}),
)


def variant(*, preset: str, settings: dict[str, Any], steps: int, quick: bool) -> dict[str, Any]:
    """Train one variant; its error on the whole test part, and what its latents hold."""
    from gridloom.systems.heatmap.predict import HeatmapForecaster

    settings = {"data.path": "flights", "train.steps": steps, "train.validate_every": steps, **settings}
    trained, _, seconds = train_forecaster(preset, shorter(settings, quick))
    task = question(trained.config, leads=(1,), max_origins=24 if quick else ALL_ORIGINS)
    answers = HeatmapForecaster(trained).predict(task.given, task.wanted)
    held = latents(trained, quick)
    return {"cpu_seconds": seconds, "mse": errors(task, answers)["1"], **held}


@torch.no_grad()
def latents(trained: Any, quick: bool) -> dict[str, float]:
    """Linear probes of the latents, and how alike they are."""
    from gridloom.systems.heatmap.data import open_record, split_record

    record = open_record("flights")
    parts = split_record(record, trained.config).parts
    every = 40 if quick else 4
    train, test = (np.arange(*parts[name], every) for name in ("train", "test"))
    frames = {"train": record.pixels(0, train), "test": record.pixels(0, test)}
    encoder = trained.objective.encoder
    z = {}
    for name, times in (("train", train), ("test", test)):
        chunks = np.array_split(np.arange(len(times)), max(1, len(times) // 64))
        slots = torch.from_numpy(record.slot[times])
        z[name] = torch.cat([encoder(torch.from_numpy(frames[name][chunk]), slots[chunk]) for chunk in chunks]).double()
    targets = {name: _targets(frames[name]) for name in frames}
    slot_means = _slot_means(targets["train"], record.slot[train], record.num_slots)
    result = {}
    for index, what in enumerate(("activity", "center")):
        columns = slice(0, 1) if index == 0 else slice(1, 3)
        given = torch.from_numpy(targets["train"] - slot_means[record.slot[train]])[:, columns]
        asked = torch.from_numpy(targets["test"] - slot_means[record.slot[test]])[:, columns]
        found = _ridge(z["train"], given, z["test"])
        result[what] = float(1 - (found - asked).square().sum() / asked.square().sum())
    unit = torch.nn.functional.normalize(z["test"], dim=1)
    alike = unit @ unit.T
    same = torch.from_numpy(record.slot[test][:, None] == record.slot[test])
    itself = torch.eye(len(test), dtype=torch.bool)
    result["alike_same"] = float(alike[same & ~itself].mean()) if (same & ~itself).any() else float("nan")
    result["alike_other"] = float(alike[~same].mean())
    return result


def _targets(frames: np.ndarray) -> np.ndarray:
    """Logarithm of the activity, and the center of the events along both axes in cells."""
    sums = frames.sum(axis=1)
    total = sums.sum(axis=(1, 2)) + 1e-3
    y, x = np.mgrid[: sums.shape[1], : sums.shape[2]]
    middle = (sums.shape[1] - 1) / 2
    centers = [((sums * axis).sum(axis=(1, 2)) + 1e-3 * middle) / total for axis in (y, x)]
    return np.stack([np.log(total + 0.1), *centers], axis=1)


def _slot_means(targets: np.ndarray, slots: np.ndarray, num_slots: int) -> np.ndarray:
    found = np.tile(targets.mean(axis=0), (num_slots, 1))
    for slot in np.unique(slots):
        found[slot] = targets[slots == slot].mean(axis=0)
    return found


def _ridge(given: torch.Tensor, answers: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
    """Ridge regression on standardized latents; the penalty that is best on the last fifth of what is given."""
    mean, deviation = given.mean(0), given.std(0) + 1e-6
    given, asked = (given - mean) / deviation, (asked - mean) / deviation
    border = len(given) * 4 // 5

    def solve(rows: torch.Tensor, values: torch.Tensor, penalty: float, new: torch.Tensor) -> torch.Tensor:
        center = values.mean(0)
        kernel = rows @ rows.T / rows.shape[1]  # dual form: fewer frames than features
        weights = torch.linalg.solve(kernel + penalty * torch.eye(len(rows), dtype=rows.dtype), values - center)
        return new @ rows.T / rows.shape[1] @ weights + center

    penalties = [10.0**power for power in range(-4, 4)]
    costs = [
        float((solve(given[:border], answers[:border], penalty, given[border:]) - answers[border:]).square().mean())
        for penalty in penalties
    ]
    return solve(given, answers, penalties[int(np.argmin(costs))], asked)


def main() -> None:
    """Train the ladder and print the table."""
    bench = Bench(__file__, __doc__ or "", sources=("systems/heatmap", "nn/causal.py"))
    rows = []

    def add(name: str, **arguments: Any) -> None:
        found = bench.cell(name, variant, quick=bench.quick, **arguments)
        bench.figure(name, found)
        kept = ("mse", "activity", "center", "alike_same", "alike_other", "cpu_seconds")
        rows.append([name, *(round(found[key], 3) for key in kept[:-1]), round(found["cpu_seconds"])])

    add("the seed's model, full size", preset="seed", settings=_SEED, steps=_SEED_STEPS)
    settings = dict(_PLAIN)
    ladder = _LADDER[:3] if bench.quick else _LADDER
    for name, change in ladder:
        settings = {**settings, **change}
        add(name, preset="flights", settings=settings, steps=_STEPS)
    for name, change in _OTHERS if bench.full else _OTHERS[: 1 if bench.quick else 2]:
        add(name, preset="flights", settings=change, steps=_STEPS)
    bench.table(
        (
            "model",
            "MSE x 1e4",
            "activity from z, R2",
            "center from z, R2",
            "cosine, same slot",
            "cosine, others",
            "CPU s",
        ),
        rows,
    )
    bench.finish()


if __name__ == "__main__":
    main()
