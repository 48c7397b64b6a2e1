"""Searches: against slow references, and on energies whose minimum is known."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gridloom.core.errors import ConfigError, DataError
from gridloom.systems.energy.autoregressive import AutoregressiveEBM, AutoregressiveOptimizer
from gridloom.systems.energy.descent import LangevinOptimizer, polish
from gridloom.systems.energy.model import EBMMLP, EBMConvMLP, EnergyHead, KeypointEncoder, SignalEncoder
from gridloom.systems.energy.search import (
    DerivativeFreeOptimizer,
    FromFeatures,
    Optimizer,
    PatternSearch,
    Replay,
    draw_uniform,
    resample,
)

OPTIMIZERS: list[Optimizer] = [
    DerivativeFreeOptimizer(num_samples=256),
    PatternSearch(grid=12),
    LangevinOptimizer(num_samples=16, iterations=20),
]


@dataclass
class Analytic:
    """An energy given by a function of (what is seen, candidates)."""

    function: Callable[[Tensor, Tensor], Tensor]
    encoded: int = 0

    def encode(self, x: Tensor) -> Tensor:
        self.encoded += len(x)
        return x

    def energy(self, features: Tensor, y: Tensor) -> Tensor:
        return self.function(features, y)


def quadratic(x: Tensor, y: Tensor) -> Tensor:
    """The minimum is where x says."""
    return (y - x[:, None]).square().sum(-1)


def two_wells(x: Tensor, y: Tensor) -> Tensor:
    """A deep narrow well at x and a shallow wide one at -x."""
    deep, shallow = (y - x[:, None]).square().sum(-1), (y + x[:, None]).square().sum(-1)
    return torch.minimum(100 * deep - 3, 4 * shallow - 2)


class Keypoints(nn.Module):
    """The minimum is where the first keypoint lies, which depends on the image."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = KeypointEncoder(widths=(4, 8), keypoints=1, size=(12, 12))

    def encode(self, x: Tensor) -> Tensor:
        return torch.sin(100 * self.encoder.encode(x))

    def energy(self, features: Tensor, y: Tensor) -> Tensor:
        return 30 * quadratic(features, y)


