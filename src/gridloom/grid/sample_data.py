"""Reading the samples: files of this package and of others that are installed. Nothing is downloaded."""

from importlib import resources
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import xarray as xr

from gridloom.core.errors import DataError

__all__ = [
    "installed_file",
    "read_digits",
    "read_disparity",
    "read_faces",
    "read_ostia",
    "read_own",
    "read_scenario",
    "read_scenarios",
    "read_textures",
    "read_winters",
]

_DAYS_PER_MONTH = 30
_TEXTURES = ("brick", "grass", "gravel")
_NUM_FACES = 100


def read_own(file: str) -> xr.Dataset:
    """Read a netCDF file that is part of this package."""
    with resources.as_file(resources.files("gridloom.grid") / "data" / file) as path:
        return xr.load_dataset(path, engine="h5netcdf")


def read_digits() -> xr.Dataset:
    """Handwritten digits, each 8x8 pixel repeated to 4x4: 32x32, values 0 to 16.

    The order of the file is kept: digits of one writer stand together in it, so that contiguous blocks keep the
    writers apart. Shuffled, the same writers would be in training and test.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.asarray(digits.images, dtype=np.float32).repeat(4, axis=1).repeat(4, axis=2)
    attributes = {"units": "1", "long_name": "ink, 0 to 16"}
    return xr.Dataset(
        {"image": (("sample", "y", "x"), images, attributes)},
        coords={"digit": ("sample", np.asarray(digits.target, dtype=np.int64), {"long_name": "digit written"})},
        attrs={"title": "Optical recognition of handwritten digits", "source": "scikit-learn load_digits (UCI)"},
    )


def read_disparity() -> xr.Dataset:
    """Disparity of a stereo pair: large is near; NaN where the ground truth is not known."""
    with np.load(_scikit_image("motorcycle_disp.npz")) as file:
        disparity = file["arr_0"].astype(np.float32)
    disparity[~np.isfinite(disparity)] = np.nan
    attributes = {"units": "pixel", "long_name": "offset between left and right image"}
    return xr.Dataset(
        {"disparity": (("y", "x"), disparity, attributes)},
        attrs={"title": "Stereo disparity of a motorcycle", "source": "Middlebury 2014, Scharstein et al., GCPR 2014"},
    )


def read_textures() -> xr.Dataset:
    """Three photographs of surfaces, 0 to 255, told apart by the coordinate `texture`.

    There is one picture of each, so that a split has to be in space, and is by default: along `x`.
    """
    from PIL import Image

    pictures = []
    for name in _TEXTURES:
        with Image.open(_scikit_image(f"{name}.png")) as picture:
            pictures.append(np.asarray(picture, dtype=np.float32))
    attributes = {"units": "1", "long_name": "gray, 0 to 255"}
    return xr.Dataset(
        {"image": (("texture", "y", "x"), np.stack(pictures), attributes)},
        coords={"texture": ("texture", list(_TEXTURES), {"long_name": "surface"})},
        attrs={"title": "Textures: brick, grass, gravel", "source": "scikit-image brick, grass and gravel"},
    )


def read_faces() -> xr.Dataset:
    """Small gray pictures, half of them faces, half cut from the background; coordinate `face`, 1 or 0.

    In the file all faces come first. Here they take turns, so that every contiguous block holds both.
    """
    pictures = np.load(_scikit_image("lfw_subset.npy")).astype(np.float32)
    order = np.arange(len(pictures)).reshape(2, _NUM_FACES).T.reshape(-1)
    attributes = {"units": "1", "long_name": "gray, 0 to 1"}
    return xr.Dataset(
        {"image": (("sample", "y", "x"), pictures[order], attributes)},
        coords={"face": ("sample", (order < _NUM_FACES).astype(np.int64), {"long_name": "1 face, 0 background"})},
        attrs={"title": "Faces and background", "source": "scikit-image lfw_subset (Labeled Faces in the Wild)"},
    )


def read_ostia() -> xr.Dataset:
    """Monthly sea-surface temperature around the equator; NaN on land. Coordinate `month`, 1 to 12, for probes."""
    data = xr.load_dataset(_iris("ostia_monthly.nc"), engine="h5netcdf")
    month = ("time", data["time"].dt.month.values.astype(np.int64), {"long_name": "month of the year"})
    return _one_variable(data, "surface_temperature").assign_coords(month=month).assign_attrs(
        title="OSTIA monthly sea-surface temperature", source="iris-sample-data ostia_monthly"
    )  # fmt: skip


def read_scenario(scenario: str) -> xr.Dataset:
    """Yearly means of near-surface air temperature over North America in a run of a climate model.

    The model's years have 12 months of 30 days. Its dates are kept and come out as ordinary times.

    Args:
        scenario: `A1B` or `E1`.
    """
    data = xr.load_dataset(_iris(f"{scenario}_north_america.nc"), engine="h5netcdf", decode_times=False)
    days = (data["time"].values // 24).astype(np.int64)
    months = np.datetime64("1970-01", "M") + days // _DAYS_PER_MONTH
    dates = (months.astype("datetime64[D]") + days % _DAYS_PER_MONTH).astype("datetime64[ns]")
    time = ("time", dates, {"standard_name": "time", "axis": "T", "long_name": "middle of the year meant"})
    return _one_variable(data, "air_temperature").assign_coords(time=time).assign_attrs(
        title=f"Yearly air temperature over North America, scenario {scenario}",
        source=f"Met Office Unified Model 6.05; iris-sample-data {scenario}_north_america",
    )  # fmt: skip


def read_scenarios() -> xr.Dataset:
    """The two scenarios side by side, as the variables `a1b` and `e1`: paired modalities."""
    names = {"a1b": "A1B", "e1": "E1"}
    data = {name: read_scenario(scenario)["air_temperature"] for name, scenario in names.items()}
    return xr.Dataset(
        data,
        attrs={
            "title": "Yearly air temperature over North America, scenarios A1B and E1",
            "source": "Met Office Unified Model 6.05; iris-sample-data A1B_north_america and E1_north_america",
        },
    )


def read_winters() -> xr.Dataset:
    """Anomaly of sea-surface temperature in the Pacific, one mean for each winter; NaN on land.

    A winter is November to March; its time is the middle, in January. The file states no units: anomalies of degrees
    are kelvin.
    """
    path = installed_file("eofs", "eofs", "examples/example_data/sst_ndjfm_anom.nc")
    data = xr.load_dataset(path, engine="scipy").astype(np.float32)
    data["sst"].attrs.update(units="K", cell_methods="time: mean")
    for name in ("latitude", "longitude"):
        del data[name].attrs["actual_range"]  # it is the globe's, of which this is a part
    time = ("time", data["time"].values, data["time"].attrs | {"long_name": "middle of the winter, November to March"})
    return _one_variable(data.assign_coords(time=time), "sst").assign_attrs(
        title="Winter anomalies of sea-surface temperature in the Pacific", source="eofs sst_ndjfm_anom"
    )


def _one_variable(data: xr.Dataset, name: str) -> xr.Dataset:
    """Keep one variable and the coordinates of its axes, with the attributes that say what they are."""
    kept = data[name]
    attributes = {key: kept.attrs[key] for key in ("standard_name", "units", "cell_methods")}
    told = {dim: {key: data[dim].attrs[key] for key in data[dim].attrs if key != "bounds"} for dim in kept.dims}
    axes = {str(dim): (dim, data[dim].values, told[dim]) for dim in kept.dims}
    return xr.Dataset({name: (kept.dims, kept.values, attributes)}, coords=axes)


def _scikit_image(file: str) -> Path:
    return installed_file("scikit-image", "skimage", f"data/{file}")


def _iris(file: str) -> Path:
    return installed_file("iris-sample-data", "iris_sample_data", f"sample_data/{file}")


def installed_file(distribution: str, package: str, file: str, *, install: str = "gridloom[samples]") -> Path:
    """Find a file of another package without importing it.

    Args:
        distribution: Name of the package in the registry.
        package: Name that it is imported by.
        file: Path in it.
        install: What to give to `pip install` to get it.

    Raises:
        DataError: It is not there; the message says what to install.
    """
    spec = find_spec(package)
    for folder in spec.submodule_search_locations or () if spec is not None else ():
        path = Path(folder) / file
        if path.is_file():
            return path
    what = "is not installed" if spec is None else f"is installed without its file {file}"
    raise DataError(f"this sample is in the package {distribution}, which {what}; pip install {install}")
