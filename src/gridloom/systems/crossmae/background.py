"""Estimates that the model starts from: kriging, EOFs, a smooth line in time."""

from collections.abc import Mapping

from gridloom.grid.normalize import Normalizer
from gridloom.systems.crossmae.config import CrossMAEConfig
from gridloom.systems.crossmae.estimate import Estimate
from gridloom.systems.crossmae.fields import Fields

__all__ = ["Background"]


class Background:
    """Estimates every cell of the images of a record from the cells that may be seen."""

    def __init__(self, config: CrossMAEConfig, normalizer: Normalizer) -> None:
        self.config, self.normalizer = config, normalizer

    def estimate(self, fields: Fields) -> Mapping[str, Estimate]:
        raise NotImplementedError
