"""Images with coordinates: what is read or made, the source of batches, and the question of the evaluation."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
import xarray as xr

from gridloom.core.batch import Batch, Field
from gridloom.core.contracts import Prepared, Task
from gridloom.core.errors import ConfigError, DataError, UnknownNameError
from gridloom.core.random import normal, uniform, window_keys
from gridloom.grid.normalize import Normalizer, Standard, Step
from gridloom.grid.prepare import GridConfig, open_fields, prepare_grid, stack_windows
from gridloom.grid.read import open_grid
from gridloom.systems.energy.config import SIGNAL_LENGTH, DataConfig, EnergyConfig
from gridloom.systems.energy.generate import Examples, generate

__all__ = ["CELLS", "POSITION", "ExampleSource", "from_unit", "prepare", "resolve", "to_unit", "unit_of"]

IMAGE, POSITION, ANSWERS = "image", "position", "answers"
CELLS = ("row", "column")
"""Names of the coordinates of a cell."""
_PARTS = ("train", "validation", "test")
_FRACTIONS = (0.7, 0.15, 0.15)
_FIELD_FRACTIONS = (0.6, 0.15, 0.25)
_BUFFER = 0.05
_MARGIN = 2
_WHITE = 255.0
_MOST_FOR_PATTERN = 3


class ExampleSource:
    """Images and their coordinates as batches; a `core.contracts.Source`.

    Fields: `image` normalized, `target` [B, D] (the answer that the example shows) and `answers` [B, K, D] (all that
    are right), coordinates from -1 to 1 within the bounds. Noise and hidden cells are drawn from each sample's key: in
    training anew in each epoch, in the other parts always the same.
    """

    def __init__(
        self, examples: Examples, config: DataConfig, normalizer: Normalizer, *, seed: int, first: int = 0
    ) -> None:
        """Normalize.

        Args:
            examples: In data units.
            config: Bounds, noise and missing share.
            normalizer: Has steps for every channel.
            seed: Seed of the run; the keys of the samples come from it.
            first: Number of the first example among those of all parts, so that no two share a key.
        """
        self.first = first
        self.examples, self.config, self.normalizer, self.seed = examples, config, normalizer, seed
        images = examples.images
        if images.ndim == 4:
            channels = [normalizer.apply(name, images[:, i]) for i, name in enumerate(normalizer.variables)]
            images = np.stack(channels, axis=1)
        self.images = images
        self.answers = to_unit(examples.answers, config.bounds)

    def __len__(self) -> int:
        return len(self.images)

    def collate(self, windows: Sequence[int], epoch: int) -> Batch:
        """Read examples."""
        rows = np.asarray(windows, dtype=np.int64)
        key = window_keys(self.seed, epoch, rows + self.first)
        answers = torch.from_numpy(self.answers[rows])
        target = answers[torch.arange(len(rows)), torch.from_numpy(self.examples.chosen[rows])]
        image = self._disturb(Field.of(torch.from_numpy(self.images[rows])), key)
        return Batch(
            fields={IMAGE: image, "target": Field.of(target), ANSWERS: Field.of(answers)},
            features={},
            window=torch.from_numpy(rows),
            key=key,
        )

    def _disturb(self, image: Field, key: torch.Tensor) -> Field:
        """Add noise in proportion to each image's own deviation, and hide cells."""
        values, valid = image.values, image.valid
        if self.config.noise:
            count = valid[..., None].flatten(1).sum(1).clamp(min=1).view(-1, *[1] * (values.ndim - 1))
            mean = values.flatten(1).sum(1).view_as(count) / count
            spread = (((values - mean) * valid).square().flatten(1).sum(1).view_as(count) / count).sqrt()
            values = values + self.config.noise * spread * normal(key, tuple(values.shape[1:]), "noise")
        if self.config.missing:
            valid = valid & (uniform(key, tuple(values.shape[1:]), "missing") >= self.config.missing)
        return Field.of(values, valid)

    def coordinates(self, windows: Sequence[int]) -> Mapping[str, np.ndarray]:
        """Return where each example lies; its number if that is not known."""
        rows = np.asarray(windows, dtype=np.int64)
        return {name: values[rows] for name, values in self.examples.places.items()} or {"sample": rows}


