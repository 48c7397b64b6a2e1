"""How far the next observation is, and errors by that."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float, Shaped

from gridloom.systems.crossmae.pictures.curves import Binned

__all__ = ["bin_errors", "gap_lengths", "nearest_observed"]

_LEAST = 10
_GROWTH = 1.4


def nearest_observed(
    observed: Bool[np.ndarray, "time y x"], *, periodic: bool = False
) -> Float[np.ndarray, "time y x"]:
    """Distance in cells to the nearest observed cell of the same time; 0 where observed, inf where there is none.

    Args:
        observed: Cells with a value.
        periodic: Whether the last column lies beside the first.
    """
    from scipy.ndimage import distance_transform_edt

    width = observed.shape[2]
    around = width // 2 if periodic else 0
    found = np.full(observed.shape, np.inf)
    for time, cells in enumerate(observed):
        if cells.any():
            wide = np.pad(~cells, ((0, 0), (around, around)), mode="wrap")
            found[time] = distance_transform_edt(wide)[:, around : around + width]
    return found


def gap_lengths(observed: Bool[np.ndarray, "time *places"]) -> Shaped[np.ndarray, "time *places"]:
    """Number of times in a row without an observation of a cell that each gap of it has; 0 where observed."""
    before = np.zeros(observed.shape, dtype=np.int64)
    after = np.zeros(observed.shape, dtype=np.int64)
    run = np.zeros(observed.shape[1:], dtype=np.int64)
    for counts, order in ((before, range(len(observed))), (after, reversed(range(len(observed))))):
        run[...] = 0
        for time in order:
            run = np.where(observed[time], 0, run + 1)
            counts[time] = run
    return np.where(observed, 0, before + after - 1)


def bin_errors(
    distance: Shaped[np.ndarray, " cells"], squares: Mapping[str, Shaped[np.ndarray, " cells"]]
) -> Binned | None:
    """Roots of mean squares in bins of distance that widen, each with its number of cells.

    Args:
        distance: 1 or more; what is infinite is left out.
        squares: Squared numbers by name.

    Returns:
        Bins; None where nothing has a distance.
    """
    finite = np.isfinite(distance)
    if not finite.any():
        return None
    distance = distance[finite].astype(np.float64)
    edges = [0.5]
    while edges[-1] <= distance.max():
        edges.append(max(edges[-1] + 1.0, np.floor(edges[-1] * _GROWTH) + 0.5))
    bins = np.digitize(distance, edges) - 1
    size = len(edges) - 1
    count = np.bincount(bins, minlength=size)

    def mean(values: np.ndarray, least: int) -> np.ndarray:
        sums = np.bincount(bins, values, minlength=size)
        return np.where(count >= least, sums / np.maximum(count, 1), np.nan)

    lines = {name: np.sqrt(mean(values[finite], _LEAST)) for name, values in squares.items()}
    return Binned(edges=np.array(edges), count=count, center=mean(distance, 1), lines=lines)
