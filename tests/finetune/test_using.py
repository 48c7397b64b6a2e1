"""A fine-tuned run is used as any other: its artifact stands alone, it is evaluated, drawn, extracted, refused."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from gridloom.cli.main import main
from gridloom.core.config import load_yaml
from gridloom.core.errors import CheckpointError, ConfigError, DataError, GridloomError, UnknownNameError
from gridloom.core.registry import get_system
from gridloom.core.system import View
from gridloom.encoders.artifact import load_model, write_artifact
from gridloom.encoders.encoder import SemanticEncoder
from gridloom.encoders.extract import extract_encoder
from gridloom.finetune import PRESETS, FinetuneConfig, FineTuning
from gridloom.finetune.config import PretrainedRecord
from gridloom.finetune.data import prepare
from gridloom.finetune.figures import confusion, scatter
from gridloom.finetune.initialize import initialize
from gridloom.finetune.resolve import resolve
from gridloom.systems.energy.config import DataConfig as EnergyData
from gridloom.systems.energy.config import EnergyConfig
from gridloom.systems.energy.config import ModelConfig as EnergyModel
from gridloom.systems.energy.objective import build_encoder as build_keypoints
from gridloom.workflows.train import configure, train
from gridloom.workflows.view import open_view
from tests.contract.test_battery import assert_same_bits
from tests.finetune.small import SHORT, finetuned, settings

METHODS = {"most frequent class", "nearest pixels", "linear on pixels", "linear probe", "finetune"}


@pytest.fixture(scope="module")
def run(data: Path, backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with its report, whose backbone is gone."""
    folder = tmp_path_factory.mktemp("using")
    shutil.copytree(backbone, folder / "backbone")
    command = ["train", "finetune", str(data), "--backbone", str(folder / "backbone"), "--output", str(folder / "run")]
    command += ["--data.label", "digit", "--data.variables", "image", "--freeze", "stem", "layer1", "--head", "mlp"]
    command += ["--train.steps", "8", "--train.batch-size", "16", "--train.device", "cpu", "--train.no-tensorboard"]
    assert main(command) == 0
    shutil.rmtree(folder / "backbone")
    return folder / "run"


# --- standing alone ---


def test_the_configuration_says_all_of_the_backbone(run: Path) -> None:
    config = load_yaml(run / "config.yaml")
    assert config["data"]["window"] == [32, 32] == config["data"]["stride"]
    assert config["task"] == "classification" and config["classes"] == [str(digit) for digit in range(10)]
    assert config["pretrained"]["system"] == "semantic" and config["pretrained"]["config"]["model"]["width"] == 4
    assert config["pretrained"]["num_features"] == 16 and len(config["pretrained"]["sha256"]) == 64
    assert json.loads((run / "normalizer.json").read_text()) == config["pretrained"]["normalizer"] != {}
    again = configure("finetune", file=run / "config.yaml")
    assert resolve(again) == again == load_model(run)[1].config


def test_the_encoder_comes_out_without_the_backbone(run: Path, data: Path, tmp_path: Path) -> None:
    extracted = extract_encoder(run, tmp_path / "encoder", verify=True)
    assert extracted.verified
    tuned = SemanticEncoder.from_pretrained(run, device="cpu")
    alone = SemanticEncoder.from_pretrained(tmp_path / "encoder", device="cpu")
    embeddings = alone.encode_dataset(data)
    assert embeddings.shape == (240, 1, 1, 16)
    assert np.array_equal(embeddings, tuned.encode_dataset(data))
    assert alone.get_model_info()["variables"] == ["image"]


def test_a_fine_tuned_run_is_a_backbone_too(run: Path, data: Path, tmp_path: Path) -> None:
    config = resolve(settings(data, run, label="ink"))
    assert config.pretrained.system == "finetune" and config.task == "regression"
    objective = FineTuning(config)
    initialize(objective, config, prepare(config))
    assert_same_bits(dict(objective.encoder.state_dict()), dict(load_model(run)[1].objective.encoder.state_dict()))


# --- evaluating and drawing ---


@pytest.fixture(scope="module")
def view(run: Path) -> View:
    """The run evaluated again, when its backbone is gone."""
    return open_view(run)[3]


def test_evaluated_again_without_the_backbone_it_says_the_same_but_for_the_probe(run: Path, view: View) -> None:
    written = json.loads((run / "scores.json").read_text())
    assert {score["method"] for score in written} == METHODS
    before = {(s["method"], s["metric"]): s["value"] for s in written if s["metric"] != "skill"}
    after = {(s.method, s.metric): s.value for s in view.scores if s.metric != "skill"}
    assert after == {key: value for key, value in before.items() if key[0] != "linear probe"}
    assert {metric for _, metric in after} == {"accuracy", "balanced accuracy"}
    best = max(value for (method, metric), value in before.items() if metric == "accuracy" and method != "finetune")
    reference = next(s["method"] for s in written if s["metric"] == "skill")
    assert before[reference, "accuracy"] == best, "skill is against the best baseline, which comes first"


