"""Frames without their zeros: of a minute's 2,048 cells a few dozen hold trades."""

import json

import numpy as np
import xarray as xr

from gridloom.core.errors import DataError

__all__ = ["is_sparse", "sparse_variables", "to_dense", "to_sparse"]

_RECORD = "sparse"


def is_sparse(dataset: xr.Dataset) -> bool:
    """Whether a dataset holds its counts as cells and counts."""
    return _RECORD in dataset.attrs and "cell" in dataset and "count" in dataset


def sparse_variables(
    cells: np.ndarray, counts: np.ndarray, *, dims: tuple[str, ...], shape: tuple[int, ...]
) -> tuple[dict[str, tuple], dict[str, str]]:
    """Return the variables and the attribute that stand for dense counts.

    Args:
        cells: Index of each cell that is not zero into the flattened dense array, rising.
        counts: Of these cells, in the type of the dense array.
        dims: Of the dense array.
        shape: Of the dense array.
    """
    record = {"variable": "counts", "dims": list(dims), "shape": list(shape), "dtype": str(counts.dtype)}
    variables = {
        "cell": ("entry", cells, {"long_name": "index into the flattened counts"}),
        "count": ("entry", counts, {"long_name": "count of the cell"}),
    }
    return variables, {_RECORD: json.dumps(record)}


def to_sparse(dataset: xr.Dataset) -> xr.Dataset:
    """Return frames with `cell` and `count` (entry) in place of `counts`; `to_dense` gives the same back."""
    counts = dataset["counts"]
    flat = counts.values.ravel()
    cells = np.flatnonzero(flat)
    dims = tuple(str(dim) for dim in counts.dims)
    variables, record = sparse_variables(cells, flat[cells], dims=dims, shape=counts.shape)
    variables["count"][2].update({name: value for name, value in counts.attrs.items() if name != "long_name"})
    variables["count"][2]["dense_long_name"] = counts.attrs.get("long_name", "")
    return dataset.drop_vars("counts").assign(variables).assign_attrs(record)


def to_dense(dataset: xr.Dataset) -> xr.Dataset:
    """Return frames with `counts` in place of `cell` and `count`; what is not sparse comes back as it is.

    Raises:
        DataError: Cells that do not belong to the shape.
    """
    if "cell" not in dataset or "count" not in dataset:
        return dataset
    try:
        record = json.loads(dataset.attrs[_RECORD])
        dims, shape = tuple(record["dims"]), tuple(int(size) for size in record["shape"])
        kind = np.dtype(record["dtype"])
    except (KeyError, ValueError, TypeError) as error:
        raise DataError(f"not sparse frames: the attribute {_RECORD!r} cannot be read ({error})") from None
    cells, counts = dataset["cell"].values, dataset["count"].values
    size = int(np.prod(shape))
    if cells.size and (cells.min() < 0 or cells.max() >= size):
        raise DataError(f"cell: expected indices below {size}, got {cells.min()} to {cells.max()}; the file is damaged")
    flat = np.zeros(size, dtype=kind)
    flat[cells] = counts
    attrs = dict(dataset["count"].attrs)
    attrs["long_name"] = attrs.pop("dense_long_name", "events per cell")
    kept = dataset.drop_vars(["cell", "count"])
    del kept.attrs[_RECORD]
    return xr.Dataset({"counts": (dims, flat.reshape(shape), attrs), **kept.data_vars}, kept.coords, kept.attrs)
