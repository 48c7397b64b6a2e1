"""How far to trust the warped previous frame, cell by cell: a constant, a recursive filter, or a learned gate."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from gridloom.nn.pad import crop, pad_to_multiple

__all__ = ["Evidence", "Gain", "KalmanGate", "SpatialGate", "constant_gain"]

_WINDOW = 5
_LEVELS = 2
_COARSEST = 2**_LEVELS
_MAPS = 9


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What a gate sees of a pair of frames.

    Args:
        warped: The previous state on the cells of the current frame; equals `current` where not valid.
        current: The current frame, or whatever `warped` is to be fused with.
        variance: Error variance of `warped` in units of `noise` (1 = as noisy as one frame); 1 where not valid.
        valid: True where `warped` is a sample of the previous state.
        noise: Variance of the flicker in `current`, per channel, in squared units of the channel; more than 0.
    """

    warped: Float[Tensor, "batch channel y x"]
    current: Float[Tensor, "batch channel y x"]
    variance: Float[Tensor, "batch 1 y x"]
    valid: Bool[Tensor, "batch 1 y x"]
    noise: Float[Tensor, "batch channel"]


@dataclass(frozen=True, kw_only=True)
class Gain:
    """What a gate answers.

    Args:
        alpha: Weight of `warped` in the fused frame, 0..1; 0 where not valid.
        variance: Error variance of the fused frame in units of the noise variance; 1 where not valid.
    """

    alpha: Float[Tensor, "batch 1 y x"]
    variance: Float[Tensor, "batch 1 y x"]


def constant_gain(evidence: Evidence, alpha: Tensor) -> Gain:
    """Give every valid cell the same weight, and the variance that follows if nothing but noise differs.

    Args:
        evidence: The pair of frames.
        alpha: Weight of the warped frame, 0..1; anything that broadcasts to [batch, 1, y, x].
    """
    weight = torch.where(evidence.valid, alpha, torch.zeros_like(evidence.variance))
    return Gain(alpha=weight, variance=weight**2 * evidence.variance + (1 - weight) ** 2)


class KalmanGate(nn.Module):
    """A recursive filter per cell, without learned weights.

    The squared residual of a cell has the mean 1 + P + Q in units of the noise: 1 of the current frame, P of the
    state, Q of what the warp got wrong. Its mean over channels and a 5x5 window estimates Q = max(0, mean - 1 - P), and
    alpha = 1 / (1 + P + Q) is the weight of least variance, which leaves the variance 1 - alpha (the filter of Kalman,
    1960, for a random walk).
    """

    def forward(self, evidence: Evidence) -> Gain:
        """Weigh the pair."""
        valid = evidence.valid.to(evidence.warped.dtype)
        noise = evidence.noise
        energy = _energy(evidence.warped - evidence.current, (1 / (noise * noise.shape[1]))[:, None])
        mean = _box(energy, _WINDOW) / _box(valid, _WINDOW).clamp(min=1e-6)
        predicted = torch.maximum(evidence.variance, mean - 1)
        alpha = valid / (1 + predicted)
        return Gain(alpha=alpha, variance=1 - alpha)


class SpatialGate(nn.Module):
    """A learned weight per cell, from tests of the residual against the noise at several scales.

    Each cell gets measurements that do not depend on the number of channels: the energy of the residual in units of
    the noise, of the single cell and of windows of 3, 2 and 4 cells, once squared before the mean over the window
    (any error shows) and once after it (noise averages out, so small errors shared by neighbors show); the energy of
    the gradient of `warped` (an error of the flow costs more where there is detail); the variance of the state; and the
    validity. Three 1x1 convolutions turn their logarithms into a logit that is added to `bias`. The last of them starts
    at zero: an untrained gate is the constant sigmoid(bias).

    Trained to minimize the error, alpha approaches 1 / (1 + P + Q), which leaves the variance 1 - alpha. That, and at
    least what noise alone leaves, is reported as variance of the fused frame and comes back with the next pair.

    Args:
        width: Hidden maps.
    """

    def __init__(self, *, width: int = 8) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(_MAPS, width, 1), nn.ReLU(), nn.Conv2d(width, width, 1), nn.ReLU(), nn.Conv2d(width, 1, 1)
        )
        last = self.layers[-1]
        assert isinstance(last, nn.Conv2d)
        assert last.bias is not None
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, evidence: Evidence, bias: Tensor) -> Gain:
        """Weigh the pair.

        Args:
            evidence: The pair of frames.
            bias: Logit of alpha where the learned part answers 0; broadcasts to [batch, 1, y, x].
        """
        logit = self.layers(_measure(evidence)) + bias
        alpha = torch.where(evidence.valid, torch.sigmoid(logit), 0.0)
        by_noise = alpha**2 * evidence.variance + (1 - alpha) ** 2
        return Gain(alpha=alpha, variance=torch.maximum(1 - alpha, by_noise))


