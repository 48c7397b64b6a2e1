"""stabilize: a video, or latents over time, without flicker."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from torch.nn import functional as F

from gridloom.core.errors import ConfigError, DataError
from gridloom.encoders.artifact import load_model
from gridloom.grid.video import WRITTEN, VideoWriter
from gridloom.grid.write import save_grid
from gridloom.nn.warp import rescale_flow
from gridloom.systems.temporal.clips import CLIP_DIMS, FRAMES
from gridloom.systems.temporal.fusion import FlowDirection
from gridloom.systems.temporal.module import TemporalModule
from gridloom.systems.temporal.objective import FlickerFree
from gridloom.systems.temporal.stream import Clip, Mode, TemporalStream, stabilize_clip
from gridloom.workflows.clip_feed import Feed, FlowSource, Motion, Pair, as_values, steps
from gridloom.workflows.decode import FrameCodec

__all__ = ["RULE", "stabilize", "summarize"]

RULE = "kalman"
"""In place of a model: the filter that works by a rule."""

_HIDDEN_SHARE = 0.25  # of the pixels of a latent's cell, for it to count as occluded
_USUAL_RATE = 25.0


def stabilize(  # noqa: PLR0913 - each is a choice of its own, by name
    data: str | Path | xr.Dataset | xr.DataArray | np.ndarray | Tensor,
    model: Path | str | TemporalModule,
    *,
    flow: FlowSource | str | Path | xr.Dataset | np.ndarray | Tensor = "auto",
    flow_direction: FlowDirection = "cur_to_prev",
    mode: Mode = "causal",
    noise: float | None = None,
    autoencoder: Path | str | None = None,
    output: Path | str | None = None,
    picture: Path | str | None = None,
    row: int | None = None,
    replace: bool = False,
    show: bool = False,
) -> xr.Dataset:
    """Take the flicker out of a video or of latents.

    Args:
        data: A video file, a file or dataset with `frames` (time, channel, y, x) (and `flow`, `occluded`, `cut`; see
            `gridloom.systems.temporal.clips`), a sample, or an array [T,C,H,W].
        model: Run folder or artifact of a temporal model, a module, or the word `kalman`: the recursive filter by rule,
            which needs no training.
        flow: `auto`: the data's own flow; else the model's prediction if it has learnt one; else OpenCV's DIS between
            frames. `dis`, `none`, `predict`: that. Or a file, dataset or array of `flow` (time, component, y, x) in
            pixels.
        flow_direction: How a given `flow` runs: at each frame from it to the one before (`cur_to_prev`), or from the
            one before to it (`prev_to_cur`), which is turned round. One that seems to run the other way is warned of.
        mode: `causal`: each frame from those before; videos are read and written frame by frame. `bidirectional`: from
            all frames, which are held in memory.
        noise: Standard deviation of the flicker in units of the frames (pixels of a video: 0 to 1); None estimates it.
        autoencoder: Run of a semantic autoencoder with a latent map: frames are encoded, their latents stabilized and
            decoded.
        output: A video (`.mp4`, `.mov` with loss; `.avi`, `.mkv` without), `.zarr` or `.nc`; None writes nothing.
        picture: `.png` or `.svg`: one row of pixels over time, before and after; None draws none.
        row: Row of the picture; None is the middle one.
        replace: Overwrite an existing output.
        show: Show progress.

    Returns:
        `frames` (not if they were written as a video), and for each frame `cut`, `weight` (mean weight of the past, 0
        to 1), `variance` (mean variance of the result in units of the flicker's), `noise` (by channel, the standard
        deviation that was reckoned with; NaN as long as nothing is known of it).

    Raises:
        DataError: A model of another system, frames that do not fit it, or an output that exists.
        ConfigError: Packages of the extra `video` are missing.
    """
    target = _checked(data, output, picture, replace)
    if mode not in ("causal", "bidirectional"):
        raise ConfigError(f"mode must be causal or bidirectional, got {mode!r}")
    if noise is not None and not (np.isfinite(noise) and noise > 0):
        raise DataError(f"noise must be a standard deviation above 0, in units of the frames, got {noise}")
    if isinstance(data, xr.DataArray):
        data = data.to_dataset(name=data.name or FRAMES)
    codec = None if autoencoder is None else FrameCodec(autoencoder)
    with ExitStack() as stack:
        feed = Feed.open(data, stack)
        module = _module(model, feed.shape[0] if codec is None else codec.channels)
        _check_channels(module, feed, codec, target)
        motion = Motion.choose(flow, flow_direction, feed, predicts=module.predictor is not None)
        if feed.recording is not None:
            motion.check(feed.recording.frames)
        cells = (_cells(frame, pair, codec) for frame, pair in steps(feed, motion, both=mode == "bidirectional"))
        variance = None if noise is None else torch.full((1, module.channels), float(noise) ** 2)
        found = _Collected(feed, codec, row)
        with torch.inference_mode():
            filtered = _causal(module, cells, variance) if mode == "causal" else _both_ways(module, cells, variance)
            advance = _progress(stack, feed) if show else _silent
            if target is not None and target.suffix.lower() in WRITTEN:
                rate = feed.frames_per_second or _USUAL_RATE
                with VideoWriter(target, frames_per_second=rate) as video:
                    for before, after in filtered:
                        video.write(found.add(before, after, keep=False))
                        advance()
            else:
                for before, after in filtered:
                    found.add(before, after, keep=True)
                    advance()
    result = found.dataset()
    if target is not None and target.suffix.lower() not in WRITTEN:
        save_grid(result, target, replace=replace)
    if picture is not None:
        _draw(found, Path(picture))
    return result


def summarize(found: xr.Dataset) -> dict[str, Any]:
    """Say in a few figures what was done.

    Args:
        found: What `stabilize` returned.

    Returns:
        `frames`; `cuts`, their places; `flicker`, the standard deviation that was reckoned with, mean over channels;
        `weight of the past`; `change if that is what flickers`, 10 log10 of the result's variance over the flicker's,
        in dB: what the filter reckons with, not a measurement. Where nothing follows the motion, it is too good.
    """
    noise = found["noise"].values
    known = noise[np.isfinite(noise).all(axis=1)]
    after = found["variance"].values
    return {
        "frames": int(found.sizes["time"]),
        "cuts": [int(place) for place in np.flatnonzero(found["cut"].values)],
        "flicker": round(float(np.sqrt((known[-1] ** 2).mean())), 6) if len(known) else None,
        "weight of the past": round(float(found["weight"].values.mean()), 3),
        "change if that is what flickers, dB": round(float(10 * np.log10(max(after.mean(), 1e-9))), 2),
    }


@dataclass(frozen=True, kw_only=True)
class _Cells:
    """A frame as the filter takes it, and as it came."""

    raw: np.ndarray
    z: Tensor
    pair: Pair


@dataclass(frozen=True, kw_only=True)
class _After:
    """What became of it."""

    z: Tensor
    cut: bool
    alpha: Tensor
    variance: Tensor
    noise: Tensor


class _Collected:
    """Gathers what is returned and drawn, frame by frame."""

    def __init__(self, feed: Feed, codec: FrameCodec | None, row: int | None) -> None:
        height = feed.shape[1]
        if row is not None and not 0 <= row < height:
            raise DataError(f"row must be from 0 to {height - 1}, got {row}")
        self.row = height // 2 if row is None else row
        self._feed, self._codec = feed, codec
        self.rows: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
        self.last: tuple[np.ndarray, np.ndarray] | None = None
        self.alpha: np.ndarray | None = None
        self._frames: list[np.ndarray] = []
        self._facts: list[tuple[bool, float, float, np.ndarray]] = []

    def add(self, before: _Cells, after: _After, *, keep: bool) -> np.ndarray:
        """Take a frame; returns it as it is to be written."""
        height, width = before.raw.shape[1:]
        z = after.z if self._codec is None else self._codec.decode(after.z, size=(height, width))
        frame: np.ndarray = np.asarray(z[0].numpy())
        came = as_values(before.raw)[0].numpy()
        for rows, values in zip(self.rows, (came, frame), strict=True):
            rows.append(values[:, self.row].T.copy())
        self.last, self.alpha = (came, frame), after.alpha[0, 0].numpy()
        deviation = after.noise[0].sqrt().numpy()
        self._facts.append((after.cut, float(after.alpha.mean()), float(after.variance.mean()), deviation))
        if keep:
            self._frames.append(frame)
        clipped: np.ndarray = np.clip(frame, 0.0, 1.0)
        return clipped

    def dataset(self) -> xr.Dataset:
        """Everything as a dataset."""
        if not self._facts:
            raise DataError(f"{self._feed.name}: no frames")
        cut, weight, variance, noise = (np.asarray(values) for values in zip(*self._facts, strict=True))
        cut = cut.astype(bool)
        cut[0] = False  # a clip has to begin somewhere
        variables: dict[str, Any] = {
            "cut": ("time", cut, {"long_name": "a new shot begins here"}),
            "weight": ("time", weight.astype(np.float32), {"long_name": "mean weight of the past", "units": "1"}),
            "variance": (
                "time",
                variance.astype(np.float32),
                {"long_name": "mean variance of the result over that of the flicker", "units": "1"},
            ),
            "noise": (
                ("time", "latent_channel"),
                noise.astype(np.float32),
                {"long_name": "standard deviation of the flicker that was reckoned with"},
            ),
        }
        coords: dict[str, Any] = dict(self._feed.coords) if self._frames else {}
        recording = self._feed.recording
        if recording is not None:
            coords["time"] = recording.time
        elif self._feed.frames_per_second:
            coords["time"] = np.arange(len(cut)) / self._feed.frames_per_second
        if self._frames:
            variables[FRAMES] = (CLIP_DIMS, np.stack(self._frames))
            if recording is not None and len(recording.channels) == self._frames[0].shape[0]:
                coords["channel"] = list(recording.channels)
        rate = self._feed.frames_per_second
        return xr.Dataset(variables, coords=coords, attrs={"frames_per_second": rate} if rate else {})


def _checked(data: Any, output: Path | str | None, picture: Path | str | None, replace: bool) -> Path | None:
    """Refuse what could only fail after all the work."""
    if picture is not None and Path(picture).suffix not in (".png", ".svg"):
        raise DataError(f"{picture}: a picture is saved as .png or .svg, got {Path(picture).suffix or 'no ending'!r}")
    if output is None:
        return None
    target = Path(output)
    if isinstance(data, str | Path) and target.exists() and target.resolve() == Path(data).resolve():
        raise DataError(f"{target} is what is read; choose another --output")
    if target.exists() and not replace:
        raise DataError(f"{target} exists already; choose another --output, or pass --replace")
    if target.suffix.lower() not in (".nc", ".zarr", *WRITTEN):
        ending = repr(target.suffix) if target.suffix else "no ending"
        raise DataError(f"{target}: expected .mp4, .mov, .avi, .mkv, .zarr or .nc, got {ending}")
    return target


def _module(model: Path | str | TemporalModule, channels: int) -> TemporalModule:
    if isinstance(model, TemporalModule):
        return model.eval()
    if str(model) == RULE and not Path(model).exists():
        return TemporalModule(channels, gate="kalman", interpolation="spline", occlusion="weigh", refiner="none").eval()
    artifact, trained = load_model(model)
    if artifact.system.name != "temporal":
        raise DataError(
            f"{artifact.path}: stabilize needs a model of system temporal, this one is {artifact.system.name}"
        )
    assert isinstance(trained.objective, FlickerFree)
    return trained.objective.module


def _check_channels(module: TemporalModule, feed: Feed, codec: FrameCodec | None, target: Path | None) -> None:
    channels = feed.shape[0] if codec is None else codec.channels
    if channels != module.channels:
        hint = "" if codec is not None else "; latents of a video need the --autoencoder that made them"
        raise DataError(f"{feed.name}: the model takes {module.channels} channels, got {channels}{hint}")
    if target is not None and target.suffix.lower() in WRITTEN and feed.shape[0] not in (1, 3):
        raise DataError(f"{target}: a video has 1 or 3 channels, got {feed.shape[0]}; write .zarr or .nc")


def _cells(frame: np.ndarray, pair: Pair, codec: FrameCodec | None) -> _Cells:
    """Bring a frame and its motion to the cells that are filtered."""
    values = as_values(frame)
    if codec is None:
        return _Cells(raw=frame, z=values, pair=pair)
    z = codec.encode(values)
    size = (z.shape[2], z.shape[3])
    right, bottom = size[1] * codec.stride - frame.shape[2], size[0] * codec.stride - frame.shape[1]

    def moved(flow: Tensor | None) -> Tensor | None:
        return None if flow is None else rescale_flow(F.pad(flow, (0, right, 0, bottom), mode="replicate"), size)

    def hidden(mask: Tensor | None) -> Tensor | None:
        if mask is None:
            return None
        padded = F.pad(mask.float(), (0, right, 0, bottom), mode="replicate")
        return F.avg_pool2d(padded, codec.stride) > _HIDDEN_SHARE

    reduced = Pair(
        flow=moved(pair.flow),
        occluded=hidden(pair.occluded),
        flow_next=moved(pair.flow_next),
        occluded_next=hidden(pair.occluded_next),
        cut=pair.cut,
    )
    return _Cells(raw=frame, z=z, pair=reduced)


def _causal(
    module: TemporalModule, cells: Iterable[_Cells], variance: Tensor | None
) -> Iterator[tuple[_Cells, _After]]:
    stream = TemporalStream(module, noise=variance)
    for one in cells:
        pair = one.pair
        done = stream.push(one.z, pair.flow, occluded=pair.occluded, cut=torch.tensor([pair.cut]))
        yield (
            one,
            _After(z=done.z, cut=bool(done.cut[0]), alpha=done.alpha, variance=done.variance, noise=done.noise),
        )


def _both_ways(
    module: TemporalModule, cells: Iterable[_Cells], variance: Tensor | None
) -> Iterator[tuple[_Cells, _After]]:
    every = list(cells)
    frames = torch.stack([one.z for one in every], dim=1)
    pairs = [one.pair for one in every]

    def along(name: str, blank: Callable[[Tensor], Tensor], *, ahead: bool) -> Tensor | None:
        """Lay what belongs to pairs out by frame: at the later frame of the pair, or at the earlier one."""
        known = [getattr(pair, name) for pair in pairs[1:]]
        if not known or known[0] is None:
            return None
        return torch.stack([*known, blank(known[0])] if ahead else [blank(known[0]), *known], dim=1)

    clip = Clip(
        frames=frames,
        flow=along("flow", torch.zeros_like, ahead=False),
        occluded=along("occluded", torch.ones_like, ahead=False),
        cut=torch.tensor([[pair.cut for pair in pairs]]),
        flow_next=along("flow_next", torch.zeros_like, ahead=True),
        occluded_next=along("occluded_next", torch.ones_like, ahead=True),
        noise=variance,
    )
    done = stabilize_clip(module, clip, mode="bidirectional")
    for index, one in enumerate(every):
        yield (
            one,
            _After(
                z=done.frames[:, index],
                cut=bool(done.cut[0, index]),
                alpha=done.alpha[:, index],
                variance=done.variance[:, index],
                noise=done.noise[:, index],
            ),
        )


def _silent() -> None:
    """Show nothing."""


def _progress(stack: ExitStack, feed: Feed) -> Callable[[], None]:
    from rich.console import Console
    from rich.progress import Progress

    bar = stack.enter_context(Progress(console=Console(stderr=True), transient=True))
    task = bar.add_task("frames", total=feed.num_frames or None)
    return lambda: bar.advance(task)


def _draw(found: _Collected, picture: Path) -> None:
    from gridloom.systems.temporal.pictures.stabilized import draw_stabilized
    from gridloom.viz.style import save

    assert found.last is not None and found.alpha is not None
    before, after = (np.stack(rows) for rows in found.rows)
    figure = draw_stabilized(before, after, last=found.last, alpha=found.alpha, row=found.row)
    save(figure, picture)
