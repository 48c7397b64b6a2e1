"""Settings of the trainer that can only be a mistake are refused by name."""

import dataclasses
import inspect
import math

import pytest

from gridloom.core.config import from_dict
from gridloom.core.errors import ConfigError
from gridloom.core.settings import RunConfig, TrainConfig


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("steps", 0, "at least 1, got 0"),
        ("batch_size", 0, "at least 1"),
        ("accumulate", -1, "at least 1"),
        ("log_every", 0, "at least 1"),
        ("checkpoint_every", 0, "at least 1"),
        ("validate_windows", 0, "at least 1"),
        ("keep_checkpoints", 1, "at least 2"),
        ("validate_every", -1, "0 or more"),
        ("loader_threads", -1, "0 or more"),
        ("warmup_steps", -1, "0 or more"),
        ("learning_rate", -1e-3, "0 or more"),
        ("learning_rate", math.nan, "0 or more, got nan"),
        ("final_learning_rate", -1.0, "0 or more"),
        ("weight_decay", -0.1, "0 or more"),
        ("clip_norm", -1.0, "0 or more"),
        ("betas", (0.9, 1.0), "0 <= beta < 1"),
        ("betas", (-0.1, 0.9), "0 <= beta < 1"),
        ("precision", "fp16", "expected one of 'fp32', 'bf16'"),
        ("device", "gpu", "expected one of 'auto', 'cpu', 'cuda'"),
    ],
)
def test_a_mistake_is_refused(name: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"train\.{name}\b.*{message}"):
        from_dict(TrainConfig, {name: list(value) if isinstance(value, tuple) else value}, where="train")


@pytest.mark.parametrize(
    "change",
    [
        {"validate_every": 0},
        {"clip_norm": 0.0},
        {"warmup_steps": 0},
        {"learning_rate": 0.0},
        {"betas": [0, 0.5]},
        {"steps": 1},
        {"warmup_steps": 10**6},
        {"clip_norm": math.inf},
        {"loader_threads": 2},
    ],
)
def test_what_means_something_is_allowed(change: dict[str, object]) -> None:
    assert from_dict(TrainConfig, change) != TrainConfig()


def test_settings_cannot_be_changed_or_given_by_place() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainConfig().steps = 5  # type: ignore[misc]
    assert all(p.kind is p.KEYWORD_ONLY for p in inspect.signature(RunConfig).parameters.values())
