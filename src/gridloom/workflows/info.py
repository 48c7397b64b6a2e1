"""info: what a run, an artifact or a file of weights is."""

from pathlib import Path
from typing import Any

from gridloom.core.errors import CheckpointError
from gridloom.encoders.artifact import read_artifact
from gridloom.encoders.encoder import SemanticEncoder

__all__ = ["info"]


def info(model: Path | str) -> dict[str, Any]:
    """Describe MODEL: sizes, inputs, training, where it lies.

    Raises:
        CheckpointError: It is neither a run, an artifact nor a file of weights.
    """
    path = Path(model)
    if path.is_file():
        return {"path": str(path), "kind": "file of weights", **SemanticEncoder.from_pretrained(path).get_model_info()}
    if not path.exists():
        raise CheckpointError(f"{path}: expected a run folder, an artifact or a file of weights, found nothing")
    artifact = read_artifact(path)
    described = {"path": str(artifact.path), "kind": artifact.kind, "system": artifact.system.name}
    if artifact.system.encoder is not None:
        described |= SemanticEncoder.from_pretrained(path).get_model_info()
    training = {key: value for key, value in artifact.training.items() if key not in ("splits", "scores")}
    return {**described, **{f"training.{key}": value for key, value in training.items()}}
