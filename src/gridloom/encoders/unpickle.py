"""Pickles as trees of plain records: nothing is imported, nothing is called, no key is hashed.

A pickle is a program for a small stack machine, and the usual machine calls whatever function the program names. The
one here notes the name and the arguments instead, so that a class that is not installed, or should never run, is no
more than a record. A dictionary stays a list of pairs: a key chosen to make hashing slow or deep does no harm. What
remains is memory and time, and those are bounded by the bytes and the steps of the pickle.
"""

import pickletools
import struct
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING  # Python 2's names: protocol 2, torch's own, still writes them
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gridloom.core.errors import CheckpointError, UnsafeFileError

__all__ = ["DICTIONARY", "MAX_PICKLE_BYTES", "PERSISTENT", "Made", "Named", "read_pickle"]

MAX_PICKLE_BYTES = 16 * 1024 * 1024
DICTIONARY = "builtins.dict"
PERSISTENT = "persistent"  # without a dot: no name out of a pickle can be taken for it
_MAX_STEPS = 250_000  # a tensor of a state dict takes about 40
_MAX_CONTAINERS = 75_000  # a tensor has about 10
_MAX_NAME = 500  # characters: a name may be put together again and again
_CONTAINERS = {
    *("EMPTY_LIST", "LIST", "EMPTY_DICT", "DICT", "EMPTY_SET", "FROZENSET", "MARK"),
    *("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "REDUCE", "NEWOBJ", "NEWOBJ_EX"),
}
_VALUES = {
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Named:
    """A class or function that a pickle names.

    Attributes:
        name: With its module: `collections.OrderedDict`.
    """

    name: str


@dataclass(slots=True, eq=False, repr=False)
class Made:
    """What a pickle makes: a plain dictionary, or what its program would get from a call.

    Attributes:
        name: Of what would have been called; `DICTIONARY` for a plain one, `PERSISTENT` for a reference to a storage.
        arguments: As they stand in the pickle.
        state: What would have become its attributes.
        pairs: Keys and values set on it, in order.
    """

    name: str
    arguments: tuple = ()
    state: Any = None
    pairs: list[tuple[Any, Any]] | tuple[()] = ()


def read_pickle(where: str, data: bytes, *, permit: Callable[[str, set[str]], None]) -> Any:
    """Read a pickle of protocol 2 to 5 as it would be in memory, with records for objects.

    Args:
        where: What it is, for messages.
        data: The pickle.
        permit: Raises if one of the names that the pickle asks for is not wanted.

    Returns:
        A scalar, text, bytes, tuple, list, `Named` or `Made`, with more of them inside.

    Raises:
        UnsafeFileError: It is made to exhaust memory or time.
        CheckpointError: It is no pickle, or damaged.
    """
    if len(data) > MAX_PICKLE_BYTES:
        raise UnsafeFileError(
            f"{where}: a pickle of {len(data)} bytes in it, expected {MAX_PICKLE_BYTES} at most; refused"
        )
    machine = _Machine(where)
    problem, content = None, None
    try:
        content = machine.run(data)
    except (ValueError, struct.error) as error:
        if isinstance(error, UnsafeFileError):
            raise
        problem = f"its pickle is damaged ({' '.join(str(error).split())[:100]}); save it again"
    except (IndexError, KeyError, TypeError) as error:
        problem = f"cannot be read as tensors: its pickle makes no sense ({str(error)[:100]}); save it again"
    permit(where, machine.names)  # before a complaint about the rest: what it asked for matters more
    if problem:
        raise CheckpointError(f"{where}: {problem}")
    return content


class _Machine:
    """The stack machine. Errors of a senseless program are Python's own: IndexError, KeyError, TypeError."""

    def __init__(self, where: str) -> None:
        self.names: set[str] = set()
        self._where = where
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []  # the stacks under each mark
        self._memo: dict[int, Any] = {}
        self._steps: dict[str, Callable[[Any], Any]] = {
            "MARK": self._mark,
            "GLOBAL": self._global,
            "STACK_GLOBAL": self._stack_global,
            "REDUCE": self._call,
            "NEWOBJ": self._call,
            "NEWOBJ_EX": self._call_with_keywords,
            "BUILD": self._build,
            "BINPERSID": lambda _: self._push(Made(PERSISTENT, (self._stack.pop(),))),
            "NONE": lambda _: self._push(None),
            "NEWTRUE": lambda _: self._push(True),
            "NEWFALSE": lambda _: self._push(False),
            "EMPTY_DICT": lambda _: self._push(Made(DICTIONARY)),
            "EMPTY_SET": lambda _: self._push(Made("builtins.set")),
            "EMPTY_LIST": lambda _: self._push([]),
            "EMPTY_TUPLE": lambda _: self._push(()),
            "TUPLE": lambda _: self._push(tuple(self._unmark())),
            "TUPLE1": lambda _: self._tuple(1),
            "TUPLE2": lambda _: self._tuple(2),
            "TUPLE3": lambda _: self._tuple(3),
            "LIST": lambda _: self._push(self._unmark()),
            "DICT": lambda _: self._push(Made(DICTIONARY, pairs=_pairs(self._unmark()))),
            "FROZENSET": lambda _: self._push(Made("builtins.frozenset", tuple(self._unmark()))),
            "SETITEM": lambda _: self._set(self._take(2)),
            "SETITEMS": lambda _: self._set(self._unmark()),
            "APPEND": lambda _: self._append(self._take(1)),
            "APPENDS": lambda _: self._append(self._unmark()),
            "ADDITEMS": lambda _: self._append(self._unmark()),
            "BINPUT": self._remember,
            "LONG_BINPUT": self._remember,
            "MEMOIZE": lambda _: self._remember(len(self._memo)),
            "BINGET": lambda place: self._push(self._memo[place]),
            "LONG_BINGET": lambda place: self._push(self._memo[place]),
            "POP": lambda _: self._take(1),
            "POP_MARK": lambda _: self._unmark(),
            "PROTO": lambda _: None,
            "FRAME": lambda _: None,
            "STOP": lambda _: None,
        }
        self._steps |= dict.fromkeys(_VALUES, self._push)

    def run(self, data: bytes) -> Any:
        """Go through the program; return what is left on the stack."""
        containers = 0
        for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            step = self._steps.get(opcode.name)
            if step is None:
                raise UnsafeFileError(
                    f"{self._where}: its pickle has the opcode {opcode.name}, which no pickle of tensors has; refused"
                )
            step(argument)
            containers += opcode.name in _CONTAINERS
            if count >= _MAX_STEPS or containers > _MAX_CONTAINERS:
                raise UnsafeFileError(
                    f"{self._where}: a pickle of more than {_MAX_STEPS} steps or {_MAX_CONTAINERS} containers; "
                    f"no state dict looks like that, refused"
                )
        return self._stack.pop()

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _mark(self, _: Any) -> None:
        self._below.append(self._stack)
        self._stack = []

    def _unmark(self) -> list[Any]:
        values, self._stack = self._stack, self._below.pop()
        return values

    def _take(self, number: int) -> list[Any]:
        if len(self._stack) < number:
            raise IndexError("pop from an empty stack")
        values = self._stack[-number:]
        del self._stack[-number:]
        return values

    def _tuple(self, number: int) -> None:
        self._push(tuple(self._take(number)))

    def _remember(self, place: int) -> None:
        self._memo[place] = self._stack[-1]

    def _name(self, module: str, name: str) -> None:
        if len(module) + len(name) > _MAX_NAME or not (module + name).isprintable():
            raise UnsafeFileError(f"{self._where}: asks for {name!r:.64}, which is no name; refused")
        whole = ".".join(NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name)))
        self.names.add(whole)
        self._push(Named(whole))

    def _global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._name(module, name)

    def _stack_global(self, _: Any) -> None:
        module, name = self._take(2)
        if not isinstance(module, str) or not isinstance(name, str):
            raise TypeError("a name that is no text")
        self._name(module, name)

    def _call(self, _: Any) -> None:
        called, arguments = self._take(2)
        if not isinstance(called, Named) or not isinstance(arguments, tuple):
            raise TypeError("a call of what is no name")
        self._push(Made(called.name, arguments))

    def _call_with_keywords(self, _: Any) -> None:
        called, arguments, keywords = self._take(3)
        self._push(called)
        self._push((*arguments, keywords))
        self._call(None)

    def _build(self, _: Any) -> None:
        (state,) = self._take(1)
        if not isinstance(self._stack[-1], Made):
            raise TypeError("attributes for what has none")
        self._stack[-1].state = state

    def _set(self, values: list[Any]) -> None:
        made = self._stack[-1]
        if not isinstance(made, Made):
            raise TypeError("items for what is no dictionary")
        if isinstance(made.pairs, tuple):
            made.pairs = []
        made.pairs.extend(_pairs(values))

    def _append(self, values: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, list):
            target.extend(values)
        elif not isinstance(target, Made):  # a set, or somebody's own list: what is in it is passed over
            raise TypeError("items for what is no list")


def _pairs(values: list[Any]) -> list[tuple[Any, Any]]:
    return list(zip(values[::2], values[1::2], strict=True))
