import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from gridloom.core.errors import DataError, UnknownNameError
from gridloom.grid.synthetic import waves
from gridloom.grid.windows import cut_windows


class Date360:
    """A date of a calendar in which every month has 30 days, as cftime has it."""

    calendar = "360_day"

    def __init__(self, day):
        self.ordinal = day
        self.month, self.day = day // 30 % 12 + 1, day % 30 + 1

    def __sub__(self, other):
        return pd.Timedelta(days=self.ordinal - other.ordinal).to_pytimedelta()

    def __eq__(self, other):
        return self.ordinal == other.ordinal

    def __lt__(self, other):
        return self.ordinal < other.ordinal

    def __hash__(self):
        return self.ordinal


def series(times, **attrs):
    coordinate = ("time", np.array(times), attrs)
    return xr.Dataset({"a": (("time", "y"), np.zeros((len(times), 4)))}, coords={"time": coordinate})


def test_windows_tile_without_overlap_when_no_stride_is_given():
    data = waves(num_times=6, height=8, width=12)
    windows = cut_windows(data, sizes={"latitude": 4, "longitude": 4})
    assert windows.dims == ("time", "latitude", "longitude")
    assert len(windows) == 6 * 2 * 3
    seen = xr.zeros_like(data["temperature"], dtype=int)
    for index in range(len(windows)):
        seen[windows.slices(index)] += 1
    assert (seen == 1).all()


def test_the_last_dimension_varies_fastest():
    windows = cut_windows(waves(num_times=2, height=4, width=8), sizes={"latitude": 4, "longitude": 4})
    assert windows.slices(1) == {"time": slice(0, 1), "latitude": slice(0, 4), "longitude": slice(4, 8)}
    assert windows.slices(2)["time"] == slice(1, 2)


def test_selecting_a_window_keeps_values_and_coordinates():
    data = waves(num_times=4, height=8, width=8)
    windows = cut_windows(data, sizes={"time": 2, "latitude": 4, "longitude": 8})
    xr.testing.assert_identical(windows.select(data, 3), data.isel(time=slice(2, 4), latitude=slice(4, 8)))


@pytest.mark.parametrize("extent", [7, 8, 9, 11])
def test_cover_reaches_the_last_cell_and_stays_inside(extent):
    data = xr.Dataset({"a": (("y", "x"), np.zeros((extent, extent)))})
    starts = cut_windows(data, sizes={"y": 4, "x": 4}, cover=True).starts["y"]
    assert starts[-1] + 4 == extent
    covered = {cell for start in starts for cell in range(start, start + 4)}
    assert covered == set(range(extent))


def test_bounds_confine_the_windows():
    windows = cut_windows(waves(num_times=10), sizes={"time": 2}, bounds={"time": (3, 8)})
    assert windows.starts["time"].tolist() == [3, 5]


def test_no_window_straddles_a_gap_in_time():
    times = pd.date_range("2000-01-01", periods=12, freq="D").delete([5])
    windows = cut_windows(series(times), sizes={"time": 3, "y": 4}, strides={"time": 1})
    assert windows.starts["time"].tolist() == [0, 1, 2, 5, 6, 7, 8]


def test_after_a_gap_the_cutting_starts_anew():
    times = pd.date_range("2000-01-01", periods=9, freq="h").delete([4])
    assert cut_windows(series(times), sizes={"time": 2}).starts["time"].tolist() == [0, 2, 4, 6]


@pytest.mark.parametrize("frequency", ["MS", "ME", "QS", "YS", "6h"])
def test_calendar_steps_are_constant(frequency):
    times = pd.date_range("1999-01-01", periods=30, freq=frequency)
    assert len(cut_windows(series(times), sizes={"time": 30, "y": 4})) == 1


def test_a_missing_month_is_a_gap():
    times = pd.date_range("1999-01-01", periods=24, freq="MS").delete([14])
    assert cut_windows(series(times), sizes={"time": 12}, strides={"time": 1}).starts["time"].tolist() == [0, 1, 2]


def test_months_in_days_since_a_date_are_constant_steps():
    days = np.cumsum([0, 31, 28, 31, 30, 31])
    assert len(cut_windows(series(days, units="days since 2001-01-01"), sizes={"time": 6, "y": 4})) == 1


