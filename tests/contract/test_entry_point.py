"""A system of another package works like the built-in ones."""

from dataclasses import replace
from pathlib import Path

import torch

from gridloom.cli.main import main
from gridloom.core.registry import BUILT_IN, get_system, system_names
from gridloom.encoders.encoder import SemanticEncoder
from gridloom.encoders.extract import extract_encoder
from gridloom.workflows.train import train
from tests.contract.processes import KILLED, train_in_child
from tests.contract.test_battery import assert_same_bits, final_state


def test_it_is_found_by_its_entry_point() -> None:
    assert "tiny_forecast" not in BUILT_IN
    assert "tiny_forecast" in system_names()
    assert get_system("tiny_forecast").summary


def test_the_whole_way_beats_persistence(tmp_path: Path) -> None:
    system = get_system("tiny_forecast")
    config = system.presets["default"]()
    config = replace(config, train=replace(config.train, tensorboard=False, validate_every=0))
    result = train(system, config, output=tmp_path / "run", show=False)
    skill = next(s for s in result.scores if (s.metric, s.group, s.method) == ("skill", "all", "tiny_forecast"))
    assert skill.low > 0
    assert "tiny_forecast" in (tmp_path / "run" / "report.html").read_text()
    extract_encoder(tmp_path / "run", tmp_path / "encoder", verify=True)
    encoder = SemanticEncoder.from_pretrained(tmp_path / "encoder")
    batch = system.prepare(config).sources["test"].collate([0, 1], 0)
    assert torch.isfinite(encoder.encode(batch)).all()


def test_killed_it_resumes_bit_equal(tmp_path: Path) -> None:
    short = {"steps": 8, "checkpoint_every": 3, "tensorboard": False}
    assert train_in_child("tiny_forecast", tmp_path / "whole", **short) == 0
    assert train_in_child("tiny_forecast", tmp_path / "killed", fault="step:5:kill", **short) == KILLED
    assert train_in_child("tiny_forecast", tmp_path / "killed", **short) == 0
    assert_same_bits(final_state(tmp_path / "killed"), final_state(tmp_path / "whole"))


def test_its_help_lists_its_own_settings(capsys: object) -> None:
    try:
        main(["train", "tiny_forecast", "--help"])
    except SystemExit as stop:
        assert stop.code == 0
    assert "--num-times" in capsys.readouterr().out  # type: ignore[attr-defined]
