"""A system of one's own: forecast the next map of a field from the one before.

Installed beside gridloom it is a system like the built-in ones: `gridloom train tiny_forecast`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from gridloom.core.batch import Batch, Field, Step, masked_mean
from gridloom.core.contracts import Encoder, FieldSpec, InputSpec, Objective, Prepared, Task
from gridloom.core.settings import RunConfig, TrainConfig
from gridloom.core.system import System, Trained
from gridloom.evaluate.baselines.persistence import Persistence
from gridloom.evaluate.compare import compare
from gridloom.grid.normalize import Normalizer, fit_normalizer
from gridloom.grid.source import GridSource
from gridloom.grid.splits import split_blocks
from gridloom.grid.synthetic import waves
from gridloom.grid.windows import cut_windows

__all__ = ["SYSTEM", "NextMap", "NextMapConfig"]

VARIABLE, HEIGHT, WIDTH = "temperature", 16, 16


@dataclass(frozen=True, kw_only=True)
class NextMapConfig(RunConfig):
    """Forecast the next day of a drifting field."""

    num_times: int = 160
    """Days of generated data."""
    channels: int = 16
    """Width of the network, and size of the embedding."""
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(steps=150, batch_size=16, learning_rate=3e-3, warmup_steps=10)
    )
    """How to train."""


def day_of(batch: Batch, day: int) -> Field:
    """One of the two days of each window, [batch, y, x]."""
    return batch.fields["days"].apply(lambda days: days[:, 0, day])


class NextMapEncoder(Encoder):
    """One day to a vector."""

    def __init__(self, config: NextMapConfig) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(2, config.channels, 3, padding=1), nn.GELU())
        self.inputs = InputSpec(
            fields={"days": FieldSpec(dims=("channel", "time", "y", "x"), size=(1, 2, HEIGHT, WIDTH))}
        )
        self.outputs = {"embedding": ("feature",)}

    def features(self, day: Field) -> Tensor:
        """Feature maps of one day; the mask tells which cells are missing."""
        return self.layers(torch.stack([day.values, day.valid.float()], dim=1))

    def forward(self, batch: Batch) -> Mapping[str, Tensor]:
        """Encode the first of the two days."""
        return {"embedding": self.features(day_of(batch, 0)).mean((2, 3))}


class NextMap(Objective):
    """Squared error of the forecast, over the cells of the second day that are there."""

    def __init__(self, config: NextMapConfig) -> None:
        super().__init__()
        self.encoder = NextMapEncoder(config)
        self.head = nn.Conv2d(config.channels, 1, 5, padding=2)

    def predict(self, day: Field) -> Tensor:
        """The day after: the day itself plus what changes."""
        return day.values + self.head(self.encoder.features(day))[:, 0]

    def forward(self, batch: Batch) -> Step:
        """Forecast the second day from the first."""
        first, second = day_of(batch, 0), day_of(batch, 1)
        return Step(loss=masked_mean((self.predict(first) - second.values).square(), second.valid), metrics={})


def prepare(config: NextMapConfig) -> Prepared:
    """Generated fields, split in time; the task hides every second day and asks for it."""
    dataset = waves(num_times=config.num_times, height=HEIGHT, width=WIDTH, seed=config.seed)[[VARIABLE]]
    splits = split_blocks(config.num_times, dim="time", window=2, decorrelation=4)
    normalizer = fit_normalizer(dataset, bounds=splits.bounds("train"))
    sizes = {"time": 2, "latitude": HEIGHT, "longitude": WIDTH}
    sources = {
        part: GridSource(
            dataset,
            variables=(VARIABLE,),
            windows=cut_windows(dataset, sizes=sizes, strides={"time": 1}, bounds=splits.bounds(part)),
            normalizer=normalizer,
            seed=config.seed,
            field="days",
        )
        for part in splits.parts
    }

    def task(part: str) -> Task:
        truth = dataset.isel(time=slice(*splits.parts[part]))
        asked = xr.DataArray(np.arange(truth.sizes["time"]) % 2 == 1, dims="time")
        wanted = truth.notnull() & asked
        return Task(name="waves", split=part, given=truth.where(~asked), wanted=wanted, truth=truth, block_dim="time")

    return Prepared(
        sources=sources,
        normalizer=normalizer.to_json(),
        splits=splits.to_json(),
        history=dataset.isel(time=slice(*splits.parts["train"])),
        task=task,
    )


class NextMapPredictor:
    """Answers each hidden day from the day before."""

    def __init__(self, trained: Trained[NextMapConfig]) -> None:
        self.model, self.normalizer = trained.objective, Normalizer.from_json(trained.normalizer)

    @torch.no_grad()
    def predict(self, given: xr.Dataset, wanted: xr.Dataset) -> xr.Dataset:
        """Forecast every day of `given` from the one before; the first has none and stays as it is."""
        values = given[VARIABLE].transpose("time", "latitude", "longitude")
        days = torch.from_numpy(self.normalizer.apply(VARIABLE, values.values))
        forecast = self.model.predict(Field.of(days))[:-1].numpy()  # type: ignore[operator]
        answer = values.copy()
        answer[1:] = self.normalizer.invert(VARIABLE, forecast)
        return answer.to_dataset(name=VARIABLE)


SYSTEM: System[NextMapConfig] = System(
    name="tiny_forecast",
    summary="an example in a package of its own: tomorrow's map from today's",
    config=NextMapConfig,
    presets={"default": NextMapConfig},
    prepare=prepare,
    objective=NextMap,
    encoder=NextMapEncoder,
    predictor=NextMapPredictor,
    baselines={"persistence": lambda config, history: Persistence()},
    score=compare,
)
