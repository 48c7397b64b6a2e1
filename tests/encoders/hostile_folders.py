"""Folders as torch.distributed.checkpoint writes them, with one thing changed in each."""

import os
import pickle
import shutil
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.encoders.crafted import Hostile, RunsCode, Weights, saved

__all__ = ["write_hostile_folders", "write_sharded"]

NAME = "model.stem.0.weight"
FILE = "__0_0.distcp"


def write_sharded(folder: Path, weights: Weights) -> Path:
    """Write a folder that is as it should be."""
    import torch.distributed.checkpoint as dcp

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save({"model": weights}, checkpoint_id=folder)
    return folder


def write_hostile_folders(folder: Path, canary: Path) -> list[Hostile]:
    """Write them all.

    Args:
        folder: Where to; it is there.
        canary: A folder that comes to be if one of the files gets its code run.
    """
    good = write_sharded(folder / "good.dcp", {"stem.0.weight": torch.randn(4, 2, 7, 7), "bias": torch.ones(4)})
    metadata = pickle.loads((good / ".metadata").read_bytes())
    written = []
    for name, (kind, says, change) in {**_CLAIMS, **_FILES}.items():
        place = folder / f"{name}.dcp"
        shutil.copytree(good, place)
        changed = pickle.loads(pickle.dumps(metadata))
        result = change(changed, place)
        if isinstance(result, bytes):
            (place / ".metadata").write_bytes(result)
        else:
            (place / ".metadata").write_bytes(pickle.dumps(result or changed))
        written.append(Hostile(place, kind, says))
    shutil.rmtree(good)
    for name, kind in {"code": "metadata that runs code", "code_inside": "whole metadata with code in it"}.items():
        place = folder / f"{name}.dcp"
        shutil.copytree(written[0].path, place)
        if name == "code_inside":
            metadata.planner_data = RunsCode(canary)
        (place / ".metadata").write_bytes(pickle.dumps(metadata if name == "code_inside" else RunsCode(canary)))
        written.append(Hostile(place, kind, "posix.mkdir"))
    return written


def _info(metadata: Any, name: str = NAME) -> Any:
    return next(info for index, info in metadata.storage_data.items() if index.fqn == name)


def _set(**values: Any) -> Callable[[Any, Path], None]:
    """Change where the stem's bytes are."""
    return lambda metadata, place: vars(_info(metadata)).update(values)


def _chunks(*boxes: tuple[tuple, tuple]) -> Callable[[Any, Path], None]:
    """Change of which boxes the stem is made."""

    def change(metadata: Any, place: Path) -> None:
        from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex

        info = metadata.storage_data.pop(MetadataIndex(NAME, torch.Size([0, 0, 0, 0])))
        metadata.state_dict_metadata[NAME].chunks = [
            ChunkStorageMetadata(torch.Size(offsets), torch.Size(sizes)) for offsets, sizes in boxes
        ]
        with (place / FILE).open("ab") as file:  # each has its own place behind the others
            for offsets, sizes in boxes:
                piece = saved(torch.zeros(sizes))
                metadata.storage_data[MetadataIndex(NAME, torch.Size(offsets))] = type(info)(
                    FILE, file.tell(), len(piece)
                )
                file.write(piece)

    return change


def _claim(size: tuple[int, ...]) -> Callable[[Any, Path], None]:
    def change(metadata: Any, place: Path) -> None:
        entry = metadata.state_dict_metadata[NAME]
        entry.size = entry.chunks[0].sizes = torch.Size(size)

    return change


def _other_dtype(metadata: Any, place: Path) -> None:
    metadata.state_dict_metadata[NAME].properties.dtype = torch.float16


def _same_place(metadata: Any, place: Path) -> None:
    vars(_info(metadata)).update(vars(_info(metadata, "model.bias")))


def _no_place(metadata: Any, place: Path) -> None:
    metadata.storage_data = {index: info for index, info in metadata.storage_data.items() if index.fqn != NAME}


def _link(metadata: Any, place: Path) -> None:
    (place.parent / "elsewhere").write_bytes((place / FILE).read_bytes())
    (place / FILE).unlink()
    (place / FILE).symlink_to(place.parent / "elsewhere")


def _again(metadata: Any, place: Path) -> None:
    entry = metadata.state_dict_metadata[NAME]
    entry.chunks = entry.chunks * 30_000
    entry.size = torch.Size((4 * 30_000, 2, 7, 7))


