"""System E: an autoencoder whose encoder is extracted and used everywhere."""

from gridloom.systems.semantic.config import (
    PRESETS,
    AugmentConfig,
    ContrastConfig,
    EquivarianceConfig,
    MaskConfig,
    ModelConfig,
    SemanticConfig,
)
from gridloom.systems.semantic.model import AutoEncoder, Decoder, ResNetEncoder
from gridloom.systems.semantic.objective import SelfSupervised
from gridloom.systems.semantic.system import SYSTEM

__all__ = [
    "PRESETS",
    "SYSTEM",
    "AugmentConfig",
    "AutoEncoder",
    "ContrastConfig",
    "Decoder",
    "EquivarianceConfig",
    "MaskConfig",
    "ModelConfig",
    "ResNetEncoder",
    "SelfSupervised",
    "SemanticConfig",
]
