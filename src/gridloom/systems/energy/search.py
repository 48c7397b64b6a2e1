"""Finding the minimum of an energy: by resampling, by pattern search, by gradients, one dimension at a time.

All optimizers have one interface: `best, trajectory = optimizer.minimize(ebm, x, bounds)`. The features of an image are
computed once. Candidates are [B, N, outputs]; nothing draws from a global generator.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from gridloom.core.errors import ConfigError, DataError

__all__ = [
    "DerivativeFreeOptimizer",
    "Energies",
    "EnergyModel",
    "FromFeatures",
    "Optimizer",
    "PatternSearch",
    "Replay",
    "Resampling",
    "SearchResult",
    "Trajectory",
    "draw_uniform",
    "lattice",
    "lowest",
    "new_generator",
    "open_search",
    "resample",
    "take",
]

Energies = Callable[[Tensor], Tensor]
"""Candidates [B, N, outputs] to energies [B, N]."""

_MOST_CANDIDATES = 100_000
_ENCODE_AT_ONCE = 2


@runtime_checkable
class EnergyModel(Protocol):
    """What an optimizer needs of a model: features once per image, energies of many candidates."""

    def encode(self, x: Tensor) -> Tensor:
        """Features, batch first."""

    def energy(self, features: Tensor, y: Tensor) -> Tensor:
        """Energies [B, N] of candidates [B, N, outputs]."""


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """How a search went.

    Attributes:
        candidates: Candidates of each iteration, not always as many; empty unless the trajectory was asked for.
        energies: Their energies, in the same order.
        energy: Energy of the best candidate of each image.
        evaluations: Energies computed for each image.
        minima: Places that a pattern search followed, the best among them; None for other searches.
        minima_energies: Their energies.
    """

    candidates: Sequence[Float[Tensor, "batch _ outputs"]] = field(default_factory=tuple)
    energies: Sequence[Float[Tensor, "batch _"]] = field(default_factory=tuple)
    energy: Float[Tensor, " batch"]
    evaluations: int
    minima: Float[Tensor, "batch places outputs"] | None = None
    minima_energies: Float[Tensor, "batch places"] | None = None


class SearchResult(NamedTuple):
    """What a search found.

    Attributes:
        best: Coordinates of the lowest candidate, [B, outputs].
        trajectory: How it got there.
    """

    best: Tensor
    trajectory: Trajectory


@dataclass(frozen=True, kw_only=True)
class Replay:
    """Recorded randomness, to repeat a derivative-free search exactly.

    Attributes:
        samples: First candidates.
        indices: Which candidates are drawn again, for each iteration.
        noise: Standard normal noise, for each iteration.
    """

    samples: Float[Tensor, "batch candidates outputs"]
    indices: Sequence[Int64[Tensor, "batch candidates"]]
    noise: Sequence[Float[Tensor, "batch candidates outputs"]]


@runtime_checkable
class Optimizer(Protocol):
    """The one interface of all searches."""

    def minimize(
        self,
        ebm: EnergyModel,
        x: Tensor,
        bounds: Float[Tensor, "2 outputs"],
        *,
        generator: torch.Generator | None = None,
        keep_trajectory: bool = False,
    ) -> SearchResult:
        """Find the lowest energy of each image within the bounds.

        Args:
            ebm: The model.
            x: Images or signals, batch first.
            bounds: Lower and upper end of each coordinate.
            generator: Where draws come from; None makes one with seed 0.
            keep_trajectory: Keep all candidates.
        """


class FromFeatures:
    """A model as a search sees it, when the features are there already."""

    def __init__(self, model: EnergyModel) -> None:
        self.model = model

    def __getattr__(self, name: str) -> Any:
        """All else is the model's."""
        return getattr(self.model, name)

    def encode(self, x: Tensor) -> Tensor:
        """The features themselves."""
        return x

    def energy(self, features: Tensor, y: Tensor) -> Tensor:
        """Energies of candidates."""
        return self.model.energy(features, y)


def open_search(ebm: EnergyModel, x: Tensor, bounds: Float[Tensor, "2 outputs"]) -> tuple[Energies, Tensor, Tensor]:
    """Encode once.

    Returns:
        Energies of candidates, the features, and the bounds in the features' dtype (float64 bounds must not make the
        candidates float64).

    Raises:
        DataError: Bounds that are not [2, outputs], or whose lower ends are not below their upper ends.
    """
    if bounds.ndim != 2 or len(bounds) != 2 or not bool((bounds[0] < bounds[1]).all()):
        raise DataError(f"bounds must be [2, outputs] with lower ends below upper ends, got {bounds.tolist()}")
    with torch.inference_mode(False), torch.no_grad():  # inference tensors could not be searched by gradient
        # A few images at a time: their feature maps stay in the cache, and memory does not grow with the batch.
        features = torch.cat([ebm.encode(part) for part in torch.split(x, _ENCODE_AT_ONCE)])
    return partial(ebm.energy, features), features, bounds.to(features)


