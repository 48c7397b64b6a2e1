"""Reading files of weights from anywhere, without ever running code.

Read: safetensors, and what `torch.save` writes of a state dict (a zip of stored members). `weights_only=True` is passed
explicitly, because an environment variable can turn the default off; there is no fallback. The pickle inside is scanned
before it is opened, so that only tensors, containers and numbers can come out, within the size of the file.
"""

import json
import pickletools
import struct
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from gridloom.core.errors import CheckpointError, UnsafeFileError

__all__ = ["check_values", "read_weights"]

_MAX_DEPTH = 12
_MAX_PICKLE_BYTES = 64 * 1024 * 1024
_MAX_OPCODES = 1_000_000  # a state dict takes about 45 for each tensor
_MAX_CONTAINERS = 100_000
_END_BYTES = 98  # of the three records that end a zip file
_CONTAINERS = {"EMPTY_LIST", "LIST", "EMPTY_DICT", "DICT", "EMPTY_SET"}
_NEVER_WRITTEN = {"STACK_GLOBAL", "INST", "OBJ", "EXT1", "EXT2", "EXT4"}
"""Other ways to name a global; torch.save writes protocol 2, where GLOBAL is the only one."""
_MAX_HEADER_BYTES = 100 * 1024 * 1024
_STORAGES = ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
_ALLOWED = {
    "collections.OrderedDict",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
    "torch.Size",
    *(f"torch.{name}Storage" for name in _STORAGES),
}


def read_weights(path: Path | str) -> dict[str, Tensor]:
    """Read every tensor of a file; nested dictionaries become dotted names.

    Args:
        path: A `.safetensors` file, or a state dict (or a checkpoint that holds some) written by `torch.save`.

    Returns:
        Dense CPU tensors by dotted name, e.g. `state_dict.encoder.stem.0.weight`.

    Raises:
        UnsafeFileError: It would have to run code, or is made to exhaust memory.
        CheckpointError: It is not there, not a file of weights, or damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"weights file not found (权重文件不存在): {path}")
    with path.open("rb") as file:
        head = file.read(64)
    _refuse_what_is_no_checkpoint(path, head)
    if head[:4] == b"PK\x03\x04":
        _scan_zip(path)
        content = _load_torch(path)
    elif path.suffix == ".safetensors" or head[8:9] == b"{":
        content = _load_safetensors(path)
    else:
        raise CheckpointError(
            f"{path}: neither safetensors nor the zip that torch.save writes (it begins with {head[:8]!r}); "
            f"save the state dict again with torch 1.6 or newer, or as safetensors"
        )
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{path}: not a state dict but a {type(content).__name__}; save model.state_dict() instead"
        )
    tensors = dict(_flatten(path, content))
    if not tensors:
        raise CheckpointError(f"{path}: no tensors in it; save model.state_dict()")
    for name, tensor in tensors.items():
        _refuse_odd_tensor(path, name, tensor)
    return tensors


def _refuse_what_is_no_checkpoint(path: Path, head: bytes) -> None:
    size = path.stat().st_size
    if size == 0:
        raise CheckpointError(f"{path}: the file is empty (0 bytes); it was not written to the end, copy it again")
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise CheckpointError(f"{path}: this is an HTML page, not a checkpoint; the download went to a web page")
    if head.startswith((b"\x89HDF", b"CDF")):
        raise CheckpointError(f"{path}: this is data (netCDF or HDF5), not weights; `gridloom check` looks at data")
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{path}: this is a git-lfs pointer, not a checkpoint; run `git lfs pull`")
    if head[:2] == b"\x80\x02" or head[:2] == b"\x80\x04" or head[:2] == b"\x80\x05":
        raise UnsafeFileError(
            f"{path}: a bare pickle (or a torch file from before 1.6), which can hold code; it is not opened. "
            f"Where you trust it, save its state dict again with torch 1.6 or newer, or as safetensors"
        )


def _scan_zip(path: Path) -> None:
    """Look at the archive's directory and its pickle before torch does."""
    size = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            names = [member.filename for member in members]
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise UnsafeFileError(
                    f"{path}: compressed members, which torch.save never writes (a zip bomb?); refused"
                )
            if sum(member.file_size for member in members) > size:
                raise UnsafeFileError(f"{path}: its members claim more bytes than the file has ({size}); refused")
            if len({name.lower() for name in names}) != len(names):  # torch's reader does not tell case apart
                raise UnsafeFileError(f"{path}: two members of one name; refused")
            _refuse_second_directory(path, archive.start_dir)
            if any("/code/" in name or name.endswith("/constants.pkl") for name in names):
                raise UnsafeFileError(
                    f"{path}: a TorchScript archive, which holds code; save model.state_dict() instead"
                )
            pickles = [member for member in members if member.filename.endswith("data.pkl")]
            if len(pickles) != 1:
                raise CheckpointError(f"{path}: a zip file, but not one that torch.save wrote (it has no data.pkl)")
            if pickles[0].file_size > _MAX_PICKLE_BYTES:
                raise UnsafeFileError(f"{path}: a pickle of {pickles[0].file_size} bytes in it; refused")
            data = archive.read(pickles[0])
    except zipfile.BadZipFile as error:
        raise CheckpointError(f"{path}: truncated or damaged, {size} bytes ({error}); copy or save it again") from None
    _scan_pickle(path, data)


