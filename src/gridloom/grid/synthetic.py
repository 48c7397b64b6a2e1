"""A made-up grid that is never the same twice and always known: for tests and examples."""

import numpy as np
import xarray as xr

from gridloom.core.errors import DataError

__all__ = ["waves"]

_NUM_MODES = 12


def waves(*, num_times: int = 48, height: int = 32, width: int = 32, missing: float = 0.2, seed: int = 0) -> xr.Dataset:
    """Make two smooth fields that drift over a map, with cells missing under blobs as under clouds.

    `salinity` is half made of what `temperature` is, so that one helps to fill the other. The blobs drift too, and
    differ between the two.

    Args:
        num_times: Days.
        height: Cells of latitude.
        width: Cells of longitude.
        missing: Share of missing cells, 0 to below 1; met in each frame to one cell.
        seed: Other seeds give other fields.

    Returns:
        `temperature` (degree_Celsius) and `salinity` (1e-3), float32, on time, latitude and longitude.
    """
    if not 0 <= missing < 1:
        raise DataError(f"missing: expected a share from 0 to below 1, got {missing}")
    shape = (num_times, height, width)
    generator = np.random.default_rng(seed)
    first, second = (_field(generator, shape, smallest=1, largest=4) for _ in range(2))
    fields = {"temperature": 15 + 3 * first, "salinity": 35 + 0.5 * (first + second) / np.sqrt(2)}
    units = {"temperature": "degree_Celsius", "salinity": "1e-3"}
    variables = {}
    for name, values in fields.items():
        hidden = _clouds(_field(generator, shape, smallest=2, largest=5), missing)
        values = np.where(hidden, np.nan, values).astype(np.float32)
        variables[name] = (("time", "latitude", "longitude"), values, {"units": units[name]})
    coordinates = {
        "time": np.datetime64("2001-01-01", "ns") + np.arange(num_times) * np.timedelta64(1, "D"),
        "latitude": ("latitude", 30 + 0.25 * np.arange(height), {"units": "degrees_north"}),
        "longitude": ("longitude", -20 + 0.25 * np.arange(width), {"units": "degrees_east"}),
    }
    return xr.Dataset(variables, coords=coordinates, attrs={"title": "Drifting waves", "source": f"seed {seed}"})


def _field(generator: np.random.Generator, shape: tuple[int, int, int], smallest: int, largest: int) -> np.ndarray:
    """Sum of traveling plane waves with zero mean and unit variance: wavenumbers per map, drift in maps per day."""
    times, rows, columns = (np.arange(size) for size in shape)
    field = np.zeros(shape)
    for _ in range(_NUM_MODES):
        length = generator.uniform(smallest, largest)
        angle, phase = generator.uniform(0, 2 * np.pi, size=2)
        rate = generator.normal(0, 0.02) * length
        place = length * (np.sin(angle) * rows[:, None] / shape[1] + np.cos(angle) * columns[None, :] / shape[2])
        field += np.cos(2 * np.pi * (place[None] - rate * times[:, None, None]) + phase) / length
    return np.asarray((field - field.mean()) / field.std())


def _clouds(field: np.ndarray, share: float) -> np.ndarray:
    """Hide the highest share of each frame."""
    frames = field.reshape(len(field), -1)
    count = round(share * frames.shape[1])
    hidden = np.zeros(frames.shape, dtype=bool)
    highest = np.argsort(frames, axis=1, kind="stable")[:, frames.shape[1] - count :]
    np.put_along_axis(hidden, highest, True, axis=1)
    return hidden.reshape(field.shape)
