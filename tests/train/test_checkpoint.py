"""Whole state there and back, bit for bit; damage is found, named and stepped over."""

import json
import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from gridloom.core import faults
from gridloom.core.atomic import MANIFEST, new_folder
from gridloom.core.errors import CheckpointError
from gridloom.core.settings import TrainConfig
from gridloom.train.checkpoint import load_model_state, newest_checkpoint, restore, save_checkpoint
from gridloom.train.optim import make_optimizer
from tests.train.tiny import TinyObjective, TinySource, run, same, weights

Pair = tuple[nn.Module, torch.optim.Optimizer]


def stepped(steps: int = 3) -> Pair:
    objective = TinyObjective()
    optimizer = make_optimizer(objective, TrainConfig())
    for step in range(steps):
        optimizer.zero_grad()
        objective(TinySource().collate(range(step, step + 4), 0)).loss.mean().backward()
        optimizer.step()
    return objective, optimizer


def save(folder: Path, *steps: int, keep: int = 9) -> None:
    objective, optimizer = stepped()
    for step in steps:
        save_checkpoint(folder, objective, optimizer, step=step, record={"system": "tiny"}, keep=keep)


def optimizer_state(pair: Pair) -> dict[str, torch.Tensor]:
    names = {parameter: name for name, parameter in pair[0].named_parameters()}
    return {f"{names[p]}/{slot}": value for p, state in pair[1].state.items() for slot, value in state.items()}


def folders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def test_model_and_optimizer_come_back_bit_for_bit(tmp_path: Path) -> None:
    ours, theirs = stepped(3), stepped(1)
    path = save_checkpoint(tmp_path, *ours, step=3, record={"system": "tiny", "config": {"a": [1]}}, keep=2)
    found = newest_checkpoint(tmp_path)
    assert found is not None and found.path == path == tmp_path / "step-00000003" and found.step == 3
    assert found.record == {"step": 3, "system": "tiny", "config": {"a": [1]}}
    assert {file.name for file in path.iterdir()} == {
        *("model.safetensors", "optimizer.safetensors", "state.json", MANIFEST)
    }
    assert not same(weights(ours[0]), weights(theirs[0]))
    theirs[1].state[theirs[0].unused]["step"] = torch.ones(())  # of a parameter that had none when it was saved
    restore(found, *theirs)
    assert same(weights(ours[0]), weights(theirs[0])) and same(load_model_state(path), weights(ours[0]))
    assert same(optimizer_state(ours), optimizer_state(theirs)) and len(optimizer_state(ours)) == 18
    for pair in (ours, theirs):
        pair[1].zero_grad()
        pair[0](TinySource().collate(range(4), 7)).loss.mean().backward()
        pair[1].step()
    assert same(weights(ours[0]), weights(theirs[0]))


def test_tied_and_strided_weights_are_saved(tmp_path: Path) -> None:
    model = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)})
    model["b"].weight = model["a"].weight
    model.register_buffer("view", torch.arange(6.0).reshape(2, 3).T)
    save_checkpoint(tmp_path, model, make_optimizer(model, TrainConfig()), step=1, record={}, keep=2)
    state = load_model_state(tmp_path / "step-00000001")
    assert torch.equal(state["b.weight"], model["a"].weight) and torch.equal(state["view"], model.view)


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path / "nowhere") is None
    (tmp_path / ".step-00000009.tmp-x").mkdir()
    assert newest_checkpoint(tmp_path) is None


def test_only_the_newest_stay(tmp_path: Path) -> None:
    save(tmp_path, 2, 4, 6, 8, keep=2)
    assert folders(tmp_path) == ["step-00000006", "step-00000008"]
    assert (tmp_path / "latest").read_text() == "step-00000008\n"


def test_latest_names_a_folder_only_when_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 2)
    monkeypatch.setattr(faults, "_passed", Counter())
    monkeypatch.setenv("GRIDLOOM_FAULT", "checkpoint.latest:1:raise")
    with pytest.raises(OSError, match="injected"):
        save(tmp_path, 4, keep=1)
    assert (tmp_path / "latest").read_text() == "step-00000002\n"
    assert folders(tmp_path) == ["step-00000002", "step-00000004"], "nothing is swept before latest is moved"
    found = newest_checkpoint(tmp_path)
    assert found is not None and found.step == 4


@pytest.mark.parametrize("place", ["checkpoint.model", "checkpoint.optimizer", "atomic.manifest", "folder.rename"])
def test_a_failure_while_saving_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    save(tmp_path, 2)
    monkeypatch.setattr(faults, "_passed", Counter())
    monkeypatch.setenv("GRIDLOOM_FAULT", f"{place}:1:raise")
    with pytest.raises(OSError, match="injected"):
        save(tmp_path, 4)
    assert folders(tmp_path) == ["step-00000002"]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def other_state(path: Path, content: str) -> None:
    """A folder that agrees with its manifest, but whose state is not one."""
    files = {file.name: file.read_bytes() for file in path.iterdir() if file.name != MANIFEST}
    with new_folder(path, replace=True) as temporary:
        for name, data in files.items():
            (temporary / name).write_bytes(data)
        (temporary / "state.json").write_text(content)


