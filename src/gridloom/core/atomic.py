"""Writing that is all or nothing: a reader sees the old content or the new, never a part.

Content goes to a temporary sibling, is flushed to disk, and is renamed into place. A folder gets a `manifest.json` with
size and SHA-256 of each file, written last: what has no manifest, or does not agree with it, is not complete.
"""

import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gridloom.core import faults
from gridloom.core.errors import CheckpointError, DataError

__all__ = [
    "MANIFEST",
    "new_file",
    "new_folder",
    "read_json",
    "verify_manifest",
    "write_bytes",
    "write_json",
    "write_text",
]

MANIFEST = "manifest.json"
_MAX_JSON_BYTES = 64 * 1024 * 1024


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def new_file(path: Path | str) -> Iterator[Path]:
    """Fill a file that takes its place, or that of an older one, only when the block ends well.

    Args:
        path: Final name; its folder is made if need be.

    Yields:
        The temporary sibling to write to, with the same suffix.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.tmp-", suffix=path.suffix)
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        _sync(temporary)
        temporary.chmod(0o644)
        faults.point("atomic.rename")
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def write_bytes(path: Path | str, content: bytes) -> None:
    """Write a file atomically; its folder is made if need be."""
    with new_file(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path | str, content: str) -> None:
    """Write a UTF-8 text file atomically."""
    write_bytes(path, content.encode())


def write_json(path: Path | str, content: Any) -> None:
    """Write a JSON file atomically, indented, in the order given."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path | str) -> Any:
    """Read a JSON file.

    Raises:
        DataError: Not there, not JSON, or larger than 64 MiB.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: expected a JSON file, there is none")
    if path.stat().st_size > _MAX_JSON_BYTES:
        raise DataError(f"{path}: a JSON file of {path.stat().st_size} bytes is refused (at most {_MAX_JSON_BYTES})")
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON ({str(error)[:200]})") from None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)


def _write_manifest(folder: Path) -> None:
    record = {}
    for path in _files(folder):
        _sync(path)
        record[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": _sha256(path)}
    faults.point("atomic.manifest")
    write_json(folder / MANIFEST, {"files": record})


def verify_manifest(folder: Path | str) -> None:
    """Compare every file of a folder with its manifest.

    Raises:
        CheckpointError: Names the first file that is missing, too short or changed.
    """
    folder = Path(folder)
    if not (folder / MANIFEST).is_file():
        raise CheckpointError(
            f"{folder}: incomplete, there is no {MANIFEST}; it was not finished, or is something else"
        )
    try:
        files = read_json(folder / MANIFEST)["files"]
        entries = [(name, int(entry["bytes"]), str(entry["sha256"])) for name, entry in files.items()]
        if any("\0" in name for name in files):
            raise ValueError("a name with a zero byte")
    except (DataError, KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise CheckpointError(f"{folder / MANIFEST}: damaged ({str(error)[:200]})") from None
    for name, size, digest in entries:
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise CheckpointError(f"{folder / MANIFEST}: names a file outside its folder: {name!r}")
        if not path.is_file():
            raise CheckpointError(f"{path}: named in the manifest, but not there")
        if path.stat().st_size != size:
            raise CheckpointError(f"{path}: {path.stat().st_size} bytes, the manifest says {size}; the file is cut off")
        if _sha256(path) != digest:
            raise CheckpointError(f"{path}: content changed since it was written (SHA-256 differs from the manifest)")


@contextmanager
def new_folder(path: Path | str, *, manifest: bool = True, replace: bool = False) -> Iterator[Path]:
    """Fill a folder that appears under its name only when the block ends well.

    Args:
        path: Final name.
        manifest: Write a `manifest.json` last.
        replace: Take the place of an existing folder or file; otherwise an existing one is an error.

    Yields:
        The temporary folder to write into.
    """
    path = Path(path)
    if path.exists() and not replace:
        raise DataError(f"{path} exists already; choose another output, or remove it first")
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path, "tmp")
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.tmp-"))
    temporary.chmod(0o755)
    try:
        yield temporary
        if manifest:
            _write_manifest(temporary)
        else:
            for file in _files(temporary):
                _sync(file)
        _sync(temporary)
        faults.point("folder.rename")
        _swap(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _sync(path.parent)
    _sweep(path, "old")


def _swap(temporary: Path, path: Path) -> None:
    """Rename into place. An existing target steps aside first and is swept last, so that one of both is whole."""
    if not path.exists():
        temporary.rename(path)
        return
    aside = path.with_name(f".{path.name}.old-{os.getpid()}")
    path.rename(aside)
    try:
        temporary.rename(path)
    except BaseException:
        aside.rename(path)
        raise


def _sweep(path: Path, kind: str) -> None:
    """Remove what killed processes, or this one, left beside `path`."""
    for orphan in path.parent.glob(f".{glob.escape(path.name)}.{kind}-*"):
        if orphan.is_dir():
            shutil.rmtree(orphan, ignore_errors=True)
        else:
            orphan.unlink(missing_ok=True)
