"""From settings and a backbone to a configuration that needs the backbone's folder no more, save for its weights."""

import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import xarray as xr

from gridloom.core.config import to_dict
from gridloom.core.errors import ConfigError, DataError, UnknownNameError
from gridloom.finetune.backbone import Backbone, frozen_modules, image_field, num_features, read_backbone
from gridloom.finetune.config import UNSET, FinetuneConfig, LabeledGridConfig, PretrainedRecord
from gridloom.finetune.labels import class_names, task_of
from gridloom.grid.prepare import open_fields
from gridloom.grid.read import open_grid

__all__ = ["resolve"]

_LOGGER = logging.getLogger(__name__)


def resolve(config: FinetuneConfig) -> FinetuneConfig:
    """Fill in what backbone and data tell: variables, window, task, classes, and what the backbone is.

    A configuration that is resolved already stays as it is; where its backbone is still there, it must be the same.

    Raises:
        ConfigError: No backbone, no label, or another backbone than the configuration was resolved with.
        CheckpointError: The backbone cannot be read.
        DataError: Data, label and backbone do not fit.
        UnknownNameError: A module to freeze, a variable or a label that is not there.
    """
    if config.pretrained.system and not Path(config.backbone).exists():
        return config
    backbone = read_backbone(config.backbone)
    frozen_modules(backbone.encoder, config.freeze)
    if not config.data.label:
        raise ConfigError(f"no label: pass --data.label NAME{_some_labels(config.data)}")
    sha256 = backbone.sha256
    if config.pretrained.sha256 not in ("", sha256):
        raise ConfigError(
            f"{config.backbone}: holds other weights than this configuration was made with "
            f"({sha256[:12]}, not {config.pretrained.sha256[:12]}); start from a preset again"
        )
    dataset, data = _matched(config, backbone)
    values = dataset[data.label].values
    task = task_of(values, config.task, label=data.label)
    classes = config.classes
    if task == "classification" and not classes:
        classes = class_names(values, label=data.label)
    pretrained = PretrainedRecord(
        system=backbone.system,
        config=to_dict(backbone.config),
        normalizer=_renamed(backbone, data.variables),
        field_name=image_field(backbone.encoder)[0],
        num_features=num_features(backbone.encoder),
        takes_missing=backbone.encoder.inputs.missing == "mask",
        sha256=sha256,
    )
    return replace(config, data=data, task=task, classes=classes, pretrained=pretrained)


def _some_labels(data: LabeledGridConfig) -> str:
    """What could be meant: coordinates that are no axis, and variables of fewer dimensions."""
    if not data.path:
        return ""
    dataset = open_grid(data.path)
    most = max((values.ndim for values in dataset.data_vars.values()), default=0)
    names = [str(name) for name, values in dataset.coords.items() if values.ndim and name not in dataset.dims]
    names += [str(name) for name, values in dataset.data_vars.items() if 0 < values.ndim < most]
    return f" (in {data.path}: {', '.join(names)})" if names else ""


def _matched(config: FinetuneConfig, backbone: Backbone) -> tuple[xr.Dataset, LabeledGridConfig]:
    """The data with the variables that the backbone takes, and the settings with variables, window and stride.

    A backbone's own names are taken where the data has them; else the variables stand in their order for its own.
    """
    data = config.data
    _, spec = image_field(backbone.encoder, config.backbone)
    channels, *own_window = spec.size or (0, 0, 0)  # 0 where any number will do
    dataset = _open(data, spec.variables)
    variables = tuple(str(name) for name in dataset.data_vars)
    if channels not in (0, len(variables)):
        wanted = f" ({', '.join(spec.variables)})" if spec.variables else ""
        raise DataError(
            f"{data.path}: the backbone takes {channels} variables{wanted}, the data has {len(variables)} "
            f"({', '.join(variables)}); choose with --data.variables, or take another backbone"
        )
    if spec.variables and variables != spec.variables:
        _LOGGER.info("variables %s stand for the backbone's %s", ", ".join(variables), ", ".join(spec.variables))
    window = data.window
    if window == UNSET and spec.variables:  # an encoder that knows its variables knows its data
        window = (own_window[0], own_window[1])
    if min(window) < 1:
        raise ConfigError(f"{config.backbone}: does not say which windows it was trained on; pass --data.window H W")
    if any(size % spec.multiple_of for size in window):
        raise ConfigError(f"data.window must be multiples of {spec.multiple_of} for this backbone, got {window}")
    stride = window if data.stride == UNSET else data.stride
    return dataset, replace(data, variables=variables, window=window, stride=stride)


def _open(data: LabeledGridConfig, own: Sequence[str]) -> xr.Dataset:
    """The variables asked for; else those that the backbone knows, where they are all there; else all."""
    if own and not data.variables:
        with contextlib.suppress(UnknownNameError):
            return open_fields(data.path, own, label=data.label)
    return open_fields(data.path, data.variables, label=data.label)


def _renamed(backbone: Backbone, variables: Sequence[str]) -> Mapping[str, Any]:
    """The backbone's statistics by the names of the variables here; nothing where it has none of its own."""
    _, spec = image_field(backbone.encoder)
    own = spec.variables
    if not own or any(name not in backbone.normalizer for name in own):
        _LOGGER.info("the backbone came without training statistics: the data is normalized by its own")
        return {}
    return {ours: backbone.normalizer[theirs] for ours, theirs in zip(variables, own, strict=True)}
