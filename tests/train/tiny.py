"""A source and an objective of a few numbers, and a run of them in this process."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from gridloom.core.batch import Batch, Field, Step
from gridloom.core.contracts import Objective, Source
from gridloom.core.random import uniform, window_keys
from gridloom.core.settings import TrainConfig
from gridloom.train.distributed import Processes
from gridloom.train.loop import Outcome, train

ALONE = Processes(rank=0, world=1, device=torch.device("cpu"))
SHORT = {
    "steps": 6,
    "batch_size": 4,
    "learning_rate": 1e-2,
    "warmup_steps": 2,
    "log_every": 1,
    "validate_every": 0,
    "checkpoint_every": 2,
    "tensorboard": False,
    "device": "cpu",
}


class TinySource:
    """Rows of a fixed table; remembers what it was asked for."""

    def __init__(self, size: int = 22) -> None:
        self.table = torch.from_numpy(np.random.default_rng(0).normal(size=(size, 5)).astype(np.float32))
        self.asked: list[tuple[list[int], int]] = []

    def __len__(self) -> int:
        return len(self.table)

    def collate(self, windows: Sequence[int], epoch: int) -> Batch:
        self.asked.append((list(windows), epoch))
        address = torch.tensor(windows, dtype=torch.int64)
        return Batch(
            fields={"x": Field.of(self.table[address])},
            features={},
            window=address,
            key=window_keys(3, epoch, windows),
        )

    def coordinates(self, windows: Sequence[int]) -> Mapping[str, np.ndarray]:
        return {"row": np.asarray(windows)}


class TinyObjective(Objective):
    """Predicts the last column; draws from keys and from torch's generator; one parameter is never used."""

    def __init__(self, *, dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.GELU(), nn.Dropout(dropout), nn.Linear(8, 1))
        self.unused = nn.Parameter(torch.ones(3))
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, batch: Batch) -> Step:
        x = batch.fields["x"].values
        noise = 0.1 * uniform(batch.key, (4,), "noise")
        if self.training:
            self.seen += len(batch)
        error = (self.layers(x[:, :4] + noise).squeeze(-1) - x[:, 4]).abs()
        return Step(loss=error, metrics={"square": error.detach().square()})


def run(
    folder: Path,
    objective: Objective | None = None,
    source: Source | None = None,
    *,
    validation: Source | None = None,
    show: bool = False,
    **changes: Any,
) -> Outcome:
    """Train the tiny objective, or another, in this process."""
    sources = {"train": source or TinySource()} | ({"validation": validation} if validation else {})
    config = TrainConfig(**{**SHORT, **changes})
    return train(
        objective or TinyObjective(), sources, config, seed=3, folder=folder, peers=ALONE, record={"a": 1}, show=show
    )


def weights(objective: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of all tensors."""
    return {name: tensor.clone() for name, tensor in objective.state_dict().items()}


def same(ours: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor]) -> bool:
    """Bit-equal."""
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
