from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import xarray as xr

from gridloom.core.contracts import Source
from gridloom.core.errors import DataError, UnknownNameError
from gridloom.core.random import window_keys
from gridloom.grid.normalize import Climatology, Normalizer, Standard, fit_normalizer
from gridloom.grid.read import open_grid, save_grid
from gridloom.grid.source import GridSource, SubsetSource
from gridloom.grid.synthetic import waves
from gridloom.grid.windows import cut_windows

NAMES = ("temperature", "salinity")


def source(data, sizes, *, names=NAMES, bounds=None, **options):
    windows = cut_windows(data, sizes=sizes, bounds=bounds)
    return GridSource(
        data, variables=names, windows=windows, normalizer=fit_normalizer(data[list(names)]), seed=3, **options
    )


def same(left, right):
    for name, field in left.fields.items():
        torch.testing.assert_close(field.values, right.fields[name].values, rtol=0, atol=0)
        assert torch.equal(field.valid, right.fields[name].valid)
    assert torch.equal(left.key, right.key) and torch.equal(left.window, right.window)


def test_a_batch_holds_the_normalized_windows_with_their_masks():
    data = waves(num_times=6, height=16, width=16)
    ours = source(data, {"time": 2, "latitude": 8, "longitude": 16})
    batch = ours.collate([0, 3, 5], epoch=2)
    field = batch.fields["image"]
    assert field.values.shape == field.valid.shape == (3, 2, 2, 8, 16) and field.values.dtype == torch.float32
    normalizer = fit_normalizer(data)
    for row, index in enumerate([0, 3, 5]):
        part = ours.windows.select(data, index)
        for channel, name in enumerate(NAMES):
            expected = normalizer.apply(name, part[name].values)
            found = field.values[row, channel].numpy()
            np.testing.assert_array_equal(field.valid[row, channel].numpy(), np.isfinite(expected))
            np.testing.assert_array_equal(found, np.nan_to_num(expected, nan=0.0))
    assert torch.equal(batch.key, window_keys(3, 2, [0, 3, 5])) and batch.window.tolist() == [0, 3, 5]


def test_a_source_keeps_the_contract():
    data = waves(num_times=4)
    ours = source(data, {"latitude": 16, "longitude": 16})
    assert isinstance(ours, Source) and isinstance(SubsetSource(ours, [1]), Source)
    assert len(ours) == 16


def test_dimensions_of_one_cell_are_left_out_unless_kept():
    data = waves(num_times=4, height=8, width=8)
    sizes = {"latitude": 8, "longitude": 8}
    assert source(data, sizes).collate([0], 0).fields["image"].values.shape == (1, 2, 8, 8)
    kept = source(data, sizes, keep_dims=("time",), field="sst")
    assert kept.collate([0], 0).fields["sst"].values.shape == (1, 2, 1, 8, 8)


@pytest.mark.parametrize("order", [("time", "latitude", "longitude"), ("longitude", "time", "latitude")])
def test_memory_and_file_give_the_same_bytes(tmp_path, order):
    save_grid(waves(num_times=12, height=16, width=16).transpose(*order), tmp_path / "a.nc")
    data = open_grid(tmp_path / "a.nc")
    sizes, bounds = {"time": 3, "latitude": 8, "longitude": 8}, {"time": (3, 12), "latitude": (5, 16)}
    memory = source(data, sizes, bounds=bounds)
    file = source(data, sizes, bounds=bounds, memory_bytes=0)
    assert memory.in_memory and not file.in_memory
    everything = list(range(len(memory)))
    same(memory.collate(everything, 0), file.collate(everything, 0))


@pytest.mark.parametrize("memory_bytes", [0, 1 << 30])
@pytest.mark.parametrize("ending", [".nc", ".zarr"])
def test_several_threads_read_the_same_bytes(tmp_path, memory_bytes, ending):
    save_grid(waves(num_times=12, height=16, width=16), tmp_path / f"a{ending}")
    ours = source(open_grid(tmp_path / f"a{ending}"), {"latitude": 16, "longitude": 16}, memory_bytes=memory_bytes)
    orders = [np.random.default_rng(seed).permutation(12).tolist() for seed in range(8)]
    alone = [ours.collate(order, 1) for order in orders]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda order: ours.collate(order, 1), orders))
    for left, right in zip(alone, together, strict=True):
        same(left, right)


def test_memory_holds_only_what_the_windows_reach():
    data = waves(num_times=40, height=16, width=16)
    needed = 2 * 10 * 16 * 16 * 4
    options = {"sizes": {"latitude": 16, "longitude": 16}, "bounds": {"time": (30, 40)}}
    assert source(data, **options, memory_bytes=needed).in_memory
    assert not source(data, **options, memory_bytes=needed - 1).in_memory


