"""Forecasts without learning: the last frame, an average that follows, the same slot before.

All take the question of `gridloom.evaluate.baselines.record`: `given` is one record along time, `wanted` has origins,
each with the position up to which the record may be seen, and leads. No answer looks at what comes after its position.
"""

from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float32, Int64

from gridloom.core.errors import ConfigError, DataError
from gridloom.evaluate.baselines.record import Question, Record, answer_frames, follow, read_record
from gridloom.evaluate.baselines.slot_table import FollowingMeans, SlotTable

__all__ = ["AdaptiveSlotMean", "ExponentialAverage", "LastFrame", "SeasonalNaive", "seasonal_position"]

_RATES = (0.005, 0.01, 0.02, 0.035, 0.05, 0.08, 0.12, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.8)
_NUM_SEASONS = 8
_SLOT_RATES = (0.0, 0.02, 0.05, 0.08, 0.12, 0.16, 0.2, 0.3, 0.5)


class LastFrame:
    """Answers with the last valid frame that may be seen; 0 where there is none."""

    def predict(self, given: xr.Dataset, wanted: xr.Dataset) -> xr.Dataset:
        """Answer every lead of every origin."""
        return answer_frames(given, wanted, _last_frames)


class ExponentialAverage:
    """Answers every lead with an average in which a frame's weight falls exponentially with its age."""

    def __init__(self, history: xr.Dataset | None = None, *, rate: float | None = None, restart: bool = False) -> None:
        """Choose the weight of the newest frame.

        Args:
            history: Training part, (time, ...) or (series, time, ...); for the choice of the rate.
            rate: Weight of the newest frame, above 0 and up to 1. None takes the one with the least error one step
                ahead in the history.
            restart: Begin anew with each session.

        Attributes:
            rate: The same for all variables.
        """
        self.restart = restart
        if rate is None:
            if history is None:
                raise ConfigError("exponential average: expected a history to choose the rate by, or a rate; got none")
            rate = _best(history, _RATES, lambda record: _average_errors(record, _RATES, restart))
        if not 0 < rate <= 1:
            raise ConfigError(f"rate must lie above 0 and up to 1, got {rate}")
        self.rate = rate

    def predict(self, given: xr.Dataset, wanted: xr.Dataset) -> xr.Dataset:
        """Answer every lead of every origin."""
        return answer_frames(given, wanted, self._answer)

    def _answer(self, name: str, record: Record, question: Question) -> np.ndarray:
        answers = _empty(record, question)
        for chosen, states in follow(record, question.position, (self.rate,), restart=self.restart):
            answers[:, chosen] = states[:, :, 0].swapaxes(0, 1)[:, :, None]
        return answers


class SeasonalNaive:
    """Answers with the frame that stood a whole number of seasons before the one that is asked.

    Of several seasons the first counts for which there is a valid frame; where none has one, the last frame does.
    """

    def __init__(self, lags: Sequence[int] | int) -> None:
        """Choose the seasons.

        Args:
            lags: Length of a season in slots, or several, the most trusted first.
        """
        self.lags = (lags,) if isinstance(lags, int) else tuple(lags)
        if not self.lags or min(self.lags) < 1:
            raise ConfigError(f"lags must be whole numbers from 1 up, got {self.lags}")

    def predict(self, given: xr.Dataset, wanted: xr.Dataset) -> xr.Dataset:
        """Answer every lead of every origin."""
        return answer_frames(given, wanted, self._answer)

    def _answer(self, name: str, record: Record, question: Question) -> np.ndarray:
        source = _spread(record.last_valid()[:, question.position], question)
        for lag in reversed(self.lags):
            found = seasonal_position(record, question.position, question.lead, lag)
            source = np.where(found < 0, source, found)
        return record.take(source)


