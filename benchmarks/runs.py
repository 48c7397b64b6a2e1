"""Small training runs in child processes: what the benchmarks of crashes and of ranks share."""

import multiprocessing.process
import socket
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

__all__ = ["SYSTEMS", "final_state", "join", "losses", "make_data", "same_bits", "start_ranks", "start_run"]

SYSTEMS = (
    "fake_sequence",
    "fake_point",
    "fake_modalities",
    "fake_clip",
    "fake_autoencoder",
    "semantic",
    "semantic, float64",
)
"""Systems that `start_run` knows. Semantic is small: width 8, 32 latents, 32x32 windows, GroupNorm."""

_LIMIT_SECONDS = 240


def make_data(folder: Path) -> Path:
    """Write the made-up grid that semantic is trained on: 48 days of two fields, a fifth of the cells missing."""
    from gridloom.grid.synthetic import waves
    from gridloom.grid.write import save_grid

    path = folder / "waves.nc"
    save_grid(waves(num_times=48, height=48, width=48), path)
    return path


def _semantic(data: Path, *, double: bool) -> Any:
    from gridloom.core.settings import TrainConfig
    from gridloom.systems.semantic import SYSTEM
    from gridloom.systems.semantic.config import GridConfig, ModelConfig, SemanticConfig
    from gridloom.systems.semantic.objective import SelfSupervised

    class Double(SelfSupervised):
        def __init__(self, config: SemanticConfig) -> None:
            super().__init__(config)
            self.double()

        def forward(self, batch: Any) -> Any:
            return super().forward(
                batch.apply(lambda tensor: tensor.double() if tensor.is_floating_point() else tensor)
            )

    config = SemanticConfig(
        data=GridConfig(path=str(data), window=(32, 32), stride=(8, 8)),
        model=ModelConfig(latent_dim=32, width=8),
        train=TrainConfig(
            steps=24,
            batch_size=8,
            log_every=1,
            checkpoint_every=4,
            validate_every=0,
            tensorboard=False,
        ),
    )
    objective = Double if double else SelfSupervised
    return replace(SYSTEM, presets={"default": lambda: config}, objective=objective)


def _crossmae(data: Path) -> Any:
    """Two fields, gaps in both, all strategies of masking: samples ask for different numbers of patches."""
    from gridloom.core.settings import TrainConfig
    from gridloom.systems.crossmae import SYSTEM
    from gridloom.systems.crossmae.config import CrossMAEConfig, DataConfig, MaskingConfig, ModelConfig

    config = CrossMAEConfig(
        data=DataConfig(path=str(data), window=(6, 16, 16), split="time", fractions=(0.6, 0.2, 0.2)),
        model=ModelConfig(
            dim=32, image_depth=2, num_heads=4, decoder_dim=32, decoder_depth=2, image_patch=(4, 4), fusion="shared"
        ),
        masking=MaskingConfig(strategies=("random", "blocks", "gaps", "dirichlet"), share=0.5),
        train=TrainConfig(
            steps=24, batch_size=8, log_every=1, checkpoint_every=24, validate_every=0, tensorboard=False
        ),
    )
    return replace(SYSTEM, presets={"default": lambda: config}, baselines={}, figures={})


def _system(name: str, data: Path) -> Any:
    from tests.contract.fakes import FAKES

    if name == "crossmae":
        return _crossmae(data)

    if name.startswith("semantic"):
        return _semantic(data, double="float64" in name)
    return FAKES[name]


def _train(name: str, data: Path, folder: Path, changes: Mapping[str, Any]) -> None:
    """Train; runs in the child."""
    from tests.contract.processes import train_run

    train_run(_system(name, data), folder, dict(changes))


def start_run(name: str, data: Path, folder: Path, *, fault: str = "", **changes: Any) -> Any:
    """Start one training process.

    Args:
        name: One of `SYSTEMS`.
        data: What `make_data` wrote.
        folder: Run folder.
        fault: `place:nth:kill`, where it is to be killed; empty for nowhere.
        **changes: Settings of `TrainConfig`.
    """
    from tests.contract.processes import start

    return start(_train, name, data, folder, changes, **({"GRIDLOOM_FAULT": fault} if fault else {}))


def start_ranks(name: str, data: Path, folder: Path, *, world: int, **changes: Any) -> list[Any]:
    """Start several gloo ranks of one run on this machine."""
    from tests.contract.processes import start

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [
        start(_train, name, data, folder, changes, RANK=str(rank), LOCAL_RANK=str(rank), **shared)
        for rank in range(world)
    ]


def join(child: multiprocessing.process.BaseProcess) -> int:
    """Wait for a child and return its exit code.

    Raises:
        TimeoutError: It hangs; it is killed.
    """
    child.join(_LIMIT_SECONDS)
    if child.exitcode is None:
        child.kill()
        raise TimeoutError(f"a child did not end within {_LIMIT_SECONDS} s")
    return child.exitcode


def losses(folder: Path) -> list[float]:
    """Training losses of a run, step by step."""
    from gridloom.train.log import read_metrics

    return [record["loss"] for record in read_metrics(folder / "metrics.jsonl") if record["part"] == "train"]


def final_state(folder: Path) -> dict[str, Any]:
    """Weights and optimizer state of a run's newest checkpoint."""
    import safetensors.torch

    from gridloom.train.checkpoint import newest_checkpoint

    found = newest_checkpoint(folder / "checkpoints")
    assert found is not None, f"{folder}: no checkpoint"
    parts = {name: safetensors.torch.load_file(found.path / f"{name}.safetensors") for name in ("model", "optimizer")}
    return {f"{part}/{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}


def same_bits(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    """Whether two states have the same names and the same bits."""
    import torch

    return ours.keys() == theirs.keys() and all(
        ours[name].dtype == theirs[name].dtype and torch.equal(ours[name], theirs[name]) for name in ours
    )
