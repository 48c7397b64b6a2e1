import logging
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from gridloom.core.errors import CheckpointError
from gridloom.encoders.extract import extract_encoder
from gridloom.encoders.match import pick_encoder
from gridloom.encoders.weights import read_weights
from tests.encoders.small import small_autoencoder
from tests.encoders.wrapped import ACCEPTED, REFUSED, place, read_wrapped_files, write_wrapped_files


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wrapped")
    write_wrapped_files(folder)
    return folder


@pytest.fixture(scope="module")
def verdicts(folder: Path) -> dict:
    return read_wrapped_files(folder)


@pytest.mark.parametrize("name", ACCEPTED)
def test_the_encoder_comes_out_bit_equal(verdicts: dict, name: str) -> None:
    assert verdicts[name].get("equal") and verdicts[name]["verified"], verdicts[name]


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_whole_is_refused_with_what_to_do(verdicts: dict, name: str) -> None:
    message = verdicts[name]["refused"]
    assert REFUSED[name].says in message and "save" in message and "\n" not in message
    assert not verdicts[name]["written"]


def test_folded_weights_are_not_those_of_the_start(folder: Path) -> None:
    start = small_autoencoder().encoder.state_dict()
    for name in ("weight_norm", "weight_norm of the whole", "older weight_norm"):
        folded = safetensors.torch.load_file(place(folder, name).with_suffix(".expected"))
        assert torch.allclose(folded["stem.0.weight"], start["stem.0.weight"] * 1.7)


def test_strangers_classes_are_named_in_one_line_and_not_imported(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="gridloom"):
        read_weights(place(folder, "Lightning"))
    (line,) = caplog.messages
    assert line.endswith("passed over, not opened: strangers_package.Stranger, strangers_package.StrangersDict")
    assert "strangers_package" not in sys.modules


@pytest.mark.parametrize("name", ["AveragedModel beside", "EMA of timm", "Lightning with averaging"])
def test_averages_are_left_aside_unless_asked_for(folder: Path, name: str) -> None:
    found = pick_encoder(name, read_weights(place(folder, name)))
    wanted = small_autoencoder().encoder.state_dict()
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)


def test_a_prefix_chooses_among_encoders(folder: Path, tmp_path: Path) -> None:
    file = place(folder, "student and teacher")
    with pytest.raises(CheckpointError, match=r"several encoders: .*name one with --prefix"):
        extract_encoder(file, tmp_path / "encoder")
    with pytest.raises(CheckpointError, match=r"no encoder under the prefix 'techer.encoder'; did you mean 'teacher"):
        extract_encoder(file, tmp_path / "encoder", prefix="techer.encoder")
    with pytest.raises(CheckpointError, match="leave --average out"):
        extract_encoder(file, tmp_path / "encoder", prefix="teacher.encoder", average=True)
    found = extract_encoder(file, tmp_path / "encoder", prefix="student.encoder").encoder.state_dict()
    assert all(torch.equal(found[key], tensor) for key, tensor in small_autoencoder().encoder.state_dict().items())


def test_a_part_of_a_sharded_checkpoint_says_that_the_folder_is_wanted(folder: Path, tmp_path: Path) -> None:
    sharded = place(folder, "FSDP2, sharded")
    for part in sharded.iterdir():
        with pytest.raises(CheckpointError, match="pass its folder"):
            extract_encoder(part, tmp_path / "encoder")


@pytest.mark.parametrize("name", ["FSDP2, sharded"])
def test_a_sharded_checkpoint_reads_as_torch_itself_reads_it(folder: Path, tmp_path: Path, name: str) -> None:
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    dcp_to_torch_save(place(folder, name), tmp_path / "whole.pth")
    ours, torchs = read_weights(place(folder, name)), read_weights(tmp_path / "whole.pth")
    names = ours.keys() & torchs.keys()
    assert len(names) >= len(torchs) > 40
    assert all(torch.equal(ours[key], torchs[key]) for key in torchs)
