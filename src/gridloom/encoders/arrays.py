"""Arrays from anywhere to fields that an encoder takes: float32 [N, C, H, W], NaN where missing, each on its own."""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float32

from gridloom.core.errors import DataError

__all__ = ["TRAINING_RANGE", "MissingPolicy", "as_fields", "handle_missing", "scale_by_own_range"]

MissingPolicy = Literal["mask", "raise", "fill"]

TRAINING_RANGE = (-1.0, 1.0)
"""Range to which a field is scaled where its weights came without training statistics."""

Fields = Float32[np.ndarray, "n channel y x"]


def as_fields(array: np.ndarray, *, channels: int, variables: Sequence[str] = ()) -> Fields:
    """Bring an array into shape; masked and infinite cells become NaN.

    Args:
        array: `[H, W]`, `[N, H, W]` or `[N, C, H, W]`, any number type, byte order or memory layout.
        channels: Channels that are expected.
        variables: Their names, for messages.

    Raises:
        DataError: Not numbers, another number of dimensions or channels.
    """
    plain = np.asarray(array)
    if plain.dtype.kind not in "fiub":
        raise DataError(f"expected numbers, got dtype {plain.dtype}; convert it first")
    if plain.ndim not in (2, 3, 4):
        raise DataError(f"expected [H, W], [N, H, W] or [N, C, H, W], got {plain.ndim} dimensions {plain.shape}")
    if (plain.shape[1] if plain.ndim == 4 else 1) != channels:
        names = f" ({', '.join(variables)})" if variables else ""
        raise DataError(f"expected {channels} channels{names}: [N, {channels}, H, W], got {plain.shape}")
    with np.errstate(over="ignore"):
        values = np.array(plain, dtype=np.float32, order="C")
    values[~np.isfinite(values)] = np.nan
    if isinstance(array, np.ma.MaskedArray):
        values[np.ma.getmaskarray(array)] = np.nan
    return values.reshape((1, 1, *values.shape) if plain.ndim == 2 else (len(values), channels, *values.shape[-2:]))


def handle_missing(fields: Fields, policy: MissingPolicy, fill_value: float) -> Fields:
    """Leave missing cells, refuse them, or fill them.

    Raises:
        DataError: Another policy, or missing cells with `raise`.
    """
    if policy not in ("mask", "raise", "fill"):
        raise DataError(f"missing must be 'mask', 'raise' or 'fill', got {policy!r}")
    if policy == "mask":
        return fields
    absent = np.isnan(fields)
    if policy == "raise" and absent.any():
        raise DataError(f"{int(absent.sum())} of {absent.size} cells are missing; pass missing='mask' or 'fill'")
    return np.where(absent, np.float32(fill_value), fields)


def scale_by_own_range(fields: Fields) -> Fields:
    """Scale each field to [-1, 1] by its own valid minimum and maximum; a constant one becomes 0."""
    low, high = TRAINING_RANGE
    flat = fields.reshape(len(fields), math.prod(fields.shape[1:])).astype(np.float64)
    present = ~np.isnan(flat)
    least = np.where(present, flat, np.inf).min(1, keepdims=True, initial=np.inf)
    most = np.where(present, flat, -np.inf).max(1, keepdims=True, initial=-np.inf)
    spread = np.where(most > least, most - np.where(np.isfinite(least), least, 0.0), np.nan)
    constant = np.isnan(spread)
    scaled = low + (high - low) * (flat - np.where(constant, 0.0, least)) / np.where(constant, 1.0, spread)
    scaled = np.where(constant & present, 0.0, scaled)
    return scaled.reshape(fields.shape).astype(np.float32)
