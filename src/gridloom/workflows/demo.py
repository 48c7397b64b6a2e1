"""demo: the whole way on real data: relief encoded, summits found, the sea filled, flights forecast, a video calmed."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gridloom.core.errors import TrainingError
from gridloom.core.registry import get_system
from gridloom.core.score import Score
from gridloom.core.system import System
from gridloom.workflows.check import check
from gridloom.workflows.encode import encode
from gridloom.workflows.extract import extract
from gridloom.workflows.figures import figures
from gridloom.workflows.fill import fill
from gridloom.workflows.forecast import forecast
from gridloom.workflows.locate import locate
from gridloom.workflows.report import report
from gridloom.workflows.search import search
from gridloom.workflows.stabilize import stabilize
from gridloom.workflows.train import RunResult, configure, train

__all__ = ["DemoResult", "demo"]

_LOGGER = logging.getLogger(__name__)
_DATA = "etopo20"
_QUICK_STEPS = 60
_HIMALAYA = {"lat": 30.0, "lon": 86.0}
_SUMMIT_STEPS, _SUMMIT_QUICK_STEPS = 400, 20
_SEA = "coads"
_SEA_QUICK_STEPS = 10
_FLIGHTS = "flights"
_FLIGHTS_STEPS, _FLIGHTS_QUICK_STEPS = 300, 6
_CLIP, _SHAKY = "carphone", "carphone-flicker"
_CLIP_STEPS, _CLIP_QUICK_STEPS = 150, 4
_HOURS, _PATHS, _QUICK_PATHS = 24, 50, 4


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """What the demonstration made.

    Attributes:
        scores: Each model beside the baselines, by system.
        places: Where things are.
    """

    scores: Mapping[str, list[Score]]
    places: Mapping[str, str]


def demo(output: Path | str, *, quick: bool = False) -> DemoResult:
    """Train on the relief of the Earth, the temperature of the sea, a year of flights and a video; evaluate and report.

    An encoder of the globe is trained, extracted and searched; another model finds summits; a third fills the months of
    the sea surface, of which half was never measured; a fourth forecasts flights; a fifth takes the flicker out of a
    video.

    Args:
        output: Folder for everything. Called again, it goes on where it was.
        quick: A few steps only, to see that it works; the models are then of no use.
    """
    output = Path(output)
    for note in check(_DATA).notes:
        _LOGGER.info("check %s: %s", _DATA, note)
    semantic, places = _encode_globe(output, quick)
    energy, others = _find_summits(output / "summits", quick)
    crossmae, filled = _fill_sea(output / "sea", quick)
    heatmap, ahead = _forecast_flights(output / "flights", quick)
    temporal, calm = _calm_video(output / "video", quick)
    return DemoResult(
        scores={
            "semantic": semantic.scores,
            "energy": energy.scores,
            "crossmae": crossmae.scores,
            "heatmap": heatmap.scores,
            "temporal": temporal.scores,
        },
        places={**places, **others, **filled, **ahead, **calm},
    )


def _encode_globe(output: Path, quick: bool) -> tuple[RunResult, dict[str, str]]:
    system = get_system("semantic")
    config = configure(system, preset="elevation")
    if quick:
        short = replace(config.train, steps=_QUICK_STEPS, warmup_steps=10, validate_every=30, validate_windows=64)
        config = replace(config, train=short)
    _LOGGER.info("train: an autoencoder on 128x128 tiles of %s, %d steps", _DATA, config.train.steps)
    run = output / "run"
    result = _train(system, config, run)
    _LOGGER.info("extract: the encoder alone")
    extraction = extract(run, output / "encoder", verify=True)
    _LOGGER.info("encode: the globe, a window every 16 cells")
    embeddings = output / "embeddings.zarr"
    encode(extraction.output, _DATA, output=embeddings, stride=(16, 16), replace=True)
    _LOGGER.info("search: which places of the Earth look like the Himalaya")
    alike = output / "like-the-himalaya.csv"
    search(embeddings, _HIMALAYA, k=5, output=alike, replace=True)
    _LOGGER.info("report: pictures and tables")
    page = report(run, figures=output / "figures")
    return result, {
        "report": str(page),
        "pictures": str(output / "figures"),
        "encoder": str(extraction.output),
        "embeddings": str(embeddings),
        "places like the Himalaya": str(alike),
    }


def _find_summits(output: Path, quick: bool) -> tuple[RunResult, dict[str, str]]:
    system = get_system("energy")
    config = configure(system, preset="summit")
    steps = _SUMMIT_QUICK_STEPS if quick else _SUMMIT_STEPS
    config = replace(config, train=replace(config.train, steps=steps, validate_every=steps // 2, snapshots=(0, steps)))
    _LOGGER.info("train: an energy whose minimum is the highest place, through noise and gaps, %d steps", steps)
    run = output / "run"
    result = _train(system, config, run)
    _LOGGER.info("locate: the highest place of every window of %s", _DATA)
    found = output / "summits.csv"
    locate(run, _DATA, output=found, replace=True)
    page = report(run)
    figures(run, output=output / "figures")
    return result, {"summits": str(found), "report of the energy": str(page), "its pictures": str(output / "figures")}


def _fill_sea(output: Path, quick: bool) -> tuple[RunResult, dict[str, str]]:
    system = get_system("crossmae")
    config = configure(system, preset="tiny")
    if quick:
        short = replace(config.train, steps=_SEA_QUICK_STEPS, warmup_steps=2, validate_every=_SEA_QUICK_STEPS)
        config = replace(config, train=short, background=replace(config.background, folds=1))
    _LOGGER.info("train: to fill sea-surface temperature where nobody measured, %d steps", config.train.steps)
    run = output / "run"
    result = _train(system, config, run)
    _LOGGER.info("fill: every gap of %s, with its standard deviation", _SEA)
    filled = output / "sea-filled.nc"
    fill(_SEA, run, output=filled, replace=True)
    page = report(run, figures=output / "figures")
    return result, {"filled sea": str(filled), "report of the fill": str(page), "its figures": str(output / "figures")}


def _forecast_flights(output: Path, quick: bool) -> tuple[RunResult, dict[str, str]]:
    system = get_system("heatmap")
    config = configure(system, preset="flights")
    steps = _FLIGHTS_QUICK_STEPS if quick else _FLIGHTS_STEPS
    short = replace(config.train, steps=steps, validate_every=steps, validate_windows=8 if quick else 64)
    config = replace(config, train=short)
    if quick:
        config = replace(config, data=replace(config.data, max_origins=6, num_samples=2))
    _LOGGER.info("train: to forecast flights from New York by the hour, %d steps", steps)
    run = output / "run"
    result = _train(system, config, run)
    _LOGGER.info("forecast: the first day of 2014, hour by hour, with sample paths")
    ahead = output / "new-year.nc"
    forecast(_FLIGHTS, run, _HOURS, num_samples=_QUICK_PATHS if quick else _PATHS, output=ahead, replace=True)
    page = report(run, figures=output / "figures")
    return result, {
        "forecast flights": str(ahead),
        "report of the forecast": str(page),
        "strips and films": str(output / "figures"),
    }


def _calm_video(output: Path, quick: bool) -> tuple[RunResult, dict[str, str]]:
    system = get_system("temporal")
    steps = _CLIP_QUICK_STEPS if quick else _CLIP_STEPS
    config = configure(system, preset="video", settings={"data.path": _CLIP})
    config = replace(config, train=replace(config.train, steps=steps, validate_every=steps, validate_windows=8))
    _LOGGER.info("train: how far to trust the past in a video, on %s, %d steps", _CLIP, steps)
    run = output / "run"
    result = _train(system, config, run)
    _LOGGER.info("stabilize: %s, frame by frame", _SHAKY)
    calm, picture = output / "calm.mp4", output / "calm.png"
    stabilize(_SHAKY, run, output=calm, picture=picture, replace=True)
    page = report(run, figures=output / "figures")
    return result, {
        "video without flicker": str(calm),
        "before and after": str(picture),
        "report of the video": str(page),
    }


def _train(system: System, config: Any, run: Path) -> RunResult:
    result = train(system, config, output=run, report=False)
    if result.stopped_by is not None:
        raise TrainingError(f"{result.stopped_by} after step {result.step}; call the demo again to go on")
    return result
