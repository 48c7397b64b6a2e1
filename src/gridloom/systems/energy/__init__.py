"""System B: an energy E(image, coordinate), low where the coordinate is right."""

from gridloom.nn.spatial import CoordConv, SpatialSoftArgmax
from gridloom.systems.energy.autoregressive import AutoregressiveEBM, AutoregressiveOptimizer
from gridloom.systems.energy.config import PRESETS, EnergyConfig
from gridloom.systems.energy.descent import LangevinOptimizer, polish
from gridloom.systems.energy.loss import draw_negatives, gradient_penalty, info_nce, log_density
from gridloom.systems.energy.model import (
    CNN,
    EBMMLP,
    ConvMLP,
    EBMConvMLP,
    EnergyHead,
    KeypointEncoder,
    ResidualBlock,
    SignalEncoder,
    load_listed_weights,
)
from gridloom.systems.energy.objective import Location
from gridloom.systems.energy.search import DerivativeFreeOptimizer, PatternSearch, Replay, SearchResult, Trajectory
from gridloom.systems.energy.system import SYSTEM

__all__ = [
    "CNN",
    "EBMMLP",
    "PRESETS",
    "SYSTEM",
    "AutoregressiveEBM",
    "AutoregressiveOptimizer",
    "ConvMLP",
    "CoordConv",
    "DerivativeFreeOptimizer",
    "EBMConvMLP",
    "EnergyConfig",
    "EnergyHead",
    "KeypointEncoder",
    "LangevinOptimizer",
    "Location",
    "PatternSearch",
    "Replay",
    "ResidualBlock",
    "SearchResult",
    "SignalEncoder",
    "SpatialSoftArgmax",
    "Trajectory",
    "draw_negatives",
    "gradient_penalty",
    "info_nce",
    "load_listed_weights",
    "log_density",
    "polish",
]
