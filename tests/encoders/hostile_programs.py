"""Pickles that do harm by what an unpickler does without being told to call anything, or by names of another kind."""

import pickle
import struct
import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import torch

from tests.encoders.crafted import Add, Reduces, RunsCode, Weights, saved, torch_zip

__all__ = ["add_programs"]

_SIZE = 4  # values of the one storage that these files have


def add_programs(add: Add, weights: Weights, canary: Path) -> None:
    """Write them.

    Args:
        add: Writes one file.
        weights: Of an encoder that loads.
        canary: A folder that comes to be if code is run.
    """
    _add_names(add, weights, canary)
    _add_bombs(add)
    _add_records(add)
    _add_damage(add, weights)


def _text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def _add_names(add: Add, weights: Weights, canary: Path) -> None:
    bomb = RunsCode(canary)
    add("code_protocol_5.pth", "code, named from the stack", "posix.mkdir", saved({"a": bomb}, pickle_protocol=5))
    add("code_beside.pth", "code beside whole weights", "posix.mkdir", saved({**weights, "hyper_parameters": bomb}))
    for number, (name, call) in enumerate(
        {
            "builtins.eval": b"c__builtin__\neval\n" + _text("1") + b"\x85R",
            "builtins.getattr": b"cbuiltins\ngetattr\n(NNtR",
            "torch.hub.load": b"ctorch\nhub.load\n)R",
            "numpy.lib.npyio.load": b"cnumpy.lib.npyio\nload\n)R",
            "importlib.import_module": b"cimportlib\nimport_module\n)R",
            "torch.storage._load_from_bytes": b"ctorch.storage\n_load_from_bytes\n)R",
            "subprocess.getoutput": b"ccommands\ngetoutput\n)R",  # Python 2's name
            ".system": b"c\nsystem\n)R",
        }.items()
    ):
        program = b"\x80\x02}" + _text("a") + call + b"s."
        add(f"name_{number}.pth", f"a call of {name}", name, torch_zip(program))
    for name, opcode in {
        "EXT1": b"\x82\x01",
        "INST": b"(iposix\nmkdir\n",
        "OBJ": b"(cposix\nmkdir\no",
        "PERSID": b"Px\n",
    }.items():
        add(f"opcode_{name}.pth", f"the opcode {name}", f"opcode {name}", torch_zip(b"\x80\x02}" + opcode + b"0."))
    add("protocol_0.pth", "a pickle of protocol 0", "opcode PUT", torch_zip(pickle.dumps({"a": 1}, protocol=0)))