def new_generator(generator: torch.Generator | None, like: Tensor) -> torch.Generator:
    """The generator given, or one with seed 0."""
    return torch.Generator(like.device).manual_seed(0) if generator is None else generator


def draw_uniform(
    bounds: Tensor, batch: int, count: int, generator: torch.Generator
) -> Float[Tensor, "batch count outputs"]:
    """Candidates uniform in the bounds.

    They are the same for every image: what is found in one does not depend on its place in the batch.
    """
    low, high = bounds
    draw = torch.rand(1, count, bounds.shape[1], generator=generator, dtype=bounds.dtype, device=bounds.device)
    uniform: Tensor = low + (high - low) * draw
    return uniform.expand(batch, -1, -1)


def take(y: Tensor, indices: Tensor) -> Tensor:
    """Candidates [B, M, outputs] at the places [B, M]."""
    return torch.gather(y, 1, indices[..., None].expand(-1, -1, y.shape[-1]))


def lowest(y: Tensor, energies: Tensor) -> tuple[Tensor, Tensor]:
    """The best candidate of each image [B, outputs] and its energy [B]."""
    least, place = energies.min(dim=1)
    return take(y, place[:, None])[:, 0], least


def resample(energies: Tensor, generator: torch.Generator) -> Int64[Tensor, "batch candidates"]:
    """Draw as many candidates as there are by softmax(-E), with replacement.

    By the inverse of the cumulative distribution, which costs a search instead of a multinomial's table.
    """
    cumulative = (-energies).double().softmax(1).cumsum(1)
    draw = torch.rand(energies.shape[1], generator=generator, dtype=torch.float64, device=energies.device)
    draw = draw.sort().values  # the order of candidates means nothing, and neighbors are found in the cache
    found = torch.searchsorted(cumulative, draw * cumulative[:, -1:], right=True)
    return found.clamp_(max=energies.shape[1] - 1)


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """How often candidates are drawn again, and with how much noise."""

    num_samples: int = 16384
    """Candidates per image."""
    iterations: int = 3
    """Resamplings, each followed by noise."""
    noise_scale: float = 0.33
    """Standard deviation of the first noise, in the candidates' units."""
    noise_shrink: float = 0.5
    """Factor from one iteration's noise to the next."""

    def noise_scales(self) -> list[float]:
        """Standard deviation of the noise of each iteration."""
        return [self.noise_scale * self.noise_shrink**iteration for iteration in range(self.iterations)]


@dataclass(frozen=True, kw_only=True)
class DerivativeFreeOptimizer(Resampling):
    """Importance sampling, again and again (Florence et al. 2021, arXiv 2109.00137, algorithm 1).

    Uniform samples; in each iteration: energies, resampling by softmax(-E), normal noise, clamping to the bounds, less
    noise. In the end the lowest of the last candidates. Good up to about five dimensions. All images of a batch share
    the random numbers, not the indices that come of them.
    """

    @torch.no_grad()
    def minimize(
        self,
        ebm: EnergyModel,
        x: Tensor,
        bounds: Float[Tensor, "2 outputs"],
        *,
        generator: torch.Generator | None = None,
        keep_trajectory: bool = False,
        replay: Replay | None = None,
    ) -> SearchResult:
        """Search; with a replay the recorded draws take the place of the generator's."""
        energy, _, bounds = open_search(ebm, x, bounds)
        generator = new_generator(generator, bounds)
        low, high = bounds
        y = replay.samples if replay else draw_uniform(bounds, len(x), self.num_samples, generator)
        candidates, energies = [y], []
        for iteration, scale in enumerate(self.noise_scales()):
            if replay:
                indices, noise = replay.indices[iteration], replay.noise[iteration]
                if keep_trajectory:
                    energies.append(energy(y))
            else:
                energies.append(energy(y))
                indices = resample(energies[-1], generator)
                noise = torch.randn(y.shape[1:], generator=generator, dtype=y.dtype, device=y.device)
            y = torch.clamp(take(y, indices) + scale * noise, low, high)
            candidates.append(y)
        energies.append(energy(y))
        best, least = lowest(y, energies[-1])
        return SearchResult(
            best,
            Trajectory(
                candidates=tuple(candidates) if keep_trajectory else (),
                energies=tuple(energies) if keep_trajectory else (),
                energy=least,
                evaluations=y.shape[1] * (self.iterations + 1),
            ),
        )


