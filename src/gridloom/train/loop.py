"""The training loop.

The loss of a step is the mean over the global batch of one loss per sample, whatever the number of processes and of
accumulated parts. Which windows a step sees, and every random draw in it, are functions of (seed, step): a run killed
at any step and resumed ends bit-equal to one that never stopped.
"""

import contextlib
import fcntl
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gridloom.core import faults
from gridloom.core.batch import Batch
from gridloom.core.contracts import Objective, Source
from gridloom.core.errors import ConfigError, DataError, TrainingError
from gridloom.core.random import window_keys
from gridloom.core.settings import TrainConfig
from gridloom.train.average import WeightAverage
from gridloom.train.best import BestWeights
from gridloom.train.checkpoint import newest_checkpoint, restore, save_checkpoint, save_snapshot
from gridloom.train.distributed import Processes
from gridloom.train.loader import batches, check_enough
from gridloom.train.log import RunLog
from gridloom.train.optim import learning_rate, make_optimizer
from gridloom.train.signals import StopRequest

__all__ = ["Outcome", "train"]

_LOGGER = logging.getLogger(__name__)
_AVERAGE = "average.safetensors"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended.

    Attributes:
        step: Optimizer steps made; fewer than `train.steps` after a signal, or once `train.patience` was out.
        stopped_by: Name of the signal that ended it early; None if it went through.
        checkpoint: The last checkpoint.
        best_step: Step whose weights the objective ended with, with `train.keep best`; None otherwise.
    """

    step: int
    stopped_by: str | None
    checkpoint: Path
    best_step: int | None = None


@contextlib.contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    """Refuse a second run in the same folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(
                f"{folder}: another process is training in this folder; choose another --output"
            ) from None
        yield


def _seed_step(seed: int, step: int, peers: Processes) -> None:
    """Dropout and the like draw from the device's global generator: set it anew for each step.

    Not `torch.manual_seed`: where there is no CUDA it formats a stack trace each time, a third of a millisecond.
    """
    value = int(window_keys(seed, step, [peers.rank])[0])
    torch.default_generator.manual_seed(value)
    if peers.device.type == "cuda":
        torch.cuda.manual_seed(value)


