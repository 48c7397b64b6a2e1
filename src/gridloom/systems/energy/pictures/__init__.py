"""Pictures of the energy system: arrays in, a figure with its numbers out. Nothing here knows models."""

from gridloom.systems.energy.pictures.accuracy import error_over_examples, train_2d
from gridloom.systems.energy.pictures.contrast import info_nce
from gridloom.systems.energy.pictures.curve import energy_curve
from gridloom.systems.energy.pictures.fusion import fusion
from gridloom.systems.energy.pictures.keypoints import soft_argmax
from gridloom.systems.energy.pictures.landscape import energy_landscape
from gridloom.systems.energy.pictures.path import optimization
from gridloom.systems.energy.pictures.training import train_1d

__all__ = [
    "energy_curve",
    "energy_landscape",
    "error_over_examples",
    "fusion",
    "info_nce",
    "optimization",
    "soft_argmax",
    "train_1d",
    "train_2d",
]
