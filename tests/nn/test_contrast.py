import math

import pytest
import torch

from gridloom.nn.contrast import info_nce


def slow(first: torch.Tensor, second: torch.Tensor, temperature: float) -> list[float]:
    """Equation 1 of Chen et al. 2020, one pair at a time, in float64."""
    views = [vector.double() / vector.double().norm() for vector in [*first, *second]]
    count = len(first)
    losses = []
    for sample in range(count):
        total = 0.0
        for own, mate in ((sample, sample + count), (sample + count, sample)):
            alike = [math.exp(float(views[own] @ other) / temperature) for other in views]
            total += -math.log(alike[mate] / (sum(alike) - alike[own]))
        losses.append(total / 2)
    return losses


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_the_loss_is_the_papers(temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(5, 7, generator=generator) for _ in range(2))
    found = info_nce(first, second, temperature=temperature)
    assert found.tolist() == pytest.approx(slow(first, second, temperature), rel=1e-5)


def test_lengths_do_not_matter() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(4, 3, generator=generator) for _ in range(2))
    scaled = info_nce(7 * first, 0.1 * second, temperature=0.2)
    assert torch.allclose(scaled, info_nce(first, second, temperature=0.2), atol=1e-6)


def test_views_that_agree_cost_less_than_views_that_do_not() -> None:
    vectors = torch.eye(4)
    agree = info_nce(vectors, vectors, temperature=0.2)
    assert (agree < info_nce(vectors, vectors.roll(1, 0), temperature=0.2)).all()
