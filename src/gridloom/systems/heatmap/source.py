"""Windows of a record as batches, with what the memory knows at each of their frames."""

import itertools
import math
import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64

from gridloom.core.batch import Batch, Field
from gridloom.core.errors import DataError
from gridloom.core.random import window_keys
from gridloom.systems.heatmap.config import HeatmapConfig
from gridloom.systems.heatmap.encoder import FIELD, SLOT
from gridloom.systems.heatmap.memory import FrameMemory, num_features
from gridloom.systems.heatmap.record import Record, session_starts

__all__ = [
    "REMEMBERED",
    "USUAL",
    "FrameSource",
    "JoinedSource",
    "Remembered",
    "SingleFrames",
    "base_error",
    "cut_record",
    "feature_scale",
    "live_cells",
    "remember",
]

REMEMBERED, USUAL = "remembered", "usual"
_IN_MEMORY_BYTES = 2 * 1024**3
_LEAST_ERROR = 1e-4


class Remembered:
    """What the memory knows when each frame of a record is to be predicted.

    Attributes:
        values: [series, time, feature, channel, cell]; on disk, in a temporary file, where it is large.
        cells: Places of the cells in a frame.
        prior: The seasonal means at the end of the training part.
    """

    def __init__(self, shape: tuple[int, ...], cells: Int64[np.ndarray, " cell"]) -> None:
        self.cells = cells
        self.prior = torch.empty(0)
        if 4 * int(np.prod(shape)) <= _IN_MEMORY_BYTES:
            self.values: np.ndarray = np.empty(shape, dtype=np.float32)
        else:
            folder = tempfile.mkdtemp(prefix="gridloom-")
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
            file = Path(folder) / "remembered.npy"
            self.values = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=shape)


@torch.inference_mode()
def remember(record: Record, config: HeatmapConfig, cells: Int64[np.ndarray, " cell"], train_stop: int) -> Remembered:
    """Walk through a record once.

    Args:
        record: All of it.
        config: Resolved configuration.
        cells: Places of the remembered cells in a frame.
        train_stop: Where the training part ends.
    """
    model = config.model
    shape = (record.num_series, len(record), num_features(model.memory), record.frames.shape[2], len(cells))
    found = Remembered(shape, cells)
    memory = FrameMemory(model, batch=record.num_series, num_cells=len(cells), restart=config.data.within_session)
    valid = torch.from_numpy(record.valid)
    for step in range(len(record)):
        if step == train_stop:
            found.prior = memory.seasonal_means()
        slot = torch.full((record.num_series,), int(record.slot[step]))
        session = torch.full((record.num_series,), int(record.session[step]))
        found.values[:, step] = memory.features(slot, session).numpy()
        frame = record.pixels(time=step).reshape(*shape[:1], shape[3], -1)[:, :, cells]
        memory.update(torch.from_numpy(frame), slot, session, valid[:, step])
    if train_stop >= len(record):
        found.prior = memory.seasonal_means()
    return found


