"""How fast trades become heatmaps, and that no trade is lost.

How: made-up A-share trades (11 columns, 62 bytes a row) are written as CSV and Parquet, one day's rows again and again.
Figures are process CPU time of one thread, median of three. Beside it, on fewer rows, a plain pandas pipeline as it is
usually written: read_csv, split of the time as text, formulas in float64, np.add.at. Checked on the way: counts of all
rows are bit-equal to the plain pipeline's, a file with 5 % bad rows gives the ledger of its generator, and memory is
the same for five times as many rows.
Goals: 5 million rows/s from CSV, 20 million from Parquet, 10 times the plain pipeline, memory within 10 %.
"""

import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import Bench, median

_DATE = "2024-01-02"
_FEW = ["Time", "Price", "Volume", "Type"]


def _write(folder: Path, *, num_rows: int) -> dict[str, Path]:
    """Write the same rows as CSV with all columns, CSV with four, and Parquet."""
    import pandas
    import pyarrow
    from pyarrow import parquet

    from gridloom.grid.events.synthetic import trade_days
    from gridloom.grid.events.trade_files import write_trade_days

    days = trade_days(1, 1, seed=3, trades_per_day=500_000, halted_share=0.0)
    (file,) = write_trade_days(days, folder / "day")
    days.closes.to_csv(folder / "closes.csv", index=False)
    header, body = file.read_bytes().split(b"\n", 1)
    times = math.ceil(num_rows / len(days.trades))
    places = {name: folder / name / _DATE / f"{file.stem}.{end}" for name, end in _ENDINGS.items()}
    for place in places.values():
        place.parent.mkdir(parents=True, exist_ok=True)
    with places["csv"].open("wb") as stream:
        stream.write(header + b"\n")
        for _ in range(times):
            stream.write(body)
    few = days.trades[_FEW]
    narrow = few.to_csv(index=False, float_format="%.2f").encode().split(b"\n", 1)[1]
    with places["narrow"].open("wb") as stream:
        stream.write(",".join(_FEW).encode() + b"\n")
        for _ in range(times):
            stream.write(narrow)
    table = pyarrow.Table.from_pandas(few.assign(Time=pandas.to_datetime(few["Time"], format="%H:%M:%S").dt.time))
    table = table.set_column(0, "Time", table["Time"].cast(pyarrow.time32("s")))
    with parquet.ParquetWriter(places["parquet"], table.schema) as writer:
        for _ in range(times):
            writer.write_table(table)
    with (folder / "plain.csv").open("wb") as stream:
        stream.write(header + b"\n" + body)
    return places


_ENDINGS = {"csv": "csv", "narrow": "csv", "parquet": "parquet"}


def _run(path: Path, closes: Path) -> tuple[np.ndarray, dict[str, int]]:
    """Counts [slot, channel, y, x], not clipped, and the accounting."""
    from gridloom.grid.events.limits import A_SHARE_LIMITS
    from gridloom.grid.events.tables import read_references
    from gridloom.grid.events.trades import rasterize_trades
    from gridloom.grid.events.trades_config import TradesConfig

    result = rasterize_trades(path, TradesConfig(), read_references(closes), limits=A_SHARE_LIMITS)
    assert result.status == "ok", result.reason
    counts = np.zeros(239 * 2 * 32 * 32, dtype=np.int64)
    counts[result.days[0].cells] = result.days[0].counts
    return counts, result.accounting.to_json()


def _plain(path: Path, reference: float, r_max: float) -> np.ndarray:
    """The usual pandas pipeline."""
    import pandas

    table = pandas.read_csv(path, usecols=_FEW)
    clock = table["Time"].str.split(":", expand=True).astype(int)
    minute = (clock[0] * 60 + clock[1]).to_numpy()
    slot = np.full(len(table), -1)
    for begin, end, first in ((565, 566, 0), (570, 690, 1), (780, 897, 121), (900, 901, 238)):
        inside = (minute >= begin) & (minute < end)
        slot[inside] = minute[inside] - begin + first
    ratio = np.clip(np.log(table["Price"].to_numpy() / reference), -r_max, r_max)
    column = np.floor((np.tanh(ratio / 0.02) / math.tanh(r_max / 0.02) + 1) / 2 * 31).astype(int)
    top = math.log1p(50_000)
    row = np.floor(np.minimum(np.log1p(table["Volume"].to_numpy()), top) / top * 31).astype(int)
    side = table["Type"].fillna("").str.strip().str.upper()
    channel = side.map({"B": 0, "S": 1}).fillna(-1).astype(int).to_numpy()
    kept = (slot >= 0) & (channel >= 0)
    counts = np.zeros((239, 2, 32, 32), dtype=np.int64)
    np.add.at(counts, (slot[kept], channel[kept], row[kept], column[kept]), 1)
    return counts.ravel()


