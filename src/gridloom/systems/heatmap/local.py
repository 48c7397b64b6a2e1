"""A small network that corrects the base cell by cell, from what is remembered."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from gridloom.systems.heatmap.config import ModelConfig
from gridloom.systems.heatmap.memory import num_features

__all__ = ["LocalNetwork"]

_LEAST_DEVIATION = 1e-3
_EMBEDDING_STD = 0.1


class LocalNetwork(nn.Module):
    """Convolutions over what is remembered, with embeddings of cell and slot, beside a linear way.

    Their last layers start at zero: an untrained network leaves the base as it is.

    Attributes:
        mean: Of each feature and channel over the training part, set before training.
        deviation: Standard deviation likewise.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config, local = config, config.local
        count = num_features(config.memory)
        self.register_buffer("mean", torch.zeros(count, config.channels))
        self.register_buffer("deviation", torch.ones(count, config.channels))
        inputs = count * config.channels * (2 if local.overall else 1) + local.cell_embedding + local.slot_embedding
        self.cells = None
        if local.cell_embedding:
            self.cells = nn.Parameter(torch.randn(local.cell_embedding, config.remembered_cells) * _EMBEDDING_STD)
        self.slots = nn.Embedding(config.num_slots, local.slot_embedding) if local.slot_embedding else None
        if self.slots is not None:
            nn.init.normal_(self.slots.weight, std=_EMBEDDING_STD)
        self.first = nn.Conv2d(inputs, local.width, local.kernel, padding=local.kernel // 2)
        hidden = [
            nn.Conv2d(local.width, local.width, local.kernel, padding=local.kernel // 2) for _ in range(local.depth - 1)
        ]
        self.hidden = nn.ModuleList(hidden)
        self.last = nn.Conv2d(local.width, config.channels, 1)
        nn.init.zeros_(self.last.weight)
        assert self.last.bias is not None
        nn.init.zeros_(self.last.bias)
        self.direct = nn.Conv2d(inputs, config.channels, local.kernel, padding=local.kernel // 2, bias=False)
        nn.init.zeros_(self.direct.weight)

    def set_scale(self, mean: Float[Tensor, "feature channel"], deviation: Float[Tensor, "feature channel"]) -> None:
        """Set what the features are standardized with."""
        self.mean.copy_(mean)
        self.deviation.copy_(deviation.clamp(min=_LEAST_DEVIATION))

    def forward(
        self, features: Float[Tensor, "batch feature channel cell"], slot: Int64[Tensor, " batch"]
    ) -> Float[Tensor, "batch channel cell"]:
        """Return the correction of the base, in units of what the base leaves.

        Args:
            features: As `FrameMemory.features` gives them.
            slot: Slot to predict.
        """
        batch, _, _, num_cells = features.shape
        scaled = ((features - self.mean[..., None]) / self.deviation[..., None]).flatten(1, 2)
        parts = [scaled]
        if self.config.local.overall:
            parts.append(scaled.mean(-1, keepdim=True).expand(-1, -1, num_cells))
        if self.cells is not None:
            parts.append(self.cells.expand(batch, -1, -1))
        if self.slots is not None:
            parts.append(self.slots(slot)[..., None].expand(-1, -1, num_cells))
        stacked = torch.cat(parts, dim=1)
        if self.config.local.kernel > 1:
            grid = stacked.view(batch, -1, self.config.height, self.config.width)
            return self._correct(grid, lambda layer, x: layer(x)).flatten(2)
        # Cell by cell this is a matrix product, which is faster than a convolution with a kernel of one.
        rows = stacked.transpose(1, 2)
        return self._correct(rows, _linear).transpose(1, 2)

    def _correct(self, stacked: Tensor, apply: Callable[[nn.Module, Tensor], Tensor]) -> Tensor:
        x = F.gelu(apply(self.first, stacked))
        for layer in self.hidden:
            x = x + F.gelu(apply(layer, x))
        return apply(self.last, x) + apply(self.direct, stacked)


def _linear(layer: nn.Module, x: Tensor) -> Tensor:
    """A convolution with a kernel of one, with the channels last."""
    assert isinstance(layer, nn.Conv2d)
    return F.linear(x, layer.weight.flatten(1), layer.bias)
