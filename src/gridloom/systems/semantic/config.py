"""Configuration of the semantic system and its presets."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from gridloom.core.errors import ConfigError
from gridloom.core.settings import RunConfig, TrainConfig
from gridloom.grid.prepare import GridConfig

__all__ = ["PRESETS", "ModelConfig", "SemanticConfig"]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Architecture of the autoencoder."""

    arch: Literal["resnet18"] = "resnet18"
    """Layout of the encoder's residual blocks."""
    input_channels: int = 0
    """Data channels (the plane that tells missing cells is not counted); 0 takes the number of variables."""
    latent_dim: int = 768
    """Size of the latent vector."""
    width: int = 64
    """Channels of the first layer; the others follow by doubling. 64 is the usual ResNet."""
    norm: Literal["group", "batch"] = "group"
    """GroupNorm gives the same on one process and many; BatchNorm is for old weights."""

    def __post_init__(self) -> None:
        """Refuse sizes that make no network."""
        for name, least in (("input_channels", 0), ("latent_dim", 1), ("width", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"model.{name} must be at least {least}, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class SemanticConfig(RunConfig):
    """Train an autoencoder on gridded data and get its encoder out."""

    data: GridConfig = field(default_factory=GridConfig)
    """What is trained on."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The network."""
    loss: Literal["mse", "smooth_l1"] = "mse"
    """Error of a cell; smooth_l1 is less moved by outliers."""
    flip: bool = False
    """Flip training windows up-down and left-right at random: four times the data, where that makes sense."""


def default() -> SemanticConfig:
    """The specification's size: 128x128 windows, ResNet-18, 768 latents (11.6 M parameters)."""
    return SemanticConfig()


def elevation() -> SemanticConfig:
    """The demonstration: global elevation in 128x128 tiles, split in space; minutes on a laptop."""
    return SemanticConfig(
        data=GridConfig(
            path="etopo20",
            window=(128, 128),
            stride=(4, 4),
            split_dim="lon",
            fractions=(0.55, 0.19, 0.26),
        ),
        model=ModelConfig(latent_dim=256, width=16),
        flip=True,
        train=TrainConfig(steps=600, batch_size=32, warmup_steps=50, validate_every=100),
    )


def coads() -> SemanticConfig:
    """Seven monthly sea-surface variables with nearly half of the cells missing, 32x32 windows, split by month.

    The months are those of a climatology, which resemble each other; the world is too small for a split in space.
    """
    return SemanticConfig(
        data=GridConfig(path="coads", window=(32, 32), stride=(4, 4), split_dim="month"),
        model=ModelConfig(latent_dim=128, width=24),
        train=TrainConfig(steps=600, batch_size=64, validate_every=100),
    )


def digits() -> SemanticConfig:
    """Handwritten digits with labels, to see what the probes say; split by writer."""
    return SemanticConfig(
        data=GridConfig(path="digits", window=(32, 32), stride=(32, 32), split_dim="sample", label="digit"),
        model=ModelConfig(latent_dim=32, width=16),
        train=TrainConfig(steps=600, batch_size=64, validate_every=100),
    )


PRESETS: Mapping[str, Callable[[], SemanticConfig]] = {
    "default": default,
    "elevation": elevation,
    "coads": coads,
    "digits": digits,
}
