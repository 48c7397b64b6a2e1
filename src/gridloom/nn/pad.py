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
    # From sizes written this way torch can tell that all halves are whole, and no size needs a condition of its own.
    for axis, size in ((-2, height), (-1, width)):
        place = torch.arange(multiple * ((size + multiple - 1) // multiple), device=values.device)
        values = values.index_select(axis, place.clamp(max=size - 1))
        if mode == "constant":
            values = values * (place < size)[(..., None) if axis == -2 else ...]
    return values


def crop(
    values: Float[Tensor, "batch channel rows columns"], size: tuple[int, int]
) -> Float[Tensor, "batch channel y x"]:
    """The first rows and columns: what `pad_to_multiple` was given.

    Args:
        values: Maps.
        size: Rows and columns to keep.
    """
    if not torch.compiler.is_exporting():
        return values[..., : size[0], : size[1]]
    for axis, kept in ((-2, size[0]), (-1, size[1])):
        values = values.index_select(axis, torch.arange(kept, device=values.device))
    return values
