"""gridloom rasterize, as its user types it."""

import builtins
import json
from pathlib import Path
from typing import Any

import pytest

from gridloom.cli.main import main
from gridloom.grid.events.frames import open_frames

_LINES = "Time,Price,Volume,Type\n09:30:00,10.00,100,B\n09:31:00,10.01,200,S\n09:32:00,oops,200,S\n12:00:00,10.00,1,B\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for code in ("600000", "600001"):
        (tmp_path / "trades" / "2024-01-02").mkdir(parents=True, exist_ok=True)
        (tmp_path / "trades" / "2024-01-02" / f"{code}.csv").write_text(_LINES)
    (tmp_path / "closes.csv").write_text("code,date,close\n600000,2024-01-02,10.00\n")
    return tmp_path


def test_rows_and_files_are_accounted_for(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rasterize", "trades", "--output", "frames.zarr", "--reference", "closes.csv"]) == 0
    printed = capsys.readouterr().out
    assert "series 1 x time 239 x channel 2 x y 32 x x 32" in printed
    assert "1 ok, 1 skipped" in printed and "no reference price for 600001" in printed
    assert "bad_price" in printed and "25.00%" in printed
    assert open_frames("frames.zarr")["counts"].sum() == 2


def test_json_alone_and_settings_from_a_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "settings.yaml").write_text("allow_first_price: true\nvolume_axis: {size: 16}\nprice_axis: {size: 8}\n")
    given = ["rasterize", "trades", "--output", "frames.nc", "--config", "settings.yaml", "--sparse", "--json"]
    assert main(given) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["statuses"] == {"ok": 2}
    assert record["accounting"]["rows"] == 8 and record["accounting"]["binned"] == 4
    assert open_frames("frames.nc")["counts"].shape == (2, 239, 2, 16, 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none", "--output", "a.nc"], "no such file or folder"),
        (["trades", "--output", "a.txt"], "ends in .nc or .zarr"),
        (["trades", "--output", "a.nc"], "none of 2 files could be used"),
        (["trades", "--output", "a.nc", "--calendar", "cn_b"], "did you mean 'cn_a'"),
        (["trades", "--output", "a.nc", "--config", "bad.yaml"], "did you mean 'calendar'"),
        (["trades", "--output", "a.nc", "--reference", "no.csv"], "there is no such file"),
        (["trades", "--output", "a.nc", "--workers", "0"], "workers: expected 1 or more"),
    ],
)
def test_errors_are_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    (folder / "bad.yaml").write_text("calender: cn_a\n")
    assert main(["rasterize", *arguments]) == 2
    said = capsys.readouterr().err.strip()
    assert message in said and "\n" not in said and "Traceback" not in said


def test_without_pyarrow_the_extra_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.split(".")[0] == "pyarrow":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    assert main(["rasterize", "trades", "--output", "a.nc"]) == 2
    assert 'pip install "gridloom[trades]"' in capsys.readouterr().err


def test_the_verb_is_a_function_too(folder: Path) -> None:
    import gridloom

    result = gridloom.rasterize("trades", "frames.nc", reference="closes.csv", calendar="cn_a_240")
    assert result.frames.sizes["time"] == 240
