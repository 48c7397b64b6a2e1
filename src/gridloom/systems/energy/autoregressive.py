"""Energies of many-dimensional coordinates, one dimension after another (Florence et al. 2021, appendix B.2)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gridloom.core.errors import ConfigError
from gridloom.systems.energy.model import EnergyHead, KeypointEncoder, SignalEncoder
from gridloom.systems.energy.search import (
    EnergyModel,
    Resampling,
    SearchResult,
    Trajectory,
    draw_uniform,
    lowest,
    new_generator,
    open_search,
    resample,
    take,
)

__all__ = ["AutoregressiveEBM", "AutoregressiveOptimizer"]


class AutoregressiveEBM(nn.Module):
    """One energy for each dimension j, given the dimensions before it: `E_j(x, y[:j + 1])`; their sum is the energy.

    Uniform samples cover a box of six dimensions badly, and six intervals well: the number of candidates grows with
    the dimensions, not exponentially.

    Args:
        encoder: Image to keypoints, or signal to features.
        outputs: Coordinates of a candidate.
        hidden: Width of each energy network.
    """

    def __init__(self, encoder: KeypointEncoder | SignalEncoder, *, outputs: int, hidden: int = 256) -> None:
        super().__init__()
        self.encoder, self.outputs = encoder, outputs
        self.heads = nn.ModuleList(
            EnergyHead(encoder.num_features, place + 1, hidden=hidden) for place in range(outputs)
        )

    def encode(self, x: Tensor) -> Float[Tensor, "batch features"]:
        """Features, once per image."""
        return self.encoder.encode(x)

    def partial(
        self, features: Float[Tensor, "batch features"], y: Float[Tensor, "batch candidates dimensions"]
    ) -> Float[Tensor, "batch candidates"]:
        """Energy of the last of the dimensions that `y` has, given those before it."""
        return self.heads[y.shape[-1] - 1](features, y)  # type: ignore[no-any-return]

    def energy(
        self, features: Float[Tensor, "batch features"], y: Float[Tensor, "batch candidates outputs"]
    ) -> Float[Tensor, "batch candidates"]:
        """Energies of whole candidates."""
        return torch.stack([self.partial(features, y[..., : place + 1]) for place in range(self.outputs)]).sum(0)

    def forward(self, x: Tensor, y: Float[Tensor, "batch candidates outputs"]) -> Float[Tensor, "batch candidates"]:
        """Energies of candidates for images."""
        return self.energy(self.encode(x), y)


@dataclass(frozen=True, kw_only=True)
class AutoregressiveOptimizer(Resampling):
    """Derivative-free search of one dimension after another.

    For each dimension: uniform samples beside the candidates so far; then, `iterations` times, whole candidates are
    drawn again by softmax(-E_j) and the new dimension gets noise; then they are drawn once more, so that the last noise
    is judged before the next dimension builds on it. In the end the lowest sum of energies.
    """

    num_samples: int = 1024
    """Candidates per image."""

    @torch.no_grad()
    def minimize(
        self,
        ebm: EnergyModel,
        x: Tensor,
        bounds: Float[Tensor, "2 outputs"],
        *,
        generator: torch.Generator | None = None,
        keep_trajectory: bool = False,
    ) -> SearchResult:
        """Search.

        Raises:
            ConfigError: The model has no energies of single dimensions.
        """
        if not hasattr(ebm, "partial"):
            raise ConfigError(
                f"autoregressive search needs an AutoregressiveEBM (model.kind autoregressive), "
                f"got {type(ebm).__name__}"
            )
        energy, features, bounds = open_search(ebm, x, bounds)
        generator, outputs = new_generator(generator, bounds), bounds.shape[1]
        y = draw_uniform(bounds, len(x), self.num_samples, generator).clone()
        candidates, energies = ([y], [energy(y)]) if keep_trajectory else ([], [])
        for place in range(outputs):
            low, high = bounds[:, place]
            for scale in self.noise_scales():
                # Candidates are drawn whole; the dimensions to come are still uniform, whoever has them.
                y = take(y, resample(ebm.partial(features, y[..., : place + 1]), generator))
                noise = torch.randn(y.shape[1], generator=generator, dtype=y.dtype, device=y.device)
                y[..., place] = torch.clamp(y[..., place] + scale * noise, low, high)
            y = take(y, resample(ebm.partial(features, y[..., : place + 1]), generator))
            if place + 1 < outputs:
                y[..., place + 1 :] = draw_uniform(bounds, len(x), self.num_samples, generator)[..., place + 1 :]
            if keep_trajectory:
                candidates.append(y.clone())
                energies.append(energy(y))
        best, least = lowest(y, energy(y))
        return SearchResult(
            best,
            Trajectory(
                candidates=tuple(candidates),
                energies=tuple(energies),
                energy=least,
                evaluations=self.num_samples * (self.iterations + 2) * outputs,
            ),
        )
