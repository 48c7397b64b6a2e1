"""What the trainer costs per step beside a bare torch loop.

How: both loops train their own copy of one model on the same batches, made beforehand, step by step by turns in one
process: each time the trainer asks its source for a batch, the source first makes one step of the bare loop. So what
else the machine does hits both alike. The bare loop does forward, mean, backward, clipping, the same schedule and
fused AdamW, and nothing else; the trainer does all it does, finite checks, metrics and log included. Checkpoints and
validation are outside of the timed part.
Goal: at most 1.05 times the bare loop for semantic (width 16, 64x64 windows, batches of 16). The tiny fake, a few
thousand weights, shows the fixed cost.
"""

import copy
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import Bench, median

_GOAL = 1.05
_WARMUP = 5
_CLIP, _PEAK, _LAST = 1.0, 1e-3, 1e-5


class _Alternating:
    """A source whose `collate` makes a bare step between two steps of the trainer, and times both."""

    def __init__(self, batches: list[Any], bare_step: Callable[[int, Any], None], size: int) -> None:
        self.batches, self.bare_step, self.size = batches, bare_step, size
        self.trainer: list[tuple[float, float]] = []
        self.bare: list[tuple[float, float]] = []
        self._given: tuple[float, float] | None = None

    def __len__(self) -> int:
        return self.size * len(self.batches)

    def collate(self, windows: Sequence[int], epoch: int) -> Any:
        asked = _clocks()
        if self._given is not None:
            self.trainer.append(_since(self._given, asked))
        step = len(self.bare)
        batch = self.batches[step % len(self.batches)]
        started = _clocks()
        self.bare_step(step, batch)
        self.bare.append(_since(started, _clocks()))
        self._given = _clocks()
        return batch

    def coordinates(self, windows: Sequence[int]) -> Mapping[str, np.ndarray]:
        return {}


def _clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _since(start: tuple[float, float], end: tuple[float, float]) -> tuple[float, float]:
    return end[0] - start[0], end[1] - start[1]


def _semantic() -> tuple[Any, list[Any], int]:
    import torch

    from gridloom.core.batch import Batch, Field
    from gridloom.systems.semantic.config import GridConfig, ModelConfig, SemanticConfig
    from gridloom.systems.semantic.objective import Reconstruction

    data = GridConfig(window=(64, 64), variables=("temperature", "salinity"))
    model = ModelConfig(input_channels=2, latent_dim=128, width=16)
    generator = torch.Generator().manual_seed(0)
    batches = []
    for _ in range(8):
        values = torch.randn(16, 2, 64, 64, generator=generator)
        valid = torch.rand(16, 2, 64, 64, generator=generator) > 0.2
        window = torch.arange(16)
        batches.append(Batch(fields={"image": Field.of(values, valid)}, features={}, window=window, key=window))
    return Reconstruction(SemanticConfig(data=data, model=model)), batches, 16


def _fake() -> tuple[Any, list[Any], int]:
    from tests.contract.fakes import AUTOENCODER

    config = AUTOENCODER.presets["default"]()
    source = AUTOENCODER.prepare(config).sources["train"]
    batches = [source.collate(list(range(start, start + 8)), 0) for start in range(0, 48, 8)]
    return AUTOENCODER.objective(config), batches, 8


_MODELS = {"semantic, width 16": _semantic, "tiny fake autoencoder": _fake}


def bare_loop(model: Any, steps: int) -> Callable[[int, Any], None]:
    """The loop that one would write without a library; returns its step."""
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=_PEAK, betas=(0.9, 0.95), weight_decay=0.05, fused=True)
    parameters = list(model.parameters())
    model.train()

    def step(number: int, batch: Any) -> None:
        for group in optimizer.param_groups:
            group["lr"] = _LAST + (_PEAK - _LAST) * 0.5 * (1 + math.cos(math.pi * number / steps))
        optimizer.zero_grad(set_to_none=True)
        loss = model(batch).loss.mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, _CLIP)
        optimizer.step()

    return step


def overhead(*, model: str, steps: int) -> dict[str, Any]:
    """Median milliseconds per step of both loops, wall and CPU, and the median of the pairs' ratios."""
    import torch

    from gridloom.core.settings import TrainConfig
    from gridloom.train.distributed import processes
    from gridloom.train.loop import train

    torch.manual_seed(0)
    objective, batches, size = _MODELS[model]()
    total = steps + _WARMUP
    source = _Alternating(batches, bare_loop(copy.deepcopy(objective), total), size)
    config = TrainConfig(
        steps=total,
        batch_size=size,
        learning_rate=_PEAK,
        final_learning_rate=_LAST,
        warmup_steps=0,
        clip_norm=_CLIP,
        validate_every=0,
        checkpoint_every=10 * total,
        tensorboard=False,
    )
    with tempfile.TemporaryDirectory() as folder, processes("cpu") as peers:
        outcome = train(
            objective, {"train": source}, config, seed=0, folder=Path(folder), peers=peers, record={}, show=True
        )
    if outcome.stopped_by is not None:  # a cell that is not whole is not kept
        raise SystemExit(f"stopped by {outcome.stopped_by}")
    # The trainer's last step is followed by a checkpoint, not by a request for a batch: it is not among the times.
    pairs = list(zip(source.bare, source.trainer, strict=False))[_WARMUP:]
    return {
        "threads": torch.get_num_threads(),
        "weights": sum(parameter.numel() for parameter in objective.parameters()),
        "bare wall": 1e3 * median([bare[0] for bare, _ in pairs]),
        "trainer wall": 1e3 * median([ours[0] for _, ours in pairs]),
        "wall ratio": median([ours[0] / bare[0] for bare, ours in pairs]),
        "bare cpu": 1e3 * median([bare[1] for bare, _ in pairs]),
        "trainer cpu": 1e3 * median([ours[1] for _, ours in pairs]),
        "cpu ratio": median([ours[1] / bare[1] for bare, ours in pairs]),
    }


def main() -> None:
    bench = Bench(__file__, __doc__ or "")
    steps = {"semantic, width 16": 60 if bench.quick else 400, "tiny fake autoencoder": 400 if bench.quick else 3000}
    rows = []
    for model, count in steps.items():
        found = bench.cell(model, overhead, model=model, steps=count)
        goal = model.startswith("semantic")
        verdict = bench.goal("overhead", found["wall ratio"] <= _GOAL) if goal else ""
        rows.append(
            (
                model,
                found["bare wall"],
                found["trainer wall"],
                found["trainer wall"] - found["bare wall"],
                found["wall ratio"],
                found["cpu ratio"],
                f"<= {_GOAL}" if goal else "",
                verdict,
            )
        )
        bench.figure(model, found)
    header = ("model", "bare ms", "trainer ms", "more ms", "ratio", "CPU ratio", "goal", "verdict")
    print(f"\nmedians of a step, {found['threads']} thread(s):")
    bench.table(header, rows)
    bench.finish()


if __name__ == "__main__":
    main()
