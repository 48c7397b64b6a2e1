"""`gridloom export`, as its user types it."""

from dataclasses import replace
from pathlib import Path

import pytest

from gridloom.cli.main import main
from gridloom.core import registry
from gridloom.core.registry import get_system
from gridloom.encoders.artifact import write_artifact
from tests.contract.arrays import FakeConfig
from tests.contract.fakes import FAKES


def test_export_says_what_the_file_takes_and_how_near_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    system, config, output = get_system("fake_autoencoder"), FakeConfig(), tmp_path / "encoder.pt2"
    write_artifact(
        tmp_path / "model",
        system.encoder(config),
        kind="encoder",
        system=system,
        config=config,
        normalizer={},
        training={},
    )
    assert main(["export", str(tmp_path / "model"), "--output", str(output), "--window", "8", "8"]) == 0
    printed = capsys.readouterr()
    words = " ".join(printed.out.split())
    assert "input values N x 1 x 8 x 8" in words and "input valid N x 1 x 8 x 8" in words
    assert "output embedding N x feature" in words and "least cosine 1.0000" in words
    assert "units normalized" in words and output.stat().st_size > 1000
    assert printed.err == ""


@pytest.mark.parametrize(
    ("model", "output", "says"),
    [
        ("RUN", "encoder.csv", "expected a name that ends in .onnx or .pt2, got '.csv'"),
        ("nowhere", "encoder.pt2", "expected a run folder or an artifact"),
    ],
)
def test_export_refuses_in_one_line(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], model: str, output: str, says: str
) -> None:
    place = str(tiny_run) if model == "RUN" else str(tmp_path / model)
    assert main(["export", place, "--output", str(tmp_path / output)]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("gridloom: error: ") and printed.count("\n") == 1 and says in printed
    assert not (tmp_path / output).exists()


def test_a_system_without_encoder_and_graph_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    system, config = replace(FAKES["fake_autoencoder"], name="neither", encoder=None), FakeConfig()
    monkeypatch.setitem(registry.BUILT_IN, "neither", "tests.cli.test_export:NEITHER")
    monkeypatch.setitem(globals(), "NEITHER", system)
    model = tmp_path / "model"
    write_artifact(
        model, system.objective(config), kind="model", system=system, config=config, normalizer={}, training={}
    )
    assert main(["export", str(model), "--output", str(tmp_path / "model.pt2")]) == 2
    printed = capsys.readouterr().err
    assert "system 'neither' has neither an encoder nor a graph" in printed and printed.count("\n") == 1
    assert not (tmp_path / "model.pt2").exists()
