"""What the benchmarks of gap filling share: protocols, training without evaluation, errors on hidden cells."""

import resource
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["DIGESTS", "hidden_error", "peak_mib", "score_model", "train_model"]

DIGESTS = {
    "ostia blocks": "62721366da9d804c",
    "ostia frames": "638ca917abb2ee39",
    "a1b blocks": "9581e917d1ccd284",
    "a1b frames": "9d73146ff5329103",
    "ssta blocks": "ab06cd771caa837b",
    "ssta cells": "91f0a3c5ca64ee55",
}
"""Digests of the hidden cells of each protocol."""


def train_model(settings: Mapping[str, Any], *, preset: str = "ostia") -> tuple[Any, Any, dict[str, float]]:
    """Resolve, prepare, train and calibrate, without any evaluation.

    Args:
        settings: Settings by dotted name, on top of the preset.
        preset: Where they start.

    Returns:
        The trained model, what was prepared, and what it cost: CPU and wall seconds, of which before the first step.
    """
    import torch

    from gridloom.core.registry import get_system
    from gridloom.core.system import Trained
    from gridloom.train.distributed import processes
    from gridloom.train.loop import train
    from gridloom.workflows.train import configure

    system = get_system("crossmae")
    cpu, wall = time.process_time(), time.perf_counter()
    plain = {"train.tensorboard": False}
    config = system.resolve(configure("crossmae", preset=preset, settings={**plain, **settings}))
    prepared = system.prepare(config)
    torch.manual_seed(config.seed)
    objective = system.objective(config)
    if config.background.kinds:  # made when first asked for: counted apart from the steps
        for number in range(config.background.folds):
            prepared.sources["train"]._fold(number)
    before = time.process_time() - cpu
    with tempfile.TemporaryDirectory() as folder, processes("cpu") as peers:
        outcome = train(
            objective,
            prepared.sources,
            config.train,
            seed=config.seed,
            folder=Path(folder),
            peers=peers,
            record={"system": system.name},
            monitor=system.monitor,
            show=False,
        )
    assert system.complete is not None
    system.complete(objective.eval(), config, prepared)
    cost = {
        "cpu seconds": time.process_time() - cpu,
        "wall seconds": time.perf_counter() - wall,
        "cpu seconds before the first step": before,
        "steps": float(outcome.step),
        "best step": float(outcome.best_step or outcome.step),
    }
    return Trained(config=config, objective=objective, normalizer=prepared.normalizer), prepared, cost


def score_model(trained: Any, prepared: Any) -> dict[str, Any]:
    """Errors and coverage of a trained model on the hidden cells of the test, with the digest of these cells."""
    from gridloom.grid.gaps import mask_digest
    from gridloom.systems.crossmae.fill import Filler
    from gridloom.systems.crossmae.score import coverage

    task = prepared.task("test")
    started = time.process_time()
    found = Filler(trained).predict(task.given, task.wanted)
    told = {"fill cpu seconds": time.process_time() - started}
    cells = {str(name): wanted.values for name, wanted in task.wanted.data_vars.items() if wanted.values.any()}
    told["rmse"] = {name: hidden_error(task, found, name) for name in cells}
    told["digest"] = {name: mask_digest(hidden) for name, hidden in cells.items()}
    told["coverage"] = {score.metric: score.value for score in coverage(task, {"model": found}, 0)}
    told["blend"] = trained.objective.blend.tolist()
    told["kinds"] = list(trained.config.background.kinds)
    told["parameters"] = sum(parameter.numel() for parameter in trained.objective.parameters())
    return told


def hidden_error(task: Any, found: Any, name: str, times: slice = slice(None)) -> float:
    """Root mean square error over the hidden cells, which were all observed, in data units."""
    hidden = task.wanted[name].values[times]
    if not hidden.any():
        return float("nan")
    off = found[name].transpose(*task.truth[name].dims).values[times] - task.truth[name].values[times]
    return float(np.sqrt(np.square(off[hidden].astype(np.float64)).mean()))


def peak_mib() -> float:
    """Largest memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
