"""From counts to pixels and back, and what frames of counts say: imbalance, center of price, activity."""

import dataclasses
import json
import math
from typing import Literal

import numpy as np
import xarray as xr
from jaxtyping import Float, Float32

from gridloom.core.config import from_dict
from gridloom.core.errors import ConfigError, DataError
from gridloom.grid.events.axes import PriceAxis

__all__ = ["Scale", "activity", "center_of_price", "counts_of", "describe_frames", "imbalance", "pixels"]

Scale = Literal["log1p", "linear"]


def pixels(counts: np.ndarray, cap: int = 128, *, scale: Scale = "log1p") -> Float32[np.ndarray, "*shape"]:
    """Scale counts to [0, 1].

    Args:
        counts: Whole numbers from 0; above the cap they are the cap.
        cap: Count that becomes 1.
        scale: `log1p`: log(1 + count) / log(1 + cap). `linear`: count / cap.

    Raises:
        DataError: Not whole numbers, or negative ones.
    """
    table = _table(cap, scale)
    if counts.dtype.kind not in "iu" or (counts.dtype.kind == "i" and counts.size and counts.min() < 0):
        raise DataError(f"counts: expected whole numbers from 0, got {counts.dtype} with negative ones or fractions")
    return table.take(counts, mode="clip")


def counts_of(values: np.ndarray, cap: int = 128, *, scale: Scale = "log1p") -> np.ndarray:
    """Return the whole counts nearest to pixels: exact for those of `pixels`.

    float16 holds pixels exactly enough for `log1p` with caps up to 256, and for `linear` up to 1024; bfloat16 does not.

    Args:
        values: Pixels; below 0 and above 1 they are clipped.
        cap: As in `pixels`.
        scale: As in `pixels`.

    Returns:
        uint8, or uint16 for a cap above 255, uint32 above 65535.

    Raises:
        DataError: A pixel is not a number.
    """
    if np.isnan(values).any():
        raise DataError("pixels: expected numbers, got NaN; leave out the slots that are not valid")
    values = np.clip(values, 0, 1).astype(np.float64)
    counts = np.expm1(values * math.log1p(cap)) if scale == "log1p" else values * cap
    return np.asarray(np.rint(counts), dtype=np.min_scalar_type(cap))


def imbalance(counts: np.ndarray) -> Float[np.ndarray, "*frame"]:
    """Return (bought - sold) / (bought + sold) of each frame [..., channel, y, x]; NaN where there are none."""
    sums = counts.sum(axis=(-2, -1), dtype=np.float64)
    bought, sold = sums[..., 0], sums[..., 1]
    total = bought + sold
    return np.asarray(np.divide(bought - sold, total, out=np.full(total.shape, np.nan), where=total > 0))


def activity(counts: np.ndarray) -> Float[np.ndarray, "*frame"]:
    """Return the number of events of each frame [..., channel, y, x]."""
    return np.asarray(counts.sum(axis=(-3, -2, -1), dtype=np.float64))


def center_of_price(
    counts: np.ndarray, axis: PriceAxis, reference: float | np.ndarray | None = None
) -> Float[np.ndarray, "*frame"]:
    """Return the mean of the columns' centers, weighted by counts, of each frame [..., channel, y, x].

    Args:
        counts: Of both sides.
        axis: Of the columns.
        reference: Price, one or one per frame. Without it the result is a log ratio (`ticks`: ticks from it).

    Returns:
        Log ratio or price; NaN where there are no events.
    """
    center = _center(counts, axis.centers)
    if reference is None:
        return center
    return reference + center * axis.tick if axis.kind == "ticks" else reference * np.exp(center)


def describe_frames(dataset: xr.Dataset) -> xr.Dataset:
    """Return imbalance, center of mass along x and activity of each frame of a frames dataset.

    Centers of columns are those of `attrs["axes"]` where it has them, else the columns' numbers. A coordinate `r_max`
    (..., time) is the price axis' own of each frame, as boards and dates have it. Slots that are not valid are NaN.

    Args:
        dataset: With `counts` (..., channel, y, x) and, where there is one, `valid`.

    Raises:
        DataError: No such counts.
    """
    if "counts" not in dataset or dataset["counts"].dims[-3:] != ("channel", "y", "x"):
        raise DataError("expected a frames dataset with counts (..., channel, y, x); make one with gridloom rasterize")
    counts = dataset["counts"]
    dims = counts.dims[:-3]
    values = counts.values
    described = {
        "center_of_mass": (_center_along_x(dataset, values), "center of the events along x"),
        "activity": (activity(values), "events per frame, clipped cells as they are"),
    }
    if counts.sizes["channel"] == 2:
        names = [str(name) for name in dataset["channel"].values]
        described["imbalance"] = (imbalance(values), f"({names[0]} - {names[1]}) / ({names[0]} + {names[1]})")
    result = xr.Dataset({name: (dims, value, {"long_name": text}) for name, (value, text) in described.items()})
    keep = {name: value for name, value in dataset.coords.items() if set(value.dims) <= set(dims)}
    result = result.assign_coords(keep)
    return result.where(dataset["valid"]) if "valid" in dataset else result


def _center_along_x(dataset: xr.Dataset, counts: np.ndarray) -> np.ndarray:
    record = json.loads(dataset.attrs.get("axes", "{}")).get("x") or {}
    if record.get("axis") != "PriceAxis" or "r_max" not in dataset.coords:
        return _center(counts, np.asarray(record.get("centers", np.arange(counts.shape[-1])), dtype=np.float64))
    settings = {item.name: record[item.name] for item in dataclasses.fields(PriceAxis)}
    axis = from_dict(PriceAxis, settings, where="axes.x")
    r_max = np.broadcast_to(dataset["r_max"].transpose(..., "time").values, counts.shape[:-3])
    center = np.full(r_max.shape, np.nan)
    for value in np.unique(r_max[np.isfinite(r_max)]).tolist():
        center[r_max == value] = _center(counts[r_max == value], dataclasses.replace(axis, r_max=value).centers)
    return center


def _center(counts: np.ndarray, centers: np.ndarray) -> np.ndarray:
    columns = counts.sum(axis=(-3, -2), dtype=np.float64)
    total = columns.sum(axis=-1)
    return np.asarray(np.divide(columns @ centers, total, out=np.full(total.shape, np.nan), where=total > 0))


def _table(cap: int, scale: Scale) -> np.ndarray:
    if cap < 1:
        raise ConfigError(f"cap: expected a count of 1 or more, got {cap}")
    counts = np.arange(cap + 1)
    if scale == "linear":
        return (counts / cap).astype(np.float32)
    return (np.minimum(np.log1p(counts), math.log1p(cap)) / math.log1p(cap)).astype(np.float32)
