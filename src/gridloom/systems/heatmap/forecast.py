"""Forecasts of a record's future, with coordinates."""

import logging
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from gridloom.core.errors import DataError
from gridloom.grid.events.ahead import slots_ahead
from gridloom.systems.heatmap.config import HeatmapConfig
from gridloom.systems.heatmap.data import check_sizes
from gridloom.systems.heatmap.encoder import FIELD
from gridloom.systems.heatmap.objective import NextFrame
from gridloom.systems.heatmap.predict import SAMPLES, Future, HeatmapForecaster
from gridloom.systems.heatmap.record import SERIES, Record, read_record
from gridloom.systems.heatmap.rollout import Feedback

__all__ = ["QUANTILES", "forecast", "make_history"]

_LOGGER = logging.getLogger(__name__)

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_CYCLES = 2


def forecast(
    forecaster: HeatmapForecaster,
    history: xr.Dataset | np.ndarray | Tensor,
    slot_ids: np.ndarray | Tensor | None = None,
    horizon: int = 1,
    num_samples: int = 1,
    *,
    feedback: Feedback = "frames",
    quantiles: tuple[float, ...] = QUANTILES,
    seed: int = 0,
) -> xr.Dataset:
    """Forecast the frames after a record.

    Args:
        forecaster: A trained model.
        history: Frames dataset (`gridloom rasterize` writes one; see `record.read_record`), or pixels (T,C,H,W) or
            (B,T,C,H,W).
        slot_ids: Slots of an array's frames, (T,); if there are more, the rest are the slots to forecast. Not with a
            dataset, which has them.
        horizon: Slots ahead.
        num_samples: Sample paths to draw beside what is expected; 1 draws none.
        feedback: `frames` encodes each forecast for the next step; `latents` goes on from the latent itself.
        quantiles: Quantiles of the paths that are returned for the totals.
        seed: Of the sample paths.

    Returns:
        `frames`, expected pixels (time, channel, y, x), with a leading `series` where there are several; `counts`, what
        these pixels stand for; `activity`, `imbalance` and `center_of_mass` of each frame. With sample paths also
        `frames_sample` (sample, ...), `counts_sample`, and quantiles of the totals, `activity_quantile` (quantile,
        ..., channel). Coordinates: `time`, `slot`, `session`, `lead` and `valid`, whether the slot will happen.

    Raises:
        DataError: Another size than the model's, too few frames, or nothing to forecast.
    """
    if horizon < 1 or num_samples < 1:
        raise DataError(f"expected horizon and num_samples of 1 or more, got {horizon} and {num_samples}")
    record, given = make_history(history, slot_ids, forecaster.config)
    check_sizes(record, forecaster.config)
    cap = forecaster.config.model.count_cap
    if cap and not record.count_cap:
        _LOGGER.warning("the model knows counts up to %d: these pixels are taken to stand for such counts", cap)
    ahead = slots_ahead(
        horizon,
        time=record.time,
        slot=record.slot,
        session=record.session,
        num_slots=record.num_slots,
        calendar=str(record.attrs.get("calendar", "")),
    )
    slot = ahead.slot if given is None else given
    if len(slot) < horizon:
        raise DataError(f"slot_ids must have {len(record) + horizon} entries to say the slots ahead, or {len(record)}")
    objective = forecaster.objective
    assert isinstance(objective, NextFrame)
    expected, samples = forecaster.paths(
        record,
        [len(record) - 1],
        range(horizon),
        num_samples=num_samples if num_samples > 1 else 0,
        seed=seed,
        future=Future(slot=np.append(slot[:horizon], slot[-1:]), session=np.append(ahead.session, ahead.session[-1:])),
        feedback=feedback,
        prior=_prior(objective, record, forecaster.config),
    )
    coords: dict[str, Any] = {
        "time": ahead.time,
        "slot": ("time", slot[:horizon]),
        "session": ("time", ahead.session),
        "lead": ("time", np.arange(1, horizon + 1)),
        "valid": ("time", ahead.valid),
        "channel": list(record.channels),
    }
    return _dataset(
        expected[:, 0], None if samples is None else samples[:, :, 0], record, coords, forecaster, quantiles
    )


