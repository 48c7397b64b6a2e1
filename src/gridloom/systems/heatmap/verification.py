"""What pictures show beyond the scores: errors in bins of slots, and what bands of any width hold."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64

__all__ = ["Losses", "cover", "frame_losses", "mean_by_slot"]


@dataclass(frozen=True, kw_only=True)
class Losses:
    """Squared errors of frames.

    Attributes:
        squared: Sum over series and cells, [method, origin, lead].
        count: Cells summed, [origin, lead].
        methods: Names.
    """

    squared: Float[np.ndarray, "method origin lead"]
    count: Int64[np.ndarray, "origin lead"]
    methods: tuple[str, ...]


def frame_losses(
    truth: Float[np.ndarray, "series origin lead *cells"],
    wanted: np.ndarray,
    answers: Mapping[str, Float[np.ndarray, "series origin lead *cells"]],
) -> Losses:
    """Sum squared errors where an answer is wanted and the truth is known."""
    counts = wanted.astype(bool) & np.isfinite(truth)
    inside = tuple(axis for axis in range(truth.ndim) if axis not in (1, 2))
    squared = [np.where(counts, answer - truth, 0.0).astype(np.float64) for answer in answers.values()]
    return Losses(
        squared=np.stack([np.square(error).sum(axis=inside) for error in squared]),
        count=counts.sum(axis=inside, dtype=np.int64),
        methods=tuple(answers),
    )


def mean_by_slot(
    values: Float[np.ndarray, "*frames"],
    weights: np.ndarray,
    slot: Int64[np.ndarray, "*frames"],
    edges: Int64[np.ndarray, " edge"],
) -> Float[np.ndarray, " bin"]:
    """Sum of values over sum of weights in bins of slots; NaN in a bin without weight.

    Args:
        values: One for each frame.
        weights: Likewise.
        slot: Slot of each frame.
        edges: First slot of each bin, and the end of the last one.
    """
    place = np.searchsorted(edges, slot.ravel(), side="right") - 1
    size = len(edges) - 1
    total = np.bincount(place, weights=values.ravel(), minlength=size)[:size]
    weight = np.bincount(place, weights=weights.ravel().astype(np.float64), minlength=size)[:size]
    return np.asarray(np.divide(total, weight, out=np.full(size, np.nan), where=weight > 0))


def cover(
    samples: Float[np.ndarray, "sample *cases"],
    truth: Float[np.ndarray, "*cases"],
    nominal: Float[np.ndarray, " level"],
) -> Float[np.ndarray, " level"]:
    """Share of truths within the central intervals of samples.

    The rank of a truth among n samples is spread evenly over the 1 / (n + 1) of the distribution that it stands for,
    and over the samples that it equals (Czado, Gneiting & Held 2009, "Predictive model assessment for count data"), so
    that few samples and whole numbers leave the shares what they should be.

    Args:
        samples: Draws.
        truth: What came; NaN is left out.
        nominal: What the intervals should hold, from 0 to 1.
    """
    known = np.isfinite(truth)
    drawn, came = samples[:, known], truth[known]
    size = len(drawn) + 1
    low, high = (drawn < came).sum(axis=0) / size, ((drawn <= came).sum(axis=0) + 1) / size
    half = np.asarray(nominal)[:, None] / 2
    shared = np.clip(np.minimum(high, 0.5 + half) - np.maximum(low, 0.5 - half), 0.0, None) / (high - low)
    return np.asarray(shared.mean(axis=1))
