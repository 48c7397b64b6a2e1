"""Folders of trades to one frames dataset."""

import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from gridloom.core.errors import DataError
from gridloom.grid.events import folder as folder_module
from gridloom.grid.events.folder import FolderResult, rasterize_folder
from gridloom.grid.events.frames import open_frames
from gridloom.grid.events.synthetic import TradeDays, trade_days
from gridloom.grid.events.trade_files import write_trade_days
from gridloom.grid.events.trades_config import TradesConfig
from tests.grid.events.reference import day_number, slow_counts


@pytest.fixture(scope="module")
def days() -> TradeDays:
    return trade_days(3, 2, seed=2, trades_per_day=300, bad_share=0.05, halted_share=0.2)


@pytest.fixture
def trades(days: TradeDays, tmp_path: Path) -> Path:
    write_trade_days(days, tmp_path / "trades")
    days.closes.to_csv(tmp_path / "closes.csv", index=False)
    days.halts.to_csv(tmp_path / "halts.csv", index=False)
    return tmp_path / "trades"


def run(trades: Path, output: str, *, config: dict | None = None, **options: object) -> FolderResult:
    settings = TradesConfig(**{"references": trades.parent / "closes.csv", **(config or {})})
    return rasterize_folder(trades, trades.parent / output, settings, **options)  # type: ignore[arg-type]


def test_frames_hold_what_the_files_hold(trades: Path, days: TradeDays) -> None:
    result = run(trades, "frames.zarr", config={"halts": trades.parent / "halts.csv"})
    frames = open_frames(trades.parent / "frames.zarr")
    xr.testing.assert_equal(frames.load(), result.frames)
    assert frames["counts"].dims == ("series", "time", "channel", "y", "x")
    assert frames.sizes["time"] == 2 * 239
    dates = sorted({date for _, date, _ in days.closes.itertuples(index=False)})
    files = {(path.stem, path.parent.name): path for path in trades.rglob("*.csv")}
    halts = Counter((code, date) for code, date, _, _ in days.halts.itertuples(index=False))
    for code, date, close in days.closes.itertuples(index=False):
        part = frames.sel(series=code).isel(time=slice(239 * dates.index(date), 239 * (dates.index(date) + 1)))
        assert part["session"].values.tolist() == [day_number(date)] * 239
        if (code, date) in files:
            r_max = float(part["r_max"][0])
            counts, _ = slow_counts(files[code, date], close, r_max)
            assert np.array_equal(part["counts"], np.minimum(counts, 128))
            assert part["valid"].all() == ((code, date) not in halts)
            assert (part["reference"] == close).all()
        else:
            assert not part["valid"].any() and not part["counts"].any()
    assert not frames["counts"].where(~frames["valid"], 0).any()
    ledger = days.ledger()
    accounting = json.loads(frames.attrs["accounting"])
    for name in ("rows", "binned", "out_of_session", "unknown_side", "invalid"):
        assert accounting[name] == ledger[name].sum()
    assert (np.diff(frames["time"].values) > np.timedelta64(0)).all()


def test_sparse_equals_dense_and_processes_equal_one(trades: Path) -> None:
    dense = run(trades, "dense.nc").frames
    sparse = run(trades, "sparse.nc", sparse=True, workers=2)
    assert "counts" not in sparse.frames
    xr.testing.assert_equal(open_frames(trades.parent / "sparse.nc").load(), dense)
    assert (trades.parent / "sparse.nc").stat().st_size < (trades.parent / "dense.nc").stat().st_size


