"""From a configuration to training, validation and the question of the test."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from gridloom.core.contracts import Prepared, Source, Task
from gridloom.core.errors import DataError, UnknownNameError
from gridloom.grid.events.store import to_dense
from gridloom.grid.normalize import Normalizer
from gridloom.grid.read import open_grid
from gridloom.grid.splits import Splits
from gridloom.grid.windows import Windows
from gridloom.systems.heatmap.config import HeatmapConfig
from gridloom.systems.heatmap.encoder import FIELD
from gridloom.systems.heatmap.record import SERIES, Record, coarsen, read_record, session_starts
from gridloom.systems.heatmap.source import (
    FrameSource,
    JoinedSource,
    Remembered,
    SingleFrames,
    cut_record,
    live_cells,
    remember,
)

__all__ = ["encode_source", "forecast_task", "open_record", "prepare", "resolve", "split_record"]

_LOGGER = logging.getLogger(__name__)
_MANY_SESSIONS = 10


def open_record(path: str | xr.Dataset, *, num_slots: int = 0) -> Record:
    """Open frames by path, name of a sample, or from a dataset.

    Raises:
        DataError: No path, or no frames.
    """
    if isinstance(path, str) and not path:
        raise DataError(
            "no data: give frames that `gridloom rasterize` wrote, or the name of a sample (see `gridloom data list`)"
        )
    return read_record(to_dense(open_grid(path)), num_slots=num_slots)


def resolve(config: HeatmapConfig) -> HeatmapConfig:
    """Fill in the sizes that only the data can tell."""
    record = open_record(config.data.path)
    channels, height, width = record.frames.shape[2:]
    sizes = {"channels": channels, "height": height, "width": width, "num_slots": record.num_slots}
    if config.model.memory.cells == "seen":
        sizes["num_cells"] = max(1, len(live_cells(record, split_record(record, config).parts["train"][1])))
    else:
        sizes["num_cells"] = height * width
    return replace(config, model=replace(config.model, **sizes, count_cap=record.count_cap, count_scale=record.scale))


def split_record(record: Record, config: HeatmapConfig) -> Splits:
    """Cut time into training, validation and test.

    There is no gap: what lies before a frame is what it is forecast from, in use as in the test. Where there are many
    sessions the borders are moved to the nearest beginning of one.
    """
    size = len(record)
    train, validation, _ = config.data.fractions
    borders = [int(size * train + 1e-6), int(size * (train + validation) + 1e-6)]
    starts = session_starts(record.session)
    if len(starts) >= _MANY_SESSIONS:
        borders = [int(starts[np.abs(starts - border).argmin()]) for border in borders]
    first, second = borders
    if not 0 < first < second < size:
        raise DataError(f"{size} frames are too few for three parts by data.fractions {config.data.fractions}")
    parts = {"train": (0, first), "validation": (first, second), "test": (second, size)}
    return Splits(dim="time", size=size, gap=0, window=0, decorrelation=0, periodic=False, parts=parts)


def prepare(config: HeatmapConfig) -> Prepared:
    """Read the frames, split them in time, and walk through them once for what is remembered."""
    config = resolve(config)
    record = open_record(config.data.path)
    splits = split_record(record, config)
    train_stop = splits.parts["train"][1]
    _askable(record, splits.parts["test"], config.data.leads, config.data.within_session)  # before the training
    seen = config.model.memory.cells == "seen"
    cells = live_cells(record, train_stop) if seen else np.arange(config.model.num_cells)
    whole = remember(record, config, cells, train_stop) if config.model.remembers else None
    if not config.model.decode:
        _LOGGER.warning("model.decode is false: the encoder is not trained, and of no use when it is extracted")
    sources: dict[str, Source] = {
        part: _source(record, bounds, config, whole, config.data.stride if part == "train" else config.data.window - 1)
        for part, bounds in splits.parts.items()
    }
    whole_source, coarser = sources["train"], [factor for factor in config.data.coarsen if factor > 1]
    if coarser:
        assert isinstance(whole_source, FrameSource)
        sources["train"] = JoinedSource(
            [whole_source, *(_coarse_source(record, config, train_stop, cells, factor) for factor in coarser)],
            seed=config.seed,
        )
    return Prepared(
        sources=sources,
        normalizer=Normalizer({FIELD: ()}).to_json(),
        splits={**splits.to_json(), "sha256": splits.digest},
        history=record.dataset(train_stop),
        task=partial(_task, config, record, splits),
    )


def _source(
    record: Record, bounds: tuple[int, int], config: HeatmapConfig, remembered: Remembered | None, stride: int
) -> FrameSource:
    data = config.data
    starts = cut_record(record, bounds, length=data.window, stride=stride, within_session=data.within_session)
    return FrameSource(record, starts, data.window, seed=config.seed, remembered=remembered)


def _coarse_source(record: Record, config: HeatmapConfig, stop: int, cells: np.ndarray, factor: int) -> FrameSource:
    """Windows of the training part with several slots taken together."""
    coarse = coarsen(record, stop, factor)
    remembered = remember(coarse, config, cells, len(coarse)) if config.model.remembers else None
    return _source(coarse, (0, len(coarse)), config, remembered, config.data.stride)


def _task(config: HeatmapConfig, record: Record, splits: Splits, split: str) -> Task:
    if split not in splits.parts:
        raise UnknownNameError("part", split, splits.parts)
    low, high = splits.parts[split]
    return forecast_task(
        record,
        (low, high),
        leads=config.data.leads,
        max_origins=config.data.max_origins,
        within_session=config.data.within_session,
        name=config.data.path,
        split=split,
    )


def forecast_task(
    record: Record,
    bounds: tuple[int, int],
    *,
    leads: tuple[int, ...],
    max_origins: int,
    within_session: bool,
    name: str,
    split: str,
) -> Task:
    """Ask for the frames `leads` slots after each of some origins in a stretch of time.

    An answer may use the frames up to its origin alone. Frames of another session than the origin's are not asked with
    `within_session`, nor those that did not happen.

    Args:
        record: All of it.
        bounds: Stretch in which the frames to forecast lie.
        leads: Slots ahead.
        max_origins: Most origins, spread evenly.
        within_session: Whether a session is all that can be forecast.
        name: Name of the data.
        split: Name of the stretch.

    Raises:
        DataError: Nothing can be asked.
    """
    possible, origins, targets, asked, steps = _askable(record, bounds, leads, within_session)
    if len(possible) > max_origins:
        possible = possible[np.linspace(0, len(possible) - 1, max_origins).round().astype(np.int64)]
    origins, targets, asked = origins[possible], targets[possible], asked[possible]
    whole = record.dataset()
    values = whole[FIELD].values.reshape(record.num_series, len(record), *record.frames.shape[2:])
    happened = np.asarray(asked[None] & record.valid[:, targets])
    truth = np.where(happened[..., None, None, None], values[:, targets], np.float32(np.nan))
    wanted = np.broadcast_to(happened[..., None, None, None], truth.shape)
    dims: tuple[str, ...] = (SERIES, "origin", "lead", "channel", "y", "x")
    coords: dict[str, Any] = {
        "position": ("origin", origins),
        "lead": steps,
        "slot": (("origin", "lead"), record.slot[targets]),
        "session": (("origin", "lead"), record.session[targets]),
        "time": (("origin", "lead"), record.time[targets]),
        "channel": list(record.channels),
    }
    if record.series is None:
        dims, truth, wanted = dims[1:], truth[0], wanted[0]
    else:
        coords[SERIES] = list(record.series)
    attrs = dict(whole[FIELD].attrs)
    return Task(
        name=name,
        split=split,
        given=whole,
        wanted=xr.Dataset({FIELD: (dims, wanted.copy())}, coords=coords),
        truth=xr.Dataset({FIELD: (dims, truth, attrs)}, coords=coords),
        block_dim="origin",
    )


def _askable(
    record: Record, bounds: tuple[int, int], leads: tuple[int, ...], within_session: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Which origins can be asked, all origins, their targets, which of these are asked, and the leads that fit."""
    low, high = max(bounds[0] - 1, 0), bounds[1]
    steps = np.asarray([lead for lead in leads if lead < high - low], dtype=np.int64)
    origins = np.arange(low, high - 1)
    targets = np.minimum(origins[:, None] + steps, len(record) - 1)
    asked = origins[:, None] + steps < high
    if within_session:
        asked &= record.session[targets] == record.session[origins][:, None]
    asked &= np.asarray(record.valid.any(axis=0))[targets]
    possible = np.flatnonzero(asked.any(axis=1)) if len(steps) else np.empty(0, dtype=np.int64)
    if not len(possible):
        raise DataError(f"nothing to forecast from {bounds[0]} to {bounds[1]}: no lead of {list(leads)} fits")
    return possible, origins, targets, asked, steps


