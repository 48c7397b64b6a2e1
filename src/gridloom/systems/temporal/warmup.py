"""Warm-up of alpha: the past comes in slowly while what moves and refines it is still untrained."""

from dataclasses import dataclass

from gridloom.core.errors import ConfigError
from gridloom.systems.temporal.module import TemporalModule

__all__ = ["AlphaWarmup"]


@dataclass(frozen=True, kw_only=True)
class AlphaWarmup:
    """Alpha rises in a straight line, and is left to what was learnt afterwards.

    For a gate with a map it is the most that alpha may be: a constant alpha of 0.8 is worse than the noisy input on
    every clip where there is little noise.
    """

    start: float = 0.0
    """Alpha at step 0."""
    target: float = 0.8
    """Alpha at the last step of the warm-up."""
    steps: int = 5000
    """Steps of the warm-up; 0 does without."""

    def __post_init__(self) -> None:
        """Refuse what is no weight."""
        if not (0 <= self.start <= 1 and 0 <= self.target <= 1) or self.steps < 0:
            raise ConfigError(
                f"warmup: start and target must be between 0 and 1 and steps 0 or more, got {self.start}, "
                f"{self.target} and {self.steps}"
            )

    def alpha(self, step: int) -> float | None:
        """Alpha at a step; None after the warm-up.

        Args:
            step: Counted from 0.
        """
        if step >= self.steps:
            return None
        return self.start + (self.target - self.start) * step / self.steps

    def apply(self, module: TemporalModule, step: int) -> None:
        """Set it in a module; to be called at the beginning of each training step."""
        module.override_alpha(self.alpha(step))
