"""The warp of the first specification, to the letter, for comparison."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

__all__ = ["warp_seed"]


def warp_seed(
    z: Float[Tensor, "batch channel y x"], flow: Float[Tensor, "batch 2 y x"]
) -> Float[Tensor, "batch channel y x"]:
    """The first specification's warp to the letter: `grid + (dx / (W/2), dy / (H/2))`, `align_corners=True`, zeros.

    Two things are wrong with it. Offsets from the previous frame to the current one are used as if they led back, which
    moves content the wrong way; and they fall short by d / W cells. It is here for comparison.
    """
    height, width = z.shape[2:]
    y, x = torch.meshgrid(
        torch.linspace(-1, 1, height, device=z.device), torch.linspace(-1, 1, width, device=z.device), indexing="ij"
    )
    offset = flow.float() / torch.tensor([width / 2.0, height / 2.0], device=z.device).view(1, 2, 1, 1)
    grid = torch.stack([x, y]) + offset
    sampled = F.grid_sample(
        z.float(), grid.permute(0, 2, 3, 1), mode="bilinear", padding_mode="zeros", align_corners=True
    )
    return sampled.to(z.dtype)
