"""Folders that torch.distributed.checkpoint writes: `.metadata`, a pickle, and `.distcp` files with pieces of tensors.

Torch reads the metadata with the plain unpickler, which runs whatever is in it. Here it is read as records like any
other pickle, and every place in it is checked against the files before memory is taken.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gridloom.core.errors import CheckpointError, UnsafeFileError
from gridloom.encoders.allowed import check_names
from gridloom.encoders.rebuild import DTYPES, SavedTensors, is_absurd, is_tensor, whole_numbers
from gridloom.encoders.unpickle import MAX_PICKLE_BYTES, Made, Named, read_pickle

__all__ = ["METADATA", "read_sharded"]

METADATA = ".metadata"
_RECORDS = "torch.distributed.checkpoint.metadata."
_INFO = "torch.distributed.checkpoint.filesystem._StorageInfo"
_CONSOLIDATE = "consolidate it where you trust it: python -m torch.distributed.checkpoint.format_utils dcp_to_torch"


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where the bytes of a piece are."""

    file: str
    offset: int
    length: int


@dataclass(frozen=True, kw_only=True)
class _Piece:
    """A box of cells of a tensor."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    place: _Place

    @property
    def box(self) -> tuple[slice, ...]:
        return tuple(slice(start, start + length) for start, length in zip(self.offsets, self.sizes, strict=True))


def read_sharded(folder: Path) -> dict[str, Tensor]:
    """Read every tensor of a folder and put its pieces together.

    Args:
        folder: With a file `.metadata`.

    Returns:
        Dense CPU tensors by dotted name.

    Raises:
        UnsafeFileError: It would have to run code, leads out of its folder, or claims more than there is.
        CheckpointError: Pieces are missing, overlap or are damaged.
    """
    metadata = folder / METADATA
    if metadata.stat().st_size > MAX_PICKLE_BYTES:
        raise UnsafeFileError(
            f"{metadata}: {metadata.stat().st_size} bytes, expected {MAX_PICKLE_BYTES} at most; refused"
        )
    content = read_pickle(str(metadata), metadata.read_bytes(), permit=check_names)
    fields = _fields(content, f"{_RECORDS}Metadata")
    entries, storage = fields.get("state_dict_metadata"), fields.get("storage_data")
    if not isinstance(entries, Made) or not isinstance(storage, Made):
        raise CheckpointError(f"{metadata}: not the metadata of torch.distributed.checkpoint; {_CONSOLIDATE}")
    places = _places(folder, storage)
    tensors = {}
    for name, entry in entries.pairs:
        if isinstance(entry, Made) and entry.name == f"{_RECORDS}TensorStorageMetadata":
            if not isinstance(name, str) or name in tensors:
                shown = repr(name)[:80] if isinstance(name, str) else "a tensor's name"
                raise CheckpointError(f"{metadata}: {shown} stands twice, or is no text; {_CONSOLIDATE}")
            tensors[name] = _read_tensor(folder, name, entry, places)
    return tensors


def _fields(value: Any, name: str) -> dict[str, Any]:
    """Return the attributes of a record of one kind; none if it is something else."""
    state = value.state if isinstance(value, Made) and value.name == name else None
    pairs = state.pairs if isinstance(state, Made) else []
    return {key: part for key, part in pairs if isinstance(key, str)}


def _places(folder: Path, storage: Made) -> dict[tuple[str, tuple[int, ...]], _Place]:
    """Return where each piece is, by the tensor's name and the piece's offsets, after checks against the files."""
    places, sizes = {}, {}
    for index, info in storage.pairs:
        key, fields = _fields(index, f"{_RECORDS}MetadataIndex"), _fields(info, _INFO)
        name, offsets = key.get("fqn"), whole_numbers(key.get("offset"))
        if offsets is None:  # what is no tensor: text, numbers, the state of a loader
            continue
        file, numbers = fields.get("relative_path"), whole_numbers((fields.get("offset"), fields.get("length")))
        if not isinstance(name, str) or not isinstance(file, str) or numbers is None or (name, offsets) in places:
            shown = repr(name)[:80] if isinstance(name, str) else "a tensor"
            raise CheckpointError(f"{folder / METADATA}: the place of {shown} makes no sense; {_CONSOLIDATE}")
        if fields.get("transform_descriptors"):
            raise CheckpointError(f"{folder / METADATA}: {name!r:.80} is compressed or encrypted; {_CONSOLIDATE}")
        places[name, offsets] = _Place(file=file, offset=numbers[0], length=numbers[1])
        if file not in sizes:
            sizes[file] = _size(folder, file)
    _check_places(folder, list(places.values()), sizes)
    return places


def _size(folder: Path, file: str) -> int:
    path = folder / file
    if "\0" in file or not path.resolve().is_relative_to(folder.resolve()):
        raise UnsafeFileError(f"{folder / METADATA}: names a file outside its folder: {file!r:.80}; refused")
    if not path.is_file():
        raise CheckpointError(f"{path}: named in {METADATA}, but not there; copy the whole folder, of all processes")
    return path.stat().st_size


def _check_places(folder: Path, places: list[_Place], sizes: dict[str, int]) -> None:
    """Refuse pieces outside of their file or over one another: together they are no more than the files."""
    end = ("", 0)
    for place in sorted(places, key=lambda place: (place.file, place.offset, place.length)):
        if place.offset + place.length > sizes[place.file]:
            raise UnsafeFileError(
                f"{folder / METADATA}: a piece claims {place.length} bytes from {place.offset} of {place.file!r:.80}, "
                f"which has {sizes[place.file]}; refused, or copy the folder again"
            )
        if (place.file, place.offset) < end:
            raise UnsafeFileError(f"{folder / METADATA}: two pieces in one place of {place.file!r:.80}; refused")
        end = (place.file, place.offset + place.length)


def _read_tensor(folder: Path, name: str, entry: Made, places: dict[tuple[str, tuple[int, ...]], _Place]) -> Tensor:
    fields = _fields(entry, entry.name)
    size, chunks, dtype = whole_numbers(fields.get("size")), fields.get("chunks"), _dtype(fields.get("properties"))
    if size is None or dtype is None or not isinstance(chunks, list):
        raise CheckpointError(f"{folder / METADATA}: the record of {name!r:.80} makes no sense; {_CONSOLIDATE}")
    pieces = list(_pieces(folder, name, size, chunks, places))
    count = prod(size)
    if sum(prod(piece.sizes) for piece in pieces) != count:
        raise CheckpointError(
            f"{folder / METADATA}: the pieces of {name!r:.80} do not cover its {count} values once each; "
            f"copy the whole folder, of all processes, or save it again"
        )
    if is_absurd(size) or count * dtype.itemsize > sum(place.length for place in {piece.place for piece in pieces}):
        raise UnsafeFileError(
            f"{folder / METADATA}: {name!r:.80} claims {count} values, its pieces have fewer; refused"
        )
    whole = torch.empty(size, dtype=dtype)
    covered = torch.zeros(size, dtype=torch.bool)
    for piece in pieces:
        if bool(covered[piece.box].any()):
            raise CheckpointError(f"{folder / METADATA}: pieces of {name!r:.80} overlap; save it again")
        covered[piece.box] = True
        whole[piece.box] = _read_piece(folder, name, piece, dtype)
    return whole


def _dtype(properties: Any) -> torch.dtype | None:
    """Return the dtype, the first of the properties' state (a tuple, or a dictionary before torch 2.0)."""
    named = _fields(properties, f"{_RECORDS}TensorProperties").get("dtype")
    if isinstance(properties, Made) and isinstance(properties.state, tuple):
        named = next(iter(properties.state), None)
    return DTYPES.get(named.name) if isinstance(named, Named) else None


