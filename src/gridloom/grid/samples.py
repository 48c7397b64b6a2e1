"""Data to try things on: small, free, at hand without a download."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import resources
from types import MappingProxyType

import numpy as np
import xarray as xr

from gridloom.core.errors import UnknownNameError

__all__ = ["SAMPLES", "Sample", "open_sample"]


@dataclass(frozen=True)
class Sample:
    """A data set that can be opened by name."""

    name: str
    """Name for `open_grid` and the command line."""
    summary: str
    """What is in it, in one line."""
    license: str
    """What may be done with it."""
    origin: str
    """Where it comes from."""
    needs: str
    """Extra of this package that has to be installed; empty if none."""
    open: Callable[[], xr.Dataset]
    """Reads it into memory."""


def _packaged(name: str) -> xr.Dataset:
    with resources.as_file(resources.files("gridloom.grid") / "data" / name) as path:
        return xr.load_dataset(path, engine="h5netcdf")


def _digits() -> xr.Dataset:
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


_LIST = (
    Sample(
        name="etopo20",
        summary="relief of the Earth, land and sea floor, 540 x 1080, one variable without gaps",
        license="public domain (US government work)",
        origin="NOAA ETOPO, from the Debian package ferret-datasets 7.6.0, repacked",
        needs="",
        open=partial(_packaged, "etopo20.nc"),
    ),
    Sample(
        name="coads",
        summary="monthly climatology of the sea surface, 12 x 90 x 180, seven variables, 44 to 48 % missing",
        license="public domain (US government work)",
        origin="NOAA COADS, from the Debian package ferret-datasets 7.6.0, repacked",
        needs="",
        open=partial(_packaged, "coads.nc"),
    ),
    Sample(
        name="digits",
        summary="1797 handwritten digits, 32 x 32 (8 x 8 repeated), with the coordinate `digit`",
        license="BSD-3-Clause",
        origin="scikit-learn, after UCI's optical recognition of handwritten digits",
        needs="",
        open=_digits,
    ),
)

SAMPLES: Mapping[str, Sample] = MappingProxyType({sample.name: sample for sample in _LIST})
"""Samples by name."""


def open_sample(name: str) -> xr.Dataset:
    """Read a sample into memory.

    Raises:
        UnknownNameError: No such sample; the message names the nearest.
    """
    if name not in SAMPLES:
        raise UnknownNameError("sample", name, SAMPLES)
    return SAMPLES[name].open()
