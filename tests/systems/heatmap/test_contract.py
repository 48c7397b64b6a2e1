"""The battery for this system: learns, killed and resumed bit-equal, two ranks as one, its encoder alone, bad input."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

import gridloom
from gridloom.core.errors import ConfigError, DataError
from gridloom.core.system import System
from gridloom.encoders.artifact import load_model
from gridloom.encoders.encoder import SemanticEncoder
from gridloom.encoders.extract import extract_encoder
from gridloom.systems.heatmap import SYSTEM, HeatmapConfig, HeatmapForecaster
from gridloom.systems.heatmap.config import LossConfig
from gridloom.systems.heatmap.data import open_record
from gridloom.systems.heatmap.predict import SAMPLES
from gridloom.train.checkpoint import newest_checkpoint
from gridloom.train.log import read_metrics
from tests.contract.processes import KILLED, train_in_child, train_on_ranks
from tests.systems.heatmap.small import LOCAL, MEMORY, SIZE, TRANSFORMER, config, frames_dataset, save

MODEL: Mapping[str, Any] = {
    "causal": TRANSFORMER, "residual": "ema", "memory": MEMORY, "local": replace(LOCAL, kernel=3), "next_slot": True,
    "pool": "flatten", "normalize": "frame+stats",
}  # fmt: skip


def whole_model(path: str) -> HeatmapConfig:
    return config(
        path,
        data={"num_samples": 4},
        model=MODEL,
        loss=LossConfig(context_noise=0.05),
        # Small steps: ranks add in another order, and large ones multiply rounding.
        train={"steps": 12, "batch_size": 8, "warmup_steps": 2, "learning_rate": 1e-3, "validate_every": 6},
    )


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(frames_dataset(sessions=12, series=2, halted=0.1), tmp_path_factory.mktemp("frames"))


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
def run(system: System, path: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with its artifact."""
    folder, plan = tmp_path_factory.mktemp("finished") / "run", whole_model(path)
    plan = replace(plan, train=replace(plan.train, learning_rate=2e-2, steps=12))
    gridloom.train_system(system, system.resolve(plan), output=folder, show=False, report=False)
    return folder


def losses(folder: Path, part: str = "train") -> list[float]:
    return [record["loss"] for record in read_metrics(folder / "metrics.jsonl") if record["part"] == part]


def state(folder: Path) -> dict[str, torch.Tensor]:
    found = newest_checkpoint(folder / "checkpoints")
    assert found is not None
    return safetensors.torch.load_file(found.path / "model.safetensors")


def test_it_learns(run: Path) -> None:
    history = losses(run)
    assert len(history) == 12 and sum(history[-4:]) < 0.9 * sum(history[:4])
    validation = [record for record in read_metrics(run / "metrics.jsonl") if record["part"] == "validation"]
    assert validation[-1]["mse"] < validation[-1]["mse_persistence"]


def test_a_killed_run_resumes_bit_equal(system: System, whole: Path, tmp_path: Path) -> None:
    assert train_in_child(system, tmp_path / "run", fault="step:7:kill") == KILLED
    assert train_in_child(system, tmp_path / "run", loader_threads=2) == 0
    ours, theirs = state(tmp_path / "run"), state(whole)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert losses(tmp_path / "run") == losses(whole)


def test_two_ranks_give_the_losses_of_one(system: System, whole: Path, tmp_path: Path) -> None:
    train_on_ranks(system, tmp_path / "two", 2)
    assert len(losses(whole)) == 12
    assert losses(tmp_path / "two") == pytest.approx(losses(whole), abs=1e-5)
    assert losses(tmp_path / "two", "validation") == pytest.approx(losses(whole, "validation"), abs=1e-4)


