"""Small clips that are known exactly, and configurations that train on them in a second."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from gridloom.core.settings import TrainConfig
from gridloom.systems.temporal.config import DataConfig, FlickerConfig, ModelConfig, TemporalConfig

STEP = (0.75, -0.4)
"""Motion of the content from frame to frame along x and y, in cells."""


def moving_clip(
    *, length: int = 24, channels: int = 3, height: int = 20, width: int = 24, seed: int = 0, cut: int | None = None
) -> xr.Dataset:
    """Waves that move as one, with their exact flow; another scene from frame `cut` on."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(np.float64)
    frames = np.zeros((length, channels, height, width))
    for scene in range(2):
        waves = rng.uniform(-0.7, 0.7, (6, 2)), rng.uniform(0, 2 * np.pi, (6, channels)), rng.uniform(0.3, 1, 6)
        for time in range(length):
            if (cut is not None and time >= cut) != bool(scene):
                continue
            for wave, phases, size in zip(*waves, strict=True):
                place = wave[0] * (x - STEP[0] * time) + wave[1] * (y - STEP[1] * time)
                frames[time] += size * np.cos(place[None] + phases[:, None, None])
    back = np.broadcast_to(np.array([-STEP[0], -STEP[1]])[:, None, None], (length, 2, height, width)).copy()
    there = -back
    back[0], there[-1] = 0, 0
    starts = np.zeros(length, dtype=bool)
    hidden, hidden_next = np.zeros((2, length, height, width), dtype=bool)
    hidden[0], hidden_next[-1] = True, True
    if cut is not None:
        starts[cut], hidden[cut], hidden_next[cut - 1] = True, True, True
    motion, cell = ("time", "component", "y", "x"), ("time", "y", "x")
    return xr.Dataset(
        {
            "frames": (("time", "channel", "y", "x"), frames.astype(np.float32)),
            "flow": (motion, back.astype(np.float32)),
            "flow_next": (motion, there.astype(np.float32)),
            "occluded": (cell, hidden),
            "occluded_next": (cell, hidden_next),
            "cut": ("time", starts),
        },
        coords={"time": np.arange(length) / 25.0, "component": ["dx", "dy"]},
        attrs={"frames_per_second": 25.0},
    )


def save(clip: xr.Dataset, folder: Path, name: str = "clip") -> str:
    path = folder / f"{name}.nc"
    clip.to_netcdf(path)
    return str(path)


def config(path: str = "", *, train: dict[str, Any] | None = None, **parts: Any) -> TemporalConfig:
    """A configuration for `moving_clip`; parts are settings by name."""
    data = {"window": 5, "crop": 16, "max_frames": 8, **parts.get("data", {})}
    quick = TrainConfig(
        steps=12,
        batch_size=4,
        learning_rate=1e-2,
        warmup_steps=2,
        weight_decay=0.0,
        validate_every=6,
        checkpoint_every=4,
        log_every=1,
        tensorboard=False,
        device="cpu",
    )
    return TemporalConfig(
        data=DataConfig(path=path, **data),
        model=ModelConfig(**{"interpolation": "bilinear", **parts.get("model", {})}),
        flicker=parts.get("flicker", FlickerConfig(low=0.1, high=0.4, test=0.3)),
        train=replace(quick, **(train or {})),
        **{name: value for name, value in parts.items() if name not in ("data", "model", "flicker")},
    )
