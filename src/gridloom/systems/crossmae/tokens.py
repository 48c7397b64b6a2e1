"""Chosen positions of a grid of tokens as rectangular batches, without a loop over samples or positions."""

from typing import NamedTuple, TypedDict

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

__all__ = ["Chosen", "MaskInfo", "length_buckets", "padding_or_none", "scatter_rows", "take_rows", "where_true"]

_NUM_BUCKETS = 4


class MaskInfo(TypedDict):
    """What an encoder tells a decoder."""

    mask: Tensor
    """[batch, times, places]; True = hidden, with data behind it: to be predicted."""
    padding_mask: Tensor
    """[batch, tokens]; True = padding."""
    positions: Tensor
    """[batch, tokens]; time * places + place of each token, 0 for padding."""


class Chosen(NamedTuple):
    """Positions of each sample, padded to the longest."""

    positions: Int64[Tensor, "batch length"]
    """In rising order; 0 for padding."""
    padding: Bool[Tensor, "batch length"] | None
    """True = padding; None where all samples have equally many."""

    def mask(self) -> Bool[Tensor, "batch length"]:
        """The padding as a mask in any case."""
        return torch.zeros_like(self.positions, dtype=torch.bool) if self.padding is None else self.padding


def where_true(chosen: Bool[Tensor, "batch positions"]) -> Chosen:
    """List the positions that are True, sample by sample."""
    size = len(chosen)
    samples, positions = chosen.nonzero(as_tuple=True)
    counts = chosen.sum(1)
    longest = int(counts.max()) if size else 0
    if len(positions) == size * longest:
        return Chosen(positions.view(size, longest), None)
    ranks = torch.arange(len(positions), device=chosen.device) - (counts.cumsum(0) - counts)[samples]
    padded = positions.new_zeros(size, longest)
    padded[samples, ranks] = positions
    return Chosen(padded, torch.arange(longest, device=chosen.device) >= counts[:, None])


def take_rows(
    rows: Shaped[Tensor, "batch positions size"], positions: Int64[Tensor, "batch length"]
) -> Shaped[Tensor, "batch length size"]:
    """Rows at these positions of the same sample."""
    size, length = rows.shape[:2]
    start = torch.arange(size, device=rows.device)[:, None] * length
    chosen = rows.flatten(0, 1).index_select(0, (positions + start).flatten())
    return chosen.view(*positions.shape, rows.shape[2])


def scatter_rows(
    rows: Float[Tensor, "batch length size"], chosen: Chosen, num_positions: int
) -> Float[Tensor, "batch positions size"]:
    """Put rows back at their positions, 0 elsewhere."""
    size = len(rows)
    start = torch.arange(size, device=rows.device)[:, None] * num_positions
    where = (chosen.positions + start).flatten()
    flat = rows.flatten(0, 1)
    if chosen.padding is not None:
        kept = ~chosen.padding.flatten()
        where, flat = where[kept], flat[kept]
    whole = rows.new_zeros(size * num_positions, rows.shape[2])
    return whole.index_copy(0, where, flat).view(size, num_positions, rows.shape[2])


def padding_or_none(padding: Bool[Tensor, "batch length"]) -> Tensor | None:
    """The mask, or None if nothing is padded: attention is faster without."""
    return padding if bool(padding.any()) else None


def length_buckets(padding: Bool[Tensor, "batch length"]) -> list[tuple[Tensor, int]]:
    """Group samples of similar length, so that short ones are not computed at the length of the longest.

    Returns:
        For each group its samples and the length to which they can be cut. Padding must be at the end.
    """
    lengths = (~padding).sum(1)
    step = max(1, -(-padding.shape[1] // _NUM_BUCKETS))
    group = (lengths + step - 1) // step
    found = []
    for number in torch.unique(group).tolist():
        samples = (group == number).nonzero(as_tuple=True)[0]
        found.append((samples, int(lengths[samples].max())))
    return found
