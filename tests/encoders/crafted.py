"""Files of weights made by hand: any pickle in the zip of torch.save, and zips with any claim about their members."""

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

__all__ = [
    "Add",
    "Hostile",
    "Member",
    "Reduces",
    "RunsCode",
    "Weights",
    "members_of",
    "saved",
    "torch_zip",
    "zip_by_hand",
]

Weights = dict[str, Tensor]
Add = Callable[[str, str, str, bytes], None]
"""Takes the name of a file, what is wrong with it, what is said about it, and its bytes."""


@dataclass(frozen=True)
class Hostile:
    """One file.

    Attributes:
        path: Where it is.
        kind: What is wrong with it.
        says: What a message about it should say.
    """

    path: Path
    kind: str
    says: str


class RunsCode:
    """Unpickled, it makes the folder `canary`."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.canary),)


class Reduces:
    """Unpickled, it is whatever the function returns."""

    def __init__(self, function: Callable, *arguments: object) -> None:
        self.reduced = function, arguments

    def __reduce__(self) -> tuple:
        return self.reduced


def saved(content: object, **options: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


Member = tuple[str, bytes, int, int]
"""Name, bytes as they stand in the file, compression method, size that is claimed."""


def zip_by_hand(members: list[Member], *, same_place: bool = False) -> bytes:
    """A zip file by hand, with any claim about its members.

    Args:
        members: In order.
        same_place: Every entry of the directory points at the first member.
    """
    body, directory = b"", b""
    for name, data, method, claimed in members:
        sizes = struct.pack("<IIIHH", zlib.crc32(b""), len(data), claimed, len(name), 0)
        place = 0 if same_place else len(body)
        common = struct.pack("<HHHHH", 20, 0, method, 0, 33) + sizes
        directory += b"PK\x01\x02" + struct.pack("<H", 20) + common
        directory += struct.pack("<HHHII", 0, 0, 0, 0, place) + name.encode()
        body += b"PK\x03\x04" + common + name.encode() + data
    count = len(members)
    end = struct.pack("<HHHHIIH", 0, 0, count, count, len(directory), len(body), 0)
    return body + directory + b"PK\x05\x06" + end


def torch_zip(data: bytes, *more: Member) -> bytes:
    """The zip that torch.save writes around a pickle, without storages."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in (("data.pkl", data), ("byteorder", b"little"), ("version", b"3\n")):
            archive.writestr(f"archive/{name}", content)
        for name, content, _, _ in more:
            archive.writestr(name, content)
    return buffer.getvalue()


def members_of(saved: bytes) -> list[Member]:
    with zipfile.ZipFile(io.BytesIO(saved)) as archive:
        return [(name, archive.read(name), 0, len(archive.read(name))) for name in archive.namelist()]
