"""Filling in a configuration what only the data can tell."""

import logging
from dataclasses import replace
from typing import Literal

from gridloom.core.errors import DataError
from gridloom.systems.crossmae.background import fit_backgrounds, order_backgrounds
from gridloom.systems.crossmae.config import CrossMAEConfig, MaskingConfig
from gridloom.systems.crossmae.fields import Fields, open_modalities
from gridloom.systems.crossmae.holdout import fit_normalizers, gaps_change, hold_out_cells, observed_cells, without

__all__ = ["resolve"]

_LOGGER = logging.getLogger(__name__)


def resolve(config: CrossMAEConfig) -> CrossMAEConfig:
    """Fill in modalities, sizes, windows and the number of static attributes from the data."""
    fields = open_modalities(config.data.path, config.data, config.modalities)
    images = [name for name, modality in fields.modalities.items() if modality.kind == "image"]
    rows, columns = fields.modalities[images[0]].size if images else (1, 1)
    for name in images:
        if fields.modalities[name].size != (rows, columns):
            raise DataError(
                f"images of different sizes: {images[0]} has {rows} x {columns} cells, {name} has "
                f"{fields.modalities[name].size}; bring them to one grid first"
            )
    axes = (fields.dataset.sizes[fields.time], rows, columns)
    times, high, wide = (min(size, axis) or axis for size, axis in zip(config.data.window, axes, strict=True))
    window = (times, high, wide)
    if len(images) < len(fields.modalities) and images and window[1:] != axes[1:]:
        raise DataError(
            f"windows in space need images alone, these data have series too; use --data.window {window[0]} 0 0"
        )
    stride = [step or max(1, size // 2) for step, size in zip(config.data.stride, window, strict=True)]
    modalities = {
        name: replace(modality, size=(high, wide) if modality.kind == "image" else modality.size)
        for name, modality in fields.modalities.items()
    }
    for name, modality in modalities.items():
        known = config.modalities.get(name)
        if known is not None and known.size not in ((0, 0), modality.size):
            raise DataError(f"modality {name!r}: the configuration says {known.size} cells, the data {modality.size}")
    static_dim = len(fields.static.data_vars) if fields.static is not None else 0
    if config.static_dim not in (0, static_dim):
        raise DataError(f"the configuration says {config.static_dim} static attributes, the data {static_dim}")
    gaps = _gaps(fields) if config.data.gaps in ("auto", "real") else config.data.gaps
    if config.data.gaps == "real" != gaps:
        raise DataError("data.gaps real needs gaps that change in time, these data have none; use --data.gaps blocks")
    resolved = replace(
        config,
        data=replace(config.data, gaps=gaps, window=window, stride=(stride[0], stride[1], stride[2])),
        modalities=modalities,
        static_dim=static_dim,
    )
    return _with_backgrounds(resolved, fields) if config.background.kinds else resolved


def _gaps(fields: Fields) -> Literal["blocks", "real"]:
    """Real gaps where those of any modality change in time."""
    for name, modality in fields.modalities.items():
        observed = observed_cells(fields, name)
        if gaps_change(observed if modality.kind == "image" else observed.T[:, None, :]):
            return "real"
    return "blocks"


def _with_backgrounds(config: CrossMAEConfig, fields: Fields) -> CrossMAEConfig:
    """Fit the backgrounds that were not fitted yet, on the training cells."""
    if config.masking != MaskingConfig(predict=config.masking.predict):
        _LOGGER.warning("with a background, data.gaps and data.gap_share say what is hidden: masking is not looked at")
    targets = {n for n, modality in config.modalities.items() if modality.kind == "image" and modality.target}
    if targets <= set(config.background.fitted):
        return config
    held_out = hold_out_cells(fields, config)
    training = without(fields, held_out.test, held_out.validation)
    found = fit_backgrounds(config, training, fit_normalizers(training, config))
    config = replace(config, background=replace(config.background, fitted=found))
    if len(config.background.kinds) == 1:
        return config
    kinds = order_backgrounds(config, training, fields, held_out.validation, fit_normalizers(training, config))
    return replace(config, background=replace(config.background, kinds=kinds))
