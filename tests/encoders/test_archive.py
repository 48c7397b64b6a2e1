import zipfile
from io import BytesIO
from pathlib import Path

import pytest
import torch
from torch import nn

from gridloom.core.errors import CheckpointError
from gridloom.encoders.weights import read_weights
from tests.encoders.crafted import members_of, saved, zip_by_hand

DTYPES = [
    *(torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8),
    *(torch.uint8, torch.bool, torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn, torch.float8_e5m2),
]


def same(first: torch.Tensor, second: torch.Tensor) -> bool:
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    return torch.equal(first.contiguous().view(torch.uint8), second.contiguous().view(torch.uint8))


def test_every_dtype_and_shape_is_read_as_torch_itself_reads_it(tmp_path: Path) -> None:
    base = torch.arange(24)
    weights = {str(dtype): base.to(dtype) for dtype in DTYPES}
    weights |= {
        "scalar": torch.tensor(3.5).reshape(1)[0].clone(),
        "empty": torch.ones(0, 512),
        "transposed": torch.randn(4, 6).t(),
        "slice": torch.randn(10, 10)[2:5, ::3],
        "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "parameter": nn.Parameter(torch.randn(3)),
        "buffer": nn.Buffer(torch.randn(3)),
        "expanded_one": torch.randn(1).expand(1, 1),
    }
    torch.save(weights, tmp_path / "all.pth")
    ours, theirs = read_weights(tmp_path / "all.pth"), torch.load(tmp_path / "all.pth", weights_only=True)
    assert ours.keys() == weights.keys()
    assert [name for name in weights if not same(ours[name].reshape(-1), theirs[name].detach().reshape(-1))] == []
    assert all(ours[name].shape == theirs[name].shape for name in weights)
    assert all(ours[name].stride() == theirs[name].stride() for name in weights if theirs[name].numel())


def test_tied_weights_share_memory(tmp_path: Path) -> None:
    weight = torch.randn(4)
    torch.save({"a": weight, "b": weight[1:]}, tmp_path / "tied.pth")
    read = read_weights(tmp_path / "tied.pth")
    assert read["b"].data_ptr() == read["a"].data_ptr() + 4


def test_a_file_of_the_other_byte_order_is_turned(tmp_path: Path) -> None:
    weight = torch.randn(5)
    turned = []
    for name, data, method, size in members_of(saved({"a": weight})):
        if name.endswith("byteorder"):
            data, size = b"big", 3
        elif name.endswith("data/0"):
            data = weight.numpy().astype(">f4").tobytes()
        turned.append((name, data, method, size))
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data, _, _ in turned:
            archive.writestr(name, data)
    (tmp_path / "big.pth").write_bytes(buffer.getvalue())
    assert torch.equal(read_weights(tmp_path / "big.pth")["a"], weight)


def test_a_file_without_checksums_is_read(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"a": torch.ones(3)}, tmp_path / "unchecked.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    assert torch.equal(read_weights(tmp_path / "unchecked.pth")["a"], torch.ones(3))


def test_a_wrong_checksum_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(zip_by_hand(members_of(saved({"a": torch.ones(300)}))))
    assert read_weights(tmp_path / "x.pth")["a"].sum() == 300  # written with checksums of nothing, which are 0
    content = bytearray(saved({"a": torch.ones(300)}))
    content[content.index(torch.ones(300).numpy().tobytes()) + 7] ^= 4
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match="checksum differs"):
        read_weights(tmp_path / "x.pth")


def test_numbers_for_names_are_passed_over_where_there_are_others(tmp_path: Path) -> None:
    states = {0: {"exp_avg": torch.ones(2)}, 1: torch.ones(1)}
    torch.save({"model": {"a": torch.zeros(1)}, "states": states, "list": [torch.ones(1)]}, tmp_path / "x.pth")
    assert read_weights(tmp_path / "x.pth").keys() == {"model.a", "states.0.exp_avg"}


def test_a_dictionary_that_stands_twice_is_read_twice(tmp_path: Path) -> None:
    inner = {"a": torch.ones(1)}
    torch.save({"first": inner, "second": inner}, tmp_path / "x.pth")
    assert read_weights(tmp_path / "x.pth").keys() == {"first.a", "second.a"}
