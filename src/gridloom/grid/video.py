"""Video files: frames in, frame by frame or as a clip, and frames out. OpenCV does the coding.

A clip is a dataset with `frames` (time, channel, y, x), uint8 red, green, blue of a video (pixel / 255 is the value),
and `time` in seconds.
"""

import math
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import xarray as xr

from gridloom.core.atomic import new_file
from gridloom.core.errors import DataError
from gridloom.grid.opencv import opencv, silence

__all__ = ["SUFFIXES", "WRITTEN", "VideoReader", "VideoWriter", "clip_of", "iterate_frames", "read_video"]

SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".webm")
"""Endings of the files that count as video."""

WRITTEN = (".mp4", ".mov", ".avi", ".mkv")
"""Endings of those that can be written."""

_CODECS = {".mp4": "mp4v", ".mov": "mp4v", ".avi": "FFV1", ".mkv": "FFV1"}
_SHORT = 0.05  # share of the frames told by the file that may not come: containers round and cut
_LARGEST_BYTES = 4 * 1024**3


class VideoReader:
    """A video file, read frame by frame: one frame is in memory at a time.

    A context manager, and an iterator over the frames from first to last, once.

    Attributes:
        height: Rows of a frame.
        width: Columns of a frame.
        frames_per_second: As the file states it.
        num_frames: As the file states it; some containers only give an estimate. 0 if not known.
    """

    def __init__(self, path: Path | str) -> None:
        """Open a file and decode its first frame.

        Args:
            path: `.mp4`, `.avi`, `.mkv`, `.mov`, `.webm`, or whatever else this OpenCV reads.

        Raises:
            DataError: Nothing there, or no video with a frame and a frame rate.
            ConfigError: OpenCV is not installed.
        """
        self._path = Path(path)
        if not self._path.is_file():
            raise DataError(f"{path}: expected a video file, there is none")
        cv2 = self._cv2 = opencv()
        with silence():
            self._capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
        first = self._read()
        rate, count = (float(self._capture.get(key)) for key in (cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_COUNT))
        if first is None or not (math.isfinite(rate) and rate > 0):
            self.close()
            what = "no frame of video" if first is None else "no frame rate"
            raise DataError(
                f"{path}: expected a video, {what} can be read from it; it is empty, cut off or something else"
            )
        self._pending: np.ndarray | None = first
        self._num_read = 0
        self.height, self.width = int(first.shape[1]), int(first.shape[2])
        self.frames_per_second = rate
        self.num_frames = max(int(count), 0)

    def __enter__(self) -> "VideoReader":
        """Return the reader itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self.close()

    def __iter__(self) -> "VideoReader":
        """Return the reader itself: there is one pass."""
        return self

    def __next__(self) -> np.ndarray:
        """Read the next frame.

        Returns:
            uint8 [3, height, width]: red, green, blue.

        Raises:
            DataError: The video ends long before the end that the file tells: it is cut off or damaged.
        """
        frame = self._pending if self._pending is not None else self._read()
        self._pending = None
        if frame is None:
            missing = self.num_frames - self._num_read
            if missing > max(1, _SHORT * self.num_frames):
                raise DataError(
                    f"{self._path}: cut off or damaged, {self._num_read} of {self.num_frames} frames can be read"
                )
            raise StopIteration
        self._num_read += 1
        return frame

    def skip(self, number: int) -> None:
        """Pass over frames; they are decoded, since seeking by number is not exact in all containers."""
        for _ in range(number):
            if self._pending is not None:
                self._pending = None
            elif not self._capture.grab():
                return
            self._num_read += 1

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        self._capture.release()

    def _read(self) -> np.ndarray | None:
        came, pixels = self._capture.read()
        return np.stack(self._cv2.split(pixels)[::-1]) if came else None  # OpenCV has blue first


def iterate_frames(path: Path | str) -> Iterator[np.ndarray]:
    """Read the frames of a video one after the other, with flat memory.

    Yields:
        uint8 [3, height, width].

    Raises:
        DataError: As `VideoReader`.
    """
    with VideoReader(path) as reader:
        yield from reader


def read_video(path: Path | str, *, start: int = 0, stop: int | None = None) -> xr.Dataset:
    """Read a video, or a part of it, into memory.

    Args:
        path: Video file.
        start: Number of the first frame, from 0.
        stop: Number of the frame after the last; None reads to the end.

    Returns:
        A clip: `frames` (time, channel, y, x) uint8, `time` in seconds since the start of the file, the attribute
        `frames_per_second`.

    Raises:
        DataError: Not a video, cut off, no frame between `start` and `stop`, or frames of more than 4 GiB.
    """
    if start < 0 or (stop is not None and stop <= start):
        raise DataError(f"{path}: expected frames 0 <= start < stop, got start={start}, stop={stop}")
    with VideoReader(path) as reader:
        last = reader.num_frames if stop is None else min(stop, reader.num_frames or stop)
        size = (last - start) * 3 * reader.height * reader.width
        if size > _LARGEST_BYTES:
            raise DataError(
                f"{path}: {last - start} frames of {reader.height} x {reader.width} take {size / 1024**3:.0f} GiB of "
                "memory; read a part (read_video(path, start=, stop=)), or frame by frame (iterate_frames)"
            )
        reader.skip(start)
        frames = list(reader if stop is None else islice(reader, stop - start))
        if not frames:
            raise DataError(f"{path}: no frame from number {start} on, it has {reader.num_frames}")
        return clip_of(np.stack(frames), frames_per_second=reader.frames_per_second, start=start)


def clip_of(frames: np.ndarray, *, frames_per_second: float | int, start: int = 0) -> xr.Dataset:
    """Make a clip of frames.

    Args:
        frames: [time, channel, y, x]; uint8 of a video, or float32.
        frames_per_second: Frames in a second.
        start: Number of the first frame in the video that they are from.

    Raises:
        DataError: Another number of axes, or a rate that is not above 0.
    """
    if frames.ndim != 4:
        raise DataError(f"expected frames [time, channel, y, x], got shape {frames.shape}")
    if not (math.isfinite(frames_per_second) and frames_per_second > 0):
        raise DataError(f"expected more than 0 frames per second, got {frames_per_second}")
    seconds = (start + np.arange(len(frames))) / frames_per_second
    time = ("time", seconds, {"units": "s", "long_name": "seconds since the start of the video"})
    values = {"units": "1", "long_name": "red, green, blue, 0 to 255"} if frames.dtype == np.uint8 else {"units": "1"}
    return xr.Dataset(
        {"frames": (("time", "channel", "y", "x"), frames, values)},
        coords={"time": time},
        attrs={"frames_per_second": float(frames_per_second)},
    )


class VideoWriter:
    """A video file that is written frame by frame, and appears under its name only when the block ends well.

    `.mp4` and `.mov` are coded with loss (MPEG-4), `.avi` and `.mkv` without (FFV1). Codecs need an even number of rows
    and columns: the last one is repeated where it is odd.

        with VideoWriter("out.mp4", frames_per_second=25) as video:
            for frame in frames:
                video.write(frame)
    """

    def __init__(self, path: Path | str, *, frames_per_second: float | int) -> None:
        """Check the name; nothing is written yet.

        Args:
            path: `.mp4`, `.mov`, `.avi` or `.mkv`.
            frames_per_second: Above 0.

        Raises:
            DataError: Another suffix, or a rate that is not above 0.
            ConfigError: OpenCV is not installed.
        """
        self._path = Path(path)
        if self._path.suffix.lower() not in _CODECS:
            raise DataError(f"{path}: a video is written as {', '.join(_CODECS)}, got suffix {self._path.suffix!r}")
        if not (math.isfinite(frames_per_second) and frames_per_second > 0):
            raise DataError(f"{path}: expected more than 0 frames per second, got {frames_per_second}")
        self._cv2 = opencv()
        self._rate = float(frames_per_second)
        self._shape: tuple[int, ...] = ()
        self._num_written = 0
        self._coder: Any = None
        self._stack = ExitStack()

    def __enter__(self) -> "VideoWriter":
        """Make the temporary file beside the target."""
        self._temporary = self._stack.enter_context(new_file(self._path))
        self._stack.push(self._finish)  # before the file is renamed
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close and check the file, and rename it; on an error nothing is left behind.

        Raises:
            DataError: No frame was written, or not all came out.
        """
        self._stack.__exit__(kind, error, trace)

    def write(self, frame: np.ndarray) -> None:
        """Add a frame.

        Args:
            frame: [3, height, width] red, green, blue, or gray [1, height, width] or [height, width]; uint8, or
                floating with 0 black and 1 full, rounded and cut to that range. All of one size.

        Raises:
            DataError: Another shape or type than these or than the first frame's, or values that are not finite.
        """
        pixels = _pixels(frame)
        if self._coder is None:
            self._shape = pixels.shape
            self._coder = self._open(pixels)
        elif pixels.shape != self._shape:
            raise DataError(
                f"{self._path}: all frames are of one size, expected {self._shape[1]} x {self._shape[2]} "
                f"(height x width), got {pixels.shape[1]} x {pixels.shape[2]}"
            )
        self._coder.write(self._cv2.merge(list(_even(pixels)[::-1])))  # OpenCV has blue first
        self._num_written += 1

    def _open(self, pixels: np.ndarray) -> Any:
        _, height, width = _even(pixels).shape
        code = self._cv2.VideoWriter.fourcc(*_CODECS[self._path.suffix.lower()])
        with silence():
            coder = self._cv2.VideoWriter(str(self._temporary), self._cv2.CAP_FFMPEG, code, self._rate, (width, height))
        if not coder.isOpened():
            raise DataError(
                f"{self._path}: this OpenCV cannot write {self._path.suffix} of {height} x {width}; take another of "
                f"{', '.join(_CODECS)}"
            )
        return coder

    def _finish(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close, and look whether what was written can be read: OpenCV tells of no failure."""
        if self._coder is not None:
            self._coder.release()
        if kind is not None:
            return
        if not self._num_written:
            raise DataError(f"{self._path}: a video needs at least one frame, none was written")
        with VideoReader(self._temporary) as reader:
            out = reader.num_frames
        if out != self._num_written:
            raise DataError(f"{self._path}: {self._num_written} frames were written, {out} came out; is the disk full?")


def _pixels(frame: np.ndarray) -> np.ndarray:
    """Bring a frame to uint8 [3, height, width]."""
    planes = frame[None] if frame.ndim == 2 else frame
    if planes.ndim != 3 or planes.shape[0] not in (1, 3) or 0 in planes.shape:
        raise DataError(
            f"expected a frame [3, height, width], [1, height, width] or [height, width], got {frame.shape}"
        )
    if planes.dtype != np.uint8:
        if planes.dtype.kind != "f" or not np.isfinite(planes).all():
            raise DataError(f"expected a frame of uint8, or of finite floating values 0 to 1, got {frame.dtype}")
        planes = np.rint(np.clip(planes, 0.0, 1.0) * 255.0).astype(np.uint8)
    return np.broadcast_to(planes, (3, *planes.shape[1:]))


def _even(pixels: np.ndarray) -> np.ndarray:
    """Repeat the last row or column where their number is odd."""
    return np.pad(pixels, ((0, 0), (0, pixels.shape[1] % 2), (0, pixels.shape[2] % 2)), mode="edge")