def _add_bombs(add: Add) -> None:
    def program(name: str, kind: str, says: str, body: bytes) -> None:
        add(f"program_{name}.pth", kind, says, torch_zip(b"\x80\x04" + body))

    program("memo", "a memo of 2^32 places", "no tensors", b"}r\xff\xff\xff\xff.")
    program("bytes", "a claim of 2^40 bytes", "damaged", b"\x8e" + struct.pack("<Q", 2**40) + b"x.")
    program(
        "buffer",
        "a claim of 2^40 bytes that are allocated first",
        "damaged",
        b"\x96" + struct.pack("<Q", 2**40) + b"x.",
    )
    program("frame", "a frame of 2^60 bytes", "no tensors", b"\x95" + struct.pack("<Q", 2**60) + b"}.")
    tuples = b")" + b"\x85" * 70_000
    program(
        "tuple_key", "a key of 70,000 nested tuples, whose hash ends the process", "no tensors", b"}" + tuples + b"Ns."
    )
    program("unhashable", "a list as a key", "no tensors", b"}]Ns.")
    numbers = (number * (2**61 - 1) % 2**63 for number in range(1, 80_000))
    keys = b"".join(b"\x8a\x09" + number.to_bytes(9, "little") + b"N" for number in numbers)
    program("same_hash", "80,000 numbers of few hashes as keys", "no tensors", b"}(" + keys + b"u.")
    number = b"\x8b" + struct.pack("<I", 8_000_000) + b"\x7f" * 8_000_000
    program(
        "long_number",
        "a number of 19 million digits as a key",
        "no tensors",
        b"}" + number + b"}" + _text("a") + b"Nss.",
    )
    wide = ("a" * 15_000_000 + "\U0001f600").encode()
    program(
        "wide",
        "15 MB of text that take 60 in memory",
        "no tensors",
        b"}X" + struct.pack("<I", len(wide)) + wide + b"Ns.",
    )
    program("stack", "half a million values on the stack", "steps", b"}" + b"K\x01" * 600_000 + b".")
    program("marks", "half a million marks", "containers", b"}" + b"(" * 600_000 + b".")
    program("strings", "half a million texts", "steps", b"}" + b"\x8c\x02ab\x94" * 600_000 + b".")
    program("objects", "many objects of nobody's class", "containers", b"cx\ny\nq\x00" + b"h\x00)\x81" * 300_000 + b".")
    build = b"cx\ny\n)\x81q\x00h\x00b}" + _text("__class__") + b"h\x00sb."
    program("placeholder", "a class of nobody's that becomes its own state", "not a state dict but a x.y", build)
    program("placeholder_called", "a call of what a class of nobody's made", "makes no sense", b"cx\ny\n)R)R.")
    program("list_state", "attributes for a list", "makes no sense", b"]}b.")
    program("text_items", "items for a text", "makes no sense", _text("a") + b"NNs.")
    program("no_memo", "a place of the memo that is empty", "makes no sense", b"h\x07.")
    program("no_mark", "a tuple without its mark", "makes no sense", b"t.")
    program("odd", "a key without a value", "damaged", b"}(Nu.")
    big = b"".join(b"}q" + bytes([level]) for level in range(11))
    shared = b"".join(
        b"h"
        + bytes([level])
        + b"("
        + b"".join(_text(str(key)) + b"h" + bytes([level + 1]) for key in range(200))
        + b"u0"
        for level in range(10)
    )
    program(
        "each_other", "dictionaries that hold each other 200 to the tenth times", "nested", big + shared + b"h\x00."
    )
    name = _text("y" * 1_000_000) + b"q\x000"
    names = b"h\x00h\x00\x930" * 50_000
    program("names", "50,000 names of a megabyte each, from one text", "is no name", name + names + b"}.")
    lines = _text("os\nx") + _text("system") + b"\x93."
    program("lines", "a name of two lines", "is no name", lines)
    filled = pickle.dumps(b"x" * 17_000_000, protocol=4)
    program("large", "a pickle of 17 MB", "a pickle of", filled[2:])


def _storage(*, key: bytes = b"0", kind: bytes = b"FloatStorage", count: bytes = b"K\x04") -> bytes:
    return b"(" + _text("storage") + b"ctorch\n" + kind + b"\n" + _text(key.decode()) + _text("cpu") + count + b"tQ"


def _tensor(
    *, storage: bytes | None = None, offset: bytes = b"K\x00", size: bytes = b"K\x04\x85", stride: bytes = b"K\x01\x85"
) -> bytes:
    record = b"ctorch._utils\n_rebuild_tensor_v2\n(" + (storage or _storage()) + offset + size + stride
    return record + b"\x89ccollections\nOrderedDict\n)RtR"


def _number(value: int) -> bytes:
    return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)


def _with_storage(program: bytes) -> bytes:
    return torch_zip(program, ("archive/data/0", bytes(4 * _SIZE), 0, 4 * _SIZE))