class AdaptiveSlotMean:
    """Answers with a mean of the slot that follows: at first a plain mean, then one in which the old fades.

    With each frame x of slot s: mean[s] += max(rate, 1 / count[s]) * (x - mean[s]). A slot that was not seen yet takes
    the mean of the history for it, or of all the history.
    """

    def __init__(self, history: xr.Dataset, slot: str = "slot", *, rate: float | None = None) -> None:
        """Choose how fast to follow.

        Args:
            history: Training part, (time, ...) or (series, time, ...).
            slot: Name of the coordinate with the slot of each step; `given` must have it along time, `wanted` along
                origin and lead.
            rate: Least weight of the newest frame, from 0 (the mean of all that was seen) to 1. None takes the one with
                the least error one step ahead in the history.
        """
        self.slot = slot
        if rate is None:
            rate = _best(history, _SLOT_RATES, lambda record: _slot_errors(record, slot), slot=slot)
        if not 0 <= rate <= 1:
            raise ConfigError(f"rate must lie from 0 to 1, got {rate}")
        self.rate = rate
        self._usual = {
            str(name): SlotTable(read_record(history, str(name), "history", slot=slot)) for name in history.data_vars
        }

    def predict(self, given: xr.Dataset, wanted: xr.Dataset) -> xr.Dataset:
        """Answer every lead of every origin."""
        return answer_frames(given, wanted, self._answer, slot=self.slot)

    def _answer(self, name: str, record: Record, question: Question) -> np.ndarray:
        if record.slot is None or question.slot is None:
            raise DataError(
                f"expected the coordinate {self.slot!r} along time in given, and along origin, lead in wanted"
            )
        if name not in self._usual:
            raise DataError(f"expected one of the history's variables {sorted(self._usual)}, got {name!r}")
        answers = _empty(record, question)
        means = FollowingMeans(record, max(int(record.slot.max()), int(question.slot.max())) + 1, (self.rate,))
        for origin, position in enumerate(question.position):
            means.advance(int(position))
            slots = question.slot[origin]
            answers[:, origin] = means.mean[:, slots, 0]
            for series, lead in zip(*np.nonzero(means.count[:, slots] == 0), strict=True):
                answers[series, origin, lead] = self._usual[name].look_up(slots[lead : lead + 1])[series, 0]
        return answers


def seasonal_position(
    record: Record, position: Int64[np.ndarray, " origin"], lead: Int64[np.ndarray, " lead"], lag: int
) -> Int64[np.ndarray, "series origin lead"]:
    """Position of the latest valid frame that stands a multiple of the lag before the asked one; -1 where none does.

    At most 8 multiples are tried.
    """
    asked = position[:, None] + lead
    latest = asked - lag * -(-lead // lag)  # the least multiple that is not after the origin
    found = np.full((len(record.frames), *latest.shape), -1)
    for multiple in range(_NUM_SEASONS):
        place = latest - multiple * lag
        usable = (place >= 0) & record.valid[:, np.maximum(place, 0)] & (found < 0)
        found = np.where(usable, place, found)
    return found


def _last_frames(name: str, record: Record, question: Question) -> np.ndarray:
    return record.take(_spread(record.last_valid()[:, question.position], question))


def _spread(
    position: Int64[np.ndarray, "series origin"], question: Question
) -> Int64[np.ndarray, "series origin lead"]:
    """The same position for all leads."""
    return np.repeat(position[:, :, None], len(question.lead), axis=2)


def _empty(record: Record, question: Question) -> Float32[np.ndarray, "series origin lead *cells"]:
    shape = (len(record.frames), len(question.position), len(question.lead), *record.frames.shape[2:])
    return np.zeros(shape, dtype=np.float32)


def _best(
    history: xr.Dataset, rates: Sequence[float], errors: Callable[[Record], np.ndarray], *, slot: str = "slot"
) -> float:
    """The rate with the least error over all variables, each weighed by its own least error."""
    total = np.zeros(len(rates))
    for name in history.data_vars:
        found = errors(read_record(history, str(name), "history", slot=slot))
        total += found / max(float(found.min()), np.finfo(np.float64).tiny)
    return rates[int(np.argmin(total))]


def _average_errors(record: Record, rates: Sequence[float], restart: bool) -> np.ndarray:
    """Sum of squared errors one step ahead, for each rate."""
    total = np.zeros(len(rates))
    positions = np.arange(record.size - 1)
    for chosen, states in follow(record, positions, rates, restart=restart):
        for time, state in zip(positions[chosen] + 1, states, strict=True):
            if restart and record.begins[time]:
                continue
            error = state - record.frames[:, time, None]
            total += np.nansum(np.square(error), axis=(0, *range(2, error.ndim)))
    return total


def _slot_errors(record: Record, slot: str) -> np.ndarray:
    """Sum of squared errors of frames whose slot was seen before, for each rate."""
    if record.slot is None:
        raise DataError(f"history: expected a coordinate {slot!r} along time")
    total = np.zeros(len(_SLOT_RATES))
    means = FollowingMeans(record, int(record.slot.max()) + 1, _SLOT_RATES)
    for time, own in enumerate(record.slot):
        for series in np.flatnonzero(record.valid[:, time] & (means.count[:, own] > 0)):
            error = means.mean[series, own] - record.frames[series, time]
            total += np.square(error).reshape(len(_SLOT_RATES), -1).sum(axis=1, dtype=np.float64)
        means.advance(time)
    return total
