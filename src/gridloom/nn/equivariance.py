"""Does an encoder move with what it sees? The warp gap says how far it doesn't, the loss makes it.

Whoever warps latents by a flow (and fuses, predicts or interpolates them) takes for granted that the latent of a moved
frame is the moved latent of the frame. Encoders with a stride do that for whole cells alone: in between, detail within
a cell aliases. Zhou et al. 2025 (arXiv 2503.09419) train the autoencoder of a latent diffusion model for it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F

from gridloom.core.batch import Field, masked_mean
from gridloom.core.errors import DataError
from gridloom.core.random import uniform
from gridloom.nn.warp import Interpolation, inside, rescale_flow, warp

__all__ = ["WarpGap", "equivariance_error", "equivariance_loss", "move", "random_motion", "warp_gap"]

Encode = Callable[[Tensor], Tensor]

_MOSTLY = 0.5
"""A cell of the latent is known where more than this share of what it covers is."""
_MOSTLY_SEEN = 0.75
"""A cell of the latent is not occluded where at least this share of what it covers is seen in both frames."""
_FLOOR = 1e-4
"""Least variance of a latent, as a share of its mean square: a flat field has nothing to be told apart by."""
_SILENT = 1e-30
"""Stands for a variance or an error of 0, which has no decibels."""


@dataclass(frozen=True, kw_only=True)
class WarpGap:
    """How well the latent of the current frame is predicted from the previous frame.

    Each figure is the mean squared error over the variance of the current latents about the means of their channels,
    in dB: 0 is as good as knowing the means, less is better.

    Attributes:
        none: The previous latent as it is.
        latent: The previous latent, warped.
        frames: The latent of the warped previous frame, what warping could reach at best.
        coverage: Share of the cells that were scored.
    """

    none: float
    latent: float
    frames: float
    coverage: float

    @property
    def gap(self) -> float:
        """What it costs to warp latents instead of frames, in dB; 0 for an equivariant encoder."""
        return self.latent - self.frames


@torch.no_grad()
def warp_gap(
    encode: Encode,
    frames_prev: Float[Tensor, "batch channel height width"],
    frames_cur: Float[Tensor, "batch channel height width"],
    flow: Float[Tensor, "batch 2 height width"],
    *,
    stride: int,
    valid: Bool[Tensor, "batch 1 height width"] | None = None,
    mode: Interpolation = "bilinear",
    per_channel: bool = False,
) -> WarpGap:
    """Score an encoder on pairs of frames whose motion is known.

    Args:
        encode: From frames to latents [batch, latent, height / stride, width / stride].
        frames_prev: Previous frames.
        frames_cur: Current frames.
        flow: Offsets (dx, dy) in cells of the frames from the current to the previous one.
        stride: Cells of a frame for one of the latent, along each axis.
        valid: False where a cell of the current frame is occluded in the previous one; samples beyond the frame are
            left out anyway. A cell of the latent counts where at least three quarters of what it covers do.
        mode: Interpolation of frames and latents.
        per_channel: Take each channel's error over its own variance, and the mean of these: a channel that is loud and
            easy then hides no other.

    Raises:
        DataError: Latents of another size than the stride says, or no cell to score.
    """
    before, now = encode(frames_prev), encode(frames_cur)
    size = (now.shape[-2], now.shape[-1])
    if (size[0] * stride, size[1] * stride) != tuple(frames_cur.shape[-2:]):
        raise DataError(
            f"frames of {list(frames_cur.shape[-2:])} cells and stride {stride}, but latents of {list(size)}; "
            f"give the encoder's stride, and frames whose sizes are multiples of it"
        )
    seen = inside(flow) if valid is None else inside(flow) & valid
    coarse = rescale_flow(flow, size)
    chosen = (F.adaptive_avg_pool2d(seen.float(), size) >= _MOSTLY_SEEN) & inside(coarse)
    if not bool(chosen.any()):
        raise DataError("no cell of the latents is seen in both frames: nothing to score")
    guesses = {
        "none": before,
        "latent": warp(before, coarse, mode=mode),
        "frames": encode(warp(frames_prev, flow, mode=mode)),
    }
    errors = {name: _decibel(guess, now, chosen, per_channel) for name, guess in guesses.items()}
    return WarpGap(**errors, coverage=float(chosen.float().mean()))


def _decibel(guess: Tensor, truth: Tensor, chosen: Tensor, per_channel: bool) -> float:
    """Mean squared error over variance, over the chosen cells of all samples."""
    flat_guess, flat_truth = (x.double().movedim(1, -1)[chosen[:, 0]] for x in (guess, truth))
    error = (flat_guess - flat_truth).square().mean(0)
    variance = flat_truth.var(0, correction=0)
    parts = error / variance.clamp(min=_SILENT) if per_channel else error.mean() / variance.mean().clamp(min=_SILENT)
    return 10.0 * math.log10(max(float(parts.mean()), _SILENT))


def random_motion(
    key: Int64[Tensor, " batch"],
    size: tuple[int, int],
    *,
    shift: int,
    rotate: float = 0.0,
    zoom: float = 1.0,
    stream: str = "motion",
) -> Float[Tensor, "batch 2 height width"]:
    """Draw a flow for each sample: a shift by whole cells, and with `rotate` or `zoom` those about the middle.

    A shift by whole cells of the frame needs no interpolation there, and is a part of a cell of the latent.

    Args:
        key: Keys of the samples.
        size: Height and width of the frame.
        shift: Largest shift in cells of the frame, either way; half the encoder's stride has all that whole cells of
            the latent leave.
        rotate: Largest rotation in degrees, either way.
        zoom: Largest magnification or reduction, 1 or more.
        stream: Name of the draw.

    Returns:
        Offsets (dx, dy) in cells of the frame to where each cell is drawn from.
    """
    draws = uniform(key, (4,), stream, dtype=torch.float64)
    offset = torch.floor(draws[:, :2] * (2 * shift + 1)) - shift
    height, width = size
    across = torch.arange(width, dtype=torch.float64, device=key.device) - (width - 1) / 2
    down = torch.arange(height, dtype=torch.float64, device=key.device) - (height - 1) / 2
    angle = math.radians(rotate) * (2 * draws[:, 2] - 1)
    scale = torch.exp(math.log(zoom) * (2 * draws[:, 3] - 1))
    cosine, sine = ((scale * turn(angle)).view(-1, 1, 1) for turn in (torch.cos, torch.sin))
    x, y = across.expand(height, width), down[:, None].expand(height, width)
    flow = torch.stack([(cosine - 1) * x - sine * y, sine * x + (cosine - 1) * y], 1)
    return (flow + offset[:, :, None, None]).float()


def move(frames: Field, flow: Float[Tensor, "batch 2 height width"]) -> Field:
    """Draw each cell of a field from where the flow says, over the known cells; what comes in from beyond is missing.

    To the bit for whole shifts. Otherwise a cell is known where more than half of the weight of its sources is.
    """
    known = frames.valid.expand_as(frames.values).to(frames.values.dtype)
    weight = warp(known, flow, padding="zeros")
    valid = (weight > _MOSTLY) & inside(flow)
    seen = torch.where(frames.valid, frames.values, 0.0)
    values = warp(seen, flow, padding="zeros") / weight.clamp(min=1e-6)
    return Field(values=torch.where(valid, values, 0.0), valid=valid)


def equivariance_error(
    latent: Float[Tensor, "batch latent rows columns"],
    moved: Float[Tensor, "batch latent rows columns"],
    flow: Float[Tensor, "batch 2 height width"],
    *,
    known: Bool[Tensor, "batch #channel height width"] | None = None,
    known_moved: Bool[Tensor, "batch #channel height width"] | None = None,
    margin: int = 1,
    mode: Interpolation = "bilinear",
) -> Float[Tensor, " batch"]:
    """Squared difference of the moved frame's latent and the frame's moved latent, over their variance.

    Each channel's mean squared difference over its own variance in this sample, then the mean of the channels. The
    variance has a gradient: a latent, or a channel of it, that shrinks or grows changes nothing, so that shrinking is
    no way out. What remains is to give every channel a share of what is smooth, beside less of the detail that cannot
    move by interpolation: the price is paid in detail that is lost. Samples don't depend on each other.

    Args:
        latent: Latents of the frames.
        moved: Latents of the moved frames.
        flow: Motion in cells of the frames, from the moved frames to the frames.
        known: Where the frames are known; None is everywhere. A cell of the latent with half of what it covers missing
            is left out, and so is one that any such cell is moved into.
        known_moved: The same of the moved frames.
        margin: Cells of the latent that are left out at each border, where an encoder sees its padding.
        mode: Interpolation of the latents.

    Returns:
        One number for each sample, about 1 where the two have nothing in common; 0 where no cell is left.
    """
    size = (latent.shape[-2], latent.shape[-1])
    coarse = rescale_flow(flow, size)
    latent, moved = latent.float(), moved.float()
    whole = [_known_cells(mask, flow, size) for mask in (known, known_moved)]
    sources = warp(whole[0].float(), coarse, padding="zeros") > 1 - 1e-5
    inner = torch.zeros(size, dtype=torch.bool, device=latent.device)
    inner[margin : size[0] - margin, margin : size[1] - margin] = True
    chosen = sources & whole[1] & inside(coarse) & inner
    square = (warp(latent, coarse, mode=mode) - moved).square()
    error = _mean(square, chosen)
    variance = (_variance(latent, whole[0]) + _variance(moved, whole[1])) / 2
    return (error / variance).mean(1)


def _known_cells(mask: Tensor | None, flow: Tensor, size: tuple[int, int]) -> Tensor:
    """Cells of the latent that are mostly known, [batch, 1, rows, columns]."""
    if mask is None:
        return torch.ones(len(flow), 1, *size, dtype=torch.bool, device=flow.device)
    return F.adaptive_avg_pool2d(mask.float().mean(1, keepdim=True), size) > _MOSTLY


def _mean(values: Tensor, chosen: Tensor) -> Tensor:
    """Mean of each sample and channel over the chosen cells, [batch, channel]."""
    pairs = values.flatten(0, 1)
    return masked_mean(pairs, chosen.expand_as(values).flatten(0, 1)).view(values.shape[:2])


def _variance(latent: Tensor, chosen: Tensor) -> Tensor:
    """Variance of each sample and channel over the chosen cells, [batch, channel], never quite 0."""
    mean = _mean(latent, chosen)[:, :, None, None]
    # The floor has no gradient: a larger mean would raise it.
    floor = _FLOOR * _mean(latent.detach().square(), chosen).mean(1, keepdim=True)
    return _mean((latent - mean).square(), chosen) + floor + 1e-12


def equivariance_loss(
    encode: Encode,
    frames: Float[Tensor, "batch channel height width"],
    flow: Float[Tensor, "batch 2 height width"],
    *,
    margin: int = 1,
    mode: Interpolation = "bilinear",
) -> Float[Tensor, " batch"]:
    """Move frames and compare the two ways to the latent; see `random_motion` and `equivariance_error`.

    Args:
        encode: From frames to latents; what a frame has moved in from beyond its border is 0.
        frames: Frames without missing cells.
        flow: Motion in cells of the frames, usually drawn by `random_motion`.
        margin: Cells of the latent that are left out at each border.
        mode: Interpolation of the latents.
    """
    moved = move(Field.of(frames), flow)
    latent, moved_latent = encode(frames), encode(moved.values)
    return equivariance_error(latent, moved_latent, flow, known_moved=moved.valid, margin=margin, mode=mode)