def _refuse_second_directory(path: Path, start: int) -> None:
    """Refuse an archive whose end records do not all point to the directory that was looked at, at `start`.

    Readers differ in where they look; one could be shown other members than the other.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(-min(size, _END_BYTES), 2)
        tail = file.read()
    (offset,) = struct.unpack("<I", tail[-6:-2])
    places = {int(offset)}
    if tail[-42:-38] == b"PK\x06\x07":  # the locator of a zip64 record, which torch.save always writes
        (record,) = struct.unpack("<Q", tail[-34:-26])
        (far,) = struct.unpack("<Q", tail[-50:-42])
        places = {int(far), *(places - {0xFFFFFFFF})}
        if record != size - _END_BYTES:
            places.add(-1)
    if tail[-22:-18] != b"PK\x05\x06" or places != {start}:
        raise UnsafeFileError(f"{path}: its end does not lead to its directory (a second one in it?); refused")


def _scan_pickle(path: Path, data: bytes) -> None:
    """Name every global that the pickle asks for; only what rebuilds dense tensors is allowed."""
    blocked, containers = set(), 0
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if opcode.name == "GLOBAL":
                blocked.add(str(argument).replace(" ", "."))
            elif opcode.name in _NEVER_WRITTEN:
                blocked.add(f"opcode {opcode.name}")
            containers += opcode.name in _CONTAINERS
            if count >= _MAX_OPCODES or containers > _MAX_CONTAINERS:
                raise UnsafeFileError(
                    f"{path}: a pickle of more than {_MAX_OPCODES} steps or {_MAX_CONTAINERS} containers; "
                    f"no state dict looks like that, refused"
                )
    except UnsafeFileError:
        raise
    except (ValueError, KeyError, IndexError) as error:
        raise CheckpointError(f"{path}: its pickle is damaged ({str(error)[:100]}); save it again") from None
    blocked -= _ALLOWED
    if blocked:
        shown = ", ".join(sorted(blocked)[:5])
        raise UnsafeFileError(
            f"{path}: asks for {shown}, which can run code or is no tensor; nothing was run. "
            f"Where you trust it, load it in its own program and save only model.state_dict()"
        )


def _load_torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=False)
    except Exception as error:  # a made-up pickle can make the reader fail in any way; it never runs code
        reason = " ".join(str(error).split())
        # Torch's own message advises to switch its protection off: only what follows that is passed on.
        reason = reason.rpartition("WeightsUnpickler error: ")[2].split("Please")[0].split("(1)")[0]
        raise CheckpointError(f"{path}: cannot be read as tensors: {reason[:200] or type(error).__name__}") from None


def _refuse_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if len(set(names)) != len(names):
        raise ValueError("a name stands twice in the header")
    return dict(pairs)


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(_MAX_HEADER_BYTES, path.stat().st_size):
                raise ValueError(f"its header claims {length} bytes, the file has {path.stat().st_size}")
            json.loads(file.read(length), object_pairs_hook=_refuse_duplicate_keys)
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, ValueError, struct.error, RecursionError, RuntimeError) as error:
        raise CheckpointError(f"{path}: damaged or not safetensors ({' '.join(str(error).split())[:200]})") from None


def _flatten(path: Path, content: Mapping[Any, Any]) -> Iterator[tuple[str, Tensor]]:
    """Walk nested dictionaries without recursion; what is neither tensor nor dictionary is passed over."""
    waiting: list[tuple[str, int, Mapping[Any, Any]]] = [("", 0, content)]
    seen = set()
    while waiting:
        prefix, depth, mapping = waiting.pop()
        if depth > _MAX_DEPTH or id(mapping) in seen:
            raise UnsafeFileError(f"{path}: dictionaries nested more than {_MAX_DEPTH} deep, or in a circle; refused")
        seen.add(id(mapping))
        for key, value in mapping.items():
            if isinstance(value, Tensor):
                if not isinstance(key, str):
                    raise CheckpointError(
                        f"{path}: not a state dict, a tensor's name is {key!r:.40}; names must be text"
                    )
                yield prefix + key, value
            elif isinstance(value, Mapping):
                waiting.append((f"{prefix}{key}.", depth + 1, value))


def _refuse_odd_tensor(path: Path, name: str, tensor: Tensor) -> None:
    kind = (
        "meta"
        if tensor.is_meta
        else "quantized"
        if tensor.is_quantized
        else "sparse"
        if tensor.layout != torch.strided
        else ""
    )
    if kind:
        raise CheckpointError(f"{path}: tensor {name!r} is {kind}; a dense one is needed, save it as such")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise UnsafeFileError(
            f"{path}: tensor {name!r} claims {tensor.numel() * tensor.element_size()} bytes and has "
            f"{tensor.untyped_storage().nbytes()}; refused"
        )


def check_values(path: Path | str, tensors: Mapping[str, Tensor]) -> None:
    """Refuse weights that are not finite.

    Raises:
        CheckpointError: Names the first such tensor and how many of its values are NaN or infinite.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point():
            bad = int((~torch.isfinite(tensor)).sum())
            if bad:
                raise CheckpointError(
                    f"{path}: {bad} of {tensor.numel()} values of {name!r} are NaN or infinite; "
                    f"the training had diverged, take an earlier checkpoint"
                )
