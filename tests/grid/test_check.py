import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from gridloom.core.errors import DataError
from gridloom.grid.axes import axis_steps, is_latitude, is_longitude, is_time
from gridloom.grid.check import diagnose, spatial_dims, time_dim
from gridloom.grid.prepare import GridConfig, open_fields, prepare_grid
from gridloom.grid.read import open_grid, save_grid
from gridloom.grid.samples import open_sample
from gridloom.grid.splits import split_blocks
from gridloom.grid.synthetic import waves


def test_variables_are_described_as_they_are():
    data = waves(num_times=10, missing=0.25)
    report = diagnose(data).variables["temperature"]
    values = data["temperature"].values.astype(np.float64)
    assert (report.dims, report.shape) == (("time", "latitude", "longitude"), (10, 32, 32))
    assert (report.dtype, report.units, report.constant) == ("float32", "degree_Celsius", False)
    assert report.missing == pytest.approx(0.25)
    assert (report.minimum, report.maximum) == (np.nanmin(values), np.nanmax(values))
    assert report.mean == pytest.approx(np.nanmean(values))


def test_dimensions_are_described_as_they_are():
    report = diagnose(waves(num_times=10)).dims["time"]
    assert (report.size, report.first, report.last) == (
        10,
        "2001-01-01T00:00:00.000000000",
        "2001-01-10T00:00:00.000000000",
    )
    assert (report.step, report.order, report.calendar) == ("1 days", "ascending", "proleptic_gregorian")
    assert (report.num_gaps, report.num_duplicates, report.periodic) == (0, 0, False)


def test_gaps_and_duplicates_are_counted_and_the_first_three_named():
    times = pd.date_range("2000-01-01", periods=30, freq="D").delete([3, 9, 15, 21])
    gaps = diagnose(xr.Dataset({"a": (("time", "y"), np.zeros((26, 2)))}, coords={"time": times}))
    assert gaps.dims["time"].num_gaps == 4
    assert [name[:10] for name in gaps.dims["time"].gaps] == ["2000-01-05", "2000-01-11", "2000-01-17"]
    twice = diagnose(xr.Dataset({"a": (("time", "y"), np.zeros((4, 2)))}, coords={"time": times[[0, 1, 1, 2]]}))
    assert twice.dims["time"].num_duplicates == 1 and twice.dims["time"].duplicates[0].startswith("2000-01-02")
    assert any("1 duplicates" in note for note in twice.notes) and any("4 gaps" in note for note in gaps.notes)


def test_duplicates_far_apart_are_found():
    data = xr.Dataset({"a": (("x", "y"), np.zeros((4, 2)))}, coords={"x": [1.0, 2.0, 3.0, 1.0]})
    report = diagnose(data).dims["x"]
    assert (report.order, report.num_duplicates) == ("unsorted", 1)


def test_a_gaussian_grid_has_no_gaps_but_a_hole_in_space_is_one():
    latitudes = np.degrees(np.arcsin(np.polynomial.legendre.leggauss(32)[0]))
    data = xr.Dataset({"a": (("lat", "y"), np.zeros((32, 2)))}, coords={"lat": latitudes})
    assert diagnose(data).dims["lat"].num_gaps == 0
    assert diagnose(data.isel(lat=[*range(10), *range(12, 32)])).dims["lat"].num_gaps == 1


def test_oddities_are_noted():
    data = waves(num_times=10).isel(latitude=slice(None, None, -1))
    data["temperature"][:] = 3.0
    data["salinity"][:] = np.nan
    data["name"] = ("time", ["a"] * 10)
    notes = diagnose(data).notes
    assert "latitude: flipped latitude, north first" in notes
    assert "temperature: constant (3)" in notes and "salinity: every cell is missing" in notes
    assert "variables that hold no numbers were left out: name" in notes


def test_a_diagnosis_is_json_even_where_nothing_is_known():
    data = waves(num_times=10)
    data["salinity"][:] = np.nan
    record = json.loads(json.dumps(diagnose(data).to_json(), allow_nan=False))
    assert record["variables"]["salinity"]["mean"] is None
    assert record["split"] is None and record["command"] == ""
    assert record["notes"][-1] == "no proposal for a split before this is mended"


def test_time_is_split_where_there_are_eight_steps_and_space_where_not():
    assert diagnose(waves(num_times=8)).split.dim == "time"
    few = diagnose(waves(num_times=7, height=64, width=192))
    assert few.split.dim == "longitude" and few.split.window > 1


def test_the_split_of_a_map_goes_round_the_earth_with_gaps_of_a_window():
    diagnosis = diagnose(open_sample("etopo20"))
    assert diagnosis.dims["lon"].periodic and not diagnosis.dims["lat"].periodic
    split = diagnosis.split
    assert (split.dim, split.gap, split.window, split.periodic) == ("lon", 128, 128, True)
    assert split == split_blocks(1080, dim="lon", window=128, decorrelation=split.decorrelation, periodic=True)
    assert diagnosis.command == (
        "gridloom train semantic DATA --preset default --data.window 128 128 --model.input-channels 1"
    )


