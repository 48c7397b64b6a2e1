"""Dumb forecasts that a model must beat."""

from collections.abc import Callable, Mapping

import xarray as xr

from gridloom.core.contracts import Predictor
from gridloom.evaluate.baselines.climatology import SlotMean
from gridloom.evaluate.baselines.forecast import AdaptiveSlotMean, ExponentialAverage, LastFrame, SeasonalNaive
from gridloom.evaluate.baselines.ridge import RidgeConfig, RidgeForecast
from gridloom.systems.heatmap.config import HeatmapConfig
from gridloom.systems.heatmap.encoder import SLOT

__all__ = ["BASELINES"]


def _average(config: HeatmapConfig, history: xr.Dataset) -> Predictor:
    return ExponentialAverage(history, restart=config.data.within_session)


def _adaptive(config: HeatmapConfig, history: xr.Dataset) -> Predictor | None:
    return AdaptiveSlotMean(history, SLOT) if _goes_round(history) else None


def _seasonal(config: HeatmapConfig, history: xr.Dataset) -> Predictor | None:
    return SeasonalNaive(_seasons(config)) if _goes_round(history) else None


def _slot_mean(config: HeatmapConfig, history: xr.Dataset) -> Predictor:
    return SlotMean(history, SLOT)


def _ridge(config: HeatmapConfig, history: xr.Dataset) -> Predictor:
    restart = config.data.within_session
    if not _goes_round(history):
        return RidgeForecast(history, RidgeConfig(slot="", restart=restart))
    return RidgeForecast(history, RidgeConfig(seasons=_seasons(config), restart=restart))


def _seasons(config: HeatmapConfig) -> tuple[int, ...]:
    """Periods that the model remembers too; the cycle of the slots where it remembers none."""
    periods = dict.fromkeys(period for period, _ in config.model.memory.seasonal)
    return tuple(periods) or (config.model.num_slots,)


def _goes_round(history: xr.Dataset) -> bool:
    """Whether slots come again at all."""
    return history.sizes["time"] > int(history[SLOT].max()) + 1


BASELINES: Mapping[str, Callable[[HeatmapConfig, xr.Dataset], Predictor | None]] = {
    "persistence": lambda config, history: LastFrame(),
    "slot mean": _slot_mean,
    "average": _average,
    "adaptive slot mean": _adaptive,
    "seasonal naive": _seasonal,
    "ridge": _ridge,
}
