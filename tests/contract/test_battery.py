"""One battery over every system: learns, resumes bit-equal, extracts, answers, leaks nothing, same on two ranks."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from gridloom.core.batch import Batch, Field
from gridloom.core.errors import CheckpointError, ConfigError, DataError, TrainingError
from gridloom.core.registry import get_system
from gridloom.encoders.encoder import SemanticEncoder
from gridloom.encoders.extract import extract_encoder
from gridloom.train.checkpoint import newest_checkpoint
from gridloom.train.log import read_metrics
from gridloom.workflows.evaluate import evaluate
from gridloom.workflows.train import train
from tests.contract.fakes import FAKES
from tests.contract.processes import KILLED, train_in_child, train_on_ranks

pytestmark = pytest.mark.parametrize("name", sorted(FAKES))


def losses(folder: Path, part: str = "train") -> list[float]:
    return [record["loss"] for record in read_metrics(folder / "metrics.jsonl") if record["part"] == part]


def final_state(folder: Path) -> dict[str, torch.Tensor]:
    found = newest_checkpoint(folder / "checkpoints")
    assert found is not None
    model = safetensors.torch.load_file(found.path / "model.safetensors")
    optimizer = safetensors.torch.load_file(found.path / "optimizer.safetensors")
    return {**model, **{f"optimizer/{key}": value for key, value in optimizer.items()}}


def assert_same_bits(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    different = [key for key in ours if not torch.equal(ours[key], theirs[key])]
    assert not different


def some_batch(name: str, count: int = 8) -> Batch:
    system = get_system(name)
    config = system.presets["default"]()
    return system.prepare(config).sources["train"].collate(list(range(count)), 0)


def trained_objective(name: str) -> torch.nn.Module:
    system = get_system(name)
    torch.manual_seed(1)
    objective = system.objective(system.presets["default"]()).eval()
    objective.begin_step(100)
    return objective


@pytest.fixture(scope="module")
def whole_runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A run of each system that nothing interrupted, made once."""
    made: dict[str, Path] = {}

    def run(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp("whole") / name
            assert train_in_child(name, made[name]) == 0
        return made[name]

    return run


def test_learns(name: str, tmp_path: Path) -> None:
    system = get_system(name)
    config = system.presets["default"]()
    config = replace(config, train=replace(config.train, steps=80, checkpoint_every=80, validate_every=40))
    result = train(name, config, output=tmp_path / "run", show=False, report=False)
    history = losses(tmp_path / "run")
    assert result.step == 80 and result.stopped_by is None
    assert sum(history[-8:]) < 0.85 * sum(history[:8])
    skill = [score for score in result.scores if score.metric == "skill" and score.method == name]
    assert skill[0].value > 0, "the fake must beat the mean of the training part"


@pytest.mark.parametrize(
    "fault", ["step:7:kill", "checkpoint.optimizer:2:kill", "atomic.manifest:2:kill", "checkpoint.latest:1:kill"]
)
def test_killed_run_resumes_bit_equal(name: str, fault: str, tmp_path: Path, whole_runs: Callable[[str], Path]) -> None:
    whole = whole_runs(name)
    assert train_in_child(name, tmp_path / "killed", fault=fault) == KILLED
    assert train_in_child(name, tmp_path / "killed", loader_threads=2) == 0
    assert_same_bits(final_state(tmp_path / "killed"), final_state(whole))
    assert losses(tmp_path / "killed") == losses(whole)


def test_two_ranks_equal_one(name: str, tmp_path: Path) -> None:
    settings = {"steps": 20, "checkpoint_every": 20}
    assert train_in_child(name, tmp_path / "one", **settings) == 0
    train_on_ranks(name, tmp_path / "two", 2, accumulate=2, **settings)
    tolerance = 1e-5
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=tolerance)
    assert losses(tmp_path / "two", "validation") == pytest.approx(
        losses(tmp_path / "one", "validation"), abs=tolerance
    )


