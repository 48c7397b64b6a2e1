"""The battery for this system: learns, killed and resumed bit-equal, two ranks as one, answers, leaks nothing."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

import gridloom
from gridloom.core.errors import CheckpointError, ConfigError, DataError
from gridloom.core.system import System
from gridloom.encoders.artifact import load_model
from gridloom.encoders.encoder import SemanticEncoder
from gridloom.systems.temporal import SYSTEM
from gridloom.systems.temporal.config import LossConfig, TemporalConfig
from gridloom.systems.temporal.objective import FlickerFree
from gridloom.systems.temporal.predict import FlickerFilter
from gridloom.systems.temporal.warmup import AlphaWarmup
from gridloom.train.checkpoint import newest_checkpoint
from gridloom.train.log import read_metrics
from tests.contract.processes import KILLED, train_in_child, train_on_ranks
from tests.systems.temporal.small import config, moving_clip, save


def whole_model(path: str) -> TemporalConfig:
    return config(
        path,
        model={"gate": "spatial", "predict_flow": True},
        loss=LossConfig(edge=0.1),
        warmup=AlphaWarmup(start=0.1, target=0.8, steps=4),
        # Small steps: ranks add in another order, and large ones multiply rounding.
        train={"learning_rate": 1e-3, "steps": 8},
    )


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(moving_clip(cut=9), tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def system(path: str) -> System:
    # Children get it pickled: only what training needs.
    return replace(SYSTEM, presets={"default": partial(whole_model, path)}, baselines={}, figures={})


@pytest.fixture(scope="module")
def whole(system: System, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert train_in_child(system, folder) == 0
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on given flow, with its artifact."""
    path = save(moving_clip(length=40), tmp_path_factory.mktemp("long"))
    folder, plan = tmp_path_factory.mktemp("finished") / "run", config(path, train={"steps": 60})
    gridloom.train_system("temporal", plan, output=folder, show=False, report=False)
    return folder


def losses(folder: Path, part: str = "train") -> list[float]:
    return [record["loss"] for record in read_metrics(folder / "metrics.jsonl") if record["part"] == part]


def state(folder: Path) -> dict[str, torch.Tensor]:
    found = newest_checkpoint(folder / "checkpoints")
    assert found is not None
    return safetensors.torch.load_file(found.path / "model.safetensors")


def test_it_learns_and_beats_the_input(run: Path) -> None:
    history = losses(run)
    assert np.mean(history[-10:]) < np.mean(history[:10]) - 0.3
    last = [record for record in read_metrics(run / "metrics.jsonl") if record["part"] == "validation"][-1]
    assert last["error_db"] < -3.0 and 0.3 < last["alpha"] < 1.0


def test_a_killed_run_resumes_bit_equal(system: System, whole: Path, tmp_path: Path) -> None:
    assert train_in_child(system, tmp_path / "run", fault="step:5:kill") == KILLED
    assert train_in_child(system, tmp_path / "run", loader_threads=2) == 0
    ours, theirs = state(tmp_path / "run"), state(whole)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert losses(tmp_path / "run") == losses(whole)


def test_two_ranks_give_the_losses_of_one(system: System, whole: Path, tmp_path: Path) -> None:
    train_on_ranks(system, tmp_path / "two", 2)
    assert len(losses(whole)) == 8
    assert losses(tmp_path / "two") == pytest.approx(losses(whole), abs=2e-5)
    assert losses(tmp_path / "two", "validation") == pytest.approx(losses(whole, "validation"), abs=1e-4)


def test_a_run_answers_its_question_and_beats_doing_nothing(run: Path) -> None:
    trained = load_model(run)[1]
    task = SYSTEM.prepare(trained.config).task("test")
    answers = FlickerFilter(trained).predict(task.given, task.wanted)
    assert answers["frames"].dims == task.truth["frames"].dims == answers["beside"].dims
    truth, noisy = task.truth["frames"].values, task.given["frames"].values
    assert ((answers["frames"].values - truth) ** 2)[3:].mean() < 0.6 * ((noisy - truth) ** 2)[3:].mean()


