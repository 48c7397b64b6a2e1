"""What the registry holds: everything in which one system differs from the others."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from gridloom.core.contracts import Encoder, Objective, Predictor, Prepared, Source, Task
from gridloom.core.errors import ConfigError
from gridloom.core.graph import Graph
from gridloom.core.score import Score
from gridloom.core.settings import RunConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from xarray import Dataset
else:  # core imports neither; the names stand for them in signatures
    Dataset = Figure = Any

__all__ = ["Drawing", "System", "Trained", "View"]

C = TypeVar("C", bound=RunConfig)


@dataclass(frozen=True, kw_only=True)
class Trained(Generic[C]):
    """A model with all that is needed to use it.

    Attributes:
        config: The resolved configuration.
        objective: With the trained weights, in eval mode.
        normalizer: JSON record of the normalizer.
    """

    config: C
    objective: Objective
    normalizer: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A figure and what it was drawn from.

    Attributes:
        figure: The figure.
        caption: One or two sentences: what is seen, in which units.
        data: The numbers behind it, by name.
        animation: The same as a moving picture, in the bytes of a GIF; None where there is none.
    """

    figure: Figure
    caption: str
    data: Mapping[str, np.ndarray] = field(default_factory=dict)
    animation: bytes | None = None


@dataclass(frozen=True, kw_only=True)
class View:
    """What figures are drawn from: a trained run and how it did on held-out data.

    Attributes:
        trained: The model.
        prepared: Its data.
        task: The question of the evaluation.
        predictions: Answers by method, the model's under the system's name.
        scores: How good they are.
        metrics: Records of metrics.jsonl.
        snapshots: The model as it was at the steps of `train.snapshots`; made when asked for.
        beside: Another run of the same system to compare with; None where there is none.
    """

    trained: Trained[Any]
    prepared: Prepared
    task: Task
    predictions: Mapping[str, Dataset]
    scores: Sequence[Score]
    metrics: Sequence[Mapping[str, Any]]
    snapshots: Callable[[], Mapping[int, Objective]] = dict
    beside: "View | None" = None


def _unchanged(config: C) -> C:
    return config


@dataclass(frozen=True, kw_only=True)
class System(Generic[C]):
    """One system: its configuration and the functions that make its parts.

    Attributes:
        name: Name on the command line.
        summary: One line for `gridloom --help`.
        config: Frozen dataclass that extends `RunConfig`.
        presets: Functions that return a whole configuration; `default` is always there.
        monitor: The metric that tells whether training gets better; `loss`, or a name in `Step.metrics`.
        resolve: Fills in what only the data can tell (names of variables) before a run; its result is what
            config.yaml holds, and resolving it again changes nothing.
        prepare: Reads data and cuts it into parts.
        objective: Builds the untrained objective.
        initialize: Sets in an untrained objective what comes from elsewhere (pretrained weights, statistics of the
            training part), once before the first step; not when a run goes on, nor when an artifact is loaded, since
            weights and buffers then come from there. None if there is nothing to set.
        complete: Sets in a trained objective what can only be known after training (how far its spread can be trusted,
            on the validation part), before the artifact is written. None if there is nothing to set.
        encode_source: Cuts any dataset into what the encoder takes: (configuration, normalizer's record, dataset, cells
            between windows by dimension or None) to (dataset, windows, source). None where that is windows of one
            field.
        encoder: Builds the untrained encoder; its weights are those of `objective.encoder`. None if the system has
            none.
        graph: A trained model as a function of tensors, for export. None if it cannot be one; a system with an encoder
            needs none, since that is what is exported.
        predictor: Makes a trained model answer questions.
        baselines: Dumb predictors by name, fitted on the training part; None where one does not apply.
        score: Compares answers by method with the truth.
        figures: Pictures by name, drawn from a run; None where a picture does not apply to it.
    """

    name: str
    summary: str
    config: type[C]
    presets: Mapping[str, Callable[[], C]]
    monitor: str = "loss"
    resolve: Callable[[C], C] = _unchanged
    prepare: Callable[[C], Prepared]
    objective: Callable[[C], Objective]
    initialize: Callable[[Objective, C, Prepared], None] | None = None
    complete: Callable[[Objective, C, Prepared], None] | None = None
    encode_source: Callable[[C, Mapping[str, Any], Dataset, Any], tuple[Dataset, Any, Source]] | None = None
    encoder: Callable[[C], Encoder] | None = None
    graph: Callable[[Trained[C]], Graph] | None = None
    predictor: Callable[[Trained[C]], Predictor] | None = None
    baselines: Mapping[str, Callable[[C, Dataset], Predictor | None]] = field(default_factory=dict)
    score: Callable[[Task, Mapping[str, Dataset], int], list[Score]] | None = None
    figures: Mapping[str, Callable[[View], Drawing | None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check what can be checked without building anything."""
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.name):
            raise ConfigError(f"a system's name must be a lower-case identifier, got {self.name!r}")
        if not issubclass(self.config, RunConfig):
            raise ConfigError(f"system {self.name!r}: config must be a subclass of RunConfig, got {self.config!r}")
        if "default" not in self.presets:
            raise ConfigError(f"system {self.name!r}: presets must have 'default', has {sorted(self.presets)}")
