import numpy as np
import pandas as pd
import pytest
import xarray as xr
from PIL import Image

from gridloom.core.errors import DataError, UnknownNameError
from gridloom.grid.read import open_grid, save_grid
from gridloom.grid.samples import SAMPLES, open_sample
from gridloom.grid.synthetic import waves


def field(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_a_dataset_passes_through():
    data = waves(num_times=2)
    assert open_grid(data).identical(data)


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_samples_open_by_name_and_say_where_they_come_from(name):
    sample, data = SAMPLES[name], open_grid(name)
    assert sample.name == name and sample.summary and sample.license and sample.origin
    plain = [variable for variable in data.data_vars.values() if variable.dtype.kind != "b"]
    assert data.attrs["title"] and all("units" in variable.attrs for variable in plain)


def test_coads_has_missing_cells_that_differ():
    data = open_sample("coads")
    missing = data.isnull().mean()
    assert dict(data.sizes) == {"month": 12, "lat": 90, "lon": 180} and len(data) == 7
    assert all(0.44 < float(share) < 0.49 for share in missing.values())
    assert (data["sst"].isnull() != data["wind_speed"].isnull()).any()


def test_etopo_is_whole_and_digits_keep_the_order_of_the_file():
    assert open_sample("etopo20")["elevation"].notnull().all()
    digits = open_sample("digits")
    assert digits["image"].shape == (1797, 32, 32) and digits["image"].dtype == np.float32
    assert digits["digit"].values[:10].tolist() == list(range(10))
    assert float(digits["image"].min()) == 0 and float(digits["image"].max()) == 16
    assert (digits["image"][:, ::4, ::4].values.repeat(4, 1).repeat(4, 2) == digits["image"].values).all()


@pytest.mark.parametrize("engine", ["h5netcdf", "scipy"])
def test_netcdf_opens_by_what_is_in_it(tmp_path, engine):
    data = waves(num_times=3)
    data.to_netcdf(tmp_path / "a.nc", engine=engine)
    xr.testing.assert_equal(open_grid(tmp_path / "a.nc"), data)


@pytest.mark.parametrize("version", [2, 3])
def test_zarr_of_both_versions_opens_without_dask(tmp_path, version):
    data = waves(num_times=3)
    data.to_zarr(tmp_path / "a.zarr", zarr_format=version, consolidated=False)
    opened = open_grid(str(tmp_path / "a.zarr"))
    assert opened["temperature"].chunks is None
    xr.testing.assert_equal(opened, data)


def test_plain_hdf5_opens(tmp_path):
    import h5py

    values = field((2, 3, 4))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["depth"] = values
    opened = open_grid(tmp_path / "a.h5")
    np.testing.assert_array_equal(opened["depth"].values, values)


def test_packed_and_foreign_byte_order_come_out_native(tmp_path):
    values = np.array([[0.0, 15.0], [np.nan, 30.0]])
    data = xr.Dataset({"a": (("y", "x"), values)})
    packing = {"dtype": ">i2", "scale_factor": 0.5, "_FillValue": np.int16(-32768)}
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf", encoding={"a": packing})
    opened = open_grid(tmp_path / "a.nc")
    np.testing.assert_array_equal(opened["a"].values, values)
    assert opened["a"].values.dtype.isnative
    foreign = open_grid(xr.Dataset({"a": ("x", np.arange(3, dtype=">f4"))}, coords={"x": np.arange(3, dtype=">i4")}))
    assert foreign["a"].values.dtype.isnative and foreign["a"].values.tolist() == [0, 1, 2]
    assert foreign["x"].values.dtype.isnative


def test_variables_are_chosen_and_unknown_ones_name_the_nearest():
    assert list(open_grid(waves(), variables=["salinity"]).data_vars) == ["salinity"]
    with pytest.raises(UnknownNameError, match="did you mean 'temperature'"):
        open_grid(waves(), variables=["temprature"])


def test_a_calendar_without_its_package_leaves_times_as_numbers(tmp_path, monkeypatch):
    axis = ("time", np.arange(4) * 30, {"units": "days since 2000-01-01", "calendar": "360_day"})
    data = xr.Dataset({"a": ("time", np.arange(4.0))}, coords={"time": axis})
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    monkeypatch.setattr("xarray.coding.times.cftime", None)
    with pytest.warns(UserWarning, match="calendar needs the package cftime"):
        opened = open_grid(tmp_path / "a.nc")
    assert opened["time"].values.tolist() == [0, 30, 60, 90]


def test_npz_axes_become_dimensions(tmp_path):
    arrays = {
        "image": field((5, 2, 3, 4)),
        "depth": field((5, 3, 4)),
        "mask": np.ones((3, 4), dtype=bool),
        "label": np.arange(5),
        "weights": np.arange(7.0),
        "time": np.arange("2001-01-01", "2001-01-06", dtype="M8[D]"),
        "x": np.arange(4.0) * 10,
        "version": np.array(3),
    }
    np.savez(tmp_path / "a.npz", **arrays)
    data = open_grid(tmp_path / "a.npz")
    assert data["image"].dims == ("time", "channel", "y", "x") and data["depth"].dims == ("time", "y", "x")
    assert data["mask"].dims == ("y", "x") and data["label"].dims == ("time",)
    assert data["weights"].dims == ("index_weights",) and data["version"].dims == ()
    assert data["time"].dtype.kind == "M" and data["x"].values.tolist() == [0, 10, 20, 30]
    np.testing.assert_array_equal(data["depth"].values, arrays["depth"])


def test_npy_is_the_variable_values(tmp_path):
    np.save(tmp_path / "a.npy", field((3, 4)).astype(">f4"))
    data = open_grid(tmp_path / "a.npy")
    assert data["values"].dims == ("y", "x") and data["values"].dtype.isnative


class Canary:
    """Unpickled, it would make a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("ending", [".npy", ".npz"])
def test_pickled_objects_are_refused_and_never_run(tmp_path, ending):
    hostile = np.array([Canary(tmp_path / "canary")], dtype=object)
    path = tmp_path / f"a{ending}"
    if ending == ".npy":
        np.save(path, hostile, allow_pickle=True)
    else:
        np.savez(path, a=hostile)
    with pytest.raises(DataError, match="would run code and is refused"):
        open_grid(path)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": np.zeros((3, 4)), "b": np.zeros((3, 5))}, "has 5 cells along 'x', others have 4"),
        ({"x": np.zeros((3, 4))}, "'x' has the name of a dimension"),
        ({"a": np.zeros((1, 1, 1, 1, 1))}, "has 5 axes, at most 4"),
        ({"a": np.zeros(3, dtype=complex)}, "must hold numbers"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=message):
        open_grid(tmp_path / "a.npz")


@pytest.mark.parametrize("name", ["a.nc", "a.h5", "a.npz", "a.npy", "a.grib", "a"])
@pytest.mark.parametrize("content", [b"", b"CDF\x01", b"\x89HDF\r\n\x1a\n", b"PK\x03\x04", b"\x93NUMPY\x01", b"hello"])
def test_damaged_and_foreign_files_are_data_errors_in_one_line(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=name) as caught:
        open_grid(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_names_the_samples():
    with pytest.raises(DataError, match=r"no such file or folder.*did you mean 'coads'.*samples: etopo20, coads"):
        open_grid("coad")


def test_a_file_comes_before_a_sample_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    waves(num_times=2).to_zarr("coads", consolidated=False)
    assert list(open_grid("coads").data_vars) == ["salinity", "temperature"]  # by name, whatever the file system lists


@pytest.mark.parametrize("as_objects", [False, True])
def test_times_with_a_zone_are_refused_with_the_line_that_mends_them(as_objects):
    times = pd.date_range("2000-01-01", periods=2, tz="Europe/Berlin")
    data = xr.Dataset({"a": ("time", [1.0, 2.0])}, coords={"time": times.astype(object) if as_objects else times})
    with pytest.raises(DataError, match=r"axis 'time'.*tz_convert\(None\)"):
        open_grid(data)


def test_images_come_in_natural_order(tmp_path):
    for number in (10, 9, 100):
        Image.fromarray(np.full((4, 6), number, dtype=np.uint8)).save(tmp_path / f"frame{number}.png")
    (tmp_path / "notes.txt").write_text("not an image")
    data = open_grid(tmp_path)
    assert data["image"].dims == ("sample", "y", "x") and data["image"].dtype == np.float32
    assert data["sample"].values.tolist() == ["frame9.png", "frame10.png", "frame100.png"]
    assert data["image"][:, 0, 0].values.tolist() == [9, 10, 100]


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_sixteen_bits_and_colors_keep_their_values(tmp_path, ending):
    deep = np.array([[0, 1, 40000], [65535, 256, 7]], dtype=np.uint16)
    (tmp_path / "deep").mkdir()
    (tmp_path / "color").mkdir()
    Image.fromarray(deep).save(tmp_path / "deep" / f"a{ending}")
    np.testing.assert_array_equal(open_grid(tmp_path / "deep")["image"].values[0], deep)
    color = np.random.default_rng(0).integers(0, 256, (4, 5, 3)).astype(np.uint8)
    Image.fromarray(color).save(tmp_path / "color" / f"a{ending}")
    data = open_grid(tmp_path / "color")["image"]
    assert data.dims == ("sample", "channel", "y", "x")
    np.testing.assert_array_equal(data.values[0], color.transpose(2, 0, 1))


def test_floats_in_a_tiff_keep_their_values(tmp_path):
    values = field((3, 4))
    Image.fromarray(values).save(tmp_path / "a.tiff")
    np.testing.assert_array_equal(open_grid(tmp_path)["image"].values[0], values)


def test_an_image_of_another_size_is_named(tmp_path):
    for index, width in enumerate([4, 4, 5, 6]):
        Image.fromarray(np.zeros((4, width), dtype=np.uint8)).save(tmp_path / f"{index}.png")
    with pytest.raises(DataError, match=r"2\.png: images must agree.*4 x 5 gray, 0\.png is 4 x 4 gray"):
        open_grid(tmp_path)


def test_empty_folders_alpha_and_damaged_images_are_refused(tmp_path):
    with pytest.raises(DataError, match="expected images"):
        open_grid(tmp_path)
    Image.fromarray(np.zeros((4, 4, 4), dtype=np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png: expected a gray or RGB image, got mode RGBA"):
        open_grid(tmp_path)
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
    with pytest.raises(DataError, match=r"a\.png: cannot be read as an image"):
        open_grid(tmp_path)


def test_what_is_opened_and_saved_is_the_same(tmp_path):
    data = open_grid("coads")
    save_grid(data, tmp_path / "a.nc")
    xr.testing.assert_equal(open_grid(tmp_path / "a.nc"), data)
