"""An artifact never takes the place of something else; small mistakes get one clear line."""

from pathlib import Path

import pytest
import torch

from gridloom.core.errors import CheckpointError, ConfigError, DataError
from gridloom.encoders.encoder import SemanticEncoder
from gridloom.encoders.extract import extract_encoder
from gridloom.encoders.weights import read_weights
from gridloom.systems.semantic.config import SemanticConfig
from tests.encoders.small import small_encoder, weights_file


def test_a_folder_of_something_else_is_not_replaced(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "a.png").write_bytes(b"dear")
    with pytest.raises(DataError, match="exists and is no artifact: it would be replaced"):
        extract_encoder(weights_file(tmp_path), pictures)
    with pytest.raises(DataError, match="exists and is no artifact"):
        small_encoder(tmp_path).save_pretrained(pictures)
    assert (pictures / "a.png").read_bytes() == b"dear"
    extract_encoder(weights_file(tmp_path), tmp_path / "encoder")
    assert extract_encoder(weights_file(tmp_path), tmp_path / "encoder", verify=True).verified


@pytest.mark.parametrize(("layout", "name"), [("seed", "w.safetensors"), ("seed", "folder"), ("artifact", "w.pth")])
def test_layout_and_name_must_fit(layout: str, name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="they do not fit"):
        extract_encoder(weights_file(tmp_path), tmp_path / name, layout=layout)  # type: ignore[arg-type]


def test_weights_are_not_saved_over_a_folder(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(DataError, match=r"is a folder, expected the name of a \.pth file"):
        small_encoder(tmp_path).save_encoder_weights(tmp_path / "there")


def test_data_is_told_from_weights(tmp_path: Path) -> None:
    (tmp_path / "data.nc").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(CheckpointError, match=r"this is data \(netCDF or HDF5\), not weights"):
        read_weights(tmp_path / "data.nc")


def test_a_seed_below_zero_is_refused_before_anything_is_trained() -> None:
    with pytest.raises(ConfigError, match="seed must be between 0 and"):
        SemanticConfig(seed=-1)


def test_an_encoder_is_an_encoder(tmp_path: Path) -> None:
    encoder = small_encoder(tmp_path)
    assert isinstance(encoder, SemanticEncoder)
    assert torch.equal(encoder(torch.ones(1, 1, 32, 32)), encoder.encode(torch.ones(1, 1, 32, 32)))