class FrameSource:
    """Windows of consecutive frames; a `core.contracts.Source`.

    A batch has the field `frames` [batch, time, channel, y, x] (pixels), the features `slot` and `session` [batch,
    time] and, where something is remembered, `remembered` [batch, time - 1, feature, channel, cell]: what is known when
    the second, the third, ... frame is to be predicted, with `usual` [batch, time - 1, channel, cell], the base that
    the memory had for the first, the second, ... frame.
    """

    def __init__(
        self,
        record: Record,
        starts: Int64[np.ndarray, "window two"],
        length: int,
        *,
        seed: int,
        remembered: Remembered | None = None,
    ) -> None:
        """Choose windows.

        Args:
            record: The record.
            starts: Series and first frame of each window.
            length: Frames of a window.
            seed: Seed of the run.
            remembered: What the memory knows.
        """
        self.record, self.starts, self.length, self.remembered = record, starts, length, remembered
        self._seed = seed

    def __len__(self) -> int:
        return len(self.starts)

    def collate(self, windows: Sequence[int], epoch: int) -> Batch:
        """Read windows. Safe to call from several threads."""
        chosen = self.starts[list(windows)]
        places = [(int(series), slice(int(start), int(start) + self.length)) for series, start in chosen]
        record = self.record
        frames = torch.from_numpy(np.stack([record.pixels(*place) for place in places]))
        valid = torch.from_numpy(np.stack([record.valid[place] for place in places]))
        features = {
            SLOT: torch.from_numpy(np.stack([record.slot[time] for _, time in places])),
            "session": torch.from_numpy(np.stack([record.session[time] for _, time in places])),
        }
        if self.remembered is not None:
            values = self.remembered.values
            known = [values[series, time.start + 1 : time.stop] for series, time in places]
            usual = [values[series, time.start : time.stop - 1, 0] for series, time in places]
            features[REMEMBERED], features[USUAL] = (torch.from_numpy(np.stack(part)) for part in (known, usual))
        return Batch(
            fields={FIELD: Field(values=frames, valid=valid[:, :, None, None, None])},
            features=features,
            window=torch.tensor(list(windows), dtype=torch.int64),
            key=window_keys(self._seed, epoch, windows),
        )

    def coordinates(self, windows: Sequence[int]) -> Mapping[str, np.ndarray]:
        """Time, slot and session of each window's last frame, and its series."""
        series, start = self.starts[list(windows)].T
        last = start + self.length - 1
        names = self.record.series or ("",) * self.record.num_series
        return {
            "time": self.record.time[last],
            "slot": self.record.slot[last],
            "session": self.record.session[last],
            "series": np.asarray(names)[series],
        }