def box(*ends: tuple[float, float], dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.tensor(ends, dtype=dtype).T


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def image_model(fusion: str = "concat") -> EBMConvMLP:
    torch.manual_seed(0)
    encoder = KeypointEncoder(widths=(4, 8), keypoints=3, size=(12, 12))
    model = EBMConvMLP(encoder, hidden=16, fusion=fusion)  # type: ignore[arg-type]
    with torch.no_grad():
        model.mlp.net[2].weight.mul_(20)
    return model.eval()


def signal_model(outputs: int) -> EBMMLP:
    torch.manual_seed(outputs)
    model = EBMMLP(SignalEncoder(10, hidden=16), outputs=outputs).eval()
    with torch.no_grad():
        model.rest[-1].weight.mul_(20)
    return model


# --- derivative-free ---


BOUNDS = {
    1: box((-1, 1), dtype=torch.float64),
    2: box((-1, 1), (0, 5), dtype=torch.float64),
    6: box((-1, 1), (0, 5), (-3, -2), (10, 20), (0, 1), (-0.1, 0.1), dtype=torch.float64),
}


@pytest.mark.parametrize("outputs", [1, 2, 6])
def test_a_replayed_search_is_the_algorithm(outputs: int) -> None:
    """Against Florence et al. 2021, algorithm 1, with one candidate at a time in numpy."""
    model, bounds, x = signal_model(outputs).double(), BOUNDS[outputs], uniform(3, 10).double()
    count, optimizer = 40, DerivativeFreeOptimizer(iterations=3)
    rng = np.random.default_rng(outputs)
    low, high = bounds.numpy()
    samples = low + (high - low) * rng.random((3, count, outputs))
    indices = rng.integers(0, count, (3, 3, count))
    noise = rng.standard_normal((3, 3, count, outputs))
    replay = Replay(
        samples=torch.from_numpy(samples),
        indices=[torch.from_numpy(part) for part in indices],
        noise=[torch.from_numpy(part) for part in noise],
    )
    best, trajectory = optimizer.minimize(model, x, bounds, keep_trajectory=True, replay=replay)
    for b in range(3):
        y, scale = samples[b], 0.33
        for iteration in range(3):
            found = trajectory.candidates[iteration][b].numpy()
            assert np.abs(found - y).max() < 1e-12
            drawn = np.empty_like(y)
            for i in range(count):
                for d in range(outputs):
                    moved = y[indices[iteration, b, i], d] + scale * noise[iteration, b, i, d]
                    drawn[i, d] = min(max(moved, low[d]), high[d])
            y, scale = drawn, scale * 0.5
        with torch.no_grad():
            energies = [float(model(x[b : b + 1], torch.from_numpy(y[None, i : i + 1]))) for i in range(count)]
        assert np.abs(best[b].numpy() - y[int(np.argmin(energies))]).max() < 1e-6
        assert float(trajectory.energy[b]) == pytest.approx(min(energies), abs=1e-6)
        assert trajectory.energies[3][b].tolist() == pytest.approx(energies, abs=1e-6)


def test_resampling_draws_by_softmax_of_minus_the_energy() -> None:
    energies = torch.tensor([[0.0, 1.0, 2.0, 30.0], [1.0, 0.0, 0.0, 1.0]])
    rows = energies.repeat(1, 5000)
    drawn = resample(rows, torch.Generator().manual_seed(0)) % 4
    for row, energy in zip(drawn, energies.double(), strict=True):
        frequency = torch.bincount(row, minlength=4) / len(row)
        expected = torch.exp(-energy) / torch.exp(-energy).sum()
        assert (frequency - expected).abs().max() < 4 * math.sqrt(0.25 / 20_000)
    generator = torch.Generator().manual_seed(1)
    counts = torch.zeros(4, dtype=torch.float64)
    for _ in range(3000):
        counts += torch.bincount(resample(energies[:1].double(), generator)[0], minlength=4)
    expected = (-energies[0]).double().softmax(0)
    assert (counts / counts.sum() - expected).abs().max() < 0.02


def test_resampling_copes_with_energies_of_any_size() -> None:
    energies = torch.tensor([[1e6, -1e6, 0.0], [5e4, 5e4, 5e4]])
    drawn = resample(energies, torch.Generator().manual_seed(0))
    assert drawn[0].tolist() == [1, 1, 1] and drawn.min() >= 0 and drawn.max() <= 2


def test_uniform_candidates_fill_bounds_that_differ_and_are_the_same_for_each_image() -> None:
    y = draw_uniform(box((0, 5), (-3, -2)), 3, 20_000, torch.Generator().manual_seed(0))
    assert torch.equal(y[0], y[2])
    assert y[0].mean(0).tolist() == pytest.approx([2.5, -2.5], abs=0.05)
    assert y[0].std(0).tolist() == pytest.approx([5 / math.sqrt(12), 1 / math.sqrt(12)], rel=0.02)


def test_the_derivative_free_search_follows_the_wells_of_a_quadratic() -> None:
    x = 1.6 * uniform(4, 2) - 0.8
    best, trajectory = DerivativeFreeOptimizer(iterations=8).minimize(
        Analytic(lambda f, y: 50 * quadratic(f, y)), x, box((-1, 1), (-1, 1))
    )
    assert (best - x).norm(dim=1).max() < 0.02
    assert torch.equal(trajectory.energy, 50 * quadratic(x, best[:, None])[:, 0])
    assert trajectory.evaluations == 9 * 16384 and trajectory.candidates == ()


def test_a_trajectory_has_a_cloud_more_than_iterations_and_stays_inside() -> None:
    bounds = box((-1, 0.2), (0, 5))
    for iterations in (0, 1, 4):
        optimizer = DerivativeFreeOptimizer(num_samples=300, iterations=iterations, noise_scale=2.0)
        best, trajectory = optimizer.minimize(Analytic(quadratic), torch.ones(2, 2), bounds, keep_trajectory=True)
        assert len(trajectory.candidates) == len(trajectory.energies) == iterations + 1
        for cloud, energies in zip(trajectory.candidates, trajectory.energies, strict=True):
            assert cloud.shape == (2, 300, 2) and (cloud >= bounds[0]).all() and (cloud <= bounds[1]).all()
            assert torch.equal(energies, quadratic(torch.ones(2, 2), cloud))
        assert torch.equal(trajectory.energies[-1].min(1).values, quadratic(torch.ones(2, 2), best[:, None])[:, 0])


# --- what all searches share ---


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda optimizer: type(optimizer).__name__)
class TestEverySearch:
    def test_bounds_in_float64_do_not_make_candidates_float64(self, optimizer: Optimizer) -> None:
        bounds = box((-1, 1), (-1, 1), dtype=torch.float64)
        best, trajectory = optimizer.minimize(image_model(), uniform(2, 3, 12, 12), bounds, keep_trajectory=True)
        kinds = {part.dtype for part in (best, *trajectory.candidates, *trajectory.energies)}
        assert kinds == {torch.float32}

    def test_answers_depend_neither_on_companions_nor_on_the_place(self, optimizer: Optimizer) -> None:
        model, x, bounds = Keypoints().double(), uniform(3, 3, 12, 12).double(), box((-1, 1), (-1, 1)).double()
        together, _ = optimizer.minimize(model, x, bounds)
        alone = torch.cat([optimizer.minimize(model, x[i : i + 1], bounds).best for i in range(3)])
        backwards, _ = optimizer.minimize(model, x.flip(0), bounds)
        assert torch.allclose(together, alone, atol=1e-6) and torch.allclose(together, backwards.flip(0), atol=1e-6)
        assert torch.pdist(together).min() > 0.1

    def test_nothing_touches_the_global_generator_and_a_seed_repeats_the_search(self, optimizer: Optimizer) -> None:
        model, x, bounds = image_model(), uniform(2, 3, 12, 12), box((-1, 1), (-1, 1))
        state = torch.get_rng_state()
        found = [
            optimizer.minimize(model, x, bounds, generator=torch.Generator().manual_seed(seed), keep_trajectory=True)
            for seed in (5, 5, 6)
        ]
        unseeded = [optimizer.minimize(model, x, bounds).best for _ in range(2)]
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.equal(found[0].best, found[1].best) and torch.equal(unseeded[0], unseeded[1])
        first, other = (found[i].trajectory.candidates[-1] for i in (0, 2))
        assert torch.equal(first, other) == isinstance(optimizer, PatternSearch), "a pattern draws nothing"

    def test_it_works_without_gradients_and_in_inference_mode(self, optimizer: Optimizer) -> None:
        model, bounds = image_model(), box((-1, 1), (-1, 1))
        expected, _ = optimizer.minimize(model, uniform(2, 3, 12, 12), bounds)
        with torch.no_grad():
            assert torch.equal(optimizer.minimize(model, uniform(2, 3, 12, 12), bounds).best, expected)
        with torch.inference_mode():
            x = uniform(2, 3, 12, 12)
            assert torch.equal(optimizer.minimize(model, x, bounds.clone()).best, expected)
            features = model.encode(x)
            again, _ = optimizer.minimize(FromFeatures(model), features, bounds)
            polished, _ = polish(FromFeatures(model), features, bounds, again)
        assert torch.allclose(again, expected, atol=1e-5) and torch.isfinite(polished).all()
        assert all(parameter.grad is None for parameter in model.parameters())

    def test_each_image_is_encoded_once(self, optimizer: Optimizer) -> None:
        model = Analytic(quadratic)
        optimizer.minimize(model, torch.zeros(7, 2), box((-1, 1), (-1, 1)))
        assert model.encoded == 7

    @pytest.mark.parametrize("lower", [0.0, 1.0])
    def test_lower_ends_that_are_not_lower_are_refused(self, optimizer: Optimizer, lower: float) -> None:
        with pytest.raises(
            DataError, match=r"bounds must be \[2, outputs\] with lower ends below upper ends, got \[\["
        ):
            optimizer.minimize(Analytic(quadratic), torch.zeros(1, 2), torch.tensor([[-1.0, lower], [1.0, 0.0]]))


