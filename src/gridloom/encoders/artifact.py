"""The artifact: a folder that holds a model or an encoder with all that is needed to use it.

model.safetensors   weights
config.json         kind, system, resolved configuration, input specification, outputs
normalizer.json     training statistics
README.md           the card: what it is, what it was trained on, how good it is
manifest.json       size and SHA-256 of each file, written last
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
from torch import nn

import gridloom
from gridloom.core.atomic import new_folder, read_json, verify_manifest, write_json, write_text
from gridloom.core.config import from_dict, to_dict
from gridloom.core.contracts import Encoder, InputSpec
from gridloom.core.errors import CheckpointError, ConfigError, DataError
from gridloom.core.registry import get_system
from gridloom.core.score import Score
from gridloom.core.settings import RunConfig
from gridloom.core.system import System, Trained
from gridloom.encoders.card import render_card
from gridloom.encoders.match import load_strictly
from gridloom.encoders.weights import read_weights
from gridloom.evaluate.table import to_json

__all__ = [
    "Artifact",
    "LoadedEncoder",
    "find_artifact",
    "load_encoder",
    "load_model",
    "read_artifact",
    "write_artifact",
]

_WEIGHTS, _CONFIG, _NORMALIZER, _CARD = "model.safetensors", "config.json", "normalizer.json", "README.md"


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A verified artifact on disk; its weights are not read yet.

    Attributes:
        path: Its folder.
        kind: `model` (everything) or `encoder`.
        system: The system it belongs to.
        config: The resolved configuration.
        normalizer: JSON record of the normalizer; empty where there is none.
        training: What is known of its training: steps, data, scores.
    """

    path: Path
    kind: Literal["model", "encoder"]
    system: System
    config: RunConfig
    normalizer: Mapping[str, Any]
    training: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class LoadedEncoder:
    """An encoder with its weights, in eval mode, and the normalizer's record."""

    encoder: Encoder
    normalizer: Mapping[str, Any]
    artifact: Artifact


def write_artifact(
    path: Path,
    module: nn.Module,
    *,
    kind: Literal["model", "encoder"],
    system: System,
    config: RunConfig,
    normalizer: Mapping[str, Any],
    training: Mapping[str, Any],
    scores: Sequence[Score] = (),
) -> None:
    """Write an artifact atomically, in place of an older one.

    Args:
        path: Folder.
        module: The objective (`model`) or the encoder (`encoder`).
        kind: Which of the two.
        system: The system it belongs to.
        config: The resolved configuration.
        normalizer: JSON record of the normalizer.
        training: JSON: steps, data, anything the card should say.
        scores: Evaluation for the card.

    Raises:
        DataError: There is something else in that place.
    """
    if path.exists() and not (path / _CONFIG).is_file():
        raise DataError(f"{path} exists and is no artifact: it would be replaced; choose another output")
    encoder = module if isinstance(module, Encoder) else getattr(module, "encoder", None)
    described = isinstance(encoder, Encoder)
    record = {
        "gridloom": gridloom.__version__,
        "kind": kind,
        "system": system.name,
        "config": to_dict(config),
        "inputs": to_dict(encoder.inputs) if isinstance(encoder, Encoder) else None,
        "outputs": to_dict(encoder.outputs) if isinstance(encoder, Encoder) else None,
        "training": {**training, **({"scores": json.loads(to_json(scores))} if scores else {})},
    }
    with new_folder(path, replace=True) as folder:
        tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in module.state_dict().items()}
        safetensors.torch.save_file(tensors, folder / _WEIGHTS)
        write_json(folder / _CONFIG, record)
        write_json(folder / _NORMALIZER, dict(normalizer))
        count = sum(parameter.numel() for parameter in module.parameters())
        write_text(folder / _CARD, render_card(record, num_parameters=count, scores=scores, has_encoder=described))


def find_artifact(path: Path | str) -> Path:
    """Return the artifact that MODEL means: the folder itself, or the `artifact/` of a run folder.

    Raises:
        CheckpointError: There is none; says what was looked for.
    """
    path = Path(path)
    for candidate in (path, path / "artifact"):
        if (candidate / _CONFIG).is_file():
            return candidate
    if (path / "checkpoints").is_dir():
        raise CheckpointError(
            f"{path}: a run that is not finished, there is no artifact yet; "
            f"run the same `gridloom train` command again to go on, or `gridloom extract {path}` for what there is"
        )
    what = "nothing" if not path.exists() else "a file" if path.is_file() else "another folder"
    raise CheckpointError(f"{path}: expected a run folder or an artifact (a folder with {_CONFIG}), found {what}")


def read_artifact(path: Path | str) -> Artifact:
    """Verify an artifact against its manifest and read what it says of itself.

    Raises:
        CheckpointError: Missing, incomplete or changed.
        ConfigError: Its configuration is not one of this version's systems.
    """
    folder = find_artifact(path)
    verify_manifest(folder)
    record = read_json(folder / _CONFIG)
    try:
        kind, name, settings = record["kind"], record["system"], record["config"]
    except (KeyError, TypeError):
        raise CheckpointError(
            f"{folder / _CONFIG}: not an artifact's description; it needs kind, system and config"
        ) from None
    if kind not in ("model", "encoder"):
        raise ConfigError(f"{folder / _CONFIG}: kind must be 'model' or 'encoder', got {kind!r:.40}")
    system = get_system(name)
    return Artifact(
        path=folder,
        kind=kind,
        system=system,
        config=from_dict(system.config, settings, where=f"{folder / _CONFIG}: config"),
        normalizer=read_json(folder / _NORMALIZER),
        training=record.get("training") or {},
    )


def load_model(path: Path | str) -> tuple[Artifact, Trained]:
    """Load a whole model from a run folder or an artifact.

    Raises:
        CheckpointError: It is an encoder alone, or its weights do not fit.
    """
    artifact = read_artifact(path)
    if artifact.kind != "model":
        raise CheckpointError(f"{artifact.path}: an encoder alone; this needs the whole model, take the run's folder")
    objective = artifact.system.objective(artifact.config)
    load_strictly(artifact.path / _WEIGHTS, objective, read_weights(artifact.path / _WEIGHTS))
    return artifact, Trained(config=artifact.config, objective=objective.eval(), normalizer=artifact.normalizer)


def load_encoder(path: Path | str) -> LoadedEncoder:
    """Load the encoder of a run folder or of either kind of artifact.

    Raises:
        CheckpointError: The system has no encoder, or the weights do not fit.
    """
    artifact = read_artifact(path)
    if artifact.system.encoder is None:
        raise CheckpointError(
            f"{artifact.path}: system {artifact.system.name!r} has no encoder; this artifact is a model"
        )
    if artifact.kind == "model":
        _, trained = load_model(path)
        encoder = trained.objective.encoder
        assert isinstance(encoder, Encoder)
    else:
        encoder = artifact.system.encoder(artifact.config)
        load_strictly(artifact.path / _WEIGHTS, encoder, read_weights(artifact.path / _WEIGHTS))
    return LoadedEncoder(encoder=encoder.eval(), normalizer=artifact.normalizer, artifact=artifact)


def describe_inputs(inputs: InputSpec) -> str:
    """Say in one line which fields an encoder takes."""
    parts = [f"{name} [{', '.join(spec.dims)}]" for name, spec in inputs.fields.items()]
    parts += [f"{name} [{', '.join(spec.dims)}] ({spec.dtype})" for name, spec in inputs.features.items()]
    return ", ".join(parts)
