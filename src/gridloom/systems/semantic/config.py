"""Configuration of the semantic system and its presets."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from gridloom.core.errors import ConfigError
from gridloom.core.settings import RunConfig, TrainConfig
from gridloom.grid.prepare import GridConfig

__all__ = [
    "PRESETS",
    "AugmentConfig",
    "ContrastConfig",
    "EquivarianceConfig",
    "MaskConfig",
    "ModelConfig",
    "SemanticConfig",
]

_LEAST_MAP = 4
"""Cells of a latent map along each axis, of which the outermost are no place to compare motion."""
_MAP_STRIDE = 8


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Architecture of the autoencoder."""

    arch: Literal["resnet18", "resnet50"] = "resnet18"
    """Layout of the encoder's residual blocks; resnet50 costs about two and a half times as much."""
    latent: Literal["vector", "map"] = "vector"
    """One vector for a window, or a map of vectors with an eighth of its cells along each axis (video, stitching)."""
    input_channels: int = 0
    """Data channels (the plane that tells missing cells is not counted); 0 takes the number of variables."""
    latent_dim: int = 768
    """Size of the latent vector, or of each in a map."""
    width: int = 64
    """Channels of the first layer; the others follow by doubling. 64 is the usual ResNet."""
    head_channels: int = 16
    """Channels of the last features that a latent vector is made of, at each of their places. A 128x128 window has 4x4
    places, a 32x32 one a single place: there the network adds no more than this many directions to the latent."""
    norm: Literal["group", "batch"] = "group"
    """GroupNorm gives the same on one process and many; BatchNorm is for old weights, and contrasts small windows in
    fewer steps."""

    def __post_init__(self) -> None:
        """Refuse sizes that make no network."""
        for name, least in (("input_channels", 0), ("latent_dim", 1), ("width", 1), ("head_channels", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"model.{name} must be at least {least}, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class MaskConfig:
    """Hiding blocks from the encoder while training; they are asked back with the rest."""

    share: float = 0.0
    """Share of the blocks that are hidden; 0 hides none."""
    block: int = 8
    """Cells of a block along each axis."""

    def __post_init__(self) -> None:
        """Refuse what hides everything or nothing."""
        if not 0 <= self.share < 1 or self.block < 1:
            raise ConfigError(
                f"mask.share must be at least 0 and below 1, mask.block at least 1, got {self.share} and {self.block}"
            )


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """How two views of a window differ; 0 (zoom: 1) leaves a change out."""

    zoom: float = 1.5
    """Largest magnification; a view is a part of the window, anywhere in it."""
    shift: float = 0.0
    """Largest shift beyond the window, as a share of its size; what comes in is missing."""
    rotate: float = 0.0
    """Largest rotation in degrees, either way; what comes in at the corners is missing."""
    warp: float = 0.0
    """Largest smooth distortion, as a share of the window's size; a different one in each quarter or so."""
    flip: bool = False
    """Flip up-down and left-right at random."""
    gain: float = 0.1
    """Standard deviation of the logarithm of a factor."""
    offset: float = 0.1
    """Standard deviation of a constant that is added, in normalized units."""
    noise: float = 0.1
    """Standard deviation of noise in each cell, in normalized units."""
    hide: float = 0.1
    """Share of blocks that become missing."""
    hide_block: int = 8
    """Cells of such a block along each axis."""

    def __post_init__(self) -> None:
        """Refuse what is no change of a view."""
        for name in ("shift", "rotate", "warp", "gain", "offset", "noise"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"contrast.augment.{name} must be 0 or more, got {getattr(self, name)}")
        if not self.zoom >= 1:
            raise ConfigError(f"contrast.augment.zoom must be 1 or more, got {self.zoom}")
        if not 0 <= self.hide < 1 or self.hide_block < 1:
            raise ConfigError(
                f"contrast.augment.hide must be at least 0 and below 1, hide_block at least 1, "
                f"got {self.hide} and {self.hide_block}"
            )


@dataclass(frozen=True, kw_only=True)
class ContrastConfig:
    """Learning from two views of a window: alike to each other, unlike all others of the batch."""

    weight: float = 0.0
    """Weight of this loss beside reconstruction; 0 turns it off."""
    temperature: float = 0.2
    """Divides the similarities; low looks at the most similar others alone."""
    projection: int = 64
    """Size of the space in which views are compared; its network is not part of the encoder."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """How views differ."""

    def __post_init__(self) -> None:
        """Refuse what cannot be computed."""
        if not self.weight >= 0 or not self.temperature > 0 or self.projection < 1:
            raise ConfigError(
                f"contrast: weight must be 0 or more, temperature above 0, projection at least 1, "
                f"got {self.weight}, {self.temperature}, {self.projection}"
            )


@dataclass(frozen=True, kw_only=True)
class EquivarianceConfig:
    """Learning that the latent map of a moved window is the moved latent map, as warping latents by a flow needs it."""

    weight: float = 0.0
    """Weight of this loss; 0 turns it off. A step then costs about two thirds more."""
    shift: int = 4
    """Largest shift in cells; 4 has every part of a latent's 8 cells."""
    rotate: float = 0.0
    """Largest rotation in degrees, either way."""
    zoom: float = 1.0
    """Largest magnification or reduction."""

    def __post_init__(self) -> None:
        """Refuse what is no motion."""
        if not self.weight >= 0 or self.shift < 0 or not self.rotate >= 0 or not self.zoom >= 1:
            raise ConfigError(
                f"equivariance: weight, shift and rotate must be 0 or more, zoom 1 or more, "
                f"got {self.weight}, {self.shift}, {self.rotate} and {self.zoom}"
            )
        if self.weight and not self.shift and not self.rotate and self.zoom == 1:
            raise ConfigError("equivariance: nothing moves; set shift to 4, say")


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
    """Flip training windows up-down and left-right at random: four times the data, where that makes sense.
    (With `contrast`, its own `augment.flip` counts.)"""
    reconstruct: float = 1.0
    """Weight of reconstruction beside `contrast`; 0 leaves the encoder to the contrast, the decoder still learns."""
    decode: bool = True
    """Train the decoder too where `reconstruct` is 0. Without it a step costs about a third less; what is decoded then
    means nothing."""
    mask: MaskConfig = field(default_factory=MaskConfig)
    """Blocks hidden from the encoder."""
    contrast: ContrastConfig = field(default_factory=ContrastConfig)
    """Views of a window told apart from others."""
    equivariance: EquivarianceConfig = field(default_factory=EquivarianceConfig)
    """Latent maps that move with the field."""

    def __post_init__(self) -> None:
        """Refuse losses that do not go together."""
        super().__post_init__()
        if not self.reconstruct >= 0 or (self.reconstruct == 0 and self.contrast.weight == 0):
            raise ConfigError(f"reconstruct must be above 0, or 0 with a contrast.weight, got {self.reconstruct}")
        if self.reconstruct and not self.decode:
            raise ConfigError(f"decode can be off only where reconstruct is 0, got {self.reconstruct}")
        if self.contrast.weight and self.train.accumulate > 1:
            raise ConfigError(
                f"contrast compares the samples of a whole batch: train.accumulate must be 1, "
                f"got {self.train.accumulate}; lower train.batch_size instead"
            )
        if self.equivariance.weight:
            self._check_equivariance()

    def _check_equivariance(self) -> None:
        if self.model.latent != "map":
            raise ConfigError("equivariance is about where things are in a latent map; set model.latent map")
        if min(self.data.window) < _LEAST_MAP * _MAP_STRIDE:
            raise ConfigError(
                f"equivariance needs windows of {_LEAST_MAP * _MAP_STRIDE} cells or more along each axis "
                f"({_LEAST_MAP} of the latent map), got {self.data.window}"
            )


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


def digits_contrast() -> SemanticConfig:
    """Handwritten digits told apart from each other, moved and distorted."""
    return SemanticConfig(
        data=digits().data,
        model=ModelConfig(latent_dim=128, width=16, head_channels=64, norm="batch"),
        reconstruct=0.0,
        decode=False,
        contrast=ContrastConfig(
            weight=1.0,
            temperature=0.1,
            augment=AugmentConfig(
                zoom=1.3, shift=0.08, rotate=15.0, warp=0.06, gain=0.1, offset=0.2, noise=0.4, hide=0.2
            ),
        ),
        train=TrainConfig(steps=400, batch_size=128, learning_rate=3e-3, validate_every=100),
    )


def textures() -> SemanticConfig:
    """Surfaces, by what does not depend on the place in a window: the mean of a latent map.

    Two views share a few cells only, half a window may lie between them: alike is what the surface is like.
    """
    return SemanticConfig(
        data=GridConfig(path="textures", window=(32, 32), stride=(8, 8), split_dim="x", label="texture"),
        model=ModelConfig(latent="map", latent_dim=64, width=16, norm="batch"),
        reconstruct=0.0,
        decode=False,
        contrast=ContrastConfig(
            weight=1.0,
            temperature=0.1,
            augment=AugmentConfig(
                zoom=1.1, shift=0.5, rotate=10.0, flip=True, gain=0.0, offset=0.3, noise=0.0, hide=0.0
            ),
        ),
        train=TrainConfig(steps=500, batch_size=64, learning_rate=2e-3, validate_every=100),
    )


PRESETS: Mapping[str, Callable[[], SemanticConfig]] = {
    "default": default,
    "elevation": elevation,
    "coads": coads,
    "digits": digits,
    "digits-contrast": digits_contrast,
    "textures": textures,
}
