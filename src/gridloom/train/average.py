"""A running average of the weights, which often answers better than the weights themselves."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from gridloom.core.errors import CheckpointError

__all__ = ["WeightAverage"]


class WeightAverage:
    """Exponential moving average of a model's trainable parameters (Polyak & Juditsky 1992).

    The decay of update n is min(decay, (1 + n) / (10 + n)), so that the first weights are soon forgotten. Buffers are
    not averaged.

    Args:
        model: The unwrapped model; the average starts as its weights.
        decay: Share of the average that stays at each step, between 0 and 1.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
        self._average = {name: value.detach().clone() for name, value in self._parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take the weights of a step in.

        Args:
            step: Optimizer steps made, this one included.
        """
        decay = min(self.decay, (1.0 + step) / (10.0 + step))
        torch._foreach_lerp_(list(self._average.values()), list(self._parameters.values()), 1.0 - decay)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the average into the model for a while."""
        kept = {name: value.detach().clone() for name, value in self._parameters.items()}
        self.load_into_model()
        try:
            yield
        finally:
            _copy(kept, self._parameters)

    def load_into_model(self) -> None:
        """Put the average into the model for good."""
        _copy(self._average, self._parameters)

    def save(self, path: Path) -> None:
        """Write as safetensors; the caller sees to it that the file appears whole."""
        plain = {name: value.to("cpu", copy=True).contiguous() for name, value in self._average.items()}
        safetensors.torch.save_file(plain, path)

    def load(self, path: Path) -> None:
        """Go on from what `save` wrote.

        Raises:
            CheckpointError: It is not there, or not of this model.
        """
        if not path.is_file():
            raise CheckpointError(f"{path}: not there; the run was trained without train.ema_decay")
        found = safetensors.torch.load_file(path)
        wanted = {name: value.shape for name, value in self._average.items()}
        if {name: value.shape for name, value in found.items()} != wanted:
            raise CheckpointError(f"{path}: not the averaged weights of this model")
        _copy(found, self._average)


@torch.no_grad()
def _copy(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    for name, value in target.items():
        value.copy_(source[name])
