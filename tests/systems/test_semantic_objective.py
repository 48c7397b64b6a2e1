import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gridloom.core.batch import Batch, Field
from gridloom.core.errors import ConfigError
from gridloom.core.random import window_keys
from gridloom.core.settings import TrainConfig
from gridloom.grid.prepare import GridConfig
from gridloom.systems.semantic import (
    SYSTEM,
    ContrastConfig,
    EquivarianceConfig,
    MaskConfig,
    ModelConfig,
    SelfSupervised,
    SemanticConfig,
)
from tests.contract.processes import train_in_child, train_on_ranks
from tests.contract.test_battery import losses

SMALL = ModelConfig(input_channels=1, latent_dim=16, width=4)
CONTRAST = ContrastConfig(weight=1.0)
MAP = replace(SMALL, latent="map")
MOVING = EquivarianceConfig(weight=2.0)


def objective(**changes) -> SelfSupervised:
    torch.manual_seed(0)
    return SelfSupervised(SemanticConfig(**{"model": SMALL, **changes}))


def batch_of(values: Tensor, valid: Tensor | None = None, epoch: int = 0) -> Batch:
    count = len(values)
    return Batch(
        fields={"image": Field.of(values, valid)},
        features={},
        window=torch.arange(count),
        key=window_keys(0, epoch, range(count)),
    )


def fields(count: int = 4) -> Tensor:
    return torch.randn(count, 1, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "changes",
    [
        {"mask": MaskConfig(share=0.5)},
        {"contrast": CONTRAST},
        {"contrast": CONTRAST, "reconstruct": 0.0},
        {"model": MAP, "equivariance": MOVING},
        {"model": MAP, "equivariance": EquivarianceConfig(weight=1.0, rotate=5.0, zoom=1.1)},
    ],
)
def test_hidden_values_change_no_loss_and_no_gradient(changes: dict) -> None:
    x = fields()
    valid = torch.rand(x.shape, generator=torch.Generator().manual_seed(2)) > 0.4
    found = []
    for hidden in (0.0, 1e6, torch.nan):
        model = objective(**changes)
        loss = model(batch_of(torch.where(valid, x, hidden), valid)).loss
        loss.sum().backward()
        found.append(
            [loss.detach(), *(parameter.grad for parameter in model.parameters() if parameter.grad is not None)]
        )
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_a_mask_hides_from_the_encoder_while_training_and_never_afterwards() -> None:
    model = objective(mask=MaskConfig(share=0.5))
    plain = objective()
    x = batch_of(fields())
    assert not torch.allclose(model(x).loss, plain(x).loss)
    assert torch.equal(model.eval()(x).loss, plain.eval()(x).loss)
    again = batch_of(fields(), epoch=1)
    assert not torch.equal(model.train()(x).loss, model(again).loss)  # another epoch, other blocks


def test_what_a_mask_hides_is_scored() -> None:
    """The error of hidden cells counts: with all blocks but one hidden, it is most of the loss."""
    model = objective(mask=MaskConfig(share=15 / 16))
    x = torch.zeros(1, 1, 32, 32) + 5.0
    assert model(batch_of(x)).loss.item() > 10


def test_without_weight_reconstruction_moves_the_decoder_alone() -> None:
    model = objective(contrast=CONTRAST, reconstruct=0.0)
    step = model(batch_of(fields()))
    error = step.metrics["rmse"]
    (step.loss - step.metrics["contrast"]).sum().backward(retain_graph=True)
    with_error = [parameter.grad.clone() for parameter in model.autoencoder.decoder.parameters()]
    assert any(gradient.any() for gradient in with_error) and (error > 0).all()
    model.zero_grad()
    latent = model.encoder.latent(batch_of(fields()).fields["image"])
    rebuilt, _ = model._reconstruct(latent.detach(), batch_of(fields()).fields["image"])
    rebuilt.sum().backward()
    assert all(parameter.grad is None for parameter in model.encoder.parameters())


def test_without_decoding_the_encoder_learns_the_same_and_the_decoder_nothing() -> None:
    found = []
    for decode in (True, False):
        model = objective(contrast=CONTRAST, reconstruct=0.0, decode=decode)
        model(batch_of(fields())).loss.sum().backward()
        found.append(model)
    both, alone = found
    for ours, theirs in zip(both.encoder.parameters(), alone.encoder.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)
    assert all(parameter.grad is None for parameter in alone.autoencoder.decoder.parameters())
    assert alone.may_skip_parameters and not both.may_skip_parameters
    with pytest.raises(ConfigError, match="only where reconstruct is 0, got"):
        SemanticConfig(decode=False)


def test_head_channels_are_the_directions_that_the_network_adds_to_the_latent_of_a_small_window() -> None:
    for count in (2, 8):
        torch.manual_seed(0)
        encoder = SelfSupervised(SemanticConfig(model=replace(SMALL, head_channels=count))).encoder.eval()
        torch.nn.init.zeros_(encoder.head.coarse.weight)
        latent = encoder.embed(batch_of(fields(40)).fields["image"])
        assert torch.linalg.matrix_rank(latent - latent.mean(0), rtol=1e-4) == count


