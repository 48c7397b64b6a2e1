"""The registration of the energy system: which function does what."""

from functools import partial

import xarray as xr

from gridloom.core.contracts import Predictor
from gridloom.core.system import System
from gridloom.systems.energy.baselines import MeanPlace, NearestImage, RidgeRegression, extreme_cell
from gridloom.systems.energy.config import PRESETS, EnergyConfig
from gridloom.systems.energy.data import prepare, resolve
from gridloom.systems.energy.figures import FIGURES
from gridloom.systems.energy.locate import Locator
from gridloom.systems.energy.objective import Location, build_encoder
from gridloom.systems.energy.score import score_positions

__all__ = ["SYSTEM"]


def _mean_place(config: EnergyConfig, history: xr.Dataset) -> Predictor:
    return MeanPlace(history)


def _nearest_image(config: EnergyConfig, history: xr.Dataset) -> Predictor:
    return NearestImage(history)


def _ridge(config: EnergyConfig, history: xr.Dataset) -> Predictor:
    return RidgeRegression(history)


SYSTEM: System[EnergyConfig] = System(
    name="energy",
    summary="an energy E(image, coordinate) whose minimum says where something is",
    config=EnergyConfig,
    presets=PRESETS,
    monitor="error",
    resolve=resolve,
    prepare=prepare,
    objective=Location,
    encoder=build_encoder,
    predictor=Locator,
    baselines={
        "mean place": _mean_place,
        "nearest image": _nearest_image,
        "ridge": _ridge,
        "highest cell": partial(extreme_cell, smooth=False),
        "highest cell, smoothed": partial(extreme_cell, smooth=True),
    },
    score=score_positions,
    figures=FIGURES,
)
