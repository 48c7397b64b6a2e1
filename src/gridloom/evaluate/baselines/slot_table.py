"""Means of a record by slot."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Int64

from gridloom.evaluate.baselines.record import Record

__all__ = ["FollowingMeans", "SlotTable"]


class SlotTable:
    """Mean frame of each series in each slot; the mean over all slots where a slot was not seen.

    Attributes:
        means: [series, slot + 1, ...]; the last row is the mean over all frames (0 for a series without any).
        counts: Valid frames, [series, slot + 1].
    """

    def __init__(self, record: Record) -> None:
        """Average the valid frames; of a record without slots there is the mean over all alone."""
        slots = np.full(record.size, -1, dtype=np.int64) if record.slot is None else record.slot
        num_slots = int(slots.max(initial=-1)) + 1
        shape = (len(record.frames), num_slots + 1, *record.frames.shape[2:])
        self.means = np.zeros(shape, dtype=np.float32)
        self.counts = np.zeros(shape[:2], dtype=np.int64)
        total = np.zeros((shape[0], *shape[2:]))
        for slot in range(-1, num_slots):
            chosen = slots == slot
            valid = record.valid[:, chosen]
            frames = record.frames[:, chosen]
            if not valid.all():
                frames = np.where(valid.reshape(*valid.shape, *(1,) * (frames.ndim - 2)), frames, 0)
            summed = frames.sum(axis=1, dtype=np.float64)
            total += summed
            if slot >= 0:
                self.counts[:, slot] = valid.sum(axis=1)
                self.means[:, slot] = summed / _column(self.counts[:, slot], summed)
        self.counts[:, -1] = record.valid.sum(axis=1)
        self.means[:, -1] = total / _column(self.counts[:, -1], total)
        for series, slot in zip(*np.nonzero(self.counts[:, :-1] == 0), strict=True):
            self.means[series, slot] = self.means[series, -1]

    def rows(self, slots: Int64[np.ndarray, "*asked"]) -> Int64[np.ndarray, "*asked"]:
        """Row of each slot; the last one for those that were never seen."""
        last = self.means.shape[1] - 1
        return np.where((slots >= 0) & (slots < last), slots, last)

    def look_up(self, slots: Int64[np.ndarray, "*asked"]) -> Float32[np.ndarray, "series *asked_cells"]:
        """Means at these slots."""
        return self.means[:, self.rows(slots)]


class FollowingMeans:
    """Means by slot that go through a record frame by frame, for several rates side by side.

    Attributes:
        mean: [series, slot, rate, ...]; 0 where nothing was seen.
        count: Frames seen, [series, slot].
    """

    def __init__(self, record: Record, num_slots: int, rates: Sequence[float]) -> None:
        """Begin before the first frame.

        Args:
            record: With slots.
            num_slots: More than the largest slot.
            rates: Least weights of the newest frame: `mean += max(rate, 1 / count) * (frame - mean)`.
        """
        self._record, self._rates, self._place = record, rates, 0
        self.mean = np.zeros((len(record.frames), num_slots, len(rates), *record.frames.shape[2:]), dtype=np.float32)
        self.count = np.zeros((len(record.frames), num_slots), dtype=np.int64)

    def advance(self, position: int) -> None:
        """Go on to a position, its frame included."""
        record = self._record
        assert record.slot is not None
        for time in range(self._place, position + 1):
            slot = record.slot[time]
            for series in np.flatnonzero(record.valid[:, time]):
                self.count[series, slot] += 1
                least = 1 / self.count[series, slot]
                mean, frame = self.mean[series, slot], record.frames[series, time]
                for index, rate in enumerate(self._rates):
                    mean[index] += np.float32(max(rate, least)) * (frame - mean[index])
        self._place = max(self._place, position + 1)


def _column(count: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Counts, at least 1, shaped to divide frames."""
    return np.asarray(np.maximum(count, 1)).reshape(-1, *(1,) * (like.ndim - 1))
