"""Ridge regression of a frame on what was seen before: one equation for all cells, fitted for each lead."""

import functools
import operator
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float32, Float64, Int64

from gridloom.core.errors import ConfigError, DataError
from gridloom.evaluate.baselines.forecast import seasonal_position
from gridloom.evaluate.baselines.record import Question, Record, answer_frames, follow, read_record
from gridloom.evaluate.baselines.slot_table import FollowingMeans, SlotTable

__all__ = ["RidgeConfig", "RidgeForecast"]

_PENALTIES = (1e-8, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
"""In terms of the mean square of the features."""
_HELD_OUT = 0.1


@dataclass(frozen=True, kw_only=True)
class RidgeConfig:
    """What a frame is regressed on, besides a constant."""

    num_lags: int = 4
    """Last frames of the cell."""
    rates: tuple[float, ...] = (0.1, 0.3)
    """Exponential averages of the cell: weights of the newest frame."""
    seasons: tuple[int, ...] = ()
    """Frames whole seasons before the one asked: lengths in slots."""
    use_neighbors: bool = True
    """The mean of 3 x 3 cells of the last frame."""
    use_channels: bool = True
    """Last frame and quickest average, mean of the other channels at the cell."""
    slot: str = "slot"
    """Coordinate whose means are used: of the slot that is asked, and of the last one. Empty: none."""
    restart: bool = False
    """Averages begin anew with each session, and frames of the session before are missing."""

    def __post_init__(self) -> None:
        if self.num_lags < 1 or not self.rates or not all(0 < rate <= 1 for rate in self.rates):
            raise ConfigError(f"expected at least one lag and rates from 0 to 1, got {self.num_lags} and {self.rates}")
        if any(season < 1 for season in self.seasons):
            raise ConfigError(f"seasons must be whole numbers from 1 up, got {self.seasons}")


class RidgeForecast:
    """Least squares with a penalty on last frames, averages, neighbors, the other channel, and means of slots.

    The equation is the same for all cells and series, and another for each lead; it is fitted when a lead is first
    asked, by normal equations in float64 that go through the history once. The penalty is the one with the least error
    on the last tenth of the history; then all of it is fitted. When fitting, the mean of a slot is that of the frames
    before, so that no mean knows the frame it helps to foretell; when answering, it is that of the history.

    A frame that is missing counts as the mean of its slot, or, without slots or before the record (or the session)
    begins, as the mean of the slot that is asked.
    """

    def __init__(self, history: xr.Dataset, config: RidgeConfig | None = None) -> None:
        """Average the history by slot.

        Args:
            history: Training part, (time, channel, y, x) or (series, time, channel, y, x).
            config: What is regressed on.
        """
        self.config = RidgeConfig() if config is None else config
        self._history = history
        self._tables: dict[str, SlotTable] = {}
        self._weights: dict[tuple[str, int], np.ndarray] = {}
        for name in history.data_vars:
            record = read_record(history, str(name), "history", slot=self.config.slot)
            if self.config.slot and record.slot is None:
                raise DataError(f"history: expected a coordinate {self.config.slot!r} along time; or give slot ''")
            self._tables[str(name)] = SlotTable(record)

    def predict(self, given: xr.Dataset, wanted: xr.Dataset) -> xr.Dataset:
        """Answer every lead of every origin."""
        return answer_frames(given, wanted, self._answer, slot=self.config.slot)

    def weights(self, name: str, lead: int) -> Float64[np.ndarray, " feature"]:
        """Coefficients of the features of one lead; the constant last."""
        if name not in self._tables:
            raise DataError(f"expected one of the history's variables {sorted(self._tables)}, got {name!r}")
        if (name, lead) not in self._weights:
            record = read_record(self._history, name, "history", slot=self.config.slot)
            self._weights[name, lead] = _fit(_Features(record, self._tables[name], self.config), lead)
        return self._weights[name, lead]

    def _answer(self, name: str, record: Record, question: Question) -> np.ndarray:
        weights = [self.weights(name, int(lead)) for lead in question.lead]
        features = _Features(record, self._tables[name], self.config)
        shape = (len(record.frames), len(question.position), len(question.lead), *record.frames.shape[2:])
        answers = np.empty(shape, dtype=np.float32)
        for chosen, states in follow(record, question.position, self.config.rates, restart=self.config.restart):
            position = question.position[chosen]
            for index, lead in enumerate(question.lead):
                usual = features.usual(position, None if question.slot is None else question.slot[chosen, index])
                found = answers[:, chosen, index]
                found[:] = weights[index][-1]
                for weight, feature in zip(weights[index], features(position, int(lead), usual, states), strict=False):
                    found += np.float32(weight) * feature
        return answers


class _Features:
    """What is known at a position about the frame some slots later, feature by feature."""

    def __init__(self, record: Record, table: SlotTable, config: RidgeConfig) -> None:
        """Look at a record."""
        if len(table.means) != len(record.frames):
            raise DataError(f"expected {len(table.means)} series as in the history, got {len(record.frames)}")
        self.record, self.table, self.config = record, table, config
        begin = np.maximum.accumulate(np.where(record.begins, np.arange(record.size), 0))
        self.first = begin if config.restart else np.zeros(record.size, dtype=np.int64)
        self.slot = np.full(record.size, -1) if record.slot is None or not config.slot else record.slot

    def usual(self, position: np.ndarray, slot: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Means of the asked slots, and of the last ones that were seen."""
        asked = np.full(len(position), -1) if slot is None or not self.config.slot else slot
        return self.table.look_up(asked), self.table.look_up(self.slot[position])

    def __call__(
        self,
        position: Int64[np.ndarray, " origin"],
        lead: int,
        means: tuple[np.ndarray, np.ndarray],
        states: np.ndarray,
    ) -> Iterator[Float32[np.ndarray, "series origin channel y x"]]:
        """Yield the features of one lead.

        Args:
            position: Of the last frame that may be seen.
            lead: How many slots later the wanted frame is.
            means: Of the wanted slot and of the last one, [series, origin, channel, y, x].
            states: Averages up to the position, as `follow` yields them.
        """
        usual, usual_last = means
        last = self._frames(position, position, usual)
        yield last
        for lag in range(1, self.config.num_lags):
            yield self._frames(position - lag, position, usual)
        average = usual
        for rate in range(len(self.config.rates)):
            average = states[:, :, rate].swapaxes(0, 1)
            average = np.where(np.isnan(average), usual, average).astype(np.float32)
            yield average
        for season in self.config.seasons:
            yield self._season(position, lead, season, usual)
        if self.config.use_neighbors:
            yield _neighbors(last)
        if self.config.use_channels and last.shape[2] > 1:
            yield _others(last)
            yield _others(average)
        if self.config.slot:
            yield usual
            yield usual_last

    def _frames(self, position: np.ndarray, origin: np.ndarray, usual: np.ndarray) -> np.ndarray:
        """Frames at positions; the usual where they are missing."""
        inside = position >= self.first[origin]
        place = np.maximum(position, 0)
        frames = self.record.frames[:, place].astype(np.float32, copy=False)
        missing = ~(self.record.valid[:, place] & inside)
        for series, index in zip(*np.nonzero(missing), strict=True):
            known = inside[index] and self.config.slot
            frames[series, index] = (
                self.table.look_up(self.slot[place[index : index + 1]])[series, 0] if known else usual[series, index]
            )
        return frames

    def _season(self, position: np.ndarray, lead: int, season: int, usual: np.ndarray) -> np.ndarray:
        place = seasonal_position(self.record, position, np.array([lead]), season)[:, :, 0]
        frames = self.record.take(place).astype(np.float32, copy=False)
        missing = place < 0
        frames[missing] = usual[missing]
        return frames

    def means_before(self, positions: np.ndarray, lead: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """As `usual`, but of the frames before the wanted, and before the last; for positions 0, 1, 2, and so on."""
        if not self.config.slot:
            for position in positions:
                yield self.usual(np.array([position]), None)
            return
        following = FollowingMeans(self.record, int(self.slot.max()) + 1, (0.0,))
        for position in positions:
            found = []
            for slot in self.slot[[position, position + lead]]:
                mean = following.mean[:, slot].copy()
                unknown = following.count[:, slot] == 0
                mean[unknown] = self.table.means[unknown, -1:]
                found.append(mean)
                following.advance(int(position))
            yield found[1], found[0]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Sums:
    """Normal equations."""

    square: Float64[np.ndarray, "feature feature"]
    product: Float64[np.ndarray, " feature"]
    target: float
    """Sum of the targets' squares."""

    def __add__(self, other: "_Sums") -> "_Sums":
        return _Sums(
            square=self.square + other.square, product=self.product + other.product, target=self.target + other.target
        )

    def solve(self, penalty: float) -> Float64[np.ndarray, " feature"]:
        """Coefficients; the constant is not shrunk."""
        shrunk = np.full(len(self.product), penalty * float(np.trace(self.square)) / len(self.product))
        shrunk[-1] = 1e-12 * max(float(self.square[-1, -1]), 1.0)
        solved: np.ndarray = np.linalg.solve(self.square + np.diag(np.maximum(shrunk, 1e-30)), self.product)
        return solved

    def error(self, weights: np.ndarray) -> float:
        """Sum of squared errors."""
        return float(self.target - 2 * weights @ self.product + weights @ self.square @ weights)


def _fit(features: _Features, lead: int) -> Float64[np.ndarray, " feature"]:
    """Fit one lead to all frames of the history that have it."""
    record, config = features.record, features.config
    num_origins = record.size - lead
    border = num_origins - max(1, int(_HELD_OUT * num_origins))
    if border < 1:
        raise DataError(f"history: expected more than {lead + 1} frames for a lead of {lead}, got {record.size}")
    alive = _alive(record)
    sums: tuple[list[_Sums], list[_Sums]] = ([], [])
    positions = np.arange(num_origins)
    before = features.means_before(positions, lead)
    for chosen, states in follow(record, positions, config.rates, restart=config.restart):
        position = positions[chosen]
        usual, usual_last = (np.concatenate(part, axis=1) for part in zip(*islice(before, len(position)), strict=True))
        late = position >= border
        for part, inside in zip(sums, (~late, late), strict=True):
            if inside.any():
                means = (usual[:, inside], usual_last[:, inside])
                part.append(
                    _sum(
                        features(position[inside], lead, means, states[inside]), features, position[inside], lead, alive
                    )
                )
    early, last = (functools.reduce(operator.add, part) for part in sums)
    best = min(_PENALTIES, key=lambda penalty: last.error(early.solve(penalty)))
    return (early + last).solve(best)


def _sum(
    found: Iterator[np.ndarray],
    features: _Features,
    position: np.ndarray,
    lead: int,
    alive: Bool[np.ndarray, "y x"],
) -> _Sums:
    """Normal equations of some origins. Cells that are not alive add to the constant alone: all else is 0 there."""
    record = features.record
    counts = record.valid[:, position + lead]
    if features.config.restart:
        counts = counts & (features.first[position + lead] == features.first[position])

    def rows(frames: np.ndarray) -> np.ndarray:
        return np.asarray(frames[counts][:, :, alive]).reshape(-1)

    columns = [rows(feature) for feature in found]
    target = rows(record.frames[:, position + lead]).astype(np.float64)
    matrix = np.stack([*columns, np.ones_like(columns[0])]).astype(np.float64)
    square = matrix @ matrix.T
    square[-1, -1] += counts.sum() * record.frames.shape[2] * (~alive).sum()
    return _Sums(square=square, product=matrix @ target, target=float(target @ target))


def _alive(record: Record) -> Bool[np.ndarray, "y x"]:
    """Cells that, or whose neighbors, are ever other than 0 in any channel."""
    seen = np.zeros(record.frames.shape[3:], dtype=bool)
    for series, valid in enumerate(record.valid):
        seen |= (record.frames[series] != 0)[valid].any(axis=(0, 1))
    return np.asarray(_neighbors(seen[None, None, None].astype(np.float32))[0, 0, 0] > 0)


def _neighbors(frames: Float32[np.ndarray, "series origin channel y x"]) -> np.ndarray:
    """Mean of 3 x 3 cells; beyond the border all is 0."""
    padded = np.pad(frames, ((0, 0), (0, 0), (0, 0), (1, 1), (1, 1)))
    rows = padded[..., :-2, :] + padded[..., 1:-1, :] + padded[..., 2:, :]
    total: np.ndarray = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    total /= np.float32(9)
    return total


def _others(frames: Float32[np.ndarray, "series origin channel y x"]) -> np.ndarray:
    """Mean of the other channels."""
    num_channels = frames.shape[2]
    if num_channels == 2:
        return frames[:, :, ::-1]
    return np.asarray((frames.sum(axis=2, keepdims=True) - frames) / np.float32(num_channels - 1))
