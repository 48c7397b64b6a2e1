"""From a path to training, validation and test windows: what every system on gridded fields shares."""

import logging
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
import xarray as xr

from gridloom.core.errors import ConfigError, DataError, UnknownNameError
from gridloom.grid.axes import CHANNEL, data_dims, is_latitude, is_longitude, numeric_variables, spatial_dims, time_dim
from gridloom.grid.normalize import Normalizer, fit_normalizer
from gridloom.grid.pad import pad_to_windows
from gridloom.grid.read import open_grid
from gridloom.grid.source import GridSource
from gridloom.grid.splits import PARTS, Splits, decorrelation_length, is_periodic, split_blocks
from gridloom.grid.windows import Windows, cut_windows

__all__ = ["GridConfig", "GridParts", "choose_split", "open_fields", "prepare_grid", "stack_windows", "with_variables"]

_LOGGER = logging.getLogger(__name__)
SAMPLE = "sample"
_ENOUGH_TIMES = 8


@dataclass(frozen=True, kw_only=True)
class GridConfig:
    """Which data, and how it is cut into windows and parts."""

    path: str = ""
    """File, folder or name of a sample (`gridloom data list`)."""
    variables: tuple[str, ...] = ()
    """Variables that make the channels, in order; none given takes all that hold numbers."""
    window: tuple[int, int] = (128, 128)
    """Height and width of a window in cells. Fields of more than half of it are padded with missing cells."""
    stride: tuple[int, int] = (32, 32)
    """Cells between the starts of two training windows, down and across."""
    split_dim: str = ""
    """Dimension that is split into parts; empty takes time where there are 8 steps or more, else samples, else the last
    spatial dimension."""
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15)
    """Shares of training, validation and test in what the gaps between them leave."""
    normalize: tuple[Literal["standard", "log1p", "bounds"], ...] = ("standard",)
    """Steps of the normalizer, fitted on the training part."""
    label: str = ""
    """Coordinate or variable that holds a label of each window's leading dimension, for probes."""

    def __post_init__(self) -> None:
        """Refuse sizes that make no window."""
        if min(*self.window, *self.stride) < 1:
            raise ConfigError(f"data.window and data.stride must be at least 1, got {self.window} and {self.stride}")


@dataclass(frozen=True, kw_only=True)
class GridParts:
    """A dataset cut into parts.

    Attributes:
        dataset: The fields, `channel` dimensions taken apart into variables.
        variables: Names of the channels, in order.
        dims: Names of the two spatial dimensions.
        splits: Which stretch is for what.
        normalizer: Fitted on the training part.
        windows: Windows of each part.
        sources: Sources of each part.
    """

    dataset: xr.Dataset
    variables: tuple[str, ...]
    dims: tuple[str, str]
    splits: Splits
    normalizer: Normalizer
    windows: Mapping[str, Windows]
    sources: Mapping[str, GridSource]


