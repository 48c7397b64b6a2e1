"""Small frames, models and batches that several tests use."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import xarray as xr
from torch import Tensor

import gridloom
from gridloom.core.batch import Batch, Field
from gridloom.core.random import window_keys
from gridloom.core.settings import TrainConfig
from gridloom.systems.heatmap.config import (
    CausalConfig,
    DataConfig,
    HeatmapConfig,
    LocalConfig,
    LossConfig,
    MemoryConfig,
    ModelConfig,
)
from gridloom.systems.heatmap.objective import NextFrame
from gridloom.systems.heatmap.record import Record, read_record
from gridloom.systems.heatmap.wrapper import AutoRegWrapper

__all__ = [
    "CAP",
    "LOCAL",
    "MEMORY",
    "SIZE",
    "SMALL",
    "TRANSFORMER",
    "config",
    "frames_dataset",
    "jitter",
    "make_batch",
    "pixels",
    "record",
    "save",
    "slots_of",
    "small_model",
    "small_objective",
]

Net = TypeVar("Net", bound=torch.nn.Module)
CAP, SIZE, NUM_SLOTS = 15, 8, 6
# alpha 1, unlike the seed's: otherwise latents say hardly anything but the slot, and tests would see nothing else.
SMALL: Mapping[str, Any] = {
    "height": SIZE, "width": SIZE, "num_slots": NUM_SLOTS, "widths": (8, 16), "latent_dim": 16, "hidden": 16,
    "num_blocks": 1, "alpha": 1.0,
}  # fmt: skip
TRANSFORMER = CausalConfig(kind="transformer", dim=16, depth=2, num_heads=2, window=4)
MEMORY = MemoryConfig(
    seasonal=((NUM_SLOTS, 0.3), (3, 0.0)), averages=(0.2, 0.7), lags=(1, 2, 5), deviation_lags=(1, 3),
    deviation_averages=(0.4,),
)  # fmt: skip
LOCAL = LocalConfig(width=8, depth=2, kernel=1, cell_embedding=2, slot_embedding=3, overall=True)


def pixels(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def slots_of(batch: int, time: int, *, first: int = 0, num_slots: int = NUM_SLOTS) -> Tensor:
    return ((first + torch.arange(time)) % num_slots).repeat(batch, 1)


def jitter(module: Net, size: float = 0.2) -> Net:
    """Move every parameter off its start, so that what starts at zero counts too."""
    generator = torch.Generator().manual_seed(7)
    for parameter in module.parameters():
        parameter.data += size * torch.randn(parameter.shape, generator=generator)
    return module.eval()


def small_model(*, size: float = 0.2, **changes: Any) -> AutoRegWrapper:
    torch.manual_seed(0)
    return jitter(AutoRegWrapper(ModelConfig(**{**SMALL, **changes})), size)


def small_objective(*, loss: LossConfig | None = None, size: float = 0.2, **changes: Any) -> NextFrame:
    torch.manual_seed(0)
    whole = HeatmapConfig(model=ModelConfig(**{**SMALL, **changes}), loss=loss or LossConfig())
    return jitter(NextFrame(whole), size)


def make_batch(
    size: int = 3, time: int = 5, *, seed: int = 0, valid: Tensor | None = None, remembered: int = 0
) -> Batch:
    """Windows of random frames; with features of a memory where their number is given."""
    frames = pixels(size, time, 2, SIZE, SIZE, seed=seed)
    happened = torch.ones(size, time, dtype=torch.bool) if valid is None else valid
    happened = happened[:, :, None, None, None]
    features = {"slot": slots_of(size, time), "session": torch.zeros(size, time, dtype=torch.int64)}
    if remembered:
        features["remembered"] = pixels(size, time - 1, remembered, 2, SIZE * SIZE, seed=seed + 1)
    return Batch(
        fields={"frames": Field(values=torch.where(happened, frames, 0.0), valid=happened)},
        features=features,
        window=torch.arange(size),
        key=window_keys(seed, 0, range(size)),
    )


def frames_dataset(
    *, sessions: int = 12, slots: int = NUM_SLOTS, series: int = 0, size: int = SIZE, seed: int = 0, halted: float = 0.0
) -> xr.Dataset:
    """Counts that follow their slot and the last frame, as `gridloom rasterize` writes them.

    Args:
        sessions: Trade days.
        slots: Of each.
        series: Stocks; 0 makes one that has no name.
        size: Rows and columns.
        seed: Of all draws.
        halted: Share of slots that did not happen.
    """
    rng = np.random.default_rng(seed)
    length, many = sessions * slots, max(series, 1)
    slot, session = np.tile(np.arange(slots), sessions), np.repeat(np.arange(sessions), slots)
    usual = rng.gamma(0.5, 2.0, (slots, 2, size, size))
    level = np.ones((many, length))
    for time in range(1, length):
        level[:, time] = np.exp(0.8 * np.log(level[:, time - 1]) + 0.3 * rng.standard_normal(many))
    counts = rng.poisson(usual[slot][None] * level[:, :, None, None, None])
    valid = rng.random((many, length)) >= halted
    counts = np.where(valid[:, :, None, None, None], np.minimum(counts, CAP), 0).astype(np.uint8)
    lead: tuple[str, ...] = ("series", "time") if series else ("time",)
    dims = (*lead, "channel", "y", "x")
    minutes = np.timedelta64(1, "m") * np.arange(length)
    coords: dict[str, Any] = {
        "time": np.datetime64("2024-01-02T01:30", "ns") + minutes,
        "slot": ("time", slot),
        "session": ("time", session),
        "channel": ["B", "S"],
    }
    if series:
        coords["series"] = [f"60000{number}" for number in range(series)]
    return xr.Dataset(
        {
            "counts": (dims, counts if series else counts[0], {"count_cap": CAP, "units": "1"}),
            "valid": (lead, valid if series else valid[0]),
        },
        coords=coords,
        attrs={"num_slots": slots, "pixel": "log1p"},
    )


def record(**changes: Any) -> Record:
    return read_record(frames_dataset(**changes))


def save(dataset: xr.Dataset, folder: Path) -> str:
    path = folder / "frames.nc"
    gridloom.save_grid(dataset, path)
    return str(path)


def config(
    path: str = "",
    *,
    data: Mapping[str, Any] | None = None,
    model: Mapping[str, Any] | None = None,
    loss: LossConfig | None = None,
    train: Mapping[str, Any] | None = None,
) -> HeatmapConfig:
    """A whole configuration with everything small."""
    return HeatmapConfig(
        data=replace(
            DataConfig(path=path, window=5, stride=2, fractions=(0.6, 0.2, 0.2), leads=(1, 2, 4), max_origins=12),
            **(data or {}),
        ),
        model=ModelConfig(**{**SMALL, **(model or {})}),
        loss=loss or LossConfig(),
        train=replace(
            TrainConfig(
                steps=2, batch_size=4, warmup_steps=1, log_every=1, validate_every=0, checkpoint_every=5,
                tensorboard=False,
            ),
            **(train or {}),
        ),
    )  # fmt: skip
