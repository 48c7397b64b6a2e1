"""Files to batches: every way of writing the same trades gives the same arrays."""

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridloom.core.errors import DataError
from gridloom.grid.events import read, text
from gridloom.grid.events.batch import Batch, Reading
from gridloom.grid.events.digits import PADDING, clock_seconds, decimals, words_of
from gridloom.grid.events.lines import Scanner
from gridloom.grid.events.read import read_batches

ROLES = {"time": "Time", "price": "Price", "volume": "Volume", "side": "Type"}
HEADER = "TranID,Time,Price,Volume,Type,Rest"


def lines(number: int = 300) -> list[str]:
    generator = np.random.default_rng(3)
    clocks = [f"{9 + i % 6:02d}:{i % 60:02d}:{(7 * i) % 60:02d}" for i in range(number)]
    prices = [("9.99", "10", "10.5", "123.45", "99999.99")[i % 5] for i in range(number)]
    volumes = generator.integers(0, 10**7, number)
    return [f"{i},{c},{p},{v},{'BS'[i % 2]},x" for i, (c, p, v) in enumerate(zip(clocks, prices, volumes, strict=True))]


def arrays(batches: list[Batch]) -> tuple[list[int | float], ...]:
    """Seconds, prices, volumes, sides of all batches."""
    seconds, prices, volumes, sides = [], [], [], []
    for batch in batches:
        assert batch.seconds is not None and batch.side is not None
        seconds += batch.seconds.tolist()
        prices += (batch.price / 100 if batch.price.dtype.kind == "i" else batch.price).tolist()
        volumes += batch.volume.tolist()
        sides += batch.side.tolist()
    return seconds, prices, volumes, sides


def usable(values: list[int | float]) -> np.ndarray:
    """What cannot be used may be any negative number or NaN, but for sides, whose -1 means sold."""
    numbers = np.array(values, dtype=float)
    return np.where(numbers >= 0, numbers, -1)


def read_text(path: Path, content: str | bytes, **options: object) -> tuple[list[int | float], ...]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return arrays(list(read_batches(path, ROLES, **options)))  # type: ignore[arg-type]


@pytest.fixture
def expected(tmp_path: Path) -> tuple[list[int | float], ...]:
    rows = [line.split(",") for line in lines()]
    clock = [int(row[1][:2]) * 3600 + int(row[1][3:5]) * 60 + int(row[1][6:]) for row in rows]
    sides = [1 if row[4] == "B" else -1 for row in rows]
    return clock, [float(row[2]) for row in rows], [int(row[3]) for row in rows], sides


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content,
        lambda content: content.rstrip("\n"),
        lambda content: content.replace("\n", "\r\n"),
        lambda content: "\ufeff" + content,
        lambda content: content.replace(",", "\t"),
        lambda content: content.replace(",", ";"),
        lambda content: content.replace("\n", "\n\n"),
        lambda content: content.replace(",B,", ',"B",'),
        lambda content: content.replace(",B,", ", b ,"),
        lambda content: content.replace("Time,Price", " time , PRICE "),
        lambda content: content.replace(",x\n", ',"x, and y"\n'),
    ],
    ids=["plain", "no end", "crlf", "bom", "tab", "semicolon", "blank lines", "quotes", "blanks", "names", "commas"],
)
def test_text_is_read_however_it_is_written(tmp_path: Path, expected: tuple, change: object) -> None:
    content = "\n".join([HEADER, *lines(), ""])
    assert read_text(tmp_path / "a.csv", change(content)) == expected  # type: ignore[operator]


