"""Frames of a video, a file or an array one after the other, with the motion between them."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from gridloom.core.errors import ConfigError, DataError
from gridloom.grid.optical_flow import dis_flow, occluded_cells
from gridloom.grid.read import open_grid
from gridloom.grid.video import SUFFIXES, VideoReader
from gridloom.systems.temporal.clips import FRAMES, Recording, frames_of, open_recording
from gridloom.systems.temporal.flow import check_flow_direction, invert_flow
from gridloom.systems.temporal.fusion import FlowDirection

__all__ = ["Feed", "FlowSource", "Motion", "Pair", "as_values", "steps"]

FlowSource = Literal["auto", "dis", "none", "predict"]

_LOGGER = logging.getLogger(__name__)
_LARGEST_PIXEL = 255.0
_CHECKED_PAIRS = 5
_COLORS = (1, 3, 4)


@dataclass(frozen=True, kw_only=True)
class Feed:
    """A clip that is gone through once.

    Attributes:
        name: Where it comes from.
        frames: [channel, y, x] each, uint8 or float32.
        num_frames: How many there will be; of a video an estimate.
        shape: Channels, rows, columns.
        frames_per_second: 0 where it is not known.
        recording: The same in memory, with its own motion; None of a video file.
        coords: Coordinates of rows and columns, where there are any.
    """

    name: str
    frames: Iterable[np.ndarray]
    num_frames: int
    shape: tuple[int, int, int]
    frames_per_second: float
    recording: Recording | None
    coords: Mapping[str, xr.DataArray] = field(default_factory=dict)

    @staticmethod
    def open(data: str | Path | xr.Dataset | np.ndarray | Tensor, stack: ExitStack) -> "Feed":
        """Open a video file frame by frame, anything else in memory.

        Args:
            data: What `gridloom.workflows.stabilize.stabilize` takes.
            stack: Closes the video.

        Raises:
            DataError: No frames.
        """
        if isinstance(data, str | Path) and Path(data).suffix.lower() in SUFFIXES and Path(data).exists():
            reader = stack.enter_context(VideoReader(data))
            return Feed(
                name=str(data),
                frames=reader,
                num_frames=reader.num_frames,
                shape=(3, reader.height, reader.width),
                frames_per_second=reader.frames_per_second,
                recording=None,
            )
        clip = _array_clip(data) if isinstance(data, np.ndarray | Tensor) else open_grid(data)
        name = str(data) if isinstance(data, str | Path) else "the frames"
        named = frames_of(clip, name)
        recording = open_recording(named.assign_attrs(title=name), flow="none")
        kept = {str(axis): named[axis] for axis in ("y", "x") if axis in named.coords}
        pixels = named[FRAMES].values
        return Feed(
            name=name,
            frames=pixels if pixels.dtype == np.uint8 else recording.frames,
            num_frames=len(recording),
            shape=(recording.frames.shape[1], recording.frames.shape[2], recording.frames.shape[3]),
            frames_per_second=recording.frames_per_second,
            recording=recording,
            coords=kept,
        )


def as_values(frame: np.ndarray) -> Tensor:
    """A frame as a batch of one, pixels as numbers from 0 to 1."""
    values = torch.from_numpy(np.array(frame, dtype=np.float32))[None]
    return values / _LARGEST_PIXEL if frame.dtype == np.uint8 else values


def _array_clip(data: np.ndarray | Tensor) -> xr.Dataset:
    values = data.detach().cpu().numpy() if isinstance(data, Tensor) else data
    if values.ndim != 4:
        raise DataError(f"frames must be [T,C,H,W], got {list(values.shape)}")
    if values.shape[3] in _COLORS and values.shape[1] not in _COLORS:
        raise DataError(f"frames must be [T,C,H,W], got {list(values.shape)}: move the channels from the end to axis 1")
    return xr.Dataset({FRAMES: (("time", "channel", "y", "x"), values)})


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The motion between a frame and the one before, [1, 2, y, x] and [1, 1, y, x] each; None where nothing moves.

    Attributes:
        flow: From the frame to the one before.
        occluded: Where the one before does not show what the frame does.
        flow_next: From the one before to the frame.
        occluded_next: Where the frame does not show what the one before did.
        cut: Whether the frame is known to begin a new shot.
    """

    flow: Tensor | None = None
    occluded: Tensor | None = None
    flow_next: Tensor | None = None
    occluded_next: Tensor | None = None
    cut: bool = False