class _Trainer:
    def __init__(
        self, objective: Objective, sources: Mapping[str, Source], config: TrainConfig, *, seed: int, peers: Processes
    ) -> None:
        self.objective, self.sources, self.config, self.seed, self.peers = objective, sources, config, seed, peers
        self.model: nn.Module = peers.wrap(objective)
        self.optimizer = make_optimizer(objective, config)
        self.parameters = [parameter for parameter in objective.parameters() if parameter.requires_grad]
        if config.batch_size % (peers.world * config.accumulate):
            raise ConfigError(
                f"train.batch_size {config.batch_size} must be a multiple of processes x train.accumulate "
                f"({peers.world} x {config.accumulate})"
            )
        check_enough(sources["train"], config.batch_size, "train")
        self.average = WeightAverage(objective, config.ema_decay) if config.ema_decay else None

    def averaged(self) -> contextlib.AbstractContextManager[None]:
        """Put the averaged weights into the objective for a while, where there are any."""
        return self.average.in_place() if self.average is not None else contextlib.nullcontext()

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.config.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.peers.device.type, torch.bfloat16)

    def step(self, step: int, batch: Batch, stop: bool) -> tuple[dict[str, Tensor], bool]:
        """Make one optimizer step; returns sums over the global batch, and whether any process is asked to stop."""
        config, world = self.config, self.peers.world
        self.objective.begin_step(step)
        _seed_step(self.seed, step, self.peers)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, config)
        self.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        stopping = False
        size = len(batch) // config.accumulate
        for part in range(config.accumulate):
            last = part == config.accumulate - 1
            piece = batch.take(slice(part * size, (part + 1) * size)).to(self.peers.device)
            sync = contextlib.nullcontext() if last or world == 1 else self.model.no_sync()  # type: ignore[operator]
            with sync:
                with self._autocast():
                    result = self.model(piece)
                stopping = self._check_loss(result.loss, piece, step, stop)
                # The processes' gradients are averaged: scale by their number so that the sum is over the global batch.
                (result.loss.float().sum() * (world / config.batch_size)).backward()
            for name, value in {"loss": result.loss, **result.metrics}.items():
                sums[name] = sums.get(name, torch.zeros((), device=value.device)) + value.detach().float().sum()
        sums["gradient_norm"] = self._update(step)
        return sums, stopping

    def _check_loss(self, loss: Tensor, piece: Batch, step: int, stop: bool) -> bool:
        """Raise in all processes, before any update, if one of them has a loss that is not finite."""
        if loss.ndim != 1 or len(loss) != len(piece):
            raise TrainingError(
                f"an objective must return one loss per sample, expected [{len(piece)}], got {list(loss.shape)}"
            )
        finite = torch.isfinite(loss.detach())
        flags = torch.tensor([float(stop), float(not bool(finite.all()))], device=loss.device)
        stopping, broken = self.peers.sum(flags).tolist()
        if broken:
            windows = piece.window[~finite].tolist()
            where = f"in windows {windows[:5]}" if windows else "in another process"
            raise TrainingError(
                f"the loss is not finite at step {step} {where}; nothing was updated, the last checkpoint is good. "
                f"Check the data there, or lower --train.learning-rate"
            )
        return bool(stopping)

    def _update(self, step: int) -> Tensor:
        norm = nn.utils.clip_grad_norm_(self.parameters, self.config.clip_norm or float("inf"))
        if not bool(torch.isfinite(norm)):
            raise TrainingError(
                f"the gradient is not finite at step {step}; nothing was updated, the last checkpoint is good. "
                f"Lower --train.learning-rate, or use --train.precision fp32"
            )
        self.optimizer.step()
        return norm

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Mean loss and metrics over windows spread evenly over the validation part, the same ones each time."""
        source, config = self.sources["validation"], self.config
        count = min(config.validate_windows, len(source))
        windows = np.unique(np.linspace(0, len(source) - 1, count).round().astype(np.int64))
        share = np.array_split(windows, self.peers.world)[self.peers.rank]
        # With fewer windows than processes some have none: they look at one without counting it, so that all sum the
        # same figures.
        counts = len(share) > 0
        share = share if counts else windows[:1]
        size = max(1, config.batch_size // (self.peers.world * config.accumulate))
        totals: dict[str, float] = {}
        self.objective.eval()
        for start in range(0, len(share), size):
            batch = source.collate(share[start : start + size].tolist(), 0).to(self.peers.device)
            with self._autocast():
                result = self.objective(batch)
            for name, value in {"loss": result.loss, **result.metrics}.items():
                totals[name] = totals.get(name, 0.0) + (float(value.double().sum()) if counts else 0.0)
        self.objective.train()
        names = sorted(totals)
        summed = self.peers.sum(
            torch.tensor([totals[name] for name in names], dtype=torch.float64, device=self.peers.device)
        )
        return {name: value / len(windows) for name, value in zip(names, summed.tolist(), strict=True)}

    @torch.no_grad()
    def pictures(self) -> Mapping[str, Tensor]:
        """Maps of the middle window of the validation part, on the first process alone: they may not communicate."""
        source = self.sources["validation"]
        batch = source.collate([len(source) // 2], 0).to(self.peers.device)
        self.objective.eval()
        with self._autocast():
            maps = self.objective.pictures(batch)
        self.objective.train()
        return maps

    def means(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Means over the global batch; the gradient's norm is the same everywhere."""
        names = [name for name in sums if name != "gradient_norm"]
        values = self.peers.sum(torch.stack([sums[name] for name in names])) / self.config.batch_size
        return {**dict(zip(names, values.tolist(), strict=True)), "gradient_norm": float(sums["gradient_norm"])}


def train(  # noqa: PLR0913 - each is one thing that a run depends on
    objective: Objective,
    sources: Mapping[str, Source],
    config: TrainConfig,
    *,
    seed: int,
    folder: Path,
    peers: Processes,
    record: Mapping[str, Any],
    monitor: str = "loss",
    show: bool = True,
) -> Outcome:
    """Train until `config.steps`, going on from the newest checkpoint in `folder` if there is one.

    Args:
        objective: The model with its loss; it is trained in place.
        sources: `train`, and `validation` where there is one.
        config: How long and how to train.
        seed: Seed of order, draws and dropout.
        folder: The run folder.
        peers: This process among others.
        record: JSON saved with each checkpoint; says what the run is.
        monitor: What `train.keep best` goes by: a figure of the validation pass, low is good.
        show: Show progress in the first process.

    Raises:
        ConfigError: `train.keep best` without a validation part, or with a monitor that it does not measure.
        TrainingError: Loss or gradient is not finite; nothing was updated.
        CheckpointError: There are checkpoints, but none is whole.
    """
    with _exclusive(folder) if peers.is_first else contextlib.nullcontext():
        trainer = _Trainer(objective.to(peers.device), sources, config, seed=seed, peers=peers)
        best = BestWeights(folder / "best", monitor) if config.keep == "best" else None
        if best is not None and "validation" not in sources:
            raise ConfigError("train.keep best needs a validation part; this data has none, use --train.keep last")
        outcome = _run(trainer, folder, record, best, show)
        if outcome.stopped_by is not None:
            return outcome
        if best is not None:
            best.load_into(trainer.objective)
            return replace(outcome, best_step=best.step)
        if trainer.average is not None:
            trainer.average.load_into_model()
        return outcome


