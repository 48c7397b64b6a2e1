"""What happens once before the first step: the backbone's weights, and the statistics of embeddings and labels."""

import numpy as np
import torch

from gridloom.core.contracts import Objective, Prepared
from gridloom.core.errors import ConfigError, DataError
from gridloom.encoders.match import load_strictly
from gridloom.finetune.backbone import read_backbone
from gridloom.finetune.config import FinetuneConfig
from gridloom.finetune.data import LabeledSource
from gridloom.finetune.objective import FineTuning

__all__ = ["initialize"]

_MOST_WINDOWS = 256
_AT_ONCE = 64


def initialize(objective: Objective, config: FinetuneConfig, prepared: Prepared) -> None:
    """Put the backbone's weights in, and set what the head standardizes by from the training part.

    Raises:
        CheckpointError: The backbone is gone.
        ConfigError: It holds other weights than when the configuration was resolved.
        DataError: All training labels are the same number.
    """
    source = prepared.sources["train"]
    assert isinstance(objective, FineTuning) and isinstance(source, LabeledSource)
    backbone = read_backbone(config.backbone)
    if backbone.sha256 != config.pretrained.sha256:
        raise ConfigError(f"{config.backbone}: holds other weights than a moment ago; train into another folder")
    load_strictly(config.backbone, objective.encoder, backbone.encoder.state_dict())
    _standardize_embedding(objective, source)
    if objective.is_regression:
        mean, spread = float(np.mean(source.labels)), float(np.std(source.labels))
        if not spread > 1e-12 * abs(mean):
            raise DataError(f"label {config.data.label!r} is {mean:g} in the whole training part: nothing to learn")
        objective.label_mean.fill_(mean)
        objective.label_spread.fill_(spread)


@torch.no_grad()
def _standardize_embedding(objective: FineTuning, source: LabeledSource) -> None:
    """Mean and standard deviation of each feature over windows spread evenly over the training part."""
    windows = np.unique(np.linspace(0, len(source) - 1, min(_MOST_WINDOWS, len(source))).round().astype(np.int64))
    objective.eval()
    parts = [
        objective.encoder(source.collate(windows[start : start + _AT_ONCE].tolist(), 0))["embedding"]
        for start in range(0, len(windows), _AT_ONCE)
    ]
    embedding = torch.cat(parts).double()
    mean, spread = embedding.mean(0), embedding.std(0, correction=0)
    varies = spread > 1e-6 * spread.max()
    objective.head.center.copy_(mean)
    objective.head.scale.copy_(torch.where(varies, 1.0 / spread.clamp(min=1e-300), 0.0))
