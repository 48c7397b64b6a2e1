"""InfoNCE, its counter-examples and the penalty, against sums by hand in float64."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gridloom.core.random import window_keys
from gridloom.systems.energy.loss import draw_negatives, gradient_penalty, info_nce, log_density

UNIT = torch.tensor([[-1.0, -1.0], [1.0, 1.0]])


def keys(count: int, first: int = 0) -> Tensor:
    return window_keys(0, 0, range(first, first + count))


def test_info_nce_is_the_cross_entropy_of_minus_the_energy() -> None:
    energies = 3 * torch.randn(4, 6, generator=torch.Generator().manual_seed(0)).double()
    density = torch.randn(4, 6, generator=torch.Generator().manual_seed(1)).double()
    index = torch.tensor([0, 5, 2, 2])
    for correction in (None, density):
        loss = info_nce(energies, index, log_density=correction)
        for b in range(4):
            logits = [-float(energies[b, i]) - (0 if correction is None else float(correction[b, i])) for i in range(6)]
            total = sum(math.exp(value) for value in logits)
            assert loss[b].item() == pytest.approx(-math.log(math.exp(logits[index[b]]) / total), abs=1e-12)


def test_the_loss_falls_with_the_true_energy_and_rises_with_a_density_there() -> None:
    energies, index = torch.zeros(1, 4), torch.zeros(1, dtype=torch.int64)
    assert info_nce(energies, index).item() == pytest.approx(math.log(4))
    lower = energies.index_fill(1, index, -2.0)
    assert info_nce(lower, index) < info_nce(energies, index)
    assert info_nce(energies, index, log_density=-lower) > info_nce(energies, index)


# --- counter-examples ---


def test_counter_examples_are_uniform_in_bounds_that_differ() -> None:
    bounds = torch.tensor([[-1.0, 0.0], [1.0, 5.0]])
    y = draw_negatives(keys(50), torch.zeros(50, 2), bounds, 400)
    assert y.shape == (50, 400, 2) and (y >= bounds[0]).all() and (y <= bounds[1]).all()
    flat = ((y - bounds[0]) / (bounds[1] - bounds[0])).flatten(0, 1)
    counts = np.stack([np.histogram(flat[:, d].numpy(), bins=10, range=(0, 1))[0] for d in range(2)]) / len(flat)
    assert np.abs(counts - 0.1).max() < 4 * math.sqrt(0.09 / len(flat))


@pytest.mark.parametrize("count", [400, 401])
def test_half_of_the_counter_examples_lie_near_the_target_at_the_scales_asked(count: int) -> None:
    target = torch.tensor([[0.5, -0.5]]).expand(200, -1)
    scales = (0.3, 0.03)
    y = draw_negatives(keys(200), target, UNIT, count, near_scales=scales)
    assert y.shape == (200, count, 2)
    far, near = y[:, : count - 200], y[:, count - 200 :] - target[:, None]
    assert far.abs().max() <= 1 and far.mean().abs() < 0.01
    for place, scale in enumerate(scales):
        part = near[:, place::2].flatten(0, 1)
        assert part.std(0).tolist() == pytest.approx([scale] * 2, rel=0.02)
        assert part.mean(0).tolist() == pytest.approx([0.0] * 2, abs=0.02 * scale + 1e-3)


@pytest.mark.parametrize("near", [(), (0.3, 0.1)])
def test_counter_examples_are_a_function_of_the_key(near: tuple[float, ...]) -> None:
    target = torch.linspace(-0.5, 0.5, 8).view(8, 1).expand(-1, 2)
    state = torch.get_rng_state()
    together = draw_negatives(keys(8), target, UNIT, 20, near_scales=near)
    alone = torch.cat([draw_negatives(keys(1, i), target[i : i + 1], UNIT, 20, near_scales=near) for i in range(8)])
    assert torch.equal(together, alone) and torch.equal(torch.get_rng_state(), state)
    assert torch.pdist(together.flatten(1)).min() > 0.1
    same_key = draw_negatives(keys(1).expand(2), target[:2], UNIT, 20, near_scales=near)
    assert torch.equal(same_key[0, :10], same_key[1, :10]), "uniform ones do not know the target"


@pytest.mark.parametrize("outputs", [1, 2])
def test_the_density_of_the_sampler_integrates_to_one(outputs: int) -> None:
    bounds = torch.tensor([[-1.0, 0.0], [1.0, 0.5]]).double()[:, :outputs]
    target = torch.tensor([[0.9, 0.1], [-0.2, 0.4]]).double()[:, :outputs]
    axis = torch.linspace(-3, 3, 1201).double()
    y = torch.stack(torch.meshgrid(*[axis] * outputs, indexing="ij"), -1).reshape(1, -1, outputs).expand(2, -1, -1)
    density = log_density(y, target, bounds, near_scales=(0.3, 0.1)).exp()
    assert (density.sum(1) * (6 / 1200) ** outputs).tolist() == pytest.approx([1.0, 1.0], abs=0.01)


def test_the_density_is_the_mixture_by_hand() -> None:
    bounds = torch.tensor([[-1.0, 0.0], [1.0, 5.0]], dtype=torch.float64)
    target, scales = torch.tensor([[0.2, 4.0]], dtype=torch.float64), (0.3, 0.1, 0.03)
    for y in ([0.2, 4.0], [0.3, 3.9], [-1.0, 0.0], [1.2, 4.0]):
        squared = (y[0] - 0.2) ** 2 + (y[1] - 4.0) ** 2
        inside = -1 <= y[0] <= 1 and 0 <= y[1] <= 5
        by_hand = 0.5 / 10 * inside
        by_hand += sum(0.5 / 3 * math.exp(-squared / (2 * s * s)) / (2 * math.pi * s * s) for s in scales)
        found = log_density(torch.tensor([[y]], dtype=torch.float64), target, bounds, near_scales=scales)
        assert found.item() == pytest.approx(math.log(by_hand), rel=1e-9)


def test_the_density_is_that_of_the_draws() -> None:
    target = torch.tensor([[0.3]])
    bounds = torch.tensor([[-1.0], [1.0]])
    y = draw_negatives(keys(1000), target.expand(1000, -1), bounds, 200, near_scales=(0.2, 0.05)).flatten()
    counts, edges = np.histogram(y.numpy(), bins=40, range=(-1.2, 1.2))
    fine = torch.linspace(-1.2, 1.2, 40 * 200 + 1)[:-1] + 0.15e-3
    mass = log_density(fine.view(1, -1, 1), target, bounds, near_scales=(0.2, 0.05)).exp().view(40, 200).mean(1)
    expected = mass.double().numpy() * (edges[1] - edges[0])
    assert np.abs(counts / len(y) - expected).max() < 5e-3


# --- consistency ---


def _fitted_energies(*, near: tuple[float, ...], correct: bool) -> tuple[np.ndarray, np.ndarray]:
    """A free table of energies over the cells of [-1, 1], trained on y ~ p; returns -E and log p, both centered."""
    cells, width = 16, 2 / 16
    centers = torch.linspace(-1 + width / 2, 1 - width / 2, cells)
    log_p = (-0.5 * ((centers - 0.2) / 0.4).square()).double()
    log_p -= log_p.logsumexp(0)
    table = nn.Parameter(torch.zeros(cells))
    bounds = torch.tensor([[-1.0], [1.0]])
    optimizer = torch.optim.Adam([table], lr=0.1)
    generator = torch.Generator().manual_seed(0)
    kept = []
    for step in range(240):
        if step == 120:
            optimizer.param_groups[0]["lr"] = 0.01
        cell = torch.multinomial(log_p.exp(), 256, replacement=True, generator=generator)
        target = (centers[cell] + width * (torch.rand(256, generator=generator) - 0.5))[:, None]
        negatives = draw_negatives(window_keys(0, step, range(256)), target, bounds, 16, near_scales=near)
        y = torch.cat([target[:, None], negatives], 1)
        place = ((y[..., 0] + 1) / width).floor().clamp(0, cells - 1).long()
        outside = (y[..., 0].abs() > 1).float()
        energies = table[place] + 30 * outside  # p is 0 there, and known to be
        density = log_density(y, target, bounds, near_scales=near) if correct else None
        loss = info_nce(energies, torch.zeros(256, dtype=torch.int64), log_density=density).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step >= 150:
            kept.append(-table.detach().double())
    ours = torch.stack(kept).mean(0)
    return (ours - ours.mean()).numpy(), (log_p - log_p.mean()).numpy()


def test_near_counter_examples_bias_the_energy_unless_their_density_is_taken_out() -> None:
    uniform, log_p = _fitted_energies(near=(), correct=False)
    corrected, _ = _fitted_energies(near=(0.3,), correct=True)
    biased, _ = _fitted_energies(near=(0.3,), correct=False)

    def error(found: np.ndarray) -> float:
        return float(np.abs(found - log_p).max())

    assert log_p.max() - log_p.min() > 3
    assert error(uniform) < 0.2 and error(corrected) < 0.2
    assert error(biased) > 3 * error(corrected)


# --- penalty ---


def test_the_penalty_is_the_largest_slope_beyond_the_margin_squared() -> None:
    y = torch.randn(2, 3, 2, generator=torch.Generator().manual_seed(0)).double().requires_grad_(True)
    slope = torch.tensor([3.0, 0.5]).double()
    energies = (slope * y.square()).sum(-1)
    found = gradient_penalty(energies, y, margin=1.0)
    for b in range(2):
        by_hand = 0.0
        for n in range(3):
            steepest = max(abs(6.0 * float(y.detach()[b, n, 0])), abs(1.0 * float(y.detach()[b, n, 1])))
            by_hand += max(0.0, steepest - 1.0) ** 2 / 3
        assert found[b].item() == pytest.approx(by_hand, rel=1e-12)
    flat = (0.1 * y).sum(-1)
    assert gradient_penalty(flat, y).tolist() == [0.0, 0.0]


def test_the_gradient_of_the_penalty_reaches_the_weights() -> None:
    weight = torch.tensor(4.0, requires_grad=True)
    y = torch.linspace(-1, 1, 5).view(1, 5, 1).requires_grad_(True)
    penalty = gradient_penalty((weight * y).sum(-1), y, margin=1.0)
    assert penalty.item() == pytest.approx(9.0)
    (slope,) = torch.autograd.grad(penalty.sum(), weight)
    assert slope.item() == pytest.approx(6.0)
