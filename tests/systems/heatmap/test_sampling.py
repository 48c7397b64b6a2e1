"""Drawn frames against a distribution that is known."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from gridloom.grid.events import pixels as pixels_of_counts
from gridloom.systems.heatmap.sampling import Sampler
from tests.systems.heatmap.small import CAP, config

FRAMES, CELLS = 400, 60


def sampler(*, cap: int = CAP, scale: str = "log1p") -> Sampler:
    return Sampler(config(model={"count_cap": cap, "count_scale": scale}))


def to_pixels(counts: Tensor, cap: int = CAP) -> Tensor:
    return torch.log1p(counts.float().clamp(max=cap)) / math.log1p(cap)


def world(*, seed: int, common: float = 0.0, frames: int = FRAMES) -> tuple[Tensor, Tensor, Tensor]:
    """Rates, what is expected of them as pixels, and counts that came, [frame, channel, cell].

    Counts are Poisson, with a factor for each whole frame whose logarithm has the standard deviation `common`.
    """
    rng = np.random.default_rng(seed)
    rate = rng.choice([0.1, 0.5, 1.0, 2.0, 4.0], (frames, 2, CELLS))
    factor = np.exp(common * rng.standard_normal((frames, 1, 1)) - common**2 / 2)
    counts = np.minimum(rng.poisson(rate * factor), CAP)
    expected = to_pixels(torch.from_numpy(rate))  # any rising function of the rate will do
    return torch.from_numpy(rate), expected.float(), torch.from_numpy(counts)


def fitted(common: float = 0.0) -> Sampler:
    made = sampler()
    _, expected, counts = world(seed=0, common=common)
    made.fit(expected, to_pixels(counts), torch.Generator().manual_seed(0))
    return made


def drawn_counts(made: Sampler, expected: Tensor, *, seed: int = 0, times: int = 1) -> Tensor:
    """[draw, frame, channel, cell]."""
    generator, answers = torch.Generator().manual_seed(seed), []
    for _ in range(times):
        common = torch.randn(len(expected), generator=generator)
        answers.append(made.counts_of(made.draw(expected[..., None], common, generator)[..., 0]))
    return torch.stack(answers)


@pytest.mark.parametrize(("cap", "scale"), [(15, "log1p"), (128, "log1p"), (300, "log1p"), (15, "linear")])
def test_counts_go_there_and_back(cap: int, scale: str) -> None:
    made, counts = sampler(cap=cap, scale=scale), torch.arange(cap + 1)
    values = pixels_of_counts(counts.numpy(), cap, scale=scale)
    assert torch.equal(made.counts_of(torch.from_numpy(values)), counts)
    torch.testing.assert_close(made.scale.pixels(counts.float()), torch.from_numpy(values), rtol=0, atol=1e-6)


def test_pixels_that_never_were_counts_have_fine_levels() -> None:
    made, values = sampler(cap=0), torch.rand(30, 2, 10, generator=torch.Generator().manual_seed(0))
    made.fit(values, values, torch.Generator().manual_seed(0))
    drawn = made.draw(values[..., None], torch.zeros(30), torch.Generator().manual_seed(1))
    assert drawn.min().item() >= 0 and drawn.max().item() <= 1
    assert (drawn[..., 0] - values).abs().mean() < 0.1


@pytest.mark.parametrize("common", [0.0, 0.4])
def test_the_counts_of_cells_with_one_forecast_are_spread_as_those_that_came(common: float) -> None:
    made = fitted(common)
    rate, expected, _ = world(seed=1, common=common)
    _, _, truth = world(seed=1, common=common, frames=FRAMES)
    drawn = drawn_counts(made, expected, times=3).flatten(0, 1)
    for value in (0.1, 0.5, 1.0, 2.0, 4.0):
        ours = torch.bincount(drawn[(rate == value).repeat(3, 1, 1)], minlength=CAP + 1).double()
        theirs = torch.bincount(truth[rate == value], minlength=CAP + 1).double()
        distance = (ours.cumsum(0) / ours.sum() - theirs.cumsum(0) / theirs.sum()).abs().max()
        assert distance < (0.03 if common == 0 else 0.06), f"rate {value}"


@pytest.mark.parametrize(("low", "high"), [(0.25, 0.75), (0.05, 0.95)])
def test_bands_hold_as_much_as_they_say(low: float, high: float) -> None:
    made = fitted()
    _, expected, truth = world(seed=2, frames=100)
    drawn = drawn_counts(made, expected, times=60).float()
    # Counts are whole: a band is judged by the place of the truth among the paths, ties broken by lot.
    jitter = torch.rand(drawn.shape, generator=torch.Generator().manual_seed(1)) - 0.5
    own = truth + torch.rand(truth.shape, generator=torch.Generator().manual_seed(2)) - 0.5
    place = (drawn + jitter < own).float().mean(0)
    inside = ((place >= low) & (place <= high)).float().mean()
    assert abs(inside.item() - (high - low)) < 0.03


@pytest.mark.parametrize("common", [0.0, 0.2, 0.5])
def test_totals_of_frames_spread_as_those_that_came(common: float) -> None:
    made = fitted(common)
    _, expected, counts = world(seed=3, common=common)
    came = (to_pixels(counts).sum((1, 2)) - expected.sum((1, 2))).square().mean().item()
    drawn = to_pixels(drawn_counts(made, expected, times=4).flatten(0, 1)).sum((1, 2))
    ours = (drawn - expected.sum((1, 2)).repeat(4)).square().mean().item()
    assert ours == pytest.approx(came, rel=0.35)
    if common:
        alone = sampler()
        alone.load_state_dict(made.state_dict())
        alone.factor.zero_()
        single = to_pixels(drawn_counts(alone, expected, times=4).flatten(0, 1)).sum((1, 2))
        less = (single - expected.sum((1, 2)).repeat(4)).square().mean().item()
        assert less < 0.7 * came, "cells by themselves spread less"
    else:
        assert made.factor.item() <= 0.15


def test_seeds_reproduce_paths() -> None:
    made, expected = fitted(0.4), torch.rand(3, 2, 5, 12, generator=torch.Generator().manual_seed(0))

    def walk(seed: int) -> Tensor:
        path = made.path(3, torch.Generator().manual_seed(seed))
        return torch.stack([path(expected, step) for step in range(4)])

    assert torch.equal(walk(1), walk(1))
    assert not torch.equal(walk(1), walk(2))
    steps = walk(1)
    assert steps.shape == (4, 3, 2, 5, 12) and not torch.equal(steps[0], steps[1])


def test_the_factor_of_a_path_follows_itself() -> None:
    made = fitted(0.5)
    made.persistence.fill_(0.9)
    path = made.path(20_000, torch.Generator().manual_seed(0))
    nothing, kept = torch.zeros(20_000, 2, 1, 1), []
    for step in range(3):
        path(nothing, step)
        kept.append(path._common.clone())
    values = torch.stack(kept)
    assert values.std(1).sub(1).abs().max() < 0.03
    found = torch.corrcoef(values)
    assert found[0, 1].item() == pytest.approx(0.9, abs=0.02) and found[0, 2].item() == pytest.approx(0.81, abs=0.02)


def test_what_is_drawn_rises_with_what_is_expected() -> None:
    made = fitted()
    expected = torch.linspace(0, 1, 41)[:, None, None].expand(-1, 2, 500)
    means = drawn_counts(made, expected)[0].double().mean((1, 2))
    assert means[0] < 0.15 and (means[1:] - means[:-1]).min() > -0.5 and means[-1] > 3.5


def test_where_nothing_was_expected_and_nothing_came_nothing_is_drawn() -> None:
    made, nothing = sampler(), torch.zeros(10, 2, 30)
    assert not made.fitted
    made.fit(nothing, nothing, torch.Generator().manual_seed(0))
    assert made.fitted
    assert not drawn_counts(made, nothing, times=3).any()


def test_forecasts_above_all_that_were_seen_are_as_the_largest_that_were() -> None:
    # Forecasts that take few values, as those of the last frame do, leave bins between them empty.
    made, counts = sampler(), torch.tensor([0, 1, 2]).repeat(200, 2, 30)
    made.fit(to_pixels(counts), to_pixels(counts), torch.Generator().manual_seed(0))
    above = to_pixels(torch.full((50, 2, 10), 7))
    assert drawn_counts(made, above).unique().tolist() == [2]


def test_without_any_frame_it_draws_nothing() -> None:
    made = sampler()
    made.fit(torch.zeros(0, 2, 30), torch.zeros(0, 2, 30), torch.Generator().manual_seed(0))
    assert not drawn_counts(made, torch.rand(5, 2, 30, generator=torch.Generator().manual_seed(0))).any()


def test_it_is_kept_with_the_weights() -> None:
    made, other = fitted(0.4), sampler()
    other.load_state_dict(made.state_dict())
    _, expected, _ = world(seed=1, frames=5)
    assert torch.equal(drawn_counts(other, expected), drawn_counts(made, expected)) and bool(other.fitted)
