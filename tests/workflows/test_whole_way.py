"""From a file to a run, its encoder, embeddings, scores and a page, as Python users call it."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from gridloom.core.config import dump_yaml, load_yaml
from gridloom.core.errors import CheckpointError, ConfigError, DataError, GridloomError, UnknownNameError
from gridloom.core.registry import get_system
from gridloom.encoders.encoder import SemanticEncoder
from gridloom.encoders.extract import extract_encoder
from gridloom.grid.read import open_grid
from gridloom.grid.synthetic import waves
from gridloom.grid.write import save_grid
from gridloom.systems.semantic import ModelConfig
from gridloom.train.log import read_metrics
from gridloom.workflows.data import list_samples, prepare_sample
from gridloom.workflows.encode import encode
from gridloom.workflows.evaluate import evaluate
from gridloom.workflows.info import info
from gridloom.workflows.report import report
from gridloom.workflows.train import configure, train, with_data
from tests.workflows.tiny import SHORT, tiny_config


def losses(run: Path) -> list[float]:
    return [record["loss"] for record in read_metrics(run / "metrics.jsonl") if record["part"] == "train"]


# --- the run folder ---


def test_a_run_folder_holds_everything(tiny_run: Path) -> None:
    names = {path.name for path in tiny_run.iterdir()} - {".lock"}
    assert names == {
        "artifact",
        "checkpoints",
        "config.yaml",
        "metrics.jsonl",
        "normalizer.json",
        "report.html",
        "scores.csv",
        "scores.json",
        "splits.json",
    }
    config = load_yaml(tiny_run / "config.yaml")
    assert config["system"] == "semantic"
    assert config["data"]["variables"] == ["temperature"] and config["model"]["input_channels"] == 1
    splits = json.loads((tiny_run / "splits.json").read_text())
    assert splits["dim"] == "time" and len(splits["sha256"]) == 64
    assert len(losses(tiny_run)) == SHORT.steps


def test_the_page_holds_itself(tiny_run: Path) -> None:
    page = (tiny_run / "report.html").read_text()
    loaded = re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)["']|url\(([^)]*)\)|@import\s+([^;]*)""", page)
    places = [place for found in loaded for place in found if place]
    assert places and all(place.strip("\"'").startswith(("data:", "#")) for place in places)
    assert "<script src" not in page
    assert f"gridloom train semantic --config {tiny_run / 'config.yaml'}" in page
    assert all(method in page for method in ("mean field", "block means", "PCA"))


def test_the_card_says_how_good_it_is(tiny_run: Path) -> None:
    card = (tiny_run / "artifact" / "README.md").read_text()
    scores = json.loads((tiny_run / "scores.json").read_text())
    ours = next(s for s in scores if (s["method"], s["metric"], s["group"]) == ("semantic", "skill", "all"))
    assert f"{ours['value']:.4g}" in card and "90 % interval" in card
    assert {score["method"] for score in scores} == {"mean field", "block means", "PCA", "semantic"}


def test_config_yaml_fed_back_repeats_the_run(tiny_run: Path, tmp_path: Path) -> None:
    system = get_system("semantic")
    config = configure(system, file=tiny_run / "config.yaml")
    result = train(system, config, output=tmp_path / "again", show=False, report=False)
    assert result.stopped_by is None and result.step == SHORT.steps
    assert losses(tmp_path / "again") == losses(tiny_run)
    assert (tmp_path / "again" / "config.yaml").read_bytes() == (tiny_run / "config.yaml").read_bytes()
    ours, theirs = (
        json.loads((run / "artifact" / "manifest.json").read_text()) for run in (tmp_path / "again", tiny_run)
    )
    assert ours["files"]["model.safetensors"] == theirs["files"]["model.safetensors"]


def test_a_finished_run_called_again_trains_no_further(tiny_run: Path) -> None:
    before = (tiny_run / "metrics.jsonl").read_bytes()
    config = configure(get_system("semantic"), file=tiny_run / "config.yaml")
    result = train("semantic", config, output=tiny_run, show=False, report=False)
    assert result.step == SHORT.steps and len(result.scores) > 0
    assert (tiny_run / "metrics.jsonl").read_bytes() == before


# --- refusing ---


def test_other_settings_in_the_same_folder_are_refused(tiny_run: Path, tiny_data: Path) -> None:
    other = tiny_config(tiny_data, model=ModelConfig(latent_dim=8, width=4))
    with pytest.raises(ConfigError, match=r"holds a run with other settings \(model\.latent_dim: 16 -> 8\); choose"):
        train("semantic", other, output=tiny_run, show=False)


