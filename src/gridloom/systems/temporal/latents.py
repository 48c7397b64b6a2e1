"""The simplest latents of an encoder of patches: their principal components."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from einops import rearrange
from jaxtyping import Float, Float32, UInt8

from gridloom.core.errors import ConfigError, DataError
from gridloom.grid.optical_flow import reduce_clip

__all__ = ["PatchPCA"]

Frames = Float[np.ndarray, "time channel height width"] | UInt8[np.ndarray, "time channel height width"]

_LARGEST_PIXEL = 255.0


@dataclass(frozen=True, kw_only=True)
class PatchPCA:
    """Square patches of frames as a few numbers each, and back.

    The best linear compressor of the patches that it was fitted on, and a plain stand-in for the encoder of a video
    model: like that of one, its latents do not move as pictures do.

    Attributes:
        size: Pixels along a side of a patch.
        mean: The mean patch, pixel by pixel, then channel by channel.
        components: Directions of largest variance, orthonormal rows, in falling order of variance. Signs are those
            that give each a sum of 0 or more.
    """

    size: int
    mean: Float32[np.ndarray, " pixels"]
    components: Float32[np.ndarray, "component pixels"]

    @classmethod
    def fit(cls, clips: Sequence[np.ndarray], *, size: int = 8, num_components: int = 16) -> "PatchPCA":
        """Find the components of the patches of some clips.

        Args:
            clips: Frames of each, [time, channel, y, x]; uint8 is divided by 255. Each clip weighs the same, however
                many patches it has. They need not have one size; what is left over at the right and at the bottom is
                not used.
            size: Pixels along a side of a patch.
            num_components: Numbers that are kept of a patch.

        Raises:
            ConfigError: More numbers than a patch has, or none.
            DataError: No clip, frames smaller than a patch or with values that are not finite, or clips of different
                channels.
        """
        channels = {frames.shape[1] for frames in clips}
        if len(channels) != 1:
            raise DataError(f"expected clips of one number of channels, got {sorted(channels) or 'no clip'}")
        pixels = size * size * channels.pop()
        if not 1 <= num_components <= pixels:
            raise ConfigError(f"num_components must be between 1 and the {pixels} of a patch, got {num_components}")
        first, second = np.zeros(pixels), np.zeros((pixels, pixels))
        for frames in clips:
            sums = [_moments(_patches(frame[None], size)) for frame in frames]
            first += np.mean([one for one, _ in sums], axis=0) / len(clips)
            second += np.mean([other for _, other in sums], axis=0) / len(clips)
        if not np.isfinite(second).all():
            raise DataError("expected frames without NaN or infinity; fill them first")
        vectors = np.linalg.eigh(second - np.outer(first, first))[1][:, ::-1][:, :num_components].T
        vectors = vectors * np.where(vectors.sum(axis=1, keepdims=True) < 0, -1.0, 1.0)
        return cls(size=size, mean=first.astype(np.float32), components=vectors.astype(np.float32))

    def encode(self, frames: Frames) -> Float32[np.ndarray, "time component rows columns"]:
        """Give each patch its numbers.

        Args:
            frames: Of the channels that it was fitted on; uint8 is divided by 255. What is left over at the right and
                at the bottom is not used.

        Raises:
            DataError: Other channels, or frames smaller than a patch.
        """
        offset = self.components @ self.mean
        found = []
        for frame in frames:  # one by one, so that no copy of the clip as patches is made
            patches = _patches(frame[None], self.size)
            if patches.shape[-1] != len(self.mean):
                fitted = len(self.mean) // self.size**2
                raise DataError(f"expected frames of {fitted} channels, as it was fitted on, got {frames.shape[1]}")
            found.append(rearrange(patches @ self.components.T - offset, "1 row column part -> part row column"))
        return np.stack(found)

    def decode(
        self, latents: Float[np.ndarray, "time component rows columns"]
    ) -> Float32[np.ndarray, "time channel height width"]:
        """Give each place its patch: pixels of about 0 to 1, not clipped.

        Raises:
            DataError: Latents of another number of channels than there are components.
        """
        if latents.shape[1] != len(self.components):
            raise DataError(f"expected latents of {len(self.components)} channels, got {latents.shape[1]}")
        patches = np.einsum("tcyx,cp->tyxp", latents.astype(np.float32), self.components, optimize=True) + self.mean
        frames: np.ndarray = rearrange(
            patches, "t y x (channel row column) -> t channel (y row) (x column)", row=self.size, column=self.size
        )
        return np.ascontiguousarray(frames)

    def encode_clip(self, clip: xr.Dataset) -> xr.Dataset:
        """Encode the frames of a clip, and bring its motion onto the grid of the latents.

        Args:
            clip: With `frames` (time, channel, y, x), and whatever else a clip has.

        Returns:
            The clip with `frames` of latents; flows are means over patches, in patches; a patch is occluded where more
            than a quarter of it is.

        Raises:
            DataError: No `frames`, a size that is not a whole number of patches, or other channels.
        """
        reduced = reduce_clip(clip, self.size)
        latents = self.encode(clip["frames"].transpose("time", "channel", "y", "x").values)
        return reduced.drop_vars(["frames", "channel"], errors="ignore").assign(
            frames=(("time", "channel", "y", "x"), latents)
        )


def _patches(frames: np.ndarray, size: int) -> np.ndarray:
    """Cut frames into patches [time, row, column, pixels]."""
    rows, columns = (extent // size for extent in frames.shape[-2:])
    if min(rows, columns) < 1:
        raise DataError(
            f"frames of {frames.shape[-2]} x {frames.shape[-1]} are smaller than a patch of {size} x {size}"
        )
    values = frames[..., : rows * size, : columns * size].astype(np.float32)
    if frames.dtype == np.uint8:
        values /= np.float32(_LARGEST_PIXEL)
    cut: np.ndarray = rearrange(
        values, "t channel (y row) (x column) -> t y x (channel row column)", row=size, column=size
    )
    return cut


def _moments(patches: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and mean outer product of patches."""
    flat = patches.reshape(-1, patches.shape[-1]).astype(np.float64)
    return flat.mean(axis=0), flat.T @ flat / len(flat)
