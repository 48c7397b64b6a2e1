"""Patches: boxes of cells that become one token each, for images and for series."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from einops import rearrange
from jaxtyping import Shaped
from torch import Tensor
from torch.nn import functional as F

from gridloom.core.errors import ConfigError, DataError

__all__ = ["ImagePatches", "Patches", "SeriesPatches"]


@dataclass(frozen=True)
class Patches(ABC):
    """How a modality is cut into tokens: times by places, each with the same number of cells."""

    @property
    @abstractmethod
    def num_places(self) -> int:
        """Patches of one time."""

    @property
    @abstractmethod
    def num_cells(self) -> int:
        """Cells of a patch."""

    @property
    @abstractmethod
    def layout(self) -> tuple[int, int]:
        """Rows and columns of the patches of one time; (places, 1) for series."""

    @property
    @abstractmethod
    def time_axis(self) -> int:
        """Axis of time in the values, without the batch."""

    @abstractmethod
    def num_times(self, steps: int) -> int:
        """Patches along a time axis of so many steps."""

    @abstractmethod
    def cut(self, values: Shaped[Tensor, "batch *dims"]) -> Shaped[Tensor, "batch times places cells"]:
        """Cut into patches; what the last ones lack is 0 (False).

        Raises:
            DataError: Values of another size.
        """

    @abstractmethod
    def join(self, cells: Shaped[Tensor, "batch times places cells"], steps: int) -> Shaped[Tensor, "batch *dims"]:
        """Undo `cut` for so many time steps."""


@dataclass(frozen=True)
class ImagePatches(Patches):
    """Fields [batch, time, height, width]; a patch has one time."""

    height: int
    """Cells down."""
    width: int
    """Cells across."""
    patch: tuple[int, int]
    """Cells of a patch, down and across."""

    def __post_init__(self) -> None:
        """Refuse what cannot be cut."""
        if min(self.height, self.width, *self.patch) < 1:
            raise ConfigError(
                f"sizes and patches must be at least 1, got {self.height} x {self.width} cells, patch {self.patch}"
            )

    @property
    def layout(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return math.ceil(self.height / self.patch[0]), math.ceil(self.width / self.patch[1])

    @property
    def num_places(self) -> int:
        """Patches of a frame."""
        return math.prod(self.layout)

    @property
    def num_cells(self) -> int:
        """Cells of a patch."""
        return math.prod(self.patch)

    @property
    def time_axis(self) -> int:
        """The first."""
        return 0

    def num_times(self, steps: int) -> int:
        """One for each frame."""
        return steps

    def cut(self, values: Shaped[Tensor, "batch time height width"]) -> Shaped[Tensor, "batch times places cells"]:
        """Cut frames into patches, row by row."""
        _check(values.shape[2:], (self.height, self.width), "cells down and across")
        (rows, columns), (down, across) = self.layout, self.patch
        missing = (columns * across - values.shape[3], rows * down - values.shape[2])
        if any(missing):
            values = F.pad(values, (0, missing[0], 0, missing[1]))
        return rearrange(
            values,
            "batch time (rows down) (columns across) -> batch time (rows columns) (down across)",
            down=down,
            across=across,
        )

    def join(
        self, cells: Shaped[Tensor, "batch times places cells"], steps: int
    ) -> Shaped[Tensor, "batch time height width"]:
        """Put patches together to frames."""
        (rows, columns), (down, across) = self.layout, self.patch
        boxes = rearrange(
            cells,
            "batch time (rows columns) (down across) -> batch time (rows down) (columns across)",
            rows=rows,
            columns=columns,
            down=down,
            across=across,
        )
        return boxes[..., : self.height, : self.width]


@dataclass(frozen=True)
class SeriesPatches(Patches):
    """Series [batch, place, time] or [batch, place, time, feature]; a patch is one place over some steps."""

    places: int
    """Number of places."""
    steps: int
    """Time steps of a patch."""
    features: int = 1
    """Values of each place and time."""

    def __post_init__(self) -> None:
        """Refuse what cannot be cut."""
        if min(self.places, self.steps, self.features) < 1:
            raise ConfigError(
                f"places, steps and features must be at least 1, got {self.places}, {self.steps}, {self.features}"
            )

    @property
    def layout(self) -> tuple[int, int]:
        """Places, one column."""
        return self.places, 1

    @property
    def num_places(self) -> int:
        """One patch for each place."""
        return self.places

    @property
    def num_cells(self) -> int:
        """Values of a patch."""
        return self.steps * self.features

    @property
    def time_axis(self) -> int:
        """The second, after the places."""
        return 1

    def num_times(self, steps: int) -> int:
        """Patches along the time axis."""
        return math.ceil(steps / self.steps)

    def cut(self, values: Shaped[Tensor, "batch place time *feature"]) -> Shaped[Tensor, "batch times places cells"]:
        """Cut series into patches."""
        if values.ndim == 3:
            values = values[..., None]
        _check((values.shape[1], *values.shape[3:]), (self.places, self.features), "places and features")
        times = self.num_times(values.shape[2])
        missing = times * self.steps - values.shape[2]
        if missing:
            values = F.pad(values, (0, 0, 0, missing))
        return rearrange(
            values, "batch place (times step) feature -> batch times place (step feature)", step=self.steps
        )

    def join(
        self, cells: Shaped[Tensor, "batch times places cells"], steps: int
    ) -> Shaped[Tensor, "batch place time feature"]:
        """Put patches together to series; the axis of features stays."""
        series = rearrange(
            cells, "batch times place (step feature) -> batch place (times step) feature", step=self.steps
        )
        return series[:, :, :steps]


def _check(found: Sequence[int], expected: tuple[int, int], what: str) -> None:
    if tuple(found) != expected:
        raise DataError(f"expected values of {expected[0]} x {expected[1]} {what}, got {' x '.join(map(str, found))}")
