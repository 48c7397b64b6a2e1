"""What is set in an untrained model from the training part."""

import torch
from torch import Tensor

from gridloom.core.contracts import Objective, Prepared
from gridloom.systems.heatmap.config import HeatmapConfig
from gridloom.systems.heatmap.encoder import HeatmapEncoder
from gridloom.systems.heatmap.objective import NextFrame
from gridloom.systems.heatmap.source import FrameSource, JoinedSource, base_error, feature_scale

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
        model.spread.copy_(base_error(source)[:, None])
    if model.local is not None:
        model.local.set_scale(*feature_scale(source))
    if config.model.normalize in ("dataset", "slot"):
        _set_statistics(model.encoder, source, by_slot=config.model.normalize == "slot")
    if config.model.output_bias:
        mean, _ = _mean_and_deviation(source, torch.zeros(len(source.record), dtype=torch.int64), 1)
        model.bias.copy_(torch.logit(mean[0].clamp(_LEAST, 1 - _LEAST)))


def _set_statistics(encoder: HeatmapEncoder, source: FrameSource, *, by_slot: bool) -> None:
    num_slots = encoder.config.num_slots if by_slot else 1
    slots = torch.from_numpy(source.record.slot % num_slots)
    mean, deviation = _mean_and_deviation(source, slots, num_slots)
    # Cells that are hardly ever busy would otherwise be enlarged beyond measure.
    floor = _SHARE_OF_TYPICAL * deviation.square().mean(dim=(1, 2), keepdim=True).sqrt()
    encoder.mean.copy_(mean)
    encoder.std.copy_(torch.maximum(deviation, floor).clamp(min=_LEAST))


def _mean_and_deviation(source: FrameSource, slots: Tensor, num_slots: int) -> tuple[Tensor, Tensor]:
    """Mean frame of each slot over the training part, and the standard deviation of each cell from it.

    A slot that the training part does not know has the mean of all.
    """
    record = source.record
    stop = int(source.starts[:, 1].max()) + source.length
    shape = record.frames.shape[2:]
    total, square = torch.zeros(num_slots, *shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64)
    count = torch.zeros(num_slots, 1, 1, 1, dtype=torch.float64)
    for step in range(stop):
        chosen = torch.from_numpy(record.pixels(time=step)[record.valid[:, step]]).double()
        total[slots[step]] += chosen.sum(0)
        square += chosen.square().sum(0)
        count[slots[step]] += len(chosen)
    mean = torch.where(count > 0, total / count.clamp(min=1), total.sum(0) / count.sum().clamp(min=1))
    spread = (square - (count * mean.square()).sum(0)) / count.sum().clamp(min=1)
    return mean, spread.clamp(min=0.0).sqrt()
