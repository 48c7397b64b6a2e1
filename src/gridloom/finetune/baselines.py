"""Answers that fine-tuning must beat: without looking, from raw cells, and a linear probe of the frozen backbone."""

import logging
from typing import Literal

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float64

from gridloom.core.contracts import Encoder, Predictor
from gridloom.core.errors import GridloomError
from gridloom.evaluate.readout import classify_linear, classify_neighbors, regress_linear, regress_nearest
from gridloom.finetune.backbone import read_backbone
from gridloom.finetune.config import FinetuneConfig
from gridloom.finetune.labels import as_indices
from gridloom.finetune.predict import answer, embed
from gridloom.grid.normalize import Normalizer, fit_normalizer

__all__ = ["Constant", "LinearProbe", "Pixels", "linear_probe", "most_frequent", "training_mean"]

_LOGGER = logging.getLogger(__name__)
_MOST_CELLS = 32
"""Along each axis of a window; more are averaged in blocks before they are compared."""


class Constant:
    """The same answer for every window."""

    def __init__(self, value: str | float) -> None:
        self.value = value

    def predict(self, given: xr.Dataset, wanted: xr.Dataset) -> xr.Dataset:
        """Answer without looking."""
        (name,) = wanted.data_vars
        return answer(wanted, np.full(wanted[name].shape, self.value))


def most_frequent(config: FinetuneConfig, history: xr.Dataset) -> Predictor | None:
    """The most frequent class of the training part."""
    if not config.classes:
        return None
    names, counts = np.unique(history[config.data.label].values, return_counts=True)
    return Constant(str(names[counts.argmax()]))


def training_mean(config: FinetuneConfig, history: xr.Dataset) -> Predictor | None:
    """The mean label of the training part."""
    return None if config.classes else Constant(float(history[config.data.label].values.mean()))


class _Reader:
    """Reads the label from features with a simple model that is fitted to the training part.

    Windows of classes that the configuration does not know (other data may have some) are left out.

    Args:
        config: Names the label and the classes.
        history: Training windows with labels.
        train: Their features.
        kind: Which model.
    """

    def __init__(
        self,
        config: FinetuneConfig,
        history: xr.Dataset,
        train: Float64[np.ndarray, "samples features"],
        kind: Literal["linear", "nearest"],
    ) -> None:
        self.classes, self.kind = config.classes, kind
        labels = history[config.data.label].values
        if config.classes:
            labels = as_indices(labels, config.classes)
            train, labels = train[labels >= 0], labels[labels >= 0]
        self.train, self.labels = train, labels

    def read(self, wanted: xr.Dataset, test: Float64[np.ndarray, "samples features"]) -> xr.Dataset:
        """Label each row of features."""
        if not self.classes:
            regress = regress_linear if self.kind == "linear" else regress_nearest
            return answer(wanted, regress(self.train, self.labels, test))
        if self.kind == "linear":
            said = classify_linear(self.train, self.labels, test)
        else:
            said = classify_neighbors(self.train, self.labels, test, k=1, metric="euclidean")
        return answer(wanted, np.array(self.classes)[said])


class Pixels:
    """A simple model on raw cells, each variable standardized over the training part; a missing cell is the mean.

    Windows of more than 32 cells along an axis are averaged in blocks first.
    """

    def __init__(self, config: FinetuneConfig, history: xr.Dataset, *, kind: Literal["linear", "nearest"]) -> None:
        self.variables = config.data.variables
        statistics = [(float(history[name].mean()), float(history[name].std()) or 1.0) for name in self.variables]
        self.statistics = dict(zip(self.variables, statistics, strict=True))
        self.reader = _Reader(config, history, self._features(history), kind)

    def predict(self, given: xr.Dataset, wanted: xr.Dataset) -> xr.Dataset:
        """Answer each window by itself."""
        return self.reader.read(wanted, self._features(given))

    def _features(self, windows: xr.Dataset) -> Float64[np.ndarray, "samples features"]:
        rows = []
        for name in self.variables:
            mean, spread = self.statistics[name]
            coarse = _block_means(windows[name].values)
            rows.append(np.nan_to_num((coarse - mean) / spread).reshape(len(coarse), -1))
        return np.concatenate(rows, axis=1)


def _block_means(values: np.ndarray) -> np.ndarray:
    """Means over the known cells of blocks, so that at most 32 remain along each axis; NaN where none is known."""
    known = np.isfinite(values)
    total, count = np.where(known, values, 0.0).astype(np.float64), known.astype(np.float64)
    for axis in (1, 2):
        edges = np.unique(np.linspace(0, values.shape[axis], _MOST_CELLS + 1).astype(np.int64))[:-1]
        total, count = np.add.reduceat(total, edges, axis=axis), np.add.reduceat(count, edges, axis=axis)
    means: np.ndarray = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return means


class LinearProbe:
    """A linear model on the embeddings of the backbone as it came: what there is to gain without fine-tuning."""

    def __init__(
        self, config: FinetuneConfig, history: xr.Dataset, *, encoder: Encoder, normalizer: Normalizer
    ) -> None:
        self.config, self.encoder, self.normalizer = config, encoder, normalizer
        self.reader = _Reader(config, history, self._features(history), "linear")

    def predict(self, given: xr.Dataset, wanted: xr.Dataset) -> xr.Dataset:
        """Answer each window by itself."""
        return self.reader.read(wanted, self._features(given))

    def _features(self, windows: xr.Dataset) -> Float64[np.ndarray, "samples features"]:
        return embed(self.encoder, windows, self.config, self.normalizer).astype(np.float64)


def linear_probe(config: FinetuneConfig, history: xr.Dataset) -> Predictor | None:
    """The linear probe; None, with a warning, where the backbone is gone or is another one now."""
    try:
        backbone = read_backbone(config.backbone)
    except GridloomError as error:
        _LOGGER.warning("no linear probe of the backbone beside the model: %s", error)
        return None
    if backbone.sha256 != config.pretrained.sha256:
        _LOGGER.warning("no linear probe beside the model: %s holds other weights now", config.backbone)
        return None
    cuda = torch.cuda.is_available() and config.train.device != "cpu"
    record = config.pretrained.normalizer
    normalizer = (
        Normalizer.from_json(record)
        if record
        else fit_normalizer(history[list(config.data.variables)], kinds=config.data.normalize)
    )
    return LinearProbe(config, history, encoder=backbone.encoder.to("cuda" if cuda else "cpu"), normalizer=normalizer)