def to_unit(coordinates: np.ndarray, bounds: Sequence[tuple[float, float]]) -> np.ndarray:
    """Coordinates [..., D] in their own units to -1..1 within the bounds, float32."""
    low, high = np.asarray(bounds, dtype=np.float64).T
    unit: np.ndarray = (2 * (coordinates - low) / (high - low) - 1).astype(np.float32)
    return unit


def from_unit(coordinates: np.ndarray, bounds: Sequence[tuple[float, float]]) -> np.ndarray:
    """Coordinates [..., D] from -1..1 to their own units, float64."""
    low, high = np.asarray(bounds, dtype=np.float64).T
    own: np.ndarray = low + (np.asarray(coordinates, dtype=np.float64) + 1) * (high - low) / 2
    return own


def unit_of(data: DataConfig) -> str:
    """Unit of the coordinates: cells where they are rows and columns."""
    return "cell" if data.coordinates == CELLS else "1"


def resolve(config: EnergyConfig) -> EnergyConfig:
    """Fill in the names of channels and coordinates, the size of the images, and the bounds.

    Raises:
        DataError: No data where the task needs some, or not images with positions.
        ConfigError: Coordinates, bounds and answers that are not as many, or more than the search copes with.
    """
    data = config.data
    data.check_path()
    channels: tuple[str, ...] = ("red", "green", "blue")
    if data.is_signal:
        return replace(config, data=replace(data, bounds=((-1.0, 1.0),), coordinates=("y",), size=(1, SIGNAL_LENGTH)))
    if data.task == "extreme":
        names = data.variables or tuple(str(name) for name in open_fields(data.path).data_vars)[:1]
        if len(names) != 1:
            raise DataError(f"data.task extreme searches one variable, got {', '.join(names)}; choose one")
        data, channels = replace(data, variables=names), names
    elif data.task == "examples":
        data, channels = _resolve_examples(data)
    if not data.bounds:
        data = replace(data, bounds=tuple((0.0, float(size - 1)) for size in data.size))
    if not data.coordinates:
        data = replace(data, coordinates=CELLS)
    _check_coordinates(config, data)
    return replace(config, data=data, model=replace(config.model, channels=channels))


def _check_coordinates(config: EnergyConfig, data: DataConfig) -> None:
    """Refuse what would only fail in the first validation pass, or never."""
    outputs = len(data.coordinates)
    if len(data.bounds) != outputs or (data.task != "examples" and outputs != 2):
        raise ConfigError(
            f"data.coordinates and data.bounds must be as many as the answers have, got {outputs} "
            f"({', '.join(data.coordinates)}) and {len(data.bounds)}"
        )
    if config.search.optimizer == "pattern" and config.model.kind == "energy" and outputs > _MOST_FOR_PATTERN:
        raise ConfigError(
            f"search.optimizer pattern does not search {outputs} coordinates; use --search.optimizer autoregressive "
            f"with --model.kind autoregressive, or derivative_free"
        )


def _open_examples(data: DataConfig) -> xr.Dataset:
    """`image` (sample, channel, y, x) and `position` (sample, coordinate)."""
    if not data.path:
        raise DataError(f"data.task examples needs images with positions: a file with `{IMAGE}` and `{POSITION}`")
    dataset = open_grid(data.path)
    for name in (IMAGE, POSITION):
        if name not in dataset.data_vars:
            raise UnknownNameError(f"variable of {data.path}", name, [str(known) for known in dataset.data_vars])
    image, position = dataset[IMAGE], dataset[POSITION]
    if image.ndim == 3:
        image = image.expand_dims("channel", axis=1)
    if image.ndim != 4 or position.ndim != 2 or len(image) != len(position):
        raise DataError(
            f"{data.path}: expected {IMAGE} (sample, channel, y, x) and {POSITION} (sample, coordinate) of as many "
            f"samples, got {dataset[IMAGE].dims} {dataset[IMAGE].shape} and {position.dims} {position.shape}"
        )
    return xr.Dataset(
        {
            IMAGE: (("sample", "channel", "y", "x"), image.values.astype(np.float32)),
            POSITION: (("sample", "coordinate"), position.values.astype(np.float64)),
        },
        coords={
            name: (name, dataset[name].values.astype(str))
            for name, dim in (("channel", image.dims[1]), ("coordinate", position.dims[1]))
            if name == dim and name in dataset.coords
        },
    )


