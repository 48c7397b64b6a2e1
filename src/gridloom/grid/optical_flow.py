"""Optical flow between frames, from OpenCV's DIS (Kroeger et al., ECCV 2016), and what follows from it for a clip.

A flow is backward: for each cell of the current frame the offset (dx, dy) in cells to where its content was in the
previous one, which is sampled at x + flow(x).
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import xarray as xr

from gridloom.core.errors import DataError
from gridloom.grid.opencv import opencv

__all__ = ["CUT_SHARE", "clip_flow", "dis_flow", "occluded_cells", "reduce_clip"]

Preset = Literal["ultrafast", "fast", "medium"]
"""How much work DIS does: medium takes about 25 ms for 360 x 640 pixels on one core, fast a fifth with more error."""

CUT_SHARE = 0.6
"""A frame of which more is occluded starts a new shot: at the cuts of the sample bikes it is 92 % and more, in its
fastest motion 50 %."""

_SMALLEST_SIDE = 64  # DIS reads out of bounds where a side is below twice its patch of 8, and sees little below this
_SMALLEST_RANGE = 1e-12  # of values; equal ones are all black
_HIDDEN_SHARE = 0.25  # of a block, for the block to count as occluded


def dis_flow(
    current: np.ndarray,
    previous: np.ndarray,
    *,
    preset: Preset = "medium",
    value_range: tuple[float | int, float | int] | None = None,
    enlarge: int | None = None,
) -> np.ndarray:
    """Estimate the flow from the current frame back to the previous one.

    For the forward flow (from the previous to the current frame) give the frames the other way round.

    Args:
        current: [height, width], or [channel, height, width]: 1 gray, 3 red, green, blue, or any other number
            (latents), of which the first principal component is used. uint8, or floating.
        previous: As `current`.
        preset: How much work is done.
        value_range: Black and full of floating gray or colors; None takes the smallest and largest value of both.
        enlarge: Times that frames are enlarged for the estimate, >= 1; helps on small maps. None enlarges only those
            with a side below 64 cells.

    Returns:
        float32 [2, height, width]: (dx, dy) in cells.

    Raises:
        DataError: Frames of different or empty shape, or values that are not finite.
        ConfigError: OpenCV is not installed.
    """
    if current.shape != previous.shape or current.ndim not in (2, 3) or not current.size:
        raise DataError(
            f"expected two frames of one shape, [height, width] or [channel, height, width], got {current.shape} and "
            f"{previous.shape}"
        )
    pair = np.stack([current, previous])
    gray = _gray(pair if pair.ndim == 4 else pair[:, None], value_range, _times(pair.shape, enlarge))
    return _flow(_engine(preset), gray[0], gray[1], current.shape[-2:])


def clip_flow(
    clip: xr.Dataset,
    *,
    preset: Preset = "medium",
    value_range: tuple[float | int, float | int] | None = None,
    enlarge: int | None = None,
    cut_share: float | int = CUT_SHARE,
) -> xr.Dataset:
    """Add to a clip the flow between its frames, both ways, what is hidden, and where shots begin.

    Args:
        clip: With `frames` (time, channel, y, x), uint8 or floating.
        preset: As for `dis_flow`.
        value_range: As for `dis_flow`; None takes the smallest and largest value of the clip.
        enlarge: As for `dis_flow`.
        cut_share: A frame of which more than this share is occluded starts a new shot; 0 to 1.

    Returns:
        The clip with `flow` (time, component, y, x), back to the previous frame, 0 for the first one; `flow_next`, to
        the next frame, 0 for the last one; `occluded` and `occluded_next` (time, y, x), cells without a counterpart in
        that frame (`occluded_cells`), all of the first and of the last frame; `cut` (time), never at the first frame.

    Raises:
        DataError: No such `frames`, none at all, or values that are not finite.
        ConfigError: OpenCV is not installed.
    """
    frames = _frames(clip).values
    count, _, height, width = frames.shape
    engine, gray = _engine(preset), _gray(frames, value_range, _times(frames.shape, enlarge))
    flow = np.zeros((2, count, 2, height, width), np.float32)
    occluded = np.ones((2, count, height, width), bool)
    for now in range(1, count):
        backward = _flow(engine, gray[now], gray[now - 1], (height, width))
        forward = _flow(engine, gray[now - 1], gray[now], (height, width))
        flow[0, now], flow[1, now - 1] = backward, forward
        occluded[0, now], occluded[1, now - 1] = occluded_cells(backward, forward), occluded_cells(forward, backward)
    cut = occluded[0].mean(axis=(1, 2)) > cut_share
    cut[:1] = False
    attributes = {"units": "cells", "method": f"OpenCV DIS {preset}"}
    component, cell = ("time", "component", "y", "x"), ("time", "y", "x")
    return clip.assign_coords(component=["dx", "dy"]).assign(
        flow=(component, flow[0], {"long_name": "offset to the previous frame"} | attributes),
        flow_next=(component, flow[1], {"long_name": "offset to the next frame"} | attributes),
        occluded=(cell, occluded[0], {"long_name": "not seen in the previous frame"}),
        occluded_next=(cell, occluded[1], {"long_name": "not seen in the next frame"}),
        cut=("time", cut, {"long_name": "starts a new shot"}),
    )


def occluded_cells(there: np.ndarray, back: np.ndarray, *, tolerance: float | int = 0.5) -> np.ndarray:
    """Find cells whose content the other frame does not show: going there and back does not lead home.

    A cell is occluded where |there + back|^2 > 0.01 (|there|^2 + |back|^2) + tolerance, with `back` sampled where
    `there` leads, or where that lies outside the frame (Sundaram, Brox & Keutzer, ECCV 2010).

    Args:
        there: Flow [2, height, width] from this frame to the other, in cells.
        back: Flow from the other frame to this one.
        tolerance: In squared cells.

    Returns:
        bool [height, width].
    """
    cv2 = opencv()
    height, width = there.shape[1:]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    x, y = x + there[0], y + there[1]
    found = np.stack([cv2.remap(part, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) for part in back])
    apart = ((there + found) ** 2).sum(axis=0)
    length = (there**2).sum(axis=0) + (found**2).sum(axis=0)
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    hidden: np.ndarray = ~inside | (apart > 0.01 * length + tolerance)
    return hidden


def reduce_clip(clip: xr.Dataset, factor: int) -> xr.Dataset:
    """Reduce a clip to means over blocks of cells: the simplest latents.

    Args:
        clip: A clip; pixels of uint8 are divided by 255.
        factor: Cells along a side of a block, >= 1; must divide height and width.

    Returns:
        The clip with float32 `frames`; flows are means divided by `factor`, so that they count the new cells; a block
        is occluded where more than a quarter of it is.

    Raises:
        DataError: No `frames`, none at all, or a size that `factor` does not divide.
    """
    frames = _frames(clip)
    height, width = frames.shape[-2:]
    if factor < 1 or height % factor or width % factor:
        raise DataError(
            f"frames of {height} x {width} cannot be cut into blocks of {factor} x {factor}; "
            "crop them to multiples first: clip.isel(y=slice(...), x=slice(...))"
        )
    reduced: dict[str, Any] = {}
    for name, variable in clip.data_vars.items():
        if variable.dims[-2:] != ("y", "x"):
            reduced[str(name)] = variable
            continue
        means = _block_means(variable.values, factor)
        if variable.dtype == np.uint8:
            means = means / np.float32(255)
        elif variable.dtype == bool:
            means = means > _HIDDEN_SHARE
        elif "component" in variable.dims:
            means = means / np.float32(factor)
        reduced[str(name)] = (variable.dims, means, variable.attrs)
    kept = {name: value for name, value in clip.coords.items() if not {"y", "x"} & set(value.dims)}
    return xr.Dataset(reduced, coords=kept, attrs=clip.attrs)


def _block_means(values: np.ndarray, factor: int) -> np.ndarray:
    *rest, height, width = values.shape
    means = np.empty((*rest, height // factor, width // factor), np.float32)
    for at in np.ndindex(*rest[:1]):  # frame by frame, so that no copy of the whole is made
        blocks = values[at].reshape(*rest[1:], height // factor, factor, width // factor, factor)
        means[at] = blocks.mean(axis=(-3, -1), dtype=np.float32)
    return means


def _frames(clip: xr.Dataset) -> xr.DataArray:
    if "frames" not in clip or clip["frames"].dims != ("time", "channel", "y", "x"):
        found = ", ".join(f"{name} {variable.dims}" for name, variable in clip.data_vars.items()) or "nothing"
        raise DataError(f"expected a clip with `frames` (time, channel, y, x), got {found}")
    if not clip["frames"].size:
        raise DataError(f"expected a clip with at least one frame, got frames of shape {clip['frames'].shape}")
    return clip["frames"]


def _engine(preset: Preset) -> Any:
    """Make a DIS; it takes no time, and is not to be shared by threads."""
    cv2 = opencv()
    presets = {
        "ultrafast": cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST,
        "fast": cv2.DISOPTICAL_FLOW_PRESET_FAST,
        "medium": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
    }
    if preset not in presets:
        raise DataError(f"expected a preset of {', '.join(presets)}, got {preset!r}")
    return cv2.DISOpticalFlow.create(presets[preset])


def _times(shape: Sequence[int], enlarge: int | None) -> int:
    needed = -(-_SMALLEST_SIDE // min(shape[-2:]))
    if enlarge is None:
        return max(needed, 1)
    if enlarge < 1 or min(shape[-2:]) * enlarge < _SMALLEST_SIDE // 4:
        raise DataError(f"frames of {shape[-2]} x {shape[-1]} must be enlarged {needed} times for flow, got {enlarge}")
    return enlarge


def _flow(engine: Any, current: np.ndarray, previous: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Flow on frames of `size`, of gray frames that may be enlarged."""
    flow: np.ndarray = engine.calc(current, previous, None)
    times = current.shape[0] // size[0]
    if times > 1:
        flow = flow.reshape(size[0], times, size[1], times, 2).mean(axis=(1, 3), dtype=np.float32) / np.float32(times)
    return np.ascontiguousarray(np.moveaxis(flow, -1, 0), dtype=np.float32)