def test_gzip_parquet_and_no_header(tmp_path: Path, expected: tuple) -> None:
    content = "\n".join([HEADER, *lines(), ""])
    assert read_text(tmp_path / "a.csv.gz", gzip.compress(content.encode())) == expected
    names = tuple(HEADER.split(","))
    assert read_text(tmp_path / "b.csv", "\n".join([*lines(), ""]), names=names) == expected
    table = pd.read_csv(tmp_path / "a.csv.gz")
    table.to_parquet(tmp_path / "a.parquet")
    assert arrays(list(read_batches(tmp_path / "a.parquet", ROLES))) == expected
    table["Time"] = pd.to_datetime("2024-01-02 " + table["Time"]).dt.time
    table["Type"] = table["Type"].astype("category")
    table.to_parquet(tmp_path / "b.parquet")
    assert arrays(list(read_batches(tmp_path / "b.parquet", ROLES))) == expected


@pytest.mark.parametrize("size", [64, 4096])
def test_blocks_of_any_size_give_the_same(
    tmp_path: Path, expected: tuple, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "_BLOCK", size)
    assert read_text(tmp_path / "a.csv", "\n".join([HEADER, *lines(), ""])) == expected


def test_what_a_row_is_read_as_does_not_depend_on_the_way_it_is_read(tmp_path: Path) -> None:
    odd = [
        "1,9:30:05,10.00,5,B,x", "2,09:30:00.125,10.00,5,B,x", "3,24:00:00,10.00,5,B,x", "4,09:30,10.00,5,B,x",
        "5,09:60:00,10.00,5,B,x", "6,09:30:00,1e2,5,S,x", "7,09:30:00,.5,5,S,x", "8,09:30:00,12345678.25,5,S,x",
        "9,09:30:00,10.123,5.5,S,x", "10,09:30:00,nan,inf,S,x", "11,09:30:00,0x10,1_000,S,x",
        "12,09:30:00, 10.00 , 7 ,S,x",
        "13,09:30:00,-10,-1,BB,x", "14,09:30:00,+1,123456789012,,x", "15,,,,,",
    ]  # fmt: skip
    head = (HEADER + "\n").encode()
    quick = read_text(tmp_path / "a.csv", head + "\n".join([*lines(100), *odd, ""]).encode())
    slow = read_text(tmp_path / "b.csv", head + "\n".join([*odd, *lines(1)]).encode())
    alone = [read_text(tmp_path / "c.csv", head + row.encode()) for row in odd]
    for column in range(4):
        single = usable([one[column][0] for one in alone])
        assert np.array_equal(single, usable(quick[column][100:]))
        assert np.array_equal(single, usable(slow[column][:-1]))
    seconds, prices = [one[0][0] for one in alone], [one[1][0] for one in alone]
    assert seconds[:5] == [34205, 34200, -1, -1, -1]
    assert prices[5:9] == [100.0, 0.5, 12345678.25, 10.123]


def test_malformed_lines_are_counted_where_they_are(tmp_path: Path) -> None:
    rows = lines(40)
    rows[3], rows[17], rows[18] = "1,2", "1,09:30:00,1,1,B,x,y", "alone"
    path = tmp_path / "a.csv"
    path.write_text("\n".join([HEADER, *rows, ""]))
    (batch,) = read_batches(path, ROLES)
    assert (batch.malformed, batch.num_rows, len(batch.price)) == (3, 40, 37)


@pytest.mark.parametrize(
    ("written", "local", "first"),
    [
        ("2024-03-10T09:30:00", True, "2024-03-10T09:30:00"),
        ("2024-03-10 09:30:00.250", True, "2024-03-10T09:30:00.25"),
        ("2024-03-10T09:30:00Z", False, "2024-03-10T09:30:00"),
        ("2024-03-10T09:30:00-05:00", False, "2024-03-10T14:30:00"),
        ("1710063000", False, "2024-03-10T09:30:00"),
    ],
)
def test_dates_with_times(tmp_path: Path, written: str, local: bool, first: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"Time,Price,Volume,Type\n{written},1,1,B\nnonsense,1,1,B\n{written},1,1,B\n")
    (batch,) = read_batches(path, ROLES)
    assert batch.instants is not None and batch.local is local
    expected = np.datetime64(first, "ns").astype(np.int64)
    assert batch.instants.tolist() == [expected, text.NOT_A_TIME, expected]


