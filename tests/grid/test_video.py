"""Video files: what is written comes back, what is damaged is told in a line, and nothing is left behind."""

import builtins
import subprocess
import sys

import numpy as np
import pytest

from gridloom.core.errors import ConfigError, DataError
from gridloom.grid.read import open_grid
from gridloom.grid.video import VideoReader, VideoWriter, clip_of, iterate_frames, read_video

LOSSLESS, LOSSY = (".avi", ".mkv"), (".mp4", ".mov")


def frames_of(count=6, height=32, width=48, seed=0):
    """Smooth colored frames that move, so that a lossy codec keeps them nearly."""
    y, x = np.mgrid[:height, :width]
    red = np.stack([127 + 100 * np.sin((x + 2 * time) / 7) * np.cos(y / 9) for time in range(count)])
    blue = np.random.default_rng(seed).integers(40, 60, (count, 1, 1)) + 0 * red
    return np.stack([red, 0.5 * red + 30, blue], axis=1).astype(np.uint8)


def write(path, frames, rate=24.0):
    with VideoWriter(path, frames_per_second=rate) as video:
        for frame in frames:
            video.write(frame)
    return path


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_lossless_files_hold_every_bit(suffix, tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (5, 3, 32, 34), dtype=np.uint8)
    clip = read_video(write(tmp_path / f"a{suffix}", frames))
    np.testing.assert_array_equal(clip["frames"].values, frames)


@pytest.mark.parametrize("suffix", LOSSY)
def test_lossy_files_keep_colors_and_their_order(suffix, tmp_path):
    frames = frames_of()
    clip = read_video(write(tmp_path / f"a{suffix}", frames))
    assert np.abs(clip["frames"].values.astype(float) - frames).mean() < 4


def test_a_clip_has_seconds_and_its_rate(tmp_path):
    clip = read_video(write(tmp_path / "a.avi", frames_of(6), rate=12.5))
    assert clip["frames"].dims == ("time", "channel", "y", "x") and clip["frames"].dtype == np.uint8
    assert clip.attrs["frames_per_second"] == 12.5
    np.testing.assert_allclose(clip["time"].values, np.arange(6) / 12.5)
    assert clip["time"].dtype == np.float64 and clip["time"].attrs["units"] == "s"


@pytest.mark.parametrize("suffix", [*LOSSLESS, *LOSSY])
def test_parts_are_the_same_frames_as_in_the_whole(suffix, tmp_path):
    path = write(tmp_path / f"a{suffix}", frames_of(9))
    whole = read_video(path)
    part = read_video(path, start=3, stop=7)
    np.testing.assert_array_equal(part["frames"].values, whole["frames"].values[3:7])
    np.testing.assert_array_equal(part["time"].values, whole["time"].values[3:7])
    np.testing.assert_array_equal(read_video(path, start=8, stop=99)["frames"].values, whole["frames"].values[8:])


def test_a_reader_knows_its_video_and_streams_it(tmp_path):
    frames = frames_of(5)
    path = write(tmp_path / "a.avi", frames)
    with VideoReader(path) as reader:
        assert (reader.height, reader.width, reader.num_frames, reader.frames_per_second) == (32, 48, 5, 24)
        np.testing.assert_array_equal(next(reader), frames[0])
        reader.skip(2)
        np.testing.assert_array_equal(next(reader), frames[3])
        assert len(list(reader)) == 1
    np.testing.assert_array_equal(np.stack(list(iterate_frames(path))), frames)


def test_odd_sizes_lose_no_row_or_column(tmp_path):
    frames = frames_of(2, 31, 33)
    clip = read_video(write(tmp_path / "a.avi", frames))
    assert clip["frames"].shape == (2, 3, 32, 34)
    np.testing.assert_array_equal(clip["frames"].values[..., :31, :33], frames)
    np.testing.assert_array_equal(clip["frames"].values[..., 31, :33], frames[..., 30, :])


