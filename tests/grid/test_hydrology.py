"""Made-up water: the shapes that are told, physical values, gaps, and causes that can be found again in the data."""

import numpy as np
import pytest
import xarray as xr

from gridloom.core.errors import DataError
from gridloom.grid.hydrology import hydrology
from gridloom.grid.terrain import make_catchments, make_terrain

MAPS = ("precipitation", "soil_moisture", "temperature")
SERIES = ("evaporation", "river_flow")
YEAR = 365


@pytest.fixture(scope="module")
def water():
    return hydrology(num_days=3 * YEAR, height=58, width=36, num_places=150, patch=2, seed=3)


@pytest.fixture(scope="module")
def rain_at_places(water):
    """Places by days: rain of the cell of land nearest to each place."""
    return _at_places(water, "precipitation")


def _at_places(water, name):
    values, land = water[name].values, _land(water)
    rows, columns = np.nonzero(land)
    north = water["y"].values[rows] - water["latitude"].values[:, None]
    east = (water["x"].values[columns] - water["longitude"].values[:, None]) * np.cos(np.deg2rad(55))
    nearest = (north**2 + east**2).argmin(axis=1)
    return values[:, rows[nearest], columns[nearest]].T


def _land(water):
    return water["temperature"].notnull().any("time").values


def _patches(land, patch):
    rows, columns = land.shape[0] // patch, land.shape[1] // patch
    return land.reshape(rows, patch, columns, patch).swapaxes(1, 2).reshape(rows * columns, patch * patch)


def _past_mean(values, days):
    """Mean over as many days before each day, places by days from the first that has them all."""
    sums = np.cumsum(np.pad(values, ((0, 0), (1, 0))), axis=1, dtype=np.float64)
    return (sums[:, days:-1] - sums[:, : -days - 1]) / days


def _correlation(first, second):
    both = np.isfinite(first) & np.isfinite(second)
    return float(np.corrcoef(first[both], second[both])[0, 1])


def _explained(inputs, target, train, test):
    """Share of the test part's variance that a linear fit on the training part explains."""
    inputs = np.column_stack([np.ones(len(target)), *inputs])
    known = np.isfinite(target) & np.isfinite(inputs).all(axis=1)
    weights, *_ = np.linalg.lstsq(inputs[known & train], target[known & train], rcond=None)
    error = target[known & test] - inputs[known & test] @ weights
    return 1 - (error**2).mean() / target[known & test].var()


def test_the_variables_have_their_axes_units_and_type(water):
    assert {name: water[name].dims for name in water.data_vars} == {
        **dict.fromkeys(MAPS, ("time", "y", "x")),
        **dict.fromkeys(SERIES, ("place", "time")),
        "static": ("place", "attribute"),
    }
    assert all(variable.dtype == np.float32 for variable in water.data_vars.values())
    units = ("mm/day", "m3 m-3", "degree_Celsius", "mm/day", "mm/day")
    assert tuple(water[name].attrs["units"] for name in (*MAPS, *SERIES)) == units
    assert water["attribute"].values[0] == "area" and water["attribute_units"].values[0] == "km2"
    assert dict(water.sizes) == {"time": 3 * YEAR, "y": 58, "x": 36, "place": 150, "attribute": 8}


def test_the_coordinates_are_days_and_degrees(water):
    assert (np.diff(water["time"].values) == np.timedelta64(1, "D")).all()
    for place, axis in (("latitude", "y"), ("longitude", "x")):
        half = float(water[axis][1] - water[axis][0]) / 2
        assert (water[place] > water[axis][0] - half).all() and (water[place] < water[axis][-1] + half).all()
    assert water["y"].attrs["standard_name"] == "latitude" and water["x"].attrs["units"] == "degrees_east"


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_94_of_522_patches_hold_land_with_a_coast_inside_them(seed):
    land = make_terrain(np.random.default_rng(seed), height=290, width=180, patch=10).land
    shares = _patches(land, 10).mean(axis=1)
    assert shares.shape == (522,) and (shares > 0).sum() == 94
    assert ((shares > 0) & (shares < 1)).sum() > 20 and (shares == 1).sum() > 20
    assert land.mean() == pytest.approx(0.8 * 94 / 522, abs=0.005)


@pytest.mark.parametrize(
    ("height", "width", "patch", "count"),
    [(29, 18, 1, 94), (58, 36, 2, 94), (60, 40, 10, 4), (6, 4, 2, 1), (3, 1, 1, 1)],
)
def test_at_any_size_18_percent_of_the_patches_hold_land(height, width, patch, count):
    data = hydrology(num_days=2, height=height, width=width, num_places=3, patch=patch)
    assert _patches(_land(data), patch).any(axis=1).sum() == count
    assert np.isfinite(data["static"]).all() and data["evaporation"].notnull().all()


