"""Reading files of weights from anywhere, without ever running code.

Read: safetensors; what `torch.save` writes of a state dict, or of a checkpoint that holds some (a zip of stored
members); folders of torch.distributed.checkpoint. Pickles are read as plain records (`unpickle`), storages by their
place in the archive (`archive`), so that only tensors can come out, within the size of the file. No torch.load, and no
way around: what this reader refuses is not read.
"""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from gridloom.core.errors import CheckpointError, UnsafeFileError
from gridloom.encoders.rebuild import SavedTensors, is_tensor
from gridloom.encoders.sharded import METADATA, read_sharded
from gridloom.encoders.unpickle import DICTIONARY, Made

__all__ = ["check_values", "read_weights"]

_MAX_DEPTH = 12
_MAX_WALK = 20_000_000  # 40 for each key and one for each character of a name: dictionaries may hold each other often
_MAX_TENSORS = 20_000
_MAX_HEADER_BYTES = 100 * 1024 * 1024
_MAPPINGS = {DICTIONARY, "collections.OrderedDict", "collections.defaultdict"}


def read_weights(path: Path | str) -> dict[str, Tensor]:
    """Read every tensor of a file; nested dictionaries become dotted names.

    Args:
        path: A `.safetensors` file, a state dict (or a checkpoint that holds some) written by `torch.save`, or a
            folder that torch.distributed.checkpoint wrote.

    Returns:
        Dense CPU tensors by dotted name, e.g. `state_dict.encoder.stem.0.weight`.

    Raises:
        UnsafeFileError: It would have to run code, or is made to exhaust memory.
        CheckpointError: It is not there, not a file of weights, or damaged.
    """
    path = Path(path)
    if (path / METADATA).is_file():
        tensors = read_sharded(path)
    elif path.is_file():
        tensors = _read_file(path)
    else:
        raise CheckpointError(f"weights file not found (权重文件不存在): {path}")
    if not tensors:
        raise CheckpointError(f"{path}: no tensors in it; save model.state_dict()")
    odd = next((name for name in tensors if not name.isprintable()), None)
    if odd is not None:
        raise CheckpointError(f"{path}: a tensor's name cannot be printed: {odd!r:.80}; rename it")
    return tensors


def _read_file(path: Path) -> dict[str, Tensor]:
    with path.open("rb") as file:
        head = file.read(64)
    _refuse_what_is_no_checkpoint(path, head)
    if head[:4] == b"PK\x03\x04":
        return _load_saved(path)
    if path.suffix == ".safetensors" or head[8:9] == b"{":
        return _load_safetensors(path)
    raise CheckpointError(
        f"{path}: neither safetensors nor the zip that torch.save writes (it begins with {head[:8]!r}); "
        f"save the state dict again with torch 1.6 or newer, or as safetensors"
    )


def _refuse_what_is_no_checkpoint(path: Path, head: bytes) -> None:
    size = path.stat().st_size
    if size == 0:
        raise CheckpointError(f"{path}: the file is empty (0 bytes); it was not written to the end, copy it again")
    if path.name == METADATA or path.suffix == ".distcp":
        raise CheckpointError(f"{path}: one part of a sharded checkpoint; pass its folder {path.parent}")
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


def _load_saved(path: Path) -> dict[str, Tensor]:
    with path.open("rb") as file:
        saved = SavedTensors(str(path), file)
        content = saved.content
        if not isinstance(content, Made) or is_tensor(content):
            kind = "tensor" if is_tensor(content) else type(content).__name__
            raise CheckpointError(f"{path}: not a state dict but a {kind}; save model.state_dict() instead")
        if not content.pairs and content.name not in _MAPPINGS:
            raise CheckpointError(f"{path}: not a state dict but a {content.name:.80}; save model.state_dict() instead")
        return {name: saved.tensor(name, record) for name, record in _flatten(path, content).items()}


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


def _flatten(path: Path, content: Made) -> dict[str, Made]:
    """Walk nested dictionaries without recursion; what is neither tensor nor dictionary is passed over."""
    found: dict[str, Made] = {}
    nameless, walked = "", 0
    waiting: list[tuple[str, int, Made]] = [("", 1, content)]
    while waiting:
        prefix, depth, mapping = waiting.pop()
        for key, value in mapping.pairs:
            name = prefix + _text(key)
            walked += 40 + len(name)
            if depth > _MAX_DEPTH or walked > _MAX_WALK or len(found) > _MAX_TENSORS:
                raise UnsafeFileError(
                    f"{path}: dictionaries nested more than {_MAX_DEPTH} deep or in a circle, or more than "
                    f"{_MAX_TENSORS} tensors; refused"
                )
            if not isinstance(value, Made):
                continue
            if not is_tensor(value):
                waiting.append((f"{name}.", depth + 1, value))
            elif not isinstance(key, str):
                nameless = name
            elif name in found:
                raise CheckpointError(f"{path}: two tensors of one name, {name!r:.80}; save it again")
            else:
                found[name] = value
    if nameless and not found:
        raise CheckpointError(f"{path}: not a state dict, a tensor's name is {nameless:.40}; names must be text")
    return found


def _text(key: Any) -> str:
    """Return a key as part of a name; numbers are those of an optimizer's parameters."""
    if isinstance(key, int):
        return str(key) if abs(key) < 2**63 else "?"
    return key if isinstance(key, str) else "?"


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
