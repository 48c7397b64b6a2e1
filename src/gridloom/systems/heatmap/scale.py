"""From pixels to counts and back, for tensors and without rounding."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["PixelScale"]


@dataclass(frozen=True, kw_only=True)
class PixelScale:
    """How counts become pixels.

    Attributes:
        cap: Count that is pixel 1; 0 where pixels never were counts: these are then their own counts.
        kind: `log1p` or `linear`.
    """

    cap: int
    kind: Literal["log1p", "linear"]

    def counts(self, pixels: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Counts that pixels stand for, not rounded."""
        if not self.cap:
            return pixels
        return torch.expm1(pixels * math.log1p(self.cap)) if self.kind == "log1p" else pixels * self.cap

    def pixels(self, counts: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Pixels of counts; above the cap they are 1."""
        if not self.cap:
            return counts
        capped = counts.clamp(max=self.cap)
        return torch.log1p(capped) / math.log1p(self.cap) if self.kind == "log1p" else capped / self.cap
