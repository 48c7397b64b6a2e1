"""Presets of the heatmap system."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from gridloom.core.settings import TrainConfig
from gridloom.systems.heatmap.config import (
    CausalConfig,
    DataConfig,
    HeatmapConfig,
    LocalConfig,
    MemoryConfig,
    ModelConfig,
    MotionConfig,
)

__all__ = ["PRESETS"]


_SMALL = ModelConfig(
    latent_dim=256,
    widths=(8, 16, 32, 64),
    num_blocks=1,
    hidden=256,
    pool="flatten",
    alpha=1.0,
    slot_init_std=0.02,
    causal=CausalConfig(kind="transformer", dim=128, depth=2, num_heads=4, window=16),
)


def seed() -> HeatmapConfig:
    """The seed's model to the last parameter, with its placeholder instead of a causal part."""
    return HeatmapConfig(
        data=DataConfig(window=16, stride=16),
        train=TrainConfig(steps=1000, batch_size=4, learning_rate=3e-4, keep="best", validate_windows=32),
    )


def recommended() -> HeatmapConfig:
    """The seed's size with a transformer, a residual, a linear way and a local network."""
    return HeatmapConfig(
        data=DataConfig(window=48, stride=16),
        model=ModelConfig(
            pool="flatten",
            normalize="slot",
            linear=True,
            alpha=1.0,
            slot_init_std=0.02,
            causal=CausalConfig(kind="transformer", window=47),
            next_slot=True,
            residual="ema",
            memory=MemoryConfig(averages=(0.2, 0.05, 0.5), lags=(1, 2)),
            local=LocalConfig(width=24, depth=2, kernel=3),
        ),
        train=TrainConfig(
            steps=2000,
            batch_size=4,
            learning_rate=3e-4,
            keep="best",
            ema_decay=0.995,
            epsilon=1e-12,
            validate_windows=32,
        ),
    )


def flights() -> HeatmapConfig:
    """Departures and arrivals by the hour: the hour of the week, followed as it changes, and what it leaves."""
    return HeatmapConfig(
        data=DataConfig(path="flights", window=24, stride=4, within_session=False, max_origins=60, num_samples=10),
        model=replace(
            _SMALL,
            latent_dim=512,
            hidden=128,
            normalize="slot",
            linear=True,
            causal=CausalConfig(kind="transformer", dim=512, depth=2, num_heads=4, window=23),
            next_slot=True,
            residual="slot_mean",
            memory=MemoryConfig(
                seasonal=((168, 0.2), (24, 0.15), (168, 0.35), (24, 0.4), (168, 0.01)),
                lags=(1, 2, 3, 4, 24, 168),
                deviation_lags=(1, 2, 3, 4, 5, 6, 7, 8),
                deviation_averages=(0.1, 0.3),
                cells="seen",
            ),
            local=LocalConfig(width=64, depth=2, cell_embedding=8, slot_embedding=8, overall=True),
        ),
        train=TrainConfig(
            steps=400,
            batch_size=4,
            learning_rate=2e-3,
            validate_every=100,
            checkpoint_every=400,
            keep="best",
            ema_decay=0.99,
            epsilon=1e-12,
        ),
    )


def es() -> HeatmapConfig:
    """Minutes of E-mini futures: averages at several rates, in pixels and in counts, also of coarser minutes."""
    return HeatmapConfig(
        data=DataConfig(
            path="emini",
            window=17,
            stride=4,
            within_session=False,
            coarsen=(1, 2, 4, 8),
            leads=(1, 3, 6, 24),
            max_origins=60,
            num_samples=10,
        ),
        model=replace(
            _SMALL,
            normalize="frame+stats",
            residual="ema",
            memory=MemoryConfig(
                averages=(0.2, 0.02, 0.05, 0.12, 0.25, 0.5),
                count_averages=(0.05, 0.12, 0.25, 0.5),
                lags=(1, 2, 3),
            ),
            local=LocalConfig(width=16, depth=3, kernel=3),
        ),
        train=TrainConfig(
            steps=500,
            batch_size=2,
            learning_rate=2e-3,
            validate_every=100,
            checkpoint_every=250,
            keep="best",
            ema_decay=0.98,
            epsilon=1e-12,
        ),
    )


def digits() -> HeatmapConfig:
    """Digits that move and bounce: the last frame moves on as the frames before it did, and latents correct it."""
    return HeatmapConfig(
        data=DataConfig(path="moving-digits", window=12, stride=8, leads=(1, 3, 6)),
        model=replace(
            _SMALL,
            widths=(8, 16, 32),
            normalize="none",
            causal=replace(_SMALL.causal, window=11),
            residual="last",
            memory=MemoryConfig(lags=(1, 2, 3, 4, 5)),
            motion=MotionConfig(reach=5),
        ),
        train=TrainConfig(
            steps=300,
            batch_size=2,
            learning_rate=8e-3,
            validate_every=150,
            checkpoint_every=300,
            keep="best",
            ema_decay=0.99,
            epsilon=1e-12,
        ),
    )


PRESETS: Mapping[str, Callable[[], HeatmapConfig]] = {
    "default": recommended,
    "seed": seed,
    "recommended": recommended,
    "flights": flights,
    "es": es,
    "digits": digits,
}
