from collections import Counter

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from gridloom.core.errors import DataError
from gridloom.grid.read import open_grid, save_grid
from gridloom.grid.synthetic import waves

ENDINGS = [".nc", ".zarr"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_was_saved_comes_back(tmp_path, ending):
    data = waves(num_times=3)
    data = data.assign(flag=("time", [True, False, True]), count=("time", np.array([1, 2, 3], dtype=np.uint8)))
    data = data.assign_coords(name=("latitude", [f"row {i}" for i in range(32)]), height=2.0)
    save_grid(data, tmp_path / f"a{ending}", attrs={"model": "m"})
    back = open_grid(tmp_path / f"a{ending}").load()
    xr.testing.assert_equal(back, data)
    assert back.attrs["model"] == "m" and back.attrs["title"] == data.attrs["title"]
    assert back["temperature"].dtype == np.float32 and back["temperature"].attrs["units"] == "degree_Celsius"
    assert [path.name for path in tmp_path.iterdir()] == [f"a{ending}"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_packing_is_not_inherited(tmp_path, ending):
    data = xr.Dataset({"a": ("x", np.array([0.0, 15.0, np.nan, 30.0]))})
    packing = {"dtype": "int16", "scale_factor": 0.001, "_FillValue": -32768, "chunksizes": (2,)}
    data.to_netcdf(tmp_path / "packed.nc", engine="h5netcdf", encoding={"a": packing})
    opened = open_grid(tmp_path / "packed.nc")
    changed = opened * 1000
    changed["a"].encoding = dict(opened["a"].encoding)
    save_grid(changed, tmp_path / f"a{ending}")
    np.testing.assert_array_equal(open_grid(tmp_path / f"a{ending}")["a"].values, [0, 15000, np.nan, 30000])


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_is_there_stays_unless_it_is_to_be_replaced(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    save_grid(waves(num_times=2), path)
    with pytest.raises(DataError, match="exists already"):
        save_grid(waves(num_times=3), path)
    assert open_grid(path).sizes["time"] == 2
    save_grid(waves(num_times=3), path, replace=True)
    assert open_grid(path).sizes["time"] == 3


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_can_replace_the_one_it_is_read_from(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    save_grid(waves(num_times=2), path)
    save_grid(open_grid(path).isel(time=[0]), path, replace=True)
    xr.testing.assert_equal(open_grid(path), waves(num_times=2).isel(time=[0]))


@pytest.mark.parametrize(("ending", "place"), [(".nc", "atomic.rename"), (".zarr", "folder.rename")])
def test_an_interrupted_write_leaves_the_old_and_no_wreck(tmp_path, monkeypatch, ending, place):
    path = tmp_path / f"a{ending}"
    save_grid(waves(num_times=2), path)
    monkeypatch.setattr("gridloom.core.faults._passed", Counter())
    monkeypatch.setenv("GRIDLOOM_FAULT", f"{place}:1:raise")
    with pytest.raises(OSError, match="injected fault"):
        save_grid(waves(num_times=3), path, replace=True)
    assert open_grid(path).sizes["time"] == 2
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_flipped_bit_shows_when_it_is_read(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    values = np.random.default_rng(0).normal(size=(64, 64))
    save_grid(xr.Dataset({"a": (("y", "x"), values)}), path)
    file = path if ending == ".nc" else next(item for item in (path / "a" / "c").rglob("*") if item.is_file())
    content = bytearray(file.read_bytes())
    content[len(content) * 3 // 4] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises((OSError, RuntimeError)):
        open_grid(path)["a"].load()


@pytest.mark.parametrize("ending", ENDINGS)
def test_python_objects_and_times_with_a_zone_are_refused(tmp_path, ending):
    objects = xr.Dataset({"a": ("x", np.array([{}, 1], dtype=object))})
    with pytest.raises(DataError, match="variable 'a': Python objects cannot be written"):
        save_grid(objects, tmp_path / f"a{ending}")
    times = pd.date_range("2000-01-01", periods=2, tz="UTC")
    with pytest.raises(DataError, match="without a time zone"):
        save_grid(xr.Dataset({"a": ("time", [1.0, 2.0])}, coords={"time": times}), tmp_path / f"a{ending}")
    assert not list(tmp_path.iterdir())


def test_an_attribute_that_cannot_be_held_is_refused_without_a_wreck(tmp_path):
    with pytest.raises(DataError, match=r"a\.nc: cannot be written"):
        save_grid(waves(num_times=2), tmp_path / "a.nc", attrs={"made": {"by": "me"}})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a", "a.h5", "a.csv"])
def test_other_endings_are_refused(tmp_path, name):
    with pytest.raises(DataError, match=r"ends in \.nc or \.zarr"):
        save_grid(waves(num_times=2), tmp_path / name)


def test_the_folder_is_made(tmp_path):
    save_grid(waves(num_times=2), tmp_path / "deep" / "er" / "a.nc")
    assert (tmp_path / "deep" / "er" / "a.nc").is_file()


def test_zarr_opens_in_xarray_without_a_warning(tmp_path):
    save_grid(waves(num_times=3, height=4, width=5), tmp_path / "grid.zarr")
    with xr.open_zarr(tmp_path / "grid.zarr", chunks=None) as opened:  # warnings are errors
        assert opened.sizes == {"time": 3, "latitude": 4, "longitude": 5}
