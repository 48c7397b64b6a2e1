"""The question of a forecast along one record: what was seen until when, and which frames are asked."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int64

from gridloom.core.errors import DataError
from gridloom.evaluate.baselines.answer import require_dims

__all__ = ["Question", "Record", "answer_frames", "follow", "read_record"]

_CHUNK_NUMBERS = 2**20  # of states that are kept at a time


@dataclass(frozen=True, kw_only=True, eq=False)
class Record:
    """Frames in order of time."""

    frames: Float[np.ndarray, "series time *cells"]
    """In data units; NaN in slots that did not take place."""
    valid: Bool[np.ndarray, "series time"]
    """Frames without NaN."""
    slot: Int64[np.ndarray, " time"] | None
    """Slot of each frame, where that is known."""
    begins: Bool[np.ndarray, " time"]
    """First frames of sessions; all False where sessions are not known."""

    @property
    def size(self) -> int:
        """Number of frames of a series."""
        return int(self.frames.shape[1])

    def last_valid(self) -> Int64[np.ndarray, "series time"]:
        """Position of the last valid frame up to each position; -1 where there is none."""
        position = np.where(self.valid, np.arange(self.size, dtype=np.int64), -1)
        return np.maximum.accumulate(position, axis=1)

    def take(self, position: Int64[np.ndarray, "series *asked"]) -> Float[np.ndarray, "series *asked_cells"]:
        """Frames at positions of their own series; NaN where the position is negative."""
        series = np.arange(len(position)).reshape(-1, *(1,) * (position.ndim - 1))
        frames: np.ndarray = self.frames[series, np.maximum(position, 0)]
        frames[position < 0] = np.nan
        return frames


@dataclass(frozen=True, kw_only=True, eq=False)
class Question:
    """Frames that are asked: those `lead` slots after each origin."""

    position: Int64[np.ndarray, " origin"]
    """Where in the record the last frame is that may be seen; rising."""
    lead: Int64[np.ndarray, " lead"]
    """From 1 up."""
    slot: Int64[np.ndarray, "origin lead"] | None
    """Slots of the asked frames, where they are known."""


def read_record(dataset: xr.Dataset, name: str, what: str, *, slot: str = "slot") -> Record:
    """Read one variable with a dimension `time` and perhaps `series`; the coordinates slot and session along time."""
    values = require_dims(dataset, name, ("time",), what)
    if "series" not in values.dims:
        values = values.expand_dims("series")
    frames = values.transpose("series", "time", ...).values
    valid = np.isfinite(frames).reshape(*frames.shape[:2], -1).all(axis=-1)
    session = _along_time(dataset, "session")
    begins = (
        np.zeros(frames.shape[1], dtype=bool) if session is None else np.diff(session, prepend=session[:1] - 1) != 0
    )
    return Record(frames=frames, valid=valid, slot=_along_time(dataset, slot), begins=begins)


def answer_frames(
    given: xr.Dataset,
    wanted: xr.Dataset,
    answer: Callable[[str, Record, Question], np.ndarray],
    *,
    slot: str = "slot",
) -> xr.Dataset:
    """Make a dataset of answers like `wanted`, in float32; 0 where nothing is known.

    Args:
        given: The record: (time, ...) or (series, time, ...).
        wanted: (origin, lead, ...) or (series, origin, lead, ...), with the coordinates `position` along origin and
            `lead`.
        answer: Gives the frames asked of one variable, [series, origin, lead, ...]; NaN where it knows nothing.
        slot: Name of the coordinate with slots.

    Raises:
        DataError: A dimension or coordinate is missing, or a position is not in the record.
    """
    variables = {}
    for key, asked in wanted.data_vars.items():
        name = str(key)
        record = read_record(given, name, "given", slot=slot)
        found = answer(name, record, _read_question(wanted, name, record.size, slot))
        dims = ("series", "origin", "lead", *(dim for dim in asked.dims if dim not in ("series", "origin", "lead")))
        if "series" not in asked.dims:
            found, dims = found[0], dims[1:]
        answered = np.nan_to_num(found.astype(np.float32, copy=False), copy=False)
        ordered = xr.DataArray(answered, dims=dims).transpose(*asked.dims)
        if ordered.shape != asked.shape:
            raise DataError(f"{name!r}: expected wanted of the shape {ordered.shape} as given has, got {asked.shape}")
        variables[name] = (asked.dims, ordered.values, dict(given[name].attrs))
    return xr.Dataset(variables, coords=wanted.coords)


def follow(
    record: Record, positions: Int64[np.ndarray, " asked"], rates: Sequence[float], *, restart: bool
) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield exponential averages of the frames up to each position, some positions at a time.

    Frames that are not valid are passed over. Before the first valid frame the average is NaN.

    Args:
        record: What is seen.
        positions: Rising.
        rates: Weight of the newest frame, one for each average.
        restart: Begin anew with each session.

    Yields:
        Which positions, and [position, series, rate, ...] in float64.
    """
    cells = record.frames.shape[2:]
    steps = np.asarray(rates, dtype=np.float64).reshape(-1, *(1,) * len(cells))
    state = np.full((len(record.frames), len(rates), *cells), np.nan)
    place = 0
    num_kept = max(1, _CHUNK_NUMBERS // state.size)
    for start in range(0, len(positions), num_kept):
        chunk = positions[start : start + num_kept]
        kept = np.empty((len(chunk), *state.shape))
        for index, position in enumerate(chunk):
            for time in range(place, int(position) + 1):
                if restart and record.begins[time]:
                    state[:] = np.nan
                for series in np.flatnonzero(record.valid[:, time]):
                    own, frame = state[series], record.frames[series, time]
                    if np.isnan(own.flat[0]):
                        own[:] = frame
                    else:
                        own += steps * (frame - own)
            place = int(position) + 1
            kept[index] = state
        yield slice(start, start + len(chunk)), kept


def _read_question(wanted: xr.Dataset, name: str, size: int, slot: str) -> Question:
    require_dims(wanted, name, ("origin", "lead"), "wanted")
    for coordinate in ("position", "lead"):
        if coordinate not in wanted.coords:
            raise DataError(f"wanted: expected a coordinate {coordinate!r}, got {sorted(map(str, wanted.coords))}")
    position, lead = (wanted[key].values.astype(np.int64) for key in ("position", "lead"))
    if position.size and (position.min() < 0 or position.max() >= size or (np.diff(position) < 0).any()):
        raise DataError(f"wanted: expected positions that rise from 0 up to {size - 1}, got others")
    if lead.size and lead.min() < 1:
        raise DataError(f"wanted: expected leads from 1 up, got {int(lead.min())}")
    slots = wanted[slot].transpose("origin", "lead").values.astype(np.int64) if slot in wanted.coords else None
    return Question(position=position, lead=lead, slot=slots)


def _along_time(dataset: xr.Dataset, name: str) -> Int64[np.ndarray, " time"] | None:
    if name not in dataset.coords or dataset[name].dims != ("time",):
        return None
    return dataset[name].values.astype(np.int64)
