"""Weights that a checkpoint keeps in parts: weight normalization is folded, what the file does not explain is named."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

__all__ = ["fold_weight_norm", "still_in_parts"]

_PARAMETRIZATIONS = "parametrizations"
_LEAVES = {"weight_g", "weight_v", "weight_u", "weight_orig", "weight_mask"}  # of torch's older ways
_WEIGHT_NORM = (["original0", "original1"], ["weight_g", "weight_v"])  # magnitude and direction


def fold_weight_norm(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put each magnitude and direction together, as the module does when it runs.

    Both layouts of torch are known: `torch.nn.utils.parametrizations.weight_norm` and the older
    `torch.nn.utils.weight_norm`. The result is bit-equal to the weight that the module uses.

    Args:
        tensors: By name.

    Returns:
        The same with `x.weight` in place of the two parts, for every pair that fits.
    """
    parts = defaultdict(list)
    for name in tensors:
        whole = _whole(name)
        if whole:
            parts[whole].append(name)
    folded = dict(tensors)
    for whole, names in parts.items():
        names.sort()
        if whole in tensors or [name.rpartition(".")[2] for name in names] not in _WEIGHT_NORM:
            continue
        magnitude, direction = (tensors[name] for name in names)
        dim = _dim(magnitude, direction)
        if dim is not None:
            folded[whole] = torch._weight_norm(direction, magnitude, dim)
            for name in names:
                del folded[name]
    return folded


def still_in_parts(names: Iterable[str]) -> list[str]:
    """Return the names that belong to spectral normalization, pruning and other parametrizations."""
    return sorted(name for name in names if _whole(name))


def _whole(name: str) -> str:
    """Return the name of the weight that a tensor is a part of; empty if it is none."""
    parts = name.split(".")
    if _PARAMETRIZATIONS in parts[:-2]:
        place = parts.index(_PARAMETRIZATIONS)
        return ".".join([*parts[:place], parts[place + 1]])
    return ".".join([*parts[:-1], "weight"]) if parts[-1] in _LEAVES else ""


def _dim(magnitude: Tensor, direction: Tensor) -> int | None:
    """Return the dimension that keeps its own magnitudes, -1 for none, or None if the two do not fit."""
    if magnitude.dtype != direction.dtype or not direction.is_floating_point():
        return None
    if magnitude.ndim == 0:
        return -1
    for dim, length in enumerate(direction.shape):
        if list(magnitude.shape) == [1] * dim + [length] + [1] * (direction.ndim - dim - 1):
            return dim
    return None
