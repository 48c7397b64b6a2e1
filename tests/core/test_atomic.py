"""Writing is all or nothing, and a manifest finds every kind of damage."""

import json
import os
import resource
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from gridloom.core import atomic, faults
from gridloom.core.atomic import MANIFEST, new_folder, read_json, verify_manifest, write_bytes, write_json, write_text
from gridloom.core.errors import CheckpointError, DataError
from tests.contract.processes import KILLED, start


@pytest.fixture
def fault(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def order(place: str) -> None:
        monkeypatch.setattr(faults, "_passed", Counter())
        monkeypatch.setenv("GRIDLOOM_FAULT", f"{place}:1:raise")

    return order


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def fill(folder: Path, content: str = "first") -> Path:
    with new_folder(folder, replace=True) as temporary:
        write_text(temporary / "a.txt", content)
        write_json(temporary / "deep" / "b.json", {"content": content})
        (temporary / "deep" / MANIFEST).write_text("{}")
    return folder


# --- files ---


def test_a_file_holds_what_was_written_and_leaves_nothing_else(tmp_path: Path) -> None:
    write_bytes(tmp_path / "new" / "deep" / "a.bin", b"\x00\xff")
    write_text(str(tmp_path / "b.txt"), "Größe\n")
    write_json(tmp_path / "c.json", {"z": "ü", "a": [1, None]})
    assert (tmp_path / "new" / "deep" / "a.bin").read_bytes() == b"\x00\xff"
    assert (tmp_path / "b.txt").read_bytes() == "Größe\n".encode()
    assert (tmp_path / "c.json").read_text("utf-8").index("z") < (tmp_path / "c.json").read_text("utf-8").index('"a"')
    assert read_json(tmp_path / "c.json") == {"z": "ü", "a": [1, None]}
    assert names(tmp_path) == {"new", "b.txt", "c.json"}
    assert (tmp_path / "b.txt").stat().st_mode & 0o777 == 0o644


def test_a_failure_before_the_rename_leaves_the_old_file(tmp_path: Path, fault: Callable[[str], None]) -> None:
    write_text(tmp_path / "a.txt", "old")
    fault("atomic.rename")
    with pytest.raises(OSError, match="injected fault"):
        write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "old" and names(tmp_path) == {"a.txt"}


def test_a_file_cannot_take_the_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_text(tmp_path / "a", "new")
    assert names(tmp_path) == {"a"}


def write_on_a_full_disk(folder: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    failed = 0
    for write in (
        lambda: write_bytes(folder / "a.txt", b"x" * 5000),
        lambda: write_bytes(folder / "a.txt", b"x" * 10_000_000),
        lambda: fill(folder / "whole", "x" * 5000),
    ):
        try:
            write()
        except OSError:
            failed += 1
    write_text(folder / "small.txt", "fits")
    assert failed == 3


def swap_and_die(folder: Path, nth: int) -> None:
    """Die at the nth rename of a folder's replacement."""
    rename, count = Path.rename, [0]

    def counted(self: Path, target: Path) -> Path:
        count[0] += 1
        if count[0] == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        return rename(self, target)

    Path.rename = counted  # type: ignore[method-assign, assignment]
    fill(folder, "second")


def test_a_full_disk_leaves_the_old_content_and_no_rest(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "old")
    fill(tmp_path / "whole", "old")
    child = start(write_on_a_full_disk, tmp_path)
    child.join(60)
    assert child.exitcode == 0
    assert (tmp_path / "a.txt").read_text() == "old" and (tmp_path / "whole" / "a.txt").read_text() == "old"
    verify_manifest(tmp_path / "whole")
    assert names(tmp_path) == {"a.txt", "whole", "small.txt"}


@pytest.mark.parametrize(
    "content", [b"", b"{", b"nothing", b"\xff\xfe", b"{'a': 1}", b"[" * 100_000, b'{"a": 1}x'], ids=range(7)
)
def test_what_is_not_json_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.json: not valid JSON") as caught:
        read_json(tmp_path / "a.json")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_json_that_is_not_there_or_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"no\.json: expected a JSON file, there is none"):
        read_json(tmp_path / "no.json")
    with pytest.raises(DataError, match="expected a JSON file"):
        read_json(tmp_path)
    monkeypatch.setattr(atomic, "_MAX_JSON_BYTES", 10)
    (tmp_path / "large.json").write_text('"12345678"')
    assert read_json(tmp_path / "large.json") == "12345678"
    (tmp_path / "large.json").write_text('"123456789"')
    with pytest.raises(DataError, match="a JSON file of 11 bytes is refused"):
        read_json(tmp_path / "large.json")


# --- folders ---


def test_a_folder_appears_whole_with_its_manifest(tmp_path: Path) -> None:
    with new_folder(tmp_path / "deep" / "out") as temporary:
        (temporary / "a.txt").write_text("x")
        assert not (tmp_path / "deep" / "out").exists()
    assert names(tmp_path / "deep") == {"out"} and names(tmp_path / "deep" / "out") == {"a.txt", MANIFEST}
    record = read_json(tmp_path / "deep" / "out" / MANIFEST)["files"]
    assert record == {
        "a.txt": {"bytes": 1, "sha256": "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"}
    }
    assert (tmp_path / "deep" / "out").stat().st_mode & 0o777 == 0o755
    verify_manifest(str(tmp_path / "deep" / "out"))


def test_a_folder_without_manifest_has_none(tmp_path: Path) -> None:
    with new_folder(tmp_path / "out", manifest=False) as temporary:
        (temporary / "a.txt").write_text("x")
    assert names(tmp_path / "out") == {"a.txt"}


def test_an_existing_folder_is_refused_untouched(tmp_path: Path) -> None:
    fill(tmp_path / "out")
    with pytest.raises(DataError, match="out exists already; choose another output"), new_folder(tmp_path / "out"):
        pytest.fail("the block must not be entered")
    assert (tmp_path / "out" / "a.txt").read_text() == "first"


def test_replacing_leaves_only_the_new_content(tmp_path: Path) -> None:
    fill(tmp_path / "out")
    with new_folder(tmp_path / "out", replace=True) as temporary:
        (temporary / "c.txt").write_text("second")
        assert (tmp_path / "out" / "a.txt").read_text() == "first"
    assert names(tmp_path / "out") == {"c.txt", MANIFEST} and names(tmp_path) == {"out"}


def test_a_folder_may_replace_a_file(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    fill(tmp_path / "out", "second")
    assert (tmp_path / "out" / "a.txt").read_text() == "second" and names(tmp_path) == {"out"}


@pytest.mark.parametrize("place", ["atomic.rename", "atomic.manifest", "folder.rename"])
def test_a_failure_on_the_way_leaves_the_old_folder(tmp_path: Path, fault: Callable[[str], None], place: str) -> None:
    fill(tmp_path / "out")
    fault(place)
    with pytest.raises(OSError, match="injected fault"):
        fill(tmp_path / "out", "second")
    verify_manifest(tmp_path / "out")
    assert (tmp_path / "out" / "a.txt").read_text() == "first" and names(tmp_path) == {"out"}


def test_an_interrupt_in_the_block_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "out") as temporary:
        (temporary / "a.txt").write_text("x")
        raise KeyboardInterrupt
    assert names(tmp_path) == set()


def test_a_swap_that_fails_half_way_puts_the_old_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "out")
    rename = Path.rename

    def broken(self: Path, target: Path) -> Path:
        if ".tmp-" in self.name:
            raise OSError("no space left")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", broken)
    with pytest.raises(OSError, match="no space left"):
        fill(tmp_path / "out", "second")
    verify_manifest(tmp_path / "out")
    assert (tmp_path / "out" / "a.txt").read_text() == "first" and names(tmp_path) == {"out"}