def open_fields(path: str | xr.Dataset, variables: Sequence[str] = (), *, label: str = "") -> xr.Dataset:
    """Open a dataset, keep the variables asked for, and take a `channel` dimension apart into variables.

    Latitudes come out rising, whatever their order in the file.

    Args:
        path: As `open_grid` takes it.
        variables: Names; none takes all that hold numbers and have the last two dimensions of the largest.
        label: A variable that becomes a coordinate.

    Raises:
        DataError: No path, or variables that do not share their dimensions.
        UnknownNameError: A variable or label that is not there.
    """
    if isinstance(path, str) and not path:
        raise DataError("no data: give a file, a folder or the name of a sample (see `gridloom data list`)")
    dataset = open_grid(path)
    if label and label not in dataset.coords:
        if label not in dataset.data_vars:
            raise UnknownNameError("label", label, [str(name) for name in (*dataset.coords, *dataset.data_vars)])
        dataset = dataset.set_coords(label)
    dataset = _without_channels(dataset)
    if not variables:
        dims = spatial_dims(dataset)
        largest = max((dataset[name].dims for name in numeric_variables(dataset)), key=len)
        variables = [
            name
            for name in numeric_variables(dataset)
            if dataset[name].dims == largest and dataset[name].dims[-2:] == dims
        ]
        others = [f"{name} {dataset[name].dims}" for name in numeric_variables(dataset) if name not in variables]
        if others:
            _LOGGER.warning("left out for other dimensions than %s: %s", largest, ", ".join(others))
    names = numeric_variables(dataset, variables)
    first = dataset[names[0]].dims
    for name in names:
        if dataset[name].dims != first:
            raise DataError(
                f"variables must share their dimensions: {names[0]!r} has {first}, {name!r} has {dataset[name].dims}; "
                f"choose with --data.variables"
            )
    chosen = dataset[list(names)]
    rows, columns = map(str, first[-2:]) if len(first) > 1 else ("", "")
    if rows and is_longitude(chosen, rows) and is_latitude(chosen, columns):
        chosen = chosen.transpose(..., columns, rows)  # a model sees the world the same way up in every file
    return _south_first(chosen, chosen[names[0]].dims[-2:])


def _south_first(dataset: xr.Dataset, dims: Sequence[Hashable]) -> xr.Dataset:
    """Turn latitudes that fall, so that a model sees the world the same way round in every file."""
    for dim in map(str, dims):
        if dim in dataset.coords and is_latitude(dataset, dim) and not _runs_north(dataset, dim):
            dataset = dataset.isel({dim: slice(None, None, -1)})
    return dataset


def _without_channels(dataset: xr.Dataset) -> xr.Dataset:
    apart: dict[str, xr.DataArray] = {}
    for name, values in dataset.data_vars.items():
        if CHANNEL not in values.dims:
            apart[str(name)] = values
            continue
        for place in range(values.sizes[CHANNEL]):
            label = values[CHANNEL].values[place] if CHANNEL in values.coords else place
            apart[f"{name}_{label}"] = values.isel({CHANNEL: place}, drop=True)
    return xr.Dataset(
        apart, coords={name: dataset[name] for name in dataset.coords if name != CHANNEL}, attrs=dataset.attrs
    )


def _split_dim(dataset: xr.Dataset, config: GridConfig, dims: tuple[str, str]) -> str:
    known = data_dims(dataset)
    if config.split_dim:
        if config.split_dim not in known:
            raise UnknownNameError("dimension in data.split_dim", config.split_dim, known)
        return config.split_dim
    time = time_dim(dataset)
    if time is not None and dataset.sizes[time] >= _ENOUGH_TIMES:
        return time
    return SAMPLE if SAMPLE in known else dims[1]


def choose_split(dataset: xr.Dataset, config: GridConfig, dims: tuple[str, str]) -> Splits:
    """Split fields as the configuration says; the gap is estimated on the training part alone.

    Args:
        dataset: From `open_fields`.
        config: Window, fractions and dimension.
        dims: The two spatial dimensions.

    Raises:
        DataError: Too small for three parts with gaps.
    """
    dim = _split_dim(dataset, config, dims)
    window = dict(zip(dims, config.window, strict=True)).get(dim, 1)
    independent = dim == SAMPLE
    split = partial(
        split_blocks,
        dataset.sizes[dim],
        dim=dim,
        fractions=config.fractions,
        window=0 if independent else window,
        periodic=is_periodic(dataset, dim) if dim in dims else _is_whole_year(dataset, dim),
    )
    return split() if independent else split(decorrelation=_decorrelation(dataset, split()))


def _is_whole_year(dataset: xr.Dataset, dim: str) -> bool:
    """Whether a dimension is the months of a climatology, of which the last is followed by the first."""
    if dim not in dataset.coords or dataset[dim].dtype.kind not in "iuf":
        return False
    return dim.lower() == "month" and np.array_equal(dataset[dim].values, np.arange(1, 13))


