"""Frames of flights and of trades: their contract, and the figures that forecasts are measured against."""

import json
import math
from importlib import util
from pathlib import Path

import numpy as np
import pytest

from gridloom.core.errors import DataError
from gridloom.grid import sample_data
from gridloom.grid.samples import SAMPLES, open_sample

E4 = 1e4
TOLERANCE = 0.005


@pytest.fixture(scope="module")
def flights():
    return open_sample("flights")


@pytest.fixture(scope="module")
def emini():
    if util.find_spec("mlfinpy") is None:
        pytest.skip("pip install --no-deps mlfinpy==0.1.2")
    return {name: open_sample(name) for name in ("emini", "emini-spec")}


def as_pixels(dataset):
    cap = dataset["counts"].attrs["count_cap"]
    return np.log1p(dataset["counts"].values.astype(np.float64)) / math.log1p(cap)


def error(predicted, truth):
    return float(np.mean((np.clip(predicted, 0, 1) - truth) ** 2) * E4)


def test_flights_are_hours_of_a_year_with_slots_of_a_week(flights):
    assert dict(flights.sizes) == {"time": 8760, "channel": 2, "y": 32, "x": 32}
    assert flights["counts"].dtype == np.uint8 and flights["counts"].attrs["count_cap"] == 15
    assert flights["channel"].values.tolist() == ["departures", "arrivals"]
    assert flights["valid"].dtype == bool and bool(flights["valid"].all())
    assert (flights["slot"].values == np.arange(8760) % 168).all() and flights.attrs["num_slots"] == 168
    assert str(flights["time"].values[0])[:16] == "2013-01-01T00:00" and int(flights["time"].dt.dayofweek[0]) == 1
    assert (np.diff(flights["time"].values) == np.timedelta64(1, "h")).all()
    assert (flights["session"] == 0).all() and not flights["auction"].any()


def test_flights_account_for_every_row(flights):
    account = json.loads(flights.attrs["accounting"])
    assert account["rows"] == 2 * 336_776
    assert account["rows"] == sum(account[key] for key in ("binned", "out_of_session", "unknown_side", "invalid"))
    assert int(flights["counts"].astype(np.int64).sum()) == account["binned"] == 639_518
    assert int((flights["counts"] > 0).any(("time", "channel")).sum()) == 86


def test_flights_reach_los_angeles_after_they_left(flights):
    axes = json.loads(flights.attrs["axes"])
    row = int((axes["y"]["low"] - 33.94) / (axes["y"]["low"] - axes["y"]["high"]) * 32)
    column = int((-118.41 - axes["x"]["low"]) / (axes["x"]["high"] - axes["x"]["low"]) * 32)
    left, arrived = (flights["counts"].values[:, channel, row, column].astype(float) for channel in (0, 1))
    assert left.sum() > 15_000
    best = max(range(1, 12), key=lambda hours: float((left[:-hours] * arrived[hours:]).sum()))
    assert best in (5, 6)


def test_dumb_forecasts_of_flights_have_the_known_errors(flights):
    frames = as_pixels(flights)
    stop, start = int(len(frames) * 0.7), int(len(frames) * 0.8)  # what lies between is for validation
    train, test = frames[:stop], frames[start:]
    slots = flights["slot"].values
    by_slot = np.stack([train[slots[:stop] == slot].mean(0) for slot in range(168)])
    figures = {
        "zeros": (np.zeros_like(test), 26.890),
        "persistence": (frames[start - 1 : -1], 18.987),
        "mean": (train.mean(0), 13.783),
        "slot mean": (by_slot[slots[start:]], 6.819),
        "day before": (frames[start - 24 : -24], 8.787),
        "week before": (frames[start - 168 : -168], 8.422),
    }
    for name, (predicted, known) in figures.items():
        assert error(predicted, test) == pytest.approx(known, abs=TOLERANCE), name


def test_the_flights_file_is_small_and_says_its_license(flights):
    folder = Path(util.find_spec("gridloom.grid").submodule_search_locations[0])
    assert (folder / "data" / "flights.nc").stat().st_size < 700_000
    assert flights.attrs["license"] == "CC0-1.0" and SAMPLES["flights"].needs == ""


@pytest.mark.parametrize(("name", "zeros", "last"), [("emini", 42.275, 24.508), ("emini-spec", 33.782, 12.628)])
def test_emini_has_the_known_errors(emini, name, zeros, last):
    frames = as_pixels(emini[name])
    start = int(len(frames) * 0.8)
    assert error(np.zeros(()), frames[start:]) == pytest.approx(zeros, abs=TOLERANCE)
    assert error(frames[start - 1 : -1], frames[start:]) == pytest.approx(last, abs=TOLERANCE)


def test_emini_is_two_sessions_in_universal_time(emini):
    data = emini["emini"]
    assert dict(data.sizes) == {"time": 2302, "channel": 2, "y": 32, "x": 32} and data["counts"].dtype == np.uint8
    session = data["session"].values
    assert [int((session == which).sum()) for which in (0, 1)] == [1050, 1252]
    for which, first in ((0, "2013-09-01T22:00"), (1, "2013-09-02T22:00")):
        part = data.isel(time=session == which)
        assert str(part["time"].values[0])[:16] == first  # 17:00 in Chicago, in summer
        assert part["slot"].values.tolist() == list(range(part.sizes["time"]))
        assert len(np.unique(part["reference"])) == 1
    assert data.attrs["num_slots"] == 1380 and int(data["slot"].max()) < 1380
    assert (np.diff(data["time"].values) > np.timedelta64(0)).all()
    gaps = data["minutes_since_previous"].values
    assert gaps[0] == 0 and gaps[1050] == 391 and (np.delete(gaps, [0, 1050]) == 1).all()


def test_emini_counts_every_trade_up_to_the_cap(emini):
    for data in emini.values():
        account = json.loads(data.attrs["accounting"])
        assert account["rows"] == account["binned"] == 500_000
        assert int((data["counts"] == 128).sum()) >= account["saturated"] > 0
    tuned, wide = (emini[name]["counts"].values for name in ("emini", "emini-spec"))
    assert (wide > 0).mean() < (tuned > 0).mean()


def test_missing_trades_are_one_line_that_says_how_to_install_without_dependencies(monkeypatch):
    monkeypatch.setattr(sample_data, "find_spec", lambda package: None)
    with pytest.raises(DataError, match=r"mlfinpy, which is not installed; pip install --no-deps mlfinpy==0\.1\.2$"):
        open_sample("emini")
