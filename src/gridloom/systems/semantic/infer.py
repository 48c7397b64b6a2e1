"""The configuration of an encoder, read off its weights: for files that do not carry one."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from gridloom.core.errors import CheckpointError
from gridloom.systems.semantic.config import ModelConfig

__all__ = ["infer_model_config"]

_STEM, _PROJECT, _REDUCE = "stem.0.weight", "head.project.weight", "head.reduce.weight"


def infer_model_config(
    path: Path | str, tensors: Mapping[str, Tensor], *, input_channels: int | None = None, latent_dim: int | None = None
) -> ModelConfig:
    """Read layout, channels, width, latent and kind of normalization off an encoder's tensors.

    Args:
        path: Where they come from, for messages.
        tensors: By their names inside the encoder.
        input_channels: What the caller believes; None takes what is there.
        latent_dim: What the caller believes; None takes what is there.

    Raises:
        CheckpointError: They are not those of this encoder, or the caller believes something else.
    """
    for name, axes in ((_STEM, (4,)), (_PROJECT, (2, 4))):
        if name not in tensors or tensors[name].ndim not in axes:
            shape = list(tensors[name].shape) if name in tensors else "nothing"
            raise CheckpointError(
                f"{path}: not the weights of gridloom's encoder: {name} has {' or '.join(map(str, axes))} axes there, "
                f"here {shape}"
            )
    width, planes = tensors[_STEM].shape[:2]
    found = {"input_channels": int(planes) - 1, "latent_dim": int(tensors[_PROJECT].shape[0])}
    for name, believed in (("input_channels", input_channels), ("latent_dim", latent_dim)):
        if believed is not None and believed != found[name]:
            raise CheckpointError(
                f"{path}: {name} is {found[name]} in the weights, {believed} was asked; pass {found[name]}"
            )
    if found["input_channels"] < 1 or width < 1:
        raise CheckpointError(
            f"{path}: {_STEM} is {list(tensors[_STEM].shape)}; the stem takes data channels + 1 planes"
        )
    reduce = tensors.get(_REDUCE)
    return ModelConfig(
        head_channels=ModelConfig.head_channels if reduce is None or not reduce.ndim else max(1, len(reduce)),
        arch="resnet50" if "layer1.0.conv3.weight" in tensors else "resnet18",
        latent="map" if tensors[_PROJECT].ndim == 4 else "vector",
        width=int(width),
        norm="batch" if "stem.1.running_mean" in tensors else "group",
        **found,
    )