def test_contrast_with_accumulation_is_refused() -> None:
    with pytest.raises(ConfigError, match="compares the samples of a whole batch"):
        SemanticConfig(contrast=CONTRAST, train=TrainConfig(accumulate=2))


@pytest.mark.parametrize("latent", ["vector", "map"])
def test_contrast_brings_views_of_a_sample_together(latent: str) -> None:
    torch.manual_seed(0)
    config = SemanticConfig(model=replace(SMALL, latent=latent), contrast=CONTRAST, reconstruct=0.0)
    model = SelfSupervised(config)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    smooth = torch.nn.functional.interpolate(fields(16)[..., :4, :4], scale_factor=8.0, mode="bilinear")
    found = []
    for epoch in range(40):
        step = model(batch_of(smooth, epoch=epoch))
        found.append(float(step.metrics["contrast"].mean()))
        optimizer.zero_grad()
        step.loss.mean().backward()
        optimizer.step()
    assert sum(found[-5:]) / 5 < 0.75 * math.log(2 * 16 - 1), "against telling nothing apart"


def contrasting() -> SemanticConfig:
    return SemanticConfig(
        data=GridConfig(path="digits", window=(32, 32), stride=(32, 32), split_dim="sample"),
        model=SMALL,
        contrast=CONTRAST,
        train=TrainConfig(steps=4, batch_size=8, validate_every=0, warmup_steps=0, log_every=1, tensorboard=False),
    )


CONTRASTING = replace(SYSTEM, name="contrasting", presets={"default": contrasting})


def test_two_ranks_contrast_with_each_others_samples(tmp_path: Path) -> None:
    assert train_in_child(CONTRASTING, tmp_path / "one") == 0
    train_on_ranks(CONTRASTING, tmp_path / "two", 2)
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)
    assert len(losses(tmp_path / "one")) == 4


def test_equivariance_adds_its_weight_times_the_error_of_the_moved_latent() -> None:
    x = batch_of(fields())
    plain = objective(model=MAP)(x)
    moving = objective(model=MAP, equivariance=MOVING)(x)
    assert set(moving.metrics) == {"rmse", "equivariance"} and "equivariance" not in plain.metrics
    assert torch.allclose(moving.loss, plain.loss + 2.0 * moving.metrics["equivariance"])
    assert torch.equal(moving.metrics["rmse"], plain.metrics["rmse"])
    again = objective(model=MAP, equivariance=MOVING)(batch_of(fields(), epoch=1))
    assert not torch.equal(again.metrics["equivariance"], moving.metrics["equivariance"])


def test_equivariance_of_a_sample_depends_on_no_other() -> None:
    x = batch_of(fields())
    model = objective(model=MAP, equivariance=MOVING)
    assert torch.allclose(model(x.take(slice(2, 3))).loss, model(x).loss[2:3], rtol=1e-5)


def test_equivariance_is_learned() -> None:
    torch.manual_seed(0)
    model = objective(model=MAP, equivariance=EquivarianceConfig(weight=0.3))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    smooth = torch.nn.functional.interpolate(fields(8)[..., :8, :8], scale_factor=4.0, mode="bilinear")
    found = []
    for epoch in range(30):
        step = model(batch_of(smooth, epoch=epoch))
        found.append(float(step.metrics["equivariance"].mean()))
        optimizer.zero_grad()
        step.loss.mean().backward()
        optimizer.step()
    assert sum(found[-5:]) < 0.5 * sum(found[:5])


def test_equivariance_of_views_is_learned_beside_contrast() -> None:
    model = objective(model=MAP, contrast=CONTRAST, reconstruct=0.0, decode=False, equivariance=MOVING)
    plain = objective(model=MAP, contrast=CONTRAST, reconstruct=0.0, decode=False)
    step, without = model(batch_of(fields())), plain(batch_of(fields()))
    assert torch.allclose(step.loss, without.loss + 2.0 * step.metrics["equivariance"])
    assert step.metrics["equivariance"].any()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"equivariance": MOVING}, "set model.latent map"),
        (
            {"model": MAP, "equivariance": MOVING, "data": GridConfig(window=(16, 64))},
            r"windows of 32 cells or more along each axis \(4 of the latent map\), got \(16, 64\)",
        ),
    ],
)
def test_equivariance_where_nothing_can_be_compared_is_refused(changes: dict, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        SemanticConfig(**{"model": SMALL, **changes})


@pytest.mark.parametrize("wrong", [{"weight": -1.0}, {"shift": -1}, {"zoom": 0.5}, {"weight": 1.0, "shift": 0}])
def test_motion_that_is_none_is_refused(wrong: dict) -> None:
    with pytest.raises(ConfigError, match="equivariance: "):
        EquivarianceConfig(**wrong)