def _gray(frames: np.ndarray, value_range: tuple[float | int, float | int] | None, times: int) -> list[np.ndarray]:
    """Turn frames [time, channel, y, x] into gray ones of uint8, enlarged."""
    cv2 = opencv()
    if frames.dtype != np.uint8 or frames.shape[1] not in (1, 3):
        frames = _stretched(frames, value_range)
    pictures = []
    for frame in frames:
        picture = frame[0] if len(frame) == 1 else cv2.cvtColor(np.moveaxis(frame, 0, -1), cv2.COLOR_RGB2GRAY)
        if times > 1:
            size = (picture.shape[1] * times, picture.shape[0] * times)
            picture = cv2.resize(picture.astype(np.float32), size, interpolation=cv2.INTER_CUBIC)
        pictures.append(np.ascontiguousarray(np.rint(np.clip(picture, 0, 255)).astype(np.uint8)))
    return pictures


def _stretched(frames: np.ndarray, value_range: tuple[float | int, float | int] | None) -> np.ndarray:
    """Bring frames to 0..255, those of other than 1 or 3 channels by their first principal component."""
    if not np.isfinite(frames).all():
        raise DataError("optical flow needs frames without NaN or infinity; fill them first")
    if frames.shape[1] not in (1, 3):
        flat = np.moveaxis(frames, 1, 0).reshape(frames.shape[1], -1).astype(np.float64)
        flat = flat - flat.mean(axis=1, keepdims=True)
        main = np.linalg.eigh(flat @ flat.T)[1][:, -1]
        frames, value_range = (main @ flat).reshape(len(frames), 1, *frames.shape[2:]), None
    low, high = value_range or (float(frames.min()), float(frames.max()))
    stretched: np.ndarray = (frames - low) * (255.0 / max(high - low, _SMALLEST_RANGE))
    return stretched.astype(np.float32)