def test_a_folder_of_something_else_is_refused(tiny_data: Path, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear reader")
    with pytest.raises(ConfigError, match="exists and is not a run folder"):
        train("semantic", tiny_config(tiny_data), output=tmp_path, show=False)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_settings_that_failed_before_the_first_step_can_be_mended(tiny_data: Path, tmp_path: Path) -> None:
    config = tiny_config(tiny_data)
    wrong = replace(config, data=replace(config.data, window=(64, 64)))
    with pytest.raises(DataError):
        train("semantic", wrong, output=tmp_path / "run", show=False, report=False)
    short = replace(config, train=replace(config.train, steps=1))
    assert train("semantic", short, output=tmp_path / "run", show=False, report=False).step == 1
    assert load_yaml(tmp_path / "run" / "config.yaml")["data"]["window"] == [32, 32]


def test_missing_data_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.nc"):
        train("semantic", tiny_config(tmp_path / "nowhere.nc"), output=tmp_path / "run", show=False)
    assert not (tmp_path / "run").exists()


# --- configuration ---


def test_a_file_takes_the_place_of_the_preset_where_it_says_something(tmp_path: Path) -> None:
    system = get_system("semantic")
    file = tmp_path / "settings.yaml"
    file.write_text("train:\n  steps: 7\n  learning_rate: 3e-4\nmodel: {latent_dim: 99}\n")
    config = configure(system, preset="elevation", file=file)
    preset = system.presets["elevation"]()
    assert (config.train.steps, config.train.learning_rate, config.model.latent_dim) == (7, 3e-4, 99)
    assert config.train.batch_size == preset.train.batch_size and config.data == preset.data
    file.write_text("system: semantic\n" + dump_yaml(config))
    assert configure(system, file=file) == config


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("train: {stepz: 7}", r"settings\.yaml\.train\.stepz: unknown key; did you mean 'steps'\?"),
        ("modle: {}", r"settings\.yaml\.modle: unknown key; did you mean 'model'\?"),
        ("train: {steps: many}", r"train\.steps: expected a whole number, got 'many'"),
        ("train: {steps: 0}", r"train\.steps must be at least 1, got 0"),
        ("data: {window: [32]}", r"data\.window: expected a list of 2 values, got 1"),
        ("loss: huber", r"loss: expected one of 'mse', 'smooth_l1', got 'huber'"),
        ("system: other", "is for system 'other', not 'semantic'"),
        ("- 1", "expected a mapping of settings, got list"),
        ("a: &x 1\nb: *x", "aliases"),
    ],
)
def test_a_file_with_a_mistake_is_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "settings.yaml").write_text(text)
    with pytest.raises(ConfigError, match=says):
        configure(get_system("semantic"), file=tmp_path / "settings.yaml")


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="unknown preset of semantic 'elevatoin'; did you mean 'elevation'"):
        configure(get_system("semantic"), preset="elevatoin")


def test_data_takes_the_place_of_the_configured_path(tiny_data: Path) -> None:
    config = with_data(tiny_config("elsewhere.nc"), str(tiny_data))
    assert config == tiny_config(tiny_data)