def _seconds(work: Callable[[], Any]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def speed(*, num_rows: int, repetitions: int) -> dict[str, Any]:
    """Million rows per CPU second of each way, and whether their counts are equal."""
    import pyarrow

    from gridloom.grid.events.limits import r_max_of
    from gridloom.grid.events.tables import read_references

    pyarrow.set_cpu_count(1)
    pyarrow.set_io_thread_count(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        places = _write(folder, num_rows=num_rows)
        closes = folder / "closes.csv"
        ((code, _), reference), *_ = read_references(closes).items()
        plain = _plain(folder / "plain.csv", reference, r_max_of(code, _DATE))
        few = sum(1 for _ in (folder / "plain.csv").open()) - 1
        found: dict[str, Any] = {"equal": True, "bytes_per_row": {}}
        for way, path in places.items():
            counts, accounting = _run(path, closes)
            rows = accounting["rows"]
            found["rows"] = rows
            found["equal"] &= bool(np.array_equal(counts, plain * (rows // few)))
            taken = [_seconds(lambda path=path: _run(path, closes)) for _ in range(repetitions)]
            found[way] = rows / median(taken) / 1e6
            found["bytes_per_row"][way] = path.stat().st_size / rows
        few_again = [
            _seconds(lambda: _plain(folder / "plain.csv", reference, r_max_of(code, _DATE))) for _ in range(repetitions)
        ]
        found["plain"] = few / median(few_again) / 1e6
    return found


def _peak(path: str, closes: str) -> None:
    """Print the peak memory of this process in MiB; run in a process of its own."""
    _run(Path(path), Path(closes))
    # not ru_maxrss: a new process inherits that of the one that started it
    status = Path("/proc/self/status").read_text()
    print(int(status.split("VmHWM:")[1].split()[0]) / 1024)


def memory(*, num_rows: int) -> dict[str, Any]:
    """Peak memory, MiB, of a process that reads a fifth of the rows and of one that reads all."""
    found: dict[str, Any] = {}
    for size in (num_rows // 5, num_rows):
        with tempfile.TemporaryDirectory() as name:
            places = _write(Path(name), num_rows=size)
            for way in ("csv", "parquet"):
                command = [sys.executable, __file__, "--peak", str(places[way]), f"{name}/closes.csv"]
                printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                found.setdefault(way, []).append(float(printed))
    return found


def ledger(*, seed: int) -> dict[str, Any]:
    """Rows of files with 5 % bad ones, by what became of them and by what the generator put in."""
    from gridloom.grid.events.synthetic import trade_days
    from gridloom.grid.events.trade_files import write_trade_days

    names = ("rows", "binned", "out_of_session", "unknown_side", "invalid")
    with tempfile.TemporaryDirectory() as name:
        days = trade_days(4, 2, seed=seed, trades_per_day=20_000, bad_share=0.05)
        days.closes.to_csv(Path(name) / "closes.csv", index=False)
        found = dict.fromkeys(names, 0)
        seconds = 0.0
        for path in write_trade_days(days, Path(name) / "days"):
            started = time.process_time()
            _, accounting = _run(path, Path(name) / "closes.csv")
            seconds += time.process_time() - started
            for key in names:
                found[key] += accounting[key]
    expected = {key: int(days.ledger()[key].sum()) for key in names}
    return {"found": found, "expected": expected, "million_rows_per_second": found["rows"] / seconds / 1e6}


def main() -> None:
    bench = Bench(__file__, __doc__ or "", sources=("grid/events",))
    num_rows, repetitions = (1_000_000, 3) if bench.quick else (10_000_000, 3)
    fast = bench.cell("speed", speed, num_rows=num_rows, repetitions=repetitions)
    peak = bench.cell("memory", memory, num_rows=num_rows)
    bad = bench.cell("ledger", ledger, seed=1)
    ratio = fast["csv"] / fast["plain"]
    names = {"csv": "CSV, 11 columns", "narrow": "CSV, 4 columns", "parquet": "Parquet"}
    goals = {"csv": 5.0, "narrow": 5.0, "parquet": 20.0}
    rows = [
        (
            names[way],
            fast[way],
            fast["bytes_per_row"][way],
            f">= {goals[way]:g}",
            bench.goal(names[way], fast[way] >= goals[way]),
        )
        for way in names
    ]
    bench.table(("one thread", "million rows/s", "bytes a row", "goal", "verdict"), rows)
    flat = {way: values[1] / values[0] for way, values in peak.items()}
    checks = [
        ("plain pandas pipeline, million rows/s", fast["plain"], "", ""),
        ("times as fast from CSV", ratio, ">= 10", bench.goal("10 times plain pandas", ratio >= 10)),
        ("bit-equal to the plain pipeline", fast["equal"], "yes", bench.goal("bit-equal", fast["equal"])),
        *(
            (f"peak MiB, {names[way]}, all rows", values[1], f"<= 1.1 x {values[0]:.0f}", bench.goal(
                f"flat memory, {names[way]}", flat[way] <= 1.1
            ))
            for way, values in peak.items()
        ),
        (
            "5 % bad rows as the ledger says",
            bad["found"] == bad["expected"],
            "yes",
            bench.goal("every row accounted for", bad["found"] == bad["expected"]),
        ),
        ("files of 5 % bad rows, million rows/s", bad["million_rows_per_second"], "", ""),
    ]  # fmt: skip
    bench.table(("check", "found", "goal", "verdict"), checks)
    bench.figure("million_rows_per_second", {way: fast[way] for way in (*names, "plain")})
    bench.figure("times_plain_pandas", ratio)
    bench.figure("peak_mib", peak)
    bench.figure("ledger", bad)
    bench.finish()


if __name__ == "__main__":
    if "--peak" in sys.argv:
        _peak(*sys.argv[2:])
    else:
        main()
