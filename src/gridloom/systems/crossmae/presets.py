"""Presets of the crossmae system."""

from collections.abc import Callable, Mapping

from gridloom.core.settings import TrainConfig
from gridloom.systems.crossmae.config import (
    CrossMAEConfig,
    DataConfig,
    MaskingConfig,
    ModelConfig,
)

__all__ = ["PRESETS"]


def default() -> CrossMAEConfig:
    """The specification's size: encoders 256 wide and 6 layers deep, decoders 128 wide and 4 deep."""
    return CrossMAEConfig()


def tiny() -> CrossMAEConfig:
    """The demonstration: monthly sea-surface temperature, a small model; two minutes on a laptop."""
    return CrossMAEConfig(
        data=DataConfig(path="ostia", window=(8, 18, 48), stride=(1, 0, 12)),
        model=ModelConfig(
            dim=64, image_depth=2, num_heads=4, decoder_dim=64, decoder_depth=2, decoder_heads=4, image_patch=(3, 6)
        ),
        masking=MaskingConfig(strategies=("blocks", "random"), share=0.5, cells=0.1),
        train=TrainConfig(
            steps=400, batch_size=8, learning_rate=2e-3, warmup_steps=40, validate_every=100, checkpoint_every=200
        ),
    )


def water() -> CrossMAEConfig:
    """Five modalities and static attributes of a made-up hydrology, the layout of the specification in small."""
    return CrossMAEConfig(
        data=DataConfig(path="water", window=(30, 0, 0), stride=(5, 0, 0), split="time", normalize=("standard",)),
        model=ModelConfig(
            dim=64,
            image_depth=2,
            vector_depth=2,
            num_heads=4,
            decoder_dim=64,
            decoder_depth=2,
            decoder_heads=4,
            image_patch=(2, 2),
            vector_patch=5,
            fusion="shared",
        ),
        masking=MaskingConfig(share=0.4),
        train=TrainConfig(steps=600, batch_size=4, learning_rate=1e-3, validate_every=200),
    )


PRESETS: Mapping[str, Callable[[], CrossMAEConfig]] = {"default": default, "tiny": tiny, "water": water}
