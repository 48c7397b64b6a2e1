"""From counts to pixels and back, and what frames say."""

import json
import math

import numpy as np
import pytest
import xarray as xr

from gridloom.core.errors import ConfigError, DataError
from gridloom.grid.events import (
    PriceAxis,
    VolumeAxis,
    activity,
    axis_record,
    center_of_price,
    counts_of,
    describe_frames,
    imbalance,
    pixels,
)


@pytest.fixture
def frames():
    """Nothing; two buys at the reference; a buy and three sells far up."""
    counts = np.zeros((3, 2, 32, 32), dtype=np.uint8)
    counts[1, 0, 5, 15] = 2
    counts[2, 0, 0, 30] = 1
    counts[2, 1, 9, 30] = 3
    return counts


@pytest.mark.parametrize("scale", ["log1p", "linear"])
@pytest.mark.parametrize("cap", [1, 15, 128, 255, 256])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_all_counts_up_to_the_cap_come_back(scale, cap, dtype):
    counts = np.arange(cap + 1)
    values = pixels(counts, cap, scale=scale)
    assert values.dtype == np.float32 and values.min() == 0 and values.max() == 1
    np.testing.assert_array_equal(counts_of(values.astype(dtype), cap, scale=scale), counts)


@pytest.mark.parametrize(("cap", "scale"), [(1000, "log1p"), (1024, "linear"), (100_000, "log1p")])
def test_large_caps_come_back_too(cap, scale):
    values = pixels(np.arange(cap + 1), cap, scale=scale)
    values = values.astype(np.float16) if cap == 1024 else values
    np.testing.assert_array_equal(counts_of(values, cap, scale=scale), np.arange(cap + 1))


def test_pixels_are_the_formula():
    counts = np.array([0, 1, 7, 128, 200], dtype=np.uint8)
    expected = [min(math.log1p(c), math.log1p(128)) / math.log1p(128) for c in (0, 1, 7, 128, 200)]
    np.testing.assert_array_equal(pixels(counts), np.array(expected, dtype=np.float32))
    np.testing.assert_array_equal(pixels(counts, 255, scale="linear"), (counts / 255).astype(np.float32))


def test_counts_have_the_smallest_type_that_holds_the_cap():
    assert [counts_of(np.zeros(1), cap).dtype for cap in (255, 256, 70_000)] == [np.uint8, np.uint16, np.uint32]
    assert counts_of(np.array([-0.2, 1.7])).tolist() == [0, 128]


def test_what_are_no_counts_or_pixels_is_refused():
    with pytest.raises(DataError, match="whole numbers"):
        pixels(np.array([0.5]))
    with pytest.raises(DataError, match="whole numbers"):
        pixels(np.array([-1]))
    with pytest.raises(DataError, match="NaN"):
        counts_of(np.array([np.nan]))
    with pytest.raises(ConfigError, match="cap"):
        pixels(np.array([1]), 0)


def test_imbalance_and_activity_of_frames(frames):
    np.testing.assert_array_equal(imbalance(frames), [np.nan, 1, -0.5])
    np.testing.assert_array_equal(activity(frames), [0, 2, 4])
    full = np.full((1, 2, 32, 32), 255, dtype=np.uint8)
    assert activity(full).tolist() == [255 * 2048]


def test_the_center_of_price_is_the_center_of_its_column(frames):
    axis = PriceAxis()
    ratio = center_of_price(frames, axis)
    assert np.isnan(ratio[0])
    np.testing.assert_allclose(ratio[1:], axis.centers[[15, 30]])
    price = center_of_price(frames, axis, np.array([10.0, 10.0, 20.0]))
    np.testing.assert_array_equal(axis.column(price[1:], np.array([10.0, 20.0])), [15, 30])
    in_ticks = PriceAxis(kind="ticks")
    np.testing.assert_allclose(center_of_price(frames, in_ticks, 10.0)[1:], [10.0, 10.15])


@pytest.fixture
def dataset(frames):
    axes = {"x": axis_record(PriceAxis()), "y": axis_record(VolumeAxis())}
    return xr.Dataset(
        {
            "counts": (("series", "time", "channel", "y", "x"), frames[None]),
            "valid": (("series", "time"), [[True, True, False]]),
        },
        coords={"channel": ["B", "S"], "series": ["600001"], "slot": ("time", [0, 1, 2])},
        attrs={"axes": json.dumps(axes)},
    )


def test_frames_are_described_along_their_time(dataset):
    described = describe_frames(dataset)
    assert described["imbalance"].dims == ("series", "time")
    np.testing.assert_array_equal(described["imbalance"][0], [np.nan, 1, np.nan])
    np.testing.assert_array_equal(described["activity"][0], [0, 2, np.nan])
    np.testing.assert_allclose(described["center_of_mass"][0, 1], PriceAxis().centers[15])
    assert described["slot"].values.tolist() == [0, 1, 2] and described["series"].item() == "600001"
    assert "(B - S) / (B + S)" in described["imbalance"].attrs["long_name"]


def test_each_frame_has_the_price_limit_of_its_board(dataset):
    two = xr.concat([dataset, dataset.assign_coords(series=["300002"])], "series", data_vars="minimal")
    r_max = np.repeat([[math.log(1.1)], [math.log(1.2)]], 3, axis=1)
    center = describe_frames(two.assign_coords(r_max=(("series", "time"), r_max)))["center_of_mass"]
    expected = [PriceAxis().centers[15], PriceAxis(r_max=math.log(1.2)).centers[15]]
    np.testing.assert_allclose(center[:, 1], expected)
    assert np.isnan(center[:, 0]).all()


def test_frames_without_axes_have_their_center_in_columns(dataset):
    described = describe_frames(dataset.isel(series=0, drop=True).drop_attrs().drop_vars("valid"))
    np.testing.assert_array_equal(described["center_of_mass"], [np.nan, 15, 30])


def test_what_are_no_frames_is_refused(dataset):
    with pytest.raises(DataError, match="gridloom rasterize"):
        describe_frames(dataset.rename(counts="trades"))
