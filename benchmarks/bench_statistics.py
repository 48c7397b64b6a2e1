"""How exact the streamed statistics are, and how fast.

How: values N(1e4, 0.1) in float32, a mean that is large against the deviation (pressure, geopotential, prices). The
truth is `math.fsum`, exact to the last bit, over the float32 values as they are. Beside `grid.statistics.Moments`, fed
in parts, masked and merged: numpy in two passes at float32, and the one-pass formula E[x^2] - E[x]^2 at float32.
Goal: relative error of mean and variance <= 1e-9.
"""

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from common import Bench, median, paired

_GOAL = 1e-9
_PARTS = 37


def _values(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(1e4, 0.1, count).astype(np.float32)


def exact(values: np.ndarray) -> tuple[float, float]:
    """Mean and population variance, correctly rounded sums."""
    listed = values.astype(np.float64).tolist()
    mean = math.fsum(listed) / len(listed)
    # The mean itself is rounded; the second term takes that out again.
    squares = math.fsum((value - mean) ** 2 for value in listed)
    rest = math.fsum(value - mean for value in listed)
    return mean, (squares - rest**2 / len(listed)) / len(listed)


def streamed(values: np.ndarray) -> tuple[float, float]:
    from gridloom.grid.statistics import Moments

    moments = Moments()
    for part in np.array_split(values, _PARTS):
        moments.update(part)
    return moments.mean, moments.variance


def merged(values: np.ndarray) -> tuple[float, float]:
    """As several processes would: each its own part, merged in a tree, through JSON."""
    from gridloom.grid.statistics import Moments

    waiting = []
    for part in np.array_split(values, _PARTS):
        moments = Moments()
        moments.update(part)
        waiting.append(Moments.from_json(moments.to_json()))
    while len(waiting) > 1:
        waiting = [waiting[0].merge(waiting[1]), *waiting[2:]] if len(waiting) % 2 else _pairs(waiting)
    return waiting[0].mean, waiting[0].variance


def _pairs(waiting: list[Any]) -> list[Any]:
    return [first.merge(second) for first, second in zip(waiting[::2], waiting[1::2], strict=True)]


def masked(values: np.ndarray) -> tuple[float, float]:
    """Hidden cells in between hold NaN or nonsense; the valid ones are the same values."""
    from gridloom.grid.statistics import Moments

    moments = Moments()
    for number, part in enumerate(np.array_split(values, _PARTS)):
        spread = np.full(2 * len(part), np.nan if number % 2 else 1e30, dtype=np.float32)
        spread[::2] = part
        valid = None if number % 2 else np.arange(len(spread)) % 2 == 0
        moments.update(spread, valid)
    return moments.mean, moments.variance


def numpy_float32(values: np.ndarray) -> tuple[float, float]:
    return float(np.nanmean(values)), float(np.nanvar(values))


def naive(values: np.ndarray) -> tuple[float, float]:
    """One pass, float32 sums: what is often written."""
    total, squares, count = np.float32(0), np.float32(0), 0
    for part in np.array_split(values, _PARTS):
        total, squares, count = total + part.sum(), squares + np.square(part).sum(), count + len(part)
    mean = total / np.float32(count)
    return float(mean), float(squares / np.float32(count) - mean * mean)


METHODS: dict[str, Callable[[np.ndarray], tuple[float, float]]] = {
    "Moments, 37 parts": streamed,
    "Moments, merged over 37": merged,
    "Moments, masked": masked,
    "numpy nanvar, float32": numpy_float32,
    "one pass, float32": naive,
}


def errors(*, seed: int, count: int) -> dict[str, Any]:
    """Relative error of each method's mean and variance, and the variance it gives."""
    values = _values(seed, count)
    mean, variance = exact(values)
    found = {}
    for name, method in METHODS.items():
        its_mean, its_variance = method(values)
        found[name] = {
            "mean": abs(its_mean - mean) / mean,
            "variance": abs(its_variance - variance) / variance,
            "value": its_variance,
        }
    return found


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def speed(*, count: int, repetitions: int) -> dict[str, Any]:
    """Million values per second of `Moments.update` and of numpy's nanmean and nanvar at float64 sums."""
    from gridloom.grid.statistics import Moments

    values = _values(0, count)
    values[::10] = np.nan
    blocks = np.array_split(values, max(1, count // 100_000))

    def ours() -> None:
        moments = Moments()
        for block in blocks:
            moments.update(block)

    def theirs() -> None:  # the extremes, which Moments keeps too, are left out in numpy's favor
        for block in blocks:
            np.nanmean(block, dtype=np.float64)
            np.nanvar(block, dtype=np.float64)

    first, second = paired(lambda: _seconds(ours), lambda: _seconds(theirs), repetitions=repetitions)
    ratios = [a / b for a, b in zip(first, second, strict=True)]
    return {"ours": count / median(first) / 1e6, "numpy": count / median(second) / 1e6, "ratio": median(ratios)}


def main() -> None:
    bench = Bench(__file__, __doc__ or "")
    seeds, count = ([0], 300_000) if bench.quick else ([0, 1, 2, 3, 4], 3_000_000)
    cells = [bench.cell(f"errors seed {seed}", errors, seed=seed, count=count) for seed in seeds]
    fast = bench.cell("speed", speed, count=2_000_000, repetitions=5 if bench.quick else 21)
    rows = []
    for name in METHODS:
        mean = max(cell[name]["mean"] for cell in cells)
        variance = max(cell[name]["variance"] for cell in cells)
        ours = name.startswith("Moments")
        verdict = bench.goal(name, max(mean, variance) <= _GOAL) if ours else ""
        rows.append((name, mean, variance, cells[0][name]["value"], f"<= {_GOAL:g}" if ours else "", verdict))
        bench.figure(name, {"mean": mean, "variance": variance})
    print(f"\n{count} values, largest relative error over {len(seeds)} seed(s):")
    bench.table(("method", "mean", "variance", "variance found (0.01)", "goal", "verdict"), rows)
    bench.table(
        ("10 % missing", "million values/s", "time ratio"),
        [
            ("Moments.update", fast["ours"], fast["ratio"]),
            ("numpy nanmean and nanvar, float64 sums", fast["numpy"], 1.0),
        ],
    )
    bench.figure("million_values_per_second", fast)
    bench.finish()


if __name__ == "__main__":
    main()
