"""Windows with their labels, and the question that a label answers."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
import xarray as xr
from jaxtyping import Shaped

from gridloom.core.batch import Batch, Field
from gridloom.core.contracts import Prepared, Source, Task
from gridloom.core.errors import DataError
from gridloom.finetune.config import FinetuneConfig
from gridloom.finetune.labels import as_indices, as_names, as_numbers, is_known
from gridloom.grid.normalize import Normalizer
from gridloom.grid.prepare import SAMPLE, GridParts, prepare_grid, stack_windows
from gridloom.grid.source import GridSource, SubsetSource

__all__ = ["TARGET", "LabeledSource", "prepare"]

_LOGGER = logging.getLogger(__name__)
TARGET = "target"
"""Field of a batch that holds the label: a class's place among the classes, or a number in its own unit."""
_MOST_TRAINING_WINDOWS = 2000
_MOST_TEST_WINDOWS = 2000


class LabeledSource:
    """The windows of a source that have a label, with it as the field `target`; a `core.contracts.Source`.

    Args:
        source: All windows.
        indices: Addresses of those that have a label.
        labels: Their labels: names of classes, or numbers.
        config: Its classes are what the targets count. A name that is not among them is a label nobody can learn: its
            target is not valid.
    """

    def __init__(
        self,
        source: Source,
        indices: Shaped[np.ndarray, " windows"],
        labels: Shaped[np.ndarray, " windows"],
        config: FinetuneConfig,
    ) -> None:
        classes = config.classes
        self._source, self._config = SubsetSource(source, indices), config
        self.labels = labels
        self._targets = torch.from_numpy(as_indices(labels, classes) if classes else labels)
        self._known = self._targets >= 0 if classes else torch.isfinite(self._targets)

    def __len__(self) -> int:
        return len(self._source)

    def collate(self, windows: Sequence[int], epoch: int) -> Batch:
        """Read windows with their targets.

        Raises:
            DataError: Missing cells, and a backbone that cannot take them.
        """
        batch = self._source.collate(windows, epoch)
        pretrained = self._config.pretrained
        if not pretrained.takes_missing and not bool(batch.fields[pretrained.field_name].valid.all()):
            raise DataError(
                f"{self._config.data.path}: windows with missing cells, which this backbone cannot take; fill them, or "
                f"take another backbone (one of system {pretrained.system!r} that was made for them)"
            )
        place = torch.tensor(list(windows), dtype=torch.int64)
        return batch.with_field(TARGET, Field.of(self._targets[place], self._known[place]))

    def coordinates(self, windows: Sequence[int]) -> Mapping[str, np.ndarray]:
        """Where the windows lie, and their labels as they are in the data."""
        return self._source.coordinates(windows)


def prepare(config: FinetuneConfig) -> Prepared:
    """Read the data and cut it into parts; `task` asks for the labels of held-out windows.

    Windows without a label are in no part: they can neither teach nor test. Data are normalized by the backbone's
    training statistics, or by their own where it came without.

    Raises:
        DataError: A part without a single label.
    """
    parts = _parts(config)
    sources = {part: _labeled(source, config, part) for part, source in parts.sources.items()}
    return Prepared(
        sources=sources,
        normalizer=parts.normalizer.to_json(),
        splits={**parts.splits.to_json(), "sha256": parts.splits.digest},
        history=_stack(parts, sources["train"], config, most=_MOST_TRAINING_WINDOWS),
        task=_TaskOf(parts, sources, config),
    )


def _parts(config: FinetuneConfig) -> GridParts:
    name = config.pretrained.field_name
    parts = prepare_grid(config.data, seed=config.seed, field=name)
    if not config.pretrained.normalizer:
        return parts
    normalizer = Normalizer.from_json(config.pretrained.normalizer)
    sources = {
        part: GridSource(
            parts.dataset,
            variables=parts.variables,
            windows=windows,
            normalizer=normalizer,
            seed=config.seed,
            field=name,
            label=config.data.label,
            keep_dims=parts.dims,
        )
        for part, windows in parts.windows.items()
    }
    return replace(parts, normalizer=normalizer, sources=sources)


def _labeled(source: GridSource, config: FinetuneConfig, part: str) -> LabeledSource:
    """The windows of a part that have a label; of the training part the share that is asked for."""
    label = config.data.label
    values = np.asarray(source.coordinates(range(len(source)))[label])
    labels = as_names(values) if config.classes else as_numbers(values)
    chosen = np.flatnonzero(is_known(labels))
    if not len(chosen):
        raise DataError(f"{config.data.path}: no window of the {part} part has a label {label!r}; split elsewhere")
    if part == "train":
        count = max(1, round(config.data.label_share * len(chosen)))
        chosen = np.sort(np.random.default_rng(config.seed).permutation(chosen)[:count])
        unseen = sorted(set(config.classes) - set(labels[chosen].tolist()))
        if config.classes and len(unseen) == len(config.classes):
            raise DataError(
                f"label {label!r}: no training window is of a class in `classes` ({', '.join(unseen[:10])})"
            )
        if unseen:
            _LOGGER.warning("no labeled training window of %d classes: %s", len(unseen), ", ".join(unseen[:10]))
    return LabeledSource(source, chosen, labels[chosen], config)


def _stack(parts: GridParts, source: LabeledSource, config: FinetuneConfig, *, most: int) -> xr.Dataset:
    """Windows in data units along `sample`, with their labels: names of classes, or numbers."""
    label = config.data.label
    pattern = stack_windows(parts, "train", most=1)  # for what it says of its variables
    chosen = np.unique(np.linspace(0, len(source) - 1, min(most, len(source))).round().astype(np.int64)).tolist()
    batch = source.collate(chosen, 0)
    image = batch.fields[config.pretrained.field_name]
    values = torch.where(image.valid, image.values, torch.nan).numpy()
    variables: dict[str, tuple] = {
        name: ((SAMPLE, "y", "x"), parts.normalizer.invert(name, values[:, place]), pattern[name].attrs)
        for place, name in enumerate(parts.variables)
    }
    variables[label] = (SAMPLE, source.labels[chosen], dict(parts.dataset[label].attrs))
    found = source.coordinates(chosen)
    coordinates = {(name if name != SAMPLE else "index"): (SAMPLE, found[name]) for name in found if name != label}
    return xr.Dataset(variables, coords={**coordinates, "window": (SAMPLE, chosen)}, attrs=pattern.attrs)


class _TaskOf:
    """Makes the task of a part: its windows are given, their labels are asked."""

    def __init__(self, parts: GridParts, sources: Mapping[str, LabeledSource], config: FinetuneConfig) -> None:
        self.parts, self.sources, self.config = parts, sources, config

    def __call__(self, split: str) -> Task:
        label = self.config.data.label
        whole = _stack(self.parts, self.sources[split], self.config, most=_MOST_TEST_WINDOWS)
        return Task(
            name=self.config.data.path,
            split=split,
            given=whole.drop_vars(label),
            wanted=xr.ones_like(whole[[label]], dtype=bool),
            truth=whole[[label]],
            block_dim=SAMPLE,
        )
