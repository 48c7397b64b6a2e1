"""Small encoders and files of weights for the tests of this folder."""

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from gridloom.encoders.encoder import SemanticEncoder
from gridloom.systems.semantic import AutoEncoder, ModelConfig

LATENT = 16


def small_autoencoder(
    *, channels: int = 1, latent: int = LATENT, norm: Literal["group", "batch"] = "group", seed: int = 0
) -> AutoEncoder:
    """An autoencoder whose BatchNorm, if any, has statistics of its own."""
    torch.manual_seed(seed)
    model = AutoEncoder(ModelConfig(input_channels=channels, latent_dim=latent, width=4, norm=norm))
    if norm == "batch":
        model.train()(torch.randn(8, channels, 64, 64) * 2 + 1)
    return model.eval()


def weights_file(
    folder: Path, *, channels: int = 1, latent: int = LATENT, norm: Literal["group", "batch"] = "group"
) -> Path:
    """A checkpoint of a whole autoencoder."""
    path = folder / f"autoencoder-{channels}-{latent}-{norm}.pth"
    model = small_autoencoder(channels=channels, latent=latent, norm=norm)
    torch.save({"epoch": 3, "model_state_dict": model.state_dict()}, path)
    return path


def small_encoder(
    folder: Path, *, channels: int = 1, latent: int = LATENT, norm: Literal["group", "batch"] = "group"
) -> SemanticEncoder:
    """A `SemanticEncoder` with the weights of such a file."""
    file = weights_file(folder, channels=channels, latent=latent, norm=norm)
    return SemanticEncoder.from_pretrained(file, device="cpu")


def images(count: int = 4, *, channels: int = 1, size: int = 32, seed: int = 1) -> Tensor:
    """Normalized fields without gaps."""
    return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(seed))
