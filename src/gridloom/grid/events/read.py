"""Files of trades as batches of plain arrays: CSV in blocks of bytes, Parquet in row batches, memory flat."""

import contextlib
import gzip
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gridloom.core.errors import DataError, did_you_mean
from gridloom.grid.events import text
from gridloom.grid.events.batch import Batch, Reading, batch_of, in_cents
from gridloom.grid.events.digits import PADDING
from gridloom.grid.events.lines import Lines, Scanner
from gridloom.grid.events.side import side_from_orders

if TYPE_CHECKING:
    import pyarrow

__all__ = ["STANDARD_COLUMNS", "SUFFIXES", "read_batches", "require_pyarrow"]

SUFFIXES = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz", ".parquet", ".pq")
"""Endings of files that are read."""
STANDARD_COLUMNS = (
    "TranID",
    "Time",
    "Price",
    "Volume",
    "SaleOrderVolume",
    "BuyOrderVolume",
    "Type",
    "SaleOrderID",
    "SaleOrderPrice",
    "BuyOrderID",
    "BuyOrderPrice",
)
"""Columns of files without a header, unless others are said."""
_BLOCK = 1 << 20
_ROWS = 1 << 17
_MOSTLY_READ = 0.7


@dataclass(frozen=True)
class _Head:
    """What the first line says: names of the columns, the delimiter, and how many bytes the header takes."""

    names: tuple[str, ...]
    delimiter: str
    size: int


def require_pyarrow() -> None:
    """Raise a DataError that says how to install pyarrow, if it is missing."""
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise DataError('reading trades needs pyarrow; install it with: pip install "gridloom[trades]"') from None


def read_batches(
    path: Path | str,
    roles: Mapping[str, str],
    reading: Reading | None = None,
    *,
    names: tuple[str, ...] = STANDARD_COLUMNS,
) -> Iterator[Batch]:
    """Read a file of trades, piece by piece.

    Args:
        path: CSV or TSV (delimiter `,` `;` `|` or tab, found by itself; plain or .gz) or Parquet.
        roles: What for -> name of the column: time, price, volume, and where wanted side, or buy_id and sell_id, code,
            key. Other columns are not looked at.
        reading: How values are written.
        names: Columns of a CSV file without a header.

    Raises:
        DataError: Not readable, or without one of the columns.
    """
    require_pyarrow()
    path = Path(path)
    reading = reading or Reading()
    if path.suffix in (".parquet", ".pq"):
        yield from _read_parquet(path, roles, reading)
    else:
        yield from _read_csv(path, roles, reading, names)


def _find(path: Path, roles: Mapping[str, str], names: tuple[str, ...]) -> dict[str, int]:
    """Column of each role; case and blanks do not matter where the exact name is not there."""
    exact = {name: number for number, name in enumerate(names)}
    loose = {name.strip().casefold(): number for number, name in enumerate(names)}
    found = {}
    for role, name in roles.items():
        number = exact.get(name, loose.get(name.strip().casefold()))
        if number is None:
            near = did_you_mean(name, names)
            raise DataError(f"{path}: no column {name!r} for {role}{near} (columns: {', '.join(names)[:300]})")
        found[role] = number
    return found


def _read_parquet(path: Path, roles: Mapping[str, str], reading: Reading) -> Iterator[Batch]:
    import pyarrow
    from pyarrow import parquet

    try:
        schema = parquet.read_schema(path)
        columns = _find(path, roles, tuple(schema.names))
        wanted = {role: schema.names[number] for role, number in columns.items()}
        encoded = [wanted[role] for role in ("side", "code") if role in wanted and _is_text(schema, wanted[role])]
        file = parquet.ParquetFile(path, read_dictionary=encoded)
        for part in file.iter_batches(_ROWS, columns=sorted(set(wanted.values())), use_threads=False):
            yield batch_of({role: part.column(name) for role, name in wanted.items()}, reading)
    except pyarrow.ArrowException as error:
        raise DataError(f"{path}: cannot be read as Parquet ({' '.join(str(error).split())[:200]})") from None


def _is_text(schema: "pyarrow.Schema", name: str) -> bool:
    from pyarrow import types

    kind = schema.field(name).type
    return bool(types.is_string(kind) or types.is_large_string(kind))


