"""A loss that keeps edges sharp."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from gridloom.core.batch import masked_mean

__all__ = ["edge_loss", "sobel"]


def sobel(z: Float[Tensor, "batch channel y x"]) -> Float[Tensor, "batch channel two y x"]:
    """Derivatives along x and y by the Sobel kernels, divided by 8: change by cell. The border repeats itself."""
    smooth, slope = z.new_tensor([1.0, 2.0, 1.0]), z.new_tensor([-1.0, 0.0, 1.0])
    kernels = torch.stack([torch.outer(smooth, slope), torch.outer(slope, smooth)]) / 8.0
    batch, channels, height, width = z.shape
    padded = F.pad(z, (1, 1, 1, 1), mode="replicate").reshape(batch * channels, 1, height + 2, width + 2)
    return F.conv2d(padded, kernels[:, None]).reshape(batch, channels, 2, height, width)


def edge_loss(
    warped: Float[Tensor, "batch channel y x"],
    current: Float[Tensor, "batch channel y x"],
    valid: Bool[Tensor, "batch 1 y x"],
) -> Float[Tensor, " batch"]:
    """Mean absolute difference of the derivatives, where the whole neighborhood of a cell is valid.

    Cells that come into view have other edges than anything before them; asking for the old ones there would blur or
    ghost, so that they are left out.

    Args:
        warped: The past, moved onto the current frame (or the fused latent).
        current: What its edges should be.
        valid: Where the past says something about the current frame.
    """
    whole = F.max_pool2d((~valid).to(warped.dtype), kernel_size=3, stride=1, padding=1) == 0
    difference = (sobel(warped) - sobel(current)).abs()
    return masked_mean(difference, whole[:, :, None].expand_as(difference))
