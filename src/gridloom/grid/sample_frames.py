"""Frames of events to try forecasts on: real trades of an installed package."""

import json
import math

import numpy as np
import xarray as xr
from jaxtyping import Float64, Int64

from gridloom.grid.sample_data import installed_file

__all__ = ["read_emini"]

_TIME_ZONE = "America/Chicago"
_FIRST_DAY = np.datetime64("2013-09-01", "D")
_OPEN_MINUTE, _CLOSE_MINUTE = 17 * 60, 16 * 60
_MINUTES_PER_SESSION, _MINUTES_PER_DAY = 1380, 1440
_COUNT_CAP, _SIZE = 128, 32
_INSTALL = "--no-deps mlfinpy==0.1.2"  # its dependencies hold numpy below 2, and are not needed for a table


def read_emini(*, price_range: float, price_scale: float, volume_cap: float) -> xr.Dataset:
    """Minutes of half a million trades of E-mini S&P 500 futures: rows by volume, columns by price.

    Two sessions, of Labor Day 2013 and the day after; both end before the usual close. Sides follow the tick rule over
    all trades. The reference price is the last one of the session before; of the first session, its first.

    Args:
        price_range: Largest log ratio of price to reference; beyond it prices fall into the outermost columns.
        price_scale: Log ratio that the columns are stretched by: x = tanh(r / scale) / tanh(range / scale).
        volume_cap: Volumes from here on fall into the last row.
    """
    time, price, volume = _read_trades()
    minutes = (time - _FIRST_DAY.astype("datetime64[ns]").astype(np.int64)) // (60 * 10**9)
    session = (minutes >= _MINUTES_PER_DAY + _CLOSE_MINUTE).astype(np.int64)
    minute = minutes - _OPEN_MINUTE - session * _MINUTES_PER_DAY
    num_minutes = [int(minute[session == which].max()) + 1 for which in (0, 1)]
    reference = np.array([price[0], price[session == 0][-1]])
    column = _price_column(price, reference[session], price_range, price_scale)
    row = np.floor(np.minimum(np.log1p(volume), math.log1p(volume_cap)) / math.log1p(volume_cap) * (_SIZE - 1))
    frame = minute + session * num_minutes[0]
    cells = ((frame * 2 + _sold(price)) * _SIZE + row.astype(np.int64)) * _SIZE + column
    counts = np.bincount(cells, minlength=sum(num_minutes) * 2 * _SIZE**2).reshape(-1, 2, _SIZE, _SIZE)
    slot = np.concatenate([np.arange(size) for size in num_minutes])
    axes = {
        "y": {"kind": "volume", "size": _SIZE, "v_cap": volume_cap},
        "x": {"kind": "tanh", "size": _SIZE, "r_max": price_range, "s": price_scale},
    }
    return _dataset(counts, slot, np.repeat([0, 1], num_minutes), reference, axes)


def _read_trades() -> tuple[Int64[np.ndarray, " rows"], Float64[np.ndarray, " rows"], Float64[np.ndarray, " rows"]]:
    """Local nanoseconds since 1970, prices and volumes, in the order of the file."""
    import pandas as pd

    path = installed_file("mlfinpy", "mlfinpy", "dataset/data/tick_data.csv", install=_INSTALL)
    table = pd.read_csv(path, dtype={"Price": np.float64, "Volume": np.float64})
    time = pd.to_datetime(table["DateTime"], format="ISO8601").to_numpy().astype("datetime64[ns]").astype(np.int64)
    return time, table["Price"].to_numpy(), table["Volume"].to_numpy()


def _price_column(price: np.ndarray, reference: np.ndarray, price_range: float, scale: float) -> np.ndarray:
    ratio = np.clip(np.log(price / reference), -price_range, price_range)
    position = np.tanh(ratio / scale) / math.tanh(price_range / scale)
    columns: np.ndarray = np.clip(np.floor((position + 1) / 2 * (_SIZE - 1)).astype(np.int64), 0, _SIZE - 1)
    return columns


def _sold(price: np.ndarray) -> np.ndarray:
    """Tick rule: 1 after a fall, 0 after a rise; an unchanged price keeps the side. The first trade was bought."""
    change = np.sign(np.diff(price, prepend=price[0]))
    last = np.maximum.accumulate(np.where(change != 0, np.arange(len(change)), 0))
    return (change[last] < 0).astype(np.int64)


def _dataset(
    counts: np.ndarray, slot: np.ndarray, session: np.ndarray, reference: np.ndarray, axes: dict[str, dict]
) -> xr.Dataset:
    import pandas as pd

    local = _FIRST_DAY + session + np.timedelta64(_OPEN_MINUTE, "m") + slot.astype("timedelta64[m]")
    utc = pd.DatetimeIndex(local.astype("datetime64[ns]")).tz_localize(_TIME_ZONE).tz_convert("UTC").tz_localize(None)
    time = utc.to_numpy().astype("datetime64[ns]")
    since = np.diff(time, prepend=np.datetime64("NaT")) / np.timedelta64(1, "m")
    binned = int(counts.sum())
    accounting = {
        "rows": binned,
        "binned": binned,
        "out_of_session": 0,
        "unknown_side": 0,
        "invalid": 0,
        "saturated": int((counts > _COUNT_CAP).sum()),
    }
    segment = {"start": "17:00", "stop": "16:00", "minutes": 1, "kind": "continuous"}
    return xr.Dataset(
        {
            "counts": (
                ("time", "channel", "y", "x"),
                np.minimum(counts, _COUNT_CAP).astype(np.uint8),
                {"long_name": "trades in the minute", "units": "1", "count_cap": _COUNT_CAP},
            ),
            "valid": ("time", np.ones(len(time), dtype=bool), {"long_name": "the slot took place"}),
        },
        coords={
            "time": ("time", time, {"long_name": "start of the minute, UTC", "time_zone": _TIME_ZONE}),
            "slot": ("time", slot.astype(np.int64), {"long_name": "minute of the session"}),
            "session": ("time", session.astype(np.int64), {"long_name": "number of the session"}),
            "minutes_since_previous": ("time", since.astype(np.float32), {"units": "minutes"}),
            "auction": ("time", np.zeros(len(time), dtype=bool), {"long_name": "slot of an auction"}),
            "reference": ("time", reference[session], {"long_name": "reference price", "units": "index points"}),
            "channel": ["B", "S"],
            "y": ("y", np.arange(_SIZE), {"long_name": "row by volume"}),
            "x": ("x", np.arange(_SIZE), {"long_name": "column by price"}),
        },
        attrs={
            "title": "E-mini S&P 500 futures, 2013-09-01 17:00 to 2013-09-03 13:51 in Chicago, by the minute",
            "source": "tick_data.csv of mlfinpy 0.1.2",
            "num_slots": _MINUTES_PER_SESSION,
            "calendar": json.dumps({"name": "cme_es", "time_zone": _TIME_ZONE, "segments": [segment]}),
            "axes": json.dumps(axes),
            "accounting": json.dumps(accounting),
            "pixel": "log1p",
        },
    )
