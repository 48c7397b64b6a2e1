"""Sample paths: what a cell's count may be when a pixel is expected of it, learnt on the validation part.

The conditional distribution is the empirical one: cells are binned by what was forecast, and the counts that came are
the distribution of the bin. Cells of a frame are drawn together through a Gaussian copula with one factor for the whole
frame, which follows itself from frame to frame: markets and airports are busy all over at the same time.
"""

import math

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from gridloom.systems.heatmap.config import HeatmapConfig
from gridloom.systems.heatmap.scale import PixelScale

__all__ = ["NUM_BINS", "Sampler"]

NUM_BINS = 48
_NUM_QUANTILES = 1024
_PIXEL_LEVELS = 64
_LEAST_PIXEL = 1e-3
_PRIOR_CELLS = 2.0
_HALF = math.sqrt(0.5)


class Sampler(nn.Module):
    """Draws frames from what is expected of them.

    Attributes:
        edges: Upper edges of the bins of expected pixels, per channel.
        quantiles: Count at each of many equally likely quantiles, per channel and bin.
        factor: Share of the frame's common factor in the copula: its correlation between two cells is the square.
        persistence: Correlation of the factor from one frame to the next.
        fitted: Whether `fit` was called.
    """

    edges: Tensor
    quantiles: Tensor
    factor: Tensor
    persistence: Tensor
    fitted: Tensor

    def __init__(self, config: HeatmapConfig) -> None:
        super().__init__()
        # Pixels that never were counts are drawn from a fine grid of levels.
        self.scale = config.model.scale if config.model.count_cap else PixelScale(cap=_PIXEL_LEVELS - 1, kind="linear")
        channels = config.model.channels
        self.register_buffer("edges", torch.ones(channels, NUM_BINS - 1))
        self.register_buffer("quantiles", torch.zeros(channels, NUM_BINS, _NUM_QUANTILES, dtype=torch.int32))
        self.register_buffer("factor", torch.zeros(()))
        self.register_buffer("persistence", torch.zeros(()))
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))

    @property
    def top(self) -> int:
        """Largest count."""
        return self.scale.cap

    def counts_of(self, pixels: Tensor) -> Int64[Tensor, "*shape"]:
        """Whole counts of pixels."""
        return self.scale.counts(pixels.double()).round().long().clamp(0, self.top)

    @torch.no_grad()
    def fit(
        self,
        expected: Float[Tensor, "frame channel cell"],
        truth: Float[Tensor, "frame channel cell"],
        generator: torch.Generator,
    ) -> None:
        """Learn from forecasts of one step and what came.

        Args:
            expected: Forecast pixels, in order of time.
            truth: Pixels that came.
            generator: Of the draws with which the common factor is chosen.
        """
        levels = self.counts_of(truth)
        for channel in range(expected.shape[1]):
            self._fit_channel(channel, expected[:, channel].flatten(), levels[:, channel].flatten())
        self.fitted.fill_(True)
        self._fit_factor(expected, truth, generator)

    def _fit_channel(self, channel: int, expected: Tensor, levels: Tensor) -> None:
        some = expected[expected > _LEAST_PIXEL].sort().values
        if len(some):
            places = torch.linspace(0, len(some) - 1, NUM_BINS).round().long()
            inner = some[places][1:-1]
            self.edges[channel] = torch.cat([torch.tensor([_LEAST_PIXEL], dtype=inner.dtype), inner])
        bins = torch.bucketize(expected, self.edges[channel].contiguous())
        counts = torch.bincount(bins * (self.top + 1) + levels, minlength=NUM_BINS * (self.top + 1)).double()
        counts = counts.view(NUM_BINS, self.top + 1)
        # A bin that few cells fell into leans on those beside it; one that none did, on the next one below.
        shrunk = counts + _PRIOR_CELLS * _smooth(counts)
        shrunk = shrunk[_nearest_known(shrunk.sum(1) > 0)]
        shrunk[shrunk.sum(1) == 0, 0] = 1.0  # there were no cells at all
        cumulative = (shrunk / shrunk.sum(1, keepdim=True)).cumsum(1)
        middle = (torch.arange(_NUM_QUANTILES, dtype=torch.float64) + 0.5) / _NUM_QUANTILES
        found = torch.searchsorted(cumulative.contiguous(), middle.expand(NUM_BINS, -1).contiguous())
        self.quantiles[channel] = found.clamp(max=self.top).to(torch.int32)

    def _fit_factor(self, expected: Tensor, truth: Tensor, generator: torch.Generator) -> None:
        """Choose the factor so that totals of drawn frames spread as the totals that came do."""
        error = truth.sum((1, 2)) - expected.sum((1, 2))
        wanted = float(error.square().mean())
        if wanted <= 0 or len(error) < 3:
            return
        spreads = []
        grid = torch.linspace(0, 0.95, 20)
        for factor in grid:
            self.factor.fill_(float(factor))
            common = torch.randn(len(expected), generator=generator)
            drawn = self.draw(expected[..., None], common, generator)[..., 0].sum((1, 2))
            spreads.append(float((drawn - expected.sum((1, 2))).square().mean()))
        best = int((torch.tensor(spreads).clamp(min=1e-12).log() - math.log(wanted)).abs().argmin())
        self.factor.fill_(float(grid[best]))
        moved = error - error.mean()
        self.persistence.fill_(float((moved[1:] * moved[:-1]).mean() / moved.square().mean().clamp(min=1e-12)))
        self.persistence.clamp_(0.0, 0.95)

    def draw(
        self,
        expected: Float[Tensor, "batch channel y x"],
        common: Float[Tensor, " batch"],
        generator: torch.Generator,
    ) -> Float[Tensor, "batch channel y x"]:
        """Draw a frame for each expected one.

        Args:
            expected: Pixels.
            common: The frames' factors, standard normal.
            generator: Of the cells' own part.
        """
        own = torch.randn(expected.shape, generator=generator)
        share = self.factor
        normal = share * common[:, None, None, None] + torch.sqrt(1.0 - share.square()) * own
        uniform = 0.5 * (1.0 + torch.erf(normal * _HALF))
        place = (uniform * _NUM_QUANTILES).long().clamp(0, _NUM_QUANTILES - 1)
        levels = torch.empty_like(place)
        for channel in range(expected.shape[1]):
            bins = torch.bucketize(expected[:, channel].contiguous(), self.edges[channel].contiguous())
            levels[:, channel] = self.quantiles[channel][bins, place[:, channel]].long()
        return self.scale.pixels(levels.float())

    def path(self, batch: int, generator: torch.Generator) -> "Path":
        """Begin sample paths."""
        return Path(self, batch, generator)