def test_names_with_wildcards_sweep_only_their_own(tmp_path: Path) -> None:
    (tmp_path / ".out1.tmp-x").mkdir()
    fill(tmp_path / "out[1]")
    fill(tmp_path / "out?", "second")
    assert names(tmp_path) == {".out1.tmp-x", "out[1]", "out?"}


def test_what_a_killed_process_left_is_swept_by_the_next(tmp_path: Path) -> None:
    fill(tmp_path / "out")
    for nth in (1, 2):
        child = start(swap_and_die, tmp_path / "out", nth)
        child.join(60)
        assert child.exitcode == KILLED
        rests = names(tmp_path) - {"out"}
        assert rests, "a kill leaves its temporary folder"
        whole = [tmp_path / name for name in names(tmp_path) if not name.startswith(".out.tmp-")]
        assert len(whole) == 1, "the old folder is still whole, under its name or aside"
        verify_manifest(whole[0])
    (tmp_path / ".other.tmp-x").mkdir()
    fill(tmp_path / "out", "third")
    assert names(tmp_path) == {"out", ".other.tmp-x"}
    assert (tmp_path / "out" / "a.txt").read_text() == "third"


# --- the manifest ---


def truncate(folder: Path) -> None:
    (folder / "a.txt").write_text("firs")


