"""What the fake systems share: a source over arrays, and a question about the last field."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import xarray as xr

from gridloom.core.batch import Batch, Field
from gridloom.core.contracts import Encoder, InputSpec, Objective, Prepared, Task
from gridloom.core.random import window_keys
from gridloom.core.settings import RunConfig, TrainConfig
from gridloom.core.system import System, Trained
from gridloom.evaluate.baselines.tiles import MeanField
from gridloom.evaluate.compare import compare

SIZE = 96
PARTS = {"train": (0, 56), "validation": (60, 76), "test": (80, 96)}


@dataclass(frozen=True, kw_only=True)
class FakeConfig(RunConfig):
    """Configuration of a fake."""

    width: int = 8
    """Size of the embedding."""
    train: TrainConfig = field(default_factory=lambda: SHORT)
    """How to train."""


SHORT = TrainConfig(
    steps=12,
    batch_size=8,
    learning_rate=1e-2,
    warmup_steps=2,
    log_every=1,
    validate_every=6,
    checkpoint_every=4,
    tensorboard=False,
)


@dataclass(frozen=True)
class Arrays:
    """Raw data of a fake: NaN (or 255 in bytes) is missing in fields."""

    fields: Mapping[str, np.ndarray]
    features: Mapping[str, np.ndarray]


class ArraySource:
    """Windows are rows of the arrays."""

    def __init__(self, arrays: Arrays, part: str, seed: int) -> None:
        self.arrays, self.seed, (self.start, self.stop) = arrays, seed, PARTS[part]

    def __len__(self) -> int:
        return self.stop - self.start

    def collate(self, windows: Sequence[int], epoch: int) -> Batch:
        rows = np.asarray(windows, dtype=np.int64) + self.start
        fields = {}
        for name, values in self.arrays.fields.items():
            chosen = torch.from_numpy(values[rows])
            fields[name] = Field.of(chosen, chosen != 255 if chosen.dtype == torch.uint8 else None)
        features = {name: torch.from_numpy(values[rows]) for name, values in self.arrays.features.items()}
        return Batch(
            fields=fields, features=features, window=torch.from_numpy(rows), key=window_keys(self.seed, epoch, rows)
        )

    def coordinates(self, windows: Sequence[int]) -> Mapping[str, np.ndarray]:
        return {"sample": np.asarray(windows) + self.start}


def prepare(make: Callable[[], Arrays], target: str) -> Callable[[FakeConfig], Prepared]:
    """Data of a fake; the task asks for the field `target`, with everything else given."""

    def prepared(config: FakeConfig) -> Prepared:
        arrays = make()
        return Prepared(
            sources={part: ArraySource(arrays, part, config.seed) for part in PARTS},
            normalizer={},
            splits={"dim": "sample", "parts": {name: list(part) for name, part in PARTS.items()}},
            history=_dataset(arrays, "train"),
            task=lambda split: _task(arrays, split, target),
        )

    return prepared


def _dataset(arrays: Arrays, part: str) -> xr.Dataset:
    rows = slice(*PARTS[part])
    return xr.Dataset(
        {
            name: (("sample", *(f"{name}_{i}" for i in range(values.ndim - 1))), values[rows].astype(np.float64))
            for name, values in {**arrays.fields, **arrays.features}.items()
        },
        coords={"sample": np.arange(*PARTS[part])},
    )


def _task(arrays: Arrays, split: str, target: str) -> Task:
    truth = _dataset(arrays, split)
    wanted = truth.map(lambda values: np.isfinite(values) & (values.name == target))
    given = truth.copy()
    given[target] = given[target] * np.nan
    return Task(name="generated", split=split, given=given, wanted=wanted, truth=truth, block_dim="sample")


class Answer:
    """Runs `objective.answer(batch)` over the task's rows and puts the result in the place of `target`."""

    def __init__(self, trained: Trained, arrays: Callable[[], Arrays], target: str) -> None:
        self.objective, self.arrays, self.target = trained.objective, arrays(), target

    @torch.no_grad()
    def predict(self, given: xr.Dataset, wanted: xr.Dataset) -> xr.Dataset:
        rows = given["sample"].values
        source = ArraySource(self.arrays, "train", 0)
        answer = self.objective.answer(source.collate((rows - source.start).tolist(), 0)).double().numpy()
        return xr.Dataset(
            {self.target: (given[self.target].dims, answer.reshape(given[self.target].shape))}, given.coords
        )


class FakeEncoder(Encoder):
    """`embed(batch) -> [B, width]` by the fake's own function."""

    def __init__(self, inputs: InputSpec, layers: torch.nn.Module, embed: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.inputs, self.outputs, self.layers, self.embed = inputs, {"embedding": ("feature",)}, layers, embed

    def forward(self, batch: Batch) -> Mapping[str, torch.Tensor]:
        return {"embedding": self.embed(self.layers, batch)}


def fake(
    name: str,
    make: Callable[[], Arrays],
    objective: Callable[[FakeConfig], Objective],
    encoder: Callable[[FakeConfig], Encoder],
    target: str,
) -> System:
    """A whole system from data, an objective, an encoder and the field that is asked for."""
    return System(
        name=name,
        summary=f"fake system {name}",
        config=FakeConfig,
        presets={"default": FakeConfig},
        prepare=prepare(make, target),
        objective=objective,
        encoder=encoder,
        predictor=lambda trained: Answer(trained, make, target),
        baselines={"mean": lambda config, history: MeanField(history)},
        score=compare,
    )
