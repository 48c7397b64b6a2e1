"""`train.ema_decay` and `train.patience`: averaged weights, and stopping when nothing gets better."""

from pathlib import Path
from typing import Any

import pytest
import torch

from gridloom.core.errors import CheckpointError, ConfigError
from gridloom.core.settings import TrainConfig
from gridloom.train.average import WeightAverage
from gridloom.train.checkpoint import load_model_state
from tests.contract.processes import KILLED, train_in_child
from tests.contract.test_battery import assert_same_bits, final_state
from tests.train.test_best import DIP, Dipping
from tests.train.test_best import run as run_dipping
from tests.train.tiny import TinyObjective, TinySource, run, same, weights


class Remembers(TinyObjective):
    """Keeps its parameters as they are at the beginning of each step."""

    def __init__(self) -> None:
        super().__init__()
        self.history: list[dict[str, torch.Tensor]] = []

    def begin_step(self, step: int) -> None:
        self.history.append({name: value.detach().double().clone() for name, value in self.named_parameters()})


def test_a_run_ends_with_the_running_average_of_its_weights(tmp_path: Path) -> None:
    objective = Remembers()
    outcome = run(tmp_path, objective, ema_decay=0.9)
    last = load_model_state(outcome.checkpoint)
    states = [*objective.history[1:], {name: last[name].double() for name in objective.history[0]}]
    for name, value in objective.named_parameters():
        wanted = objective.history[0][name]
        for update, state in enumerate(states, start=1):
            decay = min(0.9, (1 + update) / (10 + update))
            wanted = decay * wanted + (1 - decay) * state[name]
        assert torch.allclose(value.detach().double(), wanted, atol=1e-6)
        assert name == "unused" or not torch.allclose(value, last[name])


def test_averaging_does_not_change_training(tmp_path: Path) -> None:
    checkpoints = [run(tmp_path / str(decay), ema_decay=decay).checkpoint for decay in (0.0, 0.99)]
    assert same(*(load_model_state(checkpoint) for checkpoint in checkpoints))


def test_validation_and_the_best_weights_are_those_of_the_average(tmp_path: Path) -> None:
    objective = Dipping(DIP)
    outcome = run_dipping(tmp_path, objective, ema_decay=0.9)
    assert outcome.best_step == 6 and same(weights(objective), objective.at[6])
    plain = Dipping(DIP)
    run_dipping(tmp_path / "plain", plain)
    assert not same(plain.at[6], objective.at[6])


def test_an_average_of_another_model_is_refused(tmp_path: Path) -> None:
    average = WeightAverage(TinyObjective(), 0.9)
    with pytest.raises(CheckpointError, match=r"not there; the run was trained without train\.ema_decay"):
        average.load(tmp_path / "average.safetensors")
    WeightAverage(torch.nn.Linear(2, 2), 0.9).save(tmp_path / "average.safetensors")
    with pytest.raises(CheckpointError, match="not the averaged weights of this model"):
        average.load(tmp_path / "average.safetensors")


def test_training_stops_when_patience_is_out(tmp_path: Path) -> None:
    objective = Dipping({**DIP, 12: 0.5})
    outcome = run_dipping(tmp_path, objective, steps=12, patience=2)
    assert (outcome.step, outcome.best_step, outcome.stopped_by) == (10, 6, None)
    assert outcome.checkpoint.name == "step-00000010" and outcome.checkpoint.is_dir()
    assert same(weights(objective), objective.at[6])


def test_patience_that_lasts_stops_nothing(tmp_path: Path) -> None:
    outcome = run_dipping(tmp_path, Dipping({**DIP, 12: 0.5}), steps=12, patience=3)
    assert (outcome.step, outcome.best_step) == (12, 12)


def test_a_run_that_stopped_early_stays_stopped_when_it_is_called_again(tmp_path: Path) -> None:
    run_dipping(tmp_path, Dipping(DIP), steps=12, patience=2)
    source = TinySource()
    objective = Dipping({})
    outcome = run_dipping(tmp_path, objective, steps=12, patience=2)
    assert (outcome.step, outcome.best_step) == (10, 6) and not source.asked
    assert objective.at == {}, "nothing was validated again"


@pytest.mark.parametrize("fault", ["step:5:kill", "atomic.manifest:2:kill"])
def test_a_killed_run_goes_on_with_its_average(tmp_path: Path, fault: str) -> None:
    changes: dict[str, Any] = {"ema_decay": 0.9, "keep": "best", "patience": 3, "validate_every": 2, "steps": 8}
    assert train_in_child("fake_point", tmp_path / "whole", **changes) == 0
    assert train_in_child("fake_point", tmp_path / "killed", fault=fault, **changes) == KILLED
    assert train_in_child("fake_point", tmp_path / "killed", **changes) == 0
    assert_same_bits(final_state(tmp_path / "killed"), final_state(tmp_path / "whole"))
    assert_same_bits(load_model_state(tmp_path / "killed" / "best"), load_model_state(tmp_path / "whole" / "best"))
    kept = [
        (tmp_path / which / "checkpoints" / "step-00000008" / "average.safetensors").read_bytes()
        for which in ("killed", "whole")
    ]
    assert kept[0] == kept[1]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"patience": 2}, r"train\.patience needs train\.keep best"),
        ({"patience": -1, "keep": "best"}, r"train\.patience must be 0 or more"),
        ({"ema_decay": 1.0}, r"train\.ema_decay must be 0 <= decay < 1, got 1\.0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        TrainConfig(**settings)
