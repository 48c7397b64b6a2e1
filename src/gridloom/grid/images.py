"""Folders of images as a dataset."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from gridloom.core.errors import DataError

__all__ = ["SUFFIXES", "read_images"]

SUFFIXES = (".png", ".tif", ".tiff")
"""Endings of the files that count as images."""

_GRAY = ("1", "L", "I", "F", "I;16", "I;16B", "I;16L", "I;16N")


def _natural(path: Path) -> list[tuple[int, int, str]]:
    """Sort key by which frame2 comes before frame10."""
    parts = re.split(r"(\d+)", path.name.lower())
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts]


def read_images(folder: Path) -> xr.Dataset:
    """Read every PNG and TIFF of a folder, in natural order of their names; or a single one.

    Returns:
        `image`, float32 with the values of the files (0 to 255, 0 to 65535, or any float): (sample, y, x) for gray,
        (sample, channel, y, x) for RGB; the coordinate `sample` has the file names.

    Raises:
        DataError: No image, one that cannot be read, or one whose size or mode differs from the first.
    """
    found = [folder] if folder.is_file() else [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES]
    paths = sorted(found, key=_natural)
    if not paths:
        raise DataError(f"{folder}: expected images ({', '.join(SUFFIXES)}) or a zarr store, there are none")
    first = _read_image(paths[0])
    images = np.empty((len(paths), *first.shape), dtype=np.float32)
    for index, path in enumerate(paths):
        image = _read_image(path)
        if image.shape != first.shape:
            raise DataError(
                f"{path}: images must agree in size and channels, this one is {_describe(image)}, "
                f"{paths[0].name} is {_describe(first)}; crop or resize them first"
            )
        images[index] = image
    dims = ("sample", "y", "x") if first.ndim == 2 else ("sample", "channel", "y", "x")
    return xr.Dataset({"image": (dims, images)}, coords={"sample": np.array([path.name for path in paths])})


def _describe(image: np.ndarray) -> str:
    return f"{image.shape[-2]} x {image.shape[-1]} {'gray' if image.ndim == 2 else 'RGB'}"


def _read_image(path: Path) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(path) as image:
            mode: Any = image.mode
            values = np.asarray(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be read as an image ({str(error)[:200]})") from None
    if mode in _GRAY:
        return values.astype(np.float32)
    if mode == "RGB":
        return np.moveaxis(values, -1, 0).astype(np.float32)
    raise DataError(f"{path}: expected a gray or RGB image, got mode {mode}; convert it first (drop alpha or palette)")
