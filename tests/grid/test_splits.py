import json

import numpy as np
import pytest
import xarray as xr
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gridloom.core.errors import ConfigError, DataError, UnknownNameError
from gridloom.grid.splits import Splits, decorrelation_length, is_periodic, split_blocks


def slow_decorrelation(values, axis):
    """The definition, pair by pair, in float64."""
    columns = np.moveaxis(values.astype(np.float64), axis, 0).reshape(values.shape[axis], -1)
    anomaly = columns - np.nanmean(columns, axis=0)
    variance = np.nanmean(anomaly**2)
    for lag in range(1, len(columns) // 2 + 1):
        products = [
            anomaly[i, j] * anomaly[i + lag, j]
            for j in range(columns.shape[1])
            for i in range(len(columns) - lag)
            if np.isfinite(anomaly[i, j]) and np.isfinite(anomaly[i + lag, j])
        ]
        if np.mean(products) / variance < np.exp(-1):
            return lag
    return len(columns) // 2


@settings(max_examples=30, deadline=None)
@given(
    st.integers(3, 400),
    st.integers(0, 20),
    st.integers(0, 200),
    st.booleans(),
    st.sampled_from([(0.7, 0.15, 0.15), (0.8, 0.1, 0.1), (0.34, 0.33, 0.33), (0.98, 0.01, 0.01)]),
)
def test_no_index_is_in_two_parts_and_parts_keep_the_gap(size, window, decorrelation, periodic, fractions):
    try:
        splits = split_blocks(
            size, dim="x", fractions=fractions, window=window, decorrelation=decorrelation, periodic=periodic
        )
    except DataError:
        floor = min(window, max(window, decorrelation) if window > 1 else decorrelation)
        assert 3 * max(window, 1) + (3 if periodic else 2) * floor > size
        return
    cells = {name: np.arange(*bounds) for name, bounds in splits.parts.items()}
    used = np.concatenate(list(cells.values()))
    assert len(np.unique(used)) == len(used) and used.max() < size
    assert len(used) + (3 if periodic else 2) * splits.gap == size
    for name, ours in cells.items():
        assert len(ours) >= max(window, 1)
        for other, theirs in cells.items():
            if other != name:
                apart = np.abs(ours[:, None] - theirs[None])
                if periodic:
                    apart = np.minimum(apart, size - apart)
                assert apart.min() > splits.gap


def test_the_gap_is_the_larger_of_window_and_decorrelation():
    assert split_blocks(1000, dim="t", window=8, decorrelation=30).gap == 30
    assert split_blocks(1000, dim="t", window=40, decorrelation=30).gap == 40
    assert split_blocks(1000, dim="t", window=1, decorrelation=5).gap == 5


def test_independent_samples_have_no_gap():
    splits = split_blocks(100, dim="sample", window=0, decorrelation=0)
    assert splits.parts == {"train": (0, 70), "validation": (70, 85), "test": (85, 100)}


def test_a_gap_without_room_shrinks_to_no_less_than_a_window_and_says_so():
    splits = split_blocks(100, dim="t", window=10, decorrelation=50)
    assert (splits.gap, splits.decorrelation) == (25, 50)
    assert split_blocks(50, dim="t", window=10, decorrelation=25).gap == 10


def test_a_small_share_is_raised_to_one_window():
    splits = split_blocks(1080, dim="lon", window=128, decorrelation=60, periodic=True)
    assert splits.parts == {"train": (0, 440), "validation": (568, 696), "test": (824, 952)}


def test_too_few_cells_are_an_error_with_the_numbers():
    with pytest.raises(DataError, match="40 cells are too few for three parts of at least 10 and 2 gaps of 10: 50 are"):
        split_blocks(40, dim="t", window=10)


@pytest.mark.parametrize("fractions", [(0.7, 0.2, 0.2), (1.0, 0.0, 0.0), (1.2, -0.1, -0.1)])
def test_shares_that_are_none_are_refused(fractions):
    with pytest.raises(DataError, match="three positive shares"):
        split_blocks(100, dim="t", fractions=fractions)


def test_a_split_survives_json_and_keeps_its_digest():
    splits = split_blocks(365, dim="time", window=3, decorrelation=9)
    back = Splits.from_json(json.loads(json.dumps(splits.to_json(), sort_keys=True)))
    assert back == splits and back.digest == splits.digest and len(splits.digest) == 64
    assert list(back.parts) == ["train", "validation", "test"]
    assert split_blocks(365, dim="time", window=3, decorrelation=8).digest != splits.digest


def test_a_record_is_read_strictly():
    record = split_blocks(365, dim="time").to_json()
    with pytest.raises(ConfigError, match=r"splits\.gaps: unknown key; did you mean 'gap'"):
        Splits.from_json({**record, "gaps": 1})
    with pytest.raises(DataError, match="overlap"):
        Splits.from_json({**record, "parts": {"train": [0, 50], "validation": [40, 60], "test": [60, 70]}})
    with pytest.raises(DataError, match="expected the parts"):
        Splits.from_json({**record, "parts": {"train": [0, 50], "test": [60, 70]}})


def test_bounds_of_an_unknown_part_name_the_nearest():
    splits = split_blocks(100, dim="t")
    assert splits.bounds("train") == {"t": (0, 70)}
    with pytest.raises(UnknownNameError, match="did you mean 'validation'"):
        splits.bounds("valid")


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 24), st.floats(0, 0.6), st.integers(0, 2))
def test_decorrelation_agrees_with_its_definition(seed, size, missing, axis):
    generator = np.random.default_rng(seed)
    shape = [2, 3, 2]
    shape[axis] = size
    values = np.cumsum(generator.normal(size=shape), axis=axis) + 1000
    values[generator.random(shape) < missing] = np.nan
    filled = np.isfinite(np.moveaxis(values, axis, 0).reshape(size, -1))
    pairs = [(filled[lag:] & filled[: size - lag]).sum() for lag in range(size // 2 + 1)]
    assume(filled.any(axis=0).all() and min(pairs) > 0 and np.nanstd(values) > 0)
    assume((filled.sum(axis=0) > 1).any())
    assert decorrelation_length(values, axis) == slow_decorrelation(values, axis)


def test_decorrelation_of_noise_is_one_and_of_a_slow_wave_a_tenth_of_it_and_more():
    noise = np.random.default_rng(0).normal(size=(500, 4))
    wave = np.sin(2 * np.pi * np.arange(400) / 100)
    assert decorrelation_length(noise, 0) == 1
    assert 15 <= decorrelation_length(wave, 0) <= 25


def test_decorrelation_is_at_most_half_of_the_axis():
    trend = np.repeat(np.array([0.0, 1.0]), 50)
    assert decorrelation_length(np.arange(5.0), 0) <= 2
    assert decorrelation_length(trend, 0) <= 50


@pytest.mark.parametrize("values", [np.full((10, 3), 0.1), np.full((10, 3), np.nan)])
def test_what_does_not_vary_counts_as_noise(values):
    assert decorrelation_length(values, 0) == 1


def test_decorrelation_of_a_large_constant_offset_is_that_of_the_rest():
    noise = np.random.default_rng(1).normal(size=(300, 3))
    assert decorrelation_length(noise + 1e6, 0) == 1


def grid(longitudes, **attrs):
    return xr.Dataset({"a": ("lon", np.zeros(len(longitudes)))}, coords={"lon": ("lon", longitudes, attrs)})


@pytest.mark.parametrize("longitudes", [np.arange(0, 360, 2.5), np.arange(21.0, 380, 2), np.arange(180, -180, -1.0)])
def test_longitudes_that_close_the_circle_are_periodic(longitudes):
    assert is_periodic(grid(longitudes), "lon")


@pytest.mark.parametrize("longitudes", [np.arange(0, 361, 2.5), np.arange(0, 180, 1.0), np.array([0.0, 100, 240])])
def test_longitudes_that_do_not_close_it_once_are_not(longitudes):
    assert not is_periodic(grid(longitudes), "lon")


def test_only_angles_are_periodic():
    data = grid(np.arange(0, 360, 2.0)).rename(lon="x")
    assert not is_periodic(data, "x")
    data["x"].attrs["units"] = "degrees"
    assert is_periodic(data, "x")
