"""The training loop: what a step averages, what it refuses, and what a run leaves behind."""

import fcntl
import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from gridloom.core.batch import Batch, Step
from gridloom.core.contracts import Objective
from gridloom.core.errors import ConfigError, DataError, TrainingError
from gridloom.core.settings import TrainConfig
from gridloom.train.checkpoint import load_model_state, newest_checkpoint
from gridloom.train.distributed import Processes
from gridloom.train.log import read_metrics
from gridloom.train.loop import _Trainer
from tests.train.tiny import ALONE, SHORT, TinyObjective, TinySource, run, same, weights


def records(folder: Path, part: str = "train") -> list[dict[str, Any]]:
    return [record for record in read_metrics(folder / "metrics.jsonl") if record["part"] == part]


def losses(folder: Path, part: str = "train") -> list[float]:
    return [record["loss"] for record in records(folder, part)]


class Changed(TinyObjective):
    """Puts something else in the place of the result, from a step on."""

    def __init__(self, change: Callable[[Step], Any], first: int = 0) -> None:
        super().__init__()
        self.change, self.first, self.now = change, first, -1
        self.before: dict[str, torch.Tensor] = {}

    def begin_step(self, step: int) -> None:
        self.now = step
        self.before = {name: parameter.detach().clone() for name, parameter in self.named_parameters()}

    def forward(self, batch: Batch) -> Step:
        result = super().forward(batch)
        return self.change(result) if self.now >= self.first else result

    def is_unchanged(self) -> bool:
        return same(self.before, {name: parameter.detach() for name, parameter in self.named_parameters()})


# --- what a step is ---


def test_accumulation_changes_nothing(tmp_path: Path) -> None:
    for parts in (1, 2, 4):
        run(tmp_path / str(parts), accumulate=parts, steps=10)
    whole = records(tmp_path / "1")
    for parts in ("2", "4"):
        for mine, other in zip(records(tmp_path / parts), whole, strict=True):
            assert mine["loss"] == pytest.approx(other["loss"], abs=1e-6)
            assert mine["square"] == pytest.approx(other["square"], abs=1e-6)
            assert mine["gradient_norm"] == pytest.approx(other["gradient_norm"], rel=1e-4)


def test_a_step_is_the_mean_over_the_batch_in_float64(tmp_path: Path) -> None:
    """One step of the loop against a slow one by hand: plain mean, clipped, AdamW, in float64."""
    objective, reference, source = TinyObjective(), TinyObjective().double(), TinySource()
    run(tmp_path, objective, source, steps=1, clip_norm=0.05, weight_decay=0.1)
    windows, epoch = source.asked[0]
    batch = TinySource().collate(windows, epoch)
    field = batch.fields["x"]
    doubled = batch.with_field("x", type(field)(values=field.values.double(), valid=field.valid))
    result = reference(doubled)
    mean = result.loss.mean()
    mean.backward()
    gradients = {name: p.grad for name, p in reference.named_parameters() if p.grad is not None}
    norm = math.sqrt(sum(float(g.square().sum()) for g in gradients.values()))
    assert records(tmp_path)[0]["gradient_norm"] == pytest.approx(norm, rel=1e-5) and norm > 0.05
    assert losses(tmp_path)[0] == pytest.approx(mean.item(), rel=1e-6)
    for name, parameter in reference.named_parameters():
        if name in gradients:
            g = gradients[name] * 0.05 / (norm + 1e-6)
            decay = 0.1 if parameter.ndim >= 2 else 0.0
            parameter.data = parameter.data * (1 - 1e-2 * decay) - 1e-2 * g / (g.abs() + 1e-8)
    for name, parameter in objective.named_parameters():
        assert torch.allclose(parameter.double(), dict(reference.named_parameters())[name], atol=1e-5), name


def test_clipping_bounds_the_step_and_zero_turns_it_off(tmp_path: Path) -> None:
    seen: dict[float, float] = {}
    for clip in (0.0, 1e-3, 1e9):
        objective = TinyObjective()
        run(tmp_path / str(clip), objective, steps=1, clip_norm=clip)
        gradients = [p.grad for p in objective.parameters() if p.grad is not None]
        seen[clip] = float(torch.cat([g.flatten() for g in gradients]).norm())
    assert seen[1e-3] == pytest.approx(1e-3, rel=1e-3)
    assert seen[0.0] == seen[1e9] > 1e-2
    norms = [records(tmp_path / str(clip))[0]["gradient_norm"] for clip in seen]
    assert norms == pytest.approx([seen[0.0]] * 3, rel=1e-6), "the record shows the norm before clipping"


def test_a_parameter_without_a_gradient_stays_as_it_was(tmp_path: Path) -> None:
    objective = TinyObjective()
    objective.layers[0].weight.requires_grad_(False)
    before = weights(objective)
    run(tmp_path, objective)
    after = weights(objective)
    assert torch.equal(after["unused"], before["unused"])
    assert torch.equal(after["layers.0.weight"], before["layers.0.weight"])
    assert not torch.equal(after["layers.4.weight"], before["layers.4.weight"])


