"""Systems by name: the built-in ones, and those of installed packages.

A package adds a system by the entry point group `gridloom.systems`, whose value is a `System`. A configuration file can
never name code.
"""

import importlib
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from gridloom.core.errors import ConfigError, UnknownNameError
from gridloom.core.system import System

__all__ = ["BUILT_IN", "GROUP", "get_system", "system_names"]

GROUP = "gridloom.systems"

BUILT_IN = {
    "semantic": "gridloom.systems.semantic:SYSTEM",
    "energy": "gridloom.systems.energy:SYSTEM",
    "crossmae": "gridloom.systems.crossmae:SYSTEM",
    "heatmap": "gridloom.systems.heatmap:SYSTEM",
    "temporal": "gridloom.systems.temporal:SYSTEM",
    "finetune": "gridloom.finetune:SYSTEM",
}
"""Name and place of each built-in system; a new one is registered here."""


@cache
def _installed() -> dict[str, Any]:
    return {point.name: point for point in entry_points(group=GROUP) if point.name not in BUILT_IN}


def system_names() -> list[str]:
    """Names of all systems, built-in ones first. Imports none of them."""
    return [*BUILT_IN, *sorted(_installed())]


@cache
def get_system(name: str) -> System:
    """Return a system by name.

    Raises:
        UnknownNameError: No such system; the message names the nearest.
        ConfigError: The entry point of another package gives something else than a system of that name.
    """
    if name in BUILT_IN:
        module, attribute = BUILT_IN[name].split(":")
        system = getattr(importlib.import_module(module), attribute)
    elif name in _installed():
        system = _installed()[name].load()
    else:
        raise UnknownNameError("system", name, system_names())
    if not isinstance(system, System) or system.name != name:
        raise ConfigError(f"entry point {name!r} must give a gridloom System named {name!r}, gave {system!r:.80}")
    return system
