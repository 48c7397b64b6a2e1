"""Checkpoints: whole state, atomic, without code.

A checkpoint is a folder `step-00000200/` with `model.safetensors`, `optimizer.safetensors`, `state.json` and, written
last, `manifest.json`; then the file `latest` names it. A killed process leaves the checkpoint before untouched.
"""

import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from gridloom.core import faults
from gridloom.core.atomic import new_file, new_folder, read_json, verify_manifest, write_json, write_text
from gridloom.core.errors import CheckpointError, DataError

__all__ = [
    "Checkpoint",
    "load_model_state",
    "newest_checkpoint",
    "read_snapshots",
    "restore",
    "save_checkpoint",
    "save_snapshot",
    "save_weights",
]

_LOGGER = logging.getLogger(__name__)
_MODEL, _OPTIMIZER, _STATE, _LATEST = "model.safetensors", "optimizer.safetensors", "state.json", "latest"
_SNAPSHOTS = "snapshots"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint on disk whose files agree with its manifest.

    Attributes:
        path: Its folder.
        step: Optimizer steps made.
        record: What the run put with it: system and resolved configuration.
    """

    path: Path
    step: int
    record: Mapping[str, Any]


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Dense copies that share no memory, as safetensors wants them."""
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}


def save_weights(model: nn.Module, path: Path) -> None:
    """Write a model's tensors as safetensors; the caller sees to it that the file appears whole."""
    safetensors.torch.save_file(_plain(model.state_dict()), path)


def save_snapshot(folder: Path, model: nn.Module, step: int) -> None:
    """Keep the weights of one step in the run folder's `snapshots/`."""
    with new_file(folder / _SNAPSHOTS / f"step-{step:08d}.safetensors") as temporary:
        save_weights(model, temporary)


def read_snapshots(folder: Path) -> dict[int, dict[str, Tensor]]:
    """The weights kept in the run folder's `snapshots/`, by step.

    Raises:
        CheckpointError: A file that is no safetensors file.
    """
    found = {}
    for path in sorted((folder / _SNAPSHOTS).glob("step-*.safetensors")):
        try:
            found[int(path.stem.removeprefix("step-"))] = safetensors.torch.load_file(path)
        except (SafetensorError, ValueError) as error:
            raise CheckpointError(f"{path}: cannot be read as weights ({error}); delete it") from None
    return found


def _optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    return {
        f"{names[parameter]}/{slot}": torch.as_tensor(value)
        for parameter, state in optimizer.state.items()
        for slot, value in state.items()
    }


def save_checkpoint(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    step: int,
    record: Mapping[str, Any],
    keep: int,
    extra: Mapping[str, Callable[[Path], None]] = MappingProxyType({}),
) -> Path:
    """Write a checkpoint, point `latest` at it, and keep it and the `keep - 1` before it.

    Args:
        folder: The run's `checkpoints/`.
        model: The unwrapped model.
        optimizer: Its optimizer.
        step: Optimizer steps made.
        record: JSON that identifies the run.
        keep: How many stay.
        extra: More files by name, with what writes them.
    """
    path = folder / f"step-{step:08d}"
    with new_folder(path, replace=True) as temporary:
        save_weights(model, temporary / _MODEL)
        faults.point("checkpoint.model")
        safetensors.torch.save_file(_plain(_optimizer_tensors(model, optimizer)), temporary / _OPTIMIZER)
        faults.point("checkpoint.optimizer")
        for name, write in extra.items():
            write(temporary / name)
        write_json(temporary / _STATE, {"step": step, **record})
    faults.point("checkpoint.latest")
    write_text(folder / _LATEST, path.name + "\n")
    faults.point("checkpoint.sweep")
    # What is later was damaged and left aside when the run went on: it must not count among the newest.
    later = [other for other in _folders(folder) if other.name > path.name]
    for old in [*later, *_folders(folder)[len(later) + keep :]]:
        shutil.rmtree(old, ignore_errors=True)
    return path


def _folders(folder: Path) -> list[Path]:
    """Checkpoint folders, newest first."""
    return sorted((path for path in folder.glob("step-*") if path.is_dir()), reverse=True)


def _read(path: Path) -> Checkpoint:
    verify_manifest(path)
    state = read_json(path / _STATE)
    if not isinstance(state, dict) or type(state.get("step")) is not int:
        raise CheckpointError(f"{path / _STATE}: expected a record with a whole number 'step', got {state!r:.80}")
    return Checkpoint(path=path, step=state["step"], record=state)


def newest_checkpoint(folder: Path) -> Checkpoint | None:
    """Return the newest checkpoint that is whole, or None where there is none.

    A damaged one is left aside with a warning that names it and the one that is taken instead.

    Raises:
        CheckpointError: There are checkpoints, but none is whole.
    """
    candidates = _folders(folder)
    damaged: list[str] = []
    for path in candidates:
        try:
            found = _read(path)
        except (CheckpointError, DataError) as error:
            damaged.append(str(error))
            continue
        for reason in damaged:
            _LOGGER.warning("damaged checkpoint left aside: %s; going on from %s", reason, path)
        return found
    if damaged:
        raise CheckpointError(f"{folder}: no checkpoint is whole: {'; '.join(damaged)}")
    return None


def load_model_state(path: Path) -> dict[str, Tensor]:
    """Read the model's tensors of a verified checkpoint."""
    return safetensors.torch.load_file(path / _MODEL)


def restore(checkpoint: Checkpoint, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put a checkpoint's state into model and optimizer.

    Raises:
        CheckpointError: Its tensors are not those of this model.
    """
    try:
        model.load_state_dict(load_model_state(checkpoint.path), strict=True)
    except RuntimeError as error:
        raise CheckpointError(f"{checkpoint.path}: does not fit this model: {' '.join(str(error).split())}") from None
    parameters = dict(model.named_parameters())
    optimizer.state.clear()
    for key, value in safetensors.torch.load_file(checkpoint.path / _OPTIMIZER).items():
        name, _, slot = key.rpartition("/")
        if name not in parameters:
            raise CheckpointError(f"{checkpoint.path}: optimizer state for {key!r}, which this model does not have")
        parameter = parameters[name]
        # A step counter stays on the CPU as AdamW made it, unless the fused kernel keeps it beside the parameter.
        # The others get the parameter's strides (channels last): fused kernels go through both by address.
        like = parameter if value.shape == parameter.shape else value
        kept = torch.empty_like(like, dtype=value.dtype, device=parameter.device)
        optimizer.state[parameter][slot] = kept.copy_(value)
