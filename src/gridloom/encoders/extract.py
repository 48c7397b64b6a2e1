"""From a checkpoint to a standalone encoder: an artifact folder, or the seed's `.pth` layout."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from gridloom.core.atomic import new_file, read_json, verify_manifest
from gridloom.core.config import from_dict
from gridloom.core.contracts import Encoder
from gridloom.core.errors import CheckpointError, DataError
from gridloom.core.registry import get_system
from gridloom.core.settings import RunConfig
from gridloom.core.system import System
from gridloom.encoders.artifact import find_artifact, load_encoder, write_artifact
from gridloom.encoders.fitting import probe_batch
from gridloom.encoders.match import check_fit, load_strictly, pick_encoder
from gridloom.encoders.sharded import METADATA
from gridloom.encoders.weights import read_weights
from gridloom.grid.prepare import GridConfig
from gridloom.systems.semantic.config import SemanticConfig
from gridloom.systems.semantic.infer import infer_model_config

__all__ = ["Extraction", "encoder_from_file", "extract_encoder"]

Layout = Literal["artifact", "seed"]


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """What was extracted.

    Attributes:
        output: The artifact folder or the file.
        layout: Which of the two.
        encoder: The encoder, with its weights.
        verified: True if it was read back and compared.
    """

    output: Path
    layout: Layout
    encoder: Encoder
    verified: bool

    @property
    def num_parameters(self) -> int:
        """Parameters of the encoder."""
        return sum(parameter.numel() for parameter in self.encoder.parameters())


@dataclass(frozen=True, kw_only=True)
class _Found:
    encoder: Encoder
    system: System
    config: RunConfig
    normalizer: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)


def extract_encoder(
    checkpoint: Path | str,
    output: Path | str | None = None,
    *,
    input_channels: int | None = None,
    latent_dim: int | None = None,
    verify: bool = False,
    layout: Layout | None = None,
    average: bool = False,
    prefix: str | None = None,
) -> Extraction:
    """Write the encoder of a checkpoint by itself.

    Args:
        checkpoint: A run folder, an artifact, a checkpoint folder of a run, a folder of torch.distributed.checkpoint,
            or a file of weights: a state dict, plain or as wrapped by DDP, torch.compile, FSDP or Lightning, or
            safetensors.
        output: Artifact folder, or a `.pth` file. Default: beside the checkpoint, `NAME_encoder`, with `.pth` if so.
        input_channels: Data channels that the encoder must have; None takes what the weights say.
        latent_dim: Latent size that it must have; None takes what the weights say.
        verify: Read the output back and compare every tensor to the bit and the embeddings of a probe batch.
        layout: `artifact` or `seed` (a `.pth` file with the keys encoder_state_dict, model_config, extracted_from,
            extraction_info). Default: by the output's suffix.
        average: Take averaged weights (EMA) where the file has them.
        prefix: What stands before the encoder's names, where a file has several encoders: `teacher.encoder`.

    Raises:
        CheckpointError: No encoder in it, or it does not fit; never a partly loaded one.
    """
    checkpoint = Path(checkpoint)
    if layout is None:
        layout = "seed" if output is not None and Path(output).suffix in (".pth", ".pt") else "artifact"
    if output is None:
        name = f"{checkpoint.name if checkpoint.is_dir() else checkpoint.stem}_encoder"
        output = checkpoint.parent / (name + (".pth" if layout == "seed" else ""))
    output = Path(output)
    if (layout == "seed") != (output.suffix in (".pth", ".pt")):
        raise DataError(f"{output}: --layout seed writes a .pth file, --layout artifact a folder; they do not fit")
    if output.resolve() == checkpoint.resolve():
        raise DataError(f"{output}: the output is the checkpoint itself; choose another")
    found = _find(checkpoint, input_channels=input_channels, latent_dim=latent_dim, average=average, prefix=prefix)
    if layout == "seed":
        save_torch(output, seed_layout(found.encoder, checkpoint))
    else:
        write_artifact(
            output,
            found.encoder,
            kind="encoder",
            system=found.system,
            config=found.config,
            normalizer=found.normalizer,
            training={**found.training, "extracted_from": str(checkpoint)},
        )
    if verify:
        _verify(found.encoder, output, layout)
    return Extraction(output=output, layout=layout, encoder=found.encoder, verified=verify)


def _find(
    checkpoint: Path, *, input_channels: int | None, latent_dim: int | None, average: bool, prefix: str | None
) -> _Found:
    if not checkpoint.exists():
        raise CheckpointError(f"weights file not found (权重文件不存在): {checkpoint}")
    if checkpoint.is_file() or (checkpoint / METADATA).is_file():
        return encoder_from_file(
            checkpoint, input_channels=input_channels, latent_dim=latent_dim, average=average, prefix=prefix
        )
    folder = _checkpoint_folder(checkpoint)
    if prefix is not None or (average and folder is None):
        raise DataError(f"{checkpoint}: has one encoder; --average and --prefix choose among those of a foreign file")
    if folder is not None:
        found = _from_checkpoint(folder, average)
    else:
        loaded = load_encoder(checkpoint)
        artifact = loaded.artifact
        found = _Found(
            encoder=loaded.encoder,
            system=artifact.system,
            config=artifact.config,
            normalizer=loaded.normalizer,
            training=artifact.training,
        )
    _check_belief(checkpoint, found.encoder, input_channels=input_channels, latent_dim=latent_dim)
    return found


def _check_belief(path: Path, encoder: Encoder, *, input_channels: int | None, latent_dim: int | None) -> None:
    config = getattr(encoder, "config", None)
    for name, believed in (("input_channels", input_channels), ("latent_dim", latent_dim)):
        actual = getattr(config, name, None)
        if believed is not None and actual is not None and actual != believed:
            raise CheckpointError(f"{path}: {name} is {actual} there, {believed} was asked; pass {actual}")


def _checkpoint_folder(path: Path) -> Path | None:
    """The folder itself if it is a checkpoint; the newest one of a run that has no artifact yet."""
    if (path / "state.json").is_file():
        return path
    try:
        find_artifact(path)
    except CheckpointError:
        name = path / "checkpoints" / "latest"
        if name.is_file():
            return name.parent / name.read_text().strip()
        raise
    return None


def _from_checkpoint(folder: Path, average: bool) -> _Found:
    verify_manifest(folder)
    state = read_json(folder / "state.json")
    if not isinstance(state, dict) or not {"system", "config", "step"} <= state.keys():
        raise CheckpointError(
            f"{folder}: not a checkpoint of a run (its state.json names no system); take the run itself"
        )
    system = get_system(state["system"])
    if system.encoder is None:
        raise CheckpointError(f"{folder}: system {system.name!r} has no encoder to extract")
    config = from_dict(system.config, state["config"], where=f"{folder / 'state.json'}: config")
    encoder = system.encoder(config)
    file = folder / "model.safetensors"
    weights = read_weights(file)
    if average:
        averaged = folder / "average.safetensors"
        if not averaged.is_file():
            raise CheckpointError(f"{folder}: no averaged weights; the run was trained without train.ema_decay")
        weights |= read_weights(averaged)
    tensors = pick_encoder(file, weights, anchor=next(iter(encoder.state_dict())))
    load_strictly(file, encoder, tensors)
    return _Found(
        encoder=encoder.eval(),
        system=system,
        config=config,
        normalizer=state.get("normalizer", {}),
        training={"steps": state["step"], "data": state.get("data", "")},
    )


def encoder_from_file(
    path: Path,
    *,
    input_channels: int | None = None,
    latent_dim: int | None = None,
    average: bool = False,
    prefix: str | None = None,
) -> _Found:
    """Load the semantic system's encoder from a file (or sharded folder) of weights, its sizes read off the weights."""
    tensors = pick_encoder(path, read_weights(path), average=average, prefix=prefix)
    model = infer_model_config(path, tensors, input_channels=input_channels, latent_dim=latent_dim)
    system = get_system("semantic")
    config = replace(SemanticConfig(), model=model, data=GridConfig())
    assert system.encoder is not None
    with torch.device("meta"):  # sizes are the file's word: nothing of that size is allocated before all of it fits
        check_fit(path, system.encoder(config), tensors)
    encoder = system.encoder(config)
    load_strictly(path, encoder, tensors)
    return _Found(encoder=encoder.eval(), system=system, config=config, training={"data": "data of its own file"})


