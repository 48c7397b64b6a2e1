"""Keyed randomness: draws that are a function of (key, stream, position) alone.

A draw that belongs to a sample (mask, negative, noise, augmentation) must not depend on its companions, the rank, the
number of workers or the state of a global generator. The generator is counter-based: SplitMix64's finalizer (Steele,
Lea & Flood 2014, "Fast splittable pseudorandom number generators", figure 16) over key, stream and position. 64-bit
integer arithmetic is exact, so that the numbers are the same on every device.
"""

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

__all__ = ["choose", "epoch_order", "mix", "normal", "permutation", "stream_id", "uniform", "window_keys"]

_GOLDEN = -0x61C8864680B583EB  # 0x9E3779B97F4A7C15 as a signed 64-bit integer
_FIRST = -0x40A7B892E31B1A47  # 0xBF58476D1CE4E5B9
_SECOND = -0x6B2FB644ECCEEE15  # 0x94D049BB133111EB


def _shift_right(value: Tensor, bits: int) -> Tensor:
    """Logical shift: torch shifts signed integers arithmetically."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def mix(value: Int64[Tensor, "*shape"]) -> Int64[Tensor, "*shape"]:
    """SplitMix64's finalizer: a bijection of the 64-bit integers whose output bits look independent."""
    value = (value ^ _shift_right(value, 30)) * _FIRST
    value = (value ^ _shift_right(value, 27)) * _SECOND
    return value ^ _shift_right(value, 31)


def stream_id(name: str) -> int:
    """A fixed 63-bit number for the name of a draw (`"mask"`, `"negatives"`), the same in every process."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big") >> 1


def window_keys(seed: int, epoch: int, windows: Sequence[int] | np.ndarray | Tensor) -> Int64[Tensor, " batch"]:
    """Key of each sample: hash(seed, epoch, window).

    Args:
        seed: Seed of the run.
        epoch: Number of times that the source has been gone through.
        windows: Addresses in the source.
    """
    # A copy, because torch takes neither read-only nor reversed arrays.
    address = torch.from_numpy(np.asarray(windows, dtype=np.int64).copy())
    key = mix(torch.tensor(seed, dtype=torch.int64) + _GOLDEN)
    key = mix(key + torch.tensor(epoch + 1, dtype=torch.int64) * _GOLDEN)
    return mix(key + (address + 1) * _GOLDEN)


def _bits(key: Tensor, shape: tuple[int, ...], stream: str) -> Int64[Tensor, "batch *shape"]:
    base = mix(key ^ stream_id(stream))
    position = torch.arange(1, math.prod(shape) + 1, dtype=torch.int64, device=key.device)
    return mix(base[:, None] + position * _GOLDEN).reshape(len(key), *shape)


def uniform(
    key: Int64[Tensor, " batch"], shape: tuple[int, ...], stream: str, *, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "batch *shape"]:
    """Uniform numbers in [0, 1) for each sample.

    Args:
        key: Keys of the samples, `batch.key`.
        shape: Shape of one sample's draw.
        stream: Name of the draw; other names give independent numbers from the same key.
        dtype: float32 has 24 random bits, float64 has 53.
    """
    bits = 24 if dtype == torch.float32 else 53
    return _shift_right(_bits(key, shape, stream), 64 - bits).to(dtype) * 2.0**-bits


def normal(
    key: Int64[Tensor, " batch"], shape: tuple[int, ...], stream: str, *, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "batch *shape"]:
    """Standard normal numbers for each sample, by the Box-Muller transform in float64."""
    pair = uniform(key, (*shape, 2), stream, dtype=torch.float64)
    radius = torch.sqrt(-2.0 * torch.log1p(-pair[..., 0]))
    return (radius * torch.cos(2.0 * math.pi * pair[..., 1])).to(dtype)


def permutation(key: Int64[Tensor, " batch"], size: int, stream: str) -> Int64[Tensor, "batch size"]:
    """A random order of `range(size)` for each sample."""
    return torch.argsort(_bits(key, (size,), stream), dim=1, stable=True)


def choose(key: Int64[Tensor, " batch"], size: int, count: int, stream: str) -> Bool[Tensor, "batch size"]:
    """A mask with exactly `count` of `size` places True for each sample."""
    if not 0 <= count <= size:
        raise ValueError(f"count must be between 0 and size (={size}), got {count}")
    chosen = torch.zeros(len(key), size, dtype=torch.bool, device=key.device)
    return chosen.scatter_(1, permutation(key, size, stream)[:, :count], True)


def epoch_order(seed: int, epoch: int, size: int) -> np.ndarray:
    """The order in which an epoch goes through a source of `size` windows: a function of (seed, epoch) alone."""
    key = window_keys(seed, epoch, [-1])
    return permutation(key, size, "epoch order")[0].numpy()
