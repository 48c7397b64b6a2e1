"""The battery over the energy system: learns, resumes bit-equal, extracts, answers, leaks nothing, scales."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gridloom.core.atomic import read_json
from gridloom.core.batch import Field
from gridloom.core.errors import ConfigError
from gridloom.encoders.artifact import load_model
from gridloom.encoders.encoder import SemanticEncoder
from gridloom.encoders.extract import extract_encoder
from gridloom.systems.energy.config import EnergyConfig
from gridloom.systems.energy.data import prepare, resolve
from gridloom.systems.energy.locate import Locator
from gridloom.systems.energy.objective import Location
from gridloom.train.checkpoint import load_model_state, newest_checkpoint, read_snapshots
from gridloom.train.log import read_metrics
from gridloom.workflows.evaluate import evaluate
from gridloom.workflows.train import train
from tests.contract.processes import KILLED, train_in_child, train_on_ranks
from tests.contract.test_battery import assert_same_bits, final_state, losses
from tests.systems.energy.small import SMALL_SYSTEM, small


def left_behind(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors that a run keeps: its last checkpoint, its best weights, its snapshots."""
    snapshots = read_snapshots(folder)
    assert sorted(snapshots) == [0, 5, 12]
    kept = {f"best/{name}": value for name, value in load_model_state(folder / "best").items()}
    for step, tensors in snapshots.items():
        kept |= {f"{step}/{name}": value for name, value in tensors.items()}
    return final_state(folder) | kept


def errors(folder: Path) -> dict[int, float]:
    passes = [record for record in read_metrics(folder / "metrics.jsonl") if record["part"] == "validation"]
    return {record["step"]: record["error"] for record in passes}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in a child that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert train_in_child(SMALL_SYSTEM, folder) == 0
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with its artifact and scores."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    train("energy", longer(), output=folder, show=False, report=False)
    return folder


def longer() -> EnergyConfig:
    config = small()
    return replace(config, train=replace(config.train, steps=70, checkpoint_every=70, validate_every=7))


def test_it_learns(run: Path) -> None:
    history, held_out = losses(run), errors(run)
    assert sum(history[-8:]) < 0.9 * sum(history[:8])
    assert min(held_out.values()) < 1 < 3 < held_out[7], "to less than a cell"


@pytest.mark.parametrize("fault", ["step:7:kill", "atomic.manifest:3:kill"])
def test_a_killed_run_resumes_bit_equal(fault: str, tmp_path: Path, whole: Path) -> None:
    assert train_in_child(SMALL_SYSTEM, tmp_path / "run", fault=fault) == KILLED
    assert train_in_child(SMALL_SYSTEM, tmp_path / "run", loader_threads=2) == 0
    assert_same_bits(left_behind(tmp_path / "run"), left_behind(whole))
    assert read_json(tmp_path / "run" / "best" / "state.json") == read_json(whole / "best" / "state.json")
    assert losses(tmp_path / "run") == losses(whole) and errors(tmp_path / "run") == errors(whole)


def test_the_best_weights_are_those_of_the_smallest_held_out_error(whole: Path, run: Path) -> None:
    for folder in (whole, run):
        held_out, state = errors(folder), read_json(folder / "best" / "state.json")
        assert state["monitor"] == "error" and state["value"] == min(held_out.values())
        assert state["step"] == min(held_out, key=lambda step: (held_out[step], step)) < max(held_out)
    artifact, trained = load_model(run)
    assert artifact.training["best_step"] == read_json(run / "best" / "state.json")["step"]
    assert_same_bits(dict(trained.objective.state_dict()), load_model_state(run / "best"))


