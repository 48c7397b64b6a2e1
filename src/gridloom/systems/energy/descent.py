"""Finding the minimum of an energy with its gradient: Langevin dynamics, and the polish of a candidate."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gridloom.core.errors import ConfigError
from gridloom.systems.energy.search import (
    Energies,
    EnergyModel,
    SearchResult,
    Trajectory,
    draw_uniform,
    lowest,
    new_generator,
    open_search,
)

__all__ = ["LangevinOptimizer", "polish"]


@dataclass(frozen=True, kw_only=True)
class LangevinOptimizer:
    """Stochastic gradient Langevin dynamics (Florence et al. 2021, arXiv 2109.00137, appendix B.3; Welling & Teh 2011).

    `y <- clamp(y - clip(step * (gradient / 2 + noise_scale * N(0, 1))))`, with a polynomial schedule of the step.
    """

    num_samples: int = 256
    """Chains per image."""
    iterations: int = 100
    """Steps of each chain."""
    first_step: float = 0.1
    """Step size in the beginning."""
    last_step: float = 1e-5
    """Step size in the end."""
    power: float = 2.0
    """Power of the schedule between them; 1 is linear."""
    noise_scale: float = 1.0
    """Standard deviation of the noise; 0 for plain descent."""
    delta_clip: float = 0.1
    """Largest change of a coordinate in a step, as a share of half its bounds."""

    def __post_init__(self) -> None:
        """Refuse what makes no chain."""
        if self.num_samples < 1 or self.iterations < 1 or not self.delta_clip > 0:
            raise ConfigError(f"Langevin needs num_samples >= 1, iterations >= 1 and delta_clip > 0, got {self}")

    def step_size(self, iteration: int) -> float:
        """Step size of an iteration, from 0."""
        left = 1 - iteration / max(1, self.iterations - 1)
        return float((self.first_step - self.last_step) * left**self.power + self.last_step)

    def minimize(
        self,
        ebm: EnergyModel,
        x: Tensor,
        bounds: Float[Tensor, "2 outputs"],
        *,
        generator: torch.Generator | None = None,
        keep_trajectory: bool = False,
        start: Float[Tensor, "batch candidates outputs"] | None = None,
    ) -> SearchResult:
        """Run the chains; the result is the lowest of their ends.

        Args:
            ebm: The model.
            x: Images or signals, batch first.
            bounds: Lower and upper end of each coordinate.
            generator: Where draws come from; None makes one with seed 0. All images share the random numbers.
            keep_trajectory: Keep all candidates.
            start: Where the chains begin; None draws uniform in the bounds.
        """
        energy, _, bounds = open_search(ebm, x, bounds)
        generator = new_generator(generator, bounds)
        y = draw_uniform(bounds, len(x), self.num_samples, generator) if start is None else start.to(bounds)
        shape = (self.iterations, 1, y.shape[1], bounds.shape[1])
        noise = torch.randn(shape, generator=generator, dtype=y.dtype, device=y.device)
        candidates, energies = [], []
        for ends, values in self.chain(energy, y, bounds, noise):
            if keep_trajectory:
                candidates.append(ends)
                energies.append(values)
        best, least = lowest(ends, values)
        return SearchResult(
            best,
            Trajectory(
                candidates=tuple(candidates),
                energies=tuple(energies),
                energy=least,
                evaluations=y.shape[1] * (self.iterations + 1),
            ),
        )

    def chain(
        self,
        energy: Energies,
        y: Float[Tensor, "batch candidates outputs"],
        bounds: Float[Tensor, "2 outputs"],
        noise: Float[Tensor, "iterations any candidates outputs"],
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The candidates with their energies: at the start, and after each step.

        Args:
            energy: Candidates to energies.
            y: Where the chains begin.
            bounds: Lower and upper end of each coordinate.
            noise: Standard normal numbers of each step, broadcast over the batch.
        """
        low, high = bounds
        limit = self.delta_clip * (high - low) / 2
        values, gradient = _value_and_gradient(energy, y)
        yield y, values
        for iteration in range(self.iterations):
            change = self.step_size(iteration) * (0.5 * gradient + self.noise_scale * noise[iteration])
            y = torch.clamp(y - torch.clamp(change, -limit, limit), low, high)
            values, gradient = _value_and_gradient(energy, y)
            yield y, values


def _value_and_gradient(energy: Energies, y: Tensor) -> tuple[Tensor, Tensor]:
    with torch.inference_mode(False), torch.enable_grad():
        y = y.clone().requires_grad_(True)
        values = energy(y)
        (gradient,) = torch.autograd.grad(values.sum(), y)
    return values.detach(), gradient


def polish(
    ebm: EnergyModel,
    x: Tensor,
    bounds: Float[Tensor, "2 outputs"],
    best: Float[Tensor, "batch outputs"],
    *,
    iterations: int = 40,
) -> SearchResult:
    """Descend from a candidate by its gradient; the energy never rises.

    Each step follows the normalized gradient; its length grows by 1.5 on success and shrinks to 0.3 on failure, from
    a hundredth of the bounds. Backtracking of this kind copes with the kinks of a ReLU network.

    Args:
        ebm: The model.
        x: Images or signals, batch first.
        bounds: Lower and upper end of each coordinate.
        best: Where to begin.
        iterations: Steps.
    """
    energy, _, bounds = open_search(ebm, x, bounds)
    low, high = bounds
    y = torch.clamp(best[:, None].to(bounds), low, high)
    least, gradient = _value_and_gradient(energy, y)
    reach = torch.full_like(least, 0.01)
    for _ in range(iterations):
        scaled = gradient * (high - low)
        direction = scaled / scaled.norm(dim=2, keepdim=True).clamp(min=1e-12)
        trial = torch.clamp(y - reach[..., None] * direction * (high - low), low, high)
        values, slope = _value_and_gradient(energy, trial)
        better = values < least
        y = torch.where(better[..., None], trial, y)
        gradient = torch.where(better[..., None], slope, gradient)
        least = torch.where(better, values, least)
        reach = torch.where(better, reach * 1.5, reach * 0.3)
    return SearchResult(y[:, 0], Trajectory(energy=least[:, 0], evaluations=iterations + 1))
