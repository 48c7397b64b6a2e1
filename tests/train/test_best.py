"""`train.keep best` and `train.snapshots`: which weights a run ends with, and which it leaves behind."""

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from gridloom.core.atomic import verify_manifest
from gridloom.core.batch import Batch, Step
from gridloom.core.errors import CheckpointError, ConfigError
from gridloom.core.settings import TrainConfig
from gridloom.train.best import BestWeights
from gridloom.train.checkpoint import load_model_state, read_snapshots
from gridloom.train.log import read_metrics
from gridloom.train.loop import Outcome, train
from tests.train.tiny import ALONE, SHORT, TinyObjective, TinySource, same, weights


class Dipping(TinyObjective):
    """Learns as ever, while its validation says what the test wants, pass by pass."""

    def __init__(self, figures: dict[int, float], name: str = "error") -> None:
        super().__init__()
        self.figures, self.name, self.now = figures, name, 0
        self.at: dict[int, dict[str, torch.Tensor]] = {}

    def begin_step(self, step: int) -> None:
        self.now = step + 1

    def forward(self, batch: Batch) -> Step:
        result = super().forward(batch)
        if self.training:
            return result
        self.at[self.now] = weights(self)
        figure = torch.full_like(result.loss, self.figures[self.now])
        return Step(loss=result.loss, metrics={self.name: figure})


def run(folder: Path, objective: TinyObjective, *, monitor: str = "error", **changes: Any) -> Outcome:
    settings = {**SHORT, "steps": 10, "validate_every": 2, "checkpoint_every": 10, "keep": "best", **changes}
    sources = {"train": TinySource(), "validation": TinySource(8)}
    return train(
        objective,
        sources,
        TrainConfig(**settings),
        seed=3,
        folder=folder,
        peers=ALONE,
        record={},
        monitor=monitor,
        show=False,
    )


DIP = {2: 5.0, 4: 3.0, 6: 1.0, 8: 2.0, 10: 4.0}


def test_a_run_ends_with_the_weights_of_its_best_validation(tmp_path: Path) -> None:
    objective = Dipping(DIP)
    outcome = run(tmp_path, objective)
    assert outcome.best_step == 6 and outcome.step == 10
    assert same(weights(objective), objective.at[6]) and not same(objective.at[6], objective.at[10])
    verify_manifest(tmp_path / "best")
    assert same(load_model_state(outcome.checkpoint), objective.at[10]), "a checkpoint is where training was"


def test_keeping_the_last_weights_keeps_no_best(tmp_path: Path) -> None:
    objective = Dipping(DIP)
    outcome = run(tmp_path, objective, keep="last")
    assert outcome.best_step is None and same(weights(objective), objective.at[10])
    assert not (tmp_path / "best").exists()


def test_looking_for_the_best_does_not_change_training(tmp_path: Path) -> None:
    for keep in ("best", "last"):
        run(tmp_path / keep, Dipping(DIP), keep=keep)
    ours, theirs = (
        [record["loss"] for record in read_metrics(tmp_path / keep / "metrics.jsonl") if record["part"] == "train"]
        for keep in ("best", "last")
    )
    assert ours == theirs


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ({2: 5.0, 4: 1.0, 6: 1.0, 8: 1.0, 10: 2.0}, 4),
        ({2: 1.0, 4: 1.0, 6: 1.0, 8: 1.0, 10: 1.0}, 2),
        ({2: 5.0, 4: 4.0, 6: 3.0, 8: 2.0, 10: 1.0}, 10),
        ({2: float("nan"), 4: 4.0, 6: float("nan"), 8: 5.0, 10: float("inf")}, 4),
        ({2: 1.0, 4: -3.0, 6: 0.0, 8: 0.0, 10: 0.0}, 4),
    ],
)
def test_the_lowest_figure_counts_and_a_tie_keeps_the_earlier(
    tmp_path: Path, figures: dict[int, float], expected: int
) -> None:
    objective = Dipping(figures)
    assert run(tmp_path, objective).best_step == expected
    assert same(weights(objective), objective.at[expected])


def test_the_loss_is_a_monitor_too(tmp_path: Path) -> None:
    outcome = run(tmp_path, Dipping(DIP), monitor="loss")
    passes = [record for record in read_metrics(tmp_path / "metrics.jsonl") if record["part"] == "validation"]
    best = min(passes, key=lambda record: record["loss"])
    assert outcome.best_step == best["step"]


def test_without_a_number_the_last_weights_stay_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    objective = Dipping(dict.fromkeys(DIP, float("nan")))
    with caplog.at_level(logging.WARNING):
        run(tmp_path, objective)
    assert same(weights(objective), objective.at[10])
    assert "no validation pass gave a finite error: the last weights stay" in caplog.text


def test_a_monitor_that_is_not_measured_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"goes by 'accuracy', validation measures only \['error', 'loss'\]"):
        run(tmp_path, Dipping(DIP), monitor="accuracy")


