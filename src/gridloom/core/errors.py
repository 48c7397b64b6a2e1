"""Errors for users. Each says in one line what was expected, what came, and what to do."""

import difflib
from collections.abc import Iterable

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "GridloomError",
    "TrainingError",
    "UnknownNameError",
    "UnsafeFileError",
    "did_you_mean",
]


class GridloomError(ValueError):
    """Base of everything that a user can mend. The command line prints it as one line and exits with 2."""


class ConfigError(GridloomError):
    """A configuration that cannot be used as it stands."""


class DataError(GridloomError):
    """Data that cannot be read, or does not fit what the model or the command expects."""


class CheckpointError(GridloomError):
    """A file of weights that is damaged, foreign or does not fit."""


class UnsafeFileError(CheckpointError):
    """A file that would have to run code to be read. It is refused; there is no way to force it."""


class TrainingError(GridloomError):
    """Training cannot go on, for example because the loss is not finite."""


class UnknownNameError(GridloomError):
    """A name that is not among the known ones; the message names the nearest."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        """Build the message `unknown KIND 'NAME'; did you mean 'NEAREST'? Known: ...`."""
        names = sorted(known)
        listing = ", ".join(names) if names else "none"
        super().__init__(f"unknown {kind} {name!r}{did_you_mean(name, names)} (known: {listing})")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the nearest known name, or an empty string if none is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""
