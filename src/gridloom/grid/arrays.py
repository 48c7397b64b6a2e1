"""Numpy files as a dataset: dimensions are guessed from the number of axes, never from code in the file."""

from pathlib import Path

import numpy as np
import xarray as xr

from gridloom.core.errors import DataError

__all__ = ["read_npy", "read_npz"]

_DIMS: dict[int, tuple[str, ...]] = {
    0: (),
    2: ("y", "x"),
    3: ("time", "y", "x"),
    4: ("time", "channel", "y", "x"),
}


def read_npy(path: Path) -> xr.Dataset:
    """Read an array file as the variable `values`.

    Raises:
        DataError: Not a numpy file, or one with Python objects.
    """
    return _dataset(path, _load(path, "values"))


def read_npz(path: Path) -> xr.Dataset:
    """Read an archive of arrays, each as a variable.

    Two axes are (y, x), three (time, y, x), four (time, channel, y, x). One axis is time if its length fits, or the
    dimension of its name, else a dimension of its own.

    Raises:
        DataError: Not a numpy file, one with Python objects, or arrays that do not fit together.
    """
    return _dataset(path, _load(path, path.stem))


def _load(path: Path, name: str) -> dict[str, np.ndarray]:
    """Read all arrays of a file; `name` is for the one of a file that holds a single array."""
    try:
        with path.open("rb") as file:  # numpy leaves a file that it opened itself open if it is damaged
            content = np.load(file, allow_pickle=False)
            return {name: content} if isinstance(content, np.ndarray) else {key: content[key] for key in content.files}
    except Exception as error:  # a damaged archive raises what zipfile, zlib and numpy each like
        raise _refuse(path, error) from None


def _refuse(path: Path, error: Exception) -> DataError:
    if "allow_pickle" in str(error) or "pickle" in str(error).lower():
        return DataError(
            f"{path}: holds Python objects, or is no numpy file; reading objects would run code and is refused: save "
            f"plain numbers"
        )
    return DataError(f"{path}: cannot be read as a numpy file ({' '.join(str(error).split())[:200]})")


def _dataset(path: Path, arrays: dict[str, np.ndarray]) -> xr.Dataset:
    sizes: dict[str, int] = {}
    variables = {}
    for name, values in sorted(arrays.items(), key=lambda item: -item[1].ndim):
        if values.dtype.kind not in "biufmMU":
            raise DataError(f"{path}: array {name!r} must hold numbers, times or text, got {values.dtype}")
        if values.ndim == 1:
            dims: tuple[str, ...] = _dims_of_vector(name, len(values), sizes)
        elif values.ndim in _DIMS:
            dims = _DIMS[values.ndim]
        else:
            raise DataError(f"{path}: array {name!r} has {values.ndim} axes, at most 4 are understood")
        for dim, size in zip(dims, values.shape, strict=True):
            if sizes.setdefault(dim, size) != size:
                raise DataError(
                    f"{path}: array {name!r} {values.shape} has {size} cells along {dim!r}, others have {sizes[dim]}; "
                    f"save arrays of one size per file"
                )
        variables[name] = (dims, values.astype(values.dtype.newbyteorder("=")))
    for name, (dims, _) in variables.items():
        if name in sizes and dims != (name,):
            raise DataError(f"{path}: array {name!r} has the name of a dimension; save it under another name")
    return xr.Dataset({name: variables[name] for name in arrays})


def _dims_of_vector(name: str, length: int, sizes: dict[str, int]) -> tuple[str]:
    if sizes.get(name) == length:
        return (name,)
    leading = next((dim for dim in sizes if dim != "channel"), None)
    if leading is not None and sizes[leading] == length and name not in sizes:
        return (leading,)
    return (f"index_{name}",)
