"""What is held out of a record: gap-shaped cells, or a stretch of time."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from gridloom.core.errors import DataError
from gridloom.grid.gaps import hide_blocks, hide_cells, hide_frames, mask_digest, transplant_gaps
from gridloom.grid.normalize import Normalizer, fit_normalizer
from gridloom.grid.splits import PARTS, Splits, decorrelation_length, split_blocks
from gridloom.systems.crossmae.config import CrossMAEConfig
from gridloom.systems.crossmae.fields import Fields

__all__ = [
    "HeldOut",
    "fit_normalizers",
    "gaps_change",
    "hide_gaps",
    "hold_out_cells",
    "observed_cells",
    "split_time",
    "without",
]

_VALIDATION_SEED = 1000
_MOST_COLUMNS = 512
_FEW_GAPS = 0.01


@dataclass(frozen=True)
class HeldOut:
    """Cells that are held out, by modality, shaped as its first variable."""

    test: Mapping[str, np.ndarray]
    """For the test."""
    validation: Mapping[str, np.ndarray]
    """For choosing weights and calibrating; none of them is a test cell."""

    def to_json(self, config: CrossMAEConfig) -> dict[str, Any]:
        """What is held out, for the run's record."""
        data = config.data
        digests = {
            part: {name: mask_digest(hidden) for name, hidden in masks.items()}
            for part, masks in (("test", self.test), ("validation", self.validation))
        }
        told = {"split": "cells", "gaps": data.gaps, "seed": data.gap_seed, "share": data.gap_share, "masks": digests}
        return {**told, "sha256": hashlib.sha256(repr(sorted(digests.items())).encode()).hexdigest()}


def observed_cells(fields: Fields, name: str) -> np.ndarray:
    """Where a modality was observed: every feature of it."""
    parts = [np.isfinite(fields.dataset[variable].values) for variable in fields.variables(name)]
    return np.asarray(np.logical_and.reduce(parts))


def hide_gaps(observed: np.ndarray, kind: str, share: float, seed: int) -> np.ndarray:
    """Hide observed cells under gaps of a kind; series [place, time] count as a map of one row."""
    if observed.ndim == 2:
        return hide_gaps(observed.T[:, None, :], kind, share, seed)[:, 0].T.copy()
    if kind == "blocks":
        return hide_blocks(observed, share=share, seed=seed)
    if kind == "frames":
        seen = observed.any(axis=(1, 2))  # times that are hidden already cannot be hidden again
        hidden = np.zeros_like(observed)
        hidden[seen] = hide_frames(observed[seen], share=share, seed=seed)
        return hidden
    if kind == "cells":
        return hide_cells(observed, share=share, seed=seed)
    if not gaps_change(observed):  # of several modalities one may be complete
        return hide_blocks(observed, share=share, seed=seed)
    return transplant_gaps(observed, share=share, seed=seed)


def gaps_change(observed: np.ndarray) -> bool:
    """Whether at least a hundredth of the cells that were ever seen comes and goes; [time, y, x]."""
    return bool((~observed & observed.any(axis=0)).sum() >= _FEW_GAPS * observed.sum())


def hold_out_cells(fields: Fields, config: CrossMAEConfig) -> HeldOut:
    """Choose the cells of test and validation of every modality that is a target."""
    data, test, validation = config.data, {}, {}
    for name, modality in config.modalities.items():
        observed = observed_cells(fields, name)
        if not modality.target:
            test[name] = validation[name] = np.zeros_like(observed)
            continue
        if not observed.any():
            raise DataError(f"modality {name!r}: every cell is missing; leave it out with --data.variables")
        test[name] = hide_gaps(observed, data.gaps, data.gap_share, data.gap_seed)
        rest = observed & ~test[name]
        validation[name] = hide_gaps(rest, data.gaps, data.validation_share, data.gap_seed + _VALIDATION_SEED)
    return HeldOut(test, validation)


def without(fields: Fields, *hidden: Mapping[str, np.ndarray]) -> Fields:
    """The data without some cells."""
    changed: dict[str, xr.DataArray] = {}
    for name in fields.modalities:
        for variable in fields.variables(name):
            values = fields.dataset[variable]
            dropped = np.logical_or.reduce([masks[name] for masks in hidden])
            changed[variable] = values.where(~dropped) if dropped.any() else values
    return replace(fields, dataset=fields.dataset.assign(changed))


def split_time(fields: Fields, config: CrossMAEConfig) -> Splits:
    """Stretches of time with gaps between them: the larger of one window and the decorrelation length."""
    size = fields.dataset.sizes[fields.time]
    provisional = split_blocks(size, dim=fields.time, fractions=config.data.fractions, window=config.data.window[0])
    low, high = provisional.parts[PARTS[0]]
    training = fields.dataset.isel({fields.time: slice(low, high)})
    lengths = [decorrelation_length(_columns(values, fields.time), 0) for values in training.data_vars.values()]
    return split_blocks(
        size,
        dim=fields.time,
        fractions=config.data.fractions,
        window=config.data.window[0],
        decorrelation=min(max(lengths), size // 10),
    )


def _columns(values: xr.DataArray, time: str) -> np.ndarray:
    """Some series of a variable, [time, cells]."""
    flat = values.transpose(time, ...).values.reshape(values.sizes[time], -1)
    known = np.flatnonzero(np.isfinite(flat).any(0))
    return np.asarray(flat[:, known[:: max(1, len(known) // _MOST_COLUMNS)]])


def fit_normalizers(fields: Fields, config: CrossMAEConfig) -> Normalizer:
    """Fitted on the training part; static attributes are standardized over the places."""
    steps = dict(fit_normalizer(fields.dataset, kinds=config.data.normalize).steps)
    if fields.static is not None and fields.static.dims:
        steps |= fit_normalizer(fields.static).steps
    elif fields.static is not None:
        steps |= {str(name): () for name in fields.static.data_vars}
    return Normalizer(steps)
