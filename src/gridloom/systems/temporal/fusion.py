"""What becomes of a frame that is fused with the past, and the kinds of fusion that there are."""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Bool, Float
from torch import Tensor

from gridloom.systems.temporal.noise import estimate_noise

__all__ = [
    "CELL_MARGIN",
    "FlowDirection",
    "Fusion",
    "GateKind",
    "Interpolation",
    "OcclusionKind",
    "RefinerKind",
    "StyleGateKind",
    "noise_of",
]

GateKind = Literal["scalar", "spatial", "kalman"]
FlowDirection = Literal["prev_to_cur", "cur_to_prev"]
Interpolation = Literal["bilinear", "bicubic", "spline"]
OcclusionKind = Literal["mask", "weigh"]
RefinerKind = Literal["plain", "flow", "none"]
StyleGateKind = Literal["scalar", "learned"]

CELL_MARGIN = 0.5
"""Cells beyond the outermost centers that still belong to the frame: a cell reaches that far."""


@dataclass(frozen=True, kw_only=True)
class Fusion:
    """What became of a frame.

    Attributes:
        z: The fused latent; NaN only where neither the current frame nor the past has a value.
        alpha: Weight of the past: [] for a scalar gate, [batch, 1, y, x] for the others.
        variance: Of the fused latent, in units of the noise of one frame: 1 is as noisy as a frame, 0.1 says that it is
            known ten times better.
        prior: Of the past, moved onto the frame, in the same units.
        valid: Where the past says something: in the frame, known, not occluded.
        z_warp: The past, moved onto the current frame; the current frame where not valid.
        z_warp_refined: The same, refined.
        flow: What it was moved by, from the current frame to the previous one, in cells; None if it was not moved.
    """

    z: Float[Tensor, "batch channel y x"]
    alpha: Float[Tensor, "..."]
    variance: Float[Tensor, "batch 1 y x"]
    prior: Float[Tensor, "batch 1 y x"]
    valid: Bool[Tensor, "batch 1 y x"]
    z_warp: Float[Tensor, "batch channel y x"]
    z_warp_refined: Float[Tensor, "batch channel y x"]
    flow: Float[Tensor, "batch 2 y x"] | None


def noise_of(
    warped: Float[Tensor, "batch channel y x"],
    current: Float[Tensor, "batch channel y x"],
    variance: Float[Tensor, "batch 1 y x"],
    valid: Bool[Tensor, "batch 1 y x"],
) -> Float[Tensor, "batch channel"]:
    """Estimate the variance of the flicker from what is left between a moved state and a frame.

    What is left has the noise of the frame and that of the state, which is `variance` times as large.
    """
    residual = (current - warped).detach().float()
    return estimate_noise(residual, valid, gain=1.0) / (1.0 + variance.mean(dim=(2, 3)))
