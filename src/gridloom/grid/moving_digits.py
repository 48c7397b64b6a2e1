"""Two digits that move on straight lines and bounce at the walls: a forecast that can be nearly perfect."""

import json

import numpy as np
import xarray as xr
from jaxtyping import Int64, UInt8
from numpy.lib.stride_tricks import sliding_window_view

from gridloom.core.errors import DataError

__all__ = ["moving_digits"]

_SPRITE, _COUNT_CAP, _INK = 14, 255, 16
_NUM_PARTS = 10
_START = np.datetime64("2000-01-01", "ns")


def moving_digits(
    *,
    num_sequences: int = 1000,
    num_steps: int = 20,
    size: int = 32,
    speed: tuple[float, float] = (1.7, 3.6),
    seed: int = 0,
) -> xr.Dataset:
    """Make sequences of two channels with one digit each, in the manner of Moving MNIST (Srivastava et al. 2015).

    A digit of scikit-learn's 8 x 8, enlarged to 14 x 14 by nearest neighbor, moves in any direction at a steady speed
    and bounces where it meets a wall; it is drawn at the nearest whole pixel. Each sequence is a session. Digits of a
    tenth of the sequences come from the same tenth of scikit-learn's file, where writers stand together: parts that are
    cut along time at a tenth share neither digits nor, but for the one at the border, writers.

    Args:
        num_sequences: Sequences, a multiple of 10.
        num_steps: Frames of each.
        size: Height and width in pixels, more than 14.
        speed: Least and largest speed in pixels a step; drawn uniformly.
        seed: Makes the same sequences again.

    Returns:
        Frames of events whose counts are shades from 0 to 255; pixels are counts / 255.
    """
    if (
        num_sequences < _NUM_PARTS
        or num_sequences % _NUM_PARTS
        or num_steps < 1
        or size <= _SPRITE
        or not 0 <= speed[0] <= speed[1]
    ):
        raise DataError(
            f"moving digits: expected a multiple of {_NUM_PARTS} sequences, at least 1 step, a size over {_SPRITE} and "
            f"speeds from 0 up, got {num_sequences}, {num_steps}, {size} and {speed}"
        )
    generator = np.random.default_rng(seed)
    sprites = _sprites()
    share = len(sprites) // _NUM_PARTS
    part = np.arange(num_sequences) * _NUM_PARTS // num_sequences
    chosen = part[:, None] * share + generator.integers(share, size=(num_sequences, 2))
    corner = _corners(generator, (num_sequences, num_steps), room=size - _SPRITE, speed=speed)
    frames = np.zeros((num_sequences, num_steps, 2, size, size), dtype=np.uint8)
    windows = sliding_window_view(frames, (_SPRITE, _SPRITE), axis=(-2, -1), writeable=True)
    sequence, step, channel = np.ogrid[:num_sequences, :num_steps, :2]
    windows[sequence, step, channel, corner[..., 0], corner[..., 1]] = sprites[chosen][:, None]
    return _dataset(frames.reshape(-1, 2, size, size), num_sequences, num_steps)


def _sprites() -> UInt8[np.ndarray, "digit y x"]:
    from sklearn.datasets import load_digits

    source = np.arange(_SPRITE) * 8 // _SPRITE
    images = np.asarray(load_digits().images)[:, source[:, None], source]
    return np.rint(images * (_COUNT_CAP / _INK)).astype(np.uint8)


def _corners(
    generator: np.random.Generator, shape: tuple[int, int], *, room: int, speed: tuple[float, float]
) -> Int64[np.ndarray, "sequence step channel 2"]:
    """Upper left corner of each sprite: a straight line, folded at the walls."""
    num_sequences, num_steps = shape
    start = generator.uniform(0, room, size=(num_sequences, 1, 2, 2))
    angle = generator.uniform(0, 2 * np.pi, size=(num_sequences, 1, 2))
    step = generator.uniform(*speed, size=(num_sequences, 1, 2))[..., None] * np.stack(
        [np.sin(angle), np.cos(angle)], -1
    )
    path = start + step * np.arange(num_steps)[:, None, None]
    folded: np.ndarray = np.rint(room - np.abs(path % (2 * room) - room)).astype(np.int64)
    return folded


def _dataset(frames: np.ndarray, num_sequences: int, num_steps: int) -> xr.Dataset:
    num_frames, _, height, width = frames.shape
    step, session = np.tile(np.arange(num_steps), num_sequences), np.repeat(np.arange(num_sequences), num_steps)
    since = (np.arange(num_frames) > 0).astype(np.float32)
    return xr.Dataset(
        {
            "counts": (
                ("time", "channel", "y", "x"),
                frames,
                {"long_name": "ink, 0 to 255", "units": "1", "count_cap": _COUNT_CAP},
            ),
            "valid": ("time", np.ones(num_frames, dtype=bool), {"long_name": "the slot took place"}),
        },
        coords={
            "time": (
                "time",
                _START + np.arange(num_frames) * np.timedelta64(1, "m"),
                {"long_name": "made up: a frame a minute", "time_zone": "UTC"},
            ),
            "slot": ("time", step, {"long_name": "step of the sequence"}),
            "session": ("time", session, {"long_name": "number of the sequence"}),
            "minutes_since_previous": ("time", since, {"units": "minutes"}),
            "auction": ("time", np.zeros(num_frames, dtype=bool), {"long_name": "slot of an auction"}),
            "channel": ["first", "second"],
            "y": ("y", np.arange(height), {"long_name": "row"}),
            "x": ("x", np.arange(width), {"long_name": "column"}),
        },
        attrs={
            "title": "Two digits that move and bounce",
            "source": "made from scikit-learn load_digits (UCI)",
            "num_slots": num_steps,
            "calendar": json.dumps({"name": "sequence", "time_zone": "UTC"}),
            "axes": json.dumps({}),
            "accounting": json.dumps({}),
            "pixel": "linear",
        },
    )
