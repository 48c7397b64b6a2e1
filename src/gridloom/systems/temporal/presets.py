"""Configurations to start from."""

from collections.abc import Callable, Mapping

from gridloom.core.settings import TrainConfig
from gridloom.systems.temporal.config import DataConfig, LossConfig, ModelConfig, TemporalConfig
from gridloom.systems.temporal.warmup import AlphaWarmup

__all__ = ["PRESETS"]


def default() -> TemporalConfig:
    """A learnt map of weights, on frames reduced by nothing: for latents, and for small videos."""
    return TemporalConfig(train=_train())


def video() -> TemporalConfig:
    """RGB frames of a video, trained on means of 4 x 4 pixels; the module then runs at any resolution."""
    return TemporalConfig(train=_train(), data=DataConfig(factor=4))


def patches() -> TemporalConfig:
    """Latents of an encoder that works in patches: the refiner is told how far between cells was sampled."""
    return TemporalConfig(
        train=_train(), data=DataConfig(turn=False), model=ModelConfig(refiner="flow"), loss=LossConfig(refine=1.0)
    )


def no_flow() -> TemporalConfig:
    """Without optical flow: it is learnt, without labels, with everything else."""
    return TemporalConfig(train=_train(), data=DataConfig(factor=4, flow="none"), model=ModelConfig(predict_flow=True))


def seed() -> TemporalConfig:
    """The first specification to the letter: one alpha, its warm-up, flow used the way it came. For comparison."""
    return TemporalConfig(
        train=_train(),
        data=DataConfig(factor=4),
        model=ModelConfig(gate="scalar", interpolation="bilinear", occlusion="mask", refiner="plain", compat="seed"),
        warmup=AlphaWarmup(start=0.1, target=0.8, steps=5000),
        loss=LossConfig(),
    )


def _train() -> TrainConfig:
    return TrainConfig(
        steps=600,
        batch_size=5,
        learning_rate=8e-3,
        final_learning_rate=3e-5,
        warmup_steps=20,
        weight_decay=0.0,
        validate_every=100,
        validate_windows=32,
        checkpoint_every=200,
    )


PRESETS: Mapping[str, Callable[[], TemporalConfig]] = {
    "default": default,
    "video": video,
    "patches": patches,
    "no_flow": no_flow,
    "seed": seed,
}
