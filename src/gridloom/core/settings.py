"""The part of every system's configuration that the trainer reads."""

from dataclasses import dataclass, field
from typing import Literal

from gridloom.core.errors import ConfigError

__all__ = ["RunConfig", "TrainConfig"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How long and how to train.

    It lives in `core`, not beside the trainer, because presets of the systems set it and systems do not know the
    trainer.
    """

    steps: int = 1000
    """Optimizer steps in all."""
    batch_size: int = 32
    """Windows per optimizer step, over all processes and accumulated parts together."""
    accumulate: int = 1
    """Parts into which each process cuts its share of a batch, to save memory; the result stays the same."""
    learning_rate: float = 1e-3
    """Peak of the schedule: linear warm-up, then half a cosine."""
    final_learning_rate: float = 1e-5
    """Where the cosine ends."""
    warmup_steps: int = 50
    """Steps of linear warm-up."""
    weight_decay: float = 0.05
    """Decoupled decay (AdamW) of matrices and kernels; biases and norms are not decayed."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's decay rates of the first and second moment."""
    epsilon: float = 1e-8
    """AdamW's epsilon; smaller where losses, and so gradients, are tiny numbers."""
    clip_norm: float = 1.0
    """Largest norm of the whole gradient; 0 turns clipping off."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16 computes under autocast; weights and optimizer stay float32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes CUDA where there is one."""
    loader_threads: int = 0
    """Threads that read ahead; 0 reads in the loop. The result does not depend on it."""
    log_every: int = 10
    """Steps between two lines of metrics.jsonl."""
    validate_every: int = 200
    """Steps between two passes over the validation part; 0 turns them off."""
    validate_windows: int = 256
    """Windows of the validation part that are looked at, spread evenly over it."""
    checkpoint_every: int = 200
    """Steps between two checkpoints; there is always one at the end."""
    keep_checkpoints: int = 2
    """Newest checkpoints that stay on disk; at least 2, so that a damaged one can fall back."""
    keep: Literal["last", "best"] = "last"
    """Weights that the run ends with: the last ones, or those whose validation pass was the best (by the system's own
    measure, which need not be its loss)."""
    patience: int = 0
    """Stop after so many validation passes without a better one; 0 trains to the end. Needs `keep best`."""
    ema_decay: float = 0.0
    """Decay of a running average of the weights (0.999, say), which is then validated and kept; 0 keeps none."""
    snapshots: tuple[int, ...] = ()
    """Steps whose weights stay in `snapshots/`, for pictures of how training went; 0 is the start."""
    tensorboard: bool = True
    """Write TensorBoard events too, where the extra `tensorboard` is installed."""

    def __post_init__(self) -> None:
        """Refuse what can only be a mistake."""
        self._check_passes()
        for name in ("steps", "batch_size", "accumulate", "log_every", "checkpoint_every", "validate_windows"):
            if getattr(self, name) < 1:
                raise ConfigError(f"train.{name} must be at least 1, got {getattr(self, name)}")
        if self.keep_checkpoints < 2:
            raise ConfigError(
                f"train.keep_checkpoints must be at least 2 (a damaged newest one falls back to the one before), "
                f"got {self.keep_checkpoints}"
            )
        for name in ("learning_rate", "final_learning_rate", "weight_decay", "clip_norm", "warmup_steps"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"train.{name} must be 0 or more, got {getattr(self, name)}")
        for name in ("validate_every", "loader_threads", "patience"):
            if getattr(self, name) < 0:
                raise ConfigError(f"train.{name} must be 0 or more (0 turns it off), got {getattr(self, name)}")
        if not self.epsilon > 0:
            raise ConfigError(f"train.epsilon must be above 0, got {self.epsilon}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"train.betas must be 0 <= beta < 1, got {self.betas}")

    def _check_passes(self) -> None:
        if self.keep == "best" and not self.validate_every:
            raise ConfigError("train.keep best needs validation passes, got train.validate_every 0; set it to 50, say")
        if self.patience and self.keep != "best":
            raise ConfigError(
                f"train.patience needs train.keep best: it counts validation passes since the best, "
                f"got train.keep {self.keep}"
            )
        if not 0 <= self.ema_decay < 1:
            raise ConfigError(f"train.ema_decay must be 0 <= decay < 1, got {self.ema_decay}")
        if any(step < 0 for step in self.snapshots):
            raise ConfigError(f"train.snapshots must be steps from 0 up, got {list(self.snapshots)}")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What every system's configuration has; systems add their own fields."""

    seed: int = 0
    """Seed of weights, order and every draw."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """How to train."""

    def __post_init__(self) -> None:
        """Refuse a seed that not every generator takes; a subclass with checks of its own calls this one too."""
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed must be between 0 and 2**63 - 1, got {self.seed}")