def test_bfloat16_learns_with_float32_weights(tmp_path: Path) -> None:
    class Watching(TinyObjective):
        def forward(self, batch: Batch) -> Step:
            self.kinds = {self.layers[0](batch.fields["x"].values[:, :4]).dtype}
            return super().forward(batch)

    objective = Watching()
    outcome = run(tmp_path, objective, precision="bf16", steps=60, checkpoint_every=60)
    assert objective.kinds == {torch.bfloat16}
    assert {tensor.dtype for tensor in load_model_state(outcome.checkpoint).values()} == {torch.float32}
    history = losses(tmp_path)
    assert sum(history[-10:]) < 0.9 * sum(history[:10])


def test_begin_step_hears_every_step_once_in_order(tmp_path: Path) -> None:
    heard: list[int] = []

    class Hearing(TinyObjective):
        def begin_step(self, step: int) -> None:
            heard.append(step)

    run(tmp_path, Hearing(), steps=3, accumulate=2)
    run(tmp_path, Hearing(), steps=5, accumulate=2)
    assert heard == [0, 1, 2, 3, 4]


def test_the_state_of_the_global_generator_changes_nothing(tmp_path: Path) -> None:
    ours, theirs = TinyObjective(dropout=0.3), TinyObjective(dropout=0.3)
    torch.manual_seed(1)
    run(tmp_path / "a", ours)
    torch.manual_seed(2)
    run(tmp_path / "b", theirs)
    assert same(weights(ours), weights(theirs))


# --- what is refused ---


def test_a_gradient_that_is_not_finite_updates_nothing(tmp_path: Path) -> None:
    objective = Changed(lambda step: Step(loss=(step.loss * 0).sqrt(), metrics={}), first=3)
    with pytest.raises(TrainingError, match="gradient is not finite at step 3; nothing was updated"):
        run(tmp_path, objective)
    assert objective.is_unchanged()
    found = newest_checkpoint(tmp_path / "checkpoints")
    assert found is not None and found.step == 2
    assert [record["step"] for record in records(tmp_path)] == [1, 2, 3]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_names_its_windows_and_updates_nothing(tmp_path: Path, bad: float) -> None:
    objective = Changed(lambda step: Step(loss=step.loss.index_fill(0, torch.tensor([1]), bad), metrics={}), first=2)
    source = TinySource()
    with pytest.raises(
        TrainingError, match=r"the loss is not finite at step 2 in windows \[(\d+)\]; nothing"
    ) as caught:
        run(tmp_path, objective, source, accumulate=2)
    assert f"[{source.asked[2][0][1]}]" in str(caught.value)
    assert objective.is_unchanged()


@pytest.mark.parametrize(
    ("change", "came"),
    [
        (lambda loss: loss.mean(), r"\[\]"),
        (lambda loss: loss[:1], r"\[1\]"),
        (lambda loss: loss[:, None], r"\[4, 1\]"),
        (lambda loss: torch.cat([loss, loss]), r"\[8\]"),
    ],
)
def test_a_loss_of_another_shape_is_refused(tmp_path: Path, change: Callable[[Any], Any], came: str) -> None:
    objective = Changed(lambda step: SimpleNamespace(loss=change(step.loss), metrics={}))
    with pytest.raises(TrainingError, match=rf"must return one loss per sample, expected \[4\], got {came}"):
        run(tmp_path, objective)
    assert objective.is_unchanged()