def test_the_best_needs_validation_passes_and_a_part_for_them(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.keep best needs validation passes.*validate_every 0"):
        TrainConfig(keep="best", validate_every=0)
    config = TrainConfig(**{**SHORT, "validate_every": 2, "keep": "best"})
    with pytest.raises(ConfigError, match=r"needs a validation part; this data has none, use --train\.keep last"):
        train(
            TinyObjective(),
            {"train": TinySource()},
            config,
            seed=3,
            folder=tmp_path,
            peers=ALONE,
            record={},
            show=False,
        )


# --- going on ---


def test_a_run_called_again_ends_with_the_same_best_weights(tmp_path: Path) -> None:
    first, again = Dipping(DIP), Dipping(DIP)
    run(tmp_path, first)
    outcome = run(tmp_path, again)
    assert outcome.best_step == 6 and again.at == {}
    assert same(weights(again), weights(first))


def test_a_run_that_goes_on_compares_with_what_was_kept_before(tmp_path: Path) -> None:
    whole = Dipping(DIP)
    run(tmp_path / "whole", whole)
    run(tmp_path / "cut", Dipping(DIP), steps=6)
    rest = Dipping(DIP)
    outcome = run(tmp_path / "cut", rest)
    assert outcome.best_step == 6 and sorted(rest.at) == [8, 10]
    # the two halves have other learning rates, so it is the folder's weights that count
    kept = BestWeights(tmp_path / "cut" / "best", "error")
    assert (kept.step, kept.value) == (6, 1.0)
    other = TinyObjective()
    kept.load_into(other)
    assert same(weights(other), weights(rest))


@pytest.mark.parametrize("damage", ["cut", "state", "manifest", "empty"])
def test_damaged_best_weights_are_left_aside_and_replaced(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    run(tmp_path, Dipping(DIP), steps=6)
    folder = tmp_path / "best"
    if damage == "cut":
        file = folder / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-10])
    elif damage == "state":
        (folder / "state.json").write_text("[]")
    elif damage == "manifest":
        (folder / "manifest.json").unlink()
    else:
        for file in folder.iterdir():
            file.unlink()
    objective = Dipping(DIP)
    with caplog.at_level(logging.WARNING):
        outcome = run(tmp_path, objective)
    assert "damaged best weights left aside" in caplog.text and "\n" not in caplog.messages[0]
    assert outcome.best_step == 8, "the best of the passes that are left"
    assert same(weights(objective), objective.at[8])
    verify_manifest(folder)


def test_best_weights_of_another_model_do_not_load(tmp_path: Path) -> None:
    run(tmp_path, Dipping(DIP))
    with pytest.raises(CheckpointError, match=r"best: does not fit this model: .*Missing key"):
        BestWeights(tmp_path / "best", "error").load_into(nn.Linear(3, 3))


def test_only_the_process_that_writes_writes(tmp_path: Path) -> None:
    objective, best = TinyObjective(), BestWeights(tmp_path / "best", "error")
    best.offer(objective, 4, {"error": 2.0}, write=False)
    assert (best.step, best.value) == (4, 2.0) and not (tmp_path / "best").exists()
    best.offer(objective, 6, {"error": 1.0}, write=True)
    assert BestWeights(tmp_path / "best", "error").step == 6


# --- snapshots ---


def test_snapshots_are_the_weights_of_the_steps_asked_for(tmp_path: Path) -> None:
    objective = Dipping(DIP)
    start = weights(objective)
    run(tmp_path, objective, snapshots=(0, 2, 4, 7, 10, 99), checkpoint_every=2, keep_checkpoints=9)
    kept = read_snapshots(tmp_path)
    assert sorted(kept) == [0, 2, 4, 7, 10]
    assert same(kept[0], start)
    for step in (2, 4, 10):
        assert same(kept[step], load_model_state(tmp_path / "checkpoints" / f"step-{step:08d}"))
        assert same(kept[step], objective.at[step])
    assert not same(kept[7], kept[4]) and not same(kept[7], kept[10])


def test_snapshots_of_a_run_that_goes_on_are_those_of_a_whole_one(tmp_path: Path) -> None:
    asked = (0, 3, 6, 8)
    for name in ("whole", "cut"):
        run(tmp_path / name, Dipping(DIP), snapshots=asked, checkpoint_every=2, keep_checkpoints=9)
    for step in (8, 10):  # as if it had been killed after the checkpoint of step 6
        shutil.rmtree(tmp_path / "cut" / "checkpoints" / f"step-{step:08d}")
    (tmp_path / "cut" / "snapshots" / "step-00000008.safetensors").unlink()
    run(tmp_path / "cut", Dipping(DIP), snapshots=asked, checkpoint_every=2, keep_checkpoints=9)
    whole, cut = (read_snapshots(tmp_path / name) for name in ("whole", "cut"))
    assert whole.keys() == cut.keys() and all(same(whole[step], cut[step]) for step in whole)


def test_no_snapshots_are_kept_unless_asked_for_and_negative_steps_are_refused(tmp_path: Path) -> None:
    run(tmp_path, Dipping(DIP))
    assert read_snapshots(tmp_path) == {} and not (tmp_path / "snapshots").exists()
    with pytest.raises(ConfigError, match=r"train\.snapshots must be steps from 0 up, got \[-1\]"):
        TrainConfig(snapshots=(-1,))


@pytest.mark.parametrize("name", ["step-00000002.safetensors", "step-many.safetensors"])
def test_a_damaged_snapshot_is_named(tmp_path: Path, name: str) -> None:
    run(tmp_path, Dipping(DIP), snapshots=(2,))
    (tmp_path / "snapshots" / name).write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match=rf"{name}: cannot be read as weights") as error:
        read_snapshots(tmp_path)
    assert "\n" not in str(error.value)
