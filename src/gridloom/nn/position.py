"""Fixed sine and cosine embeddings of positions (Vaswani et al. 2017, section 3.5)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from gridloom.core.errors import ConfigError

__all__ = ["sine_cosine", "sine_cosine_2d"]


def sine_cosine(positions: Float[Tensor, " length"], dim: int, *, longest: float = 10000.0) -> Tensor:
    """Embed positions on a line.

    Args:
        positions: In any unit; neighbors should differ by about 1.
        dim: Width, a multiple of 2: sines first, then cosines.
        longest: Wavelength of the slowest, over 2 pi.

    Returns:
        [length, dim].
    """
    if dim < 2 or dim % 2:
        raise ConfigError(f"dim must be a multiple of 2, got {dim}")
    numbers = torch.arange(dim // 2, dtype=torch.float64, device=positions.device)
    rates = torch.exp(-math.log(longest) * numbers / (dim // 2))
    angles = positions.double()[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()


def sine_cosine_2d(rows: int, columns: int, dim: int) -> Float[Tensor, "places dim"]:
    """Embed the places of a grid, row by row: half of the width for the row, half for the column.

    Args:
        rows: Places down.
        columns: Places across.
        dim: Width, a multiple of 4.
    """
    if dim < 4 or dim % 4:
        raise ConfigError(f"dim must be a multiple of 4, got {dim}")
    down = sine_cosine(torch.arange(rows, dtype=torch.float32), dim // 2)
    across = sine_cosine(torch.arange(columns, dtype=torch.float32), dim // 2)
    both = [down[:, None].expand(-1, columns, -1), across[None].expand(rows, -1, -1)]
    return torch.cat(both, dim=-1).flatten(0, 1)
