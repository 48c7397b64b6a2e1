"""The frames dataset: what the rasterizer writes, and models and baselines read."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from gridloom.core.errors import DataError
from gridloom.grid.events.calendar import Calendar
from gridloom.grid.events.locate import SlotTimes
from gridloom.grid.events.store import is_sparse, to_dense

__all__ = ["frames_dataset", "open_frames"]

_PIXEL_CAP = 255


def frames_dataset(
    counts: np.ndarray | None,
    times: SlotTimes,
    valid: np.ndarray,
    *,
    calendar: Calendar,
    channels: Sequence[str],
    attrs: Mapping[str, Any],
    series: Sequence[str] | None = None,
    size: tuple[int, int] | None = None,
) -> xr.Dataset:
    """Put counts and what they are about together.

    Args:
        counts: [(series,) time, channel, y, x]; None leaves them out, for the sparse form.
        times: Of the frames.
        valid: [(series,) time].
        calendar: What the slots are.
        channels: Names.
        attrs: Further attributes, of which `count_cap` is needed; mappings are written as JSON.
        series: Names; None if there is but one, without a dimension of its own.
        size: Rows and columns, where there are no counts.
    """
    lead = ("series", "time") if series is not None else ("time",)
    height, width = counts.shape[-2:] if counts is not None else size or (0, 0)
    cap = int(attrs["count_cap"])
    variables: dict[str, Any] = {"valid": (lead, valid, {"long_name": "the slot took place"})}
    if counts is not None:
        about = {"long_name": str(attrs.get("value", "events")) + " per cell", "units": "1", "count_cap": cap}
        variables = {"counts": ((*lead, "channel", "y", "x"), counts, about), **variables}
    minutes = {"long_name": "minutes from the start of the slot before", "units": "1"}
    coords: dict[str, Any] = {
        "time": ("time", times.time.astype("datetime64[ns]"), {"time_zone": calendar.time_zone, "long_name": "start"}),
        "slot": ("time", times.slot),
        "session": ("time", times.session, {"long_name": "days since 1970-01-01"}),
        "minutes_since_previous": ("time", times.minutes_since_previous, minutes),
        "auction": ("time", times.auction),
        "channel": list(channels),
        "y": np.arange(height),
        "x": np.arange(width),
    }
    if series is not None:
        coords["series"] = list(series)
    plain = {
        name: json.dumps(value, ensure_ascii=False) if isinstance(value, Mapping) else value
        for name, value in attrs.items()
    }
    about_all = {"calendar": calendar.to_json(), "num_slots": calendar.num_slots, "pixel": "log1p", **plain}
    return xr.Dataset(variables, coords=coords, attrs=about_all)


def open_frames(source: str | Path | xr.Dataset | np.ndarray) -> xr.Dataset:
    """Open frames, dense or sparse, or make them of a plain array.

    Args:
        source: Path of a frames dataset, name of a sample, a dataset, or an array (or a file of one) [time, channel, y,
            x] of whole numbers (counts) or of numbers in [0, 1] (pixels, kept to 1/255).

    Returns:
        The dense frames dataset, with all coordinates. An array without them is one session, slot after slot.

    Raises:
        DataError: Not frames; the message says what is missing.
    """
    if isinstance(source, np.ndarray):
        return _of_array(source, "the array")
    from gridloom.grid.read import open_grid

    name = "the dataset" if isinstance(source, xr.Dataset) else str(source)
    dataset = open_grid(source)
    if is_sparse(dataset):
        dataset = to_dense(dataset)
    if "counts" not in dataset:
        candidates = [item for item in dataset.data_vars.values() if item.ndim == 4]
        if len(candidates) != 1:
            raise DataError(
                f"{name}: expected frames: a variable 'counts' (time, channel, y, x), or one array of four dimensions; "
                f"got {', '.join(f'{key} {item.dims}' for key, item in dataset.data_vars.items()) or 'no variables'}"
            )
        return _of_array(candidates[0].values, name)
    return _checked(dataset, name)


def _checked(dataset: xr.Dataset, name: str) -> xr.Dataset:
    counts = dataset["counts"]
    for lead in (("time",), ("series", "time")):
        dims = (*lead, "channel", "y", "x")
        if set(counts.dims) == set(dims):
            dataset = dataset.transpose(*dims, ...)
            break
    else:
        raise DataError(f"{name}: expected counts (series, time, channel, y, x) or without series, got {counts.dims}")
    if counts.dtype.kind not in "iu":
        raise DataError(f"{name}: expected counts as whole numbers, got {counts.dtype}; were they scaled already?")
    missing = [key for key in ("slot", "session") if key not in dataset.coords]
    if missing:
        raise DataError(f"{name}: the coordinates {', '.join(missing)} along time are missing; use gridloom rasterize")
    if "valid" not in dataset:
        dataset["valid"] = (lead, np.ones([dataset.sizes[dim] for dim in lead], dtype=bool))
    if "count_cap" not in dataset["counts"].attrs:
        raise DataError(f"{name}: counts have no attribute count_cap, which says what a pixel of 1 is")
    return dataset


def _of_array(values: np.ndarray, name: str) -> xr.Dataset:
    if values.ndim != 4:
        raise DataError(f"{name}: expected (time, channel, y, x), got an array of shape {values.shape}")
    attrs: dict[str, Any] = {"pixel": "log1p"}
    if values.dtype.kind in "iu":
        if values.size and values.min() < 0:
            raise DataError(f"{name}: expected counts from 0 on, got {values.min()}")
        cap = max(int(values.max(initial=1)), 1)
        counts = values.astype(np.min_scalar_type(cap))
    elif values.dtype.kind == "f":
        if not ((values >= 0) & (values <= 1)).all():
            raise DataError(f"{name}: expected pixels in [0, 1], or whole numbers, got others or missing ones")
        cap, counts = _PIXEL_CAP, np.rint(values.astype(np.float64) * _PIXEL_CAP).astype(np.uint8)
        attrs["pixel"] = "linear"
    else:
        raise DataError(f"{name}: expected numbers, got {values.dtype}")
    length = len(counts)
    minute = np.timedelta64(1, "m")
    return xr.Dataset(
        {
            "counts": (("time", "channel", "y", "x"), counts, {"units": "1", "count_cap": cap}),
            "valid": ("time", np.ones(length, dtype=bool)),
        },
        coords={
            "time": np.datetime64("1970-01-01", "ns") + np.arange(length) * minute,
            "slot": ("time", np.arange(length)),
            "session": ("time", np.zeros(length, dtype=np.int64)),
            "minutes_since_previous": ("time", np.where(np.arange(length) > 0, 1, 0).astype(np.float32)),
            "auction": ("time", np.zeros(length, dtype=bool)),
            "channel": [str(number) for number in range(counts.shape[1])],
            "y": np.arange(counts.shape[2]),
            "x": np.arange(counts.shape[3]),
        },
        attrs={**attrs, "num_slots": length, "count_cap": cap},
    )