@pytest.mark.parametrize("memory_bytes", [0, 1 << 30])
def test_a_channel_dimension_and_a_fixed_map_are_channels(memory_bytes):
    generator = np.random.default_rng(0)
    data = xr.Dataset(
        {
            "image": (("sample", "channel", "y", "x"), generator.normal(size=(3, 2, 4, 6))),
            "height": (("y", "x"), generator.normal(size=(4, 6))),
        }
    )
    windows = cut_windows(data, sizes={"y": 4, "x": 3})
    plain = Normalizer({"image": (), "height": ()})
    ours = GridSource(
        data, variables=("image", "height"), windows=windows, normalizer=plain, seed=0, memory_bytes=memory_bytes
    )
    values = ours.collate([3], 0).fields["image"].values[0].numpy()
    np.testing.assert_array_equal(values[:2], data["image"].values[1, :, :, 3:].astype(np.float32))
    np.testing.assert_array_equal(values[2], data["height"].values[:, 3:].astype(np.float32))


@pytest.mark.parametrize("memory_bytes", [0, 1 << 30])
def test_a_climatology_meets_the_month_of_each_window(memory_bytes):
    times = np.arange("2001-01", "2003-01", dtype="M8[M]").astype("M8[ns]")
    months = np.arange(24.0) % 12
    data = xr.Dataset({"a": (("x", "time"), np.tile(months, (4, 1)))}, coords={"time": times})
    normalizer = Normalizer(
        {"a": (Climatology("time", tuple(float(month) for month in range(12))), Standard(0.0, 2.0))}
    )
    windows = cut_windows(data, sizes={"time": 5, "x": 4}, bounds={"time": (4, 24)})
    ours = GridSource(data, variables=("a",), windows=windows, normalizer=normalizer, seed=0, memory_bytes=memory_bytes)
    values = ours.collate(range(len(ours)), 0).fields["image"].values
    assert values.shape == (4, 1, 4, 5) and (values == 0).all()


def test_coordinates_lead_back_and_bring_the_label():
    data = xr.Dataset(
        {"image": (("sample", "y", "x"), np.zeros((5, 4, 4)))},
        coords={"digit": ("sample", [7, 1, 3, 1, 9]), "origin": "scan"},
    )
    windows = cut_windows(data, sizes={"y": 4, "x": 4})
    plain = Normalizer({"image": ()})
    ours = GridSource(data, variables=("image",), windows=windows, normalizer=plain, seed=0, label="digit")
    found = ours.coordinates([4, 0])
    assert found["sample"].tolist() == [4, 0] and found["digit"].tolist() == [9, 7]
    constant = GridSource(data, variables=("image",), windows=windows, normalizer=plain, seed=0, label="origin")
    assert constant.coordinates([4, 0])["origin"].tolist() == ["scan", "scan"]


def test_a_missing_cell_never_reaches_the_model_as_a_number():
    data = waves(num_times=2, missing=0.5)
    data["temperature"][0, 0, 0] = np.inf
    field = source(data, {"latitude": 32, "longitude": 32}).collate([0, 1], 0).fields["image"]
    assert torch.isfinite(field.values).all()
    assert (field.values[~field.valid] == 0).all() and not bool(field.valid[0, 0, 0, 0])


def test_a_subset_has_new_addresses_and_old_keys():
    ours = source(waves(num_times=10), {"latitude": 32, "longitude": 32})
    subset = SubsetSource(ours, [7, 2, 5])
    batch, whole = subset.collate([0, 2], 4), ours.collate([7, 5], 4)
    assert len(subset) == 3 and batch.window.tolist() == [0, 2]
    assert torch.equal(batch.key, whole.key)
    assert torch.equal(batch.fields["image"].values, whole.fields["image"].values)
    assert subset.coordinates([1])["time"] == ours.coordinates([2])["time"]


@pytest.mark.parametrize("indices", [[], [10], [-1]])
def test_a_subset_outside_of_its_source_is_refused(indices):
    ours = source(waves(num_times=10), {"latitude": 32, "longitude": 32})
    with pytest.raises(DataError, match="between 0 and 9"):
        SubsetSource(ours, indices)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"names": ("temprature",)}, "did you mean 'temperature'"),
        ({"label": "longitud"}, "did you mean 'longitude'"),
        ({"keep_dims": ("tme",)}, "did you mean 'time'"),
    ],
)
def test_names_that_are_not_there_name_the_nearest(options, message):
    data = waves(num_times=2)
    names = options.pop("names", NAMES)
    windows = cut_windows(data, sizes={"latitude": 32, "longitude": 32})
    with pytest.raises(UnknownNameError, match=message):
        GridSource(data, variables=names, windows=windows, normalizer=fit_normalizer(data), seed=0, **options)


def test_windows_of_other_data_and_a_normalizer_without_the_variable_are_refused():
    data = waves(num_times=2)
    windows = cut_windows(data, sizes={"latitude": 32, "longitude": 32})
    with pytest.raises(UnknownNameError, match="normalized variable 'salinity'"):
        GridSource(data, variables=NAMES, windows=windows, normalizer=fit_normalizer(data[["temperature"]]), seed=0)
    other = data.expand_dims(member=2)
    with pytest.raises(DataError, match=r"its dimensions \['member'\] are not cut"):
        GridSource(other, variables=NAMES, windows=windows, normalizer=fit_normalizer(data), seed=0)
