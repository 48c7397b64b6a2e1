"""What the baselines share: going through the variables that are asked, and last resorts for cells without data."""

from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr

from gridloom.core.errors import DataError

__all__ = ["answer_each", "fill_rest", "global_means", "mean_over", "require_dims"]


def answer_each(wanted: xr.Dataset, answer: Callable[[str], xr.DataArray]) -> xr.Dataset:
    """Make a dataset of answers like `wanted`: its variables, dimensions and coordinates, in float64.

    Args:
        wanted: What is asked.
        answer: Gives the answer to the variable of this name; dimensions in any order, and where it lacks one the
            answer is the same all along.
    """
    variables = {}
    for name, asked in wanted.data_vars.items():
        found = answer(str(name))
        for dim in found.dims:
            if found.sizes[dim] != asked.sizes.get(dim):
                raise DataError(
                    f"{name!r}: expected {found.sizes[dim]} cells along {dim!r} as in the history, "
                    f"got {asked.sizes.get(dim, 'no such dimension')}"
                )
        missing = {dim: size for dim, size in asked.sizes.items() if dim not in found.dims}
        values = found.reset_coords(drop=True).drop_indexes(list(found.indexes)).expand_dims(missing)
        ordered = values.transpose(*asked.dims).values
        variables[name] = (asked.dims, np.array(ordered, dtype=np.float64), dict(found.attrs))
    return xr.Dataset(variables, coords=wanted.coords)


def require_dims(dataset: xr.Dataset, name: str, dims: Sequence[str], what: str) -> xr.DataArray:
    """Return a variable, or say that it is not there or lacks a dimension."""
    if name not in dataset:
        raise DataError(f"{what}: expected variable {name!r}, got {sorted(map(str, dataset.data_vars))}")
    for dim in dims:
        if dim not in dataset[name].dims:
            raise DataError(f"{what}: expected {name!r} to have the dimension {dim!r}, got {dataset[name].dims}")
    return dataset[name]


def global_means(dataset: xr.Dataset) -> dict[str, float]:
    """Mean of the known cells of each variable, 0 where there is none: the last resort."""
    means = {}
    for name, values in dataset.data_vars.items():
        known = values.values[np.isfinite(values.values)]
        means[str(name)] = float(known.mean(dtype=np.float64)) if known.size else 0.0
    return means


def mean_over(values: xr.DataArray, dims: Sequence[str]) -> xr.DataArray:
    """Mean of the known cells over some dimensions in float64; NaN where there is none."""
    finite = values.where(np.isfinite(values.values)).astype(np.float64)
    count = finite.count(dims)
    return (finite.sum(dims) / count.where(count > 0)).assign_attrs(values.attrs)


def fill_rest(values: np.ndarray, *resorts: np.ndarray | float) -> np.ndarray:
    """Fill cells that are NaN from the first resort that knows them."""
    for resort in resorts:
        values = np.where(np.isnan(values), resort, values)
    return values
