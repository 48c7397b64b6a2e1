"""The registration of the semantic system: which function does what."""

import xarray as xr

from gridloom.core.contracts import Predictor
from gridloom.core.system import System
from gridloom.evaluate.baselines.patches import PatchPCA
from gridloom.evaluate.baselines.pca import PCAReconstruction
from gridloom.evaluate.baselines.tiles import BlockMean, MeanField
from gridloom.evaluate.compare import compare
from gridloom.systems.semantic.config import PRESETS, SemanticConfig
from gridloom.systems.semantic.data import Reconstructor, prepare, resolve
from gridloom.systems.semantic.figures import reconstructions
from gridloom.systems.semantic.heads import DOWNSAMPLING
from gridloom.systems.semantic.model import ResNetEncoder
from gridloom.systems.semantic.objective import SelfSupervised

__all__ = ["SYSTEM"]


def _encoder(config: SemanticConfig) -> ResNetEncoder:
    return ResNetEncoder(config.model, variables=config.data.variables, window=config.data.window)


def _mean_field(config: SemanticConfig, history: xr.Dataset) -> Predictor:
    return MeanField(history)


def _block_mean(config: SemanticConfig, history: xr.Dataset) -> Predictor:
    """As many block means as the latent has numbers."""
    return BlockMean(config.model.latent_dim * _places(config, history))


def _pca(config: SemanticConfig, history: xr.Dataset) -> Predictor:
    """As many components as the latent has numbers, or as the training windows allow; of patches for a latent map."""
    if config.model.latent == "map":
        cells = len(history.data_vars) * DOWNSAMPLING["map"] ** 2
        return PatchPCA(history, min(config.model.latent_dim, cells), patch=DOWNSAMPLING["map"])
    cells = sum(values.size // values.sizes["sample"] for values in history.data_vars.values())
    return PCAReconstruction(history, min(config.model.latent_dim, history.sizes["sample"] - 1, cells))


def _places(config: SemanticConfig, history: xr.Dataset) -> int:
    """Vectors of a latent: one, or those of a map."""
    if config.model.latent == "vector":
        return 1
    return int(history.sizes["y"] * history.sizes["x"]) // DOWNSAMPLING["map"] ** 2


SYSTEM: System[SemanticConfig] = System(
    name="semantic",
    summary="an autoencoder whose encoder is extracted, frozen and used by itself",
    config=SemanticConfig,
    presets=PRESETS,
    monitor="loss",
    resolve=resolve,
    prepare=prepare,
    objective=SelfSupervised,
    encoder=_encoder,
    predictor=Reconstructor,
    baselines={"mean field": _mean_field, "block means": _block_mean, "PCA": _pca},
    score=compare,
    figures={"reconstructions": reconstructions},
)
