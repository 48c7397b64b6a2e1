"""Reading: whatever holds a grid becomes an `xarray.Dataset`."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import xarray as xr

from gridloom.core.errors import DataError, did_you_mean
from gridloom.grid.arrays import read_npy, read_npz
from gridloom.grid.axes import check_timezone, numeric_variables
from gridloom.grid.images import SUFFIXES as IMAGES
from gridloom.grid.images import read_images
from gridloom.grid.samples import SAMPLES, open_sample
from gridloom.grid.video import SUFFIXES as VIDEOS
from gridloom.grid.video import read_video
from gridloom.grid.write import save_grid

__all__ = ["open_grid", "save_grid"]

_NETCDF = (".nc", ".nc4", ".cdf")
_HDF5 = (".h5", ".hdf5")
_TABLES = (".csv", ".tsv", ".parquet")
_READERS: Mapping[str, Callable[[Path], xr.Dataset]] = MappingProxyType(
    {".npz": read_npz, ".npy": read_npy} | dict.fromkeys(IMAGES, read_images) | dict.fromkeys(VIDEOS, read_video)
)


def open_grid(source: str | Path | xr.Dataset, *, variables: Sequence[str] = ()) -> xr.Dataset:
    """Open a grid.

    Taken are netCDF (`.nc`, `.nc4`, `.cdf`), zarr folders, HDF5 (`.h5`, `.hdf5`), numpy files (`.npz`, `.npy`), an
    image or a folder of them, videos (`.mp4`, `.avi`, `.mkv`, `.mov`, `.webm`), the name of a sample
    (`samples.SAMPLES`), a dataset, and whatever else an installed engine of xarray reads. CF packing and times are
    decoded; numbers come in the machine's own byte order. Arrays stay on disk until they are used, where the format can
    do that. Orientation and order are left as they are.

    Args:
        source: Path, name of a sample, or a dataset.
        variables: Variables to keep; all if none is named.

    Raises:
        DataError: Nothing there, nothing that can be read, Python objects, or times with a time zone.
        UnknownNameError: A variable that is not there; the message names the nearest.
    """
    dataset = source if isinstance(source, xr.Dataset) else _open(source)
    for name, coordinate in dataset.coords.items():
        check_timezone(str(name), coordinate)
    if variables:
        dataset = dataset[list(numeric_variables(dataset, variables))]
    return _native(dataset)


def _native(dataset: xr.Dataset) -> xr.Dataset:
    """Turn foreign byte order into the machine's own; torch cannot take any other."""
    foreign = {
        name: variable.astype(variable.dtype.newbyteorder("="))
        for name, variable in dataset.variables.items()
        if isinstance(variable.dtype, np.dtype) and not variable.dtype.isnative
    }
    return dataset.assign({name: (item.dims, item.data, item.attrs) for name, item in foreign.items()})


def _open(source: str | Path) -> xr.Dataset:
    path = Path(source)
    if not path.exists():
        if isinstance(source, str) and source in SAMPLES:
            return open_sample(source)
        raise DataError(
            f"{source}: no such file or folder, and no sample of this name{did_you_mean(str(source), SAMPLES)} "
            f"(samples: {', '.join(SAMPLES)})"
        )
    if path.is_dir():
        is_store = path.suffix == ".zarr" or any((path / name).exists() for name in ("zarr.json", ".zgroup"))
        return _read_zarr(path) if is_store else read_images(path)
    suffix = path.suffix.lower()
    if suffix in _READERS:
        return _READERS[suffix](path)
    if suffix in _HDF5:
        return _decoded(path, engine="h5netcdf", phony_dims="sort")
    if suffix in _TABLES or path.name.lower().endswith((".csv.gz", ".tsv.gz")):
        raise DataError(f"{path}: a table, not a grid; events become frames with gridloom rasterize")
    if suffix in _NETCDF:
        return _decoded(path, engine="scipy" if _is_classic(path) else "h5netcdf")
    return _decoded(path)


def _read_zarr(path: Path) -> xr.Dataset:
    """Read variables in the order of their names: a folder lists them as its file system does, each in its own way."""
    # consolidated metadata is a copy that can be stale; a local folder does not need it
    stored = _decoded(path, engine="zarr", chunks=None, consolidated=False)
    variables = {name: stored[name] for name in sorted(stored.data_vars, key=str)}
    return xr.Dataset(variables, coords=stored.coords, attrs=stored.attrs)


def _is_classic(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(3) == b"CDF"


def _decoded(path: Path, **options: Any) -> xr.Dataset:
    try:
        return xr.open_dataset(path, **options)
    except Exception as error:  # every engine raises its own
        if "cftime" in str(error):
            return _without_times(path, options)
        engine = options.get("engine", "any format known here")
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"{path}: cannot be read as {engine} ({reason})") from None


def _without_times(path: Path, options: dict[str, Any]) -> xr.Dataset:
    """Leave times as numbers: windows and gaps work with them, only the names of the days are not known."""
    warnings.warn(
        f"{path}: its calendar needs the package cftime, which is not installed; times stay numbers", stacklevel=4
    )
    return xr.open_dataset(path, decode_times=False, **options)
