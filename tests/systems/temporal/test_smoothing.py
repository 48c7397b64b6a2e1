import pytest
import torch
from torch import Tensor

from gridloom.systems.temporal.fusion import Fusion
from gridloom.systems.temporal.smoothing import combine


def fusion(z: Tensor, *, warped: Tensor, alpha: float, variance: float, valid: bool = True) -> Fusion:
    ones = torch.ones_like(z[:, :1])
    return Fusion(
        z=z,
        alpha=alpha * ones,
        variance=variance * ones,
        prior=ones,
        valid=torch.full_like(ones, valid, dtype=torch.bool),
        z_warp=warped,
        z_warp_refined=warped,
        flow=None,
    )


def noisy(variance: float, seed: int) -> Tensor:
    return variance**0.5 * torch.randn((2, 3, 64, 64), generator=torch.Generator().manual_seed(seed))


def test_the_weight_is_that_of_least_variance_and_the_variance_is_measured() -> None:
    """Of two answers around 0, of variances 0.2 and 0.5."""
    past, future = noisy(0.2, 0), noisy(0.5, 1)
    there = fusion(past, warped=past, alpha=0.5, variance=0.2)
    back = fusion(future, warped=future, alpha=1 / 1.5, variance=0.3)
    gain = combine(there, back)
    torch.testing.assert_close(gain.alpha, torch.full_like(gain.alpha, 2 / 7))
    both = torch.lerp(past, future, gain.alpha)
    assert both.var().item() == pytest.approx(gain.variance.mean().item(), rel=0.03)
    assert gain.variance.mean().item() == pytest.approx(1 / 7, rel=1e-4)


def test_the_future_does_not_count_where_it_is_not_valid() -> None:
    past = noisy(0.2, 0)
    there = fusion(past, warped=past, alpha=0.5, variance=0.2)
    gain = combine(there, fusion(past, warped=past, alpha=0.9, variance=0.1, valid=False))
    assert bool((gain.alpha == 0).all())
    assert torch.equal(gain.variance, there.variance)


def test_a_gate_that_trusts_its_past_wholly_or_not_at_all_gives_finite_weights() -> None:
    past = noisy(0.2, 0)
    there = fusion(past, warped=past, alpha=0.5, variance=0.2)
    nothing, all_of_it = (combine(there, fusion(past, warped=past, alpha=alpha, variance=0.1)) for alpha in (0.0, 1.0))
    assert bool((nothing.alpha < 1e-5).all())
    assert bool((all_of_it.alpha == 1).all())
