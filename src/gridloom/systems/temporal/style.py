"""Mixing of style embeddings from frame to frame."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gridloom.core.errors import DataError

__all__ = ["StyleFusion"]


class StyleFusion(nn.Module):
    """`s_fused = alpha_s * s_prev + (1 - alpha_s) * s_cur`, with an alpha of its own.

    Attributes:
        alpha_param: Logit of alpha_s.
    """

    alpha_param: Tensor

    def __init__(self, size: int, *, alpha_init: float, learnable: bool, kind: Literal["scalar", "learned"]) -> None:
        """Build it.

        Args:
            size: Numbers of a style.
            alpha_init: Weight of the previous style at the start.
            learnable: Whether the weight is learnt.
            kind: `scalar`: one weight. `learned`: a weight for each number, from both styles; the same at the start.
        """
        super().__init__()
        self.size = size
        logit = torch.logit(torch.tensor(alpha_init, dtype=torch.float64)).float()
        if learnable:
            self.alpha_param = nn.Parameter(logit)
        else:
            self.register_buffer("alpha_param", logit)
        self.gate = None
        if kind == "learned":
            last = nn.Linear(size, size)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            self.gate = nn.Sequential(nn.Linear(2 * size, size), nn.GELU(), last)

    def forward(
        self, s_prev: Float[Tensor, "batch style"], s_cur: Float[Tensor, "batch style"]
    ) -> Float[Tensor, "batch style"]:
        """Mix two styles.

        Raises:
            DataError: They are not [B, size] both.
        """
        if s_prev.shape != s_cur.shape or s_cur.ndim != 2 or s_cur.shape[1] != self.size:
            raise DataError(f"styles must be [B,{self.size}] both, got {list(s_prev.shape)} and {list(s_cur.shape)}")
        logit = self.alpha_param
        if self.gate is not None:
            logit = logit + self.gate(torch.cat([s_prev, s_cur], dim=1))
        return torch.lerp(s_cur, s_prev, torch.sigmoid(logit).to(s_cur.dtype))