def test_dates_of_a_model_calendar_have_gaps_and_centers_too():
    dates = [Date360(day) for day in (0, 30, 60, 120, 150, 180)]
    axis = np.empty(6, dtype=object)
    axis[:] = dates
    data = series(axis)
    windows = cut_windows(data, sizes={"time": 3, "y": 4})
    assert windows.starts["time"].tolist() == [0, 3]
    assert [date.ordinal for date in windows.centers(data, [0, 1])["time"]] == [30, 150]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.sampled_from([1, 1, 1, 1, 2, 5]), min_size=1, max_size=30),
    st.integers(2, 5),
    st.integers(1, 5),
    st.booleans(),
)
def test_every_window_has_one_constant_step(steps, size, stride, cover):
    days = np.cumsum([0, 1, 1, 1, 1, 1, 1, 1, *steps])  # the first ones make a day the typical step
    typical = np.sort(np.diff(days))[(len(days) - 2) // 2]
    data = series(np.datetime64("2001-01-01", "ns") + days * np.timedelta64(1, "D"))
    for start in cut_windows(data, sizes={"time": size}, strides={"time": stride}, cover=cover).starts["time"]:
        assert (np.diff(days[start : start + size]) == typical).all()


def test_centers_are_the_mean_of_first_and_last():
    data = waves(num_times=4, height=4, width=4)
    windows = cut_windows(data, sizes={"time": 2, "latitude": 4, "longitude": 4})
    centers = windows.centers(data, [0, 1])
    assert centers["time"].tolist() == np.array(["2001-01-01T12", "2001-01-03T12"], "M8[ns]").tolist()
    np.testing.assert_allclose(centers["latitude"], [30.375, 30.375])


def test_centers_of_small_integers_do_not_overflow():
    data = xr.Dataset({"a": ("month", np.zeros(4))}, coords={"month": np.array([100, 110, 120, 126], dtype=np.int8)})
    data = data.rename(month="place")
    windows = cut_windows(data, sizes={"place": 4})
    assert windows.centers(data, [0])["place"].tolist() == [113]


def test_centers_without_a_coordinate_are_indices_and_of_names_the_middle():
    data = xr.Dataset({"a": (("sample", "y"), np.zeros((3, 5)))}, coords={"sample": ["p", "q", "r"]})
    windows = cut_windows(data, sizes={"y": 5})
    centers = windows.centers(data, [2])
    assert centers["sample"].tolist() == ["r"] and centers["y"].tolist() == [2]


def test_channels_stay_whole():
    data = xr.Dataset({"image": (("sample", "channel", "y", "x"), np.zeros((3, 2, 4, 4)))})
    windows = cut_windows(data, sizes={"y": 4, "x": 4})
    assert windows.dims == ("sample", "y", "x")
    assert windows.select(data, 0)["image"].shape == (1, 2, 4, 4)


def test_a_window_larger_than_the_range_names_dimension_size_and_range():
    with pytest.raises(DataError, match=r"'latitude': a window of 64 is larger than the range 0 to 32 \(32 cells\)"):
        cut_windows(waves(), sizes={"latitude": 64})


def test_no_window_between_gaps_is_an_error_with_the_counts():
    times = pd.date_range("2000-01-01", periods=12, freq="D").delete([3, 7])
    with pytest.raises(DataError, match="10 steps from 0 to 10 in 3 stretches between gaps, none of them 5 long"):
        cut_windows(series(times), sizes={"time": 5})


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ([0, 2, 1, 3], r"unsorted: 1 times .* first at index 2 \(2000-01-02.*sortby\('time'\)"),
        ([3, 2, 1, 0], "descending"),
        ([0, 1, 1, 2], r"repeats 1 times, first 2000-01-02.*drop_duplicates\('time'\)"),
    ],
)
def test_a_time_axis_out_of_order_is_refused(order, message):
    times = pd.date_range("2000-01-01", periods=4, freq="D")[order]
    with pytest.raises(DataError, match=message):
        cut_windows(series(times), sizes={"time": 2})


def test_a_missing_time_is_refused():
    times = np.array(["2000-01-01", "NaT", "2000-01-03"], dtype="M8[ns]")
    with pytest.raises(DataError, match="unsorted: 2 times"):
        cut_windows(series(times), sizes={"time": 1})


@pytest.mark.parametrize("bounds", [(-1, 4), (4, 3), (0, 49)])
def test_a_range_outside_the_axis_is_refused(bounds):
    with pytest.raises(DataError, match="does not lie in its 48 cells"):
        cut_windows(waves(), sizes={}, bounds={"time": bounds})


@pytest.mark.parametrize("sizes", [{"latitude": 0}, {"latitude": -2}])
def test_a_size_below_one_is_refused(sizes):
    with pytest.raises(DataError, match="at least 1"):
        cut_windows(waves(), sizes=sizes)


def test_an_unknown_dimension_names_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'latitude'"):
        cut_windows(waves(), sizes={"latitud": 4})


def test_an_address_outside_is_an_index_error():
    windows = cut_windows(waves(num_times=4), sizes={"latitude": 32, "longitude": 32})
    for index in (-1, 4):
        with pytest.raises(IndexError, match="windows go from 0 to 3"):
            windows.slices(index)


def test_descending_latitudes_are_cut_as_they_are():
    data = waves(num_times=2, height=4).isel(latitude=slice(None, None, -1))
    windows = cut_windows(data, sizes={"latitude": 4, "longitude": 32})
    np.testing.assert_array_equal(windows.select(data, 0)["latitude"], data["latitude"])