class JoinedSource:
    """Several sources one after the other, as a source; all windows have the same length.

    Attributes:
        parts: The sources.
    """

    def __init__(self, parts: Sequence[FrameSource], *, seed: int) -> None:
        self.parts, self._seed = tuple(parts), seed
        self._starts = np.cumsum([0, *(len(part) for part in parts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def collate(self, windows: Sequence[int], epoch: int) -> Batch:
        """Read windows, in the order asked."""
        batches = [self._one(window, epoch) for window in windows]
        keys = window_keys(self._seed, epoch, windows)
        field = Field(
            values=torch.cat([batch.fields[FIELD].values for batch in batches]),
            valid=torch.cat([batch.fields[FIELD].valid for batch in batches]),
        )
        features = {name: torch.cat([batch.features[name] for batch in batches]) for name in batches[0].features}
        return Batch(fields={FIELD: field}, features=features, window=torch.tensor(list(windows)), key=keys)

    def coordinates(self, windows: Sequence[int]) -> Mapping[str, np.ndarray]:
        """Where the windows lie."""
        found = [self._place(window) for window in windows]
        parts = [self.parts[part].coordinates([inner]) for part, inner in found]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _place(self, window: int) -> tuple[int, int]:
        part = int(np.searchsorted(self._starts, window, side="right")) - 1
        return part, int(window - self._starts[part])

    def _one(self, window: int, epoch: int) -> Batch:
        part, inner = self._place(window)
        return self.parts[part].collate([inner], epoch)


class SingleFrames:
    """Each frame of a record by itself, for its embedding; a `core.contracts.Source`."""

    def __init__(self, record: Record) -> None:
        self.record = record

    def __len__(self) -> int:
        return self.record.num_series * len(self.record)

    def collate(self, windows: Sequence[int], epoch: int) -> Batch:
        """Read frames, series by series."""
        series, time = np.divmod(np.asarray(windows, dtype=np.int64), len(self.record))
        frames = np.stack([self.record.pixels(int(s), int(t)) for s, t in zip(series, time, strict=True)])
        valid = torch.from_numpy(self.record.valid[series, time])
        return Batch(
            fields={FIELD: Field(values=torch.from_numpy(frames), valid=valid[:, None, None, None])},
            features={SLOT: torch.from_numpy(self.record.slot[time])},
            window=torch.tensor(list(windows), dtype=torch.int64),
            key=window_keys(0, epoch, windows),
        )

    def coordinates(self, windows: Sequence[int]) -> Mapping[str, np.ndarray]:
        """Where the frames lie."""
        series, time = np.divmod(np.asarray(windows, dtype=np.int64), len(self.record))
        names = self.record.series or ("",) * self.record.num_series
        return {"time": self.record.time[time], "series": np.asarray(names)[series]}


def cut_record(
    record: Record, bounds: tuple[int, int], *, length: int, stride: int, within_session: bool
) -> Int64[np.ndarray, "window two"]:
    """Cut windows whose frames to predict (all but the first) lie in a stretch of time.

    Windows in which no frame to predict has happened are left out. The last one of a stretch ends with it.

    Returns:
        Series and first frame of each.

    Raises:
        DataError: None fits.
    """
    low, high = max(bounds[0] - 1, 0), bounds[1]
    stretches = [(low, high)]
    if within_session:
        edges = [low, *(int(place) for place in session_starts(record.session) if low < place < high), high]
        stretches = list(itertools.pairwise(edges))
    starts: list[int] = []
    for first, stop in stretches:
        if stop - first >= length:
            starts += range(first, stop - length + 1, stride)
            if starts[-1] + length < stop:
                starts.append(stop - length)
    found = [
        (series, start)
        for series in range(record.num_series)
        for start in starts
        if record.valid[series, start + 1 : start + length].any()
    ]
    if not found:
        longest = max(stop - first for first, stop in stretches)
        raise DataError(
            f"no window of {length} frames fits into {low} to {high}"
            f"{f' (the longest session has {longest} there)' if within_session else ''}, or nothing happened in any; "
            f"use a smaller data.window, or more data"
        )
    return np.asarray(found, dtype=np.int64)


def live_cells(record: Record, stop: int) -> Int64[np.ndarray, " cell"]:
    """Places of the cells that had an event in the first `stop` frames."""
    seen = record.frames[:, :stop].any(axis=(0, 1, 2))
    return np.flatnonzero(seen).astype(np.int64)


def feature_scale(source: FrameSource) -> tuple[Float[torch.Tensor, "feature channel"], torch.Tensor]:
    """Mean and standard deviation of each remembered feature and channel over a source's stretch."""
    assert source.remembered is not None
    first, last = int(source.starts[:, 1].min()), int(source.starts[:, 1].max()) + source.length
    total = square = np.zeros(source.remembered.values.shape[2:4])
    count = 0
    for step in range(first + 1, last):
        values = source.remembered.values[:, step].astype(np.float64)
        total = total + values.sum(axis=(0, 3))
        square = square + (values**2).sum(axis=(0, 3))
        count += values.shape[0] * values.shape[3]
    mean = total / count
    deviation = np.sqrt(np.maximum(square / count - mean**2, 0.0))
    return torch.from_numpy(mean).float(), torch.from_numpy(deviation).float()


def base_error(source: FrameSource) -> Float[torch.Tensor, " channel"]:
    """Root of the mean squared error of the base over a source's stretch, by channel."""
    assert source.remembered is not None
    known, record = source.remembered, source.record
    first, last = int(source.starts[:, 1].min()), int(source.starts[:, 1].max()) + source.length
    total, count = np.zeros(record.frames.shape[2]), 0
    for step in range(first + 1, last):
        happened = record.valid[:, step]
        frames = record.pixels(time=step)[happened]
        frames = frames.reshape(*frames.shape[:2], math.prod(frames.shape[2:]))[:, :, known.cells]
        error = frames.astype(np.float64) - known.values[happened, step, 0]
        total += (error**2).sum(axis=(0, 2))
        count += len(error) * len(known.cells)
    return torch.from_numpy(np.sqrt(total / max(count, 1))).float().clamp(min=_LEAST_ERROR)