def test_the_full_size_is_the_default():
    data = hydrology(num_days=1)
    assert dict(data.sizes) == {"time": 1, "y": 290, "x": 180, "place": 604, "attribute": 8}
    assert _patches(data["temperature"].notnull().values[0], 10).any(axis=1).sum() == 94


def test_values_stay_in_physical_ranges(water):
    ranges = {
        "precipitation": (0, 300),
        "soil_moisture": (0, 0.6),
        "temperature": (-30, 40),
        "evaporation": (0, 10),
        "river_flow": (0, 200),
    }
    for name, (low, high) in ranges.items():
        values = water[name].values[water[name].notnull().values]
        assert np.isfinite(values).all() and values.min() >= low and values.max() <= high
    assert float(water["river_flow"].min()) > 0
    yearly = {name: YEAR * float(water[name].mean()) for name in ("precipitation", *SERIES)}
    assert 700 < yearly["precipitation"] < 1600 and 200 < yearly["evaporation"] < 700
    # over three years what falls goes up or down the river, but for what forest and noise make of it
    gone = yearly["evaporation"] + yearly["river_flow"]
    assert gone == pytest.approx(yearly["precipitation"], rel=0.25)


def test_rain_is_skewed_and_falls_on_some_days_only(water):
    rain = water["precipitation"].values[:, _land(water)]
    assert 0.4 < (rain == 0).mean() < 0.75
    assert ((rain - rain.mean()) ** 3).mean() > 2 * rain.std() ** 3


def test_storms_move_to_the_east(water):
    rain = np.log1p(water["precipitation"].values)
    columns = 10  # about 220 km, the way of a day
    to_east = _correlation(rain[:-1, :, :-columns], rain[1:, :, columns:])
    to_west = _correlation(rain[:-1, :, columns:], rain[1:, :, :-columns])
    assert to_east > to_west + 0.2


def test_hills_are_wetter_and_colder():
    terrain = make_terrain(np.random.default_rng(0).spawn(5)[0], height=58, width=36, patch=2)
    data = hydrology(num_days=200, height=58, width=36, num_places=1, patch=2, seed=0)
    assert (_land(data) == terrain.land).all()
    rain, warmth = (data[name].mean("time").values[terrain.land] for name in ("precipitation", "temperature"))
    assert _correlation(rain, terrain.elevation) > 0.7
    assert _correlation(warmth + 0.6 * terrain.cell_latitude, terrain.elevation) < -0.7


def test_the_same_seed_gives_the_same_and_another_does_not(water):
    sizes = {"num_days": 40, "height": 29, "width": 18, "num_places": 5, "patch": 1}
    first = hydrology(**sizes, seed=5)
    xr.testing.assert_identical(first, hydrology(**sizes, seed=5))
    other = hydrology(**sizes, seed=6)
    assert not any(first[name].equals(other[name]) for name in first.data_vars)


def test_land_and_places_do_not_depend_on_the_number_of_days():
    sizes = {"height": 29, "width": 18, "num_places": 5, "patch": 1}
    short, long = (hydrology(num_days=days, **sizes) for days in (3, 50))
    xr.testing.assert_identical(short["static"], long["static"])
    assert (_land(short) == _land(long)).all()


def test_only_soil_under_clouds_and_rivers_have_gaps_on_land(water):
    land = _land(water)
    for name in ("precipitation", "temperature"):
        assert np.isfinite(water[name].values[:, land]).all() and np.isnan(water[name].values[:, ~land]).all()
    assert water["evaporation"].notnull().all() and water["static"].notnull().all()
    hidden = np.isnan(water["soil_moisture"].values[:, land])
    assert 0.3 < hidden.mean() < 0.5 and hidden.mean(axis=1).std() > 0.15  # whole regions at once
    rainy = water["precipitation"].values[:, land] > 0
    assert hidden[rainy].mean() > hidden[~rainy].mean() + 0.1


