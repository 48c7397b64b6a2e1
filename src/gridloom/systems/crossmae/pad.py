"""Records that are shorter or smaller than a window: missing cells at the end."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from gridloom.systems.crossmae.config import CrossMAEConfig
from gridloom.systems.crossmae.estimate import Estimate
from gridloom.systems.crossmae.fields import Fields

__all__ = ["pad_cells", "pad_estimate", "pad_to_window"]


def pad_to_window(fields: Fields, config: CrossMAEConfig) -> tuple[Fields, Mapping[str, int]]:
    """Missing cells at the end of axes that are shorter than a window; how long each of them was."""
    images = [name for name, modality in fields.modalities.items() if modality.kind == "image"]
    dims = fields.dims(images[0]) if images else (fields.time,)
    sizes = dict(zip(dims, config.data.window, strict=False))
    own = {str(dim): int(size) for dim, size in fields.dataset.sizes.items()}
    longer = {dim: max(own[dim], sizes.get(dim, 0)) for dim in own}
    if longer == own:
        return fields, longer
    index = {dim: np.minimum(np.arange(longer[dim]), own[dim] - 1) for dim in own if longer[dim] > own[dim]}
    repeated = fields.dataset.isel(index)
    changed = {}
    for variable, values in repeated.data_vars.items():
        inside = np.ones(values.shape, bool)
        for axis, dim in enumerate(values.dims):
            shape = [-1 if a == axis else 1 for a in range(values.ndim)]
            inside &= (np.arange(values.sizes[dim]) < own[str(dim)]).reshape(shape)
        changed[variable] = values.where(inside)
    return replace(fields, dataset=repeated.assign(changed)), longer


def pad_cells(cells: np.ndarray, longer: Mapping[str, int], dims: Sequence[str], value: bool | float) -> np.ndarray:
    """Lengthen an array as the record was; further axes stay."""
    widths = [(0, longer[dim] - size) for dim, size in zip(dims, cells.shape, strict=False)]
    widths += [(0, 0)] * (cells.ndim - len(widths))
    return np.pad(cells, widths, constant_values=value) if any(after for _, after in widths) else cells


def pad_estimate(estimate: Estimate, longer: Mapping[str, int], dims: Sequence[str]) -> Estimate:
    """Lengthen an estimate as the record was."""
    return Estimate(
        pad_cells(estimate.base, longer, dims, 0.0), estimate.scale, pad_cells(estimate.known, longer, dims, 0.0)
    )
