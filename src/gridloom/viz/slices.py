"""One row of a clip over time, in which flicker shows as noise and motion as slanted lines; and latents as colors."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gridloom.core.errors import DataError
from gridloom.viz.scale import ColorScale
from gridloom.viz.style import MISSING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
else:  # matplotlib is imported where something is drawn
    Axes = Any

__all__ = ["draw_time_slice", "latent_rgb", "time_slice"]

_RGB_SHARE = 0.9  # of the values in 0 to 1, for three channels to count as colors that have some noise on them
_OUTSIDE = 0.01  # of the values of a component, at either end


def time_slice(frames: np.ndarray, row: int) -> np.ndarray:
    """Cut one row out of all frames.

    Args:
        frames: [time, channel, height, width]; 1 channel, or 3 (colors, 0 to 1 or uint8).
        row: Which; negative counts from the bottom.

    Returns:
        [time, width] of 1 channel, as it is; [time, width, 3] of colors, 0 to 1, cut to that range.

    Raises:
        DataError: Another shape (make colors of latents with `latent_rgb`), or a row that is not there.
    """
    if frames.ndim != 4 or frames.shape[1] not in (1, 3):
        raise DataError(f"expected frames [time, 1 or 3 channels, height, width], got shape {frames.shape}")
    height = frames.shape[2]
    if not -height <= row < height:
        raise DataError(f"expected a row from 0 to {height - 1}, got {row}")
    cut = frames[:, :, row]
    return cut[:, 0] if cut.shape[1] == 1 else _colors(np.moveaxis(cut, 1, -1))


def draw_time_slice(
    axes: Axes,
    image: np.ndarray,
    *,
    scale: ColorScale | None = None,
    seconds: float | int | None = None,
    cuts: Sequence[int] = (),
) -> None:
    """Draw a row over time, time downwards.

    Args:
        axes: Empty axes.
        image: Of `time_slice`, [time, width] or [time, width, 3]; or [time, width, 3] of `latent_rgb`, at a row.
        scale: How values become colors where there is one channel; None takes gray between smallest and largest.
        seconds: What the clip lasts, for the axis of time; None numbers the frames.
        cuts: Frames that start a new shot; a line is drawn before each.
    """
    count, width = image.shape[:2]
    end = count if seconds is None else float(seconds)
    options: dict[str, Any] = {"cmap": "gray"} if scale is None else {"cmap": scale.cmap, "norm": scale.norm}
    axes.imshow(image, extent=(0, width, end, 0), aspect="auto", interpolation="nearest", **options)
    axes.set_xlabel("x [cell]")
    axes.set_ylabel("frame" if seconds is None else "time [s]")
    for cut in cuts:
        axes.axhline(cut * end / count, color="#D55E00", linewidth=0.8)


def latent_rgb(arrays: Sequence[np.ndarray], *, colors: bool | None = None) -> list[np.ndarray]:
    """Show latents as colors: their first three principal components, with one basis and one scale for all.

    Args:
        arrays: [..., channel, height, width] each, of one number of channels; gray where a channel is not finite.
        colors: Three channels are red, green, blue from 0 to 1 and stay as they are, cut to that range. None finds out:
            uint8, or nine tenths of all values in 0 to 1.

    Returns:
        [..., height, width, 3] each, 0 to 1.

    Raises:
        DataError: No arrays, different numbers of channels, or `colors` without three of them.
    """
    if not arrays or any(array.ndim < 3 for array in arrays) or len({array.shape[-3] for array in arrays}) > 1:
        raise DataError(
            "expected arrays [..., channel, height, width] of one number of channels, got "
            f"{', '.join(str(array.shape) for array in arrays) or 'none'}"
        )
    channels = arrays[0].shape[-3]
    if colors and channels != 3:
        raise DataError(f"red, green and blue are three channels, got {channels}")
    last = [np.moveaxis(array, -3, -1) for array in arrays]
    if colors or (colors is None and channels == 3 and _look_like_colors(last)):
        return [_colors(array) for array in last]
    flat = np.concatenate([array.reshape(-1, channels) for array in last]).astype(np.float64)
    known = np.isfinite(flat).all(axis=1)
    flat = flat[known] if known.any() else np.zeros((1, channels))
    mean, basis = _principal(flat)
    low, high = np.quantile((flat - mean) @ basis, [_OUTSIDE, 1 - _OUTSIDE], axis=0)
    width = np.where(high > low, high - low, 1.0)
    low = np.where(high > low, low, low - 0.5)  # a component that is constant is in the middle
    finite = [np.where(np.isfinite(array).all(axis=-1, keepdims=True), array, np.nan) for array in last]
    return [_colors(((array - mean) @ basis - low) / width) for array in finite]


def _principal(flat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and three directions [channel, 3] of cells [number, channel]; the largest weight of each is positive."""
    mean = flat.mean(axis=0)
    centered = flat - mean
    basis = np.linalg.eigh(centered.T @ centered)[1][:, ::-1][:, :3]
    strongest = np.take_along_axis(basis, np.abs(basis).argmax(axis=0)[None], axis=0)
    basis = basis * np.where(strongest < 0, -1.0, 1.0)
    if basis.shape[1] == 1:
        return mean, np.repeat(basis, 3, axis=1)  # one channel is gray
    return mean, np.pad(basis, ((0, 0), (0, 3 - basis.shape[1])))


def _look_like_colors(arrays: Sequence[np.ndarray]) -> bool:
    if all(array.dtype == np.uint8 for array in arrays):
        return True
    inside = sum(int(((array >= 0) & (array <= 1)).sum()) for array in arrays)
    known = sum(int(np.isfinite(array).sum()) for array in arrays)
    return inside >= _RGB_SHARE * known


def _colors(image: np.ndarray) -> np.ndarray:
    """Bring colors [..., 3] to 0..1, with the gray of missing cells."""
    from matplotlib.colors import to_rgb

    if image.dtype == np.uint8:
        return image / np.float32(255)
    known = np.isfinite(image).all(axis=-1)
    made = np.clip(np.where(known[..., None], image, 0.0), 0.0, 1.0)
    made[~known] = to_rgb(MISSING)
    return made
