"""Configuration of fine-tuning and its presets."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from gridloom.core.errors import ConfigError
from gridloom.core.settings import RunConfig, TrainConfig
from gridloom.grid.prepare import GridConfig

__all__ = ["PRESETS", "FinetuneConfig", "LabeledGridConfig", "PretrainedRecord"]

UNSET = (0, 0)
"""A window or stride that `resolve` fills in."""


@dataclass(frozen=True, kw_only=True)
class LabeledGridConfig(GridConfig):
    """Which data, how it is cut into windows and parts, and what is said of each window."""

    window: tuple[int, int] = UNSET
    """Height and width of a window in cells; 0 0 takes the window that the backbone was trained on."""
    stride: tuple[int, int] = UNSET
    """Cells between the starts of two training windows, down and across; 0 0 takes the window, so that none overlap."""
    label: str = ""
    """Coordinate or variable that holds the label of each window (at its center, where it varies in space)."""
    label_share: float = 1.0
    """Share of the labeled training windows that is used, drawn by the seed: to see how many labels are needed."""

    def __post_init__(self) -> None:
        """Refuse what makes no window; what is not filled in yet is checked when it is."""
        if UNSET not in (self.window, self.stride):
            super().__post_init__()
        if not 0 < self.label_share <= 1:
            raise ConfigError(f"data.label_share must be above 0 and at most 1, got {self.label_share}")


@dataclass(frozen=True, kw_only=True)
class PretrainedRecord:
    """What the backbone is. Read from it before training, so that the result stands alone; not to be set by hand."""

    system: str = ""
    """System that it was trained as."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Its resolved configuration."""
    normalizer: Mapping[str, Any] = field(default_factory=dict)
    """Its training statistics, by the names of the variables here; none where it came without."""
    field_name: str = "image"
    """The field of a batch that it takes."""
    num_features: int = 0
    """Length of its embedding."""
    takes_missing: bool = True
    """Whether it can take windows with missing cells."""
    sha256: str = ""
    """Digest of its weights and statistics."""


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(RunConfig):
    """Train a pretrained encoder with a head on labels."""

    data: LabeledGridConfig = field(default_factory=LabeledGridConfig)
    """What is trained on."""
    backbone: str = ""
    """Pretrained encoder: run folder, artifact or file of weights."""
    freeze: tuple[str, ...] = ()
    """Modules of the encoder that stay as they are, by name (`stem layer1`); `all` freezes the whole of it."""
    head: Literal["linear", "mlp"] = "linear"
    """What reads the label from the standardized embedding: a linear map, or a network with one hidden layer."""
    hidden: int = 256
    """Size of the hidden layer of `mlp`."""
    dropout: float = 0.0
    """Share of the inputs of the last linear map that is set to 0 in a training step."""
    task: Literal["auto", "classification", "regression"] = "auto"
    """auto takes floating point labels for numbers and all others for classes."""
    classes: tuple[str, ...] = ()
    """Names of the classes; filled in from the data."""
    pretrained: PretrainedRecord = field(default_factory=PretrainedRecord)
    """What the backbone is; filled in from it."""

    def __post_init__(self) -> None:
        """Refuse sizes that make no head."""
        super().__post_init__()
        if self.hidden < 1 or not 0 <= self.dropout < 1:
            raise ConfigError(
                f"hidden must be at least 1, dropout 0 or more and below 1, got {self.hidden}, {self.dropout}"
            )


def default() -> FinetuneConfig:
    """Short and gentle, since the encoder knows much already; with `--freeze all` the head takes ten times the rate."""
    return FinetuneConfig(train=TrainConfig(steps=500, learning_rate=3e-4, validate_every=100))


def digits() -> FinetuneConfig:
    """Handwritten digits, split by writer; needs a backbone trained on them."""
    return FinetuneConfig(
        data=LabeledGridConfig(path="digits", split_dim="sample", label="digit"),
        train=TrainConfig(steps=400, learning_rate=3e-4, validate_every=50),
    )


PRESETS: Mapping[str, Callable[[], FinetuneConfig]] = {"default": default, "digits": digits}
