"""Dumb predictors that a model must beat. Each answers like a model: `predict(given, wanted)`.

What `given` holds may be used: it is the caller who hides. Baselines in time answer a cell from other times only, never
with its own value. Forecasts along a record have a question of their own, see `record`.
"""

from gridloom.evaluate.baselines.climatology import Climatology, SlotMean
from gridloom.evaluate.baselines.em import RegularizedEM
from gridloom.evaluate.baselines.eof import DINEOF
from gridloom.evaluate.baselines.forecast import AdaptiveSlotMean, ExponentialAverage, LastFrame, SeasonalNaive
from gridloom.evaluate.baselines.gaussian import GaussianProcess
from gridloom.evaluate.baselines.interpolate import LinearInTime
from gridloom.evaluate.baselines.kriging import OptimalInterpolation
from gridloom.evaluate.baselines.patches import PatchPCA
from gridloom.evaluate.baselines.pca import PCAReconstruction
from gridloom.evaluate.baselines.persistence import Persistence
from gridloom.evaluate.baselines.ridge import RidgeConfig, RidgeForecast
from gridloom.evaluate.baselines.smooth import SmoothClimatology
from gridloom.evaluate.baselines.spatial import LinearAnomalies, LinearInSpace
from gridloom.evaluate.baselines.tiles import BlockMean, MeanField

__all__ = [
    "DINEOF",
    "AdaptiveSlotMean",
    "BlockMean",
    "Climatology",
    "ExponentialAverage",
    "GaussianProcess",
    "LastFrame",
    "LinearAnomalies",
    "LinearInSpace",
    "LinearInTime",
    "MeanField",
    "OptimalInterpolation",
    "PCAReconstruction",
    "PatchPCA",
    "Persistence",
    "RegularizedEM",
    "RidgeConfig",
    "RidgeForecast",
    "SeasonalNaive",
    "SlotMean",
    "SmoothClimatology",
]
