"""Batches by step: which windows a step sees is a function of (seed, step), so that a run can be resumed anywhere."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from gridloom.core.batch import Batch
from gridloom.core.contracts import Source
from gridloom.core.errors import DataError
from gridloom.core.random import epoch_order

__all__ = ["batches", "check_enough", "windows_of_step"]


def check_enough(source: Source, batch_size: int, part: str) -> None:
    """Refuse a source that has no full batch: it would train on nothing, silently."""
    if len(source) < batch_size:
        raise DataError(
            f"the {part} part has {len(source)} windows, fewer than train.batch_size {batch_size}; "
            f"lower --train.batch-size, or cut more windows (smaller stride or window)"
        )


class _Order:
    """Orders of epochs, the newest kept."""

    def __init__(self, seed: int, size: int) -> None:
        self.seed, self.size = seed, size
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def of(self, epoch: int) -> np.ndarray:
        if epoch != self._epoch:
            self._epoch, self._order = epoch, epoch_order(self.seed, epoch, self.size)
        return self._order


def windows_of_step(order: _Order, step: int, batch_size: int) -> tuple[np.ndarray, int]:
    """Windows of a step and its epoch. What is left of an epoch after its full batches is not used in it."""
    per_epoch = order.size // batch_size
    epoch, place = divmod(step, per_epoch)
    return order.of(epoch)[place * batch_size : (place + 1) * batch_size], epoch


def batches(
    source: Source, *, seed: int, first_step: int, last_step: int, batch_size: int, share: tuple[int, int], threads: int
) -> Iterator[Batch]:
    """Go through the batches of the steps `first_step` to `last_step - 1`.

    Args:
        source: Where the windows are read.
        seed: Seed of the order.
        first_step: First step to give.
        last_step: Where to end.
        batch_size: Windows of the global batch.
        share: (rank, number of processes): each process reads its own contiguous share of the batch.
        threads: Threads that read ahead; 0 reads when asked. The batches are the same.
    """
    order = _Order(seed, len(source))
    rank, world = share
    size = batch_size // world

    def request(step: int) -> tuple[list[int], int]:
        windows, epoch = windows_of_step(order, step, batch_size)
        return windows[rank * size : (rank + 1) * size].tolist(), epoch

    if threads == 0:
        for step in range(first_step, last_step):
            yield source.collate(*request(step))
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="gridloom-loader") as pool:
        waiting: deque[Future[Batch]] = deque()
        try:
            for step in range(first_step, last_step):
                waiting.append(pool.submit(source.collate, *request(step)))
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
