"""One measured figure. A table is a tidy list of these."""

from dataclasses import dataclass

__all__ = ["Score"]


@dataclass(frozen=True, kw_only=True)
class Score:
    """One figure of one method, with its interval."""

    data: str
    """Name of the data."""
    split: str
    """Part of the data: `test`, `validation`."""
    method: str
    """Model or baseline."""
    metric: str
    """`rmse`, `mae`, `skill`, `accuracy`."""
    unit: str
    """Unit of the value; `1` for a ratio, `%` for a percentage."""
    group: str
    """What the figure is about: a variable, a horizon, a probe; `all` for everything."""
    seed: int
    """Seed of the run."""
    value: float
    """The figure."""
    low: float
    """Lower end of the 90 % interval; NaN where there is none."""
    high: float
    """Upper end of the 90 % interval; NaN where there is none."""
    num_blocks: int
    """Blocks that were resampled for the interval; 0 where there is none."""