def test_a_row_in_another_zone_than_its_column_is_not_a_time(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("Time,Price,Volume,Type\n2024-01-02T09:30:00,1,1,B\n2024-01-02T09:30:00Z,1,1,B\n")
    (batch,) = read_batches(path, ROLES)
    assert batch.instants is not None and batch.instants[1] == text.NOT_A_TIME


def test_times_as_digits(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("Time,Price,Volume,Type\n93000000,1,1,B\n150000120,1,1,B\n96000000,1,1,B\n")
    (batch,) = read_batches(path, ROLES, Reading(unit="hhmmssmmm"))
    assert batch.seconds is not None and batch.seconds.tolist() == [34200, 54000, -1]


def test_a_missing_column_is_named_with_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("Time,Prise,Volume,Type\n09:30:00,1,1,B\n")
    with pytest.raises(DataError, match=r"no column 'Price' for price; did you mean 'Prise'\?"):
        list(read_batches(path, ROLES))
    path.write_text("09:30:00,1,1,B\n")
    with pytest.raises(DataError, match="expected a header with Time, Price, Volume, Type, or 11 columns"):
        list(read_batches(path, ROLES))


def test_damaged_files_are_refused_in_one_line(tmp_path: Path) -> None:
    packed = gzip.compress(("\n".join([HEADER, *lines()])).encode())
    (tmp_path / "a.csv.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(DataError, match="cannot be unpacked"):
        list(read_batches(tmp_path / "a.csv.gz", ROLES))
    (tmp_path / "a.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        list(read_batches(tmp_path / "a.parquet", ROLES))


def _words(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    content = np.frombuffer("".join(texts).encode() + b"\0" * PADDING, dtype=np.uint8)
    ends = np.cumsum([len(one) for one in texts])
    lengths = np.array([len(one) for one in texts])
    return words_of(content)[ends - lengths], lengths


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.one_of(st.text("0123456789.-", min_size=1, max_size=9), st.floats(0, 99999.99).map(lambda x: f"{x:.2f}"))
    )
)
def test_numbers_by_words_equal_float(texts: list[str]) -> None:
    if not texts:
        return
    words, lengths = _words(texts)
    for places in (0, 1, 2, 3):
        values, read_them = decimals(words, lengths, places=places)
        for one, value, good in zip(texts, values.tolist(), read_them.tolist(), strict=True):
            whole, point, rest = one.partition(".")
            regular = whole.isdigit() and (rest.isdigit() and len(rest) == places if places else not point)
            assert good == (regular and len(one) <= 8)
            if good:
                assert value / 10**places == float(one)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.times().map(lambda time: time.strftime("%H:%M:%S")), st.text("0123456789:", min_size=8, max_size=8)
        )
    )
)
def test_clocks_by_words_equal_the_pattern(texts: list[str]) -> None:
    if not texts:
        return
    seconds, good = clock_seconds(*_words(texts))
    assert np.where(good, seconds, -1).tolist() == text.seconds_of_text(pa.array(texts)).tolist()
    for one, second, is_read in zip(texts, seconds.tolist(), good.tolist(), strict=True):
        if is_read:
            assert one == f"{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}"
        else:
            assert one[2] != ":" or one[5] != ":" or int(one[:2] or 99) > 23 or int(one[3:5]) > 59 or int(one[6:]) > 59


def test_lines_that_make_up_for_each_other_are_still_malformed() -> None:
    content = b"1,2,3\n4,5\n6,7,8,9\n1,2,3\n"
    lines = Scanner(3, ord(","), {"volume": (1, "whole")}).scan(bytearray(content + b"\0" * PADDING), len(content))
    assert lines is not None and lines.read.tolist() == [True, False, False, True]
    assert lines.columns["volume"][lines.read].tolist() == [2, 2]
