"""Windows of gridded fields, and the question that reconstruction answers."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
import xarray as xr

from gridloom.core.batch import Field
from gridloom.core.contracts import Prepared, Task
from gridloom.core.errors import DataError
from gridloom.core.system import Trained
from gridloom.grid.normalize import Normalizer
from gridloom.grid.prepare import GridParts, prepare_grid, stack_windows, with_variables
from gridloom.systems.semantic.config import SemanticConfig
from gridloom.systems.semantic.objective import SelfSupervised

__all__ = ["Reconstructor", "prepare", "resolve"]

_MOST_TRAINING_TILES = 2000
_MOST_TEST_TILES = 512
_PREDICT_AT_ONCE = 32


def resolve(config: SemanticConfig) -> SemanticConfig:
    """Fill in the names of the variables and the number of channels from the data.

    Raises:
        DataError: `model.input_channels` is set to something else than the number of variables.
    """
    data = with_variables(config.data)
    count = len(data.variables)
    if config.model.input_channels not in (0, count):
        raise DataError(
            f"{config.data.path}: {count} variables ({', '.join(data.variables)}), but model.input_channels is "
            f"{config.model.input_channels}; pass --model.input-channels {count}, or choose with --data.variables"
        )
    return replace(config, data=data, model=replace(config.model, input_channels=count))


def prepare(config: SemanticConfig) -> Prepared:
    """Read the data and cut it into parts; `task` asks for the cells of held-out windows back."""
    parts = prepare_grid(config.data, seed=config.seed)
    return Prepared(
        sources=parts.sources,
        normalizer=parts.normalizer.to_json(),
        splits={**parts.splits.to_json(), "sha256": parts.splits.digest},
        history=stack_windows(parts, "train", most=_MOST_TRAINING_TILES),
        task=_TaskOf(parts, config.data.path),
        label=config.data.label or None,
    )


class _TaskOf:
    """Makes the task of a part: every valid cell of its windows is given, and asked back from the latent."""

    def __init__(self, parts: GridParts, name: str) -> None:
        self.parts, self.name = parts, name

    def __call__(self, split: str) -> Task:
        truth = stack_windows(self.parts, split, most=_MOST_TEST_TILES)
        wanted = truth.map(np.isfinite)
        return Task(name=self.name, split=split, given=truth, wanted=wanted, truth=truth, block_dim="sample")


class Reconstructor:
    """The trained autoencoder as a predictor: what it makes of a window after its latent vector."""

    def __init__(self, trained: Trained[SemanticConfig]) -> None:
        objective = trained.objective
        assert isinstance(objective, SelfSupervised)
        self.model = objective.autoencoder.eval()
        self.normalizer = Normalizer.from_json(trained.normalizer)
        self.variables = trained.config.data.variables

    def predict(self, given: xr.Dataset, wanted: xr.Dataset) -> xr.Dataset:
        """Reconstruct every window of `given` (dimensions sample, y, x), in data units."""
        channels = [self.normalizer.apply(name, given[name].values) for name in self.variables]
        image = torch.from_numpy(np.stack(channels, axis=1))
        device = next(self.model.parameters()).device
        with torch.inference_mode():
            rebuilt = [self._rebuild(part.to(device)).cpu() for part in torch.split(image, _PREDICT_AT_ONCE)]
        values = torch.cat(rebuilt).numpy()
        answers: Mapping[str, tuple] = {
            name: (given[name].dims, self.normalizer.invert(name, values[:, place]), given[name].attrs)
            for place, name in enumerate(self.variables)
        }
        return xr.Dataset(dict(answers), coords=given.coords, attrs=given.attrs)

    def _rebuild(self, image: torch.Tensor) -> torch.Tensor:
        field = Field.of(image)
        return self.model(field.values, field.valid)  # type: ignore[no-any-return]