class Motion:
    """Where the motion between frames comes from.

    Attributes:
        kind: `given`, `dis` or `none` (which leaves it to the model, if it predicts).
    """

    def __init__(
        self, kind: Literal["given", "dis", "none"], given: Recording | None, direction: FlowDirection
    ) -> None:
        self.kind, self._given, self._direction = kind, given, direction

    @staticmethod
    def choose(
        flow: FlowSource | str | Path | xr.Dataset | np.ndarray | Tensor,
        direction: FlowDirection,
        feed: Feed,
        *,
        predicts: bool,
    ) -> "Motion":
        """Choose.

        Args:
            flow: What was asked for.
            direction: How a given flow runs.
            feed: The clip.
            predicts: Whether the model predicts flow.

        Raises:
            ConfigError: `predict` of a model that does not.
            DataError: A flow that does not belong to these frames.
        """
        own = feed.recording
        if isinstance(flow, str):
            if flow not in ("auto", "dis", "none", "predict"):
                raise DataError(f"flow must be auto, dis, none, predict, or a file, got {flow!r}")
            if flow == "predict" and not predicts:
                raise ConfigError("this model predicts no flow; train it with --model.predict-flow, or take --flow dis")
            if flow == "auto" and own is not None and own.flow is not None:
                return Motion("given", own, direction)
            dis = flow == "dis" or (flow == "auto" and not predicts)
            return Motion("dis" if dis else "none", None, direction)
        return Motion("given", _read_flow(flow, feed), direction)

    def between(self, index: int, previous: np.ndarray, current: np.ndarray, *, both: bool) -> Pair:
        """The motion from frame `index - 1` to frame `index`.

        Args:
            index: Place of the current frame, from 1.
            previous: The frame before.
            current: The frame.
            both: Whether the way from the frame before is asked for too.
        """
        if self.kind == "none":
            return Pair()
        if self.kind == "dis":
            spread = None if current.dtype == np.uint8 or len(current) not in (1, 3) else (0.0, 1.0)
            back = dis_flow(current, previous, value_range=spread)
            there = dis_flow(previous, current, value_range=spread)
            return Pair(
                flow=torch.from_numpy(back)[None],
                occluded=torch.from_numpy(occluded_cells(back, there))[None, None],
                flow_next=torch.from_numpy(there)[None],
                occluded_next=torch.from_numpy(occluded_cells(there, back))[None, None],
            )
        return self._given_pair(index, both=both)

    def _given_pair(self, index: int, *, both: bool) -> Pair:
        given = self._given
        assert given is not None and given.flow is not None
        flow = torch.from_numpy(given.flow[index])[None]
        occluded = None if given.occluded is None else torch.from_numpy(given.occluded[index])[None]
        if self._direction == "prev_to_cur":
            forward = flow
            flow, known = invert_flow(forward)
            if known is not None:
                occluded = ~known if occluded is None else occluded | ~known
            return Pair(flow=flow, occluded=occluded, flow_next=forward, cut=bool(given.cut[index]))
        if given.flow_next is not None:
            there: Tensor | None = torch.from_numpy(given.flow_next[index - 1])[None]
        else:
            there = invert_flow(flow)[0] if both else None
        hidden = None if given.occluded_next is None else torch.from_numpy(given.occluded_next[index - 1])[None]
        return Pair(flow=flow, occluded=occluded, flow_next=there, occluded_next=hidden, cut=bool(given.cut[index]))

    def check(self, frames: np.ndarray) -> None:
        """Warn where a given flow seems to run the other way.

        Args:
            frames: [time, channel, y, x].
        """
        if self.kind != "given" or len(frames) < 2:
            return
        assert self._given is not None and self._given.flow is not None
        chosen = np.unique(np.linspace(1, len(frames) - 1, min(_CHECKED_PAIRS, len(frames) - 1)).round().astype(int))
        previous, current = (torch.from_numpy(np.nan_to_num(frames[chosen - step])) for step in (1, 0))
        flow = torch.from_numpy(self._given.flow[chosen])
        found = check_flow_direction(previous, current, flow).direction
        if found != "unclear" and found != self._direction:
            _LOGGER.warning(
                "the flow seems to run %s, not %s as said: with the other one the frames fit better; pass "
                "--flow-direction %s",
                found,
                self._direction,
                found,
            )


def _read_flow(flow: Path | xr.Dataset | np.ndarray | Tensor, feed: Feed) -> Recording:
    """Read a flow for the frames of a feed."""
    if isinstance(flow, np.ndarray | Tensor):
        flow = xr.Dataset({"flow": (("time", "component", "y", "x")[-flow.ndim :], np.asarray(flow, dtype=np.float32))})
    data = open_grid(flow)
    name = "the flow" if isinstance(flow, xr.Dataset) else str(flow)
    if "flow" not in data:
        found = ", ".join(map(str, data.data_vars)) or "nothing"
        raise DataError(f"{name}: expected a variable flow (time, component, y, x), got {found}")
    _, height, width = feed.shape
    shape = data["flow"].transpose("time", "component", "y", "x", missing_dims="ignore").shape
    length = shape[0] if len(shape) == 4 else 0
    if shape[1:] != (2, height, width) or (feed.recording is not None and length != feed.num_frames):
        raise DataError(
            f"{name}: expected flow of {feed.num_frames} x 2 x {height} x {width} as the frames are, got "
            f"{' x '.join(map(str, shape))}; the first frame's is not used, but has its place"
        )
    blank = np.broadcast_to(np.zeros((), np.float32), (length, 1, height, width))
    variables = {
        str(other): data[other]
        for other in data.data_vars
        if other in ("flow", "flow_next", "occluded", "occluded_next", "cut")
    }
    clip = xr.Dataset({FRAMES: (("time", "channel", "y", "x"), blank), **variables}, attrs={"title": name})
    return open_recording(clip, flow="none")


def steps(feed: Feed, motion: Motion, *, both: bool) -> Iterator[tuple[np.ndarray, Pair]]:
    """Go through a clip: each frame with its motion; that of the first is empty."""
    previous: np.ndarray | None = None
    for index, frame in enumerate(feed.frames):
        yield frame, Pair() if previous is None else motion.between(index, previous, frame, both=both)
        previous = frame