def test_a_run_that_was_stopped_goes_on_where_it_was(trades: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = run(trades, "whole.nc").frames
    parts = trades.parent / "frames.nc.parts"

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        context.setattr(folder_module, "save_grid", killed)
        run(trades, "frames.nc")
    kept = sorted(parts.glob("*.npz"))
    files = sorted(trades.rglob("*.csv"))
    assert len(kept) == len(files) and not (trades.parent / "frames.nc").exists()
    kept[0].unlink()
    kept[1].write_bytes(kept[1].read_bytes()[:100])
    changed = files[0]
    os.utime(changed, ns=(1, 1))
    result = run(trades, "frames.nc")
    again = [file.file for file in result.files if not file.kept]
    assert changed.relative_to(trades).as_posix() in again and 2 <= len(again) <= 3
    xr.testing.assert_identical(result.frames, expected)
    assert not parts.exists()
    lines = (trades.parent / "frames.nc.status.jsonl").read_text().splitlines()
    assert [json.loads(line)["status"] for line in lines] == ["ok"] * len(files)


def test_other_settings_do_not_take_what_is_kept(trades: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as context, pytest.raises(OSError, match="disk full"):
        context.setattr(folder_module, "save_grid", lambda *_, **__: (_ for _ in ()).throw(OSError("disk full")))
        run(trades, "frames.nc")
    result = run(trades, "frames.nc", config={"side": "order_id"})
    assert not any(file.kept for file in result.files)


def test_one_bad_file_is_a_status_and_the_others_go_on(trades: Path) -> None:
    (trades / "2024-01-02" / "600999.csv").write_text("a,b\n1,2\n")
    (trades / "2024-01-02" / "000999.csv").write_text("Time,Price,Volume,Type\n09:30:00,10,100,B\n")
    seen: list[tuple[str, int]] = []
    result = run(trades, "frames.nc", on_file=lambda status, total: seen.append((status.file, total)))
    statuses = {file.file: file for file in result.files}
    assert statuses["2024-01-02/600999.csv"].status == "error"
    assert "expected a header" in statuses["2024-01-02/600999.csv"].reason
    assert statuses["2024-01-02/000999.csv"].status == "skipped"
    assert "no reference price" in statuses["2024-01-02/000999.csv"].reason
    assert len(seen) == len(result.files) == seen[0][1]
    assert "000999" not in result.frames["series"]


def test_parts_of_a_day_in_several_files_are_added_up(tmp_path: Path) -> None:
    head, lines = (
        "Time,Price,Volume,Type\n",
        ["09:30:00,10.00,100,B\n", "13:30:00,10.01,100,S\n", "09:30:01,10.00,100,B\n"],
    )
    (tmp_path / "a").mkdir()
    for number, line in enumerate(lines):
        (tmp_path / "a" / str(number)).mkdir()
        (tmp_path / "a" / str(number) / "600000_20240102.csv").write_text(head + line)
    (tmp_path / "closes.csv").write_text("code,date,close\n600000,2024-01-02,10\n")
    frames = run(tmp_path / "a", "frames.nc", config={"count_cap": 1}).frames
    assert frames["counts"].sum() == 2
    assert json.loads(frames.attrs["accounting"])["saturated"] == 1
    with pytest.raises(DataError, match="different reference prices"):
        run(tmp_path / "a", "first.nc", config={"references": None, "allow_first_price": True})


def test_a_single_file_has_no_series(trades: Path) -> None:
    file = next(iter(sorted(trades.rglob("*.csv"))))
    frames = rasterize_folder(
        file, trades.parent / "one.nc", TradesConfig(references=trades.parent / "closes.csv")
    ).frames
    assert frames["counts"].dims == ("time", "channel", "y", "x")
    assert str(frames["series"].values) == file.stem


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("code,day,close\n", "expected a column 'date'"),
        ("code,date,close\n600000,2024-13-01,10\n", r"closes.csv:2: expected a date"),
        ("code,date,close\n600000,2024-01-02,-1\n", r"closes.csv:2: expected a price above 0"),
        ("code,date,close\n600000,2024-01-02\n", r"closes.csv:2: expected 3 fields"),
    ],
)
def test_tables_are_read_strictly(trades: Path, table: str, message: str) -> None:
    (trades.parent / "closes.csv").write_text(table)
    with pytest.raises(DataError, match=message):
        run(trades, "frames.nc")


def test_problems_of_the_call_are_said_before_any_work(trades: Path) -> None:
    (trades.parent / "there.nc").write_text("")
    for output, message in (("there.nc", "exists already"), ("frames.txt", "ends in .nc or .zarr")):
        with pytest.raises(DataError, match=message):
            run(trades, output)
    with pytest.raises(DataError, match="no such file or folder"):
        rasterize_folder(trades / "none", trades.parent / "x.nc")
    (trades.parent / "empty").mkdir()
    with pytest.raises(DataError, match="no files below it"):
        rasterize_folder(trades.parent / "empty", trades.parent / "x.nc")
