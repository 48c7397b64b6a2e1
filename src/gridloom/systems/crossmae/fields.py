"""Reading a dataset as modalities: images, series of places, static attributes, whatever way round they come."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import xarray as xr

from gridloom.core.errors import DataError, UnknownNameError
from gridloom.grid.axes import check_time_axis, is_latitude, is_longitude, numeric_variables, time_dim
from gridloom.grid.read import open_grid
from gridloom.systems.crossmae.config import DataConfig, ModalityConfig

__all__ = ["Fields", "open_modalities"]


@dataclass(frozen=True)
class Fields:
    """A dataset as modalities.

    Attributes:
        dataset: Variables of the modalities; images on (time, y, x) with latitude rising, series on (place, time).
        time: Name of the dimension of time.
        modalities: What each modality is; sizes are those of the whole axes.
        static: Static attributes, one variable each, on place or without a dimension; None where there are none.
        turned: Dimensions that run the other way round in the file.
    """

    dataset: xr.Dataset
    time: str
    modalities: Mapping[str, ModalityConfig]
    static: xr.Dataset | None
    turned: tuple[str, ...] = ()

    def variables(self, name: str) -> tuple[str, ...]:
        """Variables of a modality."""
        return self.modalities[name].variables or (name,)

    def dims(self, name: str) -> tuple[str, ...]:
        """Dimensions of a modality: time, y, x, or place, time."""
        return tuple(str(dim) for dim in self.dataset[self.variables(name)[0]].dims)

    def like(self, other: xr.Dataset) -> xr.Dataset:
        """Bring a dataset laid out as the file to the order and direction of `dataset`."""
        chosen = {name: other[name].transpose(*values.dims) for name, values in self.dataset.data_vars.items()}
        return xr.Dataset(chosen).isel({dim: slice(None, None, -1) for dim in self.turned})

    def back(self, found: xr.Dataset) -> xr.Dataset:
        """Bring what was found back to the direction of the file."""
        return found.isel({dim: slice(None, None, -1) for dim in self.turned if dim in found.dims})


def open_modalities(
    data: str | xr.Dataset, config: DataConfig, modalities: Mapping[str, ModalityConfig] | None = None
) -> Fields:
    """Open a dataset and tell its modalities.

    Args:
        data: Path, name of a sample, or dataset.
        config: Names of the variables.
        modalities: What is known of the modalities already; empty takes every variable that holds numbers over time.

    Raises:
        DataError: No time axis, one that is unsorted, a variable that is neither field nor series, or series on
            different places in one modality.
        UnknownNameError: A variable that is not there.
    """
    if isinstance(data, str) and not data:
        raise DataError("no data: give a file, a folder or the name of a sample (see `gridloom data list`)")
    dataset = open_grid(data)
    time = time_dim(dataset)
    if time is None:
        raise DataError(
            f"expected a dimension of time (datetimes, or the name time), got {', '.join(map(str, dataset.dims))}; "
            f"add one with data.expand_dims('time')"
        )
    check_time_axis(dataset, time)
    static = _static(dataset, config, time)
    if not modalities:
        named = [name for name in numeric_variables(dataset, config.variables) if time in dataset[name].dims]
        modalities = {name: ModalityConfig(variables=(name,)) for name in named}
    if not modalities:
        raise DataError(f"no variable holds numbers over the dimension {time!r}; choose with --data.variables")
    chosen: dict[str, xr.DataArray] = {}
    told = {}
    for name, modality in modalities.items():
        for variable in modality.variables or (name,):
            numeric_variables(dataset, (variable,))
            chosen[variable] = _ordered(dataset[variable], dataset, time)
        told[name] = _told(name, modality, chosen)
    ordered = xr.Dataset(chosen, attrs=dataset.attrs)
    turned = tuple(str(dim) for dim in ordered.dims if is_latitude(ordered, str(dim)) and _falls(ordered, str(dim)))
    ordered = ordered.isel({dim: slice(None, None, -1) for dim in turned})
    return Fields(ordered, time, told, static, turned)


def _ordered(values: xr.DataArray, dataset: xr.Dataset, time: str) -> xr.DataArray:
    """Bring images to (time, y, x) and series to (place, time)."""
    if time not in values.dims:
        raise DataError(f"variable {values.name!r}: expected the dimension {time!r}, got {values.dims}")
    others = [str(dim) for dim in values.dims if dim != time]
    if len(others) == 1:
        return values.transpose(others[0], time)
    if len(others) != 2:
        raise DataError(
            f"variable {values.name!r}: expected (time, y, x) or (place, time), got {values.dims}; choose one level, "
            f"or leave it out with --data.variables"
        )
    if is_longitude(dataset, others[0]) and is_latitude(dataset, others[1]):
        others.reverse()
    return values.transpose(time, *others)


def _told(name: str, modality: ModalityConfig, chosen: Mapping[str, xr.DataArray]) -> ModalityConfig:
    variables = modality.variables or (name,)
    first = chosen[variables[0]]
    kind: Literal["image", "vector"] = "image" if first.ndim == 3 else "vector"
    if kind == "image" and len(variables) > 1:
        raise DataError(f"modality {name!r}: an image has one variable, got {', '.join(variables)}")
    for other in variables[1:]:
        if chosen[other].dims != first.dims:
            raise DataError(
                f"modality {name!r}: its variables must share their dimensions, {variables[0]!r} has {first.dims}, "
                f"{other!r} has {chosen[other].dims}"
            )
    size = (first.shape[1], first.shape[2]) if kind == "image" else (first.shape[0], 1)
    return replace(modality, kind=kind, variables=variables, size=size)


def _static(dataset: xr.Dataset, config: DataConfig, time: str) -> xr.Dataset | None:
    """Static attributes, one variable each."""
    name = config.static
    if not name:
        without = [str(n) for n, v in dataset.data_vars.items() if time not in v.dims and v.dtype.kind in "iuf"]
        places = {str(d) for v in dataset.data_vars.values() if time in v.dims and v.ndim == 2 for d in v.dims} - {time}
        fitting = [n for n in without if dataset[n].ndim == 2 and {str(d) for d in dataset[n].dims} & places]
        if len(fitting) != 1:
            return None
        name = fitting[0]
    if name not in dataset.data_vars:
        raise UnknownNameError("variable of static attributes", name, [str(n) for n in dataset.data_vars])
    values = dataset[name]
    if values.ndim not in (1, 2) or time in values.dims:
        raise DataError(f"static attributes {name!r}: expected (place, attribute) or (attribute), got {values.dims}")
    series = {str(d) for v in dataset.data_vars.values() if time in v.dims and v.ndim == 2 for d in v.dims}
    axis = next((dim for dim in values.dims if dim not in series), values.dims[-1])
    labels = values[axis].values if axis in values.coords else np.arange(values.sizes[axis])
    return xr.Dataset({f"{name}.{label}": values.isel({axis: place}, drop=True) for place, label in enumerate(labels)})


def _falls(dataset: xr.Dataset, dim: str) -> bool:
    values = dataset[dim].values
    return len(values) > 1 and bool(values[-1] < values[0])
