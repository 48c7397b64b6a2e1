"""Writing a dataset: all or nothing, with an encoding of its own."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from gridloom.core.atomic import new_file, new_folder
from gridloom.core.errors import DataError
from gridloom.grid.axes import check_timezone

__all__ = ["save_grid"]


def save_grid(
    dataset: xr.Dataset, path: str | Path, *, attrs: Mapping[str, Any] | None = None, replace: bool = False
) -> None:
    """Write a dataset to netCDF (`.nc`) or zarr (`.zarr`). A reader sees the old content or the new, never a part.

    How the data was packed where it came from is forgotten: int16 with a scale would wrap around on new values. Numbers
    are compressed without loss, each chunk with a checksum, so that damage shows when it is read.

    Args:
        dataset: What to write.
        path: Where to; its folder is made if need be.
        attrs: Attributes of the dataset to add.
        replace: Take the place of what is there; otherwise that is an error.

    Raises:
        DataError: An ending that is not known, a place that is taken, Python objects, times with a time zone, or
            attributes that the format cannot hold.
    """
    path = Path(path)
    if path.suffix not in (".nc", ".zarr"):
        raise DataError(f"{path}: expected a name that ends in .nc or .zarr, got {path.suffix or 'no ending'!r}")
    if path.exists() and not replace:
        raise DataError(f"{path} exists already; choose another output, or remove it first")
    fresh = _fresh(dataset).assign_attrs(attrs or {})
    try:
        if path.suffix == ".zarr":
            _save_zarr(fresh, path)
        else:
            _save_netcdf(fresh, path)
    except (TypeError, ValueError, KeyError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: cannot be written ({' '.join(str(error).split())[:300]})") from None


def _is_plain_object(values: np.ndarray) -> bool:
    """Whether an object array holds what the formats know: text, or dates of a calendar."""
    return all(isinstance(value, str) or hasattr(value, "calendar") for value in values.flat)


def _fresh(dataset: xr.Dataset) -> xr.Dataset:
    for name, coordinate in dataset.coords.items():
        check_timezone(str(name), coordinate)
    for name, variable in dataset.variables.items():
        if variable.dtype == object and not _is_plain_object(variable.values):
            raise DataError(f"variable {name!r}: Python objects cannot be written; turn it into numbers or text first")
    return dataset.drop_encoding()


def _packable(dataset: xr.Dataset) -> list[str]:
    return [
        str(name)
        for name, variable in dataset.variables.items()
        if isinstance(variable.dtype, np.dtype) and variable.dtype.kind in "biuf" and variable.size and variable.ndim
    ]


def _save_zarr(dataset: xr.Dataset, path: Path) -> None:
    from zarr.codecs import ZstdCodec

    # text of fixed width has no place in zarr v3 yet; text of any width has
    text = {name: item.astype(object) for name, item in dataset.variables.items() if item.dtype.kind == "U"}
    dataset = dataset.assign({name: (item.dims, item.data, item.attrs) for name, item in text.items()})
    compressors = (ZstdCodec(level=3, checksum=True),)
    with new_folder(path, manifest=False, replace=True) as folder:
        encoding = {name: {"compressors": compressors} for name in _packable(dataset)}
        with warnings.catch_warnings():
            # xarray looks for consolidated metadata and warns where there is none; zarr warns that they are not in the
            # specification of format 3. Every reader of today knows them.
            warnings.filterwarnings("ignore", "Consolidated metadata is currently not part", UserWarning)
            dataset.to_zarr(folder, mode="w", consolidated=True, encoding=encoding)


def _save_netcdf(dataset: xr.Dataset, path: Path) -> None:
    packing = {"zlib": True, "complevel": 1, "shuffle": True, "fletcher32": True}
    with new_file(path) as temporary:
        dataset.to_netcdf(temporary, engine="h5netcdf", encoding=dict.fromkeys(_packable(dataset), packing))
