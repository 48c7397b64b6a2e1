"""Labels of each kind, and what the scores and the simple answers make of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from gridloom.core.contracts import Task
from gridloom.core.errors import ConfigError, DataError
from gridloom.finetune.baselines import Constant, Pixels, linear_probe, most_frequent, training_mean
from gridloom.finetune.config import FinetuneConfig, LabeledGridConfig
from gridloom.finetune.data import TARGET, prepare
from gridloom.finetune.figures import count_pairs
from gridloom.finetune.labels import as_indices, as_names, as_numbers, class_names, is_known, task_of
from gridloom.finetune.resolve import resolve
from gridloom.finetune.score import score_labels
from tests.finetune.small import settings


def test_the_kind_of_label_decides_what_is_learned() -> None:
    kinds = {
        "classification": (np.arange(3), np.array([True, False]), np.array(["a"]), np.array([b"a"]), np.array([None])),
        "regression": (np.zeros(2), np.zeros(2, np.float32)),
    }
    for task, arrays in kinds.items():
        assert {task_of(values, "auto", label="x") for values in arrays} == {task}
    assert task_of(np.zeros(2), "classification", label="x") == "classification"
    assert task_of(np.arange(2), "regression", label="x") == "regression"


def test_missing_labels_have_no_name() -> None:
    values = np.array([3.0, np.nan, 0.5, np.inf, -0.0])
    assert as_names(values).tolist() == ["3", "", "0.5", "", "0"]
    assert as_names(np.array(["sea", None, "", b"ice", np.nan], dtype=object)).tolist() == ["sea", "", "", "ice", ""]
    assert as_names(np.array([[True], [False]])).tolist() == [["True"], ["False"]]
    assert is_known(as_names(values)).tolist() == [True, False, True, False, True]
    numbers = as_numbers(values)
    assert is_known(numbers).tolist() == [True, False, True, False, True]
    assert np.isnan(numbers[3])


def test_classes_stand_in_the_order_of_their_numbers_and_unknown_ones_have_no_place() -> None:
    assert class_names(np.array([10.0, 9.0, np.nan, 10.0]), label="x") == ("9", "10")
    assert class_names(np.array(["nan", "b", "2", "10", ""]), label="x") == ("2", "10", "b", "nan")
    assert as_indices(np.array(["10", "7", "9"]), ("9", "10")).tolist() == [1, -1, 0]
    with pytest.raises(DataError, match="1001 different values are more than 1000 classes; for numbers use --task"):
        class_names(np.arange(1001), label="x")


def test_windows_without_a_label_are_in_no_part(data: Path, backbone: Path) -> None:
    config = resolve(settings(data, backbone, label="few", task="classification"))
    prepared, whole = prepare(config), prepare(resolve(settings(data, backbone)))
    for part in ("train", "validation", "test"):
        ours, all_of_them = prepared.sources[part], whole.sources[part]
        assert len(ours) == len(all_of_them) // 3
        digits = all_of_them.coordinates(range(len(all_of_them)))["digit"]
        batch = ours.collate(range(len(ours)), 0)
        assert batch.fields[TARGET].values.tolist() == digits[::3].tolist()
        assert batch.fields[TARGET].valid.all()
        assert batch.window.tolist() == list(range(len(ours)))
    task = prepared.task("test")
    assert task.truth["few"].values.tolist() == [str(digit) for digit in digits[::3]]
    assert "few" not in task.given and task.wanted["few"].all()


def test_given_windows_are_in_data_units_with_their_gaps(data: Path, backbone: Path) -> None:
    task = prepare(resolve(settings(data, backbone))).task("test")
    with xr.open_dataset(data) as opened:
        images = opened["image"].isel(sample=slice(-36, None)).values
    assert task.given["image"].shape == (36, 32, 32)
    np.testing.assert_allclose(task.given["image"].values, images, atol=1e-5)


def test_a_share_of_the_labels_is_drawn_from_the_training_part_alone(data: Path, backbone: Path) -> None:
    config = resolve(settings(data, backbone))
    whole = prepare(config)
    part = replace(config, data=replace(config.data, label_share=0.2))
    drawn, again, other = prepare(part), prepare(part), prepare(replace(part, seed=1))
    assert len(drawn.sources["train"]) == len(drawn.history["sample"]) == 34 == round(0.2 * len(whole.sources["train"]))
    assert len(drawn.sources["test"]) == len(whole.sources["test"])
    places = [prepared.history["index"].values.tolist() for prepared in (drawn, again, other)]
    assert places[0] == places[1] != places[2] and places[0] == sorted(places[0])
    with pytest.raises(ConfigError, match=r"data.label_share must be above 0 and at most 1, got 0"):
        LabeledGridConfig(label_share=0.0)


def test_a_label_that_varies_in_space_is_that_of_the_center(data: Path, backbone: Path) -> None:
    prepared = prepare(resolve(settings(data, backbone, label="row")))
    assert set(prepared.history["row"].values.tolist()) == {"2"}, "row 16 of 32"


# --- scores against a slow count ---


def labeled(values: list) -> xr.Dataset:
    return xr.Dataset({"kind": ("sample", np.array(values))})


def task_with(values: list) -> Task:
    truth = labeled(values)
    wanted = xr.ones_like(truth, dtype=bool)
    return Task(name="made", split="test", given=truth, wanted=wanted, truth=truth, block_dim="sample")


def test_scores_count_what_is_right() -> None:
    rng = np.random.default_rng(0)
    truth = rng.choice(["a", "b", "c"], 60, p=[0.7, 0.2, 0.1])
    good = np.where(rng.random(60) < 0.8, truth, "a")
    scores = score_labels(task_with(truth.tolist()), {"always a": labeled(["a"] * 60), "good": labeled(list(good))}, 0)
    found = {(s.method, s.metric): s for s in scores}
    right = sum(x == y for x, y in zip(truth, good, strict=True))
    recalls = [np.mean([y == name for x, y in zip(truth, good, strict=True) if x == name]) for name in "abc"]
    first = sum(truth == "a")
    assert found["good", "accuracy"].value == pytest.approx(100 * right / 60)
    assert found["good", "balanced accuracy"].value == pytest.approx(100 * np.mean(recalls))
    assert found["always a", "balanced accuracy"].value == pytest.approx(100 / 3)
    assert found["good", "skill"].value == pytest.approx(1 - (60 - right) / (60 - first))
    assert found["good", "accuracy"].low < found["good", "accuracy"].value < found["good", "accuracy"].high
    assert found["good", "accuracy"].num_blocks == 20
    with pytest.raises(DataError, match="method 'none' leaves windows without an answer"):
        score_labels(task_with(["a", "b"]), {"none": labeled(["", "b"])}, 0)


def test_pairs_are_counted_by_row_of_the_truth() -> None:
    truth, said = np.array(["a", "a", "b", "c"]), np.array(["a", "b", "b", "a"])
    assert count_pairs(truth, said, ["a", "b"]).tolist() == [[1, 1], [0, 1]]


# --- simple answers ---


def windows(count: int, seed: int, size: int = 64) -> xr.Dataset:
    """Class `high` where the mean is above 0; a tenth of the cells is missing."""
    rng = np.random.default_rng(seed)
    level = np.where(rng.random(count) < 0.4, 1.0, -1.0)
    fields = rng.normal(size=(count, size, size)) * 0.5 + level[:, None, None]
    fields[rng.random(fields.shape) < 0.1] = np.nan
    names = np.where(level > 0, "high", "low")
    return xr.Dataset({"t": (("sample", "y", "x"), fields), "kind": ("sample", names)})


CONFIG = FinetuneConfig(data=LabeledGridConfig(variables=("t",), label="kind"), classes=("high", "low"))


def test_simple_answers_read_what_is_plain() -> None:
    train, test = windows(40, 0), windows(30, 1)
    asked = xr.ones_like(test[["kind"]], dtype=bool)
    for kind in ("linear", "nearest"):
        said = Pixels(CONFIG, train, kind=kind).predict(test[["t"]], asked)
        assert (said["kind"].values == test["kind"].values).all()
    train["kind"] = xr.where(train["kind"] == "low", "low", "unheard of")
    said = Pixels(CONFIG, train, kind="nearest").predict(test[["t"]], asked)
    assert set(said["kind"].values) == {"low"}, "a class that the configuration does not know teaches nothing"


def test_the_most_frequent_class_is_said_without_looking() -> None:
    train, test = windows(40, 0), windows(30, 1)
    asked = xr.ones_like(test[["kind"]], dtype=bool)
    constant = most_frequent(CONFIG, train)
    assert isinstance(constant, Constant) and set(constant.predict(test, asked)["kind"].values) == {"low"}
    assert training_mean(CONFIG, train) is None


def test_simple_answers_to_numbers() -> None:
    train, test = (made.assign(level=made["t"].mean(("y", "x"))) for made in (windows(40, 0), windows(30, 1)))
    config = replace(CONFIG, classes=(), data=replace(CONFIG.data, label="level"))
    asked = xr.ones_like(test[["level"]], dtype=bool)
    mean = training_mean(config, train)
    assert isinstance(mean, Constant) and most_frequent(config, train) is None
    assert mean.value == pytest.approx(float(train["level"].mean()))
    base = abs(mean.predict(test, asked)["level"] - test["level"]).mean()
    for kind in ("linear", "nearest"):
        said = Pixels(config, train, kind=kind).predict(test[["t"]], asked)
        assert float(abs(said["level"] - test["level"]).mean()) < 0.3 * float(base)


def test_the_linear_probe_is_left_out_where_the_backbone_is_gone_or_another_one(
    data: Path, backbone: Path, batch_backbone: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = resolve(settings(data, backbone))
    history = prepare(config).history
    assert linear_probe(config, history) is not None
    assert linear_probe(replace(config, backbone=str(batch_backbone)), history) is None
    assert "holds other weights now" in caplog.text
    assert linear_probe(replace(config, backbone="gone"), history) is None
    assert "no linear probe of the backbone beside the model: backbone not found: gone" in caplog.text
