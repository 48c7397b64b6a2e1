"""Which windows a step sees is a function of (seed, step)."""

import threading
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import pytest
import torch

from gridloom.core.batch import Batch
from gridloom.core.errors import DataError
from gridloom.core.random import epoch_order
from gridloom.train.loader import batches, check_enough
from tests.train.tiny import TinySource


def go(source: Any = None, *, first: int = 0, last: int = 12, **changes: Any) -> Iterator[Batch]:
    settings = {"seed": 1, "batch_size": 6, "share": (0, 1), "threads": 0} | changes
    return batches(source or TinySource(22), first_step=first, last_step=last, **settings)


def windows(stream: Iterator[Batch]) -> list[list[int]]:
    return [batch.window.tolist() for batch in stream]


def loader_threads() -> int:
    return sum(thread.name.startswith("gridloom-loader") for thread in threading.enumerate())


def test_a_step_sees_the_same_wherever_the_run_begins() -> None:
    whole = windows(go())
    assert len(whole) == 12
    for first in (1, 3, 5, 11):
        assert windows(go(first=first)) == whole[first:]
    assert windows(go(first=12)) == []
    assert windows(go()) == whole and windows(go(seed=2)) != whole


def test_an_epoch_sees_each_window_at_most_once_and_the_next_begins_anew() -> None:
    source = TinySource(22)
    seen = windows(go(source))  # 22 windows are 3 batches of 6 with 4 left over
    assert [epoch for _, epoch in source.asked] == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    for epoch in range(4):
        flat = list(chain(*seen[3 * epoch : 3 * epoch + 3]))
        assert flat == epoch_order(1, epoch, 22)[:18].tolist() and len(set(flat)) == 18
    assert {window for batch in windows(go(last=60)) for window in batch} == set(range(22))


def test_a_source_of_one_batch_is_an_epoch_per_step() -> None:
    seen = windows(go(TinySource(6), last=5))
    assert all(sorted(batch) == list(range(6)) for batch in seen) and len({tuple(batch) for batch in seen}) > 1


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_change_nothing(threads: int) -> None:
    ours, theirs = list(go(first=2, threads=threads)), list(go(first=2))
    assert len(ours) == len(theirs) == 10
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.equal(mine.window, other.window) and torch.equal(mine.key, other.key)
        assert torch.equal(mine.fields["x"].values, other.fields["x"].values)
    assert loader_threads() == 0


@pytest.mark.parametrize("world", [1, 2, 3, 6])
def test_the_shares_of_the_processes_make_the_global_batch(world: int) -> None:
    shares = [windows(go(share=(rank, world), threads=rank % 2)) for rank in range(world)]
    for step, whole in enumerate(windows(go())):
        assert list(chain(*(share[step] for share in shares))) == whole


class Failing(TinySource):
    def collate(self, windows: Sequence[int], epoch: int) -> Batch:
        if epoch == 1:
            raise DataError("the disk is gone")
        return super().collate(windows, epoch)


@pytest.mark.parametrize("threads", [0, 2])
def test_a_failure_to_read_comes_at_its_step(threads: int) -> None:
    stream, seen = go(Failing(22), threads=threads), 0
    with pytest.raises(DataError, match="the disk is gone"):
        for _ in stream:
            seen += 1
    assert seen == 3 and loader_threads() == 0


def test_leaving_early_ends_the_threads_and_reads_little_ahead() -> None:
    source = TinySource(22)
    stream = go(source, last=1000, threads=2)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert len(source.asked) <= 6 and loader_threads() == 0


def test_a_source_without_a_full_batch_is_refused() -> None:
    check_enough(TinySource(6), 6, "train")
    with pytest.raises(DataError, match=r"the train part has 5 windows, fewer than train\.batch_size 6; lower"):
        check_enough(TinySource(5), 6, "train")
