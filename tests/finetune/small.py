"""A small labeled data set, backbones of it, and runs, which children of tests find by name too."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr

from gridloom.core.settings import TrainConfig
from gridloom.encoders.extract import extract_encoder
from gridloom.finetune import FinetuneConfig, LabeledGridConfig
from gridloom.grid.prepare import GridConfig
from gridloom.grid.samples import open_sample
from gridloom.grid.write import save_grid
from gridloom.systems.semantic import ModelConfig, SemanticConfig
from gridloom.systems.semantic.system import SYSTEM as SEMANTIC
from gridloom.workflows.train import train
from tests.contract.processes import train_run

__all__ = ["finetuned", "make_backbone", "make_data", "settings"]

SAMPLES = 240
SHORT = TrainConfig(
    steps=12,
    batch_size=16,
    learning_rate=1e-2,
    warmup_steps=2,
    log_every=1,
    validate_every=6,
    checkpoint_every=4,
    device="cpu",
    tensorboard=False,
)


def make_data(path: Path) -> Path:
    """Digits with labels of each kind.

    `digit` is the class, `few` the same for every third sample, `name` the same as words; `ink` is a number with a
    unit, NaN for every fourth; `row` differs within a window; `same` is constant.
    """
    digits = open_sample("digits").isel(sample=slice(0, SAMPLES))
    number = digits["digit"].values
    ink = 100 * digits["image"].mean(("y", "x")).values.astype(np.float64) / 16
    ink[::4] = np.nan
    third = np.arange(SAMPLES) % 3 == 0
    names = np.array([f"digit {value}" for value in number])
    labels = {
        "few": ("sample", np.where(third, number.astype(np.float64), np.nan)),
        "name": ("sample", np.where(third, names, "")),
        "ink": ("sample", ink, {"units": "%"}),
        "same": ("sample", np.ones(SAMPLES)),
        "when": ("sample", np.arange(SAMPLES).astype("datetime64[D]")),
        "row": (("sample", "y"), np.broadcast_to(np.arange(32) // 8, (SAMPLES, 32)).copy()),
    }
    images = digits["image"].where(xr.DataArray(np.arange(32) > 1, dims="x"))  # two columns are missing
    save_grid(images.to_dataset().assign_coords(digit=digits["digit"]).assign(labels), path)
    return path


def make_backbone(data: Path, folder: Path, *, norm: Literal["group", "batch"] = "group") -> Path:
    """An encoder artifact of a briefly trained autoencoder."""
    config = SemanticConfig(
        data=GridConfig(
            path=str(data), variables=("image",), window=(32, 32), stride=(32, 32), split_dim="sample", label="digit"
        ),
        model=ModelConfig(latent_dim=16, width=4, norm=norm),
        train=SHORT,
    )
    train_run(replace(SEMANTIC, presets={"default": lambda: config}), folder / "run", {})
    extract_encoder(folder / "run", folder / "backbone")
    return folder / "backbone"


def settings(data: Path, backbone: Path, *, label: str = "digit", **changes: Any) -> FinetuneConfig:
    """A configuration that trains in a second."""
    config = FinetuneConfig(
        data=LabeledGridConfig(path=str(data), variables=("image",), split_dim="sample", label=label),
        backbone=str(backbone),
        train=SHORT,
    )
    return replace(config, **changes)


def finetuned(config: FinetuneConfig, folder: Path) -> Path:
    """A finished run without a report."""
    train("finetune", config, output=folder, show=False, report=False)
    return folder
