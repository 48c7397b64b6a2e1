"""Gaps to hide cells with, shaped as real ones are: boxes, whole times, the gaps of other times.

A score on cells hidden one by one flatters every method, since each has its neighbors in sight; clouds, swaths and
failed sensors leave no neighbors. All functions take the cells that are really observed and return those to hide, which
are always among them.
"""

import hashlib

import numpy as np
from jaxtyping import Bool

from gridloom.core.errors import ConfigError, DataError

__all__ = ["hide_blocks", "hide_cells", "hide_frames", "mask_digest", "transplant_gaps"]


def hide_blocks(
    observed: Bool[np.ndarray, "time y x"],
    *,
    share: float = 0.30,
    box: tuple[int, int, int] | None = None,
    seed: int = 0,
) -> Bool[np.ndarray, "time y x"]:
    """Hide boxes in space-time, which may overlap and stick out of the grid, until a share of the cells is hidden.

    Args:
        observed: True where there is an observation.
        share: Share of the observed cells, between 0 and 1. The last box may exceed it.
        box: Cells of a box in time, y and x; by default 3, a third of the rows and a ninth of the columns.
        seed: Of the places.

    Raises:
        ConfigError: A share or a box that makes no sense.
        DataError: Nothing is observed.
    """
    total = _check(observed, share)
    times, height, width = observed.shape
    length, rows, columns = box or (3, max(2, height // 3), max(3, width // 9))
    if min(length, rows, columns) < 1:
        raise ConfigError(f"box: expected three sizes of 1 or more, got {box}")
    generator = np.random.default_rng(seed)
    hidden = np.zeros(observed.shape, dtype=bool)
    count = 0
    while count / total < share:
        time = generator.integers(0, times)
        y, x = generator.integers(1 - rows, height), generator.integers(1 - columns, width)
        place = np.s_[time : time + length, max(y, 0) : y + rows, max(x, 0) : x + columns]
        count += int((observed[place] & ~hidden[place]).sum())
        hidden[place] = True
    hidden &= observed
    return hidden


def hide_frames(
    observed: Bool[np.ndarray, "time y x"], *, share: float = 0.15, seed: int = 0
) -> Bool[np.ndarray, "time y x"]:
    """Hide whole times, never the first or the last.

    Args:
        observed: True where there is an observation.
        share: Share of the times, rounded down.
        seed: Of the choice.

    Raises:
        ConfigError: A share that hides no time, or more than there are between the first and the last.
        DataError: Nothing is observed.
    """
    _check(observed, share)
    times = len(observed)
    count = int(share * times)
    if not 1 <= count <= times - 2:
        raise ConfigError(f"share: expected one that hides 1 to {times - 2} of {times} times, got {share} ({count})")
    chosen = np.random.default_rng(seed).choice(np.arange(1, times - 1), count, replace=False)
    hidden = np.zeros(observed.shape, dtype=bool)
    hidden[chosen] = observed[chosen]
    return hidden


def hide_cells(observed: Bool[np.ndarray, "time y x"], *, share: float, seed: int = 0) -> Bool[np.ndarray, "time y x"]:
    """Hide each cell by chance, independently of all others: too easy for a benchmark, good as a sanity check.

    Args:
        observed: True where there is an observation.
        share: Probability of a cell.
        seed: Of the draws.
    """
    _check(observed, share)
    hidden: np.ndarray = observed & (np.random.default_rng(seed).random(observed.shape) < share)
    return hidden


def transplant_gaps(
    observed: Bool[np.ndarray, "time y x"], *, share: float, seed: int = 0
) -> Bool[np.ndarray, "time y x"]:
    """Put the gaps of other times over the observed cells, for data with real gaps that change.

    All gaps move by the same number of times (around the end), so that what lasts several times still does; times get
    their new gaps one after another from a random one on, until the share is hidden. If once around is not enough,
    gaps of another distance are added.

    Args:
        observed: True where there is an observation. Cells that never are do not count as gaps.
        share: Share of the observed cells. The last time may exceed it; less is hidden where the gaps do not have it.
        seed: Of the distances.

    Raises:
        ConfigError: A share that makes no sense.
        DataError: Nothing is observed, or the gaps are the same at all times.
    """
    total = _check(observed, share)
    gaps = ~observed & observed.any(axis=0)
    if not gaps.any():
        raise DataError(
            "expected gaps that change over time to transplant, got the same cells at all times; hide boxes"
        )
    generator = np.random.default_rng(seed)
    times = len(observed)
    hidden = np.zeros(observed.shape, dtype=bool)
    count = 0
    for distance in generator.permutation(np.arange(1, times)):
        for time in (generator.integers(times) + np.arange(times)) % times:
            if count / total >= share:
                return hidden
            new = gaps[time - distance] & observed[time] & ~hidden[time]
            count += int(new.sum())
            hidden[time] |= new
    return hidden


def mask_digest(hidden: Bool[np.ndarray, "time y x"]) -> str:
    """First 16 hexadecimal digits of the SHA-256 of the packed mask: two with the same hide the same cells."""
    return hashlib.sha256(np.packbits(hidden).tobytes()).hexdigest()[:16]


def _check(observed: np.ndarray, share: float) -> int:
    """Return the number of observed cells."""
    if not 0 < share < 1:
        raise ConfigError(f"share: expected a number between 0 and 1, got {share}")
    total = int(observed.sum())
    if not total:
        raise DataError("expected observed cells to hide, got none")
    return total
