"""How far to trust the warped previous frame, cell by cell: a constant, a recursive filter, or a learned gate."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Evidence", "Gain", "KalmanGate", "SpatialGate", "constant_gain"]

_WINDOW = 5
_FINE_MAPS = 6
_COARSE_MAPS = 3
_LEVELS = 3


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
    alpha = 1 / (1 + P + Q) is the weight of least variance, which leaves the variance 1 - alpha (Kalman 1960,
    equations 28 to 30, for a random walk).
    """

    def forward(self, evidence: Evidence) -> Gain:
        """Weigh the pair."""
        valid = evidence.valid.to(evidence.warped.dtype)
        energy = _energy((evidence.warped - evidence.current) * _per_deviation(evidence.noise))
        mean = _box(energy, _WINDOW) / _box(valid, _WINDOW).clamp(min=1e-6)
        predicted = torch.maximum(evidence.variance, mean - 1)
        alpha = valid / (1 + predicted)
        return Gain(alpha=alpha, variance=1 - alpha)


class SpatialGate(nn.Module):
    """A learned weight per cell, from tests of the residual against the noise at four scales.

    Each cell gets measurements that do not depend on the number of channels: the energy of the residual in units of
    the noise, of the single cell and of windows of 3, 2, 4 and 8 cells, once squared before the mean over the window
    (any error shows) and once after it (noise averages out, so small errors shared by neighbors show), the energy of
    the gradient of `warped` (an error of the flow costs more where there is detail), the variance of the state, and
    the validity. Three 1x1 convolutions turn their logarithms into a logit that is added to `bias`. The last of them
    starts at zero: an untrained gate is the constant sigmoid(bias).

    Trained to minimize the error, alpha approaches 1 / (1 + P + Q), which leaves the variance 1 - alpha. That, and at
    least what noise alone leaves, is reported as variance of the fused frame and comes back with the next pair.

    Args:
        width: Hidden maps.
    """

    def __init__(self, *, width: int = 16) -> None:
        super().__init__()
        maps = _FINE_MAPS + _COARSE_MAPS * _LEVELS
        self.layers = nn.Sequential(
            nn.Conv2d(maps, width, 1), nn.ReLU(), nn.Conv2d(width, width, 1), nn.ReLU(), nn.Conv2d(width, 1, 1)
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
    """Give the maps that the learned gate sees, of the order of 1 each."""
    scale = _per_deviation(evidence.noise)
    valid = evidence.valid.to(evidence.warped.dtype)
    warped = evidence.warped * scale
    residual = warped - evidence.current * scale
    energies = torch.cat([_energy(residual), _gradient_energy(warped), evidence.variance, valid], 1)
    near = _box(energies, 3)
    shared = _energy(_box(residual, 3)) * 9
    maps = [
        _excess(energies[:, :1], evidence.variance),
        _excess(near[:, :1], near[:, 2:3]),
        _excess(shared, near[:, 2:3]),
        torch.log(near[:, 1:2] + 0.1),
        torch.log(evidence.variance + 0.01),
        valid,
    ]
    size = energies.shape[-2:]
    for level in range(1, _LEVELS + 1):
        residual = F.avg_pool2d(residual, 2, ceil_mode=True)
        energies = F.avg_pool2d(energies, 2, ceil_mode=True)
        state = energies[:, 2:3]
        wide = torch.cat(
            [
                _excess(energies[:, :1], state),
                _excess(_energy(residual) * 4**level, state),
                torch.log(energies[:, 1:2] + 0.1),
            ],
            1,
        )
        up = F.interpolate(wide, scale_factor=2**level, mode="bilinear", align_corners=False)
        maps.append(up[..., : size[0], : size[1]])
    return torch.cat(maps, 1)


def _excess(energy: Tensor, variance: Tensor) -> Tensor:
    """Logarithm of an energy over the 1 + P that it has when nothing but noise differs."""
    return torch.log((energy + 0.1) / (variance + 1.1))


def _per_deviation(noise: Float[Tensor, "batch channel"]) -> Float[Tensor, "batch channel 1 1"]:
    return noise.rsqrt()[:, :, None, None]


def _energy(values: Tensor) -> Tensor:
    return (values * values).mean(1, keepdim=True)


def _gradient_energy(values: Tensor) -> Tensor:
    along_x = F.pad(values[..., 1:] - values[..., :-1], (0, 1, 0, 0))
    along_y = F.pad(values[..., 1:, :] - values[..., :-1, :], (0, 0, 0, 1))
    return (along_x * along_x + along_y * along_y).mean(1, keepdim=True)


def _box(values: Tensor, size: int) -> Tensor:
    return F.avg_pool2d(values, size, stride=1, padding=size // 2, count_include_pad=False)
