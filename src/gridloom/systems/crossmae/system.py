"""The registration of the crossmae system: which function does what."""

from gridloom.core.system import System
from gridloom.systems.crossmae.baselines import BASELINES
from gridloom.systems.crossmae.build import build_encoder
from gridloom.systems.crossmae.calibrate import calibrate
from gridloom.systems.crossmae.config import CrossMAEConfig
from gridloom.systems.crossmae.data import encode_source, prepare
from gridloom.systems.crossmae.figures import FIGURES
from gridloom.systems.crossmae.fill import Filler
from gridloom.systems.crossmae.objective import MaskedModeling
from gridloom.systems.crossmae.presets import PRESETS
from gridloom.systems.crossmae.resolve import resolve
from gridloom.systems.crossmae.score import score

__all__ = ["SYSTEM"]

SYSTEM: System[CrossMAEConfig] = System(
    name="crossmae",
    summary="a masked autoencoder of fields and series with missing cells, which fills them",
    config=CrossMAEConfig,
    presets=PRESETS,
    monitor="loss",
    resolve=resolve,
    prepare=prepare,
    objective=MaskedModeling,
    encoder=build_encoder,
    predictor=Filler,
    baselines=BASELINES,
    score=score,
    complete=calibrate,
    encode_source=encode_source,
    figures=FIGURES,
)