def test_single_settings_take_the_place_of_all(tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text("train: {steps: 7, batch_size: 4}")
    settings = {"train.steps": 9, "data.path": "my.nc"}
    config = configure("semantic", file=tmp_path / "settings.yaml", settings=settings)
    assert (config.train.steps, config.train.batch_size, config.data.path) == (9, 4, "my.nc")
    with pytest.raises(ConfigError, match=r"settings\.train\.stepz: unknown key; did you mean 'steps'"):
        configure("semantic", settings={"train.stepz": 9})


# --- using a run ---


def test_a_dataset_becomes_a_file_of_embeddings(tiny_run: Path, tiny_data: Path, tmp_path: Path) -> None:
    for name in ("embeddings.nc", "embeddings.zarr"):
        embeddings = encode(tiny_run, str(tiny_data), output=tmp_path / name)
        with open_grid(tmp_path / name) as written:
            assert np.array_equal(written["embedding"], embeddings)
            assert np.array_equal(written["time"], embeddings["time"])
            assert "missing_share" in written.coords
    assert embeddings.sizes == {"time": 60, "latitude": 1, "longitude": 1, "feature": 16}


def test_an_output_that_exists_is_left_alone(tiny_run: Path, tiny_data: Path, tmp_path: Path) -> None:
    output = tmp_path / "embeddings.nc"
    output.write_text("precious")
    with pytest.raises(DataError, match="exists already; choose another --output, or pass --replace"):
        encode(tiny_run, str(tiny_data), output=output)
    assert output.read_text() == "precious"
    encode(tiny_run, str(tiny_data), output=output, replace=True)
    assert output.read_bytes()[:8] != b"precious"


def test_run_artifact_and_weights_give_the_same_embeddings(tiny_run: Path, tmp_path: Path) -> None:
    data = waves(num_times=2, height=32, width=32)
    expected = encode(tiny_run, data)
    artifact = extract_encoder(tiny_run, tmp_path / "encoder").output
    for model in (tiny_run / "artifact", artifact):
        assert encode(model, data).identical(expected)


def test_evaluating_again_gives_the_scores_of_the_run(tiny_run: Path, tmp_path: Path) -> None:
    found = evaluate(tiny_run, output=tmp_path)
    assert json.loads((tmp_path / "scores.json").read_text()) == json.loads((tiny_run / "scores.json").read_text())
    assert list(found.predictions)[-1] == "semantic" and len(found.predictions) == 4
    validation = evaluate(tiny_run, split="validation")
    assert {score.split for score in validation.scores} == {"validation"}
    with pytest.raises(UnknownNameError, match="unknown part 'tset'; did you mean 'test'"):
        evaluate(tiny_run, split="tset")


def test_evaluating_on_other_data_uses_the_training_statistics(tiny_run: Path, tmp_path: Path) -> None:
    save_grid(waves(num_times=60, height=32, width=32, seed=3), tmp_path / "other.nc")
    found = evaluate(tiny_run, str(tmp_path / "other.nc"))
    assert found.task is not None and found.task.name == str(tmp_path / "other.nc")
    assert {score.data for score in found.scores} == {str(tmp_path / "other.nc")}


def test_an_encoder_alone_cannot_be_evaluated(tiny_run: Path, tmp_path: Path) -> None:
    artifact = extract_encoder(tiny_run, tmp_path / "encoder").output
    with pytest.raises(CheckpointError, match="an encoder alone; this needs the whole model, take the run's folder"):
        evaluate(artifact)


def test_info_describes_runs_artifacts_and_files(tiny_run: Path, tmp_path: Path) -> None:
    file = extract_encoder(tiny_run, tmp_path / "encoder.pth").output
    folder = extract_encoder(tiny_run, tmp_path / "encoder").output
    described = {model: info(model) for model in (tiny_run, folder, file)}
    assert [found["kind"] for found in described.values()] == ["model", "encoder", "file of weights"]
    assert {found["latent_dim"] for found in described.values()} == {16}
    assert described[tiny_run]["training.steps"] == SHORT.steps
    assert described[file]["normalizer"] is None and described[folder]["normalizer"] == ["temperature"]
    json.dumps(list(described.values()))
    with pytest.raises(CheckpointError, match="found nothing"):
        info(tmp_path / "nowhere")


def test_a_report_can_be_drawn_elsewhere_with_its_pictures(tiny_run: Path, tmp_path: Path) -> None:
    page = report(tiny_run, output=tmp_path / "page.html", figures=tmp_path / "figures")
    assert page == tmp_path / "page.html" and page.stat().st_size > 10_000
    drawn = {path.name for path in (tmp_path / "figures").iterdir()}
    assert {"loss.png", "loss.svg", "reconstructions.png", "skill.svg", "embeddings.png"} <= drawn


def test_a_folder_that_is_no_run_is_refused_by_all(tmp_path: Path, tiny_data: Path) -> None:
    for use in (report, evaluate, info, lambda model: encode(model, str(tiny_data)), SemanticEncoder.from_pretrained):
        with pytest.raises(GridloomError, match="expected a run folder"):
            use(tmp_path)


# --- samples ---


def test_samples_are_described_and_written(tmp_path: Path) -> None:
    found = {sample["name"]: sample for sample in list_samples()}
    assert {"etopo20", "coads", "digits"} <= found.keys()
    assert all(sample["license"] and sample["origin"] and sample["summary"] for sample in found.values())
    with xr.open_dataset(prepare_sample("coads", tmp_path / "coads.nc")) as written:
        assert len(written.data_vars) == 7
    with pytest.raises(DataError, match="exists"):
        prepare_sample("coads", tmp_path / "coads.nc")
    with pytest.raises(UnknownNameError, match="did you mean 'coads'"):
        prepare_sample("coad", tmp_path / "coad.nc")
