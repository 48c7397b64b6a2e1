"""locate: where something is in images, in the data's own coordinates, with how certain that is."""

import csv
import io
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import xarray as xr

from gridloom.core.atomic import write_text
from gridloom.core.errors import DataError
from gridloom.encoders.artifact import load_model
from gridloom.grid.axes import numeric_variables
from gridloom.grid.prepare import open_fields
from gridloom.grid.read import open_grid
from gridloom.grid.windows import Windows, cut_windows
from gridloom.grid.write import save_grid
from gridloom.systems.energy.config import EnergyConfig
from gridloom.systems.energy.data import CELLS, IMAGE, from_unit, unit_of
from gridloom.systems.energy.locate import Located, Locator

__all__ = ["locate"]

_LOGGER = logging.getLogger(__name__)


def locate(
    model: Path | str,
    images: str | Path | xr.Dataset,
    *,
    output: Path | str | None = None,
    stride: tuple[int, int] | None = None,
    replace: bool = False,
) -> xr.Dataset:
    """Locate in images, or in every window of a gridded field.

    Args:
        model: Run folder or artifact of an energy system.
        images: What `gridloom.grid.read.open_grid` reads: a folder of images or one image, an array, a dataset with a
            variable `image`; for a model of the task `extreme` the gridded field, which is cut into windows.
        output: `.nc`, `.zarr` or `.csv`; None writes nothing.
        stride: Cells between windows of a field, down and across; the window's size if not given.
        replace: Overwrite an existing output.

    Returns:
        For each sample: `position` in the coordinates' own units (`coordinate` names them: row and column in cells,
        or the field's latitude and longitude), `energy` (low is good), `spread` (standard deviation of exp(-E), per
        coordinate, NaN where it is not known), `second` and `second_energy` (the next minimum if its energy is within
        5 of the first, else NaN).

    Raises:
        DataError: The model is none of system energy, images that do not fit, or an output that exists.
    """
    if output is not None and Path(output).exists() and not replace:
        raise DataError(f"{output} exists already; choose another --output, or pass --replace")
    artifact, trained = load_model(model)
    if artifact.system.name != "energy":
        raise DataError(f"{artifact.path}: locate needs a model of system energy, this one is {artifact.system.name}")
    locator = Locator(trained)
    config: EnergyConfig = trained.config
    is_field = config.data.task == "extreme"
    found = _in_field(locator, images, stride) if is_field else _in_images(locator, images)
    found.attrs |= {"system": "energy", "model": str(artifact.path), "task": config.data.task}
    if output is not None:
        _write(found, Path(output), replace)
    return found


def _in_images(locator: Locator, images: str | Path | xr.Dataset) -> xr.Dataset:
    dataset = open_grid(images)
    names = [IMAGE] if IMAGE in dataset.data_vars else list(numeric_variables(dataset))
    if len(names) != 1:
        raise DataError(f"{images}: expected a variable `{IMAGE}` or a single one, got {', '.join(names)}")
    variable = dataset[names[0]]
    data = locator.config.data
    axes = 2 if data.is_signal else 4
    values = variable.values.astype(np.float32)
    if values.ndim == axes - 1:  # one sample, or images of one channel
        values = values[:, None] if axes == 4 and len(locator.normalizer.variables) == 1 else values[None]
    if values.ndim == 4 and np.nanmax(values, initial=0) <= 1.0 and data.task in ("dot", "two_dots"):
        _LOGGER.warning("all values are 1 or below: this model was trained on images from 0 to 255")
    located = locator.locate(values)
    bounds = data.bounds
    if data.coordinates == CELLS and bounds == tuple((0.0, float(size - 1)) for size in data.size):
        # What was learnt of whole images holds for images of another size.
        bounds = tuple((0.0, float(size - 1)) for size in values.shape[2:])
    low, high = np.asarray(bounds).T
    best, second = (from_unit(place.cpu().numpy(), bounds) for place in (located.best, located.second))
    spread = located.spread.cpu().numpy() * (high - low) / 2
    first = variable.dims[0] if len(variable.dims) == values.ndim else None
    label = {"sample": dataset[first].values} if first in dataset.coords else {}
    return _dataset(located, best, second, spread, data.coordinates, unit_of(data), label)