FILES = ("model.safetensors", "optimizer.safetensors", "state.json", MANIFEST)
DAMAGES: dict[str, Callable[[Path], None]] = {
    **{f"cut {name}": lambda path, name=name: cut(path / name) for name in FILES},
    **{f"flipped {name}": lambda path, name=name: flip(path / name) for name in FILES},
    **{f"no {name}": lambda path, name=name: (path / name).unlink() for name in FILES},
    **{f"empty {name}": lambda path, name=name: (path / name).write_bytes(b"") for name in FILES},
    "state without step": lambda path: other_state(path, "{}"),
    "state is a list": lambda path: other_state(path, "[1]"),
    "state is no JSON": lambda path: other_state(path, "{"),
    "step is a word": lambda path: other_state(path, '{"step": "many"}'),
    "step is infinite": lambda path: other_state(path, '{"step": Infinity}'),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_newest_one_falls_back_with_a_warning(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, 2, 4)
    if name.startswith("cut manifest"):
        (tmp_path / "step-00000004" / MANIFEST).write_bytes(b'{"files": {')
    else:
        DAMAGES[name](tmp_path / "step-00000004")
    with caplog.at_level(logging.WARNING):
        found = newest_checkpoint(tmp_path)
    assert found is not None and found.step == 2
    assert len(caplog.records) == 1
    text = caplog.text
    assert "damaged checkpoint left aside" in text and "step-00000004" in text and "going on from" in text


def test_nothing_whole_raises_and_names_each(tmp_path: Path) -> None:
    save(tmp_path, 2, 4)
    for name in folders(tmp_path):
        flip(tmp_path / name / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"no checkpoint is whole: .*step-00000004.*; .*step-00000002"):
        newest_checkpoint(tmp_path)


def test_later_checkpoints_that_were_left_aside_never_push_out_good_ones(tmp_path: Path) -> None:
    save(tmp_path, 2, 6, 8)
    for name in ("step-00000006", "step-00000008"):
        cut(tmp_path / name / "model.safetensors")
    save(tmp_path, 3, keep=2)
    found = newest_checkpoint(tmp_path)
    assert found is not None and found.step == 3
    assert folders(tmp_path) == ["step-00000002", "step-00000003"]


def test_a_run_goes_on_from_the_one_before_and_ends_bit_equal(tmp_path: Path) -> None:
    whole, resumed = TinyObjective(dropout=0.2), TinyObjective(dropout=0.2)
    run(tmp_path / "whole", whole, steps=6)
    run(tmp_path / "cut", TinyObjective(dropout=0.2), steps=6)
    flip(tmp_path / "cut" / "checkpoints" / "step-00000006" / "optimizer.safetensors")
    outcome = run(tmp_path / "cut", resumed, steps=6)
    assert outcome.step == 6 and same(weights(resumed), weights(whole))
    for name in ("model.safetensors", "optimizer.safetensors"):
        paths = [tmp_path / kind / "checkpoints" / "step-00000006" / name for kind in ("whole", "cut")]
        assert same(*map(safetensors.torch.load_file, paths))


def test_a_model_that_does_not_fit_is_refused_with_its_keys(tmp_path: Path) -> None:
    save(tmp_path, 2)
    found = newest_checkpoint(tmp_path)
    assert found is not None
    wider, other = TinyObjective(), nn.Linear(2, 2)
    wider.layers[4] = nn.Linear(8, 2)
    with pytest.raises(
        CheckpointError, match=r"step-00000002: does not fit this model: .*layers\.4\.weight.*size"
    ) as e:
        restore(found, wider, make_optimizer(wider, TrainConfig()))
    assert "\n" not in str(e.value)
    with pytest.raises(CheckpointError, match=r"Missing key.*weight.*Unexpected key.*layers\.0\.weight"):
        restore(found, other, make_optimizer(other, TrainConfig()))


@pytest.mark.parametrize("key", ["stranger/exp_avg", "layers.0.weight"])
def test_optimizer_state_of_another_model_is_refused(tmp_path: Path, key: str) -> None:
    save(tmp_path, 2)
    path = tmp_path / "step-00000002"
    files = {file.name: file.read_bytes() for file in path.iterdir() if file.name != MANIFEST}
    with new_folder(path, replace=True) as temporary:
        for name, content in files.items():
            (temporary / name).write_bytes(content)
        safetensors.torch.save_file({key: torch.zeros(3)}, temporary / "optimizer.safetensors")
    found = newest_checkpoint(tmp_path)
    assert found is not None
    with pytest.raises(CheckpointError, match=rf"optimizer state for '{key}', which this model does not"):
        restore(found, *stepped(1))


def test_the_state_of_a_checkpoint_is_plain_json(tmp_path: Path) -> None:
    save(tmp_path, 2)
    assert json.loads((tmp_path / "step-00000002" / "state.json").read_text()) == {"step": 2, "system": "tiny"}


def test_optimizer_state_gets_the_strides_of_its_parameter(tmp_path: Path) -> None:
    """Fused kernels go through parameter and state by address: other strides would pair the wrong numbers."""

    def made() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Conv2d(4, 2, 1))
        model.to(memory_format=torch.channels_last)
        return model, torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)

    def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        picture = torch.arange(2 * 3 * 5 * 5, dtype=torch.float32).view(2, 3, 5, 5).sin()
        model(picture.contiguous(memory_format=torch.channels_last)).square().sum().backward()
        optimizer.step()

    model, optimizer = made()
    step(model, optimizer)
    save_checkpoint(tmp_path, model, optimizer, step=1, record={}, keep=2)
    again, its_optimizer = made()
    found = newest_checkpoint(tmp_path)
    assert found is not None
    restore(found, again, its_optimizer)
    for parameter in again.parameters():
        assert its_optimizer.state[parameter]["exp_avg"].stride() == parameter.stride()
    step(model, optimizer)
    step(again, its_optimizer)
    for ours, theirs in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(ours, theirs)
