"""Training forecasters and asking them: what the benchmarks of heatmaps share."""

import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

__all__ = ["ALL_ORIGINS", "block_matching", "errors", "prepared", "question", "train_forecaster"]

ALL_ORIGINS = 1_000_000
SCALE = 1e4
"""Errors are squared pixels times this, as in the figures they stand beside."""


def prepared(preset: str, settings: Mapping[str, Any]) -> tuple[Any, Any]:
    """A resolved configuration and its data."""
    from gridloom.core.registry import get_system
    from gridloom.workflows.train import configure

    system = get_system("heatmap")
    config = system.resolve(configure(system, preset=preset, settings=dict(settings)))
    return config, system.prepare(config)


def train_forecaster(preset: str, settings: Mapping[str, Any]) -> tuple[Any, Any, float]:
    """Train a model without evaluating it.

    Returns:
        The trained model, its data, and CPU seconds of data, training and calibration together.
    """
    from gridloom.core.registry import get_system
    from gridloom.core.system import Trained
    from gridloom.train.distributed import processes
    from gridloom.train.loop import train

    torch.set_num_threads(1)
    started = time.process_time()
    system = get_system("heatmap")
    config, data = prepared(preset, settings)
    torch.manual_seed(config.seed)
    objective = system.objective(config)
    assert system.initialize is not None and system.complete is not None
    system.initialize(objective, config, data)
    with tempfile.TemporaryDirectory() as folder, processes("cpu") as peers:
        train(
            objective,
            data.sources,
            config.train,
            seed=config.seed,
            folder=Path(folder),
            peers=peers,
            record={"system": "heatmap"},
            monitor=system.monitor,
            show=False,
        )
    system.complete(objective.eval(), config, data)
    trained = Trained(config=config, objective=objective.eval(), normalizer=data.normalizer)
    return trained, data, time.process_time() - started


def question(config: Any, *, leads: tuple[int, ...], max_origins: int, split: str = "test") -> Any:
    """Ask a part for some leads."""
    from gridloom.systems.heatmap.data import forecast_task, open_record, split_record

    record = open_record(config.data.path)
    return forecast_task(
        record,
        split_record(record, config).parts[split],
        leads=leads,
        max_origins=max_origins,
        within_session=config.data.within_session,
        name=config.data.path,
        split=split,
    )


def errors(task: Any, answers: xr.Dataset) -> dict[str, float]:
    """Mean squared error x 1e4 per pixel by lead, answers clipped to [0, 1]."""
    truth, found = task.truth["frames"], answers["frames"].transpose(*task.truth["frames"].dims)
    difference = (np.clip(found.values, 0.0, 1.0) - truth.values) ** 2
    axis = truth.dims.index("lead")
    parts = np.moveaxis(difference, axis, 0)
    return {
        str(int(lead)): SCALE * float(np.nanmean(part))
        for lead, part in zip(task.truth["lead"].values, parts, strict=True)
    }


class block_matching:  # noqa: N801 - used like a function of the library: an object that predicts
    """Moves each channel of the last frame as it moved between the last two, by whole cells."""

    def __init__(self, reach: int = 5) -> None:
        self._reach = reach

    def predict(self, given: xr.Dataset, wanted: xr.Dataset) -> xr.Dataset:
        """Answer the next frame."""
        frames = given["frames"].values
        session = given["session"].values
        answers = np.zeros(wanted["frames"].shape, dtype=np.float32)
        reach = range(-self._reach, self._reach + 1)
        for index, position in enumerate(wanted["position"].values):
            last = frames[position]
            if position == 0 or session[position - 1] != session[position]:
                answers[index, 0] = last
                continue
            before = frames[position - 1]
            for channel in range(len(last)):
                shifts = [(dy, dx) for dy in reach for dx in reach]
                costs = [float(((_moved(before[channel], *shift) - last[channel]) ** 2).sum()) for shift in shifts]
                answers[index, 0, channel] = _moved(last[channel], *shifts[int(np.argmin(costs))])
        return wanted.assign(frames=(wanted["frames"].dims, answers))


def _moved(field: np.ndarray, dy: int, dx: int) -> np.ndarray:
    """Shift a field; what comes in is empty."""
    height, width = field.shape
    moved = np.zeros_like(field)
    moved[max(dy, 0) : height + min(dy, 0), max(dx, 0) : width + min(dx, 0)] = field[
        max(-dy, 0) : height + min(-dy, 0), max(-dx, 0) : width + min(-dx, 0)
    ]
    return moved


def shorter(settings: Mapping[str, Any], quick: bool, steps: int = 4) -> dict[str, Any]:
    """Settings of a run that only shows that it works."""
    return {**settings, "train.steps": steps, "train.validate_every": steps} if quick else dict(settings)


def with_samples(trained: Any, num_samples: int) -> Any:
    """The same model, asked for sample paths."""
    config = replace(trained.config, data=replace(trained.config.data, num_samples=num_samples))
    return replace(trained, config=config)
