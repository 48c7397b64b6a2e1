"""What the heatmap system learns from: each next frame."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from gridloom.core.batch import Batch, Step, masked_mean
from gridloom.core.contracts import Objective
from gridloom.core.errors import DataError
from gridloom.core.random import normal
from gridloom.systems.heatmap.config import HeatmapConfig, LossKind
from gridloom.systems.heatmap.encoder import FIELD, SLOT, HeatmapEncoder
from gridloom.systems.heatmap.sampling import Sampler
from gridloom.systems.heatmap.scale import PixelScale
from gridloom.systems.heatmap.source import REMEMBERED, USUAL
from gridloom.systems.heatmap.wrapper import AutoRegWrapper

__all__ = ["NextFrame", "elementwise_loss"]

_LEAST = 1e-4


class NextFrame(Objective):
    """The loss of a window: the mean over the cells of all its frames but the first, each predicted from those before.

    Frames that did not happen have no part in it.

    Attributes:
        sampler: Draws sample paths; fitted after training.
    """

    def __init__(self, config: HeatmapConfig) -> None:
        super().__init__()
        self.config = config
        self.model = AutoRegWrapper(config.model)
        self.sampler = Sampler(config)
        self.may_skip_parameters = not config.model.decode  # then nothing is encoded

    @property
    def encoder(self) -> HeatmapEncoder:
        """The part that is extracted."""
        return self.model.encoder

    def forward(self, batch: Batch) -> Step:
        """Predict the second to the last frame of each window."""
        field = batch.fields[FIELD]
        frames, valid = field.values, field.valid[:, 1:].expand_as(field.values[:, 1:])
        check_range(frames)
        seen, truth = frames[:, :-1], frames[:, 1:]
        noise = self.config.loss.context_noise
        if noise and self.training:
            drawn = normal(batch.key, tuple(seen.shape[1:]), "context noise")
            seen = (seen + noise * drawn).clamp(0.0, 1.0)
        slots = batch.features[SLOT]
        remembered, usual = batch.features.get(REMEMBERED), batch.features.get(USUAL)
        x_hat = self.model.predict(seen, slots[:, :-1], slots[:, 1:], remembered, usual).float()
        loss = masked_mean(elementwise_loss(x_hat, truth, self.config.loss.kind, self.config.model.scale), valid)
        answer = x_hat.detach().clamp(0.0, 1.0)
        error = masked_mean((answer - truth).square(), valid)
        last = masked_mean((frames[:, :-1] - truth).square(), valid)
        return Step(loss=loss, metrics={"mse": error, "mse_persistence": last})


def check_range(frames: Tensor) -> None:
    """Refuse pixels outside of [0, 1].

    Raises:
        DataError: There are some.
    """
    if torch.compiler.is_compiling() or not frames.numel():
        return
    low, high = (float(bound) for bound in torch.aminmax(frames.detach()))
    if not (low >= 0.0 and high <= 1.0):
        raise DataError(f"frames must be pixels in [0, 1], got {low:.4g} to {high:.4g}; scale counts first")


def elementwise_loss(
    x_hat: Float[Tensor, "*shape"], truth: Float[Tensor, "*shape"], kind: LossKind, scale: PixelScale
) -> Float[Tensor, "*shape"]:
    """Loss of each cell.

    Args:
        x_hat: Predicted pixels; with a residual they may leave [0, 1] a little.
        truth: Pixels in [0, 1].
        kind: Which loss.
        scale: Of the counts, for `poisson`.
    """
    if kind == "smooth_l1":
        return F.smooth_l1_loss(x_hat, truth, reduction="none")
    if kind == "bce":
        return F.binary_cross_entropy(_within(x_hat, _LEAST, 1 - _LEAST), truth, reduction="none")
    rate, count = scale.counts(_within(x_hat, _LEAST, 1.0)), scale.counts(truth)
    return rate - count * torch.log(rate)


def _within(x: Tensor, low: float, high: float) -> Tensor:
    """Clamp, with gradients as if nothing had been clamped: what has left the range must find back."""
    return x + (x.clamp(low, high) - x).detach()
