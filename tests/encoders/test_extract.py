import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from gridloom.core.errors import CheckpointError, DataError
from gridloom.encoders.artifact import load_encoder, load_model, read_artifact
from gridloom.encoders.encoder import SemanticEncoder
from gridloom.encoders.extract import extract_encoder
from gridloom.workflows.train import train
from tests.encoders.small import LATENT, images, small_autoencoder, weights_file
from tests.workflows.tiny import SHORT, tiny_config


def test_the_seeds_layout_has_exactly_its_keys(tmp_path: Path) -> None:
    source = weights_file(tmp_path)
    extract_encoder(source, tmp_path / "encoder.pth", verify=True)
    content = torch.load(tmp_path / "encoder.pth", weights_only=True)
    encoder = small_autoencoder().encoder
    total = sum(parameter.numel() for parameter in encoder.parameters())
    assert list(content) == ["encoder_state_dict", "model_config", "extracted_from", "extraction_info"]
    assert content["model_config"] == {"input_channels": 1, "latent_dim": LATENT, "model_type": encoder.config.arch}
    assert content["extracted_from"] == str(source)
    assert content["extraction_info"] == {
        "total_params": total,
        "trainable_params": total,
        "num_weights": len(encoder.state_dict()),
    }
    assert content["encoder_state_dict"].keys() == encoder.state_dict().keys()
    assert all(torch.equal(content["encoder_state_dict"][n], t) for n, t in encoder.state_dict().items())


def test_an_artifact_holds_all_that_is_needed(tmp_path: Path) -> None:
    done = extract_encoder(weights_file(tmp_path), tmp_path / "encoder", verify=True)
    assert done.verified and done.layout == "artifact"
    names = {"README.md", "config.json", "manifest.json", "model.safetensors", "normalizer.json"}
    assert {path.name for path in done.output.iterdir()} == names
    config = json.loads((done.output / "config.json").read_text())
    assert config["kind"] == "encoder" and config["system"] == "semantic"
    assert config["inputs"]["fields"]["image"]["size"][0] == 1
    manifest = json.loads((done.output / "manifest.json").read_text())["files"]
    assert set(manifest) == names - {"manifest.json"}


@pytest.mark.parametrize("layout", ["artifact", "seed"])
def test_the_default_output_stands_beside_the_checkpoint(tmp_path: Path, layout: Any) -> None:
    source = weights_file(tmp_path)
    done = extract_encoder(source, layout=layout)
    assert done.output == tmp_path / (f"{source.stem}_encoder" + (".pth" if layout == "seed" else ""))
    assert done.output.exists() and not done.verified


