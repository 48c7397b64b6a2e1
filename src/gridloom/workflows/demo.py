"""demo: the whole way on real elevation."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from gridloom.core.errors import TrainingError
from gridloom.core.registry import get_system
from gridloom.core.score import Score
from gridloom.workflows.check import check
from gridloom.workflows.encode import encode
from gridloom.workflows.extract import extract
from gridloom.workflows.report import report
from gridloom.workflows.train import configure, train

__all__ = ["DemoResult", "demo"]

_LOGGER = logging.getLogger(__name__)
_QUICK_STEPS = 60


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """What the demonstration made.

    Attributes:
        scores: The model beside the baselines.
        places: Where things are.
    """

    scores: list[Score]
    places: Mapping[str, str]


def demo(output: Path | str, *, quick: bool = False) -> DemoResult:
    """Train on tiles of the relief of the Earth, extract the encoder, encode the globe, evaluate, report.

    Args:
        output: Folder for everything. Called again, it goes on where it was.
        quick: A few steps only, to see that it works; the model is then of no use.
    """
    output = Path(output)
    system = get_system("semantic")
    config = configure(system, preset="elevation")
    if quick:
        short = replace(config.train, steps=_QUICK_STEPS, warmup_steps=10, validate_every=30, validate_windows=64)
        config = replace(config, train=short)
    data = "etopo20"
    diagnosis = check(data)
    for note in diagnosis.notes:
        _LOGGER.info("check %s: %s", data, note)
    _LOGGER.info("train: an autoencoder on 128x128 tiles of %s, %d steps", data, config.train.steps)
    run = output / "run"
    result = train(system, config, output=run, report=False)
    if result.stopped_by is not None:
        raise TrainingError(f"{result.stopped_by} after step {result.step}; call the demo again to go on")
    _LOGGER.info("extract: the encoder alone")
    extraction = extract(run, output / "encoder", verify=True)
    _LOGGER.info("encode: the globe, a window every 16 cells")
    embeddings = output / "embeddings.zarr"
    encode(extraction.output, data, output=embeddings, stride=(16, 16), replace=True)
    _LOGGER.info("report: pictures and tables")
    page = report(run, figures=output / "figures")
    places = {
        "report": str(page),
        "pictures": str(output / "figures"),
        "encoder": str(extraction.output),
        "embeddings": str(embeddings),
    }
    return DemoResult(scores=result.scores, places=places)
