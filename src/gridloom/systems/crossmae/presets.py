"""Presets of the crossmae system."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from gridloom.core.settings import TrainConfig
from gridloom.systems.crossmae.config import (
    BackgroundConfig,
    CrossMAEConfig,
    DataConfig,
    MaskingConfig,
    ModalityConfig,
    ModelConfig,
)

__all__ = ["PRESETS"]

_SMALL = ModelConfig(
    dim=96,
    image_depth=3,
    num_heads=4,
    decoder_dim=64,
    decoder_depth=2,
    decoder_heads=4,
    image_patch=(3, 6),
    dropout=0.05,
)


def default() -> CrossMAEConfig:
    """The specification's size: encoders 256 wide and 6 layers deep, decoders 128 wide and 4 deep."""
    return CrossMAEConfig(
        data=DataConfig(window=(8, 80, 80)),
        masking=MaskingConfig(strategies=("random", "blocks")),
        train=TrainConfig(batch_size=16, learning_rate=3e-4, keep="best"),
    )


def tiny() -> CrossMAEConfig:
    """The demonstration: the months of sea-surface temperature, half of it missing, a small model beside kriging."""
    return CrossMAEConfig(
        data=DataConfig(
            path="coads", variables=("sst",), window=(6, 30, 60), stride=(1, 15, 30), gaps="blocks", gap_share=0.15
        ),
        model=replace(_SMALL, dim=64, image_depth=2, image_patch=(5, 5)),
        background=BackgroundConfig(kinds=("kriging",), folds=4),
        train=TrainConfig(
            steps=150,
            batch_size=8,
            learning_rate=1e-3,
            warmup_steps=20,
            validate_every=50,
            validate_windows=16,
            checkpoint_every=75,
        ),
    )


def ostia() -> CrossMAEConfig:
    """Gaps in monthly sea-surface temperature, from a Gaussian process and what the model adds to it."""
    return CrossMAEConfig(
        data=DataConfig(path="ostia", window=(7, 18, 48), stride=(1, 0, 8), gaps="blocks"),
        model=_SMALL,
        background=BackgroundConfig(kinds=("em", "gaussian", "eof"), folds=6),
        train=TrainConfig(
            steps=400,
            batch_size=8,
            learning_rate=1e-3,
            validate_every=100,
            keep="best",
            ema_decay=0.99,
            checkpoint_every=400,
        ),
    )


def a1b_e1() -> CrossMAEConfig:
    """Two paired runs of a climate model: gaps in one are filled with the other in sight."""
    return CrossMAEConfig(
        data=DataConfig(path="a1b-e1", window=(7, 37, 49), stride=(1, 0, 0), gaps="blocks"),
        modalities={"a1b": ModalityConfig(variables=("a1b",)), "e1": ModalityConfig(variables=("e1",), target=False)},
        model=replace(_SMALL, fusion="cross", image_patch=(4, 5)),
        background=BackgroundConfig(kinds=("em", "gaussian", "eof"), folds=3),
        train=TrainConfig(
            steps=150,
            batch_size=8,
            learning_rate=1e-3,
            validate_every=50,
            keep="best",
            ema_decay=0.99,
            checkpoint_every=75,
        ),
    )


def water() -> CrossMAEConfig:
    """The specification's shapes on a made-up hydrology, at reduced width.

    522 patches of which 94 hold data, three fields, two series of 604 places, static attributes. Windows have 30 days;
    the specification's 90 are --data.window 90 0 0.
    """
    return CrossMAEConfig(
        data=DataConfig(path="water-large", window=(30, 0, 0), stride=(5, 0, 0), split="time"),
        model=ModelConfig(
            dim=64,
            image_depth=2,
            vector_depth=2,
            num_heads=4,
            decoder_dim=64,
            decoder_depth=2,
            decoder_heads=4,
            fusion="pooled",
        ),
        masking=MaskingConfig(share=0.75, predict=0.25),
        train=TrainConfig(
            steps=300,
            batch_size=2,
            learning_rate=3e-3,
            warmup_steps=20,
            validate_every=100,
            validate_windows=2,
            checkpoint_every=100,
        ),
    )


PRESETS: Mapping[str, Callable[[], CrossMAEConfig]] = {
    "default": default,
    "tiny": tiny,
    "ostia": ostia,
    "a1b-e1": a1b_e1,
    "water": water,
}
