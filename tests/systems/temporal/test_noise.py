import pytest
import torch
from torch import Tensor

from gridloom.core.errors import ConfigError
from gridloom.systems.temporal.noise import NoiseTracker, estimate_noise

DEVIATIONS = torch.tensor([0.1, 0.3, 2.0])


def residual(seed: int = 0, size: tuple[int, int] = (64, 64)) -> Tensor:
    """Difference of two frames with independent noise."""
    drawn = torch.randn((2, 3, *size), generator=torch.Generator().manual_seed(seed))
    return drawn * DEVIATIONS[:, None, None] * 2**0.5


def everywhere(values: Tensor) -> Tensor:
    return torch.ones_like(values[:, :1], dtype=torch.bool)


def test_the_estimate_is_the_variance_of_the_noise() -> None:
    found = torch.stack([estimate_noise(residual(seed), everywhere(residual())) for seed in range(20)]).mean(0)
    torch.testing.assert_close(found, (DEVIATIONS**2).expand(2, 3), rtol=0.06, atol=0)


def test_motion_in_a_fifth_of_the_cells_raises_the_estimate_by_two_thirds() -> None:
    ratios = []
    for seed in range(20):
        moved = residual(seed)
        moved[..., :12] += 20.0
        ratios.append(estimate_noise(moved, everywhere(moved)) / DEVIATIONS**2)
    assert torch.stack(ratios).mean().item() == pytest.approx(1.66, rel=0.06)  # of the quantile .5 / (1 - 12 / 64)


def test_cells_that_are_not_valid_do_not_count() -> None:
    spoiled, valid = residual(), everywhere(residual())
    valid[..., 40:, :] = False
    other = spoiled.clone()
    other[..., 40:, :] = torch.nan
    assert torch.equal(estimate_noise(spoiled, valid), estimate_noise(other, valid))


def test_the_gain_divides() -> None:
    values = residual()
    torch.testing.assert_close(
        estimate_noise(values, everywhere(values), gain=1.2) * 0.6, estimate_noise(values, everywhere(values), gain=2.0)
    )


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_without_a_residual_the_estimate_is_small_and_positive(share: float) -> None:
    values = residual() * (1 - share)
    found = estimate_noise(values, everywhere(values) if share else ~everywhere(values))
    assert bool(((found > 0) & (found <= 1e-12)).all())


def test_a_gain_of_0_is_refused() -> None:
    with pytest.raises(ConfigError, match="more than 0, got 0"):
        estimate_noise(residual(), everywhere(residual()), gain=0.0)


def test_a_tracker_knows_nothing_before_its_first_estimate() -> None:
    assert NoiseTracker().value is None


def test_a_tracker_averages_the_first_estimates_in_the_logarithm() -> None:
    tracker = NoiseTracker(memory=10.0)
    for value in (1.0, 4.0, 16.0):
        found = tracker.update(torch.full((1, 2), value))
    torch.testing.assert_close(found, torch.full((1, 2), 4.0))


def test_a_tracker_follows_a_change_within_its_memory() -> None:
    tracker = NoiseTracker(memory=5.0)
    for value in [1.0] * 50 + [9.0] * 15:
        found = tracker.update(torch.full((1, 1), value))
    assert found is not None
    assert 8.0 < found.item() <= 9.0


def test_a_tracker_leaves_out_samples_without_enough_cells() -> None:
    tracker = NoiseTracker()
    assert tracker.update(torch.tensor([[1.0], [2.0]]), torch.tensor([True, False])) is None
    found = tracker.update(torch.tensor([[3.0], [2.0]]), torch.tensor([False, True]))
    torch.testing.assert_close(found, torch.tensor([[1.0], [2.0]]))


def test_a_memory_below_one_frame_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"at least 1 frame, got 0\.5"):
        NoiseTracker(memory=0.5)
