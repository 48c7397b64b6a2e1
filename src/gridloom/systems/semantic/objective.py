"""What the semantic system learns from: the field back from its latent, and views of a window told apart from others.

- Reconstruction: mean error over a sample's valid cells. Missing cells are neither seen nor scored.
- Masked (`mask.share`): blocks are hidden from the encoder while training, and asked back with the rest (after He et
  al. 2022, arXiv 2111.06377, for a latent that has to hold the whole field).
- Contrastive (`contrast.weight`): two keyed views of a window are to be alike and unlike all others in the batch (Chen
  et al. 2020, arXiv 2002.05709). It couples the samples of a batch; across processes they are gathered.
- Equivariant (`equivariance.weight`): the latent map of a window that is moved by a keyed part of a latent's cell is to
  be the moved latent map (after Zhou et al. 2025, arXiv 2503.09419).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gridloom.core.batch import Batch, Field, Step, masked_mean
from gridloom.core.contracts import Objective
from gridloom.nn.contrast import info_nce
from gridloom.nn.equivariance import equivariance_error, move, random_motion
from gridloom.systems.semantic.augment import augment, flip_at_random, hide_blocks
from gridloom.systems.semantic.config import SemanticConfig
from gridloom.systems.semantic.model import AutoEncoder, ResNetEncoder

__all__ = ["SelfSupervised"]


class SelfSupervised(Objective):
    """The autoencoder with the losses of its configuration, in normalized units.

    With `reconstruct` 0 the decoder still learns, from latents that it does not move: pictures then show what a
    contrastive encoder knows of a field. With `decode` off too the encoder is all that learns.
    """

    def __init__(self, config: SemanticConfig) -> None:
        super().__init__()
        self.config = config
        self.may_skip_parameters = not config.decode
        self.autoencoder = AutoEncoder(config.model, variables=config.data.variables, window=config.data.window)
        if config.contrast.weight:
            size = config.model.latent_dim
            self.projector = nn.Sequential(
                nn.Linear(size, size), nn.ReLU(), nn.Linear(size, config.contrast.projection)
            )

    @property
    def encoder(self) -> ResNetEncoder:
        """The part that is extracted."""
        return self.autoencoder.encoder

    def forward(self, batch: Batch) -> Step:
        """Learn from the field `image`."""
        config, image = self.config, batch.fields["image"]
        if config.contrast.weight:
            return self._contrast(batch)
        if config.flip and self.training:
            image = flip_at_random(image, batch.key, "flip")
        seen = self._masked(image, batch.key)
        latent = self.encoder.latent(seen)
        loss, rmse = self._reconstruct(latent, image)
        return self._with_motion(Step(loss=loss, metrics={"rmse": rmse}), seen, latent, batch.key)

    def _contrast(self, batch: Batch) -> Step:
        """Tell two views from those of the other samples, and get the first one back."""
        config = self.config
        views = [augment(batch.fields["image"], batch.key, config.contrast.augment, name) for name in ("a", "b")]
        seen = self._masked(views[0], batch.key)
        both = Field(values=torch.cat([seen.values, views[1].values]), valid=torch.cat([seen.valid, views[1].valid]))
        latent = self.encoder.latent(both)
        vectors = latent.mean((-2, -1)) if latent.ndim == 4 else latent
        first, second = self.projector(vectors).chunk(2)
        # A validation pass may give processes shares of different sizes: it stays with its own.
        told = info_nce(first, second, temperature=config.contrast.temperature, gather=self.training)
        if not config.decode:
            step = Step(loss=config.contrast.weight * told, metrics={"contrast": told.detach()})
            return self._with_motion(step, seen, latent[: len(batch)], batch.key)
        mine = latent[: len(batch)]
        error, rmse = self._reconstruct(mine if config.reconstruct else mine.detach(), views[0])
        loss = config.contrast.weight * told + (config.reconstruct or 1.0) * error
        step = Step(loss=loss, metrics={"contrast": told.detach(), "rmse": rmse})
        return self._with_motion(step, seen, mine, batch.key)

    def _with_motion(self, step: Step, seen: Field, latent: Tensor, key: Tensor) -> Step:
        """Add the error of the moved latent, if that is asked for."""
        config = self.config.equivariance
        if not config.weight:
            return step
        seen = Field(values=seen.values, valid=seen.valid.expand_as(seen.values))
        size = (seen.values.shape[-2], seen.values.shape[-1])
        flow = random_motion(key, size, shift=config.shift, rotate=config.rotate, zoom=config.zoom)
        moved = move(seen, flow)
        error = equivariance_error(latent, self.encoder.latent(moved), flow, known=seen.valid, known_moved=moved.valid)
        return Step(loss=step.loss + config.weight * error, metrics={**step.metrics, "equivariance": error.detach()})

    def _masked(self, image: Field, key: Tensor) -> Field:
        """What the encoder sees: without the hidden blocks, while training."""
        mask = self.config.mask
        return hide_blocks(image, key, mask.share, mask.block, "mask") if self.training else image

    def _reconstruct(self, latent: Tensor, image: Field) -> tuple[Tensor, Tensor]:
        """Loss and root mean square error of each sample over its valid cells."""
        valid = image.valid.expand_as(image.values)
        rebuilt = self.autoencoder.decoder(latent, (image.values.shape[-2], image.values.shape[-1])).float()
        squared = masked_mean((rebuilt - image.values).square(), valid)
        rmse = torch.sqrt(squared.detach())
        if self.config.loss == "mse":
            return squared, rmse
        return masked_mean(F.smooth_l1_loss(rebuilt, image.values, reduction="none"), valid), rmse