def _blocks(file: Any) -> Iterator[tuple[bytearray, int]]:
    """Yield a buffer, the same each time, and how much of it is whole lines."""
    buffer = bytearray(_BLOCK + PADDING)
    kept = 0
    while True:
        with memoryview(buffer) as view:
            count = file.readinto(view[kept : len(buffer) - PADDING - 1])
        end = kept + (count or 0)
        if not count:
            if kept:
                buffer[end] = ord("\n")
                yield buffer, end + 1
            return
        size = buffer.rfind(b"\n", kept, end) + 1
        if not size:
            kept = end
            if end >= len(buffer) - PADDING - 1:
                buffer = buffer + bytearray(len(buffer))
            continue
        yield buffer, size
        kept = end - size
        buffer[:kept] = buffer[size:end]


def _open(path: Path) -> Any:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb", buffering=0)


def _read_csv(path: Path, roles: Mapping[str, str], reading: Reading, names: tuple[str, ...]) -> Iterator[Batch]:
    with contextlib.closing(_open(path)) as file:
        reader = None
        try:
            for buffer, size in _blocks(file):
                if reader is None:
                    head = _head(path, bytes(buffer[: buffer.find(b"\n") + 1]), roles, names)
                    reader = _CsvReader(path, head, roles, reading)
                    size -= head.size
                    buffer[:size] = buffer[head.size : head.size + size]
                yield from reader.read(buffer, size)
        except (EOFError, gzip.BadGzipFile, OSError) as error:
            if path.suffix != ".gz":
                raise
            raise DataError(f"{path}: cannot be unpacked ({' '.join(str(error).split())[:200]})") from None


def _head(path: Path, line: bytes, roles: Mapping[str, str], names: tuple[str, ...]) -> _Head:
    mark = 3 if line.startswith(b"\xef\xbb\xbf") else 0
    content = line[mark:].decode("utf-8", errors="replace").rstrip("\r\n")
    delimiter = max(",\t;|", key=content.count)
    fields = [field.strip().strip('"') for field in content.split(delimiter)]
    known = {field.casefold() for field in fields}
    if any(name.strip().casefold() in known for name in roles.values()):
        return _Head(tuple(fields), delimiter, len(line))
    if len(fields) != len(names) or not any(character.isdigit() for character in content):
        raise DataError(
            f"{path}: expected a header with {', '.join(roles.values())}, or {len(names)} columns without a header, "
            f"got {content[:100]!r}"
        )
    return _Head(names, delimiter, mark)


