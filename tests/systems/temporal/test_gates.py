import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from gridloom.systems.temporal.gates import Evidence, Gain, KalmanGate, SpatialGate, constant_gain


def draw(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def evidence(
    *, channels: int = 3, size: tuple[int, int] = (24, 32), noise: float = 0.01, variance: float = 0.5, seed: int = 0
) -> Evidence:
    """A still scene: the state has the given share of the noise of a frame, and every cell is valid."""
    shape = (2, channels, *size)
    clean = draw(shape, seed) * 2
    return Evidence(
        warped=clean + math.sqrt(noise * variance) * draw(shape, seed + 1),
        current=clean + math.sqrt(noise) * draw(shape, seed + 2),
        variance=torch.full((2, 1, *size), variance),
        valid=torch.ones((2, 1, *size), dtype=torch.bool),
        noise=torch.full((2, channels), noise),
    )


def trained_like() -> SpatialGate:
    """A gate whose last layer is not zero, so that what it sees shows."""
    torch.manual_seed(0)
    gate = SpatialGate()
    last = gate.layers[-1]
    assert isinstance(last, torch.nn.Conv2d)
    torch.nn.init.normal_(last.weight)
    return gate


def gates() -> list[KalmanGate | SpatialGate]:
    return [KalmanGate(), trained_like()]


def weigh(gate: KalmanGate | SpatialGate, seen: Evidence) -> Gain:
    return gate(seen, torch.tensor(0.3)) if isinstance(gate, SpatialGate) else gate(seen)


def test_a_constant_gain_counts_the_noise_of_both_frames() -> None:
    gain = constant_gain(evidence(variance=0.5), torch.tensor(0.8))
    torch.testing.assert_close(gain.variance, torch.full_like(gain.variance, 0.64 * 0.5 + 0.04))


def test_a_constant_gain_is_the_measured_variance_of_a_still_scene() -> None:
    seen = evidence(size=(128, 128))
    gain = constant_gain(seen, torch.tensor(0.6))
    clean = draw((2, 3, 128, 128), 0) * 2
    fused = gain.alpha * seen.warped + (1 - gain.alpha) * seen.current
    assert (fused - clean).var().item() / 0.01 == pytest.approx(gain.variance.mean().item(), rel=0.03)


def test_an_untrained_spatial_gate_is_the_constant_of_its_bias() -> None:
    gain = SpatialGate()(evidence(), torch.logit(torch.tensor(0.3)))
    torch.testing.assert_close(gain.alpha, torch.full_like(gain.alpha, 0.3), atol=1e-6, rtol=0)


def test_the_kalman_gate_follows_a_slow_reference() -> None:
    seen = evidence(size=(7, 9))
    gain = KalmanGate()(seen)
    energy = ((seen.warped - seen.current).double() ** 2 / 0.01).mean(1)
    for y, x in ((0, 0), (3, 4), (6, 2), (2, 8)):
        window = energy[0, max(0, y - 2) : y + 3, max(0, x - 2) : x + 3]
        predicted = max(0.5, window.mean().item() - 1)
        assert gain.alpha[0, 0, y, x].item() == pytest.approx(1 / (1 + predicted), rel=1e-4)
        assert gain.variance[0, 0, y, x].item() == pytest.approx(predicted / (1 + predicted), rel=1e-4)


def test_the_kalman_gate_averages_still_frames_one_by_one() -> None:
    clean, gate = draw((1, 3, 48, 48), 5), KalmanGate()
    state, variance = clean + 0.1 * draw((1, 3, 48, 48), 6), torch.ones(1, 1, 48, 48)
    valid = torch.ones(1, 1, 48, 48, dtype=torch.bool)
    for frame in range(7):
        current = clean + 0.1 * draw((1, 3, 48, 48), 10 + frame)
        seen = Evidence(warped=state, current=current, variance=variance, valid=valid, noise=torch.full((1, 3), 0.01))
        gain = gate(seen)
        state, variance = gain.alpha * state + (1 - gain.alpha) * current, gain.variance
    error = (state - clean).square().mean().item() / 0.01
    assert 1 / 8 <= error < 1 / 4
    assert error < variance.mean().item() < 1.5 * error


@pytest.mark.parametrize("gate", gates())
def test_a_gate_gives_no_weight_and_no_knowledge_where_not_valid(gate: KalmanGate | SpatialGate) -> None:
    seen = evidence()
    valid = seen.valid.clone()
    valid[:, :, 4:9, :20] = False
    gain = weigh(gate, replace(seen, valid=valid, warped=torch.where(valid, seen.warped, seen.current)))
    assert torch.equal(gain.alpha == 0, ~valid)
    assert bool((gain.variance[~valid] == 1).all())


@pytest.mark.parametrize("gate", gates())
def test_a_gate_has_no_unit(gate: KalmanGate | SpatialGate) -> None:
    seen = evidence()
    scaled = replace(seen, warped=seen.warped * 40, current=seen.current * 40, noise=seen.noise * 1600)
    torch.testing.assert_close(weigh(gate, scaled).alpha, weigh(gate, seen).alpha, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("gate", gates())
def test_a_gate_does_not_count_channels(gate: KalmanGate | SpatialGate) -> None:
    seen = evidence()
    doubled = replace(
        seen,
        warped=seen.warped.repeat(1, 2, 1, 1),
        current=seen.current.repeat(1, 2, 1, 1),
        noise=seen.noise.repeat(1, 2),
    )
    torch.testing.assert_close(weigh(gate, doubled).alpha, weigh(gate, seen).alpha, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (3, 17), (8, 8), (9, 24)])
@pytest.mark.parametrize("gate", gates())
def test_a_gate_takes_any_size_and_stays_between_0_and_1(gate: KalmanGate | SpatialGate, size: tuple[int, int]) -> None:
    gain = weigh(gate, evidence(size=size))
    assert gain.alpha.shape == gain.variance.shape == (2, 1, *size)
    assert bool(((gain.alpha >= 0) & (gain.alpha <= 1) & (gain.variance > 0) & (gain.variance <= 1)).all())


@pytest.mark.parametrize("gate", gates())
def test_a_gate_looks_at_each_sample_alone(gate: KalmanGate | SpatialGate) -> None:
    seen = evidence()
    wild = torch.cat([seen.current[:1], seen.current[1:] * 100])
    torch.testing.assert_close(weigh(gate, replace(seen, current=wild)).alpha[0], weigh(gate, seen).alpha[0])


def test_the_padding_of_an_odd_size_does_not_reach_the_cells_that_it_does_not_border() -> None:
    seen = evidence(size=(24, 48))
    cropped = replace(
        seen, **{name: getattr(seen, name)[..., :45] for name in ("warped", "current", "variance", "valid")}
    )
    gate = trained_like()
    whole, part = weigh(gate, seen).alpha, weigh(gate, cropped).alpha
    torch.testing.assert_close(part[..., :24], whole[..., :24], atol=1e-5, rtol=1e-4)


def test_a_spatial_gate_learns_to_distrust_what_moved() -> None:
    torch.manual_seed(0)
    gate, bias = SpatialGate(), torch.zeros((), requires_grad=True)
    optimizer = torch.optim.Adam([*gate.parameters(), bias], lr=6e-2)
    left = torch.arange(32) < 16

    def scene(seed: int) -> tuple[Evidence, Tensor]:
        still = evidence(seed=seed, variance=0.2)
        moved = still.warped + torch.where(left, 0.3, 0.0) * draw((2, 3, 24, 32), seed + 7)
        return replace(still, warped=moved), draw((2, 3, 24, 32), seed) * 2

    for step in range(20):
        seen, clean = scene(100 * step)
        alpha = gate(seen, bias).alpha
        loss = (alpha * seen.warped + (1 - alpha) * seen.current - clean).square().mean() / 0.01
        optimizer.zero_grad()
        torch.log(loss).backward()
        optimizer.step()
    seen, _ = scene(12345)
    alpha = gate(seen, bias).alpha.mean(dim=(0, 1, 2))
    assert alpha[:14].mean() < 0.25
    assert alpha[18:].mean() > 0.65


def test_every_weight_of_a_spatial_gate_gets_a_gradient_after_a_step() -> None:
    gate, bias = trained_like(), torch.zeros((), requires_grad=True)
    gate(evidence(), bias).alpha.mean().backward()
    for weight in (*gate.parameters(), bias):
        assert weight.grad is not None
        assert bool((weight.grad != 0).any())
