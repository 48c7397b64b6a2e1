"""Reconstruction of the cells that are there."""

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.nn import functional as F

from gridloom.core.batch import Batch, Field, Step, masked_mean
from gridloom.core.contracts import Objective
from gridloom.core.random import uniform
from gridloom.systems.semantic.config import SemanticConfig
from gridloom.systems.semantic.model import AutoEncoder, ResNetEncoder

__all__ = ["Reconstruction"]


class Reconstruction(Objective):
    """Mean error of the reconstruction over a sample's valid cells, in normalized units.

    Missing cells are neither seen nor scored: what they hold changes nothing.
    """

    def __init__(self, config: SemanticConfig) -> None:
        super().__init__()
        self.loss, self.flip = config.loss, config.flip
        self.autoencoder = AutoEncoder(config.model, variables=config.data.variables, window=config.data.window)

    @property
    def encoder(self) -> ResNetEncoder:
        """The part that is extracted."""
        return self.autoencoder.encoder

    def forward(self, batch: Batch) -> Step:
        """Reconstruct the field `image`."""
        image = batch.fields["image"]
        if self.flip and self.training:
            image = _flipped(image, uniform(batch.key, (2,), "flip") < 0.5)
        valid = image.valid.expand_as(image.values)
        rebuilt = self.autoencoder(image.values, valid).float()
        error = rebuilt - image.values
        squared = masked_mean(error.square(), valid)
        if self.loss == "mse":
            loss = squared
        else:
            loss = masked_mean(F.smooth_l1_loss(rebuilt, image.values, reduction="none"), valid)
        return Step(loss=loss, metrics={"rmse": torch.sqrt(squared.detach())})


def _flipped(image: Field, flips: Bool[Tensor, "batch 2"]) -> Field:
    """Flip each sample up-down, left-right, both or not."""

    def flip(tensor: Tensor) -> Tensor:
        for place, axis in enumerate((-2, -1)):
            chosen = flips[:, place].view(-1, *[1] * (tensor.ndim - 1))
            tensor = torch.where(chosen, tensor.flip(axis), tensor)
        return tensor

    return image.apply(flip)
