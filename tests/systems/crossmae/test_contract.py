"""The battery for this system: killed and resumed bit-equal, two ranks as one, its encoder alone, companions."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import safetensors.torch
import torch

import gridloom
from gridloom.core.settings import TrainConfig
from gridloom.core.system import System
from gridloom.encoders.encoder import SemanticEncoder
from gridloom.encoders.extract import extract_encoder
from gridloom.grid.hydrology import hydrology
from gridloom.systems.crossmae import SYSTEM
from gridloom.systems.crossmae.config import CrossMAEConfig, DataConfig, MaskingConfig, ModelConfig
from gridloom.train.checkpoint import newest_checkpoint
from gridloom.train.log import read_metrics
from tests.contract.processes import KILLED, train_in_child, train_on_ranks


def five_modalities(path: str) -> CrossMAEConfig:
    return CrossMAEConfig(
        data=DataConfig(path=path, window=(8, 0, 0), split="time", fractions=(0.6, 0.2, 0.2)),
        model=ModelConfig(
            dim=16, image_depth=1, vector_depth=1, num_heads=2, decoder_dim=16, decoder_depth=2, decoder_heads=2,
            image_patch=(2, 2), vector_patch=4, fusion="shared",
        ),
        masking=MaskingConfig(strategies=("random", "blocks", "gaps"), share=0.5, predict=0.5),
        train=TrainConfig(
            steps=20, batch_size=8, warmup_steps=4, log_every=1, validate_every=10, checkpoint_every=5,
            tensorboard=False,
        ),
    )  # fmt: skip


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> System:
    path = tmp_path_factory.mktemp("data") / "water.nc"
    gridloom.save_grid(hydrology(num_days=100, height=12, width=8, num_places=5, patch=2), path)
    # Children get it pickled: only what training needs.
    return replace(SYSTEM, presets={"default": partial(five_modalities, str(path))}, baselines={}, figures={})


@pytest.fixture(scope="module")
def whole(system: System, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert train_in_child(system, folder) == 0
    return folder


def losses(folder: Path, part: str = "train") -> list[float]:
    return [record["loss"] for record in read_metrics(folder / "metrics.jsonl") if record["part"] == part]


def state(folder: Path) -> dict[str, torch.Tensor]:
    found = newest_checkpoint(folder / "checkpoints")
    assert found is not None
    return safetensors.torch.load_file(found.path / "model.safetensors")


def test_it_learns(whole: Path) -> None:
    history = losses(whole)
    assert len(history) == 20 and sum(history[-5:]) < 0.85 * sum(history[:5])


def test_a_killed_run_resumes_bit_equal(system: System, whole: Path, tmp_path: Path) -> None:
    assert train_in_child(system, tmp_path / "run", fault="step:12:kill") == KILLED
    assert train_in_child(system, tmp_path / "run", loader_threads=2) == 0
    ours, theirs = state(tmp_path / "run"), state(whole)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert losses(tmp_path / "run") == losses(whole)


def test_two_ranks_give_the_losses_of_one_over_twenty_steps(system: System, whole: Path, tmp_path: Path) -> None:
    train_on_ranks(system, tmp_path / "two", 2)
    assert len(losses(whole)) == 20
    assert losses(tmp_path / "two") == pytest.approx(losses(whole), abs=1e-5)
    assert losses(tmp_path / "two", "validation") == pytest.approx(losses(whole, "validation"), abs=1e-4)


def test_the_encoder_alone_gives_the_same_embeddings(system: System, tmp_path: Path) -> None:
    config = system.resolve(system.presets["default"]())
    config = replace(config, train=replace(config.train, steps=2, validate_every=0))
    gridloom.train_system(SYSTEM, config, output=tmp_path / "run", show=False, report=False)
    assert extract_encoder(tmp_path / "run", tmp_path / "encoder", verify=True).verified
    batch = system.prepare(config).sources["test"].collate([0, 1, 2], 0)
    from_run, alone = (SemanticEncoder.from_pretrained(tmp_path / name) for name in ("run", "encoder"))
    embed: Callable = alone.encode
    assert torch.equal(embed(batch), from_run.encode(batch)) and embed(batch).shape == (3, 5 * 16)
    torch.testing.assert_close(embed(batch)[:1], embed(batch.take(slice(0, 1))), rtol=0, atol=1e-6)
    tokens = alone.encode(batch, output="tokens")
    images, series = 3 * 8 * 24, 2 * 2 * 5
    assert tokens.shape == (3, images + series, 16) and alone.latent_dim == 80
    embeddings = alone.encode_dataset(config.data.path)
    assert embeddings.sizes["feature"] == 80 and "time" in embeddings.dims
