"""Configuration of the heatmap system."""

from dataclasses import dataclass
from typing import Literal

from gridloom.core.errors import ConfigError

__all__ = ["ModelConfig"]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    channels: int = 2
    height: int = 32
    width: int = 32
    num_slots: int = 239
    latent_dim: int = 4096
    widths: tuple[int, ...] = (32, 64, 128, 256)
    num_blocks: int = 2
    hidden: int = 1024
    dropout: float = 0.1
    alpha: float = 0.1
    slot_embedding: bool = True
    slot_init_std: float = 1.0
    normalize: Literal["frame", "none", "dataset", "frame+stats"] = "frame"
    pool: Literal["gap", "flatten", "softargmax"] = "gap"

    @property
    def coarse(self) -> tuple[int, int]:
        factor = 2 ** (len(self.widths) - 1)
        return self.height // factor, self.width // factor
