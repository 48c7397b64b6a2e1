"""InfoNCE over coordinates, or MSE for the explicit baseline; held-out passes measure the error of the answer."""

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from gridloom.core.batch import Batch, Field, Step
from gridloom.core.contracts import Objective
from gridloom.core.random import normal, uniform
from gridloom.systems.energy.autoregressive import AutoregressiveEBM, AutoregressiveOptimizer
from gridloom.systems.energy.config import SIGNAL_LENGTH, EnergyConfig
from gridloom.systems.energy.descent import LangevinOptimizer, polish
from gridloom.systems.energy.loss import draw_negatives, gradient_penalty, info_nce, log_density
from gridloom.systems.energy.model import EBMMLP, ConvMLP, EBMConvMLP, KeypointEncoder, SignalEncoder
from gridloom.systems.energy.search import DerivativeFreeOptimizer, FromFeatures, Optimizer, PatternSearch

__all__ = ["Location", "build_encoder", "build_model", "build_optimizer"]


def build_encoder(config: EnergyConfig) -> KeypointEncoder | SignalEncoder:
    """The untrained encoder of a resolved configuration."""
    model = config.model
    if config.data.is_signal:
        return SignalEncoder(SIGNAL_LENGTH, hidden=model.hidden)
    return KeypointEncoder(
        len(model.channels) or 3,
        size=config.data.size,
        widths=model.widths,
        keypoints=model.keypoints,
        coord_conv=model.coord_conv,
        missing=model.mask_missing,
        compat="seed" if model.compat == "seed" else None,
        variables=model.channels,
    )


def build_model(config: EnergyConfig) -> EBMConvMLP | EBMMLP | ConvMLP | AutoregressiveEBM:
    """The untrained model of a resolved configuration."""
    encoder, model, outputs = build_encoder(config), config.model, max(1, len(config.data.coordinates))
    if model.kind == "explicit":
        return ConvMLP(encoder, outputs=outputs, hidden=model.hidden)
    if model.kind == "autoregressive":
        return AutoregressiveEBM(encoder, outputs=outputs, hidden=model.hidden)
    if isinstance(encoder, SignalEncoder):
        return EBMMLP(encoder, outputs=outputs, depth=model.depth)
    return EBMConvMLP(encoder, outputs=outputs, hidden=model.hidden, depth=model.depth, fusion=model.fusion)


