"""Frames of events to try forecasts on: real trades of an installed package, and made-up ones from files."""

import json
import tempfile
from pathlib import Path

import numpy as np
import xarray as xr
from jaxtyping import Float64, Int64

from gridloom.grid.events.axes import PriceAxis, VolumeAxis, axis_record
from gridloom.grid.events.calendar import CALENDARS
from gridloom.grid.events.folder import rasterize_folder
from gridloom.grid.events.locate import locate_local, slot_times
from gridloom.grid.events.side import tick_rule
from gridloom.grid.events.synthetic import trade_days
from gridloom.grid.events.trade_files import write_trade_days
from gridloom.grid.events.trades_config import TradesConfig
from gridloom.grid.sample_data import installed_file

__all__ = ["make_ashare", "read_emini"]

_CALENDAR = CALENDARS["cme_es"]
_COUNT_CAP = 128
_INSTALL = "--no-deps mlfinpy==0.1.2"  # its dependencies hold numpy below 2, and are not needed for a table


def read_emini(price_axis: PriceAxis, volume_axis: VolumeAxis) -> xr.Dataset:
    """Minutes of half a million trades of E-mini S&P 500 futures: rows by volume, columns by price.

    Two sessions, of Labor Day 2013 and the day after; both end before the usual close, and so do their slots. Sides
    follow the tick rule over all trades. The reference price is the last one of the session before; of the first
    session, its first.
    """
    time, price, volume = _read_trades()
    day, minute = locate_local(_CALENDAR, time)
    days, session = np.unique(day, return_inverse=True)
    lengths = [int(minute[session == which].max()) + 1 for which in range(len(days))]
    last = [price[session == which][-1] for which in range(len(days) - 1)]
    reference = np.array([price[0], *last])
    side, _ = tick_rule(price)
    height, width = volume_axis.size, price_axis.size
    frame = np.concatenate([[0], np.cumsum(lengths)])[session] + minute
    cells = ((frame * 2 + (side < 0)) * height + volume_axis.row(volume)) * width
    cells += price_axis.column(price, reference[session])
    counts = np.bincount(cells, minlength=sum(lengths) * 2 * height * width).reshape(-1, 2, height, width)
    slots = slot_times(_CALENDAR, days.astype(np.int64))
    which = np.repeat(np.arange(len(days)), lengths)
    kept = np.flatnonzero(slots.slot < np.asarray(lengths)[np.repeat(np.arange(len(days)), _CALENDAR.num_slots)])
    since = slots.minutes_since_previous[kept]
    since[1:] = np.diff(slots.time[kept]) / (60 * 10**9)  # the first session ended early
    described = {
        "time": (slots.time[kept].astype("datetime64[ns]"), "start of the minute, UTC"),
        "slot": (slots.slot[kept], "minute of the session"),
        "session": (which.astype(np.int64), "number of the session"),
        "minutes_since_previous": (since, "minutes from the start of the slot before"),
        "auction": (slots.auction[kept], "slot of an auction"),
        "reference": (reference[which], "price that columns are about, index points"),
    }
    coords = {name: ("time", values, {"long_name": text}) for name, (values, text) in described.items()}
    coords["time"][2]["time_zone"] = _CALENDAR.time_zone
    return _dataset(counts, {"y": axis_record(volume_axis), "x": axis_record(price_axis)}).assign_coords(coords)


def make_ashare(
    *, num_stocks: int = 4, num_days: int = 20, trades_per_day: int = 4000, bad_share: float = 0.001, seed: int = 0
) -> xr.Dataset:
    """Made-up Chinese stock-days the whole way: trades, a CSV file for each stock-day, and the rasterizer.

    Some rows are bad, some days and hours are halted; `accounting` says what became of every row. Auctions have no
    sides, so that their frames are empty.

    Args:
        num_stocks: Instruments.
        num_days: Sessions.
        trades_per_day: Mean of a stock-day.
        bad_share: Share of the rows that are bad.
        seed: Makes the same trades again.
    """
    days = trade_days(num_stocks, num_days, seed, trades_per_day=trades_per_day, bad_share=bad_share)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_trade_days(days, folder / "trades")
        days.closes.to_csv(folder / "closes.csv", index=False)
        days.halts.to_csv(folder / "halts.csv", index=False)
        config = TradesConfig(references=folder / "closes.csv", halts=folder / "halts.csv", calendar=days.calendar)
        frames = rasterize_folder(folder / "trades", folder / "frames.nc", config).frames
    return frames.assign_attrs(
        title="Made-up trades of Chinese stocks, by the minute", source="gridloom.grid.events.synthetic"
    )


def _read_trades() -> tuple[Int64[np.ndarray, " rows"], Float64[np.ndarray, " rows"], Int64[np.ndarray, " rows"]]:
    """Local nanoseconds since 1970, prices and volumes, in the order of the file."""
    import pandas as pd

    path = installed_file("mlfinpy", "mlfinpy", "dataset/data/tick_data.csv", install=_INSTALL)
    table = pd.read_csv(path, dtype={"Price": np.float64, "Volume": np.int64})
    time = pd.to_datetime(table["DateTime"], format="ISO8601").to_numpy().astype("datetime64[ns]").astype(np.int64)
    return time, table["Price"].to_numpy(), table["Volume"].to_numpy()


def _dataset(counts: np.ndarray, axes: dict[str, dict]) -> xr.Dataset:
    """The frames without their coordinates of time."""
    num_trades = int(counts.sum())
    accounting = {
        "rows": num_trades,
        "binned": num_trades,
        "out_of_session": 0,
        "unknown_side": 0,
        "invalid": 0,
        "saturated": int((counts > _COUNT_CAP).sum()),
    }
    return xr.Dataset(
        {
            "counts": (
                ("time", "channel", "y", "x"),
                np.minimum(counts, _COUNT_CAP).astype(np.uint8),
                {"long_name": "trades in the minute", "units": "1", "count_cap": _COUNT_CAP},
            ),
            "valid": ("time", np.ones(len(counts), dtype=bool), {"long_name": "the slot took place"}),
        },
        coords={
            "channel": ["B", "S"],
            "y": ("y", np.arange(counts.shape[2]), {"long_name": "row by volume"}),
            "x": ("x", np.arange(counts.shape[3]), {"long_name": "column by price"}),
        },
        attrs={
            "title": "E-mini S&P 500 futures, 2013-09-01 17:00 to 2013-09-03 13:51 in Chicago, by the minute",
            "source": "tick_data.csv of mlfinpy 0.1.2",
            "num_slots": _CALENDAR.num_slots,
            "calendar": _CALENDAR.to_json(),
            "axes": json.dumps(axes),
            "accounting": json.dumps(accounting),
            "pixel": "log1p",
        },
    )
