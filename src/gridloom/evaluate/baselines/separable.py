"""Covariances that are a product of one in time and one in space, and the parts of a grid that they are used in."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float64, Int64

from gridloom.core.errors import ConfigError

__all__ = ["LearnedCovariance", "SeparableCovariance", "Tile", "cut_tiles"]

_LEAST_NUGGET = 1e-4
"""Part of the variance that keeps the matrices invertible."""


@dataclass(frozen=True, kw_only=True)
class SeparableCovariance:
    """How alike two anomalies are, and from which climate they are taken.

    In time: short_share * exp(-|dt| / short_time) + (1 - short_share) * exp(-|dt| / long_time) + time_nugget * same.
    In space: exp(-sqrt((dy / y_length)^2 + (dx / x_length)^2)) + space_nugget * same. The covariance is `sill` times
    their product. A record that JSON can hold: `SeparableCovariance(**dataclasses.asdict(covariance))` is the same.
    """

    short_time: float = 1.0
    """In typical steps of time, above 0."""
    long_time: float = 8.0
    """In typical steps of time, above 0."""
    short_share: float = 0.5
    """From 0 to 1."""
    time_nugget: float = 0.1
    """Variance that no other time shares, but other places at the same time do."""
    y_length: float = 8.0
    """In cells, above 0."""
    x_length: float = 8.0
    """In cells, above 0."""
    space_nugget: float = 0.05
    """Variance that no other place shares, but other times at the same place do."""
    sill: float = 1.0
    """Scale of the variances, in squared units of the anomalies. Estimates do not depend on it."""
    y_smoothing: float = 2.0
    """Radius over which the climatology is blended, in cells."""
    x_smoothing: float = 2.0
    """Radius over which the climatology is blended, in cells."""
    trend: bool = False
    """Whether the climatology has a line in time."""

    def __post_init__(self) -> None:
        """Refuse what is no covariance."""
        lengths = (self.short_time, self.long_time, self.y_length, self.x_length)
        others = (self.time_nugget, self.space_nugget, self.sill, self.y_smoothing, self.x_smoothing)
        if min(lengths) <= 0 or min(others) < 0 or not 0 <= self.short_share <= 1:
            raise ConfigError(f"covariance: expected lengths above 0, the rest not below, a share to 1; got {self}")

    def over_time(self, steps: Float64[np.ndarray, " time"]) -> Float64[np.ndarray, "time time"]:
        """Covariance of the times."""
        apart = np.abs(np.subtract.outer(steps, steps))
        covariance = self.short_share * np.exp(-apart / self.short_time)
        covariance += (1 - self.short_share) * np.exp(-apart / self.long_time)
        covariance[np.diag_indices(len(steps))] += max(self.time_nugget, _LEAST_NUGGET)
        return np.asarray(covariance)

    def over_space(
        self, y: Int64[np.ndarray, " place"], x: Int64[np.ndarray, " place"], *, circle: int = 0
    ) -> Float64[np.ndarray, "place place"]:
        """Covariance of the places, without the sill.

        Args:
            y: Rows.
            x: Columns.
            circle: Columns around the circle that x closes, 0 for none. Distances are then chords: the length of
                arcs gives no covariance on a cylinder.
        """
        dy, dx = np.subtract.outer(y, y).astype(np.float64), np.subtract.outer(x, x).astype(np.float64)
        if circle:
            dx = np.sin(dx * (np.pi / circle)) * (circle / np.pi)
        covariance = np.exp(-np.hypot(dy / self.y_length, dx / self.x_length))
        covariance[np.diag_indices(len(y))] += max(self.space_nugget, _LEAST_NUGGET)
        return np.asarray(covariance)

    @property
    def variance(self) -> float:
        """Variance of an anomaly."""
        return self.sill * (1 + max(self.time_nugget, _LEAST_NUGGET)) * (1 + max(self.space_nugget, _LEAST_NUGGET))


@dataclass(frozen=True, kw_only=True, eq=False)
class LearnedCovariance:
    """A covariance over space that was estimated entry by entry, with a parametric one over time; see `fit_em`."""

    scales: SeparableCovariance
    """Covariance over time, and what to take as climate; the sill is 1."""
    places: Bool[np.ndarray, "y x"]
    """Places that take part."""
    over_space: tuple[np.ndarray, ...]
    """Covariance of the places of each tile, in squared units of the anomalies."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Tile:
    """A part of the grid that is solved by itself: a core whose estimates are kept, and a margin that it sees."""

    times: Int64[np.ndarray, " time"]
    y: Int64[np.ndarray, " place"]
    x: Int64[np.ndarray, " place"]
    core: Bool[np.ndarray, "time place"]
    """What belongs to this tile alone."""

    def take(self, cube: np.ndarray) -> np.ndarray:
        """Cells of a cube [..., time, y, x] as [..., time, place]."""
        part: np.ndarray = cube[..., self.times[:, None], self.y, self.x]
        return part

    def put(self, cube: np.ndarray, part: np.ndarray) -> None:
        """Write the core of a part [time, place] into a cube."""
        time, place = np.nonzero(self.core)
        cube[self.times[time], self.y[place], self.x[place]] = part[time, place]


def cut_tiles(
    places: Bool[np.ndarray, "y x"], num_times: int, *, periodic: bool, most_places: int = 1200, most_times: int = 250
) -> Iterator[Tile]:
    """Cut a grid into tiles: one where it is small, else overlapping ones whose cores make up the grid.

    Args:
        places: Those that are ever observed or asked for; others are in no tile.
        num_times: Number of times.
        periodic: Whether x closes a circle.
        most_places: Most places of a tile with its margin; their number cubed is what a tile costs.
        most_times: Most times of a tile with its margin.
    """
    height, width = places.shape
    rows = height if width * height <= most_places else min(height, int(np.sqrt(most_places)))
    for times, own_times in _spans(num_times, most_times, circular=False):
        for y, own_y in _spans(height, rows, circular=False):
            for x, own_x in _spans(width, max(1, most_places // rows), circular=periodic):
                row, column = np.nonzero(places[np.ix_(y, x % width)])
                own = own_y[row] & own_x[column]
                if own.any():
                    core = own_times[:, None] & own
                    yield Tile(times=times, y=y[row], x=x[column] % width, core=core)


def _spans(size: int, longest: int, *, circular: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Positions of each tile along an axis, which may lie around the circle, and which of them are its core.

    Cores are half as long as the tiles.
    """
    if size <= longest:
        yield np.arange(size), np.ones(size, dtype=bool)
        return
    margin = max(longest // 4, 1)
    count = -(-size // max(longest - 2 * margin, 1))
    edges = np.linspace(0, size, count + 1).round().astype(np.int64)
    for start, stop in pairwise(edges):
        positions = np.arange(start - margin, stop + margin)
        if not circular:
            positions = positions[(positions >= 0) & (positions < size)]
        yield positions, (positions >= start) & (positions < stop)
