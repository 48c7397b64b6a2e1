"""Every verb in this process, as its user types it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import xarray as xr

import gridloom
from gridloom.cli.main import VERBS, main
from gridloom.core.config import dump_yaml
from gridloom.core.registry import get_system
from gridloom.grid.read import open_grid
from gridloom.grid.synthetic import waves
from gridloom.grid.write import save_grid
from gridloom.systems.semantic import PRESETS, SemanticConfig
from gridloom.train.log import read_metrics
from gridloom.workflows.train import RunResult
from tests.workflows.tiny import tiny_config

Run = Callable[..., str]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command that must succeed, and return what it printed."""

    def run_it(*arguments: object) -> str:
        code = main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        assert code == 0, printed.err
        return printed.out

    return run_it


@pytest.fixture
def settings(tiny_data: Path, tmp_path: Path) -> Path:
    """The tiny configuration as a file."""
    (tmp_path / "settings.yaml").write_text(dump_yaml(tiny_config(tiny_data)))
    return tmp_path / "settings.yaml"


FLAGS = [
    *("--data.variables", "temperature", "--data.window", "32", "32", "--data.stride", "32", "32"),
    *("--model.latent-dim", "16", "--model.width", "4", "--train.device", "cpu", "--train.no-tensorboard"),
    *("--train.steps", "6", "--train.batch-size", "8", "--train.warmup-steps", "2", "--train.log-every", "1"),
    *("--train.validate-every", "3", "--train.checkpoint-every", "3"),
]


def losses(folder: Path) -> list[float]:
    return [record["loss"] for record in read_metrics(folder / "metrics.jsonl") if record["part"] == "train"]


def test_the_whole_way(run: Run, tiny_data: Path, tiny_run: Path, tmp_path: Path) -> None:
    folder, encoder = tmp_path / "run", tmp_path / "encoder"
    assert "time 60" in run("check", tiny_data)
    trained = run("train", "semantic", tiny_data, "--output", folder, *FLAGS)
    assert "block means" in trained and str(folder / "report.html") in trained
    assert losses(folder) == losses(tiny_run)
    assert "latent_dim" in run("info", folder) and "semantic" in run("info", folder)
    assert "bit-equal after reading back" in run("extract", folder, "--output", encoder, "--verify")
    assert json.loads(run("info", encoder, "--json"))["kind"] == "encoder"
    encoded = run("encode", encoder, tiny_data, "--output", tmp_path / "embeddings.zarr")
    assert "time 60 x latitude 1 x longitude 1 x feature 16" in encoded
    assert open_grid(tmp_path / "embeddings.zarr")["embedding"].sizes["feature"] == 16
    evaluated = json.loads(run("evaluate", folder, "--json", "--output", tmp_path / "scores"))
    assert evaluated == json.loads((tmp_path / "scores" / "scores.json").read_text())
    assert "skill" in run("evaluate", folder, "--split", "validation")
    page = tmp_path / "page.html"
    assert str(page) in run("report", folder, "--output", page)
    assert "<html" in page.read_text()[:200]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, run: Run) -> Callable[..., SemanticConfig]:
    """Type a `train` command that trains nothing, and return the configuration that it asked for."""
    configs: list[SemanticConfig] = []

    def record(system: object, config: SemanticConfig, *, output: Path) -> RunResult:
        configs.append(config)
        return RunResult(folder=output, step=0, stopped_by=None, scores=[])

    monkeypatch.setattr("gridloom.workflows.train.train", record)

    def ask(*arguments: object) -> SemanticConfig:
        run("train", "semantic", *arguments)
        return configs[-1]

    return ask


def test_flags_and_file_say_the_same(asked: Callable, settings: Path, tiny_data: Path) -> None:
    assert asked(tiny_data, *FLAGS) == asked("--config", settings) == tiny_config(tiny_data)


def test_a_flag_takes_the_place_of_the_file_and_the_file_of_the_preset(
    asked: Callable, settings: Path, tiny_data: Path
) -> None:
    settings.write_text("train: {steps: 7, batch_size: 4}\nmodel: {width: 4}\n")
    config = asked("--preset", "digits", f"--config={settings}", "--train.steps=2", f"--train.learning-rate={5e-4}")
    assert (config.train.steps, config.train.batch_size, config.train.learning_rate) == (2, 4, 5e-4)
    assert config.model.width == 4 and config.model.latent_dim == PRESETS["digits"]().model.latent_dim
    assert config.data == PRESETS["digits"]().data


