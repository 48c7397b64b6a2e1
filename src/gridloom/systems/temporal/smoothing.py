"""The past and the future of a frame, put together: the backward pass of a clip corrects what the forward pass gave."""

import torch

from gridloom.systems.temporal.fusion import Fusion
from gridloom.systems.temporal.gates import Gain

__all__ = ["combine"]

_LEAST = 1e-6


def combine(forward: Fusion, backward: Fusion) -> Gain:
    """Weigh the future against the past and present of one frame.

    The forward pass gives the fused frame, of variance P. The backward pass (the same clip from its last frame to its
    first, with the flow to the next frame) gives what the future predicts for this frame *before* the frame itself was
    fused in; otherwise it would count twice. How far that prediction is off, B, is what the gate of the backward pass
    found when it met the frame: alpha = 1 / (1 + B). The weight of least variance is P / (P + B) (Fraser and Potter
    1969: an optimal smoother as two filters run against each other).

    To smooth a clip: run the stream over the frames, and over the frames turned round; then for each frame
    `torch.lerp(forward.z, backward.z_warp_refined, combine(forward, backward).alpha)`.

    Args:
        forward: What the forward pass made of the frame.
        backward: What the backward pass made of the same frame; its `alpha` a number or a map.

    Returns:
        `alpha`: weight of `backward.z_warp_refined`, 0 where it is not valid; `variance`: of the combination, in units
        of the noise.
    """
    off = 1 / backward.alpha.clamp(min=_LEAST) - 1
    weight = forward.variance / (forward.variance + off).clamp(min=_LEAST)
    alpha = torch.where(backward.valid, weight, 0.0)
    return Gain(alpha=alpha, variance=(1 - alpha) * forward.variance)
