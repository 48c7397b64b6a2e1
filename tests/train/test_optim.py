"""The learning rate of each step, and which parameters decay."""

import itertools
import math

import pytest
import torch
from torch import nn

from gridloom.core.settings import TrainConfig
from gridloom.train.optim import learning_rate, make_optimizer

CONFIG = TrainConfig(steps=100, warmup_steps=10, learning_rate=1e-2, final_learning_rate=1e-4)


def test_the_schedule_rises_to_the_peak_and_ends_at_the_final_rate() -> None:
    assert learning_rate(0, CONFIG) == pytest.approx(1e-3)
    assert learning_rate(4, CONFIG) == pytest.approx(5e-3)
    assert learning_rate(9, CONFIG) == pytest.approx(1e-2)
    assert learning_rate(10, CONFIG) == pytest.approx(1e-2)
    assert learning_rate(99, CONFIG) == pytest.approx(1e-4)
    assert learning_rate(500, CONFIG) == pytest.approx(1e-4)


def test_the_schedule_is_a_line_and_half_a_cosine() -> None:
    rates = [learning_rate(step, CONFIG) for step in range(100)]
    assert all(a < b for a, b in itertools.pairwise(rates[:10]))
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))
    for step in (10, 30, 55, 80, 99):
        expected = 1e-4 + (1e-2 - 1e-4) * (1 + math.cos(math.pi * (step - 10) / 89)) / 2
        assert rates[step] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (1, 1), (5, 5), (5, 50), (2, 1), (100, 0)])
def test_short_runs_have_rates_between_zero_and_the_peak(steps: int, warmup: int) -> None:
    config = TrainConfig(steps=steps, warmup_steps=warmup, learning_rate=1e-2, final_learning_rate=1e-4)
    rates = [learning_rate(step, config) for step in range(steps)]
    assert all(0 < rate <= 1e-2 for rate in rates) and max(rates) == pytest.approx(1e-2)


def test_only_matrices_and_kernels_decay() -> None:
    model = nn.ModuleDict({"linear": nn.Linear(3, 4), "conv": nn.Conv2d(1, 2, 3), "norm": nn.LayerNorm(4)})
    model.scale = nn.Parameter(torch.ones(()))
    model.frozen = nn.Parameter(torch.ones(2, 2), requires_grad=False)
    optimizer = make_optimizer(model, TrainConfig(weight_decay=0.1, betas=(0.8, 0.99)))
    names = {parameter: name for name, parameter in model.named_parameters()}
    decay = {names[p]: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decay == {
        "linear.weight": 0.1,
        "conv.weight": 0.1,
        "linear.bias": 0.0,
        "conv.bias": 0.0,
        "norm.weight": 0.0,
        "norm.bias": 0.0,
        "scale": 0.0,
    }
    assert all(group["betas"] == (0.8, 0.99) for group in optimizer.param_groups)


def test_a_model_of_vectors_alone_has_an_optimizer() -> None:
    assert len(make_optimizer(nn.LayerNorm(3), TrainConfig()).param_groups) == 1


def test_one_step_is_adamw_as_published() -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    before = {name: parameter.detach().double().clone() for name, parameter in model.named_parameters()}
    config = TrainConfig(learning_rate=1e-2, weight_decay=0.1, betas=(0.9, 0.95))
    optimizer = make_optimizer(model, config)
    model(torch.randn(5, 3)).square().sum().backward()
    optimizer.step()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        gradient = parameter.grad.double()
        # After one step both moments, corrected for their start at 0, are the gradient and its square.
        decayed = before[name] * (1 - 1e-2 * (0.1 if parameter.ndim == 2 else 0.0))
        expected = decayed - 1e-2 * gradient / (gradient.abs() + 1e-8)
        assert torch.allclose(parameter.double(), expected, atol=1e-6)
