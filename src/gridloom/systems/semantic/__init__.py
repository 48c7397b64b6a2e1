"""System E: an autoencoder whose encoder is extracted and used everywhere."""

from gridloom.systems.semantic.config import PRESETS, ModelConfig, SemanticConfig
from gridloom.systems.semantic.model import AutoEncoder, Decoder, ResNetEncoder
from gridloom.systems.semantic.objective import Reconstruction
from gridloom.systems.semantic.system import SYSTEM

__all__ = [
    "PRESETS",
    "SYSTEM",
    "AutoEncoder",
    "Decoder",
    "ModelConfig",
    "Reconstruction",
    "ResNetEncoder",
    "SemanticConfig",
]