def _run(trainer: _Trainer, folder: Path, record: Mapping[str, Any], best: BestWeights | None, show: bool) -> Outcome:
    config, peers = trainer.config, trainer.peers
    checkpoints = folder / "checkpoints"
    found = newest_checkpoint(checkpoints)
    if found is not None:
        restore(found, trainer.objective, trainer.optimizer)
        if trainer.average is not None:
            trainer.average.load(found.path / _AVERAGE)
    first = found.step if found else 0
    if first > config.steps:
        raise DataError(f"{found and found.path} is at step {first}, past train.steps {config.steps}")
    trainer.objective.train()
    patience = config.patience * config.validate_every
    over = best is not None and best.exhausted(first, patience)
    stream = batches(
        trainer.sources["train"],
        seed=trainer.seed,
        first_step=first,
        last_step=first if over else config.steps,
        batch_size=config.batch_size,
        share=(peers.rank, peers.world),
        threads=config.loader_threads,
    )
    step, saved, stopped = first, first if found else -1, False
    _snapshot(trainer, folder, step)
    with StopRequest() as request, _log(folder, first, config, peers, show) as log:
        for batch in stream:
            started = time.perf_counter()
            sums, stopped = trainer.step(step, batch, request.signal is not None)
            step += 1
            if trainer.average is not None:
                trainer.average.update(step)
            faults.point("step")
            _snapshot(trainer, folder, step)
            _report(trainer, log, step, sums, time.perf_counter() - started, best)
            over = best is not None and best.exhausted(step, patience)
            if stopped or over:
                break
            if step % config.checkpoint_every == 0:
                _save(trainer, checkpoints, step, record)
                saved = step
        stream.close()  # type: ignore[attr-defined]
        if saved != step:
            _save(trainer, checkpoints, step, record)
    if over and best is not None:
        _LOGGER.info("no better validation pass since step %d: stopped at step %d of %d", best.step, step, config.steps)
    by = (request.signal.name if request.signal else "a signal to another process") if stopped else None
    return Outcome(step=step, stopped_by=by, checkpoint=checkpoints / f"step-{step:08d}")


def _log(folder: Path, first: int, config: TrainConfig, peers: Processes, show: bool) -> Any:
    if not peers.is_first:
        return contextlib.nullcontext()
    return RunLog(folder, first_step=first, last_step=config.steps, tensorboard=config.tensorboard, show=show)


def _snapshot(trainer: _Trainer, folder: Path, step: int) -> None:
    if step in trainer.config.snapshots and trainer.peers.is_first:
        with trainer.averaged():
            save_snapshot(folder, trainer.objective, step)


def _report(
    trainer: _Trainer,
    log: RunLog | None,
    step: int,
    sums: Mapping[str, Tensor],
    seconds: float,
    best: BestWeights | None,
) -> None:
    config = trainer.config
    due = step % config.log_every == 0 or step == config.steps
    figures = trainer.means(sums) if due else None
    if figures is not None and log is not None:
        rates = {"learning_rate": learning_rate(step - 1, config), "windows_per_second": config.batch_size / seconds}
        log.record(step, "train", {**figures, **rates})
    every = config.validate_every
    if every and "validation" in trainer.sources and (step % every == 0 or step == config.steps):
        with trainer.averaged():
            held_out = trainer.validate()
            if best is not None:
                best.offer(trainer.objective, step, held_out, write=trainer.peers.is_first)
            maps = trainer.pictures() if log is not None and log.shows_pictures else {}
        if log is not None:
            log.record(step, "validation", held_out)
            log.pictures(step, "validation", maps)
    if log is not None:
        log.progress(step, None if figures is None else {"loss": figures["loss"]})


def _save(trainer: _Trainer, checkpoints: Path, step: int, record: Mapping[str, Any]) -> None:
    if trainer.peers.is_first:
        save_checkpoint(
            checkpoints,
            trainer.objective,
            trainer.optimizer,
            step=step,
            record=record,
            keep=trainer.config.keep_checkpoints,
            extra={} if trainer.average is None else {_AVERAGE: trainer.average.save},
        )
    trainer.peers.wait()
