"""Any table of events to counts."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from gridloom.core.errors import ConfigError, DataError
from gridloom.grid.events.axes import LinearAxis, PriceAxis, VolumeAxis
from gridloom.grid.events.calendar import Calendar, Segment
from gridloom.grid.events.counter import CellCounter
from gridloom.grid.events.raster import Accumulator, EventSpec, Raster, rasterize

DAYS = Calendar(name="days", segments=(Segment(start="00:00", stop="24:00", minutes=1440, days=tuple(range(7))),))
LON, LAT = LinearAxis(low=-180.0, high=180.0, size=16), LinearAxis(low=90.0, high=-90.0, size=8)


def quakes(number: int = 500) -> pd.DataFrame:
    generator = np.random.default_rng(1)
    start = pd.Timestamp("2024-02-27", tz="UTC")
    return pd.DataFrame(
        {
            "time": start + pd.to_timedelta(generator.integers(0, 5 * 86_400, number), unit="s"),
            "longitude": generator.uniform(-180, 180, number),
            "latitude": generator.uniform(-90, 90, number),
            "magnitude": generator.exponential(1, number) + 3,
            "class": np.where(generator.random(number) < 0.3, "strong", "weak"),
            "id": np.arange(number),
        }
    )


def binned(table: object, **options: object) -> Raster:
    given = {"time": "time", "x": "longitude", "y": "latitude", "x_axis": LON, "y_axis": LAT, "calendar": DAYS}
    given |= {"channel": "class", "channels": ("strong", "weak")}
    return rasterize(table, **(given | options))  # type: ignore[arg-type]


def test_earthquakes_equal_a_loop_over_them() -> None:
    table = quakes()
    expected = np.zeros((5, 2, 8, 16), dtype=np.int64)
    for quake in table.itertuples():
        day = (quake.time.date() - table.time.min().date()).days
        row, column = int((90 - quake.latitude) // 22.5), int((quake.longitude + 180) // 22.5)
        expected[day, int(quake[5] == "weak"), row, column] += 1
    raster = binned(table)
    assert np.array_equal(raster.counts, expected)
    dataset = raster.to_dataset()
    assert dataset["counts"].dims == ("time", "channel", "y", "x")
    assert dataset["time"].values[2] == np.datetime64("2024-02-29")
    assert dataset["channel"].values.tolist() == ["strong", "weak"]


def test_order_pieces_and_kind_of_table_do_not_matter() -> None:
    table = quakes()
    expected = binned(table).counts
    shuffled = table.sample(frac=1, random_state=0)
    assert np.array_equal(binned(shuffled).counts, expected)
    assert np.array_equal(binned(pa.Table.from_pandas(table)).counts, expected)
    arrays = {name: table[name].to_numpy() for name in table} | {"time": table["time"].dt.tz_localize(None).to_numpy()}
    assert np.array_equal(binned(arrays).counts, expected)
    spec = EventSpec(
        time="time", x="longitude", y="latitude", x_axis=LON, y_axis=LAT, calendar=DAYS, channel="class",
        channels=("strong", "weak"),
    )  # fmt: skip
    accumulator = Accumulator(spec)
    for begin in range(0, 500, 70):
        accumulator.add(shuffled.iloc[begin : begin + 70])
    raster = accumulator.finish()
    assert np.array_equal(raster.counts, expected)
    assert raster.accounting.rows == raster.accounting.binned == 500


def test_every_row_is_accounted_for() -> None:
    table = quakes(40)
    table["time"] = table["time"].dt.strftime("%Y-%m-%dT%H:%M:%SZ").astype(object)
    table["latitude"] = table["latitude"].astype(object)
    table.loc[0, "time"] = "soon"
    table.loc[1, "time"] = None
    table.loc[2, "longitude"] = np.nan
    table.loc[3, "latitude"] = "north"
    table.loc[4, "class"] = "medium"
    table.loc[5, "longitude"] = 200.0
    repeated = pd.concat([table, table.iloc[6:9]], ignore_index=True)
    found = binned(
        repeated, drop_duplicates="id", x_axis=LinearAxis(low=-180.0, high=180.0, size=16, clip=False)
    ).accounting
    assert (found.rows, found.bad_time, found.bad_price, found.bad_volume) == (43, 2, 1, 1)
    assert (found.unknown_side, found.out_of_range, found.duplicates, found.binned) == (1, 1, 3, 34)
    assert binned(repeated).accounting.duplicates == 0


def test_quiet_days_are_valid_and_weekends_are_not_there() -> None:
    workdays = Calendar(
        name="office", time_zone="Europe/Paris", segments=(Segment(start="09:00", stop="17:00", minutes=60),)
    )
    table = {
        "time": pd.to_datetime(["2024-03-28 09:30", "2024-04-02 16:59", "2024-03-30 10:00"]),
        "x": [0.5] * 3,
        "y": [0.5] * 3,
    }
    unit = LinearAxis(low=0.0, high=1.0, size=4)
    raster = rasterize(table, time="time", x="x", y="y", x_axis=unit, y_axis=unit, calendar=workdays)
    assert raster.accounting.out_of_session == 1
    assert len(raster.counts) == 4 * 8  # Thursday, Friday, Monday, Tuesday
    assert raster.valid.all()
    utc = raster.to_dataset()["time"].values[[0, -1]]
    assert utc.tolist() == [
        np.datetime64("2024-03-28T08:00", "ns").item(),
        np.datetime64("2024-04-02T14:00", "ns").item(),
    ]


def test_weights_are_summed_and_clipped() -> None:
    table = {
        "time": np.array([0, 1, 2], dtype=np.int64),
        "x": [0.1, 0.1, 0.9],
        "y": [0.1] * 3,
        "seats": [2.0, 3.0, np.nan],
    }
    unit = LinearAxis(low=0.0, high=1.0, size=2)
    raster = rasterize(
        table, time="time", x="x", y="y", x_axis=unit, y_axis=unit, weight="seats", time_unit="s", count_cap=4
    )
    assert raster.counts[0, 0].tolist() == [[4, 0], [0, 0]]
    assert (raster.accounting.saturated, raster.accounting.lost, raster.accounting.bad_volume) == (1, 1, 1)


def test_prices_need_a_reference_and_nothing_binned_is_an_error() -> None:
    table = {"time": pd.to_datetime(["2024-01-02 09:30:01"]), "price": [11.0], "volume": [100]}
    given = {
        "time": "time",
        "x": "price",
        "y": "volume",
        "x_axis": PriceAxis(),
        "y_axis": VolumeAxis(),
        "calendar": "cn_a",
    }
    with pytest.raises(ConfigError, match="reference"):
        rasterize(table, **given)  # type: ignore[arg-type]
    raster = rasterize(table, reference=10.0, **given)  # type: ignore[arg-type]
    assert np.argwhere(raster.counts).tolist() == [[1, 0, 13, 31]]
    with pytest.raises(DataError, match="no event falls into"):
        rasterize(table | {"price": [np.nan]}, reference=10.0, **given)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"no column 'Price'; did you mean 'price'"):
        rasterize(table, reference=10.0, **(given | {"x": "Price"}))  # type: ignore[arg-type]


@pytest.mark.parametrize("spread", [10, 100_000])
def test_counting_in_pieces_equals_counting_at_once(spread: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gridloom.grid.events.counter._PENDING", 1000)
    generator = np.random.default_rng(2)
    cells = (generator.integers(0, 90_000) + generator.integers(0, spread, 5000)) % 100_000
    weights = generator.integers(0, 9, 5000)
    plain, weighted = CellCounter(100_000), CellCounter(100_000, weighted=True)
    for part, weight in zip(np.array_split(cells, 13), np.array_split(weights, 13), strict=True):
        plain.add(part.astype(np.int32))
        weighted.add(part, weight)
    for counter, expected in (
        (plain, np.bincount(cells, minlength=100_000)),
        (weighted, np.bincount(cells, weights, 100_000)),
    ):
        found, sums = counter.finish()
        assert np.array_equal(found, np.flatnonzero(expected))
        assert np.array_equal(sums, expected[found])
