"""The variance of the flicker, from what is left between a frame and the past that was warped onto it."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gridloom.core.errors import ConfigError

__all__ = ["NoiseTracker", "estimate_noise"]

_SAMPLES = 400
_LEAST = 1e-12
_NORMAL_MEDIAN = 0.6744897501960817


def estimate_noise(
    residual: Float[Tensor, "batch channel y x"],
    valid: Bool[Tensor, "batch 1 y x"],
    gain: float = 2.0,
) -> Float[Tensor, "batch channel"]:
    """Estimate the variance of the flicker by the median absolute residual, which motion in half of the cells spares.

    About 400 cells on a regular pattern answer for the frame: the standard error of a variance is 12 %. Where the warp
    goes wrong in many cells the estimate is too large, never much too small.

    Args:
        residual: Current frame minus the warped previous one.
        valid: True where the residual counts.
        gain: Variance of the residual over that of the flicker: 2 if both frames are as they came, 1 + P if the
            previous one has been filtered down to the variance P.

    Returns:
        Variance per channel, in squared units of the channel; at least 1e-12, which is also the answer where no cell
        is valid.

    Raises:
        ConfigError: A gain that is not positive.
    """
    if gain <= 0:
        raise ConfigError(f"gain is the variance of the residual over that of the noise: more than 0, got {gain}")
    step = max(1, -(-residual[0, 0].numel() // _SAMPLES))
    size = residual.detach().flatten(2)[..., ::step].abs()
    known = torch.where(valid.flatten(2)[..., ::step], size, torch.nan)
    deviation = known.nanmedian(dim=-1).values.nan_to_num(nan=0.0) / _NORMAL_MEDIAN
    return (deviation**2 / gain).clamp(min=_LEAST)


class NoiseTracker:
    """A causal mean of the estimates of a stream, in the logarithm, so that one wild frame does not carry far.

    The first estimates are weighed alike; later ones fade with the given memory.

    Args:
        memory: Frames over which the mean reaches back, at least 1.

    Raises:
        ConfigError: A memory below 1.
    """

    def __init__(self, *, memory: float = 10.0) -> None:
        if memory < 1:
            raise ConfigError(f"memory must be at least 1 frame, got {memory}")
        self._memory = memory
        self._mean: Tensor | None = None
        self._count: Tensor | None = None

    @property
    def value(self) -> Float[Tensor, "batch channel"] | None:
        """Variance per channel; None before an estimate has come for every sample."""
        if self._mean is None or self._count is None or not bool((self._count > 0).all()):
            return None
        return self._mean.exp()

    def update(
        self, estimate: Float[Tensor, "batch channel"], enough: Bool[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch channel"] | None:
        """Take the estimate of one frame.

        Args:
            estimate: Variance per channel, more than 0.
            enough: False for the samples whose estimate is to be left out: at a cut, or with too few valid cells.

        Returns:
            The new `value`.
        """
        logarithm = estimate.detach().log()
        if self._mean is None or self._count is None:
            self._mean, self._count = torch.zeros_like(logarithm), torch.zeros_like(logarithm[:, :1])
        used = torch.ones_like(self._count, dtype=torch.bool) if enough is None else enough[:, None]
        count = (self._count + 1).clamp(max=self._memory)
        moved = self._mean + (logarithm - self._mean) / count
        self._mean = torch.where(used, moved, self._mean)
        self._count = torch.where(used, count, self._count)
        return self.value
