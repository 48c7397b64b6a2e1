"""Frames with and without their zeros, and frames from plain arrays."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from gridloom.core.errors import DataError
from gridloom.grid.events.axes import LinearAxis
from gridloom.grid.events.frames import open_frames
from gridloom.grid.events.inverse import pixels
from gridloom.grid.events.raster import rasterize
from gridloom.grid.events.store import is_sparse, to_dense, to_sparse
from gridloom.grid.write import save_grid


@pytest.fixture
def frames() -> xr.Dataset:
    generator = np.random.default_rng(0)
    table = {
        "time": np.datetime64("2024-01-02", "ns") + generator.integers(0, 2 * 86_400 * 10**9, 3000),
        "x": generator.normal(size=3000),
        "y": generator.normal(size=3000),
    }
    axis = LinearAxis(low=-3.0, high=3.0, size=8)
    return rasterize(table, time="time", x="x", y="y", x_axis=axis, y_axis=axis, count_cap=2).to_dataset()


@pytest.mark.parametrize("ending", ["nc", "zarr"])
def test_sparse_gives_the_dense_frames_back(frames: xr.Dataset, tmp_path: Path, ending: str) -> None:
    sparse = to_sparse(frames)
    assert is_sparse(sparse) and "counts" not in sparse
    xr.testing.assert_identical(to_dense(sparse), frames)
    save_grid(sparse, tmp_path / f"sparse.{ending}")
    save_grid(frames, tmp_path / f"dense.{ending}")
    from_sparse, from_dense = (open_frames(tmp_path / f"{kind}.{ending}").load() for kind in ("sparse", "dense"))
    xr.testing.assert_equal(from_sparse, from_dense)
    assert from_sparse["counts"].dtype == np.uint8
    assert from_sparse["counts"].attrs["count_cap"] == 2
    assert np.array_equal(from_sparse["counts"], frames["counts"])


def test_damaged_cells_are_refused(frames: xr.Dataset) -> None:
    sparse = to_sparse(frames)
    sparse["cell"] = sparse["cell"] + frames["counts"].size
    with pytest.raises(DataError, match="cell: expected indices below"):
        open_frames(sparse)


def test_whole_numbers_are_counts_and_fractions_are_pixels() -> None:
    counts = np.random.default_rng(0).integers(0, 16, (5, 2, 32, 32))
    opened = open_frames(counts)
    assert np.array_equal(opened["counts"], counts)
    assert opened["counts"].attrs["count_cap"] == 15
    assert opened["slot"].values.tolist() == [0, 1, 2, 3, 4]
    shades = np.linspace(0, 1, 5 * 2 * 32 * 32, dtype=np.float32).reshape(5, 2, 32, 32)
    opened = open_frames(shades)
    back = pixels(opened["counts"].values, 255, scale=opened.attrs["pixel"])
    assert np.abs(back - shades).max() <= 0.5 / 255 + 1e-6


def test_an_array_in_a_file_is_opened(tmp_path: Path) -> None:
    np.save(tmp_path / "frames.npy", np.ones((3, 2, 8, 8), dtype=np.uint8))
    assert open_frames(tmp_path / "frames.npy")["counts"].shape == (3, 2, 8, 8)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.zeros((4, 32, 32)), r"expected \(time, channel, y, x\)"),
        (np.full((4, 2, 8, 8), 1.5), r"expected pixels in \[0, 1\]"),
        (np.full((4, 2, 8, 8), np.nan), r"expected pixels in \[0, 1\]"),
        (np.full((4, 2, 8, 8), -1), "expected counts from 0"),
        (xr.Dataset({"sst": (("time", "lat"), np.zeros((2, 2)))}), "expected frames: a variable 'counts'"),
        (xr.Dataset({"counts": (("a", "b"), np.zeros((2, 2), int))}), "expected counts"),
    ],
)
def test_what_is_no_frames_is_said_in_one_line(wrong: np.ndarray | xr.Dataset, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        open_frames(wrong)
    assert "\n" not in str(error.value)


def test_frames_without_their_coordinates_are_refused(frames: xr.Dataset) -> None:
    with pytest.raises(DataError, match="slot, session"):
        open_frames(frames.drop_vars(["slot", "session"]))
    with pytest.raises(DataError, match="were they scaled already"):
        open_frames(frames.assign(counts=frames["counts"] / 2.0))
