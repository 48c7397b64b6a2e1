"""check: look at a dataset before training on it."""

from collections.abc import Sequence

from gridloom.grid.check import Diagnosis, diagnose
from gridloom.grid.events.store import to_dense
from gridloom.grid.read import open_grid

__all__ = ["check"]


def check(data: str, *, variables: Sequence[str] = ()) -> Diagnosis:
    """Diagnose a dataset: shapes, missing share, gaps and duplicates, flipped axes, decorrelation, a proposed split.

    Args:
        data: Path or name of a sample.
        variables: Look at these alone.
    """
    return diagnose(to_dense(open_grid(data)), variables=variables)
