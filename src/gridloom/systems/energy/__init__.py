"""System B: an energy E(image, coordinate), low where the coordinate is right."""

from gridloom.systems.energy.system import SYSTEM

__all__ = ["SYSTEM"]