class Path:
    """Draws the frames of sample paths one after the other; a `rollout.Draw`."""

    def __init__(self, sampler: Sampler, batch: int, generator: torch.Generator) -> None:
        self._sampler, self._generator = sampler, generator
        self._common = torch.randn(batch, generator=generator)

    def __call__(self, expected: Float[Tensor, "batch channel y x"], step: int) -> Float[Tensor, "batch channel y x"]:
        """Draw the next frame."""
        if step:
            kept = self._sampler.persistence
            fresh = torch.randn(len(self._common), generator=self._generator)
            self._common = kept * self._common + torch.sqrt(1.0 - kept.square()) * fresh
        return self._sampler.draw(expected.cpu(), self._common, self._generator).to(expected.device)


def _smooth(counts: Tensor) -> Tensor:
    """Distribution of each bin and its neighbors together."""
    padded = torch.cat([counts[:1], counts, counts[-1:]])
    around = padded[:-2] + padded[1:-1] + padded[2:]
    return around / around.sum(1, keepdim=True).clamp(min=1.0)


def _nearest_known(known: Bool[Tensor, " bin"]) -> Int64[Tensor, " bin"]:
    """For each bin itself, if cells fell into it or beside it; else the next one below, or the first one above."""
    numbers = torch.arange(len(known))
    below = torch.where(known, numbers, -1).cummax(0).values
    return torch.where(below >= 0, below, known.int().argmax())
