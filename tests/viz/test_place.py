"""Places in words."""

import pytest

from gridloom.viz.place import describe_place


@pytest.mark.parametrize(
    ("coordinates", "words"),
    [
        ({"lat": -26.0, "lon": 316.0}, "26°S, 44°W"),
        ({"latitude": 68.67, "longitude": 57.3}, "69°N, 57°E"),
        ({"month": 3.0, "lat": 0.0, "lon": -180.0}, "month 3, 0°N, 180°W"),
        ({"y": 12.5}, "y 12.5"),
        ({}, ""),
    ],
)
def test_a_place_is_said_in_one_line(coordinates: dict[str, float], words: str) -> None:
    assert describe_place(coordinates) == words