def test_a_second_run_in_the_folder_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    with (tmp_path / ".lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="another process is training in this folder; choose another --output"):
            run(tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {".lock"}
    assert run(tmp_path).step == 6
    with pytest.raises(TrainingError):
        run(tmp_path / "failed", Changed(lambda step: Step(loss=step.loss * math.nan, metrics={})))
    assert run(tmp_path / "failed").step == 6, "a run that failed holds the folder no longer"


def test_a_checkpoint_past_the_end_is_refused_and_one_at_the_end_is_enough(tmp_path: Path) -> None:
    first = run(tmp_path, steps=6)
    source, objective = TinySource(), TinyObjective()
    again = run(tmp_path, objective, source, steps=6)
    assert again == first and source.asked == []
    assert same(weights(objective), load_model_state(first.checkpoint))
    assert [record["step"] for record in records(tmp_path)] == [1, 2, 3, 4, 5, 6]
    with pytest.raises(DataError, match=r"step-00000006 is at step 6, past train\.steps 5"):
        run(tmp_path, steps=5)


@pytest.mark.parametrize("threads", [0, 2])
def test_a_failure_to_read_ends_the_run_with_its_own_error(tmp_path: Path, threads: int) -> None:
    class Failing(TinySource):
        def collate(self, windows: Sequence[int], epoch: int) -> Batch:
            if epoch == 1:  # from step 5 on
                raise DataError("the disk is gone")
            return super().collate(windows, epoch)

    with pytest.raises(DataError, match="the disk is gone"):
        run(tmp_path, None, Failing(), steps=9, loader_threads=threads)
    found = newest_checkpoint(tmp_path / "checkpoints")
    assert found is not None and found.step == 4
    run(tmp_path, steps=9, loader_threads=threads)
    run(tmp_path / "whole", steps=9)
    assert losses(tmp_path) == losses(tmp_path / "whole")


@pytest.mark.parametrize(("accumulate", "world"), [(3, 1), (1, 3), (2, 4)])
def test_a_batch_that_cannot_be_shared_out_is_refused(accumulate: int, world: int) -> None:
    peers = Processes(rank=0, world=world, device=torch.device("cpu"))
    config = TrainConfig(**{**SHORT, "accumulate": accumulate})
    with pytest.raises(ConfigError, match=rf"batch_size 4 must be a multiple .*\({world} x {accumulate}\)"):
        _Trainer(Unwrapped(), {"train": TinySource()}, config, seed=0, peers=Alone(**vars(peers)))


# --- validation ---


class Alone(Processes):
    """A process among others that nobody else hears."""

    def wrap(self, objective: Objective) -> nn.Module:
        return objective

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        return values


class Unwrapped(TinyObjective):
    """Mean of its windows, so that validation can be checked by hand."""

    def forward(self, batch: Batch) -> Step:
        assert not self.training
        return Step(loss=batch.window.float(), metrics={"ones": torch.ones(len(batch))})


def validation(size: int, *, rank: int = 0, world: int = 1, **changes: Any) -> tuple[dict[str, float], list[int]]:
    source = TinySource(size)
    config = TrainConfig(**{**SHORT, **changes})
    peers = Alone(rank=rank, world=world, device=torch.device("cpu"))
    trainer = _Trainer(Unwrapped(), {"train": TinySource(), "validation": source}, config, seed=0, peers=peers)
    found = trainer.validate()
    assert trainer.objective.training
    return found, [window for asked, epoch in source.asked for window in asked if epoch == 0]


@pytest.mark.parametrize(("size", "count"), [(100, 10), (100, 3), (7, 100), (7, 7), (1, 5), (50, 1), (10, 9)])
def test_validation_looks_at_windows_spread_evenly_over_the_part(size: int, count: int) -> None:
    found, windows = validation(size, validate_windows=count)
    assert windows == sorted(set(windows)) and len(windows) == min(size, count)
    assert found == {"loss": pytest.approx(sum(windows) / len(windows)), "ones": 1.0}
    if len(windows) > 1:
        assert windows[0] == 0 and windows[-1] == size - 1
        gaps = [b - a for a, b in pairwise(windows)]
        assert max(gaps) - min(gaps) <= 1


@pytest.mark.parametrize(("size", "world"), [(10, 2), (7, 4), (1, 2), (2, 4)])
def test_the_processes_share_the_validation_windows(size: int, world: int) -> None:
    parts = [validation(size, rank=rank, world=world) for rank in range(world)]
    assert [sorted(found) for found, _ in parts] == [["loss", "ones"]] * world, "they must all sum the same figures"
    assert sum(found["ones"] for found, _ in parts) == pytest.approx(1.0)
    assert sum(found["loss"] for found, _ in parts) == pytest.approx((size - 1) / 2)


def test_validation_comes_when_due_and_at_the_end_and_leaves_training_alone(tmp_path: Path) -> None:
    held_out = TinySource(9)
    ours, theirs = TinyObjective(dropout=0.2), TinyObjective(dropout=0.2)
    run(tmp_path / "with", ours, validation=held_out, steps=7, validate_every=3, batch_size=4)
    run(tmp_path / "without", theirs, steps=7)
    assert [record["step"] for record in records(tmp_path / "with", "validation")] == [3, 6, 7]
    assert len(held_out.asked) == 9 and held_out.asked[:3] == held_out.asked[3:6] == held_out.asked[6:]
    assert same(weights(ours), weights(theirs))
    assert records(tmp_path / "without", "validation") == []
    run(tmp_path / "off", validation=held_out, validate_every=0)
    assert records(tmp_path / "off", "validation") == []


# --- what is left behind ---


def test_checkpoints_come_when_due_and_at_the_end(tmp_path: Path) -> None:
    outcome = run(tmp_path, steps=7, checkpoint_every=3, keep_checkpoints=3)
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["latest", "step-00000003", "step-00000006", "step-00000007"]
    assert outcome.checkpoint == tmp_path / "checkpoints" / "step-00000007"
    found = newest_checkpoint(tmp_path / "checkpoints")
    assert found is not None and found.record == {"step": 7, "a": 1}


def test_records_come_when_due_and_at_the_end_with_rate_and_norm(tmp_path: Path) -> None:
    run(tmp_path, steps=7, log_every=3)
    found = records(tmp_path)
    assert [record["step"] for record in found] == [3, 6, 7]
    keys = {"step", "part", "loss", "square", "gradient_norm", "learning_rate", "windows_per_second"}
    assert all(set(record) == keys and record["windows_per_second"] > 0 for record in found)
    assert found[-1]["learning_rate"] == pytest.approx(TrainConfig().final_learning_rate)


def test_alone_means_one_process_whose_sums_are_its_own() -> None:
    values = torch.tensor([1.0, 2.0])
    assert ALONE.is_first and ALONE.sum(values) is values
    objective = TinyObjective()
    assert ALONE.wrap(objective) is objective
    ALONE.wait()