def test_the_encoder_alone_gives_the_same_embeddings(run: Path, path: str, tmp_path: Path) -> None:
    assert extract_encoder(run, tmp_path / "encoder", verify=True).verified
    from_run, alone = (SemanticEncoder.from_pretrained(folder) for folder in (run, tmp_path / "encoder"))
    embeddings = alone.encode_dataset(path, batch_size=50)
    assert embeddings.dims == ("series", "time", "feature") and embeddings.shape == (2, 72, 16)
    assert alone.latent_dim == 16
    np.testing.assert_array_equal(embeddings, from_run.encode_dataset(path, batch_size=50))
    found = open_record(path)
    np.testing.assert_array_equal(np.isfinite(embeddings).all("feature"), found.valid)
    np.testing.assert_array_equal(np.isnan(embeddings).all("feature"), ~found.valid)
    trained = load_model(run)[1].objective
    with torch.no_grad():
        z = trained.encoder(torch.from_numpy(found.pixels()), torch.from_numpy(found.slot).repeat(2, 1))
    expected = np.where(found.valid[..., None], z.numpy(), np.nan)
    np.testing.assert_allclose(embeddings, expected, rtol=0, atol=1e-5)
    assert embeddings["time"].values.tolist() == found.time.tolist()
    assert embeddings["series"].values.tolist() == ["600000", "600001"]


def test_a_stock_day_is_239_latents(tmp_path: Path) -> None:
    day = frames_dataset(sessions=1, slots=239)
    day["valid"][[3, 200]] = False
    encoder = SYSTEM.encoder(config(model={"num_slots": 239}))
    made = SemanticEncoder.__new__(SemanticEncoder)
    torch.nn.Module.__init__(made)
    made._begin()
    made._adopt(encoder, SYSTEM, config(model={"num_slots": 239}), {"frames": []})
    embeddings = made.eval().encode_dataset(day)
    assert embeddings.dims == ("time", "feature") and embeddings.shape == (239, 16)
    missing = np.flatnonzero(np.isnan(embeddings).all("feature"))
    assert missing.tolist() == [3, 200] and np.isfinite(embeddings).all("feature").sum() == 237
    assert embeddings["missing_share"].values.nonzero()[0].tolist() == [3, 200]


def test_a_run_answers_the_question_of_its_test(run: Path) -> None:
    trained = load_model(run)[1]
    task = SYSTEM.prepare(trained.config).task("test")
    answers = HeatmapForecaster(trained).predict(task.given, task.wanted)
    assert answers["frames"].dims == task.truth["frames"].dims
    assert answers[SAMPLES].sizes["sample"] == 4
    wanted = task.wanted["frames"].values
    for name in ("frames", SAMPLES):
        found = answers[name].values
        assert np.isfinite(found).all() and found.min() >= 0 and found.max() <= 1
    counts = np.expm1(answers[SAMPLES].values.astype(float) * np.log1p(15))
    np.testing.assert_allclose(counts, counts.round(), rtol=0, atol=1e-4, err_msg="paths are whole counts")
    error = (answers["frames"].values - task.truth["frames"].values)[wanted]
    nothing = task.truth["frames"].values[wanted]
    assert (error**2).mean() < (nothing**2).mean()
    again = HeatmapForecaster(trained).predict(task.given, task.wanted)
    np.testing.assert_array_equal(again[SAMPLES], answers[SAMPLES])


def test_bad_input_is_refused(run: Path, tmp_path: Path) -> None:
    trained = load_model(run)[1]
    task = SYSTEM.prepare(trained.config).task("test")
    forecaster = HeatmapForecaster(trained)
    for given, message in [
        (frames_dataset(size=16, series=2), r"input must be \(B,T,2,8,8\), got frames of 2x16x16"),
        (frames_dataset(slots=7, series=2), "slot_id out of range: the model knows 6 slots, the data have 7"),
    ]:
        with pytest.raises(DataError, match=message):
            forecaster.predict(given, task.wanted)
    encoder = SemanticEncoder.from_pretrained(run)
    with pytest.raises(DataError, match=r"got frames of 2x16x16"):
        encoder.encode_dataset(frames_dataset(size=16))
    with pytest.raises(DataError, match="leave stride out"):
        encoder.encode_dataset(frames_dataset(), stride={"time": 2})
    odd = save(frames_dataset(size=SIZE + 1), tmp_path)
    with pytest.raises(ConfigError, match="sides must be multiples of 2, got 9x9"):
        SYSTEM.resolve(config(odd))
