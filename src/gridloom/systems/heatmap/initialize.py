"""What is set in an untrained model from the training part."""

import torch

from gridloom.core.contracts import Objective, Prepared
from gridloom.systems.heatmap.config import HeatmapConfig
from gridloom.systems.heatmap.objective import NextFrame
from gridloom.systems.heatmap.source import FrameSource, JoinedSource, feature_scale

__all__ = ["initialize"]

_LEAST = 1e-4
_SHARE_OF_TYPICAL = 0.3


@torch.no_grad()
def initialize(objective: Objective, config: HeatmapConfig, prepared: Prepared) -> None:
    """Set the places of the remembered cells, the scale of the features, the statistics of the frames."""
    assert isinstance(objective, NextFrame)
    source = prepared.sources["train"]
    if isinstance(source, JoinedSource):
        source = source.parts[0]
    assert isinstance(source, FrameSource)
    model = objective.model
    if source.remembered is not None:
        model.cells.copy_(torch.from_numpy(source.remembered.cells))
        model.prior.copy_(source.remembered.prior)
    if model.local is not None:
        model.local.set_scale(*feature_scale(source))
    if config.model.normalize != "dataset" and not config.model.output_bias:
        return
    total, square, count = _sums(source)
    mean = total / count
    if config.model.normalize == "dataset":
        variance = (square / count - mean.square()).clamp(min=_LEAST**2)
        # Cells that are hardly ever busy would otherwise be enlarged beyond measure.
        floor = _SHARE_OF_TYPICAL * variance.mean(dim=(1, 2), keepdim=True).sqrt()
        model.encoder.mean.copy_(mean)
        model.encoder.std.copy_(torch.maximum(variance.sqrt(), floor))
    if config.model.output_bias:
        model.bias.copy_(torch.logit(mean.clamp(_LEAST, 1 - _LEAST)))


def _sums(source: FrameSource) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Sum and sum of squares of the frames that happened in the training part, and how many there are."""
    record = source.record
    stop = int(source.starts[:, 1].max()) + source.length
    shape = record.frames.shape[2:]
    total, square, count = torch.zeros(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64), 0
    for step in range(stop):
        chosen = torch.from_numpy(record.pixels(time=step)[record.valid[:, step]]).double()
        total += chosen.sum(0)
        square += chosen.square().sum(0)
        count += len(chosen)
    return total, square, max(count, 1)
