"""What the temporal system learns from: clean clips, to which flicker is added."""

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from gridloom.core.batch import Batch, Step, masked_mean
from gridloom.core.contracts import Objective
from gridloom.core.random import normal, uniform
from gridloom.systems.temporal.clips import FRAMES
from gridloom.systems.temporal.config import TemporalConfig
from gridloom.systems.temporal.edges import edge_loss
from gridloom.systems.temporal.predictor import flow_losses
from gridloom.systems.temporal.source import CUT, FLOW, OCCLUDED
from gridloom.systems.temporal.stream import Pushed, TemporalStream

__all__ = ["FlickerFree"]

_LEAST = 1e-4  # of the noise variance: the loss is a logarithm


class FlickerFree(Objective):
    """The loss of a window: the logarithm of its mean squared error over the flicker's variance.

    The logarithm makes a window with little flicker count as much as one with a lot.

    Attributes:
        module: What fuses.
    """

    def __init__(self, config: TemporalConfig) -> None:
        super().__init__()
        self.config = config
        self.module = config.model.build()

    def begin_step(self, step: int) -> None:
        """Set alpha as the warm-up says."""
        if self.config.warmup.steps:
            self.config.warmup.apply(self.module, step)

    def forward(self, batch: Batch) -> Step:
        """Add flicker, filter, compare."""
        frames = batch.fields[FRAMES]
        clean, known = frames.values, frames.valid.expand_as(frames.values)
        variance = self.draw_variance(batch.key)
        scale = variance.sqrt()[:, None, :, None, None]
        noisy = clean + scale * normal(batch.key, tuple(clean.shape[1:]), "flicker")
        noisy = torch.where(known, noisy, torch.nan) if not bool(known.all()) else noisy
        pushed = self._filter(noisy, batch, variance)
        error = torch.stack([self._error(step, clean[:, at], known[:, at], scale[:, 0]) for at, step in pushed], dim=1)
        loss = torch.log(error.mean(dim=1) + _LEAST)
        metrics = {"error_db": 10.0 / math.log(10.0) * torch.log(error.detach().mean(dim=1) + _LEAST)}
        seen = [masked_mean(step.alpha.detach(), step.valid) for _, step in pushed]
        metrics["alpha"] = torch.stack(seen, dim=1).mean(dim=1)
        weights = self.config.loss
        if weights.edge:
            edges = [edge_loss(step.z_warp_refined, clean[:, at], step.valid) for at, step in pushed]
            metrics["edge"] = torch.stack(edges, dim=1).mean(dim=1) / scale.mean(dim=(1, 2, 3, 4))
            loss = loss + weights.edge * metrics["edge"]
        if weights.refine and self.module.refiner is not None:
            metrics["refined"] = self._refined(clean, pushed)
            loss = loss + weights.refine * metrics["refined"]
        if self.module.predictor is not None:
            photometric, smooth = self._flow_losses(clean, pushed, batch.features[CUT])
            loss = loss + weights.photometric * photometric + weights.smooth * smooth
            metrics |= {"photometric": photometric, "smooth": smooth}
        return Step(loss=loss, metrics={name: value.detach() for name, value in metrics.items()})

    def pictures(self, batch: Batch) -> Mapping[str, Tensor]:
        """Weight of the past, variance of the result, and where the past says nothing, in the last frame."""
        variance = self.draw_variance(batch.key)
        clean = batch.fields[FRAMES].values
        noisy = clean + variance.sqrt()[:, None, :, None, None] * normal(batch.key, tuple(clean.shape[1:]), "flicker")
        last = self._filter(noisy, batch, variance)[-1][1]
        maps = {"alpha": last.alpha, "variance": last.variance, "valid": last.valid.float()}
        return {name: values[0, 0] for name, values in maps.items()}

    def draw_variance(self, key: Int64[Tensor, " batch"]) -> Float[Tensor, "batch channel"]:
        """Variance of the flicker of each window, log-uniform between the configured levels while training."""
        flicker = self.config.flicker
        own = torch.tensor(self.config.model.variances, device=key.device)
        if not self.training:
            return (flicker.test**2 * own).expand(len(key), -1)
        drawn = uniform(key, (1,), "level")
        level = torch.exp(math.log(flicker.low) + drawn * math.log(flicker.high / flicker.low))
        return level**2 * own

    def _filter(self, noisy: Tensor, batch: Batch, variance: Tensor) -> list[tuple[int, Pushed]]:
        """Filter a window; return what became of the frames that count, with their places."""
        stream = TemporalStream(self.module, noise=variance)
        flow, cut = batch.fields[FLOW], batch.features[CUT]
        predicted = self.module.predictor is not None
        pushed = []
        for at in range(noisy.shape[1]):
            motion = None if predicted else torch.where(flow.valid[:, at], flow.values[:, at], torch.nan)
            occluded = None if predicted else batch.features[OCCLUDED][:, at]
            pushed.append((at, stream.push(noisy[:, at], motion, occluded=occluded, cut=cut[:, at])))
        return pushed[max(1, self.config.loss.skip) :]

    @staticmethod
    def _error(step: Pushed, clean: Tensor, known: Tensor, scale: Tensor) -> Tensor:
        answered = known & torch.isfinite(step.z)
        return masked_mean(((torch.where(answered, step.z, clean) - clean) / scale).square(), known)

    def _refined(self, clean: Tensor, pushed: Sequence[tuple[int, Pushed]]) -> Tensor:
        """Logarithm of the share of the channels' variance that a refined clean frame leaves of the next one."""
        own = torch.tensor(self.config.model.variances, device=clean.device).mean()
        left = []
        for at, step in pushed:
            moved = self.module.moved(clean[:, at - 1], clean[:, at], step.flow, step.valid)
            left.append(masked_mean((moved - clean[:, at]).square(), step.valid.expand_as(moved)))
        return torch.log(torch.stack(left, dim=1).mean(dim=1) / own + _LEAST)

    def _flow_losses(self, clean: Tensor, pushed: Sequence[tuple[int, Pushed]], cut: Tensor) -> tuple[Tensor, Tensor]:
        found = []
        for at, step in pushed:
            assert step.flow is not None
            photometric, smooth = flow_losses(clean[:, at - 1], clean[:, at], step.flow)
            goes_on = (~cut[:, at]).to(photometric.dtype)
            found.append(torch.stack([photometric * goes_on, smooth]))
        both = torch.stack(found).mean(dim=0)
        return both[0], both[1]
