"""Clips: frames over time with their motion, from videos, files of latents, samples, datasets."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float

from gridloom.core.errors import DataError
from gridloom.grid.optical_flow import clip_flow, reduce_clip
from gridloom.grid.read import open_grid
from gridloom.systems.temporal.stream import Clip

__all__ = ["CLIP_DIMS", "FRAMES", "Recording", "as_clip", "frames_of", "open_recording"]

FRAMES = "frames"
CLIP_DIMS = ("time", "channel", "y", "x")

_LARGEST_PIXEL = 255.0


@dataclass(frozen=True, kw_only=True)
class Recording:
    """A clip in memory, with flow from each frame to its neighbors where there is any.

    Attributes:
        name: Name of the data.
        frames: Values; NaN where missing.
        flow: From each frame to the one before, in cells; NaN where it is not known, as in the first frame.
        flow_next: From each frame to the one after.
        occluded: Where the frame before does not show what this one does.
        occluded_next: Where the frame after does not.
        cut: True where a frame begins a new shot; False for the first.
        channels: Names of the channels.
        time: Values of the coordinate.
        frames_per_second: 0 where it is not known.
    """

    name: str
    frames: Float[np.ndarray, "time channel y x"]
    flow: Float[np.ndarray, "time 2 y x"] | None
    flow_next: Float[np.ndarray, "time 2 y x"] | None
    occluded: Bool[np.ndarray, "time 1 y x"] | None
    occluded_next: Bool[np.ndarray, "time 1 y x"] | None
    cut: Bool[np.ndarray, " time"]
    channels: tuple[str, ...]
    time: np.ndarray
    frames_per_second: float

    def __len__(self) -> int:
        return len(self.frames)

    def part(self, start: int, stop: int) -> "Recording":
        """The frames of a stretch of time."""
        changes: dict[str, Any] = {
            name: None if (values := getattr(self, name)) is None else values[start:stop]
            for name in ("frames", "flow", "flow_next", "occluded", "occluded_next", "cut", "time")
        }
        return replace(self, **changes)

    def dataset(self) -> xr.Dataset:
        """As a dataset of a clip."""
        variables: dict[str, Any] = {FRAMES: (CLIP_DIMS, self.frames), "cut": ("time", self.cut)}
        for name in ("flow", "flow_next"):
            values = getattr(self, name)
            if values is not None:
                variables[name] = (("time", "component", "y", "x"), values)
        for name in ("occluded", "occluded_next"):
            values = getattr(self, name)
            if values is not None:
                variables[name] = (("time", "y", "x"), values[:, 0])
        coords: dict[str, Any] = {"time": self.time, "channel": list(self.channels)}
        if self.flow is not None:
            coords["component"] = ["dx", "dy"]
        return xr.Dataset(variables, coords=coords, attrs={"frames_per_second": self.frames_per_second})


def open_recording(
    source: str | Path | xr.Dataset, *, factor: int = 1, flow: Literal["dis", "none"] = "dis"
) -> Recording:
    """Open a clip.

    Args:
        source: Video, file, name of a sample, or dataset. Frames are the variable `frames`, or the only one of (time,
            channel, y, x); variables of (time, y, x) become channels. `uint8` is divided by 255.
        factor: Reduce to means of so many pixels along each axis.
        flow: What to do where the clip has no flow of its own: OpenCV's DIS, on the frames before they are reduced; or
            nothing.

    Raises:
        DataError: No frames, or fewer than two.
        ConfigError: OpenCV is not installed.
    """
    if isinstance(source, str) and not source:
        raise DataError(
            "no data: give a video, a file with frames or latents (time, channel, y, x), or the name of a sample (see "
            "`gridloom data list`)"
        )
    name = str(source.attrs.get("title", "a dataset")) if isinstance(source, xr.Dataset) else str(source)
    clip = frames_of(open_grid(source), name)
    if clip.sizes["time"] < 2:
        raise DataError(f"{name}: expected at least 2 frames, got {clip.sizes['time']}")
    if flow == "dis" and "flow" not in clip:
        clip = clip_flow(clip)
    if factor > 1:
        height, width = clip.sizes["y"], clip.sizes["x"]
        if min(height, width) < factor:
            raise DataError(f"{name}: frames of {height} x {width} are smaller than one cell of factor {factor}")
        clip = clip.isel(y=slice(height - height % factor), x=slice(width - width % factor))
        clip = reduce_clip(clip, factor)
    return _recording(clip, name)


def frames_of(data: xr.Dataset, name: str) -> xr.Dataset:
    """Bring the frames of a dataset under their name and into order; what else belongs to a clip stays.

    Raises:
        DataError: There are none, or several.
    """
    kept = [other for other in ("flow", "flow_next", "occluded", "occluded_next", "cut") if other in data]
    if FRAMES in data:
        frames = data[FRAMES]
    else:
        others = [variable for variable in data.data_vars if variable not in kept and data[variable].ndim >= 3]
        whole = [variable for variable in others if data[variable].ndim == 4]
        flat = [variable for variable in others if data[variable].dims[:1] == ("time",) and data[variable].ndim == 3]
        if len(whole) == 1:
            frames = data[whole[0]]
        elif flat and not whole:
            frames = data[flat].to_dataarray("channel")
        else:
            found = ", ".join(f"{variable} {tuple(data[variable].dims)}" for variable in data.data_vars) or "nothing"
            raise DataError(f"{name}: expected frames on (time, channel, y, x) in the variable 'frames', got {found}")
    if "channel" not in frames.dims and frames.ndim == 3:
        frames = frames.expand_dims("channel")
    frames = _named(frames, name)
    clip = xr.Dataset({FRAMES: frames, **{other: data[other] for other in kept}}, attrs=data.attrs)
    orders = {"flow": ("time", "component", "y", "x"), "flow_next": ("time", "component", "y", "x")}
    for other in kept:
        order = orders.get(other, ("time",) if other == "cut" else ("time", "y", "x"))
        if set(clip[other].dims) != set(order):
            raise DataError(f"{name}: {other} must be on {order}, got {clip[other].dims}")
        clip[other] = clip[other].transpose(*order)
    return clip


def _named(frames: xr.DataArray, name: str) -> xr.DataArray:
    """Name the dimensions of frames as a clip has them: time and channel by name, the other two by their order."""
    if "time" not in frames.dims or "channel" not in frames.dims or frames.ndim != 4:
        raise DataError(f"{name}: expected frames on (time, channel, y, x), got {tuple(frames.dims)}; rename them")
    space = [str(dim) for dim in frames.dims if dim not in ("time", "channel")]
    frames = frames.transpose("time", "channel", *space)
    renamed = {old: new for old, new in zip(space, ("y", "x"), strict=True) if old != new}
    return frames.rename(renamed) if renamed else frames


def _recording(clip: xr.Dataset, name: str) -> Recording:
    frames = clip[FRAMES].values
    frames = frames.astype(np.float32) / (_LARGEST_PIXEL if frames.dtype == np.uint8 else 1.0)
    time = clip["time"].values if "time" in clip.coords else np.arange(len(frames), dtype=np.float64)
    channels = clip["channel"].values if "channel" in clip.coords else range(frames.shape[1])
    cut = clip["cut"].values.astype(bool) if "cut" in clip else np.zeros(len(frames), dtype=bool)

    def motion(variable: str) -> np.ndarray | None:
        return clip[variable].values.astype(np.float32) if variable in clip else None

    def hidden(variable: str) -> np.ndarray | None:
        return clip[variable].values.astype(bool)[:, None] if variable in clip else None

    return Recording(
        name=name,
        frames=frames.astype(np.float32),
        flow=motion("flow"),
        flow_next=motion("flow_next"),
        occluded=hidden("occluded"),
        occluded_next=hidden("occluded_next"),
        cut=cut,
        channels=tuple(str(channel) for channel in channels),
        time=time,
        frames_per_second=float(clip.attrs.get("frames_per_second", 0.0)),
    )


def as_clip(recording: Recording, *, noise: Float[np.ndarray, " channel"] | None = None) -> Clip:
    """Return a recording as a batch of one for `stabilize_clip`.

    Args:
        recording: The clip.
        noise: Variance of the flicker by channel; None estimates it.
    """

    def tensor(values: np.ndarray | None) -> torch.Tensor | None:
        return None if values is None else torch.from_numpy(np.ascontiguousarray(values))[None]

    frames = tensor(recording.frames)
    assert frames is not None
    return Clip(
        frames=frames,
        flow=tensor(recording.flow),
        flow_next=tensor(recording.flow_next),
        occluded=tensor(recording.occluded),
        occluded_next=tensor(recording.occluded_next),
        cut=tensor(recording.cut),
        noise=None if noise is None else torch.from_numpy(np.asarray(noise, dtype=np.float32))[None],
    )
