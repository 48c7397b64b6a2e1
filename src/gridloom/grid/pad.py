"""Fields that are a little smaller than a window: missing cells around them."""

import logging
from collections.abc import Mapping

import numpy as np
import xarray as xr

__all__ = ["fits_window", "pad_to_windows"]

_LOGGER = logging.getLogger(__name__)


def fits_window(cells: int, size: int) -> bool:
    """Whether more than half of a window can be filled from so many cells."""
    return 2 * cells > size


def pad_to_windows(dataset: xr.Dataset, sizes: Mapping[str, int]) -> xr.Dataset:
    """Put missing cells on both sides of dimensions that are smaller than the window.

    Left as they are: dimensions of half the window or less (most of it would be missing), and those whose coordinate
    is not made of numbers.

    Args:
        dataset: Its data variables come out as floating point where a dimension is padded.
        sizes: Cells of a window along the dimensions that may be padded.

    Returns:
        The dataset, its coordinates going on at both ends with the step that they have there.
    """
    widths = {}
    for dim, size in sizes.items():
        cells = dataset.sizes[dim]
        known = dim not in dataset.coords or (dataset[dim].dtype.kind in "iuf" and cells > 1)
        if cells < size and fits_window(cells, size) and known:
            before = (size - cells) // 2
            widths[dim] = (before, size - cells - before)
            _LOGGER.info("%s: %d cells, padded with missing ones to the window of %d", dim, cells, size)
    if not widths:
        return dataset
    padded = dataset.pad(widths)
    return padded.assign_coords(
        {
            dim: (dim, _continued(dataset[dim].values, *width), dataset[dim].attrs)
            for dim, width in widths.items()
            if dim in dataset.coords
        }
    )


def _continued(values: np.ndarray, before: int, after: int) -> np.ndarray:
    values = values.astype(np.float64)
    first, last = values[1] - values[0], values[-1] - values[-2]
    return np.concatenate(
        [values[0] - first * np.arange(before, 0, -1), values, values[-1] + last * np.arange(1, after + 1)]
    )
