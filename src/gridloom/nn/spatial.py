"""Coordinates of cells: as planes for a convolution, and as the expectation over a feature map."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["CoordConv", "SpatialSoftArgmax", "axis_coordinates"]

_LEAST_DEVIATION = 1e-6


def axis_coordinates(
    size: int, *, dtype: torch.dtype = torch.float32, device: torch.device | None = None
) -> Float[Tensor, " size"]:
    """Coordinates 2i/(n-1) - 1 of the n cells of an axis, from -1 to 1; 0 for a single cell.

    Made from `arange`, so that models export with dynamic sizes.
    """
    if size == 1:
        return torch.zeros(1, dtype=dtype, device=device)
    return 2.0 * torch.arange(size, dtype=dtype, device=device) / (size - 1) - 1.0


class CoordConv(nn.Module):
    """Puts two planes in front of a picture: row coordinate, column coordinate, each from -1 to 1.

    Liu et al. 2018, arXiv 1807.03247.
    """

    def forward(self, x: Float[Tensor, "batch channel y x"]) -> Float[Tensor, "batch channel2 y x"]:
        """Return the picture with two channels more."""
        batch, _, height, width = x.shape
        rows = axis_coordinates(height, dtype=x.dtype, device=x.device)[:, None].expand(height, width)
        columns = axis_coordinates(width, dtype=x.dtype, device=x.device).expand(height, width)
        planes = torch.stack([rows, columns]).expand(batch, 2, height, width)
        return torch.cat([planes, x], dim=1)


class SpatialSoftArgmax(nn.Module):
    """Expected position in each feature map under the softmax of its values (Levine et al. 2016, arXiv 1504.00702).

    Args:
        sharpen: Standardize each map of each sample and multiply by a learned gain, so that what stands out in a map
            decides its position from the first step, however small its values are. Plain softmax otherwise.
    """

    def __init__(self, *, sharpen: bool = False) -> None:
        super().__init__()
        self.log_gain = nn.Parameter(torch.zeros(())) if sharpen else None

    def weights(self, x: Float[Tensor, "batch channel y x"]) -> Float[Tensor, "batch channel y x"]:
        """The softmax over the positions of each map."""
        flat = x.flatten(2)
        if self.log_gain is not None:
            deviation, mean = torch.std_mean(flat, dim=-1, keepdim=True, correction=0)
            flat = (flat - mean) * (self.log_gain.exp() / deviation.clamp(min=_LEAST_DEVIATION))
        return flat.softmax(-1).view_as(x)

    def forward(self, x: Float[Tensor, "batch channel y x"]) -> Float[Tensor, "batch features"]:
        """Return `[row0, column0, row1, column1, ...]` for each sample, each from -1 to 1."""
        weights = self.weights(x)
        rows = axis_coordinates(x.shape[2], dtype=x.dtype, device=x.device)
        columns = axis_coordinates(x.shape[3], dtype=x.dtype, device=x.device)
        # The marginals first: two small products instead of two large ones.
        expected = torch.stack([weights.sum(3) @ rows, weights.sum(2) @ columns], dim=-1)
        return expected.flatten(1)
