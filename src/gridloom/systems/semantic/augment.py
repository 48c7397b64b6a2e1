"""Views of a window for self-supervised learning: moved, scaled, noisy, partly hidden; all draws from the sample's key.

Only what leaves the meaning of a gridded field alone: a small affine movement, a smooth distortion, gain and offset in
normalized units, noise, and holes. Missing cells take part in nothing: a moved cell is known where most of what it is
drawn from is, and its value is the mean of that; holes are told as missing, not as zeros.
"""

import math

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F

from gridloom.core.batch import Field
from gridloom.core.random import normal, permutation, uniform
from gridloom.systems.semantic.config import AugmentConfig

__all__ = ["augment", "flip_at_random", "hide_blocks"]

_MOSTLY = 0.5
"""Share of the weight of a moved cell that must come from known cells."""
_WARP_NODES = 4
"""Places along each axis at which a distortion is drawn; in between it is interpolated."""


def augment(image: Field, key: Int64[Tensor, " batch"], config: AugmentConfig, view: str) -> Field:
    """Return a view of each window.

    Args:
        image: Normalized field [batch, channel, y, x].
        key: Keys of the samples.
        config: How strong.
        view: Name of the view; views of other names are drawn independently.
    """
    image = Field(values=image.values, valid=image.valid.expand_as(image.values))
    if config.flip:
        image = flip_at_random(image, key, f"{view} flip")
    if config.zoom > 1 or config.shift or config.rotate or config.warp:
        image = _move(image, key, config, view)
    values = image.values
    per_field = (-1, *[1] * (values.ndim - 1))
    if config.gain:
        gain = torch.exp(config.gain * normal(key, (), f"{view} gain"))
        values = values * gain.view(per_field)
    if config.offset:
        values = values + config.offset * normal(key, (), f"{view} offset").view(per_field)
    if config.noise:
        values = values + config.noise * normal(key, tuple(values.shape[1:]), f"{view} noise")
    moved = Field(values=torch.where(image.valid, values, 0.0), valid=image.valid)
    return hide_blocks(moved, key, config.hide, config.hide_block, f"{view} holes")


def flip_at_random(image: Field, key: Int64[Tensor, " batch"], stream: str) -> Field:
    """Flip each sample up-down, left-right, both or not."""
    flips = uniform(key, (2,), stream) < 0.5

    def flip(tensor: Tensor) -> Tensor:
        for place, axis in enumerate((-2, -1)):
            chosen = flips[:, place].view(-1, *[1] * (tensor.ndim - 1))
            tensor = torch.where(chosen, tensor.flip(axis), tensor)
        return tensor

    return image.apply(flip)


def hide_blocks(image: Field, key: Int64[Tensor, " batch"], share: float, block: int, stream: str) -> Field:
    """Hide a share of the blocks of each window, in all channels alike: they become missing.

    Args:
        image: Field [batch, channel, y, x].
        key: Keys of the samples.
        share: Share of the blocks, rounded to whole blocks.
        block: Cells of a block along each axis; the last ones may be cut off by the border.
        stream: Name of the draw.
    """
    height, width = image.values.shape[-2:]
    rows, columns = math.ceil(height / block), math.ceil(width / block)
    count = round(share * rows * columns)
    if count == 0:
        return image
    chosen = torch.zeros(len(key), rows * columns, dtype=torch.bool, device=key.device)
    chosen.scatter_(1, permutation(key, rows * columns, stream)[:, :count], True)
    hidden: Bool[Tensor, "batch 1 y x"] = chosen.view(-1, 1, rows, columns)
    hidden = hidden.repeat_interleave(block, -2).repeat_interleave(block, -1)[..., :height, :width]
    valid = image.valid & ~hidden
    return Field(values=torch.where(valid, image.values, 0.0), valid=valid)


def _move(image: Field, key: Int64[Tensor, " batch"], config: AugmentConfig, view: str) -> Field:
    """Zoom in, rotate, shift and distort by bilinear interpolation over the known cells."""
    height, width = image.values.shape[-2:]
    where = _affine(key, config, view, width / height)
    grid = F.affine_grid(where, list(image.values.shape), align_corners=False).to(image.values.dtype)
    if config.warp:
        draws = 2 * uniform(key, (2, _WARP_NODES, _WARP_NODES), f"{view} warp") - 1
        smooth = F.interpolate(draws, size=(height, width), mode="bicubic", align_corners=True)
        grid = grid + 2 * config.warp * smooth.movedim(1, -1).to(grid.dtype)
    known = image.valid.to(image.values.dtype)

    def sample(tensor: Tensor) -> Tensor:
        return F.grid_sample(tensor, grid, mode="bilinear", padding_mode="zeros", align_corners=False)

    weight = sample(known)
    valid = weight > _MOSTLY
    values = sample(image.values * known) / weight.clamp(min=1e-6)
    return Field(values=torch.where(valid, values, 0.0), valid=valid)


def _affine(
    key: Int64[Tensor, " batch"], config: AugmentConfig, view: str, aspect: float
) -> Float[Tensor, "batch 2 3"]:
    """From places of the view to places of the window, both from -1 to 1.

    Args:
        key: Keys of the samples.
        config: How strong.
        view: Name of the view.
        aspect: Width over height, so that a rotation is one in cells.
    """
    draws = 2 * uniform(key, (4,), f"{view} place", dtype=torch.float64) - 1
    scale = torch.exp(-math.log(config.zoom) * (draws[:, 0] + 1) / 2)
    angle = math.radians(config.rotate) * draws[:, 1]
    cosine, sine = scale * torch.cos(angle), scale * torch.sin(angle)
    # What a zoom leaves over may be anywhere in the window; a shift goes beyond it.
    room = (1 - scale)[:, None] + 2 * config.shift
    shift = room * draws[:, 2:]
    rows = [
        torch.stack([cosine, -sine / aspect, shift[:, 0]], 1),
        torch.stack([sine * aspect, cosine, shift[:, 1]], 1),
    ]
    return torch.stack(rows, 1).float()
