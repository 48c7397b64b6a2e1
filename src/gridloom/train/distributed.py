"""One process or many: who am I, what do the others say."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from gridloom.core.contracts import Objective
from gridloom.core.errors import ConfigError

__all__ = ["Processes", "processes"]

_TIMEOUT = timedelta(minutes=10)


@dataclass(frozen=True)
class Processes:
    """This process among its peers."""

    rank: int
    world: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """True in the one process that writes."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Sum over all processes, in place."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.world > 1:
            dist.barrier()

    def wrap(self, objective: Objective) -> nn.Module:
        """Average gradients over the processes after each backward pass.

        Parameters that no process used (an absent modality) keep no gradient, as in a single process.
        """
        if self.world == 1:
            return objective
        devices = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(
            objective, device_ids=devices, find_unused_parameters=objective.may_skip_parameters
        )


def _device(choice: Literal["auto", "cpu", "cuda"], local_rank: int) -> torch.device:
    if choice == "cuda" and not torch.cuda.is_available():
        raise ConfigError("train.device is 'cuda', but torch sees no CUDA device; use --train.device cpu")
    if choice == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", local_rank)


@contextmanager
def processes(choice: Literal["auto", "cpu", "cuda"]) -> Iterator[Processes]:
    """Join the process group that `torchrun` made, or be alone.

    Args:
        choice: `train.device` of the configuration.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    device = _device(choice, int(os.environ.get("LOCAL_RANK", "0")))
    if world == 1:
        yield Processes(rank=0, world=1, device=device)
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_TIMEOUT)
    try:
        with warnings.catch_warnings():
            # The strides of a 1x1 kernel are ambiguous under channels last; torch warns of a copy that costs nothing.
            warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
            yield Processes(rank=dist.get_rank(), world=dist.get_world_size(), device=device)
    finally:
        dist.destroy_process_group()
