"""Frames to the latents of a trained autoencoder and back, and pictures of what a temporal model does to them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from gridloom.core.batch import Field
from gridloom.core.errors import DataError
from gridloom.encoders.artifact import load_model
from gridloom.grid.normalize import Normalizer
from gridloom.systems.semantic.config import SemanticConfig
from gridloom.systems.semantic.objective import SelfSupervised

__all__ = ["FrameCodec", "decoded_pair"]

_AT_ONCE = 8
"""Frames that go through the network together."""
_PIXEL = 255.0
_PIXEL_NAMES = ("frames", "image")
"""Variables of videos and pictures, whose files hold pixels from 0 to 255."""


class FrameCodec:
    """An autoencoder of system semantic with a latent map, for frames of any size.

    Frames are in the units of the data that it was trained on. Where those were pixels from 0 to 255, frames are from 0
    to 1, as everything that takes videos has them.

    Attributes:
        channels: Of a latent.
        stride: Cells of a frame for one of a latent, along each axis.
        frame_channels: Of a frame.
    """

    def __init__(self, path: Path | str, *, largest: float | None = None) -> None:
        """Load a run or an artifact.

        Args:
            path: Run folder, or artifact of kind `model`: an extracted encoder has no decoder.
            largest: What a full pixel, 1 in a frame, was in the training data. None finds out: 255 for variables
                `frames` or `image` of channels whose means are above 1, else 1.

        Raises:
            CheckpointError: An encoder alone, or no artifact.
            DataError: A model that does not decode latent maps.
        """
        artifact, trained = load_model(path)
        config, objective = trained.config, trained.objective
        if not isinstance(config, SemanticConfig) or not isinstance(objective, SelfSupervised):
            raise DataError(
                f"{artifact.path}: frames are decoded by a model of system semantic, this one is {artifact.system.name}"
            )
        if config.model.latent != "map":
            raise DataError(
                f"{artifact.path}: frames need a latent map, this model has one vector for a window; "
                f"train with --model.latent map"
            )
        if not config.decode:
            raise DataError(f"{artifact.path}: its decoder was not trained; train with --decode and --reconstruct 1")
        self._model = objective.autoencoder
        self._normalizer = Normalizer.from_json(trained.normalizer)
        self._variables = config.data.variables
        for name in self._variables:
            if self._normalizer.needs_position(name):
                raise DataError(f"{artifact.path}: {name!r} is normalized by a climatology, frames have no dates")
        self.channels = config.model.latent_dim
        self.stride = self._model.encoder.downsampling
        self.frame_channels = len(self._variables)
        self._largest = self._find_largest() if largest is None else largest

    def encode(self, frames: Float[Tensor, "time channel y x"]) -> Float[Tensor, "time latent rows columns"]:
        """Encode frames.

        Args:
            frames: Any size: the last row and column are repeated up to a multiple of `stride`. NaN is missing.

        Returns:
            Latents, of y / stride rows and x / stride columns, rounded up.

        Raises:
            DataError: Another number of channels.
        """
        if frames.shape[1] != self.frame_channels:
            raise DataError(
                f"the autoencoder takes frames of {self.frame_channels} channels ({', '.join(self._variables)}), "
                f"got {list(frames.shape)}"
            )
        down, across = (-size % self.stride for size in frames.shape[-2:])
        padded = F.pad(frames.float(), (0, across, 0, down), mode="replicate")
        with torch.no_grad():
            parts = [self._model.encoder.latent(self._normalized(part)) for part in torch.split(padded, _AT_ONCE)]
        return torch.cat(parts)

    def decode(
        self, latents: Float[Tensor, "time latent rows columns"], *, size: tuple[int, int] | None = None
    ) -> Float[Tensor, "time channel y x"]:
        """Decode latents.

        Args:
            latents: What `encode` gave, or made from it.
            size: Rows and columns of the frames, which are cut there; None keeps all.

        Raises:
            DataError: Another number of channels, or a size that the latents do not reach.
        """
        whole = (latents.shape[-2] * self.stride, latents.shape[-1] * self.stride)
        rows, columns = size or whole
        if latents.shape[1] != self.channels or not (0 < rows <= whole[0] and 0 < columns <= whole[1]):
            raise DataError(
                f"expected latents of {self.channels} channels for frames of {rows} x {columns}, got "
                f"{list(latents.shape)} with stride {self.stride}"
            )
        with torch.no_grad():
            parts = [self._model.decoder(part, whole) for part in torch.split(latents.float(), _AT_ONCE)]
        return self._in_units(torch.cat(parts)[..., :rows, :columns])

    def _normalized(self, frames: Tensor) -> Field:
        values = frames.double().numpy() * self._largest
        channels = [self._normalizer.apply(name, values[:, place]) for place, name in enumerate(self._variables)]
        return Field.of(torch.from_numpy(np.stack(channels, axis=1)))

    def _in_units(self, frames: Tensor) -> Tensor:
        values = frames.numpy()
        channels = [self._normalizer.invert(name, values[:, place]) for place, name in enumerate(self._variables)]
        return torch.from_numpy(np.stack(channels, axis=1)) / self._largest

    def _find_largest(self) -> float:
        """Pixels are told by the names of the variables and by their middle."""
        middle = np.zeros(1)
        pixels = all(
            name.rpartition("_")[0] in _PIXEL_NAMES or name in _PIXEL_NAMES for name in self._variables
        ) and all(1 < float(self._normalizer.invert(name, middle)[0]) < _PIXEL for name in self._variables)
        return _PIXEL if pixels else 1.0


def decoded_pair(
    codec: FrameCodec,
    z_prev: Float[Tensor, "batch latent rows columns"],
    z_cur: Float[Tensor, "batch latent rows columns"],
    output: tuple[Tensor, Tensor | None, Mapping[str, Any]],
    *,
    size: tuple[int, int] | None = None,
) -> dict[str, np.ndarray]:
    """Decode what went into a temporal model and what came out, of the first sample.

    Args:
        codec: The autoencoder that made the latents.
        z_prev: Previous latents.
        z_cur: Current latents.
        output: What the module returned for them with `return_warp=True`.
        size: Rows and columns of the frames; None keeps all.

    Returns:
        `previous`, `current`, `warped` and `fused`, each [channel, y, x] from 0 to 1: what `draw_decoded` of the
        temporal system's pictures takes.

    Raises:
        DataError: The module was called without `return_warp=True`, or the latents are not this autoencoder's.
    """
    fused, _, aux = output
    if "z_warp" not in aux:
        raise DataError("the output has no z_warp; call the module with return_warp=True")
    latents = {"previous": z_prev, "current": z_cur, "warped": aux["z_warp"], "fused": fused}
    decoded = codec.decode(torch.cat([latent[:1].detach() for latent in latents.values()]), size=size)
    return {name: np.clip(image.numpy(), 0.0, 1.0) for name, image in zip(latents, decoded, strict=True)}
