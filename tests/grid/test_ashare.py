"""Made-up Chinese stock-days, from trades to frames."""

import json

import numpy as np
import pytest

from gridloom.grid.sample_frames import make_ashare
from gridloom.grid.samples import SAMPLES


@pytest.fixture(scope="module")
def frames():
    return make_ashare(num_stocks=2, num_days=3, trades_per_day=1500, bad_share=0.01)


def test_stock_days_have_239_slots_in_universal_time(frames):
    assert dict(frames.sizes) == {"series": 2, "time": 3 * 239, "channel": 2, "y": 32, "x": 32}
    assert frames["counts"].dtype == np.uint8 and frames.attrs["num_slots"] == 239
    assert frames["slot"].values.tolist() == list(range(239)) * 3
    assert str(frames["time"].values[0])[:16] == "2024-01-02T01:25"
    assert (np.diff(frames["time"].values) > np.timedelta64(0)).all()
    assert frames["auction"].values.reshape(3, 239).sum(axis=1).tolist() == [2, 2, 2]


def test_every_row_is_accounted_for(frames):
    account = json.loads(frames.attrs["accounting"])
    assert account["rows"] == sum(account[key] for key in ("binned", "out_of_session", "unknown_side", "invalid"))
    assert account["invalid"] > 0 and account["unknown_side"] > 0
    assert int(frames["counts"].astype(np.int64).sum()) == account["binned"] - account["lost"] > 2000


def test_slots_that_did_not_happen_are_empty(frames):
    empty = frames["counts"].where(~frames["valid"], 0)
    assert int(empty.sum()) == 0
    assert not frames["counts"].isel(time=frames["auction"].values).any()


def test_the_sample_says_that_it_needs_the_reader_of_trades():
    assert SAMPLES["ashare"].needs == "trades"