class _CsvReader:
    """Reads the blocks of one file: by words where that is possible, else as text."""

    def __init__(self, path: Path, head: _Head, roles: Mapping[str, str], reading: Reading) -> None:
        self._path, self._head, self._reading = path, head, reading
        self._columns = _find(path, roles, head.names)
        self._scanner = self._new_scanner()

    def _new_scanner(self) -> Scanner | None:
        single = len(self._reading.buy) == len(self._reading.sell) == 1
        kinds = {"time": "clock", "price": "cents", "volume": "whole", "buy_id": "whole", "sell_id": "whole"}
        if single:
            kinds["side"] = "letter"
        if (
            len(self._head.names) < 2
            or not set(self._columns) <= set(kinds)
            or self._reading.kind not in (None, "clock")
        ):
            return None
        fields = {role: (column, kinds[role]) for role, column in self._columns.items()}
        return Scanner(len(self._head.names), ord(self._head.delimiter), fields)

    def read(self, buffer: bytearray, size: int) -> Iterator[Batch]:
        """Yield the rows of a block."""
        if not size:
            return
        lines = self._scanner.scan(buffer, size) if self._scanner is not None else None
        if lines is None or np.count_nonzero(lines.read) < _MOSTLY_READ * lines.num_lines:
            batch, _ = self._read_text(bytes(buffer[:size]))
            if lines is not None and len(batch.price) > lines.num_lines // 2:
                self._scanner = None  # it is written in another way throughout
            if batch.num_rows:
                yield batch
        elif lines.num_lines:
            yield self._assemble(buffer, lines)

    def _read_text(self, content: bytes) -> tuple[Batch, np.ndarray]:
        """Read lines as text; returns the numbers of those that are malformed, too."""
        import pyarrow
        from pyarrow import csv

        bad: list[int] = []

        def skip(row: Any) -> str:
            bad.append(int(row.number))
            return "skip"

        names = [str(number) for number in range(len(self._head.names))]
        wanted = sorted({str(column) for column in self._columns.values()}, key=int)
        try:
            table = csv.read_csv(
                io.BytesIO(content),
                read_options=csv.ReadOptions(use_threads=False, column_names=names, block_size=len(content) + 1),
                parse_options=csv.ParseOptions(delimiter=self._head.delimiter, invalid_row_handler=skip),
                convert_options=csv.ConvertOptions(
                    include_columns=wanted,
                    column_types=dict.fromkeys(wanted, pyarrow.string()),
                    strings_can_be_null=False,
                    check_utf8=False,
                ),
            )
        except pyarrow.ArrowInvalid as error:
            if "Empty CSV" not in str(error):
                raise DataError(f"{self._path}: cannot be read ({' '.join(str(error).split())[:200]})") from None
            table = pyarrow.table({name: pyarrow.array([], pyarrow.string()) for name in wanted})
        columns = {role: _one_chunk(table.column(str(column))) for role, column in self._columns.items()}
        if self._reading.kind is None:
            kind = text.kind_of_times(columns["time"])
            if kind is not None:
                self._reading = replace(self._reading, kind=kind)
        return batch_of(columns, self._reading, malformed=len(bad)), np.array(bad, dtype=np.int64)

    def _assemble(self, buffer: bytearray, lines: Lines) -> Batch:
        """Put together what was read by words and, for the other lines, as text."""
        columns = dict(lines.columns)
        side = self._sides(columns)
        fast = Batch(
            malformed=0,
            seconds=columns["time"],
            instants=None,
            local=True,
            price=columns["price"],
            volume=columns["volume"],
            side=side,
        )
        if lines.read.all():
            return fast
        others = np.flatnonzero(~lines.read)
        first, last = lines.ends[0][others] + 1, lines.ends[1][others] + 1
        parts = [buffer[start:stop] for start, stop in zip(first.tolist(), last.tolist(), strict=True)]
        self._reading = replace(self._reading, kind="clock")
        slow, bad = self._read_text(b"".join(parts))
        if not len(slow.price) + len(bad) == len(others):
            raise AssertionError(f"{self._path}: lines were split differently on a second look")
        malformed = others[bad - 1]
        return _merge(fast, slow, np.setdiff1d(others, malformed, assume_unique=True), malformed)

    def _sides(self, columns: dict[str, np.ndarray]) -> np.ndarray | None:
        if "buy_id" in columns:
            return side_from_orders(columns["buy_id"], columns["sell_id"])
        if "side" not in columns:
            return None
        table = np.zeros(256, dtype=np.int8)
        for flag, side in ((self._reading.buy, 1), (self._reading.sell, -1)):
            table[[ord(flag.upper()), ord(flag.lower())]] = side
        return table.take(columns["side"])


def _one_chunk(column: "pyarrow.ChunkedArray") -> "pyarrow.Array":
    import pyarrow

    chunks = column.combine_chunks()
    return chunks if isinstance(chunks, pyarrow.Array) else pyarrow.concat_arrays(chunks.chunks)


def _merge(fast: Batch, slow: Batch, places: np.ndarray, malformed: np.ndarray) -> Batch:
    """Put the rows of `slow` at their places and take malformed ones out."""
    kept = np.ones(len(fast.price), dtype=bool)
    kept[malformed] = False

    def placed(values: np.ndarray, others: np.ndarray) -> np.ndarray:
        whole = values.astype(np.result_type(values, others), copy=True)
        whole[places] = others
        return whole[kept]

    price, rest = fast.price, slow.price
    if rest.dtype.kind == "f":
        cents = in_cents(rest)
        price, rest = (price, cents) if cents is not None else (price / 100, rest)
    assert fast.seconds is not None and slow.seconds is not None
    sided = fast.side is not None and slow.side is not None
    return Batch(
        malformed=len(malformed),
        seconds=placed(fast.seconds, slow.seconds),
        instants=None,
        local=True,
        price=placed(price, rest),
        volume=placed(fast.volume, slow.volume),
        side=placed(fast.side, slow.side) if sided else None,  # type: ignore[arg-type]
    )