def extend(folder: Path) -> None:
    (folder / "a.txt").write_text("first ")


def flip(folder: Path) -> None:
    (folder / "a.txt").write_text("fIrst")


def empty(folder: Path) -> None:
    (folder / "a.txt").write_text("")


def remove(folder: Path) -> None:
    (folder / "deep" / "b.json").unlink()


def make_folder(folder: Path) -> None:
    (folder / "a.txt").unlink()
    (folder / "a.txt").mkdir()


def link_away(folder: Path) -> None:
    shutil.copy(folder / "a.txt", folder.parent / "outside.txt")
    (folder / "a.txt").unlink()
    (folder / "a.txt").symlink_to(folder.parent / "outside.txt")


def unfinished(folder: Path) -> None:
    (folder / MANIFEST).unlink()


def cut_manifest(folder: Path) -> None:
    (folder / MANIFEST).write_bytes((folder / MANIFEST).read_bytes()[:50])


def name_outside(folder: Path, name: str = "../x") -> None:
    (folder.parent / "x").write_text("x")
    record = json.loads((folder / MANIFEST).read_text())
    record["files"][name] = {"bytes": 1, "sha256": atomic._sha256(folder.parent / "x")}
    (folder / MANIFEST).write_text(json.dumps(record))


def name_absolute(folder: Path) -> None:
    name_outside(folder, str(folder.parent / "x"))


def name_zero_byte(folder: Path) -> None:
    name_outside(folder, "x\x00")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, r"a\.txt: 4 bytes, the manifest says 5"),
        (extend, r"a\.txt: 6 bytes, the manifest says 5"),
        (flip, r"a\.txt: content changed"),
        (empty, r"a\.txt: 0 bytes, the manifest says 5"),
        (remove, r"b\.json: named in the manifest, but not there"),
        (make_folder, r"a\.txt: named in the manifest, but not there"),
        (link_away, r"names a file outside its folder: 'a\.txt'"),
        (unfinished, r"out: incomplete, there is no manifest\.json"),
        (cut_manifest, r"manifest\.json: damaged"),
        (name_outside, r"names a file outside its folder: '\.\./x'"),
        (name_absolute, r"names a file outside its folder: '/"),
        (name_zero_byte, r"manifest\.json: "),
    ],
)
def test_every_kind_of_damage_is_found_and_named(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    folder = fill(tmp_path / "out")
    verify_manifest(folder)
    damage(folder)
    with pytest.raises(CheckpointError, match=message):
        verify_manifest(folder)


ENTRIES = ("5", '{"bytes": 5}', '{"bytes": "x", "sha256": ""}', '{"bytes": Infinity, "sha256": ""}')


@pytest.mark.parametrize(
    "content",
    ["[]", "{}", "null", '{"files": []}', '{"files": 5}', *(f'{{"files": {{"a.txt": {entry}}}}}' for entry in ENTRIES)],
)
def test_a_manifest_of_another_shape_is_damaged(tmp_path: Path, content: str) -> None:
    folder = fill(tmp_path / "out")
    (folder / MANIFEST).write_text(content)
    with pytest.raises(CheckpointError, match=r"manifest\.json: damaged"):
        verify_manifest(folder)


def test_no_flipped_bit_of_a_manifest_or_a_file_goes_unnoticed(tmp_path: Path) -> None:
    with new_folder(tmp_path / "out") as temporary:
        (temporary / "a").write_text("xyz")
    unnoticed = []
    for path in (tmp_path / "out" / "a", tmp_path / "out" / MANIFEST):
        good = path.read_bytes()
        meaning = json.loads(good) if path.name == MANIFEST else None
        for place in range(8 * len(good)):
            bad = bytearray(good)
            bad[place // 8] ^= 1 << (place % 8)
            path.write_bytes(bad)
            try:
                verify_manifest(tmp_path / "out")
            except CheckpointError:
                continue
            if meaning is None or json.loads(bytes(bad)) != meaning:  # one white space for another is no damage
                unnoticed.append((path.name, place))
        path.write_bytes(good)
    assert unnoticed == []