def _nested_name(metadata: Any, place: Path) -> None:
    name: tuple = ()
    for _ in range(500):
        name = (name,)
    for index in metadata.storage_data:
        vars(index)["fqn"] = name


def _large(metadata: Any, place: Path) -> bytes:
    content = pickle.dumps(metadata)
    return content + bytes(17 * 1024 * 1024)


def _one_bit(metadata: Any, place: Path) -> None:
    info = _info(metadata)
    content = bytearray((place / FILE).read_bytes())
    values = bytes(content[info.offset : info.offset + info.length]).index(b"data/0") + 200
    content[info.offset + values] ^= 1
    (place / FILE).write_bytes(bytes(content))


def _memo_bomb(metadata: Any, place: Path) -> bytes:
    return b"\x80\x04}" + b"r" + struct.pack("<I", 2**32 - 1) + b"."


_WHOLE = ((0, 0, 0, 0), (4, 2, 7, 7))
_CLAIMS: dict[str, tuple[str, str, Callable[[Any, Path], Any]]] = {
    "terabytes": ("a piece that claims terabytes", "claims", _set(length=2**42)),
    "behind": ("a piece behind the file's end", "claims", _set(offset=2**42)),
    "negative": ("a piece before the file's begin", "makes no sense", _set(offset=-4)),
    "outside": ("a file outside of the folder", "outside its folder", _set(relative_path="../good.pth")),
    "absolute": ("a file by its whole path", "outside its folder", _set(relative_path="/etc/passwd")),
    "zero_byte": ("a file's name with a zero byte", "outside its folder", _set(relative_path="a\0b")),
    "same_place": ("two pieces in one place", "in one place", _same_place),
    "compressed": ("a compressed piece", "compressed or encrypted", _set(transform_descriptors=["zstd"])),
    "huge": ("a tensor of terabytes in a piece of kilobytes", "claims", _claim((2**20, 2**20, 1, 1))),
    "empty_and_huge": ("an empty tensor of 2^62 rows", "claims", _claim((0, 2**62, 2**62, 1))),
    "smaller": ("a piece larger than its record says", "its metadata says", _claim((4, 2, 7, 5))),
    "other_dtype": ("a piece of another dtype", "its metadata says", _other_dtype),
    "no_place": ("a piece without a place", "has no place", _no_place),
    "missing_piece": ("half a tensor", "do not cover", _chunks(((0, 0, 0, 0), (2, 2, 7, 7)))),
    "overlap": ("pieces over one another", "do not cover", _chunks(_WHOLE, ((2, 0, 0, 0), (2, 2, 7, 7)))),
    "overlap_and_gap": (
        "pieces over one another, and a gap",
        "overlap",
        _chunks(((0, 0, 0, 0), (2, 2, 7, 7)), ((1, 0, 0, 0), (2, 2, 7, 7))),
    ),
    "again": ("one piece 30,000 times", "claims", _again),
    "nested_name": ("nested tuples for a name", "makes no sense", _nested_name),
    "dimensions": ("a tensor of 20,000 dimensions", "makes no sense", _claim((2**40,) * 20_000)),
    "outside_box": ("a piece outside of its tensor", "lies outside", _chunks(((2, 0, 0, 0), (4, 2, 7, 7)))),
    "other_rank": ("a piece of fewer dimensions", "makes no sense", _chunks(((0,), (4,)))),
}
_FILES: dict[str, tuple[str, str, Callable[[Any, Path], Any]]] = {
    "no_file": ("a file that is not there", "not there", lambda metadata, place: (place / FILE).unlink()),
    "link": ("a link out of the folder", "outside its folder", _link),
    "half_file": ("half of a file", "claims", lambda metadata, place: os.truncate(place / FILE, 1000)),
    "one_bit": ("one bit of a piece changed", "checksum differs", _one_bit),
    "truncated": ("half of the metadata", "damaged", lambda metadata, place: pickle.dumps(metadata)[:300]),
    "no_metadata": ("a dictionary for metadata", "not the metadata", lambda metadata, place: {"a": 1}),
    "no_pickle": ("metadata that is no pickle", "damaged", lambda metadata, place: b"{}" * 100),
    "large": ("metadata of 17 MB", "expected 16777216 at most", _large),
    "memo": ("metadata with a memo of 2^32 places", "not the metadata", _memo_bomb),
}