def test_the_page_shows_the_confusion(run: Path) -> None:
    page = (run / "report.html").read_text()
    assert "Held-out windows by their class (rows)" in page and "balanced accuracy" in page


def test_the_confusion_counts_every_held_out_window(view: View) -> None:
    drawing = confusion(view)
    assert drawing is not None and scatter(view) is None
    accuracy = {score.method: score.value for score in view.scores if score.metric == "accuracy"}
    methods = set(drawing.data) - {"classes"}
    assert "finetune" in methods and len(methods) == 2
    for method in methods:
        counts = drawing.data[method]
        assert counts.shape == (10, 10) and counts.sum() == 36
        assert 100 * np.trace(counts) / 36 == pytest.approx(accuracy[method])
    cells = [int((drawing.data[method] > 0).sum()) for method in list(view.predictions)[:: len(view.predictions) - 1]]
    assert [len(axes.texts) for axes in drawing.figure.axes[:2]] == cells, "each share that is not 0 is written"


def test_numbers_are_scored_in_their_unit_and_drawn_over_the_truth(data: Path, backbone: Path, tmp_path: Path) -> None:
    config = settings(data, backbone, label="ink", train=replace(SHORT, steps=20))
    folder = finetuned(config, tmp_path / "run")
    scores = json.loads((folder / "scores.json").read_text())
    assert {s["method"] for s in scores} == METHODS - {"most frequent class"} | {"training mean"}
    error = {s["method"]: s for s in scores if (s["metric"], s["group"]) == ("mae", "all")}
    assert error["finetune"]["unit"] == "%" and error["finetune"]["value"] < error["training mean"]["value"]
    assert error["finetune"]["num_blocks"] == 20
    view = open_view(folder)[3]
    drawing = scatter(view)
    assert drawing is not None and confusion(view) is None
    said, truth = drawing.data["finetune"], drawing.data["truth"]
    assert np.isfinite(truth).all() and len(truth) < 36, "windows without a label are not asked"
    assert abs(said - truth).mean() == pytest.approx(error["finetune"]["value"], rel=1e-5)
    assert "mean absolute error" in drawing.figure.axes[1].get_title()


# --- backbones of other kinds ---


def test_a_file_of_weights_is_a_backbone_and_the_data_its_own_measure(
    data: Path, backbone: Path, tmp_path: Path
) -> None:
    extract_encoder(backbone, tmp_path / "weights.pth")
    with pytest.raises(ConfigError, match=r"does not say which windows it was trained on; pass --data\.window"):
        resolve(settings(data, tmp_path / "weights.pth"))
    config = settings(data, tmp_path / "weights.pth")
    config = resolve(replace(config, data=replace(config.data, window=(32, 32))))
    prepared = prepare(config)
    assert config.pretrained.normalizer == {} and set(prepared.normalizer) == {"image"}
    objective = FineTuning(config)
    initialize(objective, config, prepared)
    want = SemanticEncoder.from_pretrained(backbone, device="cpu").encoder.state_dict()
    assert_same_bits(dict(objective.encoder.state_dict()), dict(want))


def test_a_variable_of_another_name_takes_the_place_of_the_backbones(
    data: Path, backbone: Path, tmp_path: Path
) -> None:
    with xr.open_dataset(data) as opened:
        opened.rename(image="picture").to_netcdf(tmp_path / "renamed.nc", engine="h5netcdf")
    config = settings(tmp_path / "renamed.nc", backbone)
    config = resolve(replace(config, data=replace(config.data, variables=("picture",))))
    assert list(config.pretrained.normalizer) == ["picture"]
    ours = prepare(config).sources["train"].collate([0, 5], 0).fields["image"]
    theirs = prepare(resolve(settings(data, backbone))).sources["train"].collate([0, 5], 0).fields["image"]
    assert torch.equal(ours.values, theirs.values)


# --- refusing ---


def _without_label(config: FinetuneConfig) -> FinetuneConfig:
    return replace(config, data=replace(config.data, label=""))