def make_history(
    history: xr.Dataset | np.ndarray | Tensor, slot_ids: np.ndarray | Tensor | None, config: HeatmapConfig
) -> tuple[Record, np.ndarray | None]:
    """A record from a dataset or an array, and the slots ahead where `slot_ids` go on after it.

    Raises:
        DataError: Another shape, slots that are missing, or given twice.
    """
    if isinstance(history, xr.Dataset):
        if slot_ids is not None:
            raise DataError("a dataset has its own slots; leave slot_ids out")
        return read_record(history, num_slots=config.model.num_slots), None
    values = history.detach().cpu().float().numpy() if isinstance(history, Tensor) else np.asarray(history)
    if values.ndim not in (4, 5):
        raise DataError(f"history must be (T,C,H,W) or (B,T,C,H,W), got {values.shape}")
    length = values.shape[-4]
    if slot_ids is None and config.model.num_slots > 1:
        raise DataError("slot_ids is missing: give the slot of each frame of the history")
    slots = np.zeros(length, dtype=np.int64) if slot_ids is None else torch.as_tensor(slot_ids).cpu().numpy()
    if slots.ndim != 1 or slots.dtype.kind not in "iu" or len(slots) < length:
        raise DataError(f"slot_ids must be whole numbers ({length},) or more, got {slots.dtype} {slots.shape}")
    dims = ("time", "channel", "y", "x") if values.ndim == 4 else (SERIES, "time", "channel", "y", "x")
    coords: dict[str, Any] = {"slot": ("time", slots[:length].astype(np.int64))}
    if values.ndim == 5:
        coords[SERIES] = list(map(str, range(len(values))))
    dataset = xr.Dataset({FIELD: (dims, values)}, coords=coords, attrs={"num_slots": config.model.num_slots})
    rest = slots[length:].astype(np.int64)
    return read_record(dataset), rest if len(rest) else None


def _prior(objective: NextFrame, record: Record, config: HeatmapConfig) -> Tensor | None:
    """Seasonal means of the training, for a record that is too short to have its own."""
    longest = max((period for period, _ in config.model.memory.seasonal), default=0)
    if not config.model.remembers or len(record) >= _CYCLES * longest:
        return None
    return objective.model.prior


def _dataset(
    expected: np.ndarray,
    samples: np.ndarray | None,
    record: Record,
    coords: dict[str, Any],
    forecaster: HeatmapForecaster,
    quantiles: tuple[float, ...],
) -> xr.Dataset:
    from gridloom.grid.events import describe_frames

    scale = forecaster.config.model.scale
    dims = (SERIES, "time", "channel", "y", "x")
    if record.series is not None:
        coords = {SERIES: list(record.series), **coords}

    def counts(pixels: np.ndarray) -> np.ndarray:
        return scale.counts(torch.from_numpy(pixels)).numpy()

    found: dict[str, Any] = {
        FIELD: (dims, expected, {"long_name": "expected pixels", "units": "1"}),
        "counts": (dims, counts(expected), {"long_name": "count that the expected pixel stands for", "units": "1"}),
    }
    if samples is not None:
        drawn = counts(samples)
        totals = drawn.sum(axis=(-2, -1))
        bands = np.quantile(totals, quantiles, axis=0)
        found[SAMPLES] = (("sample", *dims), samples, {"long_name": "pixels of sample paths", "units": "1"})
        found["counts_sample"] = (("sample", *dims), drawn, {"long_name": "counts of sample paths", "units": "1"})
        found["activity_quantile"] = (
            ("quantile", *dims[:3]),
            bands,
            {"long_name": "quantiles of the events of a frame by channel", "units": "1"},
        )
        coords = {**coords, "quantile": list(quantiles)}
    dataset = xr.Dataset(found, coords=coords, attrs=_kept_attributes(record))
    described = describe_frames(dataset[["counts"]])
    dataset = dataset.assign({name: described[name] for name in described.data_vars})
    return dataset if record.series is not None else dataset.isel({SERIES: 0}, drop=True)


def _kept_attributes(record: Record) -> dict[str, Any]:
    """What says what the frames are."""
    return {name: record.attrs[name] for name in ("calendar", "axes", "num_slots", "pixel") if name in record.attrs}
