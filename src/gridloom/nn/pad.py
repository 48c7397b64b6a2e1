"""Maps of any size for pyramids, which halve sizes without a rest; also while torch exports for sizes not known yet."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

__all__ = ["crop", "pad_to_multiple"]


def pad_to_multiple(
    values: Float[Tensor, "batch channel y x"], multiple: int, *, mode: Literal["replicate", "constant"] = "replicate"
) -> Float[Tensor, "batch channel rows columns"]:
    """Lengthen both axes at their ends to the next multiple.

    Args:
        values: Maps.
        multiple: At least 1.
        mode: The added cells repeat the last one, or are 0.
    """
    height, width = values.shape[-2:]
    if not torch.compiler.is_exporting():
        padding = (0, -width % multiple, 0, -height % multiple)
        return F.pad(values, padding, mode=mode) if any(padding) else values
    # F.pad by an amount that depends on the size becomes a fixed amount in an ONNX file. And from sizes written this
    # way torch can tell that all halves are whole, so that no size becomes a case of its own.
    for axis, size in ((-2, height), (-1, width)):
        place = torch.arange(multiple * ((size + multiple - 1) // multiple), device=values.device)
        values = values.index_select(axis, place.clamp(max=size - 1))
        if mode == "constant":
            values = values * (place < size)[(..., None) if axis == -2 else ...]
    return values


def crop(
    values: Float[Tensor, "batch channel rows columns"], like: Float[Tensor, "batch any y x"]
) -> Float[Tensor, "batch channel y x"]:
    """The first rows and columns.

    Args:
        values: Maps.
        like: As many are kept as this has: it is what `pad_to_multiple` was given.
    """
    height, width = like.shape[-2:]
    if not torch.compiler.is_exporting():
        return values[..., :height, :width]
    for axis, kept in ((-2, height), (-1, width)):
        values = values.index_select(axis, torch.arange(kept, device=values.device))
    return values
