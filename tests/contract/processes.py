"""Training in child processes: killed at a given place, or two of them as ranks."""

import multiprocessing
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gridloom.core.system import System

FAKE_PLACES = {
    f"fake_{name}": f"tests.contract.fakes:{name.upper()}"
    for name in ("sequence", "point", "modalities", "clip", "autoencoder")
}


def context() -> ForkServerContext:
    """Children of a clean server that has imported torch once."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["torch._dynamo", "tests.contract.fakes", "gridloom.systems.semantic"])
    return server


def start(target: Callable[..., Any], *arguments: Any, **environment: str) -> ForkServerProcess:
    """Start a child that runs `target(*arguments)` with these variables in its environment."""
    child = context().Process(target=_run, args=(target, arguments, environment))
    child.start()
    return child


def _run(target: Callable[..., Any], arguments: tuple[Any, ...], environment: dict[str, str]) -> None:
    import torch

    from gridloom.core import registry

    torch.set_num_threads(1)
    os.environ.update(environment)
    registry.BUILT_IN.update(FAKE_PLACES)
    target(*arguments)


def train_run(name: "str | System", folder: Path, changes: dict[str, Any]) -> None:
    """Run the training loop of a system, without evaluation."""
    import torch

    from gridloom.core.config import to_dict
    from gridloom.core.registry import get_system
    from gridloom.train.distributed import processes
    from gridloom.train.loop import train

    system = get_system(name) if isinstance(name, str) else name
    config = system.presets["default"]()
    config = system.resolve(replace(config, train=replace(config.train, **changes)))
    prepared = system.prepare(config)
    torch.manual_seed(config.seed)
    with processes("cpu") as peers:
        record = {"system": system.name, "config": to_dict(config), "normalizer": dict(prepared.normalizer)}
        train(
            system.objective(config),
            prepared.sources,
            config.train,
            seed=config.seed,
            folder=folder,
            peers=peers,
            record=record,
            monitor=system.monitor,
            show=False,
        )


def train_in_child(name: "str | System", folder: Path, *, fault: str | None = None, **changes: Any) -> int:
    """Train in a child and return its exit code; with a fault it is killed there."""
    child = start(train_run, name, folder, changes, **({"GRIDLOOM_FAULT": fault} if fault else {}))
    child.join(120)
    assert child.exitcode is not None, "the child hangs"
    return child.exitcode


def train_on_ranks(name: "str | System", folder: Path, world: int, **changes: Any) -> None:
    """Train on several gloo ranks of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ranks = [
        start(train_run, name, folder, changes, RANK=str(rank), LOCAL_RANK=str(rank), **shared) for rank in range(world)
    ]
    for rank in ranks:
        rank.join(120)
    assert [rank.exitcode for rank in ranks] == [0] * world


KILLED = -signal.SIGKILL