def encode_source(
    config: HeatmapConfig,
    normalizer: Mapping[str, Any],
    data: xr.Dataset,
    stride: Mapping[str, int] | tuple[int, int] | None,
) -> tuple[xr.Dataset, Windows, SingleFrames]:
    """Each frame of any record by itself, for the encoder.

    Args:
        config: Resolved configuration.
        normalizer: Not needed: pixels are as they are.
        data: Frames.
        stride: Frames have no stride; must be None.

    Raises:
        DataError: A stride, or frames of another size.
    """
    if stride is not None:
        raise DataError("heatmaps are encoded frame by frame; leave stride out")
    dense = to_dense(data)
    record = read_record(dense, num_slots=config.model.num_slots)
    check_sizes(record, config)
    dims, sizes = ("time",), {"time": 1}
    starts = {"time": np.arange(len(record))}
    if record.series is not None:
        dims, sizes, starts = (SERIES, "time"), {SERIES: 1, **sizes}, {SERIES: np.arange(record.num_series), **starts}  # type: ignore[assignment]
    return dense, Windows(dims=dims, sizes=sizes, starts=starts), SingleFrames(record)


def check_sizes(record: Record, config: HeatmapConfig) -> None:
    """Refuse frames that a model was not made for.

    Raises:
        DataError: Another size, more slots, or counts with another cap.
    """
    model = config.model
    expected, found = (model.channels, model.height, model.width), record.frames.shape[2:]
    if expected != found:
        raise DataError(
            f"input must be (B,T,{','.join(map(str, expected))}), got frames of {'x'.join(map(str, found))}"
        )
    if record.num_slots > model.num_slots:
        raise DataError(
            f"slot_id out of range: the model knows {model.num_slots} slots, the data have {record.num_slots}"
        )
    cap = model.count_cap
    if record.count_cap and cap and (record.count_cap, record.scale) != (cap, model.count_scale):
        raise DataError(
            f"the model's pixels are counts up to {cap} ({model.count_scale}), the data's up to "
            f"{record.count_cap} ({record.scale}); rasterize them with count_cap {cap} in --config"
        )
