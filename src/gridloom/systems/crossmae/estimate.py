"""What a background says of a record."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

__all__ = ["Estimate"]


@dataclass(frozen=True)
class Estimate:
    """What is estimated of every cell from the cells that may be seen, in normalized units.

    Attributes:
        base: Smooth climatology, [time, y, x]: anomalies are from it.
        scale: Standard deviation of the anomalies that are seen.
        known: Channels of each cell, [time, y, x, channel], in units of `scale`: the anomaly as the first background
            estimates it, then as the others do, then the first one's standard deviation.
    """

    base: Float32[np.ndarray, "time y x"]
    scale: float
    known: Float32[np.ndarray, "time y x channel"]

    def window(self, place: tuple[slice, ...]) -> "Estimate":
        """A part of it."""
        return Estimate(self.base[place], self.scale, self.known[place])