def seed_layout(encoder: Encoder, source: Path | str) -> dict[str, Any]:
    """Return the seed's dictionary for an encoder."""
    config = getattr(encoder, "config", None)
    if config is None or len(encoder.inputs.fields) != 1 or encoder.inputs.features:
        raise CheckpointError("the seed's layout holds encoders of one image field alone; use --layout artifact")
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in encoder.state_dict().items()}
    parameters = list(encoder.parameters())
    return {
        "encoder_state_dict": state,
        "model_config": {
            "input_channels": config.input_channels,
            "latent_dim": config.latent_dim,
            "model_type": config.arch,
        },
        "extracted_from": str(source),
        "extraction_info": {
            "total_params": sum(parameter.numel() for parameter in parameters),
            "trainable_params": sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
            "num_weights": len(state),
        },
    }


def save_torch(output: Path, content: Mapping[str, Any]) -> None:
    """Write with torch.save, atomically."""
    if output.is_dir():
        raise DataError(f"{output}: is a folder, expected the name of a .pth file; use save_pretrained for a folder")
    with new_file(output) as temporary:
        torch.save(dict(content), temporary)


def _verify(encoder: Encoder, output: Path, layout: Layout) -> None:
    again = encoder_from_file(output).encoder if layout == "seed" else load_encoder(output).encoder
    ours, theirs = encoder.state_dict(), again.state_dict()
    different = [name for name in ours if name not in theirs or not torch.equal(ours[name], theirs[name])]
    if different or ours.keys() != theirs.keys():
        raise CheckpointError(f"{output}: verification failed, {len(different)} tensors differ: {different[:3]}")
    batch = probe_batch(encoder.inputs)
    with torch.inference_mode():
        embeddings = [model.eval()(batch)["embedding"] for model in (encoder, again)]
    if not torch.equal(*embeddings):
        raise CheckpointError(f"{output}: verification failed, the embeddings of a probe batch differ")