def _add_records(add: Add) -> None:
    records = {
        "fewer": ("less than its storage has", "claims", _tensor(storage=_storage(count=b"K\x03"))),
        "terabytes": ("a storage of 2^60 values", "claims", _tensor(storage=_storage(count=_number(2**60)))),
        "beyond": ("values from behind the end", "claims", _tensor(offset=_number(2**62))),
        "far_stride": ("steps of 2^62", "claims", _tensor(stride=_number(2**62) + b"\x85")),
        "negative": ("a negative size", "makes no sense", _tensor(size=_number(-4) + b"\x85")),
        "negative_offset": ("a negative offset", "makes no sense", _tensor(offset=_number(-1))),
        "two_strides": ("more strides than sizes", "makes no sense", _tensor(stride=b"K\x01K\x01\x86")),
        "text_size": ("a text for a size", "makes no sense", _tensor(size=_text("a") + b"\x85")),
        "dimensions": (
            "a thousand dimensions",
            "makes no sense",
            _tensor(size=b"(" + b"K\x01" * 1000 + b"t", stride=b"(" + b"K\x01" * 1000 + b"t"),
        ),
        "empty_and_huge": (
            "an empty tensor of 2^62 rows",
            "claims",
            _tensor(size=b"K\x00" + _number(2**62) + b"\x86", stride=b"K\x01K\x01\x86"),
        ),
        "outside": (
            "a storage outside of the archive",
            "has no storage",
            _tensor(storage=_storage(key=b"../../../etc/passwd")),
        ),
        "no_storage": ("a number for a storage", "makes no sense", _tensor(storage=b"K\x01")),
        "persistent": ("a reference that is no tuple", "makes no sense", _tensor(storage=b"K\x01Q")),
        "odd_storage": (
            "a class of nobody's for a storage",
            "makes no sense",
            _tensor(storage=b"(" + _text("storage") + b"cx\ny\n" + _text("0") + _text("cpu") + b"K\x04tQ"),
        ),
        "no_arguments": ("a tensor of nothing", "makes no sense", b"ctorch._utils\n_rebuild_tensor_v2\n)R"),
        "of_dtype": (
            "a dtype of nobody's",
            "makes no sense",
            b"ctorch._utils\n_rebuild_tensor_v3\n(" + _storage() + b"K\x00K\x04\x85K\x01\x85\x89NNtR",
        ),
    }
    for name, (kind, says, record) in records.items():
        program = b"\x80\x02}" + _text("stem.0.weight") + record + b"s."
        add(f"record_{name}.pth", f"a tensor with {kind}", says, _with_storage(program))
    circle = b"ctorch._utils\n_rebuild_parameter\nq\x000]q\x01h\x00h\x01\x85Ra0h\x00h\x00h\x00h\x01\x85R\x85R\x85R"
    add(
        "parameter.pth",
        "a parameter around itself",
        "no tensors",
        _with_storage(b"\x80\x02}" + _text("a") + circle + b"s."),
    )
    shared = b"q\x000}q\x01(" + b"".join(_text(f"t{number}") + b"h\x00" for number in range(25_000)) + b"u."
    add(
        "one_for_all.pth",
        "25,000 names of one tensor",
        "tensors; refused",
        _with_storage(b"\x80\x02" + _tensor() + shared),
    )
    twice = b"\x80\x02}(" + _text("a.b") + _tensor() + _text("a") + b"}" + _text("b") + _tensor() + b"su."
    add("same_name.pth", "two tensors of one name", "of one name", _with_storage(twice))
    lines = b"\x80\x02}" + _text("stem\n\x1b[2J") + _tensor() + b"s."
    add("unprintable.pth", "a tensor's name that clears the screen", "cannot be printed", _with_storage(lines))
    tuples = b"\x80\x02}K\x01\x85" + _tensor() + b"s."
    add("tuple_name.pth", "a tuple for a name", "names must be text", _with_storage(tuples))


def _add_damage(add: Add, weights: Mapping[str, torch.Tensor]) -> None:
    whole = saved(dict(weights))
    with zipfile.ZipFile(BytesIO(whole)) as archive:
        member = max(archive.infolist(), key=lambda member: member.file_size)
    changed = bytearray(whole)
    changed[member.header_offset + member.file_size] ^= 1
    add("one_bit.pth", "one bit of a tensor changed", "checksum differs", bytes(changed))
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}, protocol=2))
        for number in range(50_000):
            archive.writestr(zipfile.ZipInfo(f"archive/data/{number:060d}"), b"")
    add("many_members.pth", "50,000 empty members", "zip directory of", buffer.getvalue())
    hungry = pickle.dumps({"a": Reduces(bytearray, 3 * 1024**3)}, protocol=4)
    add("bytearray_protocol_4.pth", "three GiB asked for by a newer pickle", "builtins.bytearray", torch_zip(hungry))