def _in_field(locator: Locator, field: str | Path | xr.Dataset, stride: tuple[int, int] | None) -> xr.Dataset:
    """Windows of a field; positions in its own coordinates."""
    data = locator.config.data
    dataset = open_fields(open_grid(field), data.variables)
    name = data.variables[0]
    dims = [str(dim) for dim in dataset[name].dims[-2:]]
    sizes = dict(zip(dims, data.size, strict=True))
    strides = sizes if stride is None else dict(zip(dims, stride, strict=True))
    windows = cut_windows(dataset, sizes=sizes, strides=strides, cover=True)
    boxes = [dataset[name].isel(windows.slices(index)).values.reshape(data.size) for index in range(len(windows))]
    located = locator.locate(np.stack(boxes)[:, None].astype(np.float32))
    best, second = (from_unit(place.cpu().numpy(), data.bounds) for place in (located.best, located.second))
    first = windows.first(np.arange(len(windows)))
    axes = [_axis(dataset, dim) for dim in dims]
    low, high = np.asarray(data.bounds).T
    spread = located.spread.cpu().numpy() * (high - low) / 2
    for place, (dim, axis) in enumerate(zip(dims, axes, strict=True)):
        step = float(np.abs(np.diff(axis)).mean()) if len(axis) > 1 else 1.0
        spread[:, place] *= step
        for positions in (best, second):
            positions[:, place] = np.interp(first[dim] + positions[:, place], np.arange(len(axis)), axis)
    units = {str(dataset[dim].attrs.get("units", "")) for dim in dims if dim in dataset.coords} - {""}
    return _dataset(
        located, best, second, spread, dims, " / ".join(sorted(units)) or "cell", _leading(dataset, windows, dims)
    )


def _axis(dataset: xr.Dataset, dim: str) -> np.ndarray:
    """Coordinate of each cell; its number where there is none."""
    if dim in dataset.coords and dataset[dim].dtype.kind in "iuf":
        return np.asarray(dataset[dim].values, dtype=np.float64)
    return np.arange(dataset.sizes[dim], dtype=np.float64)


def _leading(dataset: xr.Dataset, windows: Windows, dims: list[str]) -> dict[str, np.ndarray]:
    """Where each window lies along the dimensions before rows and columns (time)."""
    centers = windows.centers(dataset, np.arange(len(windows)))
    return {f"window_{dim}": values for dim, values in centers.items() if dim not in dims}


def _dataset(
    located: Located,
    best: np.ndarray,
    second: np.ndarray,
    spread: np.ndarray,
    names: tuple[str, ...] | list[str],
    unit: str,
    labels: Mapping[str, np.ndarray],
) -> xr.Dataset:
    dims = ("sample", "coordinate")
    return xr.Dataset(
        {
            "position": (dims, best, {"units": unit, "long_name": "lowest energy"}),
            "energy": ("sample", located.energy.cpu().numpy(), {"units": "1", "long_name": "energy, low is good"}),
            "spread": (dims, spread, {"units": unit, "long_name": "standard deviation of exp(-E)"}),
            "second": (dims, second, {"units": unit, "long_name": "second minimum"}),
            "second_energy": ("sample", located.second_energy.cpu().numpy(), {"units": "1"}),
        },
        coords={"coordinate": list(names), **{name: ("sample", values) for name, values in labels.items()}},
    )


def _write(found: xr.Dataset, path: Path, replace: bool) -> None:
    if path.suffix != ".csv":
        save_grid(found, path, replace=replace)
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [str(name) for name in found["coordinate"].values]
    labels = [str(name) for name in found.coords if found[name].dims == ("sample",)]
    kinds = ("position", "spread", "second")
    columns = [name if kind == "position" else f"{kind}_{name}" for kind in kinds for name in names]
    writer.writerow([*(labels or ["sample"]), *columns, "energy", "second_energy"])
    for row in range(found.sizes["sample"]):
        lead = [found[name].values[row] for name in labels] or [row]
        numbers = [float(value) for kind in kinds for value in found[kind].values[row]]
        writer.writerow([*lead, *numbers, float(found["energy"][row]), float(found["second_energy"][row])])
    write_text(path, text.getvalue())
