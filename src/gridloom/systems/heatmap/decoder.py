"""From a latent to a heatmap."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gridloom.core.errors import DataError
from gridloom.systems.heatmap.config import ModelConfig
from gridloom.systems.heatmap.encoder import NUM_GROUPS

__all__ = ["HeatmapDecoder"]


class HeatmapDecoder(nn.Module):
    """A latent to a heatmap; without arguments exactly the seed's decoder (17,169,122 parameters).

    A linear layer to the coarsest map, stages of nearest up-sampling by two, convolution, norm and GELU, a 1x1
    convolution, a sigmoid.
    """

    def __init__(self, config: ModelConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or ModelConfig()
        height, width = config.coarse
        self.linear = nn.Linear(config.latent_dim, config.widths[-1] * height * width)
        stages = []
        for inputs, outputs in zip(config.widths[:0:-1], config.widths[-2::-1], strict=True):
            convolve = nn.Conv2d(inputs, outputs, 3, padding=1)
            up = nn.Upsample(scale_factor=2, mode="nearest")
            stages.append(nn.Sequential(up, convolve, nn.GroupNorm(NUM_GROUPS, outputs), nn.GELU()))
        self.stages = nn.ModuleList(stages)
        self.out = nn.Conv2d(config.widths[0], config.channels, 1)
        self.around = None
        if config.linear:
            self.around = nn.Linear(config.latent_dim, config.channels * config.height * config.width, bias=False)
            self.gain = nn.Parameter(torch.zeros(()))

    def start_at_zero(self) -> None:
        """Begin with logits of 0, so that what they correct is left as it is."""
        nn.init.zeros_(self.out.weight)
        assert self.out.bias is not None
        nn.init.zeros_(self.out.bias)

    def forward(self, z: Float[Tensor, "*leading latent"]) -> Float[Tensor, "*leading channel y x"]:
        """Decode latents to pixels in [0, 1].

        Args:
            z: `(B,T,latent_dim)` or `(N,latent_dim)`.

        Raises:
            DataError: Another shape.
        """
        return torch.sigmoid(self.logits(z))

    def logits(self, z: Float[Tensor, "*leading latent"]) -> Float[Tensor, "*leading channel y x"]:
        """What the sigmoid is taken of."""
        config = self.config
        if z.ndim not in (2, 3) or z.shape[-1] != config.latent_dim:
            raise DataError(
                f"latents must be (B,T,{config.latent_dim}) or (N,{config.latent_dim}), got {tuple(z.shape)}"
            )
        leading = tuple(z.shape[:-1])
        rows = z.reshape(-1, config.latent_dim)
        x = self.linear(rows).view(-1, config.widths[-1], *config.coarse)
        for stage in self.stages:
            x = stage(x)
        size = (config.channels, config.height, config.width)
        x = self.out(x)
        if self.around is not None:
            x = x + self.gain * self.around(rows).view(-1, *size)
        return x.view(*leading, *size)  # type: ignore[no-any-return]