def test_data_takes_the_place_of_the_files(asked: Callable, settings: Path, tiny_data: Path) -> None:
    text = settings.read_text().replace(str(tiny_data), "elsewhere.nc")
    settings.write_text(text)
    assert asked("--config", settings).data.path == "elsewhere.nc"
    assert asked(tiny_data, "--config", settings).data.path == str(tiny_data)


def test_config_yaml_fed_back_asks_for_the_same_run(asked: Callable, tiny_run: Path, tiny_data: Path) -> None:
    system = get_system("semantic")
    assert asked("--config", tiny_run / "config.yaml") == system.resolve(tiny_config(tiny_data))


def test_a_run_that_was_stopped_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped = RunResult(folder=tmp_path, step=7, stopped_by="SIGTERM", scores=[])
    monkeypatch.setattr("gridloom.workflows.train.train", lambda system, config, output: stopped)
    assert main(["train", "semantic", "digits"]) == 128 + 15
    assert "SIGTERM after step 7" in capsys.readouterr().err


def test_extract_takes_the_layout_from_the_suffix(run: Run, tiny_run: Path, tmp_path: Path) -> None:
    printed = run("extract", tiny_run, "--output", tmp_path / "encoder.pth", "--verify", "--latent-dim", 16)
    assert "seed" in printed
    content = torch.load(tmp_path / "encoder.pth", weights_only=True)
    assert list(content) == ["encoder_state_dict", "model_config", "extracted_from", "extraction_info"]
    assert "file of weights" in run("info", tmp_path / "encoder.pth")


def test_extract_takes_the_underscore_spellings_too(run: Run, tiny_run: Path, tmp_path: Path) -> None:
    output = tmp_path / "encoder.pth"
    run("extract", tiny_run, "--output", output, "--input_channels", 1, "--latent_dim", 16, "--verify")
    assert output.is_file()


def test_encode_takes_a_stride_and_a_variable_of_another_name(run: Run, tiny_run: Path, tmp_path: Path) -> None:
    save_grid(waves(num_times=1, height=64, width=64)[["salinity"]], tmp_path / "salinity.nc")
    run("encode", tiny_run, tmp_path / "salinity.nc", "--output", tmp_path / "e.nc", "--stride", 16, 32)
    assert open_grid(tmp_path / "e.nc")["embedding"].shape == (1, 3, 2, 16)


def test_samples_are_listed_and_written(run: Run, tmp_path: Path) -> None:
    assert "etopo20" in run("data") and "public domain" in run("data", "list")
    names = [sample["name"] for sample in json.loads(run("data", "list", "--json"))]
    assert {"etopo20", "coads", "digits"} <= set(names)
    run("data", "prepare", "digits", "--output", tmp_path / "digits.nc")
    with xr.open_dataset(tmp_path / "digits.nc") as written:
        assert written["image"].shape == (1797, 32, 32)
    checked = json.loads(run("check", tmp_path / "digits.nc", "--json"))
    assert "image" in checked["variables"]


# --- help ---


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"]])
def test_help_lists_every_verb(run: Run, arguments: list[str]) -> None:
    printed = run(*arguments)
    assert all(f"  {verb} " in printed for verb in VERBS)


def test_the_version_is_the_packages(run: Run) -> None:
    assert run("--version") == f"gridloom {gridloom.__version__}\n"


def help_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    try:
        assert main([*arguments, "--help"]) == 0
    except SystemExit as done:
        assert done.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_has_help(capsys: pytest.CaptureFixture[str], verb: str) -> None:
    printed = help_of(capsys, verb)
    assert f"gridloom {verb}" in printed and "usage:" in printed


def test_help_of_a_system_lists_its_settings_and_presets(capsys: pytest.CaptureFixture[str]) -> None:
    printed = help_of(capsys, "train", "semantic")
    assert all(flag in printed for flag in ("--train.steps", "--model.latent-dim", "--data.window", "--preset"))
    assert "elevation" in printed and "Size of the latent vector" in printed
    with_preset = " ".join(help_of(capsys, "train", "semantic", "--preset", "elevation").replace("│", " ").split())
    assert "(default: 256)" in with_preset and "(default: etopo20)" in with_preset, "wherever the lines are broken"


def test_help_of_train_names_the_systems(capsys: pytest.CaptureFixture[str]) -> None:
    printed = help_of(capsys, "train")
    assert "semantic" in printed and "presets: default, elevation" in printed
