"""What a user can mend is one line on stderr and exit code 2."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gridloom.cli.main import main
from gridloom.core.errors import GridloomError
from tests.encoders.hostile import write_hostile_files


@pytest.fixture
def words(tmp_path: Path, tiny_run: Path, tiny_data: Path) -> dict[str, str]:
    """Names in the commands below."""
    (tmp_path / "wrong.yaml").write_text("train: {stepz: 3}")
    (tmp_path / "there.nc").write_text("precious")
    (tmp_path / "page.pth").write_text("<html>not found</html>")
    (tmp_path / "text.nc").write_text("no netCDF")
    places = {"RUN": tiny_run, "DATA": tiny_data, "TMP": tmp_path}
    return {name: str(place) for name, place in places.items()}


ERRORS = {
    "verb": ("trian", "unknown verb 'trian'; did you mean 'train'?"),
    "system": ("train semantik", "unknown system 'semantik'; did you mean 'semantic'?"),
    "no system": ("train --preset digits", "the system comes first"),
    "preset": (
        "train semantic DATA --preset elevatoin",
        "unknown preset of semantic 'elevatoin'; did you mean 'elevation'?",
    ),
    "key": (
        "train semantic DATA --config TMP/wrong.yaml",
        "wrong.yaml.train.stepz: unknown key; did you mean 'steps'?",
    ),
    "no file": ("train semantic DATA --config TMP/none.yaml", "none.yaml: expected a YAML file, there is none"),
    "no data": ("train semantic --output TMP/run", "no data: give a file, a folder or the name of a sample"),
    "missing data": ("train semantic TMP/nowhere.nc --output TMP/run", "nowhere.nc"),
    "near a sample": ("train semantic etopo2 --output TMP/run", "did you mean 'etopo20'?"),
    "damaged data": ("check TMP/text.nc", "text.nc"),
    "variable": ("check DATA --variables temprature", "did you mean 'temperature'?"),
    "large window": ("train semantic DATA --output TMP/run --data.window 64 64", "64"),
    "other settings": ("train semantic DATA --output RUN --model.width 8", "holds a run with other settings"),
    "other folder": ("train semantic DATA --output TMP", "exists and is not a run folder"),
    "output exists": ("encode RUN DATA --output TMP/there.nc", "there.nc exists already; choose another --output"),
    "sample exists": ("data prepare coads --output TMP/there.nc", "there.nc"),
    "sample": ("data prepare digit --output TMP/digit.nc", "unknown sample 'digit'; did you mean 'digits'?"),
    "no model": ("info TMP/nowhere", "found nothing"),
    "no run": ("report TMP", "expected a run folder or an artifact"),
    "no checkpoint": ("extract TMP/nowhere.pth", "weights file not found (权重文件不存在)"),
    "web page": ("extract TMP/page.pth", "this is an HTML page, not a checkpoint"),
    "belief": ("extract RUN --output TMP/e.pth --latent-dim 768", "latent_dim is 16 there, 768 was asked; pass 16"),
    "suffix": ("encode RUN DATA --output TMP/embeddings.csv", "embeddings.csv"),
}


@pytest.mark.parametrize(("command", "says"), ERRORS.values(), ids=ERRORS.keys())
def test_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], words: dict[str, str], command: str, says: str
) -> None:
    for name, place in words.items():
        command = command.replace(name, place)
    code = main(command.split())
    printed = capsys.readouterr()
    assert code == 2
    lines = [line for line in printed.err.splitlines() if line.startswith("gridloom: error: ")]
    assert len(lines) == 1 and printed.err.endswith(lines[0] + "\n")
    assert says in lines[0]
    assert "Traceback" not in printed.err
    assert (Path(words["TMP"]) / "there.nc").read_text() == "precious"


UNPARSED = {
    "info": "required options",
    "encode RUN": "required options",
    "train semantic --train.stepz 3": "--train.steps",
    "train semantic --train.steps 0": "train.steps must be at least 1, got 0",
    "train semantic --train.steps many": "--train.steps",
    "data paint": "paint",
    "check DATA --loud": "--loud",
}


@pytest.mark.parametrize(("command", "says"), UNPARSED.items())
def test_a_line_that_cannot_be_parsed_ends_with_code_2(
    capsys: pytest.CaptureFixture[str], words: dict[str, str], command: str, says: str
) -> None:
    for name, place in words.items():
        command = command.replace(name, place)
    with pytest.raises(SystemExit) as done:
        main(command.split())
    assert done.value.code == 2
    printed = capsys.readouterr().err
    assert says.lower() in printed.lower() and "Traceback" not in printed


def test_the_traceback_is_shown_on_request(tmp_path: Path) -> None:
    with pytest.raises(GridloomError, match="found nothing"):
        main(["info", str(tmp_path / "nowhere"), "--traceback"])


def test_no_hostile_file_gets_a_traceback_out_of_extract(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = {"code.pkl", "code_in_torch.pth", "bomb.pth", "nested.pth", "twice.safetensors", "nan.pth", "int_keys.pth"}
    files = [file for file in write_hostile_files(tmp_path, tmp_path / "canary") if file.path.name in chosen]
    assert len(files) == len(chosen)
    for file in files:
        assert main(["extract", str(file.path), "--output", str(tmp_path / "out")]) == 2
        printed = capsys.readouterr().err
        assert printed.startswith("gridloom: error: ") and printed.count("\n") == 1 and file.says in printed
    assert not (tmp_path / "out").exists() and not (tmp_path / "canary").exists()


def test_the_module_is_the_command() -> None:
    command = [sys.executable, "-m", "gridloom", "trian"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=60)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("gridloom: error: unknown verb 'trian'") and done.stderr.count("\n") == 1
