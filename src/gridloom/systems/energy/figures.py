"""Pictures of the energy system drawn from a run."""

from collections.abc import Callable, Mapping

from gridloom.core.system import Drawing, View

__all__ = ["FIGURES"]

FIGURES: Mapping[str, Callable[[View], Drawing | None]] = {}
