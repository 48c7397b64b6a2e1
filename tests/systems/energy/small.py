"""A small energy system that children of tests find by name."""

from dataclasses import replace

from gridloom.core.settings import TrainConfig
from gridloom.core.system import System
from gridloom.systems.energy.config import DataConfig, EnergyConfig, LossConfig, ModelConfig, SearchConfig
from gridloom.systems.energy.system import SYSTEM

__all__ = ["SMALL_SYSTEM", "small"]


def small() -> EnergyConfig:
    """Trains in a second; its best validation is not its last."""
    return EnergyConfig(
        data=DataConfig(size=(24, 24), num_train=24, num_validation=8, num_test=12, noise=0.2, missing=0.1),
        model=ModelConfig(widths=(4, 8), keypoints=4, hidden=32, coord_conv=False, mask_missing=True),
        loss=LossConfig(num_negatives=32, near_scales=(0.3, 0.1)),
        search=SearchConfig(optimizer="derivative_free", num_samples=128),
        train=TrainConfig(
            steps=12,
            batch_size=8,
            learning_rate=1e-2,
            warmup_steps=2,
            weight_decay=0.0,
            log_every=1,
            validate_every=2,
            checkpoint_every=4,
            keep="best",
            snapshots=(0, 5, 12),
            device="cpu",
            tensorboard=False,
        ),
    )


SMALL_SYSTEM: System[EnergyConfig] = replace(SYSTEM, presets={"default": small})
