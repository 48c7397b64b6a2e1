"""Weighted feature maps: each decoder layer reads its own mix of the encoder's layers."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["WeightedFeatureMaps"]


class WeightedFeatureMaps(nn.Module):
    """A linear combination of the encoder's layers for each decoder layer (CrossMAE, arXiv 2401.14391, section 3.4).

    Each decoder layer's own norm comes after it, in the decoder.

    Args:
        num_layers: Feature maps that come in.
        decoder_depth: Mixes that go out.
    """

    def __init__(self, num_layers: int, decoder_depth: int) -> None:
        super().__init__()
        self.linear = nn.Linear(num_layers, decoder_depth, bias=False)
        nn.init.normal_(self.linear.weight, std=1.0 / num_layers)

    @property
    def weights(self) -> Float[Tensor, "decoder_depth num_layers"]:
        """What each decoder layer takes of each map."""
        return self.linear.weight

    def forward(
        self, maps: Sequence[Float[Tensor, "batch tokens size"]]
    ) -> Float[Tensor, "batch tokens size decoder_depth"]:
        """Mix for all decoder layers at once, in one product; what each layer gets is contiguous."""
        stacked = torch.stack(list(maps)).flatten(1)
        mixed = torch.mm(self.linear.weight, stacked)
        return mixed.view(len(mixed), *maps[0].shape).movedim(0, -1)

    def mix(self, maps: Sequence[Float[Tensor, "batch tokens size"]], layer: int) -> Float[Tensor, "batch tokens size"]:
        """Mix for one decoder layer, as it needs it: slower than all at once, but nothing else is held."""
        weights = self.linear.weight[layer]
        mixed = maps[0] * weights[0]
        for place in range(1, len(maps)):
            mixed = torch.addcmul(mixed, maps[place], weights[place])
        return mixed
