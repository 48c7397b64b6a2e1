"""It learns, what is frozen stays to the bit, and a killed run ends as one that was not."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from gridloom.core.batch import Field
from gridloom.encoders.artifact import load_model
from gridloom.encoders.encoder import SemanticEncoder
from gridloom.finetune.data import TARGET, prepare
from gridloom.finetune.initialize import initialize
from gridloom.finetune.objective import FineTuning
from gridloom.finetune.resolve import resolve
from tests.contract.processes import KILLED, start
from tests.contract.test_battery import assert_same_bits, final_state, losses
from tests.finetune.small import SHORT, finetuned, settings


def modules_of(run: Path) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """State of the tuned encoder, and of the backbone that it started from."""
    _, trained = load_model(run)
    before = SemanticEncoder.from_pretrained(trained.config.backbone, device="cpu").encoder
    assert isinstance(trained.objective, FineTuning)
    return dict(trained.objective.encoder.state_dict()), dict(before.state_dict())


def ready(data: Path, backbone: Path, **changes: object) -> tuple[FineTuning, object]:
    config = resolve(settings(data, backbone, **changes))
    prepared = prepare(config)
    objective = FineTuning(config)
    initialize(objective, config, prepared)
    return objective, prepared


def test_it_beats_the_most_frequent_class(data: Path, backbone: Path, tmp_path: Path) -> None:
    config = settings(data, backbone, head="mlp", dropout=0.1, train=replace(SHORT, steps=40, checkpoint_every=40))
    run = finetuned(config, tmp_path / "run")
    history = losses(run)
    assert history[0] == pytest.approx(2.3026, abs=1e-3), "before the first step all ten classes are alike"
    assert sum(history[-6:]) < 0.5 * sum(history[:6])
    scores = json.loads((run / "scores.json").read_text())
    accuracy = {score["method"]: score["value"] for score in scores if score["metric"] == "accuracy"}
    assert accuracy["finetune"] > 50 > 25 > accuracy["most frequent class"]


def test_a_wholly_frozen_backbone_is_what_it_was_to_the_bit(frozen_run: Path, data: Path) -> None:
    after, before = modules_of(frozen_run)
    assert any("running_mean" in name for name in after)
    assert_same_bits(after, before)
    assert sum(losses(frozen_run)[-3:]) < sum(losses(frozen_run)[:3]), "the head learns"
    tuned = SemanticEncoder.from_pretrained(frozen_run, device="cpu")
    original = SemanticEncoder.from_pretrained(load_model(frozen_run)[1].config.backbone, device="cpu")
    ours, theirs = (encoder.encode_dataset(data).values for encoder in (tuned, original))
    assert ours.shape == (240, 1, 1, 16)
    assert (ours == theirs).all()


def test_frozen_layers_keep_weights_and_statistics_and_the_others_move(
    data: Path, batch_backbone: Path, tmp_path: Path
) -> None:
    run = finetuned(settings(data, batch_backbone, freeze=("stem", "layer1", "layer2.0")), tmp_path / "run")
    after, before = modules_of(run)
    frozen = ("stem.", "layer1.", "layer2.0.")
    assert_same_bits(*({k: v for k, v in state.items() if k.startswith(frozen)} for state in (after, before)))
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert {"layer2.1.norm1.running_mean", "layer2.1.conv1.weight", "head.project.weight"} <= moved


def test_what_is_frozen_stays_in_eval_mode_when_the_model_trains(data: Path, batch_backbone: Path) -> None:
    objective = FineTuning(resolve(settings(data, batch_backbone, freeze=("stem", "layer1"), dropout=0.5))).train()
    training = {name for name, module in objective.encoder.named_modules() if module.training}
    assert not [name for name in training if name.startswith(("stem", "layer1"))]
    assert {"layer2", "layer2.0.norm1", "head"} <= training and objective.head.training
    norms = [module for module in objective.encoder.modules() if isinstance(module, nn.BatchNorm2d)]
    assert 0 < sum(norm.training for norm in norms) < len(norms)
    assert {parameter.requires_grad for parameter in objective.encoder.stem.parameters()} == {False}
    assert not objective.eval().head.training


def test_a_killed_run_resumes_bit_equal_even_when_the_backbone_is_gone(
    data: Path, backbone: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "backbone"
    moved.symlink_to(backbone)
    config = resolve(settings(data, moved, dropout=0.2))
    child = start(finetuned, config, tmp_path / "run", GRIDLOOM_FAULT="step:7:kill")
    child.join(120)
    assert child.exitcode == KILLED
    whole = finetuned(config, tmp_path / "whole")
    moved.unlink()
    finetuned(config, tmp_path / "run")
    assert_same_bits(final_state(tmp_path / "run"), final_state(whole))
    assert losses(tmp_path / "run") == losses(whole)


@pytest.mark.parametrize("label", ["digit", "ink"])
def test_a_sample_without_a_label_has_no_loss_and_no_gradient(data: Path, backbone: Path, label: str) -> None:
    objective, prepared = ready(data, backbone, label=label)
    batch = prepared.sources["train"].collate(list(range(6)), 0)
    target = batch.fields[TARGET]
    hidden = Field.of(target.values, torch.tensor([True, False] * 3))
    objective.eval()
    whole, part = objective(batch), objective(batch.with_field(TARGET, hidden))
    assert (whole.loss > 0).all()
    assert part.loss[1::2].tolist() == [0, 0, 0] == part.metrics["error"][1::2].tolist()
    assert torch.equal(part.loss[::2], whole.loss[::2])
    part.loss[1].backward()
    assert all(not parameter.grad.any() for parameter in objective.parameters() if parameter.grad is not None)


def test_the_loss_of_a_sample_does_not_depend_on_its_companions(data: Path, backbone: Path) -> None:
    objective, prepared = ready(data, backbone)
    batch = prepared.sources["train"].collate(list(range(6)), 0)
    torch.manual_seed(0)
    nn.init.normal_(objective.head.layers[-1].weight)
    objective.eval()
    together = objective(batch).loss
    alone = torch.cat([objective(batch.take(slice(i, i + 1))).loss for i in range(6)])
    assert together.tolist() == pytest.approx(alone.tolist(), abs=1e-5)


def test_the_head_sees_standardized_embeddings_of_the_training_part(data: Path, backbone: Path) -> None:
    objective, prepared = ready(data, backbone)
    source = prepared.sources["train"]
    with torch.no_grad():
        embedding = objective.eval().encoder(source.collate(range(len(source)), 0))["embedding"].double()
    standard = (embedding - objective.head.center) * objective.head.scale
    assert standard.mean(0).abs().max() < 1e-4
    assert standard.std(0, correction=0).tolist() == pytest.approx([1] * 16, abs=1e-4)


def test_numbers_start_at_the_training_mean_and_are_in_their_own_unit(data: Path, backbone: Path) -> None:
    objective, prepared = ready(data, backbone, label="ink")
    source = prepared.sources["train"]
    step = objective.eval()(source.collate(range(len(source)), 0))
    assert step.loss.mean().item() == pytest.approx(1, abs=1e-5), "in units of the variance"
    error = abs(source.labels - source.labels.mean())
    assert step.metrics["error"].tolist() == pytest.approx(error.tolist(), rel=1e-5)
