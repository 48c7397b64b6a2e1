"""The lowest frequencies of a square picture: the two-dimensional discrete cosine transform, in part."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["cosine_basis"]


def cosine_basis(size: int, count: int, *, points: int | None = None) -> Float[Tensor, "count cells"]:
    """The cosine functions of lowest frequency on a square, DCT-II, orthonormal on `size` x `size` cells.

    Args:
        size: Cells along each axis on which they are orthonormal.
        count: How many functions, at most `size` squared; in rising order of frequency.
        points: Cells along each axis on which they are evaluated, over the same square; None for `size`.

    Returns:
        One function per row, cells in row-major order.
    """
    if not 1 <= count <= size * size:
        raise ValueError(f"count must be between 1 and size squared ({size * size}), got {count}")
    cells = size if points is None else points
    place = (torch.arange(cells, dtype=torch.float64) + 0.5) / cells
    frequency = torch.arange(size, dtype=torch.float64)
    scale = torch.where(frequency == 0, math.sqrt(1 / size), math.sqrt(2 / size))
    along = scale[:, None] * torch.cos(math.pi * frequency[:, None] * place)
    order = torch.argsort((frequency[:, None].square() + frequency.square()).flatten(), stable=True)[:count]
    rows, columns = order // size, order % size
    return (along[rows, :, None] * along[columns, None, :]).flatten(1).float()