# --- pattern search ---


@pytest.mark.parametrize("outputs", [1, 2, 3])
class TestPatternSearch:
    bounds = ((-1.0, 1.0), (0.0, 5.0), (-3.0, -2.5))

    def places(self, outputs: int) -> tuple[Tensor, Tensor, Tensor]:
        bounds = box(*self.bounds[:outputs], dtype=torch.float64)
        unit = uniform(4, outputs, seed=outputs).double()
        return bounds, unit, bounds[0] + (bounds[1] - bounds[0]) * unit

    def test_it_finds_the_minimum_of_a_quadratic(self, outputs: int) -> None:
        bounds, _, target = self.places(outputs)
        best, trajectory = PatternSearch().minimize(Analytic(quadratic), target, bounds)
        assert ((best - target) / (bounds[1] - bounds[0])).abs().max() < 1e-4
        assert torch.equal(trajectory.energy, quadratic(target, best[:, None])[:, 0])

    def test_it_finds_a_minimum_on_the_border(self, outputs: int) -> None:
        bounds, unit, _ = self.places(outputs)
        corner = torch.where(unit > 0.5, bounds[1] + 0.3, bounds[0] - 0.1)
        best, _ = PatternSearch().minimize(Analytic(quadratic), corner, bounds)
        assert torch.equal(best, torch.where(unit > 0.5, bounds[1], bounds[0]))

    def test_the_deeper_of_two_wells_wins_and_both_are_reported(self, outputs: int) -> None:
        bounds = box(*[(-1.0, 1.0)] * outputs, dtype=torch.float64)
        target = (0.3 + 0.5 * uniform(4, outputs, seed=outputs)).double()
        target[:2] *= -1
        best, trajectory = PatternSearch().minimize(Analytic(two_wells), target, bounds)
        assert (best - target).abs().max() < 1e-4
        places, energies = trajectory.minima, trajectory.minima_energies
        assert places is not None and energies is not None
        for image in range(4):
            for well in (target[image], -target[image]):
                assert (places[image] - well).abs().amax(1).min() < 1e-4
            assert energies[image].min() == trajectory.energy[image] == pytest.approx(-3, abs=1e-4)
        assert torch.allclose(energies, two_wells(target, places))