def _cut(count: int) -> dict[str, tuple[int, int]]:
    """Contiguous parts of samples in their order."""
    ends = np.round(np.cumsum([0, *_FRACTIONS]) * count).astype(int).tolist()
    parts = {part: (ends[i], ends[i + 1]) for i, part in enumerate(_PARTS)}
    if any(start == stop for start, stop in parts.values()):
        raise DataError(f"{count} examples are too few to split into training, validation and test; give 7 or more")
    return parts


def _resolve_examples(data: DataConfig) -> tuple[DataConfig, tuple[str, ...]]:
    dataset = _open_examples(data)
    channels = tuple(str(name) for name in dataset["channel"].values) if "channel" in dataset.coords else ()
    channels = channels or tuple(f"channel_{i}" for i in range(dataset.sizes["channel"]))
    size = (dataset.sizes["y"], dataset.sizes["x"])
    outputs = dataset.sizes["coordinate"]
    names = tuple(str(name) for name in dataset["coordinate"].values) if "coordinate" in dataset.coords else ()
    names = data.coordinates or names or (CELLS if outputs == 2 else tuple(f"y{i}" for i in range(outputs)))
    if len(names) != outputs:
        raise ConfigError(
            f"{data.path}: {POSITION} has {outputs} coordinates, data.coordinates names {', '.join(names)}"
        )
    bounds = data.bounds
    if not bounds and names != CELLS:
        start, stop = _cut(dataset.sizes["sample"])["train"]
        seen = dataset[POSITION].values[start:stop]
        low, high = np.nanmin(seen, axis=0), np.nanmax(seen, axis=0)
        reach = np.maximum(high - low, 1e-6) * _BUFFER
        bounds = tuple(zip((low - reach).tolist(), (high + reach).tolist(), strict=True))
    return replace(data, size=size, coordinates=names, bounds=bounds), channels


def prepare(config: EnergyConfig) -> Prepared:
    """Read or make the examples; `task` asks for the positions in images that the model has not seen.

    Raises:
        ConfigError: Images with missing cells for a network that is not told of them.
    """
    data, channels = config.data, config.model.channels
    if data.task == "extreme":
        parts, normalizer, splits = _extremes(config)
    elif data.task == "examples":
        parts, normalizer, splits = _own(data, channels)
    else:
        counts = {"train": data.num_train, "validation": data.num_validation, "test": data.num_test}
        parts = {part: generate(data, count, seed=config.seed, part=part) for part, count in counts.items()}
        if data.is_signal:
            normalizer = Normalizer({})
        else:
            center = parts["train"].images.mean((0, 2, 3)) if data.normalize == "centered" else np.zeros(len(channels))
            steps = {name: (Standard(mean=float(m), std=_WHITE),) for name, m in zip(channels, center, strict=True)}
            normalizer = Normalizer(steps)
        splits = {"dim": "sample", "parts": {part: [0, count] for part, count in counts.items()}, "independent": True}
    if not config.model.mask_missing and not all(np.isfinite(found.images).all() for found in parts.values()):
        raise ConfigError(f"{data.path}: images have missing cells; the network must be told, set --model.mask-missing")
    sources, first = {}, 0
    for part, examples in parts.items():
        sources[part] = ExampleSource(examples, data, normalizer, seed=config.seed, first=first)
        first += len(examples.images)
    return Prepared(
        sources=sources,
        normalizer=normalizer.to_json(),
        splits=splits,
        history=_as_dataset(sources["train"]),
        task=lambda split: _task(sources[split], data, split),
    )


def _as_dataset(source: ExampleSource) -> xr.Dataset:
    """What may be seen of each example beside its answers, in their own units."""
    field = source.collate(list(range(len(source))), 0).fields[IMAGE]
    image = torch.where(field.valid, field.values, torch.nan).numpy()
    dims = ("channel", "y", "x") if image.ndim == 4 else ("x",)
    for place, name in enumerate(source.normalizer.variables):
        image[:, place] = source.normalizer.invert(name, image[:, place])
    examples = source.examples
    shown = examples.answers[np.arange(len(examples.chosen)), examples.chosen]
    names = list(source.config.coordinates)
    unit = unit_of(source.config)
    return xr.Dataset(
        {
            IMAGE: (("sample", *dims), image),
            POSITION: (("sample", "coordinate"), shown.astype(np.float64), {"units": unit}),
            ANSWERS: (("sample", "answer", "coordinate"), examples.answers.astype(np.float64), {"units": unit}),
        },
        coords={"coordinate": names, **{name: ("sample", values) for name, values in examples.places.items()}},
    )


