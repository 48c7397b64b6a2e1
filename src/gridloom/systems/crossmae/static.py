"""Static attributes: what does not change in time (area, slope, soil) and explains how a place responds."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gridloom.core.errors import DataError
from gridloom.systems.crossmae.tokens import MaskInfo

__all__ = ["StaticAttributes", "StaticMode"]

StaticMode = Literal["token", "concat", "add", "film"]
"""An extra token; beside the features of every token; added to every token; scale and shift of every token."""


class StaticAttributes(nn.Module):
    """Brings static attributes to an encoder's tokens.

    Attributes of a sample, [batch, attribute], reach all of its tokens; attributes of places, [batch, place,
    attribute], those of that place. `token` puts one extra token for the sample, or one for each place, at the end.
    Missing (not finite) attributes count as 0, the mean of normalized ones.

    Args:
        static_dim: Number of attributes.
        dim: Width of the tokens.
        mode: How.
    """

    def __init__(self, static_dim: int, dim: int, mode: StaticMode) -> None:
        super().__init__()
        self.static_dim, self.dim, self.mode = static_dim, dim, mode
        self.static_proj = nn.Linear(static_dim, 2 * dim if mode == "film" else dim) if mode != "concat" else None

    @property
    def output_dim(self) -> int:
        """Width of the tokens that come out."""
        return self.dim + self.static_dim if self.mode == "concat" else self.dim

    def forward(
        self,
        maps: list[Tensor],
        info: MaskInfo,
        static: Float[Tensor, "batch *attributes"] | None,
        num_places: int,
        *,
        pooled: bool = False,
    ) -> tuple[list[Tensor], MaskInfo]:
        """Change the tokens, or add some (then the masks grow too; the position of an extra token means nothing).

        Args:
            maps: Sequences of tokens.
            info: Their masks and positions.
            static: Attributes.
            num_places: Places of the modality.
            pooled: There is one token for all places; it takes the mean of their attributes.

        Raises:
            DataError: No attributes, or another number of them.
        """
        static = self._checked(static, len(maps[0]), num_places).to(maps[0].dtype)
        if self.static_proj is None:
            beside = self._of_tokens(static, info, num_places, pooled)
            return [torch.cat([tokens, beside], dim=-1) for tokens in maps], info
        told = self.static_proj(static)
        if self.mode == "token":
            told = told if told.ndim == 3 else told[:, None]
            extra = info["positions"].new_zeros(told.shape[:2])
            info = MaskInfo(
                mask=info["mask"],
                padding_mask=torch.cat([info["padding_mask"], torch.zeros_like(extra, dtype=torch.bool)], dim=1),
                positions=torch.cat([info["positions"], extra], dim=1),
            )
            return [torch.cat([tokens, told], dim=1) for tokens in maps], info
        told = self._of_tokens(told, info, num_places, pooled)
        if self.mode == "add":
            return [tokens + told for tokens in maps], info
        scale, shift = told.chunk(2, dim=-1)
        return [tokens * (1 + scale) + shift for tokens in maps], info

    def _checked(self, static: Tensor | None, size: int, num_places: int) -> Tensor:
        if static is None:
            raise DataError(f"expected {self.static_dim} static attributes, got none; pass static=")
        shapes = [(size, self.static_dim), (size, num_places, self.static_dim)]
        if tuple(static.shape) not in shapes:
            raise DataError(
                f"static: expected {list(shapes[0])} (one row for a sample) or {list(shapes[1])} (one for each place), "
                f"got {list(static.shape)}"
            )
        return torch.nan_to_num(static, posinf=0.0, neginf=0.0)

    def _of_tokens(self, told: Tensor, info: MaskInfo, num_places: int, pooled: bool) -> Tensor:
        """One row for each token: its sample's, or its place's."""
        length = info["positions"].shape[1]
        if told.ndim == 3 and not pooled:
            return torch.take_along_dim(told, (info["positions"] % num_places)[..., None], dim=1)
        return (told if told.ndim == 2 else told.mean(1))[:, None].expand(-1, length, -1)
