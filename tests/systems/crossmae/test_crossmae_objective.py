"""What is learnt from: hidden cells that were observed, counted over the whole batch."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from gridloom.core.batch import Batch, Field
from gridloom.core.errors import ConfigError
from gridloom.core.random import window_keys
from gridloom.systems.crossmae.build import build_encoder, build_model, cut_of
from gridloom.systems.crossmae.config import (
    CrossMAEConfig,
    DataConfig,
    LossConfig,
    MaskingConfig,
    ModalityConfig,
    ModelConfig,
)
from gridloom.systems.crossmae.inputs import HIDDEN, KNOWN, TIMES, read_inputs
from gridloom.systems.crossmae.objective import MaskedModeling
from tests.systems.crossmae.small import config, jitter, make_batch, make_objective, normal, pick

IMAGE = {"a": ModalityConfig(kind="image", size=(5, 7))}


def hide(batch: Batch, share: float = 0.4, seed: int = 9) -> Batch:
    """Let the source choose which cells to predict."""
    hidden = {name + HIDDEN: pick(*field.values.shape, share=share, seed=seed) for name, field in batch.fields.items()}
    return replace(batch, features={**batch.features, **hidden})


@torch.no_grad()
def slow_losses(objective: MaskedModeling, batch: Batch) -> dict[str, tuple[list[float], list[int]]]:
    """Sum of the loss and number of cells of each sample, cell by cell in float64, without any masks of training."""
    loss, found = objective.config.loss, {}
    inputs = read_inputs(batch, objective.patches)
    targets = {name: field.valid & batch.features[name + HIDDEN] for name, field in batch.fields.items()}
    nothing = {name: torch.zeros_like(cells) for name, cells in inputs.has_data.items()}
    ask = {name: objective.patches[name].cut(cells).any(-1) for name, cells in targets.items()}
    answers = objective.model(inputs.values, nothing, valid=inputs.visible, contexts=inputs.contexts, ask=ask)
    for name, answer in answers.items():
        cut = objective.patches[name]
        times = ask[name].shape[1]
        placed = [answer.mean] if answer.log_variance is None else [answer.mean, answer.log_variance]
        whole = [objective.model.decoder(name).place(answer.asked, part, times).double() for part in placed]
        wanted = cut.cut(targets[name])
        truth = cut.cut(batch.fields[name].values).double()
        sums, counts = [0.0] * len(batch), [0] * len(batch)
        for b, t, p in wanted.any(-1).nonzero().tolist():
            cells = wanted[b, t, p].nonzero()[:, 0].tolist()
            true = [float(truth[b, t, p, c]) for c in cells]
            if loss.normalize_patches:
                mean = sum(true) / len(true)
                variance = sum((v - mean) ** 2 for v in true) / max(1, len(true) - 1)
                true = [(v - mean) / math.sqrt(variance + 1e-6) for v in true]
            for c, value in zip(cells, true, strict=True):
                squared = (float(whole[0][b, t, p, c]) - value) ** 2
                if loss.kind == "nll":
                    log_variance = max(-10.0, float(whole[1][b, t, p, c]))
                    squared = 0.5 * (log_variance + squared / math.exp(log_variance))
                sums[b] += squared
                counts[b] += 1
        found[name] = sums, counts
    return found


@pytest.mark.parametrize(
    "loss", [LossConfig(kind="mse"), LossConfig(kind="mse", normalize_patches=True), LossConfig(kind="nll")]
)
def test_the_loss_is_the_mean_over_all_hidden_observed_cells_of_the_batch(loss: LossConfig) -> None:
    weights = {"a": 2.0, "b": 0.5}
    modalities = {name: replace(one, weight=weights[name]) for name, one in config().modalities.items()}
    objective = make_objective(loss=loss, modalities=modalities)
    batch = hide(make_batch(3))
    batch.fields["a"].valid[2, 1:] = False  # few count in one sample
    batch.fields["a"].values[2, 1:] = 0
    parts = slow_losses(objective, batch)
    expected = sum(weights[name] * sum(sums) / sum(counts) for name, (sums, counts) in parts.items())
    objective.train()
    assert float(objective(batch).loss.mean().detach()) == pytest.approx(expected, rel=1e-5)
    objective.eval()  # while validating: the mean of each sample
    each = [
        sum(weights[name] * sums[sample] / counts[sample] for name, (sums, counts) in parts.items())
        for sample in range(3)
    ]
    assert objective(batch).loss.tolist() == pytest.approx(each, rel=1e-5)


def test_the_metric_is_the_root_of_the_mean_square_of_each_sample() -> None:
    objective, batch = make_objective(), hide(make_batch(3))
    metrics = objective(batch).metrics
    for name, (sums, counts) in slow_losses(objective, batch).items():
        each = [math.sqrt(total / count) for total, count in zip(sums, counts, strict=True)]
        assert metrics[f"rmse_{name}"].tolist() == pytest.approx(each, rel=1e-5)


def test_only_hidden_observed_cells_count() -> None:
    objective, batch = make_objective(modalities=IMAGE), hide(make_batch(3))
    field, hidden = batch.fields["a"], batch.features["a" + HIDDEN]
    counted = field.valid & hidden

    def loss(values: Tensor) -> Tensor:
        with_values = Field(values=values, valid=field.valid)
        return objective(batch.with_field("a", with_values)).loss

    expected = loss(field.values)
    assert torch.equal(loss(torch.where(field.valid, field.values, torch.tensor(77.0))), expected)
    place = counted[1].nonzero()[0].tolist()
    values = field.values.clone()
    values[1, *place] += 1.0
    assert loss(values)[1] != expected[1] and torch.equal(loss(values)[[0, 2]], expected[[0, 2]])


@pytest.mark.parametrize("predict", [1.0, 0.5])
@pytest.mark.parametrize("kind", ["mse", "nll"])
def test_the_loss_is_zero_with_finite_gradients_where_nothing_counts(kind: str, predict: float) -> None:
    objective = make_objective(loss=LossConfig(kind=kind), masking={"predict": predict}).train()
    batch = make_batch(3)
    for field in batch.fields.values():
        field.valid[1] = False
        field.values[1] = 0
    loss = objective(batch).loss
    assert loss[1] == 0 and loss[[0, 2]].ne(0).all()
    nothing = Batch(
        fields={name: Field.of(torch.full_like(field.values, torch.nan)) for name, field in batch.fields.items()},
        features={},
        window=batch.window,
        key=batch.key,
    )
    step = objective(nothing)
    assert not step.loss.any() and all(torch.isfinite(metric).all() for metric in step.metrics.values())
    (loss.sum() + step.loss.sum()).backward()
    gradients = [parameter.grad for parameter in objective.parameters() if parameter.grad is not None]
    assert gradients and all(torch.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_nothing_hidden_and_all_hidden_are_defined(share: float) -> None:
    objective = make_objective(masking={"share": share}).train()
    loss = objective(make_batch()).loss
    assert torch.isfinite(loss).all() and loss.ne(0).all() == (share == 1.0)


@pytest.mark.parametrize("strategy", ["random", "tube", "time", "blocks", "gaps", "modality", "dirichlet"])
def test_a_sample_of_validation_does_not_depend_on_its_batch(strategy: str) -> None:
    objective = make_objective(masking={"strategies": (strategy,), "cells": 0.1}, model={"fusion": "shared"})
    batch = make_batch(4)
    together = objective(batch).loss
    alone = torch.cat([objective(batch.take(slice(i, i + 1))).loss for i in range(4)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)
    assert together.ne(0).all()


def _hidden(objective: MaskedModeling, batch: Batch) -> tuple[dict, dict, dict, dict]:
    return objective._hide(batch, read_inputs(batch, objective.patches))


def test_what_is_predicted_is_never_seen_and_always_observed() -> None:
    for masking in ({"cells": 0.2}, {"strategies": ("gaps",)}, {"strategies": ("gaps", "time"), "cells": 0.1}):
        objective, batch = make_objective(masking=masking), make_batch(6)
        hidden, seen, targets, ask = _hidden(objective, batch)
        for name, cut in objective.patches.items():
            steps = 5
            valid = batch.fields[name].valid
            open_to_it = cut.join(~hidden[name][..., None].expand(-1, -1, -1, cut.num_cells), steps).view_as(valid)
            assert not (targets[name] & ~valid).any() and targets[name].any()
            assert torch.equal(targets[name], valid & ~(seen[name] & open_to_it))
            assert torch.equal(ask[name], cut.cut(targets[name]).any(-1))


def test_a_strategy_of_gaps_hides_cells_under_the_gaps_of_another_time() -> None:
    objective, batch = make_objective(masking={"strategies": ("gaps",)}, modalities=IMAGE), make_batch(4)
    hidden, seen, targets, _ = _hidden(objective, batch)
    valid = batch.fields["a"].valid
    assert not hidden["a"].any()
    for sample in range(4):
        under = [valid[sample] & ~valid[sample].roll(-by, 0) for by in range(1, 5)]
        assert sum(torch.equal(targets["a"][sample], one) for one in under) == 1
    assert torch.equal(seen["a"], valid & ~targets["a"])


@pytest.mark.parametrize("strategies", [("random",), ("gaps",), ("modality",), ("dirichlet",)])
def test_what_is_no_target_is_all_visible_and_never_scored(strategies: tuple[str, ...]) -> None:
    modalities = config().modalities
    modalities = {"a": modalities["a"], "b": replace(modalities["b"], target=False)}
    objective = make_objective(masking={"strategies": strategies, "cells": 0.2}, modalities=modalities)
    batch = make_batch(4)
    hidden, seen, targets, ask = _hidden(objective, batch)
    assert not hidden["b"].any() and not targets["b"].any() and not ask["b"].any()
    assert torch.equal(seen["b"], batch.fields["b"].valid) and targets["a"].any()
    assert not objective(batch).metrics["rmse_b"].any()


def test_a_modality_may_have_its_own_share() -> None:
    modalities = config().modalities
    objective = make_objective(modalities={"a": replace(modalities["a"], share=0.2), "b": modalities["b"]})
    hidden, *_ = _hidden(objective, make_batch(2, observed=1.1))
    assert hidden["a"].flatten(1).sum(1).tolist() == [9, 9]  # of 45
    assert hidden["b"].flatten(1).sum(1).tolist() == [4, 4]  # of 9, rounded to even


# Partial prediction.


@pytest.mark.parametrize("observed", [1.1, 0.3])
def test_partial_prediction_is_unbiased_and_asks_less(observed: float) -> None:
    full, part = (make_objective(modalities=IMAGE, masking={"predict": predict}).train() for predict in (1.0, 0.25))
    size, draws = 8, 48
    one = make_batch(size, observed=observed)
    one.fields["a"].values[:, :, 2:] *= 3  # the patches must differ
    hidden = pick(*one.fields["a"].values.shape, share=0.5, seed=9)
    repeated = Batch(
        fields={"a": one.fields["a"].apply(lambda x: x.repeat(draws, *(1,) * (x.ndim - 1)))},
        features={"a" + HIDDEN: hidden.repeat(draws, 1, 1, 1)},
        window=torch.arange(size * draws),
        key=window_keys(3, 0, range(size * draws)),
    )
    with torch.no_grad():
        expected = full(repeated).loss.mean()
        found = part(repeated).loss.view(draws, size).mean(1)
        error = found.std() / math.sqrt(draws)
        asked = [_hidden(objective, repeated)[3]["a"].flatten(1).sum(1) for objective in (full, part)]
    assert abs(found.mean() - expected) < 3 * error and error < 0.05 * expected
    assert torch.equal(asked[1], (asked[0] * 0.25).round().clamp(min=1).long())


def test_partial_prediction_decodes_fewer_queries_and_everything_while_validating() -> None:
    lengths = []
    for predict in (1.0, 0.25):
        objective = make_objective(modalities=IMAGE, masking={"predict": predict}).train()
        objective.model.decoder("a").norm.register_forward_hook(lambda _m, _x, out: lengths.append(out.shape[1]))
        objective(make_batch(observed=1.1))
        objective.eval()(make_batch(observed=1.1))
    assert lengths == [22, 22, 6, 22]  # half of 45, and a quarter of that


def test_one_hidden_patch_is_always_asked() -> None:
    objective = make_objective(modalities=IMAGE, masking={"predict": 0.1}).train()
    batch = make_batch(4)
    hidden = torch.zeros_like(batch.fields["a"].valid)
    hidden[:, 2, 1, 1] = True
    batch.fields["a"].valid[:, 2, 1, 1] = True
    _, _, _, ask = _hidden(objective, replace(batch, features={"a" + HIDDEN: hidden}))
    assert ask["a"].flatten(1).sum(1).tolist() == [1] * 4


# Filling, and what is known beside the values.


def test_filling_answers_the_asked_patches_in_the_shape_of_the_values() -> None:
    objective = make_objective(loss=LossConfig(kind="nll"))
    batch = make_batch(2)
    wanted = {name: ~field.valid for name, field in batch.fields.items()}
    wanted["a"][:, :2] = False
    found = objective.fill(batch, wanted)
    for name, filled in found.items():
        assert filled.correction.shape == filled.spread.shape == batch.fields[name].values.shape
        assert filled.correction[wanted[name]].ne(0).all() and filled.spread[wanted[name]].gt(0).all()
    assert not found["a"].correction[:, :2].any()
    assert make_objective().fill(batch, wanted)["a"].spread is None


def test_what_is_known_of_a_cell_is_read_and_the_answer_is_a_correction_of_its_first_channel() -> None:
    objective = make_objective(modalities=IMAGE)
    known = normal(3, 5, 5, 7, 2, dtype=torch.float32)
    model = type(objective.model)
    modality = replace(objective.model.modalities["a"], known_channels=2)
    torch.manual_seed(0)
    objective.model = jitter(model({"a": modality}))
    batch = hide(make_batch(3))
    losses = [objective(batch.with_field("a" + KNOWN, Field.of(values))).loss for values in (known, known + 1.0)]
    assert losses[0].ne(losses[1]).all()
    head = objective.model.decoder("a").head
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    perfect = torch.stack([batch.fields["a"].values, known[..., 1]], dim=-1)
    assert not objective(batch.with_field("a" + KNOWN, Field.of(perfect))).loss.any()


def test_the_season_is_read_and_averaged_over_the_steps_of_a_patch() -> None:
    objective, batch = make_objective(model={"season": True}), make_batch(3)
    times = normal(3, 5, 2, dtype=torch.float32)
    batch = replace(batch, features={TIMES: times})
    contexts = read_inputs(batch, objective.patches).contexts
    assert contexts["a"].times is times
    expected = torch.stack([times[:, :2].mean(1), times[:, 2:4].mean(1), times[:, 4]], dim=1)
    torch.testing.assert_close(contexts["b"].times, expected)
    other = replace(batch, features={TIMES: times + 1})
    assert objective(batch).loss.ne(objective(other).loss).all()


# From a configuration.


def test_an_encoder_alone_takes_the_weights_of_the_whole_model() -> None:
    for changes in ({}, {"model": {"fusion": "shared", "architecture": "pooled_cross"}}, {"static_dim": 2}):
        settings = config(**changes)
        alone, whole = build_encoder(settings), build_model(settings)
        alone.load_state_dict(whole.encoder.state_dict())
        assert set(alone.inputs.fields) == {"a", "b"} | ({"static"} if settings.static_dim else set())


def test_each_architecture_is_the_model_that_it_names() -> None:
    found = {}
    for name in ("pooled_self", "pooled_cross", "sequence_self", "cross", "cross_maps"):
        modality = build_model(config(model={"architecture": name})).modalities["a"]
        found[name] = modality.encoder.pool, modality.encoder.feature_maps, modality.decoder.attention
    assert found == {
        "pooled_self": (True, False, "self"),
        "pooled_cross": (True, False, "cross"),
        "sequence_self": (False, False, "self"),
        "cross": (False, False, "cross"),
        "cross_maps": (False, True, "cross"),
    }
    assert ModelConfig().architecture == "cross_maps" and ModelConfig().fusion == "none"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ModalityConfig(share=1.5), "share must be at most 1"),
        (lambda: ModalityConfig(weight=-1.0), "weight 0 or more, got -1"),
        (lambda: DataConfig(window=(-1, 0, 0)), "must be 0 or more"),
        (lambda: DataConfig(gap_share=1.0), "between 0 and 1, got 1.0"),
        (lambda: MaskingConfig(strategies=()), "at least one"),
        (lambda: MaskingConfig(predict=0.0), "predict must be above 0"),
        (lambda: LossConfig(normalize_patches=True), "needs loss.kind mse"),
        (lambda: build_model(CrossMAEConfig()), "no modalities: they are filled in from the data"),
        (lambda: build_model(config(model={"use_fm_layers": (2,)})), "use_fm_layers must lie between 0 and 1, got 2"),
        (lambda: build_model(config(model={"num_heads": 3})), "16 must be a multiple of the number of heads, got 3"),
        (lambda: cut_of(config(model={"image_patch": (0, 2)}), "a"), "at least 1"),
    ],
)
def test_a_configuration_that_cannot_be_is_one_clear_line(make, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)
