"""The registration of fine-tuning as a system: which function does what."""

import xarray as xr

from gridloom.core.contracts import Predictor
from gridloom.core.system import System
from gridloom.finetune.backbone import build_encoder
from gridloom.finetune.baselines import Pixels, linear_probe, most_frequent, training_mean
from gridloom.finetune.config import PRESETS, FinetuneConfig
from gridloom.finetune.data import prepare
from gridloom.finetune.figures import confusion, scatter
from gridloom.finetune.initialize import initialize
from gridloom.finetune.objective import FineTuning
from gridloom.finetune.predict import Labeler
from gridloom.finetune.resolve import resolve
from gridloom.finetune.score import score_labels

__all__ = ["SYSTEM"]


def _linear_pixels(config: FinetuneConfig, history: xr.Dataset) -> Predictor:
    return Pixels(config, history, kind="linear")


def _nearest_pixels(config: FinetuneConfig, history: xr.Dataset) -> Predictor:
    return Pixels(config, history, kind="nearest")


SYSTEM: System[FinetuneConfig] = System(
    name="finetune",
    summary="a pretrained encoder, trained on with a head to say a label",
    config=FinetuneConfig,
    presets=PRESETS,
    monitor="error",
    resolve=resolve,
    prepare=prepare,
    objective=FineTuning,
    initialize=initialize,
    encoder=build_encoder,
    predictor=Labeler,
    baselines={
        "most frequent class": most_frequent,
        "training mean": training_mean,
        "nearest pixels": _nearest_pixels,
        "linear on pixels": _linear_pixels,
        "linear probe": linear_probe,
    },
    score=score_labels,
    figures={"confusion": confusion, "scatter": scatter},
)