def _task(source: ExampleSource, data: DataConfig, split: str) -> Task:
    whole = _as_dataset(source)
    given = whole[[IMAGE]]
    truth = whole[[POSITION, ANSWERS]]
    wanted = truth[[POSITION]].map(np.isfinite)
    name = data.path or data.task
    return Task(name=name, split=split, given=given, wanted=wanted, truth=truth, block_dim="sample")


def _extremes(config: EnergyConfig) -> tuple[dict[str, Examples], Normalizer, Mapping]:
    """Windows of a field with the cell where it is highest (or lowest)."""
    data = config.data
    grid = GridConfig(
        path=data.path, variables=data.variables, window=data.size, stride=data.stride, fractions=_FIELD_FRACTIONS
    )
    parts = prepare_grid(grid, seed=config.seed)
    most = {"train": data.num_train, "validation": data.num_validation, "test": data.num_test}
    found = {}
    for part in _PARTS:
        windows = stack_windows(parts, part, most=len(parts.windows[part]))
        name = data.variables[0]
        values = windows[name].values
        cells = _extreme_cells(values, data.find)
        inside = np.all((cells >= _MARGIN) & (cells < np.array(data.size) - _MARGIN), axis=1)
        if not inside.any():
            raise DataError(
                f"{data.path}: no {part} window of {data.size} has its {data.find} cell of {name!r} inside; "
                f"choose another --data.size or variable"
            )
        kept = np.flatnonzero(inside)
        kept = kept[np.unique(np.linspace(0, len(kept) - 1, min(most[part], len(kept))).round().astype(int))]
        places = {
            str(dim): windows[dim].values[kept]
            for dim in windows.coords
            if windows[dim].dims == ("sample",) and dim != "window"
        }
        found[part] = Examples(
            images=values[kept][:, None],
            answers=cells[kept][:, None].astype(np.float32),
            chosen=np.zeros(len(kept), dtype=np.int64),
            places=places,
        )
    return found, parts.normalizer, {**parts.splits.to_json(), "sha256": parts.splits.digest}


def _extreme_cells(values: np.ndarray, find: str) -> np.ndarray:
    """Row and column of the extreme cell of each field [N, H, W]; -1 where nothing is known."""
    signed = np.where(np.isfinite(values), values if find == "highest" else -values, -np.inf).reshape(len(values), -1)
    rows, columns = np.divmod(signed.argmax(axis=1), values.shape[2])
    known = np.any(np.isfinite(signed), axis=1)
    return np.where(known[:, None], np.stack([rows, columns], axis=1), -1)


def _own(data: DataConfig, channels: tuple[str, ...]) -> tuple[dict[str, Examples], Normalizer, Mapping]:
    """The user's examples, split in their order, normalized by the training part."""
    dataset = _open_examples(data)
    cut = _cut(dataset.sizes["sample"])
    found = {}
    for part, (start, stop) in cut.items():
        position = dataset[POSITION].values[start:stop]
        if not np.isfinite(position).all():
            raise DataError(f"{data.path}: {POSITION} has values that are not finite; drop those samples")
        found[part] = Examples(
            images=dataset[IMAGE].values[start:stop],
            answers=position[:, None].astype(np.float32),
            chosen=np.zeros(stop - start, dtype=np.int64),
            places={},
        )
    splits = {"dim": "sample", "parts": {part: list(ends) for part, ends in cut.items()}}
    return found, _standard(found["train"].images, channels), splits


def _standard(images: np.ndarray, channels: tuple[str, ...]) -> Normalizer:
    """Mean and deviation of each channel over known cells; 1 for a constant channel."""
    steps: dict[str, tuple[Step, ...]] = {}
    for place, name in enumerate(channels):
        values = images[:, place].astype(np.float64)
        steps[name] = (Standard(mean=float(np.nanmean(values)), std=float(np.nanstd(values)) or 1.0),)
    return Normalizer(steps)