def test_a_well_that_the_grid_sees_shallower_wins_all_the_same() -> None:
    """Between the grid's points lies the narrow deep well; on a point lies the bottom of the shallow one."""

    def energy(x: Tensor, y: Tensor) -> Tensor:
        step = 2 / 31
        shallow, deep = -1 + 25 * step, -1 + 5.5 * step
        wide = -1.0 * torch.exp(-(y[..., 0] - shallow).square() / (2 * 0.2**2))
        return wide - 2.0 * torch.exp(-(y[..., 0] - deep).square() / (2 * 0.025**2))

    best, trajectory = PatternSearch().minimize(Analytic(energy), torch.zeros(1, 1), box((-1, 1)), keep_trajectory=True)
    first = trajectory.candidates[0][0, int(trajectory.energies[0][0].argmin())]
    assert first.item() > 0 and best.item() == pytest.approx(-1 + 5.5 * 2 / 31, abs=1e-4)


def test_pattern_search_reports_its_work_and_stays_inside() -> None:
    search, bounds = PatternSearch(grid=8, rounds=3, starts=2), box((-1, 1), (0, 5))
    _, trajectory = search.minimize(Analytic(two_wells), torch.zeros(2, 2), bounds, keep_trajectory=True)
    assert [cloud.shape[1] for cloud in trajectory.candidates] == [64, 162, 162, 162]
    assert trajectory.evaluations == 550 and trajectory.minima is not None and trajectory.minima.shape == (2, 2, 2)
    for cloud in trajectory.candidates:
        assert (cloud >= bounds[0]).all() and (cloud <= bounds[1]).all()


def test_pattern_search_refuses_many_dimensions_and_grids_that_cannot_shrink() -> None:
    with pytest.raises(DataError, match=r"32\*\*6 candidates are too many; use AutoregressiveOptimizer.*6 dimensions"):
        PatternSearch().minimize(Analytic(quadratic), torch.zeros(1, 6), BOUNDS[6])
    for wrong in ({"grid": 1}, {"pattern": 4}, {"pattern": 3}, {"rounds": -1}, {"starts": 0}):
        with pytest.raises(ConfigError, match="pattern search needs grid >= 2"):
            PatternSearch(**wrong)


# --- by gradients ---


