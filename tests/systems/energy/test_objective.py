"""The objective: one loss per sample that knows nothing of its companions, for every kind of model."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from gridloom.core.batch import Batch, Field
from gridloom.systems.energy.autoregressive import AutoregressiveEBM, AutoregressiveOptimizer
from gridloom.systems.energy.config import DataConfig, EnergyConfig, LossConfig, ModelConfig, SearchConfig
from gridloom.systems.energy.data import prepare, resolve
from gridloom.systems.energy.descent import LangevinOptimizer
from gridloom.systems.energy.loss import draw_negatives, gradient_penalty, info_nce, log_density
from gridloom.systems.energy.model import EBMMLP, ConvMLP, EBMConvMLP
from gridloom.systems.energy.objective import Location, build_encoder, build_model, build_optimizer
from gridloom.systems.energy.search import DerivativeFreeOptimizer, PatternSearch

DATA = DataConfig(size=(16, 20), square=5, num_train=12, num_validation=6, num_test=6)
MODEL = ModelConfig(widths=(4, 8), keypoints=6, hidden=16)
LOSS = LossConfig(num_negatives=16)
SEARCH = SearchConfig(num_samples=64, optimizer="derivative_free")

KINDS: dict[str, dict[str, Any]] = {
    "energy": {},
    "near": {"loss": replace(LOSS, near_scales=(0.3, 0.1))},
    "relative": {"model": replace(MODEL, fusion="relative", coord_conv=False)},
    "masked": {"data": replace(DATA, missing=0.3, noise=0.2), "model": replace(MODEL, mask_missing=True)},
    "two dots": {"data": replace(DATA, task="two_dots")},
    "explicit": {"model": replace(MODEL, kind="explicit")},
    "autoregressive": {
        "model": replace(MODEL, kind="autoregressive"),
        "search": replace(SEARCH, optimizer="autoregressive"),
        "loss": replace(LOSS, near_scales=(0.3,)),
    },
    "langevin negatives": {"loss": replace(LOSS, langevin_negatives=4)},
    "penalty": {"loss": replace(LOSS, gradient_penalty=1.0)},
    "langevin": {"search": replace(SEARCH, optimizer="langevin")},
    "signal": {"data": DataConfig(task="signal", num_train=12, num_validation=6, num_test=6)},
    "branches": {"data": DataConfig(task="branches", num_train=12, num_validation=6, num_test=6)},
}


def made(kind: str) -> tuple[EnergyConfig, Location, Batch]:
    config = resolve(EnergyConfig(**{"data": DATA, "model": MODEL, "loss": LOSS, "search": SEARCH, **KINDS[kind]}))
    torch.manual_seed(0)
    objective = Location(config)
    return config, objective, prepare(config).sources["train"].collate(list(range(8)), 0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_of_a_sample_does_not_depend_on_its_companions(kind: str) -> None:
    _, objective, batch = made(kind)
    together = objective(batch).loss
    alone = torch.cat([objective(batch.take(slice(i, i + 1))).loss for i in range(8)])
    backwards = objective(batch.take(torch.arange(7, -1, -1))).loss.flip(0)
    assert together.tolist() == pytest.approx(alone.tolist(), abs=1e-6)
    assert together.tolist() == pytest.approx(backwards.tolist(), abs=1e-6)
    assert together.std() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_of_training_has_finite_gradients_and_lowers_the_loss(kind: str) -> None:
    _, objective, batch = made(kind)
    optimizer = torch.optim.Adam(objective.parameters(), lr=1e-3)
    objective.train()
    losses = []
    for _ in range(15):
        optimizer.zero_grad()
        loss = objective(batch).loss.mean()
        loss.backward()
        assert all(torch.isfinite(p.grad).all() for p in objective.parameters() if p.grad is not None)
        if not losses:
            dead = [name for name, p in objective.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
            # InfoNCE does not see a constant that is added to all energies
            assert all(name.endswith("bias") and "cnn" not in name and "conv" not in name for name in dead), dead
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("kind", KINDS)
def test_only_held_out_passes_measure_the_error(kind: str) -> None:
    _, objective, batch = made(kind)
    trained = objective.train()(batch).metrics
    with torch.no_grad():
        held_out = objective.eval()(batch).metrics
    assert set(held_out) == set(trained) | {"error"} and "error" not in trained
    assert set(trained) == (set() if kind == "explicit" else {"separation"})
    assert all(value.shape == (8,) and not value.requires_grad for value in held_out.values())


@pytest.mark.parametrize("kind", ["energy", "explicit", "two dots", "branches", "autoregressive"])
def test_the_error_is_the_distance_in_cells_to_the_nearest_right_answer(kind: str) -> None:
    config, objective, batch = made(kind)
    with torch.no_grad():
        error = objective.eval()(batch).metrics["error"]
        answer = objective.answer(objective.features(batch.fields["image"])).double().numpy()
    spans = [high - low for low, high in config.data.bounds]
    right = batch.fields["answers"].values.double().numpy()
    assert right.shape[1] == (2 if config.data.many_answers else 1)
    for i in range(8):
        distances = [
            sum(((answer[i, d] - one[d]) * spans[d] / 2) ** 2 for d in range(len(spans))) ** 0.5 for one in right[i]
        ]
        assert error[i].item() == pytest.approx(min(distances), rel=1e-5)


def test_an_answer_that_is_not_there_is_not_counted() -> None:
    _, objective, batch = made("two dots")
    answers = batch.fields["answers"].values.clone()
    answers[:, 1] = torch.nan
    with torch.no_grad():
        error = objective.eval()(batch.with_field("answers", Field.of(answers))).metrics["error"]
        only = objective(batch.with_field("answers", Field.of(answers[:, :1].clone()))).metrics["error"]
    assert torch.equal(error, only)


def test_hidden_values_change_nothing() -> None:
    _, objective, batch = made("masked")
    image = batch.fields["image"]
    assert not image.valid.all()
    dirty = Field(values=torch.where(image.valid, image.values, 77.0), valid=image.valid)
    for mode in (objective.train(), objective.eval()):
        with torch.no_grad():
            clean, poisoned = mode(batch), mode(batch.with_field("image", dirty))
        assert torch.equal(clean.loss, poisoned.loss)
        assert all(torch.equal(clean.metrics[name], poisoned.metrics[name]) for name in clean.metrics)


# --- the losses by their parts ---


def parts(kind: str) -> tuple[Location, Batch, Tensor, Tensor, Tensor]:
    config, objective, batch = made(kind)
    target = batch.fields["target"].values
    bounds = objective.bounds
    negatives = draw_negatives(batch.key, target, bounds, 16, near_scales=config.loss.near_scales)
    features = objective.features(batch.fields["image"])
    return objective, batch, target, features, torch.cat([target[:, None], negatives], 1)


@pytest.mark.parametrize("kind", ["energy", "near"])
def test_the_loss_is_info_nce_with_the_density_where_it_is_not_uniform(kind: str) -> None:
    objective, batch, target, features, y = parts(kind)
    density = log_density(y, target, objective.bounds, near_scales=(0.3, 0.1)) if kind == "near" else None
    true, energies = torch.zeros(8, dtype=torch.int64), objective.model.energy(features, y)
    step = objective(batch)
    assert torch.allclose(step.loss, info_nce(energies, true, log_density=density), atol=1e-6)
    assert torch.allclose(step.metrics["separation"], energies[:, 1:].mean(1) - energies[:, 0], atol=1e-6)


def test_the_loss_of_single_coordinates_gives_the_true_ones_before_and_takes_their_density_out() -> None:
    objective, batch, target, features, y = parts("autoregressive")
    model, true = objective.model, torch.zeros(8, dtype=torch.int64)
    assert isinstance(model, AutoregressiveEBM)
    first = log_density(y[..., :1], target[:, :1], objective.bounds[:, :1], near_scales=(0.3,))
    second = log_density(y[..., 1:], target[:, 1:], objective.bounds[:, 1:], near_scales=(0.3,))
    known = torch.cat([target[:, None, :1].expand(-1, 17, -1), y[..., 1:]], -1)
    expected = info_nce(model.partial(features, y[..., :1]), true, log_density=first)
    expected = expected + info_nce(model.partial(features, known), true, log_density=second)
    assert torch.allclose(objective(batch).loss, expected, atol=1e-6)


def test_the_penalty_comes_on_top_in_training() -> None:
    objective, batch, _, features, y = parts("penalty")
    true, y = torch.zeros(8, dtype=torch.int64), y.requires_grad_(True)
    with torch.no_grad():
        objective.model.mlp.net[0].weight.mul_(20)  # steep enough to be punished
    energies = objective.model.energy(features, y)
    penalty = gradient_penalty(energies, y)
    assert (penalty > 0).all()
    assert torch.allclose(objective(batch).loss, info_nce(energies, true) + penalty, rtol=1e-5)
    with torch.no_grad():
        assert torch.allclose(objective.eval()(batch).loss, info_nce(energies, true), atol=1e-5)


def test_counter_examples_of_chains_lie_lower_than_the_uniform_ones() -> None:
    _, objective, batch = made("langevin negatives")
    with torch.no_grad():
        objective.model.mlp.net[2].weight.mul_(20)
    features, target = objective.features(batch.fields["image"]), batch.fields["target"].values
    negatives = objective._negatives(features.detach(), target, batch.key)
    energies = objective.model.energy(features, negatives)
    assert negatives.shape == (8, 20, 2) and not negatives.requires_grad and (negatives.abs() <= 1).all()
    assert energies[:, 16:].mean() < energies[:, :16].mean() - 0.1


def test_the_explicit_loss_is_the_mean_squared_error() -> None:
    _, objective, batch = made("explicit")
    model = objective.model
    assert isinstance(model, ConvMLP)
    error = (model(batch.fields["image"].values) - batch.fields["target"].values).square().mean(1)
    assert torch.allclose(objective(batch).loss, error, atol=1e-7)


# --- building ---


def test_a_configuration_makes_its_model_and_its_search() -> None:
    models = {"energy": EBMConvMLP, "explicit": ConvMLP, "autoregressive": AutoregressiveEBM, "signal": EBMMLP}
    for kind, expected in models.items():
        config, objective, _ = made(kind)
        assert type(objective.model) is expected is type(build_model(config))
        ours, theirs = build_encoder(config).state_dict(), objective.encoder.state_dict()
        assert {name: value.shape for name, value in ours.items()} == {n: v.shape for n, v in theirs.items()}
    explicit_signal = resolve(
        EnergyConfig(data=DataConfig(task="signal"), model=replace(MODEL, kind="explicit"), search=SEARCH)
    )
    assert build_model(explicit_signal)(torch.zeros(2, 100)).shape == (2, 1)
    optimizers = {"energy": DerivativeFreeOptimizer(num_samples=64), "langevin": LangevinOptimizer(num_samples=1)}
    optimizers |= {"autoregressive": AutoregressiveOptimizer(num_samples=8)}
    for kind, optimizer in optimizers.items():
        assert build_optimizer(made(kind)[0]) == optimizer
    assert build_optimizer(EnergyConfig()) == PatternSearch()


def test_polishing_answers_lowers_their_energy() -> None:
    config, objective, batch = made("energy")
    polished = Location(replace(config, search=replace(SEARCH, polish=True)))
    polished.load_state_dict(objective.state_dict())
    with torch.no_grad():
        features = objective.features(batch.fields["image"])
        plain, better = objective.answer(features), polished.answer(features)
        energies = [objective.model.energy(features, answer[:, None]) for answer in (plain, better)]
    assert (energies[1] <= energies[0] + 1e-6).all() and (energies[1] < energies[0]).any()