def test_two_ranks_equal_one(tmp_path: Path) -> None:
    # Small steps: sums in another order differ by rounding, which large ones multiply at every kink.
    gentle = {"learning_rate": 1e-3}
    assert train_in_child(SMALL_SYSTEM, tmp_path / "one", **gentle) == 0
    train_on_ranks(SMALL_SYSTEM, tmp_path / "two", 2, accumulate=2, **gentle)
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-5)
    for metric in (lambda folder: losses(folder, "validation"), lambda folder: list(errors(folder).values())):
        assert metric(tmp_path / "two") == pytest.approx(metric(tmp_path / "one"), abs=1e-4)
    two, one = read_snapshots(tmp_path / "two"), read_snapshots(tmp_path / "one")
    # A constant in all energies changes no loss: the gradient of such a bias is rounding, which Adam blows up.
    seen = [name for name in one[12] if name not in ("model.mlp.net.0.bias", "model.mlp.net.2.bias")]
    assert all(torch.allclose(two[12][name], one[12][name], atol=1e-4) for name in seen)
    steps = [read_json(tmp_path / name / "best" / "state.json")["step"] for name in ("one", "two")]
    assert steps[0] == steps[1]


def test_the_encoder_alone_gives_the_same_embedding(run: Path, tmp_path: Path) -> None:
    extracted = extract_encoder(run, tmp_path / "encoder", verify=True)
    assert extracted.verified
    batch = prepare(resolve(small())).sources["test"].collate(list(range(8)), 0)
    from_run, alone = SemanticEncoder.from_pretrained(run), SemanticEncoder.from_pretrained(tmp_path / "encoder")
    embedding = alone.encode(batch)
    assert embedding.shape == (8, 8) == (8, alone.latent_dim)
    assert torch.equal(embedding, from_run.encode(batch))
    trained = load_model(run)[1].objective
    assert isinstance(trained, Location)
    with torch.no_grad():
        assert torch.equal(embedding, trained.features(batch.fields["image"]))


def test_evaluation_sets_it_beside_dumb_answers(run: Path, tmp_path: Path) -> None:
    again = evaluate(run, output=tmp_path / "scores")
    written = json.loads((tmp_path / "scores" / "scores.json").read_text())
    assert len(written) == len(again.scores) > 0
    methods = {"mean place", "nearest image", "ridge", "energy"}
    assert {score.method for score in again.scores} == methods == set(again.predictions)
    assert {score.metric for score in again.scores} == {"skill", "rmse", "mean", "within 1", "median", "p95", "worst"}
    assert {score.unit for score in again.scores} == {"1", "cell", "%"}
    assert again.task is not None
    right = again.task.truth["position"].values
    distance = np.linalg.norm(again.predictions["energy"]["position"].values - right, axis=1)
    by_name = {score.metric: score.value for score in again.scores if score.method == "energy"}
    assert by_name["mean"] == pytest.approx(distance.mean(), rel=1e-6)
    assert by_name["within 1"] == pytest.approx(100 * (distance < 1).mean())
    assert by_name["worst"] == pytest.approx(distance.max(), rel=1e-6)
    before = json.loads((run / "scores.json").read_text())
    assert before == written, "evaluated again, it says the same"


def test_answers_know_nothing_of_what_is_hidden(run: Path) -> None:
    _, trained = load_model(run)
    batch = prepare(trained.config).sources["test"].collate(list(range(8)), 0)
    image = batch.fields["image"]
    assert not image.valid.all()
    dirty = Field(values=torch.where(image.valid, image.values, 77.0), valid=image.valid)
    locator = Locator(trained)
    assert torch.equal(locator.answer(dirty), locator.answer(image))
    clean, poisoned = (trained.objective(batch.with_field("image", field)) for field in (image, dirty))
    assert torch.equal(clean.loss, poisoned.loss)


def test_going_on_with_other_settings_is_refused(run: Path) -> None:
    other = replace(longer(), loss=replace(small().loss, num_negatives=16))
    with pytest.raises(ConfigError, match=r"loss\.num_negatives: 32 -> 16.*choose another --output"):
        train("energy", other, output=run, show=False, report=False)
    assert newest_checkpoint(run / "checkpoints") is not None