def test_floating_and_gray_frames_are_rounded_and_cut_to_bytes(tmp_path):
    gray = np.array([[-0.2, 0.0], [0.5, 1.7]], dtype=np.float32)
    clip = read_video(write(tmp_path / "a.avi", [gray, gray[None], np.stack([gray] * 3)]))
    np.testing.assert_array_equal(clip["frames"].values, np.broadcast_to([[0, 0], [128, 255]], (3, 3, 2, 2)))


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((2, 8, 8), np.uint8),
        np.zeros((8,), np.uint8),
        np.zeros((8, 8), np.int64),
        np.full((8, 8), np.nan),
        np.zeros((3, 0, 8), np.uint8),
        np.zeros((3, 8, 10), np.uint8),
    ],
)
def test_frames_that_do_not_fit_are_refused_and_leave_nothing(frame, tmp_path):
    with (
        pytest.raises(DataError, match="expected") as caught,
        VideoWriter(tmp_path / "a.mp4", frames_per_second=25) as video,
    ):
        video.write(np.zeros((3, 8, 8), np.uint8))
        video.write(frame)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_an_error_keeps_the_old_file(tmp_path):
    path = write(tmp_path / "a.avi", frames_of(2))
    before = path.read_bytes()
    with pytest.raises(KeyError), VideoWriter(path, frames_per_second=25) as video:
        video.write(frames_of(1)[0])
        raise KeyError("of the caller")
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_video_without_frames_is_refused(tmp_path):
    with pytest.raises(DataError, match="at least one frame"), VideoWriter(tmp_path / "a.mp4", frames_per_second=25):
        pass
    assert not list(tmp_path.iterdir())


def test_frames_that_do_not_come_out_are_told(tmp_path, monkeypatch):
    with (
        pytest.raises(DataError, match="3 frames were written, 2 came out"),
        VideoWriter(tmp_path / "a.avi", frames_per_second=25) as video,
    ):
        video.write(frames_of(1)[0])
        video.write(frames_of(1)[0])
        monkeypatch.setattr(video, "_num_written", 3)
    assert not list(tmp_path.iterdir())


def test_other_suffixes_and_rates_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"\.mp4, \.mov, \.avi, \.mkv, got suffix '\.gif'"):
        VideoWriter(tmp_path / "a.gif", frames_per_second=25)
    for rate in (0, -1, float("nan")):
        with pytest.raises(DataError, match="more than 0 frames per second"):
            VideoWriter(tmp_path / "a.mp4", frames_per_second=rate)
        with pytest.raises(DataError, match="more than 0 frames per second"):
            clip_of(frames_of(2), frames_per_second=rate)


@pytest.mark.parametrize("content", [b"", b"no video " * 999])
@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_what_is_no_video_is_told_in_a_line(content, suffix, tmp_path):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    with pytest.raises(DataError, match="expected a video, no frame") as caught:
        open_grid(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".avi", ".mp4"])
def test_a_video_that_is_cut_off_is_told(suffix, tmp_path):
    path = write(tmp_path / f"a{suffix}", np.random.default_rng(0).integers(0, 256, (20, 3, 32, 32), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match="cut off") as caught:
        open_grid(path)
    assert "\n" not in str(caught.value)


def test_a_damaged_video_prints_nothing(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"no video " * 999)
    code = (
        "import sys; from gridloom.grid.video import read_video\n"
        "try: read_video(sys.argv[1])\nexcept ValueError: print('refused')"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("refused\n", "")


def test_parts_that_are_not_there_are_told(tmp_path):
    path = write(tmp_path / "a.avi", frames_of(3))
    with pytest.raises(DataError, match="no frame from number 3 on, it has 3"):
        read_video(path, start=3)
    for start, stop in ((2, 2), (-1, None)):
        with pytest.raises(DataError, match="0 <= start < stop"):
            read_video(path, start=start, stop=stop)
    with pytest.raises(DataError, match="expected a video file, there is none"):
        VideoReader(tmp_path / "b.avi")


def test_videos_that_do_not_fit_into_memory_are_refused_before(tmp_path, monkeypatch):
    path = write(tmp_path / "a.avi", frames_of(4))
    monkeypatch.setattr("gridloom.grid.video._LARGEST_BYTES", 3 * 3 * 32 * 48)
    with pytest.raises(DataError, match=r"4 frames of 32 x 48 .* frame by frame"):
        open_grid(path)
    assert read_video(path, stop=3).sizes["time"] == 3


def test_without_opencv_a_line_says_what_to_install(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **options):
        if name == "cv2":
            raise ImportError(name)
        return real(name, *arguments, **options)

    path = write(tmp_path / "a.avi", frames_of(2))
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"pip install gridloom\[video\]$"):
        open_grid(path)
    with pytest.raises(ConfigError, match=r"pip install gridloom\[video\]$"):
        VideoWriter(path, frames_per_second=25)