def test_the_step_of_langevin_falls_by_a_polynomial_to_its_end() -> None:
    langevin = LangevinOptimizer(first_step=0.5, last_step=1e-3, iterations=11, power=2.0)
    steps = [langevin.step_size(i) for i in range(11)]
    assert steps[0] == 0.5 and steps[-1] == pytest.approx(1e-3, abs=1e-15)
    assert steps[5] == pytest.approx((0.5 - 1e-3) * 0.25 + 1e-3)
    assert steps == sorted(steps, reverse=True)
    assert LangevinOptimizer(iterations=1).step_size(0) == pytest.approx(0.1)


def test_no_step_of_langevin_is_longer_than_the_clip_allows() -> None:
    bounds = box((-1, 1), (0, 10))
    langevin = LangevinOptimizer(num_samples=32, iterations=15, noise_scale=100.0, delta_clip=0.07)
    _, trajectory = langevin.minimize(Analytic(quadratic), torch.zeros(2, 2), bounds, keep_trajectory=True)
    clouds = torch.stack(list(trajectory.candidates))
    largest = (clouds[1:] - clouds[:-1]).abs().amax((0, 1, 2))
    assert largest.tolist() == pytest.approx([0.07, 0.35], rel=1e-4)
    assert (clouds >= bounds[0]).all() and (clouds <= bounds[1]).all()


def test_a_chain_is_its_formula() -> None:
    x, start = torch.tensor([[0.2, -0.4]]).double(), 2 * uniform(1, 5, 2).double() - 1
    noise = torch.randn(4, 1, 5, 2, generator=torch.Generator().manual_seed(0)).double()
    langevin, bounds = LangevinOptimizer(iterations=4, first_step=0.3), box((-1, 1), (-1, 0.5)).double()
    found = list(langevin.chain(lambda y: quadratic(x, y), start, bounds, noise))
    assert len(found) == 5 and torch.equal(found[0][0], start)
    y = start.numpy().copy()
    for iteration in range(4):
        gradient = 2 * (y - x.numpy()[:, None])
        change = langevin.step_size(iteration) * (0.5 * gradient + noise[iteration].numpy())
        y = np.clip(y - np.clip(change, [-0.1, -0.075], [0.1, 0.075]), [-1, -1], [1, 0.5])
        assert np.abs(found[iteration + 1][0].numpy() - y).max() < 1e-12


def test_langevin_without_noise_descends_and_with_noise_finds_the_minimum() -> None:
    x, bounds = 1.6 * uniform(3, 2) - 0.8, box((-1, 1), (-1, 1))
    plain = LangevinOptimizer(num_samples=8, iterations=30, noise_scale=0.0, first_step=0.5)
    _, trajectory = plain.minimize(Analytic(quadratic), x, bounds, keep_trajectory=True)
    energies = torch.stack(list(trajectory.energies))
    assert (energies[1:] <= energies[:-1] + 1e-6).all() and (energies[-1] < 0.1 * energies[0] + 1e-6).all()
    best, trajectory = LangevinOptimizer().minimize(Analytic(lambda f, y: 20 * quadratic(f, y)), x, bounds)
    assert (best - x).norm(dim=1).max() < 0.02 and trajectory.evaluations == 256 * 101
    start = x[:, None].expand(-1, 3, -1)
    stayed, _ = plain.minimize(Analytic(quadratic), x, bounds, start=start)
    assert torch.allclose(stayed, x, atol=1e-6)


def test_langevin_refuses_what_makes_no_chain() -> None:
    for wrong in ({"num_samples": 0}, {"iterations": 0}, {"delta_clip": 0.0}):
        with pytest.raises(ConfigError, match="Langevin needs num_samples >= 1"):
            LangevinOptimizer(**wrong)


def test_polish_never_raises_the_energy_and_stays_inside() -> None:
    model, x, bounds = image_model(), uniform(5, 3, 12, 12), box((-1, 1), (-1, 1))
    start = 2 * uniform(5, 2, seed=3) - 1
    with torch.no_grad():
        before = model(x, start[:, None])[:, 0]
        last = before
        for iterations in (0, 1, 3, 10, 40):
            best, trajectory = polish(model, x, bounds, start, iterations=iterations)
            energy = model(x, best[:, None])[:, 0]
            assert torch.allclose(energy, trajectory.energy, atol=1e-5)
            assert (trajectory.energy <= last + 1e-6).all() and (best.abs() <= 1).all()
            last = trajectory.energy
    assert (last < before - 1e-3).any()


