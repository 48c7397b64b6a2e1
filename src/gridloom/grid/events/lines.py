"""Lines of a text file to columns of numbers, without a string in between.

Delimiters are found by comparing all bytes at once; fields are eight-byte words, see `digits`. Lines that are out of
the ordinary, and fields that are written in another way, are left for a parser that knows all ways.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64

from gridloom.grid.events.digits import PADDING, clock_seconds, decimals, words_of

__all__ = ["Lines", "Scanner"]

_NEWLINE, _RETURN, _POINT = 10, 13, 46


@dataclass(frozen=True, kw_only=True)
class Lines:
    """Where the lines of a block are and what was read of them.

    Attributes:
        num_lines: Lines that are not empty.
        ends: Byte of the newline of each, and of the line before (-1 for none).
        read: Which lines were read in full.
        columns: Role -> whole numbers (meaningless where not read): `clock` seconds of the day, `cents` hundredths,
            `whole`, `letter` the code of a single character.
    """

    num_lines: int
    ends: tuple[Int64[np.ndarray, " line"], Int64[np.ndarray, " line"]]
    read: Bool[np.ndarray, " line"]
    columns: dict[str, np.ndarray]


class Scanner:
    """Reads blocks of one file. Keeps its large arrays from block to block."""

    def __init__(self, num_columns: int, delimiter: int, roles: dict[str, tuple[int, str]]) -> None:
        """Say what a line looks like.

        Args:
            num_columns: Columns of every line.
            delimiter: Code of the character between them.
            roles: Name -> (column, one of clock, cents, whole, letter).
        """
        self._num_columns = num_columns
        self._delimiter = delimiter
        self._roles = roles
        self._is_hit = np.zeros(0, dtype=bool)
        self._is_newline = np.zeros(0, dtype=bool)

    def scan(self, content: bytearray, size: int) -> Lines | None:
        """Read a block.

        Args:
            content: The text and at least `PADDING` bytes behind it.
            size: Bytes of text; the last is a newline.

        Returns:
            None if the text has quotes: then commas and newlines may be part of a field.
        """
        assert len(content) >= size + PADDING and content[size - 1] == _NEWLINE
        if content.find(b'"', 0, size) >= 0:
            return None
        buffer = np.frombuffer(content, dtype=np.uint8)
        text = buffer[:size]
        hits, num_newlines = self._hits(text)
        width = self._num_columns
        grid = hits.reshape(-1, width) if len(hits) == num_newlines * width else None
        if grid is not None and (text[grid[:, -1]] == _NEWLINE).all():
            last = grid[:, -1]
            before = np.empty_like(last)
            before[0], before[1:] = -1, last[:-1]
            read = np.ones(len(grid), dtype=bool)
            columns = self._columns(buffer, grid, before, read)
            return Lines(num_lines=len(grid), ends=(before, last), read=read, columns=columns)
        return self._ragged(buffer, text, hits)

    def _hits(self, text: np.ndarray) -> tuple[np.ndarray, int]:
        """Places of delimiters and newlines, and the number of newlines."""
        if len(self._is_hit) < len(text):
            self._is_hit = np.empty(len(text), dtype=bool)
            self._is_newline = np.empty(len(text), dtype=bool)
        is_hit, is_newline = self._is_hit[: len(text)], self._is_newline[: len(text)]
        np.equal(text, self._delimiter, out=is_hit)
        np.equal(text, _NEWLINE, out=is_newline)
        num_newlines = int(np.count_nonzero(is_newline))
        np.logical_or(is_hit, is_newline, out=is_hit)
        return np.flatnonzero(is_hit), num_newlines

    def _ragged(self, buffer: np.ndarray, text: np.ndarray, hits: np.ndarray) -> Lines:
        """Some lines have another number of columns."""
        ends = np.flatnonzero(text[hits] == _NEWLINE)
        last = hits[ends]
        before = np.append(-1, last[:-1])
        num_hits = np.diff(ends, prepend=-1)
        length = last - before - 1
        empty = (length == 0) | ((length == 1) & (text[last - 1] == _RETURN))
        before, last, ends, num_hits = (values[~empty] for values in (before, last, ends, num_hits))
        regular = np.flatnonzero(num_hits == self._num_columns)
        grid = hits[ends[regular][:, None] + np.arange(1 - self._num_columns, 1)]
        read_here = np.ones(len(regular), dtype=bool)
        some = self._columns(buffer, grid, before[regular], read_here)
        read = np.zeros(len(last), dtype=bool)
        read[regular] = read_here
        columns = {}
        for name, values in some.items():
            columns[name] = np.zeros(len(last), dtype=values.dtype)
            columns[name][regular] = values
        return Lines(num_lines=len(last), ends=(before, last), read=read, columns=columns)

    def _columns(self, buffer: np.ndarray, grid: np.ndarray, before: np.ndarray, read: np.ndarray) -> dict:
        """Read the roles' fields; takes lines that cannot be read out of `read`."""
        words = words_of(buffer)
        columns = {}
        # Fields that lie side by side share a delimiter: each is taken out of the grid once.
        needed = {column - 1 for column, _ in self._roles.values()} | {column for column, _ in self._roles.values()}
        hits = {column: np.ascontiguousarray(grid[:, column]) if column >= 0 else before for column in needed}
        for name, (column, kind) in self._roles.items():
            start = hits[column - 1] + 1
            length = hits[column] - start
            if column == self._num_columns - 1 and len(start):
                length -= buffer[hits[column] - 1] == _RETURN
            if kind == "clock":
                columns[name], good = _clock(buffer, words, start, length)
            elif kind == "letter":
                columns[name], good = buffer[start], length <= 1
                columns[name][length == 0] = 0
            else:
                columns[name], good = _number(words, start, length, cents=kind == "cents")
            read &= good
        return columns


def _clock(buffer: np.ndarray, words: np.ndarray, start: np.ndarray, length: np.ndarray) -> tuple:
    """Seconds of HH:MM:SS or HH:MM:SS.fff, the fraction cut off."""
    word = words[start]
    whole = length == 8
    if whole.all():
        return clock_seconds(word, length)
    seconds, read = clock_seconds(word, np.full_like(length, 8))
    _, fraction = decimals(words[np.minimum(start + 9, len(words) - 1)], length - 9, places=0)
    read &= whole | (fraction & (buffer[start + 8] == _POINT))
    return seconds, read


def _number(words: np.ndarray, start: np.ndarray, length: np.ndarray, *, cents: bool) -> tuple:
    """Whole numbers, or hundredths of numbers with up to two digits after the point."""
    word = words[start]
    if not cents:
        return decimals(word, length, places=0)
    value, read = decimals(word, length, places=2)
    for places, factor in ((1, 10), (0, 100)):
        rest = np.flatnonzero(~read)
        if not len(rest):
            break
        again, good = decimals(word[rest], length[rest], places=places)
        value[rest[good]] = again[good] * factor
        read[rest[good]] = True
    return value, read