def lightning(state: dict) -> dict:
    moments = {"exp_avg": torch.zeros(3), "step": torch.tensor(5.0)}
    return {
        "epoch": 3,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": {f"model.{name}": tensor for name, tensor in state.items()},
        "optimizer_states": [{"state": {0: moments}, "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.95)}]}],
        "hyper_parameters": {"latent_dim": 16, "name": "ae", "sizes": [1, 2]},
    }


CHECKPOINTS: dict[str, Callable[[dict], dict]] = {
    "plain": dict,
    "model_state_dict": lambda state: {"model_state_dict": state, "loss": 0.5},
    "DDP": lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
    "Lightning": lightning,
}


@pytest.mark.parametrize("make", CHECKPOINTS.values(), ids=CHECKPOINTS.keys())
def test_checkpoints_of_any_kind_give_the_same_embeddings(tmp_path: Path, make: Callable[[dict], dict]) -> None:
    model = small_autoencoder()
    torch.save(make(model.state_dict()), tmp_path / "checkpoint.ckpt")
    extract_encoder(tmp_path / "checkpoint.ckpt", tmp_path / "encoder", verify=True)
    encoder = SemanticEncoder.from_pretrained(tmp_path / "encoder", device="cpu")
    assert torch.equal(
        encoder.encode(images()), SemanticEncoder.from_pretrained(weights_file(tmp_path)).encode(images())
    )


def test_safetensors_and_the_seeds_own_output_are_read(tmp_path: Path) -> None:
    safetensors.torch.save_file(small_autoencoder().state_dict(), tmp_path / "model.safetensors")
    extract_encoder(tmp_path / "model.safetensors", tmp_path / "first.pth", verify=True)
    extract_encoder(tmp_path / "first.pth", tmp_path / "second", verify=True)
    first = SemanticEncoder.from_pretrained(tmp_path / "first.pth").encode(images())
    assert torch.equal(first, SemanticEncoder.from_pretrained(tmp_path / "second").encode(images()))


@pytest.mark.parametrize(("belief", "says"), [({"input_channels": 3}, "pass 1"), ({"latent_dim": 768}, "pass 16")])
def test_what_the_caller_believes_must_be_so(tmp_path: Path, tiny_run: Path, belief: dict, says: str) -> None:
    source = weights_file(tmp_path)
    name = next(iter(belief))
    for checkpoint in (source, extract_encoder(source, tmp_path / "artifact").output, tiny_run):
        with pytest.raises(CheckpointError, match=rf"{name} is \d+.*{says}"):
            extract_encoder(checkpoint, tmp_path / "out", **belief)
        assert not (tmp_path / "out").exists()
    right = extract_encoder(source, tmp_path / "out", input_channels=1, latent_dim=LATENT)
    assert right.output.is_dir()


def test_a_run_gives_its_encoder_with_its_statistics(tmp_path: Path, tiny_run: Path) -> None:
    done = extract_encoder(tiny_run, tmp_path / "encoder", verify=True)
    _, trained = load_model(tiny_run)
    wanted = trained.objective.encoder.state_dict()
    assert all(torch.equal(wanted[name], tensor) for name, tensor in done.encoder.state_dict().items())
    loaded = load_encoder(done.output)
    assert loaded.normalizer == json.loads((tiny_run / "normalizer.json").read_text())
    assert read_artifact(done.output).training["steps"] == trained.config.train.steps


def test_a_checkpoint_folder_and_an_unfinished_run_give_their_encoder(tmp_path: Path, tiny_run: Path) -> None:
    latest = (tiny_run / "checkpoints" / "latest").read_text().strip()
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    (unfinished / "checkpoints").symlink_to(tiny_run / "checkpoints")
    with pytest.raises(CheckpointError, match="a run that is not finished"):
        SemanticEncoder.from_pretrained(unfinished)
    whole = extract_encoder(tiny_run, tmp_path / "a").encoder.state_dict()
    for number, checkpoint in enumerate((unfinished, tiny_run / "checkpoints" / latest)):
        done = extract_encoder(checkpoint, tmp_path / f"encoder{number}", verify=True)
        assert all(torch.equal(whole[name], tensor) for name, tensor in done.encoder.state_dict().items())
        assert SemanticEncoder.from_pretrained(done.output).normalizer is not None


def test_a_missing_file_and_the_file_itself_as_output_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"weights file not found \(权重文件不存在\): .*nowhere\.pth"):
        extract_encoder(tmp_path / "nowhere.pth")
    source = weights_file(tmp_path)
    before = source.read_bytes()
    with pytest.raises(DataError, match="the output is the checkpoint itself"):
        extract_encoder(source, source)
    assert source.read_bytes() == before


def test_a_changed_artifact_is_refused(tmp_path: Path) -> None:
    done = extract_encoder(weights_file(tmp_path), tmp_path / "encoder")
    file = done.output / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        SemanticEncoder.from_pretrained(done.output)


def test_a_failed_verification_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gridloom.encoders import extract

    other = small_autoencoder(seed=9).encoder
    written = extract.seed_layout
    monkeypatch.setattr(extract, "seed_layout", lambda encoder, source: written(other, source))
    with pytest.raises(CheckpointError, match=r"verification failed, \d+ tensors differ"):
        extract_encoder(weights_file(tmp_path), tmp_path / "encoder.pth", verify=True)


def test_the_average_of_an_unfinished_run_can_be_taken(tmp_path: Path, tiny_data: Path) -> None:
    config = tiny_config(tiny_data, train=replace(SHORT, ema_decay=0.9, keep="best", patience=5))
    run = tmp_path / "run"
    train("semantic", config, output=run, show=False, report=False)
    shutil.rmtree(run / "artifact")
    plain = extract_encoder(run, tmp_path / "plain", verify=True).encoder.state_dict()
    average = extract_encoder(run, tmp_path / "average", average=True, verify=True).encoder.state_dict()
    kept = safetensors.torch.load_file(next((run / "checkpoints").glob("step-*6/average.safetensors")))
    for name, tensor in average.items():
        assert torch.equal(tensor, kept[f"autoencoder.encoder.{name}"]) and not torch.equal(tensor, plain[name])


def test_a_folder_that_is_no_checkpoint_of_a_run_is_refused(tmp_path: Path, tiny_data: Path) -> None:
    run = tmp_path / "run"
    train("semantic", tiny_config(tiny_data, train=replace(SHORT, keep="best")), output=run, show=False, report=False)
    with pytest.raises(CheckpointError, match=r"not a checkpoint of a run \(its state\.json names no system\)"):
        extract_encoder(run / "best", tmp_path / "encoder")
    shutil.rmtree(run / "artifact")
    with pytest.raises(CheckpointError, match=r"no averaged weights; the run was trained without train\.ema_decay"):
        extract_encoder(run, tmp_path / "encoder", average=True)
