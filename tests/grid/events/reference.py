"""The slow reference: one row after the other, in plain Python and float64."""

import csv
import datetime
import math
import re
from collections import Counter
from pathlib import Path

import numpy as np

__all__ = ["day_number", "slow_counts"]


def day_number(date: str) -> int:
    """Days since 1970-01-01."""
    return (datetime.date.fromisoformat(date) - datetime.date(1970, 1, 1)).days


def _slot(clock: str) -> int | None:
    found = re.fullmatch(r"(\d\d):(\d\d):(\d\d)", clock)
    if not found or int(found[1]) > 23 or int(found[2]) > 59 or int(found[3]) > 59:
        return None
    minute = int(found[1]) * 60 + int(found[2])
    if minute == 9 * 60 + 25:
        return 0
    if 9 * 60 + 30 <= minute <= 11 * 60 + 29:
        return 1 + minute - (9 * 60 + 30)
    if 13 * 60 <= minute <= 14 * 60 + 56:
        return 121 + minute - 13 * 60
    return 238 if minute == 15 * 60 else -1


def _number(text: str) -> float:
    return float(text) if re.fullmatch(r"-?\d+(\.\d+)?", text) else math.nan


def slow_counts(path: Path, reference: float, r_max: float) -> tuple[np.ndarray, Counter]:
    """Return counts [239, 2, 32, 32], not clipped, and rows by what became of them."""
    counts = np.zeros((239, 2, 32, 32), dtype=np.int64)
    rows: Counter = Counter()
    with path.open(newline="") as file:
        reader = csv.reader(file)
        header = next(reader)
        for row in reader:
            rows["rows"] += 1
            if len(row) != len(header):
                rows["malformed"] += 1
                continue
            fields = dict(zip(header, row, strict=True))
            slot = _slot(fields["Time"])
            price, volume = _number(fields["Price"]), _number(fields["Volume"])
            if slot is None:
                rows["bad_time"] += 1
            elif not price > 0:
                rows["bad_price"] += 1
            elif not volume >= 0:
                rows["bad_volume"] += 1
            elif slot < 0:
                rows["out_of_session"] += 1
            elif fields["Type"] not in ("B", "S"):
                rows["unknown_side"] += 1
            else:
                ratio = min(max(math.log(price / reference), -r_max), r_max)
                x = math.tanh(ratio / 0.02) / math.tanh(r_max / 0.02)
                y = min(math.log1p(volume), math.log1p(50000)) / math.log1p(50000)
                channel = "BS".index(fields["Type"])
                counts[slot, channel, math.floor(y * 31), math.floor((x + 1) / 2 * 31)] += 1
                rows["binned"] += 1
    return counts, rows
