"""Warps by a flow as others do them, and the specification's listing: what the benchmarks compare with."""

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["built_grid", "half_grid", "kornia_remap", "mixed_corners", "seed_fused"]


def built_grid(values: Tensor, flow: Tensor, mode: str = "bilinear") -> Tensor:
    """As the public video models do it: flow [B, H, W, 2], a grid built in every call, 2x/(W-1)-1, zeros outside."""
    height, width = values.shape[-2:]
    rows, columns = torch.meshgrid(torch.arange(height).to(flow), torch.arange(width).to(flow), indexing="ij")
    places = torch.stack((columns, rows), 2) + flow
    across = 2.0 * places[..., 0] / max(width - 1, 1) - 1.0
    down = 2.0 * places[..., 1] / max(height - 1, 1) - 1.0
    return F.grid_sample(
        values, torch.stack((across, down), dim=3), mode=mode, padding_mode="zeros", align_corners=True
    )


def mixed_corners(values: Tensor, flow: Tensor) -> Tensor:
    """The same with grid_sample's default of `align_corners`, which does not belong to 2x/(W-1)-1; seen in three."""
    height, width = values.shape[-2:]
    rows, columns = torch.meshgrid(torch.arange(height).to(flow), torch.arange(width).to(flow), indexing="ij")
    places = torch.stack((columns, rows), 2) + flow
    across = 2.0 * places[..., 0] / max(width - 1, 1) - 1.0
    down = 2.0 * places[..., 1] / max(height - 1, 1) - 1.0
    return F.grid_sample(values, torch.stack((across, down), dim=3), align_corners=False)


def half_grid(values: Tensor, flow: Tensor) -> Tensor:
    """Everything in the type of the values, as some do who run in half precision."""
    return built_grid(values, flow.to(values.dtype))


def kornia_remap(values: Tensor, flow: Tensor, *, align_corners: bool | None = None) -> Tensor:
    """`kornia.geometry.transform.remap` on absolute places; flow [B, H, W, 2]. None is its default."""
    from kornia.geometry.transform import remap

    height, width = values.shape[-2:]
    across = flow[..., 0] + torch.arange(width, dtype=flow.dtype)
    down = flow[..., 1] + torch.arange(height, dtype=flow.dtype)[:, None]
    return remap(values, across, down, align_corners=align_corners)


def seed_fused(previous: Tensor, current: Tensor, flow: Tensor, alpha: float) -> Tensor:
    """The specification's formulas to the letter, with a refiner that still is the identity."""
    height, width = current.shape[-2:]
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    grid = torch.stack([columns + flow[:, 0] / (width / 2.0), rows + flow[:, 1] / (height / 2.0)], dim=-1)
    warped = F.grid_sample(previous, grid, mode="bilinear", padding_mode="zeros", align_corners=True)
    return alpha * warped + (1.0 - alpha) * current
