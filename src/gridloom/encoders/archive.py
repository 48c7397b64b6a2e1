"""The zip that `torch.save` writes: a pickle, and the bytes of each storage as a stored member."""

import struct
import zipfile
import zlib
from io import BufferedReader, BytesIO

import torch
from torch import Tensor

from gridloom.core.errors import CheckpointError, UnsafeFileError
from gridloom.encoders.unpickle import MAX_PICKLE_BYTES

__all__ = ["Archive"]

_END, _END_64 = 22, 98  # bytes of the record at the end of a zip, and of the three with which torch ends one
_MAX_DIRECTORY_BYTES = 4 * 1024 * 1024  # each member takes about 80
_LOCAL_HEADER = 30


class Archive:
    """An open archive, whose members were found to be no more than what is there.

    Attributes:
        pickle: The pickle that says what the storages are.
        big_endian: Numbers in the storages have their highest byte first.
    """

    def __init__(self, where: str, file: BufferedReader | BytesIO) -> None:
        """Read the directory and the pickle.

        Args:
            where: What it is, for messages.
            file: Open at the archive; it is read to its end, and stays open while storages are asked for.

        Raises:
            UnsafeFileError: A claim that does not hold, or code.
            CheckpointError: No archive of torch.save, or damaged.
        """
        self._where, self._file = where, file
        self._size = file.seek(0, 2)
        self._cache: dict[str, Tensor] = {}
        try:
            _check_end(where, file, self._size)
            with zipfile.ZipFile(file) as archive:
                members = archive.infolist()
        except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
            if isinstance(error, UnsafeFileError):
                raise
            raise CheckpointError(
                f"{where}: truncated or damaged, {self._size} bytes ({str(error)[:100]}); copy or save it again"
            ) from None
        self._members = {member.filename: member for member in members}
        self._check_members(members)
        pickles = [member for member in members if member.filename.endswith("data.pkl")]
        if len(pickles) != 1:
            raise CheckpointError(f"{where}: a zip file, but not one that torch.save wrote (it has no data.pkl)")
        if pickles[0].file_size > MAX_PICKLE_BYTES:
            raise UnsafeFileError(f"{where}: a pickle of {pickles[0].file_size} bytes in it; refused")
        self._root = pickles[0].filename.removesuffix("data.pkl")
        self.pickle = bytes(self._read(pickles[0].filename).numpy())
        order = f"{self._root}byteorder"
        self.big_endian = order in self._members and bytes(self._read(order).numpy()) == b"big"

    def _check_members(self, members: list[zipfile.ZipInfo]) -> None:
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise UnsafeFileError(
                f"{self._where}: compressed members, which torch.save never writes (a zip bomb?); refused"
            )
        if sum(member.file_size for member in members) > self._size:
            raise UnsafeFileError(
                f"{self._where}: its members claim more bytes than the file has ({self._size}); refused"
            )
        if len({name.lower() for name in self._members}) != len(members):  # torch's reader does not tell case apart
            raise UnsafeFileError(f"{self._where}: two members of one name; refused")
        if any("/code/" in name or name.endswith("/constants.pkl") for name in self._members):
            raise UnsafeFileError(
                f"{self._where}: a TorchScript archive, which holds code; save model.state_dict() instead"
            )

    def storage(self, key: str, num_bytes: int) -> Tensor:
        """Return the bytes of a storage, read once.

        Args:
            key: Its name among the archive's data.
            num_bytes: What the pickle says that it has.

        Raises:
            UnsafeFileError: The archive has another number of bytes there.
            CheckpointError: There is none, or it is damaged.
        """
        name = f"{self._root}data/{key}"
        if name not in self._members:
            raise CheckpointError(
                f"{self._where}: cannot be read, it has no storage {key!r:.40}; copy or save it again"
            )
        if self._members[name].file_size != num_bytes:
            raise UnsafeFileError(
                f"{self._where}: storage {key!r:.40} claims {num_bytes} bytes and has "
                f"{self._members[name].file_size}; refused"
            )
        if key not in self._cache:
            self._cache[key] = self._read(name)
        return self._cache[key]

    def _read(self, name: str) -> Tensor:
        member = self._members[name]
        self._file.seek(max(0, min(member.header_offset, self._size)))
        header = self._file.read(_LOCAL_HEADER)
        whole = len(header) == _LOCAL_HEADER and header.startswith(b"PK\x03\x04")
        content = torch.empty(member.file_size, dtype=torch.uint8)
        if whole:
            self._file.seek(sum(struct.unpack("<HH", header[-4:])), 1)  # the name again, and padding
            view = content.numpy().data
            whole = self._file.readinto(view) == member.file_size
            # A file can be written without checksums, then they are 0.
            whole &= member.CRC in (0, zlib.crc32(view))
        if not whole:
            raise CheckpointError(
                f"{self._where}: damaged, {name!r:.80} is not as it was written (its checksum differs, or it is cut "
                f"off); copy or save the file again"
            )
        return content


def _check_end(where: str, file: BufferedReader | BytesIO, size: int) -> None:
    """Look at the place and the size of the directory before it is read into memory.

    Readers differ in where they look for it; none could be shown other members than this one.
    """
    file.seek(-min(size, _END_64), 2)
    tail = file.read(_END_64)
    if tail[-_END : -_END + 4] != b"PK\x05\x06":
        raise zipfile.BadZipFile("no zip directory at its end")
    length, offset = struct.unpack("<II", tail[-10:-2])
    end = size - _END
    if tail[-42:-38] == b"PK\x06\x07":  # the locator of a 64-bit record, which torch always writes
        length, offset = struct.unpack("<QQ", tail[40:56])
        end = size - _END_64
    if offset + length != end:
        raise UnsafeFileError(f"{where}: its end does not lead to its directory (a second one in it?); refused")
    if length > _MAX_DIRECTORY_BYTES:
        raise UnsafeFileError(f"{where}: a zip directory of {length} bytes; no state dict has so many tensors, refused")
