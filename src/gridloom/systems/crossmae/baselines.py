"""What a fill must beat, fitted on the training part."""

from collections.abc import Callable, Mapping

import xarray as xr

from gridloom.core.contracts import Predictor
from gridloom.evaluate.baselines.climatology import Climatology
from gridloom.evaluate.baselines.eof import DINEOF
from gridloom.evaluate.baselines.interpolate import LinearInTime
from gridloom.evaluate.baselines.kriging import OptimalInterpolation
from gridloom.evaluate.baselines.smooth import SmoothClimatology
from gridloom.evaluate.baselines.spatial import LinearAnomalies, LinearInSpace
from gridloom.grid.axes import time_dim
from gridloom.grid.normalize import Normalizer
from gridloom.systems.crossmae.background import Background
from gridloom.systems.crossmae.config import CrossMAEConfig
from gridloom.systems.crossmae.fields import open_modalities
from gridloom.systems.crossmae.holdout import fit_normalizers

__all__ = ["BASELINES"]


def _time(history: xr.Dataset) -> str:
    found = time_dim(history)
    assert found is not None
    return found


def _has_dates(history: xr.Dataset) -> bool:
    time = _time(history)
    return time in history.coords and history[time].dtype.kind == "M"


def _climatology(config: CrossMAEConfig, history: xr.Dataset) -> Predictor:
    """The smooth one where the gaps of one record are filled; that of the training years where time was split."""
    if config.data.split == "cells" and _images_alone(config):
        return SmoothClimatology(time_dim=_time(history))
    variables = history[[v for v in history.data_vars if _time(history) in history[v].dims]]
    return Climatology(variables, time_dim=_time(history), part="month" if _has_dates(history) else None)


def _linear(config: CrossMAEConfig, history: xr.Dataset) -> Predictor:
    return LinearInTime(_time(history))


def _images_alone(config: CrossMAEConfig) -> bool:
    return all(modality.kind == "image" for modality in config.modalities.values())


def _of_gaps(build: Callable[[str], Predictor]) -> Callable[[CrossMAEConfig, xr.Dataset], Predictor | None]:
    """Those that know fields alone, and learn from what is around the gaps."""

    def make(config: CrossMAEConfig, history: xr.Dataset) -> Predictor | None:
        return build(_time(history)) if config.data.split == "cells" and _images_alone(config) else None

    return make


class _BackgroundAlone:
    """What the model would say if it added nothing."""

    def __init__(self, config: CrossMAEConfig, normalizer: Normalizer) -> None:
        self.config, self.normalizer = config, normalizer

    def predict(self, given: xr.Dataset, wanted: xr.Dataset) -> xr.Dataset:
        """Answer every cell."""
        fields = open_modalities(given, self.config.data, self.config.modalities)
        answers = {}
        for name, estimate in Background(self.config, self.normalizer).estimate(fields).items():
            (variable,) = fields.variables(name)
            values = estimate.base + estimate.scale * estimate.known[..., 0]
            original = fields.dataset[variable]
            answers[variable] = (original.dims, self.normalizer.invert(variable, values), dict(original.attrs))
        back = fields.back(xr.Dataset(answers, coords=fields.dataset.coords))
        return xr.Dataset({name: back[name].transpose(*given[name].dims) for name in back.data_vars})


def _background(config: CrossMAEConfig, history: xr.Dataset) -> Predictor | None:
    if not config.background.kinds or not _images_alone(config):
        return None
    fields = open_modalities(history, config.data, config.modalities)
    return _BackgroundAlone(config, fit_normalizers(fields, config))


BASELINES: Mapping[str, Callable[[CrossMAEConfig, xr.Dataset], Predictor | None]] = {
    "climatology": _climatology,
    "linear in time": _linear,
    "linear anomalies": _of_gaps(lambda time: LinearAnomalies(SmoothClimatology(time_dim=time))),
    "linear in space": _of_gaps(lambda time: LinearInSpace(time)),
    "DINEOF": _of_gaps(lambda time: DINEOF(time_dim=time)),
    "kriging": _of_gaps(lambda time: OptimalInterpolation(time_dim=time)),
    "background": _background,
}
"""Baselines by name; `background` is what the model's answers are added to, by itself."""
