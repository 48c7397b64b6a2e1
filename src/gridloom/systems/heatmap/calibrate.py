"""After training: how counts spread around what is forecast, from the validation part."""

import numpy as np
import torch

from gridloom.core.contracts import Objective, Prepared
from gridloom.systems.heatmap.config import HeatmapConfig
from gridloom.systems.heatmap.encoder import FIELD, SLOT
from gridloom.systems.heatmap.objective import NextFrame
from gridloom.systems.heatmap.source import REMEMBERED, USUAL

__all__ = ["calibrate"]

_MAX_FRAMES = 1024
_AT_ONCE = 4


@torch.no_grad()
def calibrate(objective: Objective, config: HeatmapConfig, prepared: Prepared) -> None:
    """Fit the sampler to forecasts of one step over the validation part, or as much of it as 1,024 frames."""
    assert isinstance(objective, NextFrame)
    source = prepared.sources["validation"]
    device = next(objective.parameters()).device
    expected, truth = [], []
    most = max(1, _MAX_FRAMES // (config.data.window - 1))
    chosen = np.unique(np.linspace(0, len(source) - 1, min(most, len(source))).round().astype(int)).tolist()
    for start in range(0, len(chosen), _AT_ONCE):
        batch = source.collate(chosen[start : start + _AT_ONCE], 0).to(device)
        frames, slots = batch.fields[FIELD].values, batch.features[SLOT]
        happened = batch.fields[FIELD].valid[:, 1:].flatten(1).bool()
        remembered, usual = batch.features.get(REMEMBERED), batch.features.get(USUAL)
        x_hat = objective.model.predict(frames[:, :-1], slots[:, :-1], slots[:, 1:], remembered, usual)
        expected.append(x_hat.clamp(0.0, 1.0)[happened].flatten(2).cpu())
        truth.append(frames[:, 1:][happened].flatten(2).cpu())
    generator = torch.Generator().manual_seed(config.seed)
    objective.sampler.cpu().fit(torch.cat(expected), torch.cat(truth), generator)
