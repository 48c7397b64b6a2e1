"""Windows of clips as batches: a few frames, a crop of them, turned and mirrored while training."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Int64

from gridloom.core.batch import Batch, Field
from gridloom.core.errors import DataError
from gridloom.core.random import uniform, window_keys
from gridloom.systems.temporal.clips import FRAMES, Recording

__all__ = ["CUT", "FLOW", "OCCLUDED", "ClipSource"]

FLOW, CUT, OCCLUDED = "flow", "cut", "occluded"


class ClipSource:
    """Windows of several clips; a `core.contracts.Source`.

    A batch has the field `frames` [batch, time, channel, y, x], the field `flow` [batch, time, 2, y, x] (from each
    frame to the one before, in cells), and the features `occluded` [batch, time, 1, y, x] (the frame before does not
    show what this one does, or its flow is not known) and `cut` [batch, time].
    """

    def __init__(
        self,
        recordings: Sequence[Recording],
        stretches: Sequence[tuple[int, int]],
        *,
        window: int,
        stride: int,
        crop: int,
        seed: int,
        augment: bool,
        turn: bool = True,
    ) -> None:
        """Choose windows.

        Args:
            recordings: The clips.
            stretches: Half-open range of frames of each.
            window: Frames of a window.
            stride: Frames between two windows.
            crop: Cells along both axes; less where a clip is smaller.
            seed: Of the run.
            augment: Let time run back at random.
            turn: Mirror crops and exchange their axes too, if `augment`.

        Raises:
            DataError: No window fits.
        """
        self.recordings, self.window, self.augment, self._seed = list(recordings), window, augment, seed
        self._turn = augment and turn
        least = min(min(recording.frames.shape[2:]) for recording in recordings)
        self.crop = min(crop, least)
        starts = [
            (index, start)
            for index, (low, high) in enumerate(stretches)
            for start in range(low, high - window + 1, stride)
        ]
        if not starts:
            raise DataError(
                f"no window of {window} frames fits into the stretches {list(stretches)}; set data.window lower"
            )
        self.starts: Int64[np.ndarray, "window two"] = np.asarray(starts, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.starts)

    def collate(self, windows: Sequence[int], epoch: int) -> Batch:
        """Read these windows; where a crop lies and how it is turned follows from (seed, epoch, window)."""
        key = window_keys(self._seed, epoch, windows)
        draws = uniform(key, (6,), "crop").numpy()
        cut = [self._cut(int(window), draw) for window, draw in zip(windows, draws, strict=True)]
        frames, flow, seen, starts = (torch.from_numpy(np.stack(parts)) for parts in zip(*cut, strict=True))
        known = torch.isfinite(flow).all(2, keepdim=True)
        return Batch(
            fields={FRAMES: Field.of(frames), FLOW: Field.of(flow, known)},
            features={CUT: starts, OCCLUDED: ~(seen & known)},
            window=torch.as_tensor(np.asarray(windows, dtype=np.int64)),
            key=key,
        )

    def coordinates(self, windows: Sequence[int]) -> Mapping[str, np.ndarray]:
        """Clip and time of the first frame of each window."""
        chosen = self.starts[np.asarray(windows, dtype=np.int64)]
        return {
            "clip": np.asarray([self.recordings[clip].name for clip, _ in chosen]),
            "time": np.asarray([self.recordings[clip].time[start] for clip, start in chosen]),
        }

    def _cut(self, window: int, draw: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return frames, flow, where it holds, and cuts of one window."""
        index, start = self.starts[window]
        recording = self.recordings[index]
        times = slice(start, start + self.window)
        height, width = recording.frames.shape[2:]
        y = int(draw[0] * (height - self.crop + 1))
        x = int(draw[1] * (width - self.crop + 1))
        place = (times, slice(None), slice(y, y + self.crop), slice(x, x + self.crop))
        back = bool(self.augment and draw[2] < 0.5 and recording.flow_next is not None)
        frames = recording.frames[place]
        cut = recording.cut[times].copy()
        flow = recording.flow_next if back else recording.flow
        hidden = recording.occluded_next if back else recording.occluded
        moved = np.zeros((self.window, 2, *frames.shape[2:]), np.float32) if flow is None else flow[place]
        seen = np.ones((self.window, 1, *frames.shape[2:]), bool) if hidden is None else ~hidden[place]
        if back:
            frames, moved, seen = frames[::-1], moved[::-1], seen[::-1]
            cut = np.concatenate([[False], cut[1:][::-1]])
        cut[0] = False
        if self._turn:
            frames, moved, seen = _turn(frames, moved, seen, draw[3:])
        return (
            np.ascontiguousarray(frames),
            np.ascontiguousarray(moved, dtype=np.float32),
            np.ascontiguousarray(seen),
            np.ascontiguousarray(cut),
        )


def _turn(
    frames: np.ndarray, flow: np.ndarray, seen: np.ndarray, draw: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mirror along x and y and exchange the axes, each in half of the cases; offsets go along."""
    if draw[0] < 0.5:
        frames, flow, seen = frames[..., ::-1], flow[..., ::-1] * _sign(-1, 1), seen[..., ::-1]
    if draw[1] < 0.5:
        frames, flow, seen = frames[..., ::-1, :], flow[..., ::-1, :] * _sign(1, -1), seen[..., ::-1, :]
    if draw[2] < 0.5:
        frames, flow, seen = frames.swapaxes(-1, -2), flow[:, ::-1].swapaxes(-1, -2), seen.swapaxes(-1, -2)
    return frames, flow, seen


def _sign(x: int, y: int) -> np.ndarray:
    return np.array([x, y], np.float32)[:, None, None]