REFUSED: dict[str, tuple[Callable[[FinetuneConfig], FinetuneConfig], type[GridloomError], str]] = {
    "no backbone": (
        lambda c: replace(c, backbone=""),
        ConfigError,
        r"no backbone: pass --backbone RUN.*`gridloom train semantic --preset digits-contrast` makes one of digits",
    ),
    "backbone missing": (
        lambda c: replace(c, backbone="nowhere/run"),
        CheckpointError,
        "backbone not found: nowhere/run; pass a run folder, an artifact or a file of weights",
    ),
    "no label": (_without_label, ConfigError, r"no label: pass --data.label NAME \(in .*: digit, .*few"),
    "unknown label": (
        lambda c: replace(c, data=replace(c.data, label="digits")),
        UnknownNameError,
        "unknown label 'digits'; did you mean 'digit'",
    ),
    "unknown layer": (
        lambda c: replace(c, freeze=("stem", "layr1")),
        UnknownNameError,
        r"unknown layer to freeze 'layr1'; did you mean 'layer1'\? \(known: all, head, layer1",
    ),
    "too many variables": (
        lambda c: replace(c, data=replace(c.data, variables=("image", "row2"))),
        UnknownNameError,
        "row2",
    ),
    "window": (
        lambda c: replace(c, data=replace(c.data, window=(32, 40))),
        ConfigError,
        r"data.window must be multiples of 32 for this backbone, got \(32, 40\)",
    ),
    "times": (
        lambda c: replace(c, data=replace(c.data, label="when")),
        DataError,
        "label 'when': expected numbers or names, got datetime64",
    ),
    "names as numbers": (
        lambda c: replace(c, task="regression", data=replace(c.data, label="name")),
        DataError,
        "label 'name': a regression needs numbers",
    ),
    "one class": (
        lambda c: replace(c, task="classification", data=replace(c.data, label="same")),
        DataError,
        r"label 'same': expected at least 2 classes, found \['1'\]",
    ),
    "another backbone": (
        lambda c: replace(c, pretrained=PretrainedRecord(system="semantic", sha256="0" * 64)),
        ConfigError,
        r"holds other weights than this configuration was made with \(.*, not 000000000000\)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_in_one_line(case: str, data: Path, backbone: Path) -> None:
    change, kind, message = REFUSED[case]
    with pytest.raises(kind, match=message) as raised:
        resolve(change(settings(data, backbone)))
    assert "\n" not in str(raised.value)


def test_a_backbone_of_another_number_of_variables_is_refused(data: Path, backbone: Path, tmp_path: Path) -> None:
    with xr.open_dataset(data) as opened:
        opened.assign(second=opened["image"] + 1).to_netcdf(tmp_path / "two.nc", engine="h5netcdf")
    config = settings(tmp_path / "two.nc", backbone)
    two = replace(config, data=replace(config.data, variables=("image", "second")))
    with pytest.raises(DataError, match=r"the backbone takes 1 variables \(image\), the data has 2 \(image, second\)"):
        resolve(two)
    assert resolve(replace(config, data=replace(config.data, variables=()))).data.variables == ("image",)


def test_a_backbone_of_several_fields_is_refused(data: Path, tmp_path: Path) -> None:
    system = get_system("fake_modalities")
    config = system.presets["default"]()
    encoder = system.encoder(config)
    write_artifact(tmp_path / "b", encoder, kind="encoder", system=system, config=config, normalizer={}, training={})
    with pytest.raises(DataError, match=r"expected an encoder of one field \[channel, y, x\] to fine-tune, it takes "):
        resolve(settings(data, tmp_path / "b"))


def test_missing_cells_are_refused_by_a_backbone_that_cannot_take_them(data: Path, tmp_path: Path) -> None:
    system = get_system("energy")
    model = EnergyModel(widths=(4,), keypoints=2, channels=("image",), mask_missing=False)
    config = EnergyConfig(data=EnergyData(size=(32, 32)), model=model)
    encoder = build_keypoints(config)
    write_artifact(tmp_path / "b", encoder, kind="encoder", system=system, config=config, normalizer={}, training={})
    resolved = resolve(settings(data, tmp_path / "b"))
    assert not resolved.pretrained.takes_missing
    with pytest.raises(DataError, match="windows with missing cells, which this backbone cannot take; fill them"):
        prepare(resolved)


def test_classes_of_another_label_are_refused(data: Path, backbone: Path) -> None:
    config = resolve(settings(data, backbone))
    with pytest.raises(DataError, match=r"label 'name': no training window is of a class in `classes` \(0, 1, 2"):
        prepare(replace(config, data=replace(config.data, label="name")))


def test_a_constant_number_is_refused_before_the_first_step(data: Path, backbone: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="label 'same' is 1 in the whole training part: nothing to learn"):
        train("finetune", settings(data, backbone, label="same"), output=tmp_path / "run", show=False)


def test_the_preset_without_a_backbone_says_how_to_get_one(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "finetune", "--preset", "digits"]) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and "gridloom train semantic --preset digits-contrast" in printed
    assert "digits-contrast" in get_system("semantic").presets
    assert not list(tmp_path.iterdir())
    assert PRESETS["digits"]().data.label == "digit"
