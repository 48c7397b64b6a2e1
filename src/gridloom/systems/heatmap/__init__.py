"""System A: heatmaps of trades, or of any events, to latents; and the frames to come."""

from gridloom.systems.heatmap.config import HeatmapConfig, ModelConfig
from gridloom.systems.heatmap.decoder import HeatmapDecoder
from gridloom.systems.heatmap.encoder import HeatmapEncoder
from gridloom.systems.heatmap.predict import HeatmapForecaster
from gridloom.systems.heatmap.system import SYSTEM
from gridloom.systems.heatmap.wrapper import AutoRegOutput, AutoRegWrapper

__all__ = [
    "SYSTEM",
    "AutoRegOutput",
    "AutoRegWrapper",
    "HeatmapConfig",
    "HeatmapDecoder",
    "HeatmapEncoder",
    "HeatmapForecaster",
    "ModelConfig",
]