def test_extracts_predicts_and_evaluates(name: str, tmp_path: Path) -> None:
    system = get_system(name)
    run, config = tmp_path / "run", system.presets["default"]()
    train(name, config, output=run, show=False, report=False)
    extracted = extract_encoder(run, tmp_path / "encoder", verify=True)
    batch = some_batch(name)
    from_run, alone = SemanticEncoder.from_pretrained(run), SemanticEncoder.from_pretrained(tmp_path / "encoder")
    assert extracted.verified
    assert torch.equal(from_run.encode(batch), alone.encode(batch))
    assert alone.encode(batch).shape == (8, alone.latent_dim)
    again = evaluate(run, output=tmp_path / "scores")
    written = json.loads((tmp_path / "scores" / "scores.json").read_text())
    assert len(written) == len(again.scores) > 0
    assert {score.method for score in again.scores} == {"mean", name}
    assert "90 % interval" in (run / "artifact" / "README.md").read_text()


def test_masked_values_change_nothing(name: str) -> None:
    objective, batch = trained_objective(name), some_batch(name)
    poisoned = batch
    for field_name, field in batch.fields.items():
        dirty = torch.where(field.valid, field.values, torch.full((), 77, dtype=field.values.dtype))
        poisoned = poisoned.with_field(field_name, Field.of(dirty, field.valid))
    if name != "fake_point" and name != "fake_clip":
        assert any(not field.valid.all() for field in batch.fields.values())
    assert torch.equal(objective(poisoned).loss, objective(batch).loss)


def test_a_sample_does_not_depend_on_its_companions(name: str) -> None:
    objective, batch = trained_objective(name), some_batch(name)
    together = objective(batch).loss
    alone = torch.cat([objective(batch.take(slice(i, i + 1))).loss for i in range(len(batch))])
    backwards = objective(batch.take(torch.arange(len(batch) - 1, -1, -1))).loss.flip(0)
    assert together.tolist() == pytest.approx(alone.tolist(), abs=1e-6)
    assert together.tolist() == pytest.approx(backwards.tolist(), abs=1e-6)


def test_a_run_with_other_settings_is_refused(name: str, tmp_path: Path) -> None:
    system = get_system(name)
    config = system.presets["default"]()
    train(name, config, output=tmp_path / "run", show=False, report=False)
    other = replace(config, train=replace(config.train, learning_rate=0.5))
    with pytest.raises(ConfigError, match=r"train\.learning_rate: 0\.01 -> 0\.5.*choose another --output"):
        train(name, other, output=tmp_path / "run", show=False, report=False)


def test_bad_input_is_refused(name: str, tmp_path: Path) -> None:
    system = get_system(name)
    config = system.presets["default"]()
    too_large = replace(config, train=replace(config.train, batch_size=57))
    with pytest.raises(DataError, match=r"train part has 56 windows, fewer than train\.batch_size 57"):
        train(name, too_large, output=tmp_path / "large", show=False, report=False)
    uneven = replace(config, train=replace(config.train, batch_size=8, accumulate=3))
    with pytest.raises(ConfigError, match=r"must be a multiple of processes x train\.accumulate"):
        train(name, uneven, output=tmp_path / "uneven", show=False, report=False)
    with pytest.raises(CheckpointError, match="expected a run folder or an artifact"):
        evaluate(tmp_path)


def test_a_loss_that_is_not_finite_stops_before_the_update(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = get_system(name)
    forward = type(system.objective(system.presets["default"]())).forward

    def broken(self: torch.nn.Module, batch: Batch) -> object:
        step = forward(self, batch)
        bad = torch.full_like(step.loss, float("nan"))
        return type(step)(loss=torch.where(batch.window % 56 == 5, bad, step.loss), metrics=step.metrics)

    monkeypatch.setattr(type(system.objective(system.presets["default"]())), "forward", broken)
    with pytest.raises(TrainingError, match=r"not finite at step \d+ in windows \[5\]; nothing was updated"):
        train(name, system.presets["default"](), output=tmp_path / "run", show=False, report=False)
