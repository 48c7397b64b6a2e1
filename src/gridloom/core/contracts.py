"""What a system must provide to be trained, extracted and asked: source, objective, encoder, predictor."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np
from torch import Tensor, nn

from gridloom.core.batch import Batch, Step

if TYPE_CHECKING:
    from xarray import Dataset
else:  # core imports no xarray; the name stands for it in signatures
    Dataset = Any

__all__ = ["Encoder", "FeatureSpec", "FieldSpec", "InputSpec", "Objective", "Predictor", "Prepared", "Source", "Task"]


@runtime_checkable
class Source(Protocol):
    """Windows of data by address. The same (windows, epoch) always gives the same batch."""

    def __len__(self) -> int:
        """Number of windows."""

    def collate(self, windows: Sequence[int], epoch: int) -> Batch:
        """Read these windows. Must be safe to call from several threads."""

    def coordinates(self, windows: Sequence[int]) -> Mapping[str, np.ndarray]:
        """Where the windows lie, one array with one entry per window for each coordinate (and label)."""


class Objective(nn.Module, ABC):
    """A model together with its loss. If the system has an encoder, it is the attribute `encoder`.

    Attributes:
        may_skip_parameters: True if some batches use only some of the parameters (a modality that nobody has). On
            several processes the others are then looked for in each step, which costs a little.
    """

    may_skip_parameters: bool = False

    def begin_step(self, step: int) -> None:
        """Set schedules that depend on the step; the default has none."""

    def pictures(self, batch: Batch) -> Mapping[str, Tensor]:
        """Maps worth looking at while it trains, [row, column] from 0 to 1 by name; the default has none.

        Asked for at each validation pass, with one window and on the first process alone, and written as TensorBoard
        events. Draws nothing from a global generator.
        """
        return {}

    @abstractmethod
    def forward(self, batch: Batch) -> Step:
        """Return one loss per sample. Draws come from `batch.key`, never from a global generator."""


@dataclass(frozen=True, kw_only=True)
class FieldSpec:
    """What one field of a batch must look like, batch dimension aside."""

    dims: tuple[str, ...]
    """Names of the dimensions after the batch, e.g. `("channel", "y", "x")`."""
    size: tuple[int, ...] = ()
    """Size of each dimension; 0 where any size will do. Empty: any."""
    variables: tuple[str, ...] = ()
    """Variables of a dataset that make the channels, in order. Empty where the field is not one of variables."""
    multiple_of: int = 1
    """Spatial sizes must be a multiple of this."""
    dtype: str = "float32"
    """Type of the values."""


@dataclass(frozen=True, kw_only=True)
class FeatureSpec:
    """What one feature of a batch must look like, batch dimension aside."""

    dims: tuple[str, ...] = ()
    """Names of the dimensions after the batch, e.g. `("time",)`."""
    size: tuple[int, ...] = ()
    """Size of each dimension."""
    dtype: str = "int64"
    """Type of the values."""


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """What an encoder takes; saved with its weights."""

    fields: Mapping[str, FieldSpec]
    """Fields by name."""
    features: Mapping[str, FeatureSpec] = field(default_factory=dict)
    """Features by name."""
    missing: Literal["mask", "raise"] = "mask"
    """What the encoder can do with missing cells: take them with their mask, or not at all."""


class Encoder(nn.Module, ABC):
    """A module that turns a batch into named representations.

    Attributes:
        inputs: What it takes.
        outputs: Dimensions of each output after the batch: `{"embedding": ("feature",)}`. Every encoder has
            `embedding`.
        bf16_modules: Submodules whose weights may be cast to bfloat16 for fast inference; `forward` then casts at
            their borders. Where there are none, such inference runs under autocast.
    """

    inputs: InputSpec
    outputs: Mapping[str, tuple[str, ...]]
    bf16_modules: tuple[str, ...] = ()

    @abstractmethod
    def forward(self, batch: Batch) -> Mapping[str, Tensor]:
        """Encode a batch: one tensor, batch first, for each entry of `outputs`."""


@runtime_checkable
class Predictor(Protocol):
    """Something that answers a question about data: a model or a baseline alike."""

    def predict(self, given: Dataset, wanted: Dataset) -> Dataset:
        """Answer.

        Args:
            given: What may be seen, in data units. NaN is missing.
            wanted: Boolean, the same names and dimensions; True where an answer is asked.

        Returns:
            The answers in data units, at least where `wanted` is True; `sample` and `quantile` may be extra
            dimensions.
        """


@dataclass(frozen=True, kw_only=True)
class Task:
    """A question with its answer, for evaluation.

    Attributes:
        name: Name of the data.
        split: Part that it comes from: `test`, `validation`.
        given: What predictors may see.
        wanted: Boolean, True where they are asked.
        truth: The answers; NaN where nobody knows.
        block_dim: Dimension whose contiguous blocks are resampled for intervals.
    """

    name: str
    split: str
    given: Dataset
    wanted: Dataset
    truth: Dataset
    block_dim: str


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A system's data, ready to train on.

    Attributes:
        sources: By part: `train`, `validation`, `test`.
        normalizer: JSON record of the normalizer, fitted on the training part alone.
        splits: JSON record of the parts; goes to the run folder with its hash.
        history: The training part in data units; baselines are fitted on it.
        task: Makes the question that the system is evaluated with.
        label: Name of the coordinate that is a label for probes; None where there is none.
    """

    sources: Mapping[str, Source]
    normalizer: Mapping[str, Any]
    splits: Mapping[str, Any]
    history: Dataset
    task: Callable[[str], Task]
    label: str | None = None