def test_the_clean_frames_beside_change_no_answer(run: Path) -> None:
    trained = load_model(run)[1]
    task = SYSTEM.prepare(trained.config).task("test")
    other = task.given.assign(beside=-5 * task.given["beside"])
    first, second = (FlickerFilter(trained).predict(given, task.wanted) for given in (task.given, other))
    np.testing.assert_array_equal(first["frames"], second["frames"])
    alone = FlickerFilter(trained).predict(task.given.drop_vars("beside"), task.wanted)
    np.testing.assert_array_equal(first["frames"], alone["frames"])


def test_a_clip_is_evaluated_with_every_baseline(run: Path) -> None:
    found = gridloom.evaluate_model(run)
    methods = set(found.predictions)
    assert {"input", "no warp 0.5", "constant 0.5", "constant 0.8", "seed", "kalman", "temporal"} <= methods
    error = {score.method: score.value for score in found.scores if score.metric == "error"}
    assert error["input"] == pytest.approx(0.0, abs=0.3) and error["temporal"] < error["no warp 0.5"]
    assert {"skill", "error", "bias", "variation", "sharpness", "warp error", "warp floor", "rmse"} == {
        score.metric for score in found.scores
    }


def test_there_is_no_encoder_and_encode_says_so(run: Path) -> None:
    with pytest.raises(CheckpointError, match="system 'temporal' has no encoder; this artifact is a model"):
        SemanticEncoder.from_pretrained(run)


def test_missing_cells_change_neither_loss_nor_gradient(path: str) -> None:
    plan = SYSTEM.resolve(config(path))
    batch = SYSTEM.prepare(plan).sources["train"].collate([0, 3, 5], 0)
    frames = batch.fields["frames"]
    valid = torch.rand(frames.values.shape, generator=torch.Generator().manual_seed(0)) > 0.1
    found = []
    for hidden in (0.0, 1e6):
        torch.manual_seed(0)
        objective = FlickerFree(plan)
        changed = replace(frames, values=torch.where(valid, frames.values, hidden), valid=valid)
        loss = objective(batch.with_field("frames", changed)).loss
        loss.sum().backward()
        found.append((loss.detach(), [parameter.grad for parameter in objective.parameters()]))
    assert torch.equal(found[0][0], found[1][0]) and torch.isfinite(found[0][0]).all()
    assert all(torch.equal(first, second) for first, second in zip(found[0][1], found[1][1], strict=True))


def test_each_loss_is_its_own(path: str) -> None:
    plan = SYSTEM.resolve(whole_model(path))
    source = SYSTEM.prepare(plan).sources["train"]
    torch.manual_seed(0)
    objective = FlickerFree(plan)
    together = objective(source.collate([1, 4, 6], 2)).loss.detach()
    alone = torch.cat([objective(source.collate([window], 2)).loss.detach() for window in (1, 4, 6)])
    torch.testing.assert_close(together, alone, rtol=0, atol=2e-5)


def test_bad_input_is_refused(run: Path, tmp_path: Path) -> None:
    trained = load_model(run)[1]
    task = SYSTEM.prepare(trained.config).task("test")
    with pytest.raises(DataError, match="expected latents of 3 channels, got 2"):
        FlickerFilter(trained).predict(task.given.isel(channel=slice(2)), task.wanted)
    with pytest.raises(DataError, match="no window of 2 frames fits"):
        SYSTEM.prepare(config(save(moving_clip(length=6), tmp_path)))
    with pytest.raises(DataError, match="must have the same channels"):
        first, second = save(moving_clip(), tmp_path, "a"), save(moving_clip(channels=2), tmp_path, "b")
        SYSTEM.resolve(config(first, data={"also": (second,)}))
    with pytest.raises(DataError, match=r"expected frames on \(time, channel, y, x\) in the variable 'frames'"):
        SYSTEM.resolve(config("etopo20"))
    with pytest.raises(ConfigError, match="leaves nothing to train on"):
        config("bunny", data={"held_out": True})
    with pytest.raises(ConfigError, match=r"loss\.skip must be below data\.window"):
        config("bunny", loss=LossConfig(skip=9))
