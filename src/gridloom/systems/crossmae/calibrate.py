"""After training: how far the model's corrections and its spread can be trusted, found on validation cells."""

from statistics import NormalDist

import numpy as np
import torch

from gridloom.core.contracts import Objective, Prepared
from gridloom.core.system import Trained
from gridloom.systems.crossmae.config import CrossMAEConfig
from gridloom.systems.crossmae.fields import open_modalities
from gridloom.systems.crossmae.fill import Filler
from gridloom.systems.crossmae.objective import MaskedModeling

__all__ = ["LEVEL", "calibrate"]

LEVEL = 0.9
"""The interval whose coverage is set right."""

_LEAST_CELLS = 20


def calibrate(objective: Objective, config: CrossMAEConfig, prepared: Prepared) -> None:
    """Set `objective.blend` and `objective.scale` of each modality from the validation cells.

    The blend is the share of the correction that has the least squared error when it is added to the background,
    between 0 and 1; without a background the model's answer is taken as it is. The scale makes the interval of 90 %
    cover 90 % of the cells.
    """
    assert isinstance(objective, MaskedModeling)
    if config.loss.normalize_patches:
        return
    task = prepared.task("validation")
    filler = Filler(Trained(config=config, objective=objective, normalizer=prepared.normalizer))
    fields = open_modalities(task.given, config.data, config.modalities)
    truth = fields.like(task.truth)
    asked = {name: filler.asked(fields, task.wanted, name) for name in config.modalities}
    for place, (name, stitched) in enumerate(filler.stitch(fields, asked).items()):
        chosen = asked[name]
        if chosen.sum() < _LEAST_CELLS:
            continue
        known = [filler.normalizer.apply(v, truth[v].values) for v in fields.variables(name)]
        series = config.modalities[name].kind == "vector"
        values = (np.stack(known, axis=-1) if series else known[0])[chosen].astype(np.float64)
        rest = values - (stitched.base + stitched.background)[chosen]
        correction = stitched.correction[chosen]
        blend = 1.0
        if config.background.kinds and not series:
            blend = float(np.clip((rest * correction).sum() / max((correction**2).sum(), 1e-12), 0.0, 1.0))
        objective.blend[place] = blend
        if stitched.spread is not None:
            ratio = np.abs(rest - blend * correction) / np.maximum(stitched.spread[chosen], 1e-12)
            objective.scale[place] = float(np.quantile(ratio, LEVEL)) / NormalDist().inv_cdf(0.5 + LEVEL / 2)
    torch.nan_to_num_(objective.scale, nan=1.0)
