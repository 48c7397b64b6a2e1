"""What a run says: metrics.jsonl, events, progress."""

import json
import logging
import math
from pathlib import Path

import pytest

from gridloom.core.errors import DataError
from gridloom.train import log
from gridloom.train.log import RunLog, read_metrics


def open_log(folder: Path, first_step: int = 0, *, tensorboard: bool = False, show: bool = False) -> RunLog:
    return RunLog(folder, first_step=first_step, last_step=10, tensorboard=tensorboard, show=show)


def steps(folder: Path) -> list[int]:
    return [record["step"] for record in read_metrics(folder / "metrics.jsonl")]


def test_records_are_read_as_written(tmp_path: Path) -> None:
    with open_log(tmp_path) as run:
        run.record(1, "train", {"loss": 0.1 + 0.2, "gradient_norm": 3.0})
        assert steps(tmp_path) == [1], "a record is on disk at once"
        run.record(1, "validation", {"loss": math.inf})
    assert read_metrics(tmp_path / "metrics.jsonl") == [
        {"step": 1, "part": "train", "loss": 0.1 + 0.2, "gradient_norm": 3.0},
        {"step": 1, "part": "validation", "loss": math.inf},
    ]


def test_records_later_than_the_resumed_step_are_dropped(tmp_path: Path) -> None:
    with open_log(tmp_path) as run:
        for step in range(1, 8):
            run.record(step, "train", {"loss": float(step)})
    with open_log(tmp_path, first_step=4) as run:
        assert steps(tmp_path) == [1, 2, 3, 4]
        run.record(5, "train", {"loss": 50.0})
    assert [record["loss"] for record in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4, 50]
    with open_log(tmp_path):
        assert steps(tmp_path) == [], "a run that begins anew keeps nothing"


@pytest.mark.parametrize("rest", ['{"step": 3, "pa', "{", '{"step": 3, "part": "train", "loss": 1.0'])
def test_a_last_line_that_was_cut_off_is_left_out(tmp_path: Path, rest: str) -> None:
    with open_log(tmp_path) as run:
        run.record(1, "train", {"loss": 1.0})
        run.record(2, "train", {"loss": 1.0})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(rest)
    assert steps(tmp_path) == [1, 2]
    with open_log(tmp_path, first_step=2) as run:
        run.record(3, "train", {"loss": 2.0})
    assert steps(tmp_path) == [1, 2, 3]


def test_a_line_in_the_middle_that_is_no_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"st\n{"step": 2}\n')
    with pytest.raises(DataError, match=r"metrics\.jsonl:2: not a JSON record: '\{\"st'"):
        read_metrics(tmp_path / "metrics.jsonl")


def test_metrics_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"metrics\.jsonl: expected the metrics of a run"):
        read_metrics(tmp_path / "metrics.jsonl")


def test_events_are_written_where_asked(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with open_log(tmp_path / "on", tensorboard=True) as run:
        run.record(1, "train", {"loss": 0.5})
        run.record(2, "train", {"loss": 0.25})
        run.record(2, "validation", {"loss": 0.75})
    events = EventAccumulator(str(tmp_path / "on" / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(1, 0.5), (2, 0.25)]
    assert [(event.step, event.value) for event in events.Scalars("validation/loss")] == [(2, 0.75)]
    with open_log(tmp_path / "off") as run:
        run.record(1, "train", {"loss": 0.5})
    assert not (tmp_path / "off" / "tensorboard").exists()


def test_off_a_terminal_a_line_now_and_then_says_where_the_run_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    with caplog.at_level(logging.INFO), open_log(tmp_path, show=True) as run:
        run.progress(1, {"loss": 0.125})
        assert caplog.records == [], "not so soon"
        monkeypatch.setattr(log, "_QUIET_SECONDS", -1.0)
        run.progress(2, {"loss": 0.125})
        run.progress(3)
    first, second = (record.getMessage() for record in caplog.records)
    assert first.startswith("step 2 of 10, ") and "steps/s" in first and first.endswith("loss 0.125")
    assert second.startswith("step 3 of 10, ")


def test_a_run_that_should_be_silent_says_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(log, "_QUIET_SECONDS", -1.0)
    with caplog.at_level(logging.INFO), open_log(tmp_path) as run:
        run.progress(1, {"loss": 1.0})
    assert caplog.records == [] and capfd.readouterr() == ("", "")


def test_on_a_terminal_there_is_a_bar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with open_log(tmp_path, show=True) as run:
        run.progress(7, {"loss": 0.125})
    captured = capsys.readouterr()
    assert "training" in captured.err and "7/10" in captured.err and "0.125" in captured.err and captured.out == ""


def test_files_are_closed_when_a_run_fails(tmp_path: Path) -> None:
    run = open_log(tmp_path)
    with pytest.raises(KeyError), run:
        run.record(1, "train", {"loss": 1.0})
        raise KeyError
    assert run._file.closed and json.loads(run.path.read_text())["step"] == 1