def _measure(evidence: Evidence) -> Float[Tensor, "batch map y x"]:
    """Give the maps that the learned gate sees, of the order of 1 each.

    Sums over blocks are taken by slices, which costs a fraction of pooling; what is coarse is brought up step by step.
    """
    noise, variance, warped = evidence.noise, evidence.variance, evidence.warped
    per_variance = (1 / (noise * noise.shape[1]))[:, None]
    valid = evidence.valid.to(warped.dtype)
    residual = warped - evidence.current
    sums = torch.cat([_energy(residual, per_variance), variance, valid], 1)
    near = _sum_window(sums)
    near = near[:, :1] / near[:, 2:].clamp(min=1.0)
    fine = [torch.log((torch.cat([sums[:, :1], near], 1) + 0.1) / (variance + 1.1)), torch.log(variance + 0.01), valid]
    residual, sums = (pad_to_multiple(maps, _COARSEST, mode="constant") for maps in (residual, sums))
    warped = pad_to_multiple(warped, _COARSEST)
    detail = _detail(warped, per_variance)
    by_level = []
    for level in range(1, _LEVELS + 1):
        residual, sums = _sum_blocks(residual), _sum_blocks(sums)
        detail = _sum_blocks(detail) / 4 if level > 1 else detail
        found = torch.cat([_energy(residual, per_variance), sums[:, :1]], 1)[:, : min(level, 2)]
        count = sums[:, 2:].clamp(min=1.0)
        excess = (found / count + 0.1) / (sums[:, 1:2] / count + 1.1)
        by_level.append(torch.log(torch.cat([excess, detail + 0.1], 1)))
    up = by_level.pop()
    while by_level:
        up = torch.cat([_twice(up), by_level.pop()], 1)
    return torch.cat([*fine, crop(_repeat(up), valid)], 1)


def _detail(values: Tensor, per_variance: Tensor) -> Float[Tensor, "batch 1 rows columns"]:
    """Energy of the differences between neighbors within each block of 2x2 cells, a mean over the block's pairs."""
    upper = values[..., ::2, :]
    down = _energy(values[..., 1::2, :] - upper, per_variance)
    across = _energy(upper[..., 1::2] - upper[..., ::2], per_variance)
    return across + (down[..., ::2] + down[..., 1::2]) / 2


def _twice(values: Tensor) -> Tensor:
    return F.interpolate(values, scale_factor=2, mode="bilinear", align_corners=False)


def _repeat(values: Tensor) -> Tensor:
    """Each cell as a block of 2x2; quicker than interpolation."""
    if torch.compiler.is_exporting():  # a view of an unknown size is tied to sizes like the first
        return F.interpolate(values, scale_factor=2, mode="nearest")
    batch, maps, rows, columns = values.shape
    blocks = values[:, :, :, None, :, None].expand(-1, -1, -1, 2, -1, 2)
    return blocks.reshape(batch, maps, 2 * rows, 2 * columns)


def _sum_window(values: Tensor) -> Tensor:
    """Sums over windows of 3x3 cells; 0 outside of the frame."""
    padded = F.pad(values, (1, 1, 1, 1))
    rows = padded[..., :-2, :] + padded[..., 1:-1, :] + padded[..., 2:, :]
    return rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]


def _sum_blocks(values: Tensor) -> Tensor:
    """Sums over blocks of 2x2 cells."""
    rows = values[..., ::2, :] + values[..., 1::2, :]
    return rows[..., ::2] + rows[..., 1::2]


def _energy(values: Tensor, per_variance: Float[Tensor, "batch 1 channel"]) -> Float[Tensor, "batch 1 y x"]:
    """Mean over channels of the squares in units of the noise."""
    rows, columns = values.shape[2:]
    return (per_variance @ (values * values).flatten(2)).view(-1, 1, rows, columns)


def _box(values: Tensor, size: int) -> Tensor:
    return F.avg_pool2d(values, size, stride=1, padding=size // 2, count_include_pad=False)
