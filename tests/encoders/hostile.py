"""Files that no reader of weights should take: some would run code, some exhaust memory, some are just broken.

Nothing here needs pytest: a benchmark can write the same files and hand them to other readers.
"""

import io
import json
import pickle
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from tests.encoders.crafted import (
    Add,
    Hostile,
    Reduces,
    RunsCode,
    Weights,
    members_of,
    saved,
    torch_zip,
    zip_by_hand,
)
from tests.encoders.hostile_folders import write_hostile_folders
from tests.encoders.hostile_programs import add_programs

__all__ = ["Hostile", "small_weights", "write_hostile_files"]

GIB = 1024**3


def small_weights(channels: int = 1) -> Weights:
    """Weights of a small encoder that loads; the hostile files differ from it in one thing each."""
    from gridloom.systems.semantic import ModelConfig, ResNetEncoder

    torch.manual_seed(0)
    return dict(ResNetEncoder(ModelConfig(input_channels=channels, latent_dim=8, width=4)).state_dict())


def write_hostile_files(folder: Path, canary: Path) -> list[Hostile]:
    """Write them all.

    Args:
        folder: Where to; it is made.
        canary: A folder that comes to be if one of the files gets its code run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Hostile] = []

    def add(name: str, kind: str, says: str, content: bytes) -> None:
        (folder / name).write_bytes(content)
        written.append(Hostile(folder / name, kind, says))

    weights = small_weights()
    _add_code(add, canary)
    _add_what_is_no_checkpoint(add, weights)
    _add_archives(add, weights)
    _add_pickles(add, weights)
    _add_tensors(add, weights)
    _add_safetensors(add, weights)
    add_programs(add, weights, canary)
    return [*written, *write_hostile_folders(folder, canary)]


def _add_code(add: Add, canary: Path) -> None:
    bomb = RunsCode(canary)
    add("code.pkl", "a pickle that runs code", "bare pickle", pickle.dumps(bomb))
    add("code.pth", "a pickle of an old protocol that runs code", "begins with", pickle.dumps(bomb, protocol=0))
    add("code_in_torch.pth", "code inside a torch file", "posix.mkdir", saved({"stem.0.weight": bomb}))
    legacy = saved({"stem.0.weight": bomb}, _use_new_zipfile_serialization=False)
    add("code_in_old_torch.pth", "code inside a torch file from before 1.6", "bare pickle", legacy)
    add("code.safetensors", "a pickle that runs code under another name", "bare pickle", pickle.dumps(bomb))
    add(
        "hidden_global.pth",
        "a forbidden name behind an allowed one",
        "posix.mkdir",
        torch_zip(_hidden_global(canary)),
    )
    module = torch.nn.Linear(2, 2)
    add("whole_module.pth", "a pickled module", "torch.nn.modules.linear.Linear", saved(module))
    code = b"def forward(self, x): return x\n"
    script = ("archive/code/__torch__.py", code, 0, len(code))
    add("torchscript.pt", "a TorchScript archive", "TorchScript", torch_zip(pickle.dumps({}, protocol=2), script))


def _hidden_global(canary: Path) -> bytes:
    """`posix.mkdir` fetched from the memo, after `torch.Size` stood last among the strings."""

    def text(value: str) -> bytes:
        return b"\x8c" + struct.pack("<B", len(value.encode())) + value.encode()

    remembered = text("posix") + b"q\x000" + text("mkdir") + b"q\x010"
    decoy = text(str(canary)) + b"q\x020" + text("torch") + b"0" + text("Size") + b"0"
    return b"\x80\x02" + remembered + decoy + b"h\x00h\x01\x93h\x02\x85R."


def _add_what_is_no_checkpoint(add: Add, weights: Weights) -> None:
    add("empty.pth", "an empty file", "empty (0 bytes)", b"")
    add("page.pth", "an HTML page", "HTML page", b"\n<!DOCTYPE html><html><body>404</body></html>")
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 46000000\n"
    add("pointer.pth", "a git-lfs pointer", "git lfs pull", pointer)
    add("noise.pth", "noise", "neither safetensors nor", bytes(range(255, -1, -1)) * 8)
    add("truncated.pth", "a truncated torch file", "truncated or damaged", saved(weights)[:-200])
    add("half.pth", "half of a torch file", "truncated or damaged", saved(weights)[: len(saved(weights)) // 2])
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("notes.txt", "hello")
    add("other.zip", "a zip file of something else", "no data.pkl", buffer.getvalue())
    add(
        "foreign.pth",
        "a state dict with foreign keys",
        "未找到encoder权重",
        saved({"blocks.0.weight": torch.ones(3, 3)}),
    )
    add("nothing.pth", "a state dict without tensors", "no tensors", saved({"epoch": 3}))
    add("one_tensor.pth", "a tensor instead of a state dict", "not a state dict", saved(torch.ones(3)))
    add("list.pth", "a list instead of a state dict", "not a state dict", saved([torch.ones(3)]))
    add("int_keys.pth", "a state dict with numbers for keys", "names must be text", saved({0: torch.ones(3)}))


def _deflated_zeros(size: int) -> bytes:
    """A GiB of zeros in a MB, made without compressing a GiB: the same flushed block again and again."""
    block = 1024 * 1024
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(bytes(block)) + packer.flush(zlib.Z_FULL_FLUSH)
    return packed * (size // block) + packer.flush(zlib.Z_FINISH)


def _add_archives(add: Add, weights: Weights) -> None:
    members = members_of(saved({"stem.0.weight": torch.zeros(4)}))
    storage = next(place for place, member in enumerate(members) if member[0].endswith("data/0"))
    name = members[storage][0]
    bomb = [*members]
    bomb[storage] = (name, _deflated_zeros(GIB), 8, GIB)
    add("bomb.pth", "a MB that unpacks to a GiB", "compressed", zip_by_hand(bomb))
    claim = [*members]
    claim[storage] = (name, members[storage][1], 0, 3 * GIB)
    add("claims_more.pth", "a member that claims 3 GiB", "claim more bytes", zip_by_hand(claim))
    megabyte = ("archive/data/0", bytes(1024 * 1024), 0, 1024 * 1024)
    add(
        "overlapping.pth",
        "300 members in one place",
        "claim more bytes",
        zip_by_hand(
            [megabyte] + [(f"archive/data/{number}", b"", 0, 1024 * 1024) for number in range(1, 300)], same_place=True
        ),
    )
    pickled = next(data for path, data, _, _ in members if path.endswith("data.pkl"))
    hungry = pickle.dumps({"stem.0.weight": Reduces(bytearray, 3 * GIB)}, protocol=2)
    add(
        "two_pickles.pth",
        "two pickles in one archive",
        "two members of one name",
        torch_zip(pickled, ("archive/DATA.PKL", hungry, 0, len(hungry))),
    )
    add(
        "two_directories.pth",
        "one directory for the scanner, another for the reader",
        "second one",
        _two_directories(torch_zip(pickled), torch_zip(hungry)),
    )
    add(
        "self_extracting.pth",
        "a torch file behind something else",
        "begins with",
        b"#!/bin/sh\nexit\n" + saved(weights),
    )


def _two_directories(shown: bytes, hidden: bytes) -> bytes:
    """What reads backwards from the end meets the first archive, what goes by the offset the second."""
    _, _, _, _, size, offset, _ = struct.unpack("<HHHHIIH", shown[-18:])
    count = struct.unpack("<H", shown[-12:-10])[0]
    _, _, _, _, _, hidden_offset, _ = struct.unpack("<HHHHIIH", hidden[-18:])
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, count, count, size, hidden_offset, 0)
    assert offset + size == len(shown) - 22
    return hidden[:-22] + shown[:-22] + end


def _add_pickles(add: Add, weights: Weights) -> None:
    hungry = {"stem.0.weight": Reduces(bytearray, 3 * GIB)}
    add("bytearray.pth", "three GiB asked for by a pickle", "bytearray", saved(hungry))
    nested = b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b"."
    add("nested.pth", "200,000 nested lists", "containers", torch_zip(nested))
    add(
        "many.pth",
        "three million empty dictionaries",
        "containers",
        torch_zip(b"\x80\x02" + b"}0" * 3_000_000 + b"}."),
    )
    add("damaged.pth", "a pickle that makes no sense", "damaged", torch_zip(b"\x80\x02\xff\xfe."))
    add("empty_pickle.pth", "a pickle of no bytes", "damaged", torch_zip(b""))
    add("underflow.pth", "a pickle that takes from an empty stack", "cannot be read", torch_zip(b"\x80\x02aaas."))
    deep: dict = {"stem.0.weight": torch.ones(2)}
    for _ in range(50):
        deep = {"inner": deep}
    add("deep.pth", "dictionaries in dictionaries", "nested", saved(deep))
    circle: dict = {"stem.0.weight": torch.ones(2)}
    circle["again"] = circle
    add("circle.pth", "a dictionary that holds itself", "circle", saved(circle))


def _with(weights: Mapping[str, Tensor], name: str, tensor: Tensor) -> Weights:
    return {**weights, name: tensor}


def _add_tensors(add: Add, weights: Weights) -> None:
    stem, project = weights["stem.0.weight"], weights["head.project.weight"]
    add(
        "wrong_shape.pth",
        "a tensor of another shape",
        "of another shape",
        saved(_with(weights, "layer1.0.conv1.weight", torch.zeros(5, 4, 3, 3))),
    )
    add(
        "missing.pth",
        "a tensor less",
        "missing",
        saved({n: t for n, t in weights.items() if n != "head.project.bias"}),
    )
    add("unexpected.pth", "a tensor more", "unexpected", saved(_with(weights, "layer5.0.weight", torch.ones(2))))
    ruined = project.clone()
    ruined[0, 0], ruined[0, 1] = float("nan"), float("inf")
    add(
        "nan.pth",
        "weights that are not finite",
        "NaN or infinite",
        saved(_with(weights, "head.project.weight", ruined)),
    )
    add("half_precision.pth", "float16 weights", "torch.float16", saved({n: t.half() for n, t in weights.items()}))
    add("integers.pth", "integer weights", "torch.int64", saved({n: t.long() for n, t in weights.items()}))
    add("complex.pth", "complex weights", "ComplexFloat", saved(_with(weights, "stem.0.weight", stem + 0j)))
    add("sparse.pth", "a sparse tensor", "sparse", saved(_with(weights, "head.project.weight", project.to_sparse())))
    add("meta.pth", "a tensor without values", "meta", saved(_with(weights, "stem.0.weight", stem.to("meta"))))
    huge = torch.zeros(1).expand(8, 2**37)
    add("stride_zero.pth", "4 TiB of one number", "claims", saved(_with(weights, "head.project.weight", huge)))
    add(
        "no_planes.pth",
        "a stem without inputs",
        "stem.0.weight",
        saved(_with(weights, "stem.0.weight", torch.zeros(4, 0, 7, 7))),
    )
    wide = torch.zeros(1).expand(2**20, 2, 7, 7)
    add("wide.pth", "a stem that makes the network huge", "claims", saved(_with(weights, "stem.0.weight", wide)))
    add(
        "wide_stem.safetensors",
        "a stem of 40,000 channels alone",
        "of another shape",
        _safetensors(_with(weights, "stem.0.weight", torch.zeros(40_000, 2, 1, 1))),
    )
    long = "y" * 2**20
    add("long_names.pth", "a name of a megabyte", "unexpected", saved(_with(weights, long, stem)))
    add("long_prefix.pth", "foreign names of a megabyte", "prefixes seen", saved({long: stem, long + ".x": stem}))
    twice = {**weights, **{f"module.{name}": tensor for name, tensor in weights.items()}}
    add("twice.pth", "two encoders whose names differ by a wrapper", "twice", saved(twice))


def _safetensors(weights: Weights) -> bytes:
    from safetensors.torch import save

    return save({name: tensor.contiguous() for name, tensor in weights.items()})


def _add_safetensors(add: Add, weights: Weights) -> None:
    whole = _safetensors(weights)
    add("truncated.safetensors", "a truncated safetensors file", "damaged", whole[:-100])
    add("trailing.safetensors", "bytes after the last tensor", "damaged", whole + bytes(64))
    add("huge_header.safetensors", "a header of 2^62 bytes", "claims", struct.pack("<Q", 2**62) + whole[8:])
    add("short.safetensors", "four bytes", "damaged", whole[:4])
    entry = json.dumps({"dtype": "F32", "shape": [1], "data_offsets": [0, 4]})
    twice = f'{{"stem.0.weight":{entry},"stem.0.weight":{entry}}}'.encode()
    add("twice.safetensors", "a name that stands twice", "twice", struct.pack("<Q", len(twice)) + twice + bytes(4))
    large = json.dumps({"stem.0.weight": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 4]}}).encode()
    add("large_shape.safetensors", "a shape of 2^40", "damaged", struct.pack("<Q", len(large)) + large + bytes(4))
    deep = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
    add("deep_header.safetensors", "a header nested 100,000 deep", "damaged", struct.pack("<Q", len(deep)) + deep)
    add(
        "foreign.safetensors",
        "foreign tensors",
        "未找到encoder权重",
        _safetensors({"blocks.0.weight": torch.ones(3, 3)}),
    )
    add("nothing.safetensors", "no tensors", "no tensors", struct.pack("<Q", 2) + b"{}")
