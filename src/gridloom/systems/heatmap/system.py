"""The registration of the heatmap system: which function does what."""

from gridloom.core.system import System
from gridloom.systems.heatmap.baselines import BASELINES
from gridloom.systems.heatmap.calibrate import calibrate
from gridloom.systems.heatmap.config import HeatmapConfig
from gridloom.systems.heatmap.data import encode_source, prepare, resolve
from gridloom.systems.heatmap.encoder import HeatmapEncoder
from gridloom.systems.heatmap.figures import FIGURES
from gridloom.systems.heatmap.initialize import initialize
from gridloom.systems.heatmap.objective import NextFrame
from gridloom.systems.heatmap.predict import HeatmapForecaster
from gridloom.systems.heatmap.presets import PRESETS
from gridloom.systems.heatmap.score import score

__all__ = ["SYSTEM"]


def _encoder(config: HeatmapConfig) -> HeatmapEncoder:
    return HeatmapEncoder(config.model)


SYSTEM: System[HeatmapConfig] = System(
    name="heatmap",
    summary="per-minute heatmaps of trades, or of any events, to latents; and the frames to come",
    config=HeatmapConfig,
    presets=PRESETS,
    monitor="mse",
    resolve=resolve,
    prepare=prepare,
    objective=NextFrame,
    initialize=initialize,
    complete=calibrate,
    encode_source=encode_source,
    encoder=_encoder,
    predictor=HeatmapForecaster,
    baselines=BASELINES,
    score=score,
    figures=FIGURES,
)