def _decorrelation(dataset: xr.Dataset, provisional: Splits) -> int:
    """The longest decorrelation length of the variables, over the training part of a split without one."""
    training = dataset.isel({dim: slice(*bounds) for dim, bounds in provisional.bounds("train").items()})
    return max(
        decorrelation_length(values.values, values.get_axis_num(provisional.dim))
        for values in training.data_vars.values()
    )


def prepare_grid(config: GridConfig, *, seed: int, field: str = "image") -> GridParts:
    """Open, split, normalize and cut.

    Args:
        config: What and how.
        seed: Seed of the windows' keys.
        field: Name of the batch's field.

    Raises:
        DataError: Data and windows do not fit; says what to change.
    """
    dataset = open_fields(config.path, config.variables, label=config.label)
    variables = tuple(str(name) for name in dataset.data_vars)
    dims = spatial_dims(dataset, variables)
    sizes = dict(zip(dims, config.window, strict=True))
    dataset = pad_to_windows(dataset, sizes)
    splits = choose_split(dataset, config, dims)
    normalizer = fit_normalizer(dataset, kinds=config.normalize, bounds=splits.bounds("train"))
    strides = dict(zip(dims, config.stride, strict=True))
    coarse = {dim: max(stride, sizes[dim] // 4) for dim, stride in strides.items()}
    windows = {
        part: cut_windows(
            dataset, sizes=sizes, strides=strides if part == "train" else coarse, bounds=splits.bounds(part), cover=True
        )
        for part in PARTS
    }
    sources = {
        part: GridSource(
            dataset,
            variables=variables,
            windows=windows[part],
            normalizer=normalizer,
            seed=seed,
            field=field,
            label=config.label or None,
            keep_dims=dims,
        )
        for part in PARTS
    }
    return GridParts(
        dataset=dataset,
        variables=variables,
        dims=dims,
        splits=splits,
        normalizer=normalizer,
        windows=windows,
        sources=sources,
    )


def with_variables(config: GridConfig) -> GridConfig:
    """Return the configuration with the names of its variables filled in from the data."""
    dataset = open_fields(config.path, config.variables, label=config.label)
    return replace(config, variables=tuple(str(name) for name in dataset.data_vars))


def stack_windows(parts: GridParts, part: str, *, most: int) -> xr.Dataset:
    """Return windows of a part in data units, stacked along `sample`, with the coordinates of their centers.

    The attribute `origin` says where the first row belongs in a picture: `lower` where latitude rises, else `upper`.

    Args:
        parts: The prepared grid.
        part: `train`, `validation` or `test`.
        most: At most so many windows, spread evenly over the part.
    """
    windows = parts.windows[part]
    chosen = np.unique(np.linspace(0, len(windows) - 1, min(most, len(windows))).round().astype(np.int64))
    boxes = [parts.dataset.isel(windows.slices(int(index)), missing_dims="ignore") for index in chosen]
    leading = [dim for dim in windows.dims if dim not in parts.dims]
    variables = {}
    for name in parts.variables:
        stacked = np.stack([box[name].isel(dict.fromkeys(leading, 0)).values for box in boxes]).astype(np.float32)
        variables[name] = ((SAMPLE, "y", "x"), stacked, dict(parts.dataset[name].attrs))
    centers = windows.centers(parts.dataset, chosen)
    coordinates = {(dim if dim != SAMPLE else "index"): (SAMPLE, values) for dim, values in centers.items()}
    attributes = {"origin": "lower" if _runs_north(parts.dataset, parts.dims[0]) else "upper"}
    return xr.Dataset(variables, coords={**coordinates, "window": (SAMPLE, chosen)}, attrs=attributes)


def _runs_north(dataset: xr.Dataset, dim: str) -> bool:
    """Whether the first row is the southernmost, so that pictures have to be drawn from below."""
    if dim not in dataset.coords or not is_latitude(dataset, dim):
        return False
    values = dataset[dim].values
    return bool(values[-1] > values[0])
