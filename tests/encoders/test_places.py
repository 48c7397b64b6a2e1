"""From coordinates to rows."""

import numpy as np
import pytest
import torch
import xarray as xr

from gridloom.core.errors import DataError, UnknownNameError
from gridloom.encoders.places import Places


def embeddings(**coordinates):
    values = np.zeros((2, 3, 4, 1))
    return xr.DataArray(values, dims=("time", "lat", "lon", "feature"), coords=coordinates)


PLACES = Places(
    embeddings(
        time=np.array(["2020-01-01", "2020-07-01"], dtype="datetime64[ns]"),
        lat=[60.0, 0.0, -60.0],
        lon=[45.0, 135, 225, 315],
        land=("lat", ["north", "middle", "south"]),
        missing_share=(("time", "lat", "lon"), np.arange(24).reshape(2, 3, 4) / 24),
    )
)


def test_rows_lead_to_coordinates_and_coordinates_to_rows():
    assert PLACES.names == ["time", "lat", "lon", "land", "missing_share"]
    for row in range(24):
        place = {name: PLACES.at(name, np.array([row]))[0] for name in ("time", "lat", "lon")}
        assert PLACES.find(place).tolist() == [row]
        assert PLACES.find({name: str(value) for name, value in place.items()}).tolist() == [row]
        assert PLACES.at("missing_share", np.array(row)) == pytest.approx(row / 24)
    assert PLACES.at("land", np.array([0, 7, -1])).tolist() == ["north", "middle", ""]


def test_the_nearest_is_taken_and_longitudes_close_the_circle():
    assert PLACES.find({"time": "2020-06", "lat": "-31", "lon": "-46"}).tolist() == [12 + 8 + 3]
    assert PLACES.find({"time": "2020-01", "lat": 90, "lon": 359}).tolist()[0] in (0, 3)
    assert PLACES.find({"time": "2020-01", "lat": 1, "lon": 720 + 46}).tolist() == [4]


def test_along_a_dimension_that_is_not_named_all_rows_are_taken():
    assert PLACES.find({"time": "2020-01-01", "lon": 45}).tolist() == [0, 4, 8]
    assert PLACES.find({}).tolist() == list(range(24))


def test_names_are_found_by_name_and_places_without_a_coordinate_by_their_number():
    named = Places(embeddings(time=["first", "second"]))
    assert named.find({"time": "second", "lat": 2, "lon": "3"}).tolist() == [23]
    with pytest.raises(DataError, match="time=secund: there is no such time in the embeddings; did you mean 'second'"):
        named.find({"time": "secund"})
    assert Places(embeddings().isel(lat=[0])).constant == ["lat"]


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ({"lta": 3}, "unknown dimension of the embeddings 'lta'; did you mean 'lat'"),
        ({"land": "north"}, "unknown dimension of the embeddings 'land'"),
        ({"lat": 130}, r"lat=130 lies outside the embeddings, whose lat goes from -60.0 to 60.0"),
        ({"lat": "north"}, "lat=north: expected a number"),
        ({"lat": "nan"}, "lat=nan lies outside"),
        ({"time": "spring"}, "time=spring: expected a date like 2020-03-01"),
        ({"time": "1990"}, "time=1990 lies outside"),
    ],
)
def test_a_place_that_is_none_is_refused(place, says):
    with pytest.raises((DataError, UnknownNameError), match=says):
        PLACES.find(place)


@pytest.mark.parametrize(
    ("apart", "says"),
    [
        ({"lta": 3}, "unknown coordinate of the embeddings 'lta'"),
        ({"lat": 0}, "lat=0: expected a number above 0"),
        ({"lat": "wide"}, "lat=wide: expected a number above 0"),
        ({"time": "30"}, "time=30: expected a time like 30D"),
        ({"time": "1.2.3D"}, "time=1.2.3D: expected a time like 30D"),
    ],
)
def test_a_distance_that_is_none_is_refused(apart, says):
    rows = np.arange(24)
    with pytest.raises((DataError, UnknownNameError), match=says):
        PLACES.closer(rows, PLACES, rows, apart)
    named = Places(embeddings(lat=["a", "b", "c"]))
    with pytest.raises(DataError, match="lat: expected numbers or times"):
        PLACES.closer(rows, named, rows, {"lat": 1})
    with pytest.raises(DataError, match="time: expected numbers or times"):
        PLACES.closer(rows, named, rows, {"time": "1D"})


def test_times_may_be_apart_by_a_length_of_time_in_any_unit():
    rows, half_a_year = np.arange(24), (torch.tensor([0]), torch.tensor([12]))
    for length in ("26W", "182D", "4368h", "262080m", "15724800 s", np.timedelta64(182, "D")):
        hidden = PLACES.closer(rows, PLACES, rows, {"time": length})
        assert hidden(torch.tensor([0]), torch.tensor([11])).item() and not hidden(*half_a_year).item()
    assert PLACES.closer(rows, PLACES, rows, {"time": "183D"})(*half_a_year).item()