def test_polish_finds_the_bottom_and_the_border() -> None:
    bounds, x = box((-1, 1), (0, 5)), torch.tensor([[0.31, 2.2], [0.9, 7.0]])
    best, _ = polish(Analytic(quadratic), x, bounds, torch.tensor([[0.4, 2.0], [0.7, 4.9]]), iterations=80)
    assert (best[0] - x[0]).norm() < 1e-3
    assert best[1].tolist() == pytest.approx([0.9, 5.0], abs=1e-2)


# --- one coordinate after another ---


class Separable(nn.Module):
    """Sharp wells in each coordinate, each depending on the one before."""

    outputs = 6

    def encode(self, x: Tensor) -> Tensor:
        return x

    def partial(self, features: Tensor, y: Tensor) -> Tensor:
        place = y.shape[-1] - 1
        center = features[:, None, place]
        if place:
            center = center + 0.2 * (y[..., place - 1] - features[:, None, place - 1])
        return 1000 * (y[..., place] - center).square()

    def energy(self, features: Tensor, y: Tensor) -> Tensor:
        return torch.stack([self.partial(features, y[..., : place + 1]) for place in range(6)]).sum(0)


def test_autoregressive_search_beats_the_derivative_free_one_in_six_dimensions() -> None:
    x, bounds = 1.6 * uniform(16, 6) - 0.8, box(*[(-1, 1)] * 6)
    one_by_one = AutoregressiveOptimizer(num_samples=400)
    best, trajectory = one_by_one.minimize(Separable(), x, bounds)
    # An evaluation of a whole energy is six of a single coordinate's; it gets as many of its own kind.
    whole = DerivativeFreeOptimizer(num_samples=trajectory.evaluations // 4)
    other, spent = whole.minimize(Separable(), x, bounds)
    assert spent.evaluations == trajectory.evaluations == 400 * 5 * 6
    ours, theirs = (best - x).norm(dim=1).mean(), (other - x).norm(dim=1).mean()
    assert ours < 0.75 * theirs and ours < 0.05
    alone = torch.cat([one_by_one.minimize(Separable(), x[i : i + 1], bounds).best for i in range(16)])
    assert torch.allclose(best, alone, atol=1e-6)


def test_autoregressive_search_keeps_its_way_in_bounds_that_differ() -> None:
    torch.manual_seed(0)
    model = AutoregressiveEBM(SignalEncoder(10, hidden=8), outputs=6, hidden=8).eval()
    bounds, state = BOUNDS[6].float(), torch.get_rng_state()
    search = AutoregressiveOptimizer(num_samples=50, iterations=2)
    best, trajectory = search.minimize(model, uniform(2, 10), bounds, keep_trajectory=True)
    assert torch.equal(torch.get_rng_state(), state)
    assert len(trajectory.candidates) == len(trajectory.energies) == 7
    for cloud, energies in zip(trajectory.candidates, trajectory.energies, strict=True):
        assert (cloud >= bounds[0]).all() and (cloud <= bounds[1]).all()
        with torch.no_grad():
            assert torch.allclose(energies, model(uniform(2, 10), cloud), atol=1e-4)
    last = trajectory.energies[-1].min(1)
    assert torch.equal(best, trajectory.candidates[-1][torch.arange(2), last.indices])
    assert torch.equal(trajectory.energy, last.values) and trajectory.evaluations == 50 * 4 * 6
    silent = search.minimize(model, uniform(2, 10), bounds)
    assert torch.equal(silent.best, best) and silent.trajectory.candidates == ()


def test_autoregressive_search_needs_energies_of_single_coordinates() -> None:
    with pytest.raises(ConfigError, match=r"needs an AutoregressiveEBM .*got Analytic"):
        AutoregressiveOptimizer().minimize(Analytic(quadratic), torch.zeros(1, 2), BOUNDS[2])
    assert hasattr(FromFeatures(Separable()), "partial") and not hasattr(FromFeatures(image_model()), "partial")


def test_searches_are_what_they_are_called() -> None:
    assert all(isinstance(search, Optimizer) for search in [*OPTIMIZERS, AutoregressiveOptimizer()])
    assert replace(DerivativeFreeOptimizer(), num_samples=1) == DerivativeFreeOptimizer(num_samples=1)
    assert EnergyHead(4, 2).outputs == 2
