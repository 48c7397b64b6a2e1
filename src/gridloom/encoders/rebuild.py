"""Tensors from the records of a pickle and the storages of its archive, with every number checked before it is used."""

import math
from dataclasses import dataclass
from io import BufferedReader, BytesIO
from typing import Any

import torch
from torch import Tensor

from gridloom.core.errors import CheckpointError, UnsafeFileError
from gridloom.encoders.allowed import check_names
from gridloom.encoders.archive import Archive
from gridloom.encoders.unpickle import PERSISTENT, Made, Named, read_pickle

__all__ = ["DTYPES", "SavedTensors", "is_absurd", "is_tensor", "whole_numbers"]

_PLAIN, _WITH_DTYPE = "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3"
_ARGUMENTS = {_PLAIN: 6, _WITH_DTYPE: 7}  # how many there are before the optional flags
_AROUND = {"torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"}
_OF_TYPE = "torch._tensor._rebuild_from_type_v2"  # of a tensor with attributes: function, type, arguments, attributes
_MAX_DIMS, _MAX_EMPTY = 64, 2**40
_STORAGES = {
    "torch.FloatStorage": torch.float32,
    "torch.DoubleStorage": torch.float64,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
    "torch.storage.UntypedStorage": torch.uint8,
}
DTYPES = {
    str(dtype): dtype
    for dtype in (
        *_STORAGES.values(),
        *(torch.uint16, torch.uint32, torch.uint64),
        *(torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2, torch.float8_e5m2fnuz),
    )
}


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """What the record of a tensor says."""

    key: str
    num_bytes: int
    dtype: torch.dtype
    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    is_view: bool


class SavedTensors:
    """What `torch.save` wrote, read without running anything.

    Attributes:
        content: What was saved, as records (see `unpickle`).
    """

    def __init__(self, where: str, file: BufferedReader | BytesIO) -> None:
        """Read the archive's directory and its pickle.

        Args:
            where: What it is, for messages.
            file: Open at the archive; it stays open while tensors are asked for.

        Raises:
            UnsafeFileError: It would have to run code, or is made to exhaust memory.
            CheckpointError: No archive of torch.save, or damaged.
        """
        self._where = where
        self._archive = Archive(where, file)
        self.content = read_pickle(where, self._archive.pickle, permit=check_names)

    def tensor(self, name: str, record: Made) -> Tensor:
        """Build the tensor of a record for which `is_tensor` holds; tensors of one storage share memory.

        Raises:
            UnsafeFileError: It claims more than its storage has.
            CheckpointError: Its record makes no sense.
        """
        parts = _parts(_innermost(record))
        if parts is None:
            raise CheckpointError(
                f"{self._where}: cannot be read, the record of tensor {name!r:.80} makes no sense; save it again"
            )
        if parts.is_view:
            raise CheckpointError(
                f"{self._where}: tensor {name!r:.80} is kept as a view (conjugate or negative); save a .clone() of it"
            )
        content = self._archive.storage(parts.key, parts.num_bytes)
        itemsize = parts.dtype.itemsize
        available = len(content) // itemsize
        content = content[: available * itemsize]
        if self._archive.big_endian:
            content = content.view(-1, itemsize).flip(1).flatten()
        if is_absurd(parts.size):
            raise UnsafeFileError(f"{self._where}: tensor {name!r:.80} claims a shape of {_MAX_EMPTY} or more; refused")
        if 0 in parts.size:
            return torch.empty(parts.size, dtype=parts.dtype)
        count = math.prod(parts.size)
        last = parts.offset + sum((length - 1) * step for length, step in zip(parts.size, parts.stride, strict=True))
        if max(count, last + 1) > available:
            raise UnsafeFileError(
                f"{self._where}: tensor {name!r:.80} claims {max(count, last + 1)} values, its storage has "
                f"{available}; refused"
            )
        return content.view(parts.dtype).as_strided(parts.size, parts.stride, parts.offset)


def is_tensor(value: Any) -> bool:
    """True for the record of a tensor or parameter."""
    return isinstance(value, Made) and _innermost(value).name in _ARGUMENTS


def is_absurd(size: tuple[int, ...]) -> bool:
    """True for an empty shape whose other lengths torch cannot even multiply."""
    return 0 in size and math.prod(length for length in size if length) >= _MAX_EMPTY


def whole_numbers(value: Any) -> tuple[int, ...] | None:
    """Return a tuple or a `torch.Size` of numbers from 0 up, as many as dimensions; None if it is something else."""
    if isinstance(value, Made) and value.name == "torch.Size" and len(value.arguments) == 1:
        value = value.arguments[0]
    if not isinstance(value, tuple) or len(value) > _MAX_DIMS:
        return None
    return value if all(type(number) is int and 0 <= number < 2**63 for number in value) else None


def _innermost(record: Made) -> Made:
    """Go through a parameter, or a tensor with attributes, to the tensor; a few turns at most, so a circle ends too."""
    for _ in range(4):
        arguments = record.arguments
        if record.name in _AROUND and arguments and isinstance(arguments[0], Made):
            record = arguments[0]
        elif record.name == _OF_TYPE and len(arguments) > 2 and isinstance(arguments[0], Named):
            record = Made(arguments[0].name, arguments[2] if isinstance(arguments[2], tuple) else ())
        else:
            break
    return record


def _parts(record: Made) -> _Parts | None:
    """Check the arguments of a tensor's record; None if they make no sense."""
    number, arguments = _ARGUMENTS[record.name], record.arguments
    if len(arguments) < number:
        return None
    storage, size, stride = _storage(arguments[0]), whole_numbers(arguments[2]), whole_numbers(arguments[3])
    offset = whole_numbers((arguments[1],))
    dtype = storage[1] if storage else None
    if record.name == _WITH_DTYPE:
        dtype = DTYPES.get(arguments[6].name) if isinstance(arguments[6], Named) else None
    if not storage or dtype is None or offset is None or size is None or stride is None:
        return None
    if len(size) != len(stride):
        return None
    return _Parts(
        key=storage[0],
        num_bytes=storage[2] * storage[1].itemsize,
        dtype=dtype,
        size=size,
        stride=stride,
        offset=offset[0],
        is_view=any(isinstance(flag, Made) and bool(flag.pairs) for flag in arguments[number:]),
    )


def _storage(value: Any) -> tuple[str, torch.dtype, int] | None:
    """Return key, dtype and number of values of the storage that is referred to."""
    if isinstance(value, Made) and value.name == PERSISTENT:
        match value.arguments[0]:
            case ("storage", Named(name=name), str(key), str(), int(count)) if name in _STORAGES and 0 <= count < 2**63:
                return key, _STORAGES[name], count
    return None
