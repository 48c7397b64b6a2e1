"""The past and the future of a frame, put together: the backward pass of a clip corrects what the forward pass gave."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from gridloom.systems.temporal.fusion import Fusion
from gridloom.systems.temporal.gates import Gain

__all__ = ["combine"]

_WINDOW = 3
_LEAST = 1e-6


def combine(forward: Fusion, backward: Fusion, noise: Float[Tensor, "batch channel"]) -> Gain:
    """Weigh the future against the past and present of one frame.

    The forward pass gives the fused frame, of variance P. The backward pass (the same clip from its last frame to its
    first, with the flow to the next frame) gives what the future predicts for this frame *before* the frame itself was
    fused in; otherwise it would count twice. How far that prediction is off, B, is the largest of three: its own
    variance, what the gate of the backward pass found when it met the frame (alpha = 1 / (1 + B)), and what the squared
    difference to the fused frame shows beyond P, over 3x3 cells. The weight of least variance is P / (P + B)
    (Fraser and Potter 1969, two filters run against each other).

    To smooth a clip: run the stream over the frames, and over the frames turned round; then for each frame
    `torch.lerp(forward.z, backward.z_warp_refined, combine(forward, backward, noise).alpha)`.

    Args:
        forward: What the forward pass made of the frame.
        backward: What the backward pass made of the same frame.
        noise: Variance of the flicker per channel; more than 0.

    Returns:
        `alpha`: weight of `backward.z_warp_refined`, 0 where it is not valid; `variance`: of the combination, in units
        of the noise.
    """
    valid = backward.valid.to(torch.float32)
    difference = (backward.z_warp_refined - forward.z).float()
    energy = (difference * difference / noise.float()[:, :, None, None]).mean(1, keepdim=True)
    energy = torch.where(backward.valid, energy, 0.0)
    shown = _box(energy) / _box(valid).clamp(min=_LEAST) - forward.variance
    met = 1 / backward.alpha.clamp(min=_LEAST) - 1
    off = torch.maximum(torch.maximum(backward.prior, met), shown)
    alpha = torch.where(backward.valid, forward.variance / (forward.variance + off).clamp(min=_LEAST), 0.0)
    return Gain(alpha=alpha, variance=(1 - alpha) * forward.variance)


def _box(values: Tensor) -> Tensor:
    return F.avg_pool2d(values, _WINDOW, stride=1, padding=_WINDOW // 2, count_include_pad=False)