def test_the_command_counts_channels_and_fits_the_window():
    assert "--data.window 64 128 --model.input-channels 7" in diagnose(open_sample("coads")).command
    image = xr.Dataset({"image": (("sample", "channel", "y", "x"), np.zeros((20, 3, 40, 70)))})
    diagnosis = diagnose(image)
    assert "--data.window 32 64 --model.input-channels 3" in diagnosis.command
    assert (diagnosis.split.dim, diagnosis.split.gap) == ("sample", 0)


def test_data_too_small_for_a_split_says_so():
    diagnosis = diagnose(xr.Dataset({"a": (("y", "x"), np.eye(2))}))
    assert diagnosis.split is None and diagnosis.notes[-1].startswith("smaller than 17 cells down or across")
    small = diagnose(waves(num_times=2, height=32, width=64))
    assert small.split is None and small.notes[-1].startswith("too small to split into three parts with gaps")
    assert diagnose(xr.Dataset({"a": ("x", np.arange(3.0))})).command == ""


def test_time_is_found_by_values_then_attributes_then_name():
    named = xr.Dataset({"a": (("x", "month", "y"), np.zeros((2, 3, 2)))})
    assert time_dim(named) == "month"
    units = named.assign_coords(x=("x", [0, 1], {"units": "hours since 2000-01-01"}))
    assert time_dim(units) == "x"
    values = units.assign_coords(y=np.array(["2000-01-01", "2000-01-02"], dtype="M8[ns]"))
    assert time_dim(values) == "y"
    assert time_dim(xr.Dataset({"a": (("y", "x"), np.zeros((2, 2)))})) is None
    assert not is_time(values, "latitude")


def test_units_since_a_date_are_steps_in_days():
    data = xr.Dataset(
        {"a": ("time", np.zeros(3))}, coords={"time": ("time", [0, 6, 12], {"units": "hours since 2000"})}
    )
    steps = axis_steps(data, "time")
    assert steps.in_days and steps.steps.tolist() == [0.25, 0.25]


def test_spatial_dimensions_are_the_last_two_and_must_be_shared():
    assert spatial_dims(waves()) == ("latitude", "longitude")
    mixed = xr.Dataset({"a": (("y", "x"), np.zeros((2, 3))), "b": (("x", "y"), np.zeros((3, 2)))})
    with pytest.raises(DataError, match="must share their last two dimensions"):
        spatial_dims(mixed, ["a", "b"])
    with pytest.raises(DataError, match="expected two dimensions or more"):
        spatial_dims(xr.Dataset({"a": ("x", np.zeros(3))}))


def test_nothing_with_numbers_is_refused():
    with pytest.raises(DataError, match="expected a variable that holds numbers, got name"):
        diagnose(xr.Dataset({"name": ("x", ["a"])}))


@pytest.mark.parametrize(
    ("unit", "north", "east"),
    [
        ("degrees_north", True, False),
        ("degreeN", True, False),
        ("degrees_E", False, True),
        ("degree_east", False, True),
        ("degree", False, False),
        ("degrees", False, False),
        ("m", False, False),
    ],
)
def test_latitude_and_longitude_are_known_by_their_units(unit, north, east):
    data = xr.Dataset({"a": ("y", np.zeros(2))}, coords={"y": ("y", [0.0, 1.0], {"units": unit})})
    assert (is_latitude(data, "y"), is_longitude(data, "y")) == (north, east)


def test_what_is_proposed_is_what_training_uses(tmp_path):
    data = waves(num_times=40, height=40, width=70)
    save_grid(data, tmp_path / "a.nc")
    proposed = diagnose(open_grid(tmp_path / "a.nc"))
    assert "--data.window 32 64" in proposed.command
    used = prepare_grid(GridConfig(path=str(tmp_path / "a.nc"), window=(32, 64)), seed=0).splits
    assert proposed.split == used


def test_falling_latitudes_come_out_rising(caplog):
    data = waves(num_times=3)
    fields = open_fields(data.isel(latitude=slice(None, None, -1)))
    assert fields.identical(data)
    data["extra"] = ("time", np.zeros(3))
    assert list(open_fields(data).data_vars) == ["temperature", "salinity"]
    assert "left out for other dimensions" in caplog.text and "extra" in caplog.text


def test_frames_of_events_are_for_the_heatmap_system() -> None:
    assert diagnose(open_grid("flights")).command == "gridloom train heatmap DATA --preset recommended"


def test_a_clip_is_for_the_temporal_system() -> None:
    clip = xr.Dataset({"frames": (("time", "channel", "y", "x"), np.zeros((4, 3, 16, 16), np.uint8))})
    assert diagnose(clip).command == "gridloom train temporal DATA --preset video"
    assert diagnose(clip.astype(np.float32)).command == "gridloom train temporal DATA"
