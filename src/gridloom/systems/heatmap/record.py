"""A record of heatmaps in memory: frames, their slots, which of them happened."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Int64

from gridloom.core.errors import DataError
from gridloom.grid.events.inverse import Scale, pixels
from gridloom.systems.heatmap.encoder import FIELD

__all__ = ["COUNTS", "Record", "coarsen", "read_record", "session_starts"]

COUNTS, VALID, SERIES = "counts", "valid", "series"
_DIMS = ("channel", "y", "x")
_KEPT = ("slot", "session", "time")


@dataclass(frozen=True, kw_only=True)
class Record:
    """Frames of one or several series on one axis of time.

    Attributes:
        frames: [series, time, channel, y, x]: counts (uint8 or uint16), or pixels in [0, 1] (float32).
        valid: [series, time]; False where a slot did not happen. Its frame is 0.
        slot: [time], from 0.
        session: [time], rising; frames of one number belong together.
        num_slots: Slots of a cycle.
        count_cap: Count that is pixel 1; 0 for pixels.
        scale: How counts become pixels, `log1p` or `linear`.
        time: Coordinate of time, [time].
        series: Names of the series; None for a record of one that has no name.
        channels: Names of the channels.
        attrs: Attributes of the dataset.
    """

    frames: np.ndarray
    valid: Bool[np.ndarray, "series time"]
    slot: Int64[np.ndarray, " time"]
    session: Int64[np.ndarray, " time"]
    num_slots: int
    count_cap: int
    scale: Scale
    time: np.ndarray
    series: tuple[str, ...] | None
    channels: tuple[str, ...]
    attrs: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return int(self.frames.shape[1])

    @property
    def num_series(self) -> int:
        """Number of series."""
        return int(self.frames.shape[0])

    def pixels(self, series: int | slice = slice(None), time: Any = slice(None)) -> np.ndarray:
        """Frames as float32 pixels."""
        chosen = self.frames[series, time]
        if not self.count_cap:
            return np.asarray(chosen, dtype=np.float32)
        return pixels(chosen, self.count_cap, scale=self.scale)

    def dataset(self, stop: int | None = None) -> xr.Dataset:
        """The first `stop` frames as pixels, NaN where a slot did not happen."""
        values = self.pixels(time=slice(0, stop))
        values = np.where(self.valid[:, :stop, None, None, None], values, np.float32(np.nan))
        coords: dict[str, Any] = {
            "time": self.time[:stop],
            "slot": ("time", self.slot[:stop]),
            "session": ("time", self.session[:stop]),
            "channel": list(self.channels),
        }
        dims: tuple[str, ...] = ("time", *_DIMS)
        if self.series is None:
            values = values[0]
        else:
            dims, coords = (SERIES, *dims), {SERIES: list(self.series), **coords}
        attrs = {"units": "1", "long_name": "pixel"}
        return xr.Dataset({FIELD: (dims, values, attrs)}, coords=coords, attrs={"num_slots": self.num_slots})


def read_record(dataset: xr.Dataset, *, num_slots: int = 0) -> Record:
    """Read frames from a dataset: counts as `gridloom rasterize` writes them, or pixels.

    Args:
        dataset: With `counts` (whole numbers) or `frames` (pixels in [0, 1], NaN where a slot did not happen), on
            (time, channel, y, x) or (series, time, channel, y, x); or with one variable of such dimensions. `slot` and
            `session` are coordinates along time. Without slots frames go round from slot 0 if the attribute
            `num_slots` says how many there are, else all are in one; without sessions they are one.
        num_slots: Slots that a model knows; frames must then say theirs.

    Raises:
        DataError: No such variable, or values that are neither counts nor pixels.
    """
    name = _variable(dataset)
    values = dataset[name]
    own = SERIES in values.dims
    ordered = values.transpose(*((SERIES,) if own else ()), "time", *_DIMS)
    array = ordered.values if own else ordered.values[None]
    length = array.shape[1]
    slot, session = (_along_time(dataset, coordinate, length) for coordinate in ("slot", "session"))
    valid = _valid(dataset, array, own)
    found = int(dataset.attrs.get("num_slots", num_slots) or 0)
    if slot is None:
        slot = _without_slots(length, int(dataset.attrs.get("num_slots", 0) or 0), num_slots)
    num_slots = found or int(slot.max(initial=0)) + 1
    if len(slot) and (slot.min() < 0 or slot.max() >= num_slots):
        raise DataError(f"slot_id out of range: expected 0 to {num_slots - 1}, got {slot.min()} to {slot.max()}")
    cap, array = _counts_or_pixels(name, values, array, valid)
    return Record(
        frames=array,
        valid=valid,
        slot=slot,
        session=np.zeros(length, dtype=np.int64) if session is None else session,
        num_slots=num_slots,
        count_cap=cap,
        scale=_scale(dataset),
        time=dataset["time"].values if "time" in dataset.coords else np.arange(length),
        series=tuple(map(str, dataset[SERIES].values)) if own else None,
        channels=_names(dataset, array.shape[2]),
        attrs=dict(dataset.attrs),
    )


def _without_slots(length: int, own: int, known: int) -> np.ndarray:
    """Slots of frames that say none: they go round from 0 if there is a number of slots, else all are in one."""
    if not own and known > 1:
        raise DataError(
            f"slot is missing: the model knows {known} slots; give the frames a coordinate slot along time "
            f"(or the attribute num_slots, if they go round from slot 0)"
        )
    return np.arange(length, dtype=np.int64) % max(own, 1)


def _variable(dataset: xr.Dataset) -> str:
    for name in (COUNTS, FIELD):
        if name in dataset and set(dataset[name].dims) - {SERIES} == {"time", *_DIMS}:
            return name
    fitting = [str(name) for name, item in dataset.items() if set(item.dims) - {SERIES} == {"time", *_DIMS}]
    if len(fitting) != 1:
        told = ", ".join(f"{name} {tuple(item.dims)}" for name, item in dataset.items()) or "nothing"
        raise DataError(
            f"input must be (B,T,C,H,W): expected {COUNTS} or {FIELD} on (time, channel, y, x) or (series, time, "
            f"channel, y, x), got {told}; make it with gridloom rasterize"
        )
    return fitting[0]


def _along_time(dataset: xr.Dataset, name: str, length: int) -> np.ndarray | None:
    if name not in dataset.coords and name not in dataset:
        return None
    values = dataset[name].values
    if values.shape != (length,) or values.dtype.kind not in "iu":
        raise DataError(f"{name} must be whole numbers, one for each time, got {values.dtype} {values.shape}")
    return values.astype(np.int64)


def _valid(dataset: xr.Dataset, array: np.ndarray, own: bool) -> np.ndarray:
    if VALID in dataset:
        values = dataset[VALID].transpose(..., "time").values.astype(bool)
        return np.broadcast_to(values if own and values.ndim == 2 else values[None], array.shape[:2]).copy()
    if array.dtype.kind == "f":
        return np.asarray(np.isfinite(array).all(axis=(2, 3, 4)))
    return np.ones(array.shape[:2], dtype=bool)


def _counts_or_pixels(name: str, values: xr.DataArray, array: np.ndarray, valid: np.ndarray) -> tuple[int, np.ndarray]:
    happened = valid[:, :, None, None, None]
    if array.dtype.kind in "iu":
        cap = int(values.attrs.get("count_cap", 128))
        if cap < 1:
            raise DataError(f"{name}: the attribute count_cap must be 1 or more, got {cap}")
        if array.size and array.min() < 0:
            raise DataError(f"{name}: counts must be 0 or more, got {array.min()}")
        # The smaller of both, in the array's own type: int8 does not hold a cap of 128.
        capped = np.minimum(array, np.asarray(min(cap, np.iinfo(array.dtype).max), dtype=array.dtype))
        if not valid.all():
            capped = np.where(happened, capped, 0)
        return cap, capped.astype(np.min_scalar_type(cap), copy=False)
    if array.dtype.kind != "f":
        raise DataError(f"{name}: expected counts or pixels in [0, 1], got {array.dtype}")
    pixels_only = np.where(happened, array, 0).astype(np.float32)
    if pixels_only.size and not (pixels_only.min() >= 0 and pixels_only.max() <= 1):
        raise DataError(
            f"{name}: pixels must lie in [0, 1], got {pixels_only.min():.4g} to {pixels_only.max():.4g}; counts must "
            f"be integers, with the attribute count_cap"
        )
    return 0, pixels_only


def _scale(dataset: xr.Dataset) -> Scale:
    kind = dataset.attrs.get("pixel", "log1p")
    if kind not in ("log1p", "linear"):
        raise DataError(f"attribute pixel: expected log1p or linear, got {kind!r}")
    return kind  # type: ignore[no-any-return]


def _names(dataset: xr.Dataset, count: int) -> tuple[str, ...]:
    if "channel" in dataset.coords:
        return tuple(map(str, dataset["channel"].values))
    return tuple(map(str, range(count)))


def session_starts(session: Sequence[int] | np.ndarray) -> np.ndarray:
    """Positions at which a session begins."""
    numbers = np.asarray(session)
    return np.flatnonzero(np.diff(numbers, prepend=numbers[:1] - 1))


def coarsen(record: Record, stop: int, factor: int) -> Record:
    """Take `factor` slots together as one, for the first `stop` frames; counts are added up, capped as before.

    Slots of different sessions are not taken together; what is left over at a session's end is left out.

    Raises:
        DataError: Pixels, which cannot be added up.
    """
    if not record.count_cap:
        raise DataError("data.coarsen adds counts up, these frames are pixels; leave it at 1")
    edges = [*session_starts(record.session[:stop]).tolist(), stop]
    firsts = np.concatenate([np.arange(low, high - factor + 1, factor) for low, high in itertools.pairwise(edges)])
    members = firsts[:, None] + np.arange(factor)
    sums = np.stack(
        [record.frames[series][members].sum(axis=1, dtype=np.uint32) for series in range(record.num_series)]
    )
    return replace(
        record,
        frames=np.minimum(sums, record.count_cap).astype(record.frames.dtype),
        valid=np.asarray(record.valid[:, members].all(axis=2)),
        slot=record.slot[firsts],
        session=record.session[firsts],
        time=record.time[firsts],
    )
