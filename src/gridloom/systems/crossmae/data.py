"""From a configuration to training, validation and the question of the test."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
import xarray as xr

from gridloom.core.contracts import Prepared, Task
from gridloom.core.errors import UnknownNameError
from gridloom.core.random import window_keys
from gridloom.grid.normalize import Normalizer
from gridloom.grid.splits import Splits
from gridloom.grid.windows import Windows
from gridloom.systems.crossmae.background import Background
from gridloom.systems.crossmae.build import cut_of, share_of
from gridloom.systems.crossmae.config import CrossMAEConfig
from gridloom.systems.crossmae.fields import Fields, open_modalities
from gridloom.systems.crossmae.holdout import (
    HeldOut,
    fit_normalizers,
    hide_gaps,
    hold_out_cells,
    observed_cells,
    split_time,
    without,
)
from gridloom.systems.crossmae.masking import draw_masks
from gridloom.systems.crossmae.pad import pad_to_window
from gridloom.systems.crossmae.patches import ImagePatches
from gridloom.systems.crossmae.source import Fold, ModalSource, cut_modalities

__all__ = ["encode_source", "prepare"]

_FOLD_SEED = 100_000


def prepare(config: CrossMAEConfig) -> Prepared:
    """Read the data, hold out what is asked, and cut the rest into windows."""
    fields = open_modalities(config.data.path, config.data, config.modalities)
    if config.data.split == "time":
        return _by_time(config, fields)
    return _by_cells(config, fields)


def _by_cells(config: CrossMAEConfig, fields: Fields) -> Prepared:
    held_out = hold_out_cells(fields, config)
    training = without(fields, held_out.test, held_out.validation)
    asked = without(fields, held_out.test)
    normalizer = fit_normalizers(training, config)
    background = Background(config, normalizer) if config.background.kinds else None
    folds = [partial(_fold, training, config, background, number) for number in range(config.background.folds)]
    validation = [partial(_validation_fold, training, held_out, background)]
    stride = config.data.window
    sources = {
        "train": ModalSource(
            training, config, cut_modalities(training, config), normalizer, folds=folds if background else ()
        ),
        "validation": ModalSource(
            asked, config, cut_modalities(asked, config, stride=stride), normalizer, folds=validation
        ),
    }
    sources["test"] = sources["validation"]  # the test asks for whole fields, see the task
    return Prepared(
        sources=sources,
        normalizer=normalizer.to_json(),
        splits=held_out.to_json(config),
        history=training.back(training.dataset),
        task=partial(_cells_task, config, fields, held_out),
    )


def _fold(fields: Fields, config: CrossMAEConfig, background: Background | None, number: int) -> Fold:
    """Hide training cells under gaps like those of the test, and estimate what is under them."""
    hidden = {}
    for name, modality in config.modalities.items():
        observed = observed_cells(fields, name)
        if not modality.target:
            hidden[name] = np.zeros_like(observed)
            continue
        seed = _FOLD_SEED + config.seed * config.background.folds + number
        hidden[name] = hide_gaps(observed, config.data.gaps, config.data.gap_share, seed)
    estimates = background.estimate(without(fields, hidden)) if background else {}
    return Fold(hidden, estimates)


def _validation_fold(training: Fields, held_out: HeldOut, background: Background | None) -> Fold:
    return Fold(held_out.validation, background.estimate(training) if background else {})


def _cells_task(config: CrossMAEConfig, fields: Fields, held_out: HeldOut, split: str) -> Task:
    """Ask for the held-out cells; those of the other part are not asked, nor shown before their time."""
    if split not in ("validation", "test"):
        raise UnknownNameError("part", split, ("validation", "test"))
    hidden = held_out.test if split == "test" else held_out.validation
    given = without(fields, held_out.test) if split == "test" else without(fields, held_out.test, held_out.validation)
    return _task(config, fields, given, hidden, split)


def _task(config: CrossMAEConfig, fields: Fields, given: Fields, hidden: Mapping[str, np.ndarray], split: str) -> Task:
    wanted = {
        variable: (fields.dataset[variable].dims, hidden[name] & np.isfinite(fields.dataset[variable].values))
        for name in fields.modalities
        for variable in fields.variables(name)
    }
    asked = xr.Dataset(wanted, coords=fields.dataset.coords)
    shown = given.dataset
    if fields.static is not None:
        shown = shown.assign(_static_variable(fields.static, config))
    return Task(
        name=config.data.path,
        split=split,
        given=fields.back(shown),
        wanted=fields.back(asked),
        truth=fields.back(fields.dataset),
        block_dim=fields.time,
    )


def _static_variable(static: xr.Dataset, config: CrossMAEConfig) -> dict[str, xr.DataArray]:
    """Static attributes as one variable, as they came."""
    names = [str(name) for name in static.data_vars]
    variable = config.data.static or names[0].rpartition(".")[0]
    labels = [name.removeprefix(f"{variable}.") for name in names]
    joined = xr.concat([static[name] for name in names], "attribute", coords="minimal", compat="override")
    return {variable: joined.assign_coords(attribute=labels).transpose(..., "attribute")}


def _by_time(config: CrossMAEConfig, fields: Fields) -> Prepared:
    splits = split_time(fields, config)
    parts = {part: _stretch(fields, splits, part) for part in splits.parts}
    normalizer = fit_normalizers(parts["train"], config)
    sources = {
        part: ModalSource(
            fields,
            config,
            cut_modalities(
                fields, config, bounds=splits.parts[part], stride=() if part == "train" else config.data.window
            ),
            normalizer,
        )
        for part in splits.parts
    }
    history = parts["train"].dataset
    return Prepared(
        sources=sources,
        normalizer=normalizer.to_json(),
        splits={**splits.to_json(), "sha256": splits.digest},
        history=fields.back(history),
        task=partial(_time_task, config, parts),
    )


def _stretch(fields: Fields, splits: Splits, part: str) -> Fields:
    low, high = splits.parts[part]
    return replace(fields, dataset=fields.dataset.isel({fields.time: slice(low, high)}))


def _time_task(config: CrossMAEConfig, parts: Mapping[str, Fields], split: str) -> Task:
    """Hide patches of a held-out stretch as training does, window by window, and ask for their cells."""
    if split not in parts:
        raise UnknownNameError("part", split, parts)
    fields = parts[split]
    windows = cut_modalities(fields, config, stride=config.data.window)
    hidden = {name: np.zeros_like(observed_cells(fields, name)) for name in fields.modalities}
    key = window_keys(config.data.gap_seed, 0, range(len(windows)))
    observed = {name: observed_cells(fields, name) for name in fields.modalities}
    for index in range(len(windows)):
        boxes = windows.slices(index)
        place = {name: tuple(boxes.get(dim, slice(None)) for dim in fields.dims(name)) for name in fields.modalities}
        masks = _window_masks(config, {name: observed[name][place[name]] for name in observed}, key[index : index + 1])
        for name, mask in masks.items():
            hidden[name][place[name]] |= mask
    hidden = {name: hidden[name] & observed[name] for name in hidden}
    return _task(config, fields, without(fields, hidden), hidden, split)


def _window_masks(
    config: CrossMAEConfig, observed: Mapping[str, np.ndarray], key: torch.Tensor
) -> dict[str, np.ndarray]:
    """Cells of one window that are hidden, by modality."""
    patches = {name: cut_of(config, name) for name in observed}
    cells = {name: torch.from_numpy(np.ascontiguousarray(observed[name]))[None] for name in observed}
    has_data = {name: patches[name].cut(cells[name]).any(-1) for name in observed}
    shares = {name: share_of(config, name) for name in observed if config.modalities[name].target}
    layouts = {name: patches[name].layout for name in observed}
    masks, _ = draw_masks(key, has_data, layouts, shares, config.masking.strategies, alpha=config.masking.alpha)
    found = {}
    for name, mask in masks.items():
        cut = patches[name]
        steps = observed[name].shape[cut.time_axis]
        whole = cut.join(mask[..., None].expand(-1, -1, -1, cut.num_cells), steps)[0].numpy()
        found[name] = whole if isinstance(cut, ImagePatches) else whole[..., 0]
    return found


def encode_source(
    config: CrossMAEConfig,
    normalizer: Mapping[str, Any],
    data: xr.Dataset,
    stride: Mapping[str, int] | tuple[int, int] | None,
) -> tuple[xr.Dataset, Windows, ModalSource]:
    """Cut any dataset into windows for the encoder.

    Args:
        config: Resolved configuration.
        normalizer: The normalizer's record.
        data: Dataset with the variables of the modalities.
        stride: Cells between windows by dimension, or down and across; the window's size where nothing is said.
    """
    fields, _ = pad_to_window(open_modalities(data, config.data, config.modalities), config)
    images = [name for name, modality in fields.modalities.items() if modality.kind == "image"]
    dims = fields.dims(images[0]) if images else (fields.time,)
    named = dict(zip(dims[-2:], stride, strict=False)) if isinstance(stride, tuple) else dict(stride or {})
    steps = [named.get(dim, size) for dim, size in zip(dims, config.data.window, strict=False)]
    windows = cut_modalities(fields, config, stride=steps)
    known = Normalizer.from_json(normalizer)
    folds = []
    if config.background.kinds:
        nothing = {name: np.zeros_like(observed_cells(fields, name)) for name in fields.modalities}
        folds = [lambda: Fold(nothing, Background(config, known).estimate(fields))]
    return fields.dataset, windows, ModalSource(fields, config, windows, known, folds=folds)
