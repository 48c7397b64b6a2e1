"""Answers of a fine-tuned model, and embeddings of windows in data units."""

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float32

from gridloom.core.batch import Batch, Field
from gridloom.core.contracts import Encoder
from gridloom.core.random import window_keys
from gridloom.core.system import Trained
from gridloom.finetune.config import FinetuneConfig
from gridloom.finetune.objective import FineTuning
from gridloom.grid.normalize import Normalizer

__all__ = ["Labeler", "answer", "embed"]

_AT_ONCE = 64


@torch.inference_mode()
def embed(
    encoder: Encoder, given: xr.Dataset, config: FinetuneConfig, normalizer: Normalizer
) -> Float32[np.ndarray, "samples features"]:
    """Embed windows.

    Args:
        encoder: In eval mode.
        given: Windows (dimensions sample, y, x) in data units; NaN is missing.
        config: Names the variables and the field.
        normalizer: That of the encoder's training.
    """
    device = next(encoder.parameters()).device
    channels = [normalizer.apply(name, given[name].values) for name in config.data.variables]
    images = torch.from_numpy(np.stack(channels, axis=1))
    parts = []
    for part in torch.split(images, _AT_ONCE):
        batch = Batch(
            fields={config.pretrained.field_name: Field.of(part)},
            features={},
            window=torch.arange(len(part)),
            key=window_keys(0, 0, range(len(part))),
        )
        parts.append(encoder(batch.to(device))["embedding"].float().cpu())
    return torch.cat(parts).numpy()


def answer(wanted: xr.Dataset, values: np.ndarray) -> xr.Dataset:
    """Answers with the coordinates of what was asked."""
    (name,) = wanted.data_vars
    return xr.Dataset({name: (wanted[name].dims, values)}, coords=wanted.coords)


class Labeler:
    """The fine-tuned model as a predictor: the name of the class, or the number, of each window."""

    def __init__(self, trained: Trained[FinetuneConfig]) -> None:
        objective = trained.objective
        assert isinstance(objective, FineTuning)
        self.objective, self.config = objective.eval(), trained.config
        self.normalizer = Normalizer.from_json(trained.normalizer)

    def predict(self, given: xr.Dataset, wanted: xr.Dataset) -> xr.Dataset:
        """Label every window of `given`."""
        embedding = embed(self.objective.encoder, given, self.config, self.normalizer)
        device = self.objective.label_mean.device
        with torch.inference_mode():
            read = self.objective.head(torch.from_numpy(embedding).to(device)).float()
            if self.objective.is_regression:
                return answer(wanted, self.objective.numbers(read).cpu().numpy())
        return answer(wanted, np.array(self.config.classes)[read.argmax(1).cpu().numpy()])
