"""Answers to a question about frames, in one order of dimensions, and groups of frames to score."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Float64, Int64

from gridloom.core.contracts import Task
from gridloom.core.errors import DataError
from gridloom.core.score import Score
from gridloom.evaluate.bootstrap import Estimate, block_ids
from gridloom.evaluate.sums import point_answer

__all__ = ["Frames", "Group", "by_block", "groups_of", "read_frames", "scaled", "template"]

_ORDER = ("series", "origin", "lead", "channel", "y", "x")


@dataclass(frozen=True, kw_only=True, eq=False)
class Frames:
    """The frames that are asked and known.

    Attributes:
        name: Variable.
        truth: [series, origin, lead, channel, y, x].
        counts: Frames that count, [series, origin, lead]: wanted and known, every cell of them.
        block: Block of each origin for the bootstrap; -1 for origins where nothing counts.
        lead: [lead].
        slot: [origin, lead], or None.
        channels: Names of the channels.
    """

    name: str
    truth: Float[np.ndarray, "series origin lead channel y x"]
    counts: Bool[np.ndarray, "series origin lead"]
    block: Int64[np.ndarray, " origin"]
    lead: Int64[np.ndarray, " lead"]
    slot: Int64[np.ndarray, "origin lead"] | None
    channels: tuple[str, ...]

    @property
    def cells(self) -> int:
        """Number of cells of a frame, all channels."""
        return int(np.prod(self.truth.shape[3:]))

    def point(self, method: str, answers: xr.Dataset) -> Float[np.ndarray, "series origin lead channel y x"]:
        """The answer that errors are measured on.

        Raises:
            DataError: Another shape than the truth, or a frame that counts without answer.
        """
        dims = {dim for dim in _ORDER if dim != "series" or "series" in answers[self.name].dims}
        values = _ordered(point_answer(answers[self.name], dims))
        if values.shape != self.truth.shape:
            raise DataError(f"method {method!r}: expected frames {self.truth.shape}, got {values.shape}")
        unanswered = int((self.counts & ~np.isfinite(values).all(axis=(3, 4, 5))).sum())
        if unanswered:
            raise DataError(f"method {method!r}: {unanswered} of {int(self.counts.sum())} frames have no finite answer")
        return values

    def samples(self, answers: xr.Dataset) -> Float[np.ndarray, "sample series origin lead channel y x"] | None:
        """Sample paths: the variable `NAME_sample`, or the dimension `sample` of the answer; None without either."""
        for name in (f"{self.name}_sample", self.name):
            if name in answers and "sample" in answers[name].dims:
                return np.stack([_ordered(path) for path in answers[name].transpose("sample", ...)])
        return None


@dataclass(frozen=True, kw_only=True, eq=False)
class Group:
    """Frames that are scored together."""

    label: str
    """Empty for all."""
    inside: Bool[np.ndarray, "series origin lead"]

    def named(self, what: str = "") -> str:
        """Name of the group in scores, of a part of the frame or of the whole."""
        return f"{what} {self.label}".strip() or "all"


def read_frames(task: Task, name: str, num_blocks: int) -> Frames:
    """Read the truth of one variable of a task.

    Raises:
        DataError: No such variable, other dimensions than those of a forecast, or nothing counts.
    """
    if name not in task.truth:
        raise DataError(f"task {task.name!r}: expected a variable {name!r}, got {sorted(map(str, task.truth))}")
    if set(task.truth[name].dims) - {"series"} != set(_ORDER) - {"series"}:
        raise DataError(
            f"task {task.name!r}: expected {name!r} on {_ORDER} (series may lack), got {task.truth[name].dims}"
        )
    truth = _ordered(task.truth[name])
    counts = (_ordered(task.wanted[name]).astype(bool) & np.isfinite(truth)).all(axis=(3, 4, 5))
    active = np.flatnonzero(counts.any(axis=(0, 2)))
    if not len(active):
        raise DataError(f"task {task.name!r}: nothing to score, no wanted frame is known")
    block = np.full(truth.shape[1], -1, dtype=np.int64)
    block[active] = block_ids(len(active), num_blocks)
    coords = task.wanted.coords
    slot = coords["slot"].transpose("origin", "lead").values.astype(np.int64) if "slot" in coords else None
    lead = coords["lead"].values if "lead" in coords else np.arange(1, truth.shape[2] + 1)
    channels = coords["channel"].values if "channel" in coords else np.arange(truth.shape[3])
    return Frames(
        name=name,
        truth=truth,
        counts=counts,
        block=block,
        lead=lead.astype(np.int64),
        slot=slot,
        channels=tuple(map(str, channels)),
    )


def groups_of(frames: Frames, *, max_slots: int) -> Iterator[Group]:
    """Yield all frames; those of each lead, if there are several; those of each slot.

    Args:
        frames: What counts.
        max_slots: Most groups of slots; where more slots are asked, neighbors stand together. 0 for none.
    """
    yield Group(label="", inside=frames.counts)
    if len(frames.lead) > 1:
        for index, lead in enumerate(frames.lead):
            inside = np.zeros_like(frames.counts)
            inside[:, :, index] = frames.counts[:, :, index]
            if inside.any():
                yield Group(label=f"lead={lead}", inside=inside)
    if frames.slot is None or not max_slots:
        return
    asked = np.unique(frames.slot[frames.counts.any(axis=0)])
    if len(asked) < 2:
        return
    if len(asked) <= max_slots:
        ranges = [(int(slot), int(slot)) for slot in asked]
    else:
        edges = np.linspace(asked[0], asked[-1] + 1, max_slots + 1).round().astype(np.int64)
        ranges = [(int(low), int(high) - 1) for low, high in pairwise(edges)]
    for low, high in ranges:
        inside = frames.counts & (frames.slot >= low) & (frames.slot <= high)
        if inside.any():
            yield Group(label=f"slot={low}" if low == high else f"slot={low}-{high}", inside=inside)


def by_block(
    frames: Frames, group: Group, values: Float[np.ndarray, "*methods series origin lead"]
) -> Float64[np.ndarray, "*methods block"]:
    """Add up figures of the frames of a group by block of origins."""
    summed = np.where(group.inside, values, 0.0).sum(axis=(-3, -1), dtype=np.float64)
    of_block = frames.block[:, None] == np.arange(frames.block.max() + 1)
    return np.asarray(summed @ of_block)


def template(task: Task, seed: int) -> Score:
    """A score with the names of a task, to be filled."""
    return Score(
        data=task.name,
        split=task.split,
        method="",
        metric="",
        unit="1",
        group="all",
        seed=seed,
        value=np.nan,
        low=np.nan,
        high=np.nan,
        num_blocks=0,
    )


def scaled(estimate: Estimate, factor: float) -> Estimate:
    """An estimate in another unit."""
    return replace(estimate, value=estimate.value * factor, low=estimate.low * factor, high=estimate.high * factor)


def _ordered(values: xr.DataArray) -> np.ndarray:
    own: Sequence[str] = _ORDER if "series" in values.dims else _ORDER[1:]
    if set(values.dims) != set(own):
        raise DataError(f"{values.name!r}: expected the dimensions {tuple(own)}, got {values.dims}")
    array: np.ndarray = values.transpose(*own).values
    return array if "series" in values.dims else array[None]
