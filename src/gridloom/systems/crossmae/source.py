"""Windows of several modalities as batches."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gridloom.core.batch import Batch, Field
from gridloom.core.random import uniform, window_keys
from gridloom.grid.normalize import Normalizer
from gridloom.grid.source import GridSource
from gridloom.grid.windows import Windows
from gridloom.systems.crossmae.build import cut_of
from gridloom.systems.crossmae.config import CrossMAEConfig
from gridloom.systems.crossmae.estimate import Estimate
from gridloom.systems.crossmae.fields import Fields
from gridloom.systems.crossmae.inputs import HIDDEN, KNOWN, PLACES, STATIC, TIMES

__all__ = ["Fold", "ModalSource", "cut_modalities"]


@dataclass(frozen=True)
class Fold:
    """One way of hiding cells of the whole record.

    Attributes:
        hidden: Cells to predict by modality, shaped as its variable.
        estimates: What is estimated there without them, by modality; empty without a background.
    """

    hidden: Mapping[str, np.ndarray]
    estimates: Mapping[str, Estimate]


def cut_modalities(
    fields: Fields, config: CrossMAEConfig, *, bounds: tuple[int, int] | None = None, stride: Sequence[int] = ()
) -> Windows:
    """Windows (time, y, x) over all modalities; the last ones end where the data ends.

    Args:
        fields: Data, at least as large as a window.
        config: Size of the windows.
        bounds: Half-open range of times to stay in.
        stride: Cells between two windows along each axis; `data.stride` if not given.
    """
    images = [name for name, modality in fields.modalities.items() if modality.kind == "image"]
    names = fields.dims(images[0]) if images else (fields.time,)
    low, high = bounds or (0, fields.dataset.sizes[fields.time])
    starts, sizes = {}, {}
    for dim, size, step in zip(names, config.data.window, stride or config.data.stride, strict=False):
        first, last = (low, high) if dim == fields.time else (0, fields.dataset.sizes[dim])
        size = min(size, last - first)
        every = np.arange(first, last - size + 1, step, dtype=np.int64)
        starts[dim] = every if every[-1] + size == last else np.append(every, last - size)
        sizes[dim] = size
    return Windows(dims=tuple(names), sizes=sizes, starts=starts)


class ModalSource:
    """Windows of all modalities, a `core.contracts.Source`.

    The batch has a field for each modality, [batch, time, y, x] or [batch, place, time, feature], normalized (anomalies
    where there is a background), `static`, and what the networks are told of times and places.
    """

    def __init__(
        self,
        fields: Fields,
        config: CrossMAEConfig,
        windows: Windows,
        normalizer: Normalizer,
        *,
        folds: Sequence[Callable[[], Fold]] = (),
    ) -> None:
        """Put the sources of the modalities together.

        Args:
            fields: Data in its own units; NaN is missing.
            config: Resolved configuration.
            windows: From `cut_modalities`.
            normalizer: Has steps for every variable and every static attribute.
            folds: Ways of hiding; each sample draws one. Made when first asked for. None: the objective hides.
        """
        self.fields, self.config, self.windows = fields, config, windows
        self._folds = list(folds)
        self._made: dict[int, Fold] = {}
        self._sources = {name: self._source(name, normalizer) for name in fields.modalities}
        self._static = _static_array(fields, normalizer)
        self._season = season(fields)
        self._places = {name: place_axes(fields, name) for name in fields.modalities}

    def __len__(self) -> int:
        return len(self.windows)

    def collate(self, windows: Sequence[int], epoch: int) -> Batch:
        """Read windows of every modality."""
        key = window_keys(self.config.seed, epoch, windows)
        first = self.windows.first(windows)
        batch_fields: dict[str, Field] = {}
        features: dict[str, torch.Tensor] = {}
        drawn = (uniform(key, (), "fold") * len(self._folds)).long().tolist() if self._folds else []
        folds = [self._fold(number) for number in drawn]
        for name in self.fields.modalities:
            batch_fields[name] = self._read(name, first)
            if folds:
                slices = [self._slices(name, first, sample) for sample in range(len(windows))]
                hidden = [fold.hidden[name][place] for fold, place in zip(folds, slices, strict=True)]
                features[name + HIDDEN] = self._with_feature(name, torch.from_numpy(np.stack(hidden)))
                if name in folds[0].estimates:
                    parts = [fold.estimates[name].window(place) for fold, place in zip(folds, slices, strict=True)]
                    batch_fields |= _about(name, batch_fields[name], parts)
            if self.config.model.place:
                features[name + PLACES] = self._places_of(name, first, len(windows))
        if self.config.model.season:
            steps = first[self.fields.time][:, None] + np.arange(self.windows.sizes[self.fields.time])
            features[TIMES] = torch.from_numpy(self._season[steps])
        if self._static is not None:
            batch_fields[STATIC] = Field.of(self._static.expand(len(windows), *self._static.shape))
        return Batch(
            fields=batch_fields, features=features, window=torch.tensor(list(windows), dtype=torch.int64), key=key
        )

    def coordinates(self, windows: Sequence[int]) -> Mapping[str, np.ndarray]:
        """Center of each window along every dimension."""
        return self.windows.centers(self.fields.dataset, windows)

    def _fold(self, number: int) -> Fold:
        if number not in self._made:
            self._made[number] = self._folds[number]()
        return self._made[number]

    def _source(self, name: str, normalizer: Normalizer) -> GridSource:
        """Windows of one modality; those of series hold all places."""
        dims, time = self.fields.dims(name), self.fields.time
        sizes = {dim: self.windows.sizes.get(dim, self.fields.dataset.sizes[dim]) for dim in dims}
        starts = {dim: self.windows.starts.get(dim, np.zeros(1, dtype=np.int64)) for dim in dims}
        assert time in dims
        variables = self.fields.variables(name)
        return GridSource(
            self.fields.dataset[list(variables)],
            variables=variables,
            windows=Windows(dims=dims, sizes=sizes, starts=starts),
            normalizer=normalizer,
            seed=self.config.seed,
            keep_dims=dims,
        )

    def _read(self, name: str, first: Mapping[str, np.ndarray]) -> Field:
        source = self._sources[name]
        places = [
            np.searchsorted(starts, first[dim]) if dim in first else np.zeros(len(next(iter(first.values()))), np.int64)
            for dim, starts in source.windows.starts.items()
        ]
        address = np.ravel_multi_index(places, [len(starts) for starts in source.windows.starts.values()])
        field = source.collate(address.tolist(), 0).fields["image"]
        if self.fields.modalities[name].kind == "image":
            return field.apply(lambda values: values[:, 0])
        return field.apply(lambda values: values.movedim(1, -1))

    def _slices(self, name: str, first: Mapping[str, np.ndarray], sample: int) -> tuple[slice, ...]:
        return tuple(
            slice(int(first[dim][sample]), int(first[dim][sample]) + self.windows.sizes[dim])
            if dim in first
            else slice(None)
            for dim in self.fields.dims(name)
        )

    def _with_feature(self, name: str, hidden: torch.Tensor) -> torch.Tensor:
        if self.fields.modalities[name].kind == "image":
            return hidden
        return hidden[..., None].expand(*hidden.shape, len(self.fields.variables(name)))

    def _places_of(self, name: str, first: Mapping[str, np.ndarray], size: int) -> torch.Tensor:
        """Where the middle of each patch lies, about -1 to 1 over the training data."""
        patches, axes = cut_of(self.config, name), self._places[name]
        if self.fields.modalities[name].kind == "vector":
            return torch.from_numpy(np.broadcast_to(axes[0], (size, *axes[0].shape)).copy())
        dims = self.fields.dims(name)[1:]
        down, across = self.config.model.image_patch
        middles = []
        for dim, axis, cells, count in zip(dims, axes, (down, across), patches.layout, strict=True):
            inside = np.minimum(np.arange(count) * cells + cells // 2, self.windows.sizes[dim] - 1)
            middles.append(axis[first[dim][:, None] + inside])
        rows, columns = middles
        grid = np.stack(np.broadcast_arrays(rows[:, :, None], columns[:, None, :]), axis=-1)
        return torch.from_numpy(grid.reshape(size, -1, 2).astype(np.float32))


def _about(name: str, field: Field, parts: Sequence[Estimate]) -> dict[str, Field]:
    """Values about the base, in units of the anomalies, and what is known beside them."""
    base = torch.from_numpy(np.stack([part.base for part in parts]))
    scale = torch.tensor([part.scale for part in parts]).reshape(-1, *(1,) * (base.ndim - 1))
    about = Field.of((field.values - base) / scale, field.valid)
    return {name: about, name + KNOWN: Field.of(torch.from_numpy(np.stack([part.known for part in parts])))}


def season(fields: Fields) -> np.ndarray:
    """Cosine and sine of the phase of the year of each time, float32 [time, 2]; 0 where time has no dates."""
    values = fields.dataset[fields.time].values if fields.time in fields.dataset.coords else np.zeros(0)
    size = fields.dataset.sizes[fields.time]
    if values.dtype.kind == "M":
        phase = (values - values.astype("datetime64[Y]")) / np.timedelta64(1, "D") / 365.25
    elif values.dtype == object and len(values) and hasattr(values[0], "month"):
        dates: list[Any] = values.tolist()
        phase = np.array([(date.month - 1 + (date.day - 1) / 31) / 12 for date in dates])
    elif fields.time.lower() == "month" and values.dtype.kind in "iuf":
        phase = (values - 0.5) / 12
    else:
        return np.zeros((size, 2), dtype=np.float32)
    angle = 2 * np.pi * phase.astype(np.float64)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)


def place_axes(fields: Fields, name: str) -> list[np.ndarray]:
    """Position of each row and column, or of each place, scaled by the grid to -1 to 1."""
    dims = fields.dims(name)
    if fields.modalities[name].kind == "image":
        return [_scaled(np.arange(fields.dataset.sizes[dim])) for dim in dims[1:]]
    place = dims[0]
    known = [
        coordinate.values
        for coordinate in fields.dataset.coords.values()
        if coordinate.dims == (place,) and coordinate.dtype.kind == "f"
    ][:2]
    while len(known) < 2:
        known.append(np.arange(fields.dataset.sizes[place]) if not known else np.zeros(fields.dataset.sizes[place]))
    return [np.stack([_scaled(axis) for axis in known], axis=-1)]


def _scaled(axis: np.ndarray) -> np.ndarray:
    low, high = float(np.nanmin(axis)), float(np.nanmax(axis))
    if high <= low:
        return np.zeros(axis.shape, dtype=np.float32)
    return np.asarray(2 * (np.nan_to_num(axis, nan=low) - low) / (high - low) - 1, dtype=np.float32)


def _static_array(fields: Fields, normalizer: Normalizer) -> torch.Tensor | None:
    """Normalized attributes, [place, attribute] or [attribute]."""
    if fields.static is None:
        return None
    columns = [normalizer.apply(str(name), values.values) for name, values in fields.static.data_vars.items()]
    return torch.from_numpy(np.stack(columns, axis=-1))
