"""The weights with the best validation pass, kept beside the checkpoints."""

import logging
import math
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
from torch import nn

from gridloom.core.atomic import new_folder, read_json, verify_manifest, write_json
from gridloom.core.errors import CheckpointError, ConfigError, DataError
from gridloom.train.checkpoint import save_weights

__all__ = ["BestWeights"]

_LOGGER = logging.getLogger(__name__)
_MODEL, _STATE = "model.safetensors", "state.json"


class BestWeights:
    """The folder `best/` of a run.

    A resumed run finds what the run before it kept. Validation passes are a function of (seed, step), so that passes
    made again find the same figures and change nothing.

    Args:
        folder: Where the weights are kept.
        monitor: The figure that is compared; low is good.
    """

    def __init__(self, folder: Path, monitor: str) -> None:
        self.folder, self.monitor = folder, monitor
        self.value, self.step = math.inf, -1
        if folder.is_dir():
            try:
                verify_manifest(folder)
                state = read_json(folder / _STATE)
                self.value, self.step = float(state["value"]), int(state["step"])
            except (CheckpointError, DataError, KeyError, TypeError, ValueError) as error:
                _LOGGER.warning("damaged best weights left aside (%s); the next validation pass replaces them", error)

    def offer(self, model: nn.Module, step: int, figures: Mapping[str, float], *, write: bool) -> None:
        """Keep the weights if they are better than all before.

        Args:
            model: The unwrapped model.
            step: Optimizer steps made.
            figures: Of the validation pass.
            write: Whether this process is the one that writes.

        Raises:
            ConfigError: The validation pass does not measure the monitor.
        """
        if self.monitor not in figures:
            raise ConfigError(f"train.keep best goes by {self.monitor!r}, validation measures only {sorted(figures)}")
        if not figures[self.monitor] < self.value:
            return
        self.value, self.step = figures[self.monitor], step
        if write:
            with new_folder(self.folder, replace=True) as temporary:
                save_weights(model, temporary / _MODEL)
                write_json(temporary / _STATE, {"step": step, "monitor": self.monitor, "value": self.value})

    def exhausted(self, step: int, steps: int) -> bool:
        """Whether the best validation pass lies at least `steps` steps back; never if `steps` is 0."""
        return 0 < steps <= step - max(self.step, 0)

    def load_into(self, model: nn.Module) -> None:
        """Put the best weights into the model; nothing happens if no validation pass gave a number.

        Raises:
            CheckpointError: They are damaged, or not those of this model.
        """
        if self.step < 0:
            _LOGGER.warning("no validation pass gave a finite %s: the last weights stay", self.monitor)
            return
        verify_manifest(self.folder)
        try:
            model.load_state_dict(safetensors.torch.load_file(self.folder / _MODEL), strict=True)
        except RuntimeError as error:
            raise CheckpointError(f"{self.folder}: does not fit this model: {' '.join(str(error).split())}") from None
