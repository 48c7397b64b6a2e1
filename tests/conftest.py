"""Shared set-up: few threads, so that tests can run side by side, and the fake systems by name."""

import os
from collections.abc import Iterator

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from gridloom.core import registry
from tests.contract.processes import FAKE_PLACES

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def fakes_are_registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The fakes are found by name, as an installed package's systems would be."""
    for name, place in FAKE_PLACES.items():
        monkeypatch.setitem(registry.BUILT_IN, name, place)
    yield
    registry.get_system.cache_clear()