def _pieces(
    folder: Path, name: str, size: tuple[int, ...], chunks: list, places: dict[tuple[str, tuple[int, ...]], _Place]
) -> Iterator[_Piece]:
    """Yield the pieces that have cells."""
    for chunk in chunks:
        fields = _fields(chunk, f"{_RECORDS}ChunkStorageMetadata")
        offsets, sizes = whole_numbers(fields.get("offsets")), whole_numbers(fields.get("sizes"))
        if offsets is None or sizes is None or not len(offsets) == len(sizes) == len(size):
            raise CheckpointError(f"{folder / METADATA}: a piece of {name!r:.80} makes no sense; {_CONSOLIDATE}")
        if any(start + length > whole for start, length, whole in zip(offsets, sizes, size, strict=True)):
            raise UnsafeFileError(f"{folder / METADATA}: a piece of {name!r:.80} lies outside of it; refused")
        if 0 in sizes:  # a process may have got none
            continue
        if (name, offsets) not in places:
            raise CheckpointError(f"{folder / METADATA}: a piece of {name!r:.80} has no place; save it again")
        yield _Piece(offsets=offsets, sizes=sizes, place=places[name, offsets])


def _read_piece(folder: Path, name: str, piece: _Piece, dtype: torch.dtype) -> Tensor:
    path = folder / piece.place.file
    with path.open("rb") as file:
        file.seek(piece.place.offset)
        saved = SavedTensors(f"{path}: {name!r:.80}", BytesIO(file.read(piece.place.length)))
    if not is_tensor(saved.content):
        raise CheckpointError(f"{path}: the piece of {name!r:.80} is no tensor; {_CONSOLIDATE}")
    tensor = saved.tensor(name, saved.content)
    if tensor.dtype != dtype or tuple(tensor.shape) != piece.sizes:
        raise CheckpointError(
            f"{path}: a piece of {name!r:.80} is {list(tensor.shape)} of {tensor.dtype}, its metadata says "
            f"{list(piece.sizes)} of {dtype}; copy the folder again"
        )
    return tensor
