"""The registration of the temporal system: which function does what."""

from gridloom.core.system import System
from gridloom.systems.temporal.baselines import BASELINES
from gridloom.systems.temporal.config import TemporalConfig
from gridloom.systems.temporal.data import prepare, resolve
from gridloom.systems.temporal.figures import FIGURES
from gridloom.systems.temporal.graph import temporal_graph
from gridloom.systems.temporal.objective import FlickerFree
from gridloom.systems.temporal.predict import FlickerFilter
from gridloom.systems.temporal.presets import PRESETS
from gridloom.systems.temporal.score import score

__all__ = ["SYSTEM"]

SYSTEM: System[TemporalConfig] = System(
    name="temporal",
    summary="video latents without flicker: warped by the flow, weighed cell by cell, fused",
    config=TemporalConfig,
    presets=PRESETS,
    monitor="error_db",
    resolve=resolve,
    prepare=prepare,
    objective=FlickerFree,
    graph=temporal_graph,
    predictor=FlickerFilter,
    baselines=BASELINES,
    score=score,
    figures=FIGURES,
)