@dataclass(frozen=True, kw_only=True)
class PatternSearch:
    """A grid over the bounds, then ever smaller grids around its lowest places: exact in one or two dimensions.

    Nothing is random. Several places are followed, so that of two wells the lower one wins even if the grid saw the
    other one deeper.
    """

    grid: int = 32
    """Candidates of the first grid along each axis."""
    pattern: int = 9
    """Candidates of a later grid along each axis, odd."""
    rounds: int = 10
    """Later grids, each of half the size of the one before; they overlap, since a valley can be narrow and oblique."""
    starts: int = 4
    """Places of the first grid that are followed, each the lowest of its neighborhood."""

    def __post_init__(self) -> None:
        """Refuse grids that cannot shrink."""
        if self.grid < 2 or self.pattern < 5 or self.pattern % 2 == 0 or self.rounds < 0 or self.starts < 1:
            raise ConfigError(
                f"pattern search needs grid >= 2, an odd pattern >= 5, rounds >= 0 and starts >= 1, got {self}"
            )

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
            DataError: The first grid would have more than a hundred thousand candidates (four dimensions or more).
        """
        energy, _, bounds = open_search(ebm, x, bounds)
        outputs = bounds.shape[1]
        if self.grid**outputs > _MOST_CANDIDATES:
            raise DataError(
                f"pattern search: {self.grid}**{outputs} candidates are too many; use AutoregressiveOptimizer, "
                f"DerivativeFreeOptimizer or LangevinOptimizer for {outputs} dimensions"
            )
        low, high = bounds
        y = (low + (high - low) * (lattice(self.grid, bounds) + 1) / 2).expand(len(x), -1, -1)
        values = energy(y)
        candidates, energies = ([y], [values]) if keep_trajectory else ([], [])
        centers, least = self._starts(y, values, outputs)
        reach = (high - low) / (self.grid - 1)
        around = lattice(self.pattern, bounds)
        for _ in range(self.rounds):
            y = torch.clamp(centers[:, :, None] + around * reach, low, high)
            values = energy(y.flatten(1, 2)).view(y.shape[:3])
            found, place = values.min(dim=2)
            moved = torch.gather(y, 2, place[..., None, None].expand(-1, -1, 1, outputs))[:, :, 0]
            better = found < least
            centers = torch.where(better[..., None], moved, centers)
            least = torch.where(better, found, least)
            reach = reach / 2
            if keep_trajectory:
                candidates.append(y.flatten(1, 2))
                energies.append(values.flatten(1))
        best, bottom = lowest(centers, least)
        return SearchResult(
            best,
            Trajectory(
                candidates=tuple(candidates),
                energies=tuple(energies),
                energy=bottom,
                evaluations=self.grid**outputs + self.rounds * centers.shape[1] * len(around),
                minima=centers,
                minima_energies=least,
            ),
        )

    def _starts(self, y: Tensor, energies: Tensor, outputs: int) -> tuple[Tensor, Tensor]:
        """Lowest places of the grid that no neighbor undercuts; the lowest of all stands in where there are fewer."""
        grid = energies.view(len(energies), 1, *[self.grid] * outputs)
        if outputs <= len(_POOLS):
            undercut = -_POOLS[outputs - 1](-grid, 3, stride=1, padding=1) < grid
            ranked = torch.where(undercut.flatten(1), torch.full((), torch.inf, device=y.device), energies)
        else:
            ranked = energies
        count = min(self.starts, energies.shape[1])
        least, places = ranked.topk(count, dim=1, largest=False)
        places = torch.where(least.isfinite(), places, places[:, :1])
        return take(y, places), torch.gather(energies, 1, places)


_POOLS = (F.max_pool1d, F.max_pool2d, F.max_pool3d)


def lattice(size: int, like: Float[Tensor, "2 outputs"]) -> Float[Tensor, "points outputs"]:
    """Points of a grid over [-1, 1] in every dimension."""
    axis = torch.linspace(-1, 1, size, dtype=like.dtype, device=like.device)
    return torch.stack(torch.meshgrid(*[axis] * like.shape[1], indexing="ij"), dim=-1).reshape(-1, like.shape[1])