def build_optimizer(config: EnergyConfig) -> Optimizer:
    """The search of a configuration."""
    search = config.search
    noise = {"noise_scale": search.noise_scale, "noise_shrink": search.noise_shrink}
    if search.optimizer == "derivative_free":
        return DerivativeFreeOptimizer(num_samples=search.num_samples, iterations=search.iterations, **noise)
    if search.optimizer == "autoregressive":
        samples = max(1, search.num_samples // 8)
        return AutoregressiveOptimizer(num_samples=samples, iterations=search.iterations, **noise)
    if search.optimizer == "langevin":
        return LangevinOptimizer(num_samples=max(1, search.num_samples // 64))
    return PatternSearch()


class Location(Objective):
    """Learn where something is in an image.

    Loss of a sample: InfoNCE of its true coordinate against counter-examples drawn from its own key (Florence et al.
    2021, arXiv 2109.00137), one term for each coordinate with an autoregressive model; or, for the explicit baseline,
    the mean squared error of its coordinates. Held-out passes add `error`: the distance of the answer to the nearest
    right one, in the coordinates' own units (cells of the image).
    """

    def __init__(self, config: EnergyConfig) -> None:
        super().__init__()
        self.config = config
        self.model = build_model(config)
        self.optimizer = build_optimizer(config)
        low, high = torch.tensor(config.data.bounds or ((-1.0, 1.0),)).T
        self.register_buffer("half_range", (high - low) / 2, persistent=False)

    half_range: Tensor

    @property
    def encoder(self) -> KeypointEncoder | SignalEncoder:
        """The part that is extracted."""
        return self.model.encoder

    @property
    def bounds(self) -> Float[Tensor, "2 outputs"]:
        """Ends of the coordinates inside the model: -1 and 1."""
        ones = torch.ones_like(self.half_range)
        return torch.stack([-ones, ones])

    def forward(self, batch: Batch) -> Step:
        """Score the field `target` for the field `image`."""
        target = batch.fields["target"].values
        features = self.features(batch.fields["image"])
        if isinstance(self.model, ConvMLP):
            answer = self.model.regress(features)
            loss, metrics = (answer - target).square().mean(1), {}
        else:
            loss, separation = self._contrast(features, target, batch.key)
            metrics = {"separation": separation.detach()}
        if not self.training:
            metrics["error"] = self._error(features, batch.fields["answers"])
        return Step(loss=loss, metrics=metrics)

    def features(self, image: Field) -> Float[Tensor, "batch features"]:
        """Features of a field with its mask."""
        if isinstance(self.encoder, SignalEncoder):
            return self.encoder.encode(image.values)
        return self.encoder.embed(image)

    def _contrast(self, features: Tensor, target: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and separation (mean energy of the counter-examples minus that of the truth) of each sample."""
        negatives = self._negatives(features.detach(), target, key)
        y = torch.cat([target[:, None], negatives], dim=1)
        true = torch.zeros(len(target), dtype=torch.int64, device=target.device)
        model, settings = self.model, self.config.loss
        penalized = settings.gradient_penalty > 0 and torch.is_grad_enabled()
        y.requires_grad_(penalized)
        if isinstance(model, AutoregressiveEBM):
            terms = self._prefix_energies(model, features, y, target)
            losses = [
                info_nce(energies, true, log_density=self._log_density(y, target, slice(place, place + 1)))
                for place, energies in enumerate(terms)
            ]
            loss = torch.stack(losses).sum(0)
            energies = torch.stack(terms).sum(0)
        else:
            assert not isinstance(model, ConvMLP)
            energies = model.energy(features, y)
            loss = info_nce(energies, true, log_density=self._log_density(y, target, slice(None)))
        if penalized:
            loss = loss + settings.gradient_penalty * gradient_penalty(energies, y)
        return loss, energies[:, 1:].mean(1) - energies[:, 0]

    def _log_density(self, y: Tensor, target: Tensor, places: slice) -> Float[Tensor, "batch candidates"] | None:
        """Log-density of the sampler of some coordinates; None where it is constant, or left in."""
        settings = self.config.loss
        if not settings.near_scales or not settings.correct_density:
            return None
        seen = y.detach()[..., places], target[:, places], self.bounds[:, places]
        return log_density(*seen, near_scales=settings.near_scales)

    @staticmethod
    def _prefix_energies(
        model: AutoregressiveEBM, features: Tensor, y: Tensor, target: Tensor
    ) -> list[Float[Tensor, "batch candidates"]]:
        """Energies of each coordinate, those before it being the true ones."""
        count = y.shape[1]
        known = target[:, None].expand(-1, count, -1)
        return [
            model.partial(features, torch.cat([known[..., :place], y[..., place : place + 1]], dim=-1))
            for place in range(model.outputs)
        ]

    def _negatives(self, features: Tensor, target: Tensor, key: Tensor) -> Float[Tensor, "batch count outputs"]:
        settings = self.config.loss
        drawn = draw_negatives(key, target, self.bounds, settings.num_negatives, near_scales=settings.near_scales)
        count = settings.langevin_negatives
        if not count or isinstance(self.model, ConvMLP):
            return drawn
        outputs, chains = target.shape[1], LangevinOptimizer(num_samples=count, iterations=25)
        noise = normal(key, (chains.iterations, count, outputs), "chains").transpose(0, 1)
        start = 2 * uniform(key, (count, outputs), "starts of chains") - 1
        *_, (ends, _) = chains.chain(partial(self.model.energy, features), start, self.bounds, noise)
        return torch.cat([drawn, ends], dim=1)  # no gradient goes through a chain

    @torch.no_grad()
    def _error(self, features: Tensor, answers: Field) -> Float[Tensor, " batch"]:
        """Distance of each answer to the nearest right one."""
        distance = (self.answer(features)[:, None] - answers.values) * self.half_range
        distance = torch.where(answers.valid.all(-1), distance.norm(dim=-1), torch.inf)
        return distance.amin(1)

    @torch.no_grad()
    def answer(self, features: Float[Tensor, "batch features"]) -> Float[Tensor, "batch outputs"]:
        """The coordinates that the model gives, from -1 to 1: the minimum, or what the regression says."""
        if isinstance(self.model, ConvMLP):
            return self.model.regress(features)
        searched = FromFeatures(self.model)
        best, _ = self.optimizer.minimize(searched, features, self.bounds)
        if self.config.search.polish:
            best, _ = polish(searched, features, self.bounds, best)
        return best