def test_records_of_rivers_begin_late_at_half_of_the_places_and_break_off(water):
    missing = np.isnan(water["river_flow"].values)
    begin = missing.argmin(axis=1) / missing.shape[1]
    assert 0.35 < (begin > 0.05).mean() < 0.65 and 0.4 < begin.max() < 0.6
    later = missing[:, missing.shape[1] * 6 // 10 :]
    assert 0.02 < later.mean() < 0.09 and later.any(axis=1).mean() > 0.6
    ends = np.diff(later.astype(int), axis=1) == -1
    assert 5 < later.sum() / ends.sum() < 20  # days an outage lasts


def test_rivers_follow_the_rain_of_the_days_before(water, rain_at_places):
    days = 10
    flow = np.log(water["river_flow"].values)
    flow = flow - np.nanmean(flow, axis=1, keepdims=True)
    past = _past_mean(rain_at_places, days)
    before = _correlation(np.log1p(past), flow[:, days:])
    after = _correlation(np.log1p(past[:, days + 1 :]), flow[:, days : -days - 1])  # rain of the ten days after
    assert before > 0.4 and before > after + 0.2


def test_other_modalities_tell_of_a_river_what_its_season_does_not(water, rain_at_places):
    soil = water["soil_moisture"].mean(("y", "x")).values
    day = 2 * np.pi * np.arange(3 * YEAR) / YEAR
    season = [np.sin(day), np.cos(day), np.sin(2 * day), np.cos(2 * day)]
    past = [np.pad(_past_mean(rain_at_places, days), ((0, 0), (days, 0))) for days in (3, 10, 40)]
    train = np.arange(3 * YEAR) < 2 * YEAR
    scores = []
    for place, flow in enumerate(np.log(water["river_flow"].values)):
        inputs = [*season, soil, *(np.log1p(values[place]) for values in past)]
        scores.append([_explained(chosen, flow, train, ~train) for chosen in (season, [*season, soil], inputs)])
    by_season, with_soil, with_all = np.median(scores, axis=0)
    assert with_soil > by_season + 0.1 and with_all > with_soil + 0.03
    assert with_all < 0.99  # noise: not to be told exactly


def test_evaporation_follows_warmth_beyond_the_season(water):
    day = 2 * np.pi * np.arange(3 * YEAR) / YEAR
    season = [np.sin(day), np.cos(day), np.sin(2 * day), np.cos(2 * day)]
    warmth, evaporation = _at_places(water, "temperature"), water["evaporation"].values
    train = np.arange(3 * YEAR) < 2 * YEAR
    scores = [
        [_explained(chosen, evaporation[place], train, ~train) for chosen in (season, [*season, warmth[place]])]
        for place in range(30)
    ]
    by_season, with_warmth = np.median(scores, axis=0)
    assert with_warmth > by_season + 0.02


def test_the_ground_remembers_weeks_and_rises_with_rain(water):
    land = _land(water)
    soil, rain = water["soil_moisture"].values[:, land], water["precipitation"].values[:, land]
    anomaly = soil - np.nanmean(soil, axis=0)
    assert _correlation(anomaly[:-14], anomaly[14:]) > 0.5
    change = soil[1:] - soil[:-1]
    assert np.nanmean(change[rain[1:] > 5]) > 0.01 > 0 > np.nanmean(change[rain[1:] == 0])


def test_rivers_answer_as_their_attributes_say(water):
    """Half of the places tell how quick the rivers of the other half are."""
    flow = np.log(water["river_flow"].values)
    quickness = np.log(np.nanstd(np.diff(flow, axis=1), axis=1))
    area, _, slope, ground, _, _, _, lake = water["static"].values.astype(np.float64).T
    inputs = [np.log(area), np.log(slope), ground, lake]
    train = np.arange(len(flow)) % 2 == 0
    assert _explained(inputs, quickness, train, ~train) > 0.8
    assert _explained(inputs[:2], quickness, train, ~train) < 0.6
    assert _correlation(quickness, ground) < -0.5


def test_a_catchment_is_a_mean_over_land():
    generator = np.random.default_rng(0)
    terrain = make_terrain(generator, height=58, width=36, patch=2)
    catchments = make_catchments(generator, terrain, num_places=20)
    assert catchments.weights.shape == (20, terrain.land.sum()) and (catchments.weights >= 0).all()
    np.testing.assert_allclose(catchments.weights.sum(axis=1), 1)
    nearest = ((terrain.position - terrain.position[5]) ** 2).sum(axis=1).argmin()
    assert nearest == 5 and terrain.elevation.min() > 0


def test_attributes_beyond_the_eight_govern_nothing():
    sizes = {"num_days": 5, "height": 29, "width": 18, "num_places": 6, "patch": 1}
    few, usual, many = (hydrology(**sizes, num_attributes=count) for count in (3, 8, 11))
    assert few["attribute"].values.tolist() == ["area", "elevation", "slope"]
    assert many["attribute"].values[8:].tolist() == ["mixture_0", "mixture_1", "mixture_2"]
    np.testing.assert_array_equal(many["static"][:, :8], usual["static"])
    for name in (*MAPS, *SERIES):
        xr.testing.assert_equal(few[name], many[name])


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"height": 25, "width": 20, "patch": 10}, "expected one that divides 25 x 20 cells, got 10"),
        ({"patch": 0}, "patch: expected one that divides"),
        ({"num_days": 0}, "expected 1 day, place and attribute or more, got 0"),
        ({"num_places": 0}, "expected 1 day, place and attribute or more"),
    ],
)
def test_sizes_that_cannot_be_are_told(sizes, message):
    with pytest.raises(DataError, match=message):
        hydrology(**sizes)
