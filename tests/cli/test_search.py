"""gridloom search, as its user types it."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from gridloom.cli.main import main
from gridloom.grid.write import save_grid

Run = Callable[..., str]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command that must succeed, and return what it printed."""

    def run_it(*arguments: object) -> str:
        code = main(["search", *(str(argument) for argument in arguments)])
        printed = capsys.readouterr()
        assert code == 0, printed.err
        return printed.out

    return run_it


@pytest.fixture
def embedded(tmp_path: Path) -> Path:
    """Embeddings on a circle, one for each month and longitude; one is empty."""
    angle = np.arange(24).reshape(12, 2) / 24 * 2 * np.pi
    values = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    values[5, 1] = np.nan
    array = xr.DataArray(
        values[:, None],
        dims=("month", "lat", "lon", "feature"),
        coords={"month": np.arange(1, 13), "lat": [0.0], "lon": [0.0, 180.0]},
        attrs={"encoder_sha256": "c" * 64},
    )
    save_grid(array.to_dataset(name="embedding"), tmp_path / "embeddings.nc")
    return tmp_path / "embeddings.nc"


def test_a_table_shows_the_query_and_what_was_found(run: Run, embedded: Path) -> None:
    lines = run(embedded, "month=3,lon=0", "--k", 2).splitlines()
    assert lines[0] == "23 embeddings, 1 empty left out"
    assert lines[1].split("  ")[0] == "query month" and "lat" not in lines[1]
    assert lines[2].split() == ["3", "0", "1", "2", "180", f"{np.cos(np.pi / 12):.4f}"]
    assert lines[3].split() == ["2", "3", "180", f"{np.cos(np.pi / 12):.4f}"]


def test_json_holds_all_numbers(run: Run, embedded: Path) -> None:
    (line,) = json.loads(run(embedded, 0, "--k", 1, "--metric", "euclidean", "--apart", "month=1.5", "--json"))
    assert line["found_month"] == 12 - 1 + 1 and line["found_lon"] == 180.0
    assert line["distance"] == pytest.approx(2 * np.sin(np.pi / 24))


def test_long_tables_are_cut_and_written_whole(run: Run, embedded: Path, tmp_path: Path) -> None:
    printed = run(embedded, embedded, "--k", 2, "--output", tmp_path / "all.csv")
    assert "... 26 more; --output writes all of them" in printed and f"written: {tmp_path / 'all.csv'}" in printed
    assert len((tmp_path / "all.csv").read_text().splitlines()) == 1 + 2 * 23


def test_duplicates_and_outliers(run: Run, embedded: Path) -> None:
    step = np.cos(np.pi / 12)
    assert "nothing found" in run(embedded, "--duplicates", 0.999)
    same = json.loads(run(embedded, "--duplicates", round(step - 1e-4, 6), "--json"))
    assert [line["found_row_number"] for line in same] == [1, 3, 5, 7, 9, 13, 15, 17, 19, 21, 23]
    assert same[-1]["first_row_number"] == 0
    odd = run(embedded, "--outliers", 2, "--k", 2)
    # the neighbors of the empty one have one neighbor less beside them
    assert [line.split()[1:3] for line in odd.splitlines()[2:]] == [["6", "0"], ["7", "0"]]


@pytest.mark.parametrize("backend", ["faiss-flat", "faiss-ivf"])
def test_faiss_finds_the_same(run: Run, embedded: Path, backend: str) -> None:
    assert run(embedded, 3, "--backend", backend) == run(embedded, 3)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "expected one of QUERY, --duplicates and --outliers, got nothing"),
        (["3", "--outliers", "2"], "got query and outliers"),
        (["--outliers", "2", "--model", "run"], "--model encodes a query"),
        (["nowhere.nc"], "nowhere.nc: no such file"),
        (["month=13,lon=x"], "lon=x: expected a number"),
        (["month=20"], "month=20 lies outside the embeddings, whose month goes from 1 to 12"),
        (["11"], "row 11 is empty"),
        (["3", "--output", "there.txt"], "there.txt: expected a name that ends in .csv, .nc, .zarr"),
        (["3", "--k", "0"], "k must be at least 1"),
        (["3", "--apart", "month"], "expected each name once with a value"),
        (["coads"], "coads: expected embeddings"),
    ],
)
def test_mistakes_are_one_line_and_code_2(
    embedded: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    assert main(["search", str(embedded), *arguments]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("gridloom: error: ") and printed.count("\n") == 1 and says in printed


def test_an_output_is_kept_unless_it_is_to_be_replaced(run: Run, embedded: Path, tmp_path: Path) -> None:
    output = tmp_path / "found.csv"
    output.write_text("precious")
    assert main(["search", str(embedded), "3", "--output", str(output)]) == 2
    assert output.read_text() == "precious"
    run(embedded, 3, "--output", output, "--replace")
    assert output.read_text().startswith("query_row_number,query_month")
