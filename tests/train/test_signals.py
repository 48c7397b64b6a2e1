"""Being asked to stop ends a run after the step at hand, with a valid checkpoint."""

import os
import signal
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
import safetensors.torch
import torch

from gridloom.core.batch import Batch
from gridloom.train.checkpoint import newest_checkpoint
from gridloom.train.log import read_metrics
from gridloom.train.signals import StopRequest
from tests.contract.processes import start
from tests.train.tiny import TinyObjective, TinySource, run, same, weights

NUMBERS = (signal.SIGINT, signal.SIGTERM)


class Signaling(TinySource):
    """Sends signals to its own process while the batches of some steps are read."""

    def __init__(self, number: signal.Signals, *steps: int) -> None:
        super().__init__()
        self.number, self.steps = number, steps

    def collate(self, windows: Sequence[int], epoch: int) -> Batch:
        if len(self.asked) in self.steps:
            os.kill(os.getpid(), self.number)
        return super().collate(windows, epoch)


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in NUMBERS]


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_is_remembered_once_and_the_second_is_as_usual(number: signal.Signals) -> None:
    before = handlers()
    with StopRequest() as request:
        assert request.signal is None and handlers() != before
        os.kill(os.getpid(), number)
        assert request.signal is number
        assert handlers() == before, "a second one gets the usual treatment"
    assert handlers() == before


def test_handlers_come_back_after_a_failure() -> None:
    before = handlers()
    with pytest.raises(KeyError), StopRequest():
        raise KeyError
    assert handlers() == before


def test_another_thread_leaves_the_signals_alone() -> None:
    before, seen = handlers(), []

    def work() -> None:
        with StopRequest() as request:
            seen.append((request.signal, handlers()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(None, before)]


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("threads", [0, 2])
def test_a_stopped_run_goes_on_and_ends_bit_equal(tmp_path: Path, number: signal.Signals, threads: int) -> None:
    whole, first, second = (TinyObjective(dropout=0.2) for _ in range(3))
    run(tmp_path / "whole", whole, steps=8, checkpoint_every=100)
    outcome = run(tmp_path / "cut", first, Signaling(number, 3), steps=8, checkpoint_every=100, loader_threads=threads)
    # With threads the batch of step 3 is read ahead, and the run may stop earlier.
    assert outcome.stopped_by == number.name and (outcome.step == 4 if threads == 0 else 1 <= outcome.step <= 5)
    found = newest_checkpoint(tmp_path / "cut" / "checkpoints")
    assert found is not None and found.step == outcome.step and found.path == outcome.checkpoint
    outcome = run(tmp_path / "cut", second, steps=8, checkpoint_every=100, loader_threads=threads)
    assert outcome.step == 8 and outcome.stopped_by is None and same(weights(second), weights(whole))
    for name in ("model.safetensors", "optimizer.safetensors"):
        paths = [tmp_path / kind / "checkpoints" / "step-00000008" / name for kind in ("whole", "cut")]
        assert same(*map(safetensors.torch.load_file, paths))
    ours, theirs = (read_metrics(tmp_path / kind / "metrics.jsonl") for kind in ("cut", "whole"))
    assert [(record["step"], record["loss"]) for record in ours] == [(r["step"], r["loss"]) for r in theirs]


def test_a_signal_in_the_last_step_stops_nothing(tmp_path: Path) -> None:
    class Late(TinyObjective):
        def begin_step(self, step: int) -> None:
            if step == 5:
                os.kill(os.getpid(), signal.SIGTERM)

    outcome = run(tmp_path, Late(), steps=6)
    assert outcome.step == 6 and outcome.stopped_by is None


def test_a_second_interrupt_interrupts_at_once(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(
            tmp_path,
            None,
            Signaling(signal.SIGINT, 1),
            steps=8,
            validate_every=2,
            checkpoint_every=8,
            validation=Interrupting(),
        )
    found = newest_checkpoint(tmp_path / "checkpoints")
    assert found is None, "nothing half done is saved"


class Interrupting(TinySource):
    """Is interrupted while a validation batch is read."""

    def collate(self, windows: Sequence[int], epoch: int) -> Batch:
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the second signal must interrupt")


def train_until_stopped(folder: Path, ready: Path) -> None:
    """A long run that says when it is under way."""

    class Telling(TinySource):
        def collate(self, windows: Sequence[int], epoch: int) -> Batch:
            if len(self.asked) == 3:
                ready.touch()
            return super().collate(windows, epoch)

    outcome = run(folder, None, Telling(), steps=10**6, checkpoint_every=10**6, log_every=10**6)
    (folder / "outcome").write_text(f"{outcome.step} {outcome.stopped_by}")


@pytest.mark.parametrize("number", NUMBERS)
def test_a_process_that_gets_a_signal_ends_well(tmp_path: Path, number: signal.Signals) -> None:
    child = start(train_until_stopped, tmp_path, tmp_path / "ready")
    try:
        for _ in range(6000):
            if (tmp_path / "ready").exists():
                break
            child.join(0.01)
        assert child.exitcode is None and child.pid is not None
        os.kill(child.pid, number)
        child.join(60)
    finally:
        child.kill()
    assert child.exitcode == 0
    step, by = (tmp_path / "outcome").read_text().split()
    found = newest_checkpoint(tmp_path / "checkpoints")
    assert by == number.name and found is not None and found.step == int(step) >= 3
    assert torch.isfinite(safetensors.torch.load_file(found.path / "model.safetensors")["layers.0.weight"]).all()
