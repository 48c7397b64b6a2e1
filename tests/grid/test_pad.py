import numpy as np
import pytest
import xarray as xr

from gridloom.core.errors import DataError
from gridloom.grid.check import diagnose
from gridloom.grid.pad import pad_to_windows
from gridloom.grid.prepare import GridConfig, prepare_grid
from gridloom.grid.samples import open_sample


def field(rows, columns):
    values = np.arange(3 * rows * columns, dtype=np.int16).reshape(3, rows, columns)
    coords = {"lat": ("lat", np.arange(rows) * 0.5, {"units": "degrees_north"}), "name": ("time", list("abc"))}
    return xr.Dataset({"a": (("time", "lat", "x"), values, {"units": "K"})}, coords=coords)


def test_missing_cells_come_on_both_sides_and_nothing_else_changes():
    data = field(18, 25)
    padded = pad_to_windows(data, {"lat": 32, "x": 32})
    assert padded["a"].shape == (3, 32, 32) and padded["a"].attrs == {"units": "K"}
    inside = padded["a"][:, 7:25, 3:28]
    np.testing.assert_array_equal(inside.values, data["a"].values)
    assert int(padded["a"].notnull().sum()) == data["a"].size
    assert padded["lat"].values.tolist() == ((np.arange(32) - 7) * 0.5).tolist()
    assert padded["lat"].attrs["units"] == "degrees_north" and "x" not in padded.coords
    assert padded["name"].values.tolist() == list("abc")


@pytest.mark.parametrize(("rows", "columns"), [(32, 40), (16, 32), (1, 32)])
def test_large_enough_and_far_too_small_fields_stay_as_they_are(rows, columns):
    data = field(rows, columns)
    assert pad_to_windows(data, {"lat": 32, "x": 32}) is data


def test_names_along_a_dimension_are_not_continued():
    data = field(18, 32).assign_coords(lat=[f"row {index}" for index in range(18)])
    assert pad_to_windows(data, {"lat": 32}) is data


@pytest.mark.parametrize(("name", "label"), [("faces", "face"), ("ostia", "month")])
def test_small_samples_are_proposed_and_cut_into_windows_of_32(name, label):
    diagnosis = diagnose(open_sample(name))
    assert "--data.window 32" in diagnosis.command and diagnosis.split is not None
    parts = prepare_grid(GridConfig(path=name, window=(32, 32), label=label), seed=0)
    batch = parts.sources["test"].collate([0], 0)
    assert tuple(batch.fields["image"].values.shape) == (1, 1, 32, 32)
    assert label in parts.sources["test"].coordinates([0])


def test_a_window_of_twice_the_field_is_refused():
    with pytest.raises(DataError, match="a window of 36 is larger"):
        prepare_grid(GridConfig(path="ostia", window=(36, 36)), seed=0)
