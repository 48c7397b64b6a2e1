"""Filling: a trained model answers for every gap of a record of any size, window by window, stitched smoothly."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr

from gridloom.core.errors import DataError
from gridloom.core.system import Trained
from gridloom.grid.normalize import Normalizer
from gridloom.grid.windows import Windows
from gridloom.systems.crossmae.background import Background
from gridloom.systems.crossmae.config import CrossMAEConfig
from gridloom.systems.crossmae.estimate import Estimate
from gridloom.systems.crossmae.fields import Fields, open_modalities
from gridloom.systems.crossmae.objective import Filled, MaskedModeling
from gridloom.systems.crossmae.pad import pad_cells, pad_estimate, pad_to_window
from gridloom.systems.crossmae.source import Fold, ModalSource, cut_modalities

__all__ = ["STD", "Filler", "Stitched"]

STD = "_std"
"""A variable of this ending is the standard deviation of the one without."""

_AT_ONCE = 16
_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stitched:
    """Answers for a whole record, normalized, shaped as the modality with its features last.

    Attributes:
        base: What the background's anomalies are from; 0 without a background.
        background: What the background says; 0 without one.
        correction: What the model adds to it.
        spread: Standard deviation that the model says; None for a model without.
    """

    base: np.ndarray
    background: np.ndarray
    correction: np.ndarray
    spread: np.ndarray | None


class Filler:
    """A trained model as a predictor of the cells that are wanted.

    `predict` answers each variable in data units, with its standard deviation as a second variable, `NAME_std`.
    """

    def __init__(self, trained: Trained[CrossMAEConfig], *, show: bool = False) -> None:
        objective = trained.objective
        assert isinstance(objective, MaskedModeling)
        if trained.config.loss.normalize_patches:
            raise DataError(
                "a model trained with loss.normalize_patches fills nothing: its answers have lost their mean; use its "
                "encoder, or train without"
            )
        self.objective = objective.eval()
        self.config = trained.config
        self.normalizer = Normalizer.from_json(trained.normalizer)
        self.show = show

    def predict(self, given: xr.Dataset, wanted: xr.Dataset) -> xr.Dataset:
        """Answer where `wanted` is True; elsewhere the answer is what is given.

        Args:
            given: Variables of the modalities in data units, and static attributes; NaN is missing.
            wanted: Boolean, the same variables.
        """
        fields = open_modalities(given, self.config.data, self.config.modalities)
        asked = {name: self.asked(fields, wanted, name) for name in self.config.modalities}
        found: dict[str, tuple] = {}
        for place, (name, stitched) in enumerate(self.stitch(fields, asked).items()):
            blend, scale = (float(values[place]) for values in (self.objective.blend, self.objective.scale))
            mean = stitched.base + stitched.background + blend * stitched.correction
            spread = None if stitched.spread is None else scale * stitched.spread
            found |= self._in_data_units(fields, name, asked[name], mean, spread)
        answers = fields.back(xr.Dataset(found, coords=fields.dataset.coords))
        ordered = {str(v): answers[v].transpose(*given[str(v).removesuffix(STD)].dims) for v in answers.data_vars}
        return xr.Dataset(ordered, attrs=given.attrs)

    def asked(self, fields: Fields, wanted: xr.Dataset, name: str) -> np.ndarray:
        """Cells that are wanted, with the features of a series last."""
        variables = fields.variables(name)
        chosen = fields.like(xr.Dataset({v: wanted[v] for v in fields.dataset.data_vars}))
        parts = [chosen[variable].values.astype(bool) for variable in variables]
        return parts[0] if fields.modalities[name].kind == "image" else np.stack(parts, axis=-1)

    def _in_data_units(
        self, fields: Fields, name: str, asked: np.ndarray, mean: np.ndarray, spread: np.ndarray | None
    ) -> dict[str, tuple]:
        found: dict[str, tuple] = {}
        series = fields.modalities[name].kind == "vector"
        for place, variable in enumerate(fields.variables(name)):
            original = fields.dataset[variable]
            own = asked[..., place] if series else asked
            value = mean[..., place] if series else mean
            answer = self.normalizer.invert(variable, value)
            found[variable] = (original.dims, np.where(own, answer, original.values), dict(original.attrs))
            if spread is not None:
                deviation = spread[..., place] if series else spread
                low, high = (self.normalizer.invert(variable, value + sign * deviation) for sign in (-1, 1))
                units = {key: original.attrs[key] for key in ("units",) if key in original.attrs}
                told = {**units, "long_name": f"standard deviation of {variable}"}
                found[variable + STD] = (original.dims, np.where(own, (high - low) / 2, np.nan).astype("f4"), told)
        return found

    def stitch(self, fields: Fields, asked: Mapping[str, np.ndarray]) -> dict[str, Stitched]:
        """Answer window by window, and blend where windows overlap.

        Args:
            fields: What may be seen.
            asked: Cells that are wanted, by modality, with the features of a series last.
        """
        config = self.config
        estimates: Mapping[str, Estimate] = {}
        if config.background.kinds:
            estimates = Background(config, self.normalizer).estimate(fields)
        nothing = {name: np.zeros(fields.dataset[fields.variables(name)[0]].shape, bool) for name in asked}
        padded, inside = pad_to_window(fields, config)
        estimates = {n: pad_estimate(estimate, inside, fields.dims(n)) for n, estimate in estimates.items()}
        fold = Fold(
            {name: pad_cells(cells, inside, fields.dims(name), False) for name, cells in nothing.items()}, estimates
        )
        overlap = [max(1, size // 2) for size in config.data.window]
        windows = cut_modalities(padded, config, stride=overlap)
        source = ModalSource(padded, config, windows, self.normalizer, folds=[lambda: fold])
        whole = {name: pad_cells(cells, inside, fields.dims(name), False) for name, cells in asked.items()}
        sums = {name: _Sums(cells.shape, config.loss.kind == "nll") for name, cells in whole.items()}
        chosen = [i for i in range(len(windows)) if self._any_asked(padded, windows, i, whole)]
        for part in self._parts(chosen):
            batch = source.collate(part, 0)
            places = {n: [_place(padded, n, windows, i) for i in part] for n in whole}
            cells = {n: torch.from_numpy(np.stack([whole[n][p] for p in places[n]])) for n in whole}
            device = next(self.objective.parameters()).device
            found = self.objective.fill(batch.to(device), {n: c.to(device) for n, c in cells.items()})
            for name, filled in found.items():
                sums[name].add(filled, places[name], _taper(padded, name, windows))
        return {
            name: sums[name].finish(tuple(slice(0, n) for n in asked[name].shape), estimates.get(name))
            for name in asked
        }

    def _any_asked(self, fields: Fields, windows: Windows, index: int, asked: Mapping[str, np.ndarray]) -> bool:
        return any(bool(cells[_place(fields, name, windows, index)].any()) for name, cells in asked.items())

    def _parts(self, chosen: Sequence[int]) -> Iterable[list[int]]:
        parts = [list(chosen[start : start + _AT_ONCE]) for start in range(0, len(chosen), _AT_ONCE)]
        if not self.show:
            return parts
        from rich.console import Console
        from rich.progress import track

        console = Console(stderr=True)
        return track(parts, "filling", console=console, disable=not console.is_terminal)


class _Sums:
    """Weighted sums of what overlapping windows say."""

    def __init__(self, shape: tuple[int, ...], with_spread: bool) -> None:
        self.correction: np.ndarray = np.zeros(shape)
        self.variance = np.zeros(shape) if with_spread else None
        self.weight = np.zeros(shape)

    def add(self, filled: Filled, places: Sequence[tuple[slice, ...]], taper: np.ndarray) -> None:
        for sample, place in enumerate(places):
            self.correction[place] += taper * filled.correction[sample].double().cpu().numpy()
            if self.variance is not None and filled.spread is not None:
                self.variance[place] += taper * filled.spread[sample].double().square().cpu().numpy()
            self.weight[place] += taper

    def finish(self, kept: tuple[slice, ...], estimate: Estimate | None) -> Stitched:
        weight = np.maximum(self.weight[kept], np.finfo(np.float64).tiny)
        scale = 1.0 if estimate is None else estimate.scale
        correction = scale * self.correction[kept] / weight
        spread = None if self.variance is None else scale * np.sqrt(self.variance[kept] / weight)
        base = np.zeros_like(correction) if estimate is None else estimate.base[kept].astype(np.float64)
        background = (
            np.zeros_like(correction) if estimate is None else scale * estimate.known[..., 0][kept].astype(np.float64)
        )
        return Stitched(base, background, correction, spread)


def _place(fields: Fields, name: str, windows: Windows, index: int) -> tuple[slice, ...]:
    boxes = windows.slices(index)
    return tuple(boxes.get(dim, slice(None)) for dim in fields.dims(name))


def _taper(fields: Fields, name: str, windows: Windows) -> np.ndarray:
    """Weight of each cell of a window: the middle counts most, the border least."""
    axes = []
    for dim in fields.dims(name):
        size = windows.sizes.get(dim)
        if size is None:
            axes.append(np.ones(fields.dataset.sizes[dim]))
            continue
        distance = np.minimum(np.arange(size) + 1, size - np.arange(size))
        axes.append(distance / distance.max())
    weight = axes[0]
    for axis in axes[1:]:
        weight = weight[..., None] * axis
    return weight if fields.modalities[name].kind == "image" else weight[..., None]
