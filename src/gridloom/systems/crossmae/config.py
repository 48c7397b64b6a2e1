"""Configuration of the crossmae system."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from gridloom.core.errors import ConfigError
from gridloom.core.settings import RunConfig
from gridloom.evaluate.baselines.kriging import Covariance
from gridloom.evaluate.baselines.separable import SeparableCovariance
from gridloom.systems.crossmae.masking import Strategy
from gridloom.systems.crossmae.multimodal import Fusion
from gridloom.systems.crossmae.static import StaticMode

__all__ = [
    "Architecture",
    "BackgroundConfig",
    "BackgroundFit",
    "BackgroundKind",
    "CrossMAEConfig",
    "DataConfig",
    "LossConfig",
    "MaskingConfig",
    "ModalityConfig",
    "ModelConfig",
]

Architecture = Literal["pooled_self", "pooled_cross", "sequence_self", "cross", "cross_maps"]
"""The model that CrossMAE replaces; its encoder with cross-attention; a sequence with self-attention; cross-attention;
cross-attention with weighted feature maps."""

Split = Literal["cells", "time"]

BackgroundKind = Literal["climatology", "linear", "eof", "kriging", "gaussian", "em"]
"""The smooth climatology, so that the network learns anomalies; a line in time between anomalies; empirical orthogonal
functions (DINEOF); the nearest observations; all observations under a parametric covariance; under one that is learnt
from the record."""


@dataclass(frozen=True, kw_only=True)
class ModalityConfig:
    """One modality. Filled in from the data where nothing is said."""

    kind: Literal["image", "vector"] = "image"
    """`image`: a variable on (time, y, x). `vector`: series on (place, time)."""
    variables: tuple[str, ...] = ()
    """Variable of the dataset; of a vector there may be several, its features. Empty: the modality's name."""
    size: tuple[int, int] = (0, 0)
    """Cells down and across of an image's window; (places, 1) of a vector."""
    weight: float = 1.0
    """Weight of its loss."""
    target: bool = True
    """Hide cells of it and learn to predict them; false leaves it visible, to help the others."""
    share: float = -1.0
    """Share of its patches that is hidden; negative takes `masking.share`."""

    def __post_init__(self) -> None:
        """Refuse what is no share."""
        if self.share > 1 or self.weight < 0:
            raise ConfigError(
                f"modalities: share must be at most 1 and weight 0 or more, got {self.share} and {self.weight}"
            )


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which data, how it is cut, and what is held out."""

    path: str = ""
    """File, folder or name of a sample (`gridloom data list`)."""
    variables: tuple[str, ...] = ()
    """Variables that are modalities; none given takes all that hold numbers over time."""
    static: str = ""
    """Variable of static attributes, on (place, attribute) or (attribute); empty takes one that has no time."""
    window: tuple[int, int, int] = (8, 0, 0)
    """Times, rows and columns of a training window; 0 takes the whole axis."""
    stride: tuple[int, int, int] = (1, 0, 0)
    """Cells between two windows of training; 0 takes half a window."""
    split: Split = "cells"
    """`cells`: gap-shaped cells of the whole record are held out, as one fills one's own gaps. `time`: a stretch of
    time is held out, as one uses a model on what comes."""
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15)
    """With `split time`: shares of training, validation and test."""
    gaps: Literal["auto", "blocks", "frames", "cells", "real"] = "auto"
    """With `split cells`: shape of what is held out: boxes in space and time, whole times, single cells, the gaps of
    other times. `auto` takes real gaps where they change in time, else boxes."""
    gap_share: float = 0.3
    """With `split cells`: share of the observed cells that is the test; whole times for `frames`."""
    validation_share: float = 0.1
    """With `split cells`: share of what is left that is for validation."""
    gap_seed: int = 0
    """Seed of the held-out cells, which does not change with `seed`."""
    normalize: tuple[Literal["standard", "log1p", "bounds"], ...] = ("standard",)
    """Steps of the normalizer, fitted on the training part."""

    def __post_init__(self) -> None:
        """Refuse what makes no window."""
        if min(*self.window, *self.stride) < 0:
            raise ConfigError(f"data.window and data.stride must be 0 or more, got {self.window} and {self.stride}")
        if not (0 < self.gap_share < 1 and 0 < self.validation_share < 1):
            raise ConfigError(
                f"data.gap_share and data.validation_share must lie between 0 and 1, "
                f"got {self.gap_share} and {self.validation_share}"
            )


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The networks."""

    architecture: Architecture = "cross_maps"
    """Cross-attention with weighted feature maps, or one of those to compare it with."""
    fusion: Fusion = "none"
    """How modalities learn from each other: not at all, by pooled tokens, by attending to all tokens, by a transformer
    over all tokens."""
    static: StaticMode = "token"
    """How static attributes reach the tokens."""
    dim: int = 256
    """Width of the encoders."""
    image_depth: int = 6
    """Layers of an image's encoder."""
    vector_depth: int = 4
    """Layers of a vector's encoder."""
    num_heads: int = 8
    """Heads of the encoders."""
    decoder_dim: int = 128
    """Width of the decoders."""
    decoder_depth: int = 4
    """Layers of the decoders."""
    decoder_heads: int = 4
    """Heads of the decoders."""
    mlp_ratio: float = 4.0
    """Hidden width of the MLPs over the width."""
    dropout: float = 0.0
    """Dropout of each branch while training."""
    image_patch: tuple[int, int] = (10, 10)
    """Cells of an image's patch, down and across."""
    vector_patch: int = 10
    """Time steps of a vector's patch."""
    use_fm_layers: tuple[int, ...] | None = None
    """Encoder layers that are mixed for the decoder, from 0; None takes all."""
    use_input: bool = True
    """Mix the input of the first layer too."""
    normalize_maps: bool = True
    """Maps pass the encoder's norm before they are mixed; false is the paper's form."""
    self_attention: bool = False
    """Let the decoder's queries attend to each other too."""
    season: bool = True
    """Tell the networks the phase of the year, where time has dates."""
    place: bool = True
    """Tell the networks where in the data a patch lies."""


@dataclass(frozen=True, kw_only=True)
class MaskingConfig:
    """What is hidden while training."""

    strategies: tuple[Strategy, ...] = ("random",)
    """Strategies; each sample draws one."""
    share: float = 0.75
    """Share of the patches with data that is hidden."""
    predict: float = 1.0
    """Share of the hidden patches that is decoded; fewer cost less, and the loss stays the same on average."""
    cells: float = 0.0
    """Share of single cells that is hidden too, inside of visible patches."""
    alpha: float = 1.0
    """Concentration of the strategy `dirichlet`."""

    def __post_init__(self) -> None:
        """Refuse what hides or asks nothing."""
        if not self.strategies:
            raise ConfigError("masking.strategies must name at least one")
        for name, fits, told in (
            ("share", 0 <= self.share <= 1, "from 0 to 1"),
            ("predict", 0 < self.predict <= 1, "above 0, up to 1"),
            ("cells", 0 <= self.cells < 1, "from 0 to below 1"),
            ("alpha", self.alpha > 0, "above 0"),
        ):
            if not fits:
                raise ConfigError(f"masking.{name} must be {told}, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """What is minimized."""

    kind: Literal["mse", "nll"] = "nll"
    """Squared error, or the negative log-likelihood of a normal distribution with the predicted variance."""
    normalize_patches: bool = False
    """Targets of zero mean and unit variance in each patch (MAE's norm_pix_loss): for pretraining only, since such
    answers cannot be brought back."""

    def __post_init__(self) -> None:
        """Refuse a variance of what was normalized away."""
        if self.normalize_patches and self.kind == "nll":
            raise ConfigError("loss.normalize_patches needs loss.kind mse")


@dataclass(frozen=True, kw_only=True)
class BackgroundFit:
    """What the backgrounds of one modality have found in the training cells."""

    kriging: Covariance | None = None
    """Scales of local kriging."""
    gaussian: SeparableCovariance | None = None
    """Scales of the Gaussian process."""
    eof_rank: int = 0
    """Number of empirical orthogonal functions."""


@dataclass(frozen=True, kw_only=True)
class BackgroundConfig:
    """Estimates that the model starts from, where data are few: it then learns what they leave.

    They are computed for several draws of gaps over the training cells, so that the model sees how they err.
    """

    kinds: tuple[BackgroundKind, ...] = ()
    """Which. The model's answer is added to the one that is best at validation cells; those far behind it are left
    out, the others are known to the model too. None: the model starts from nothing."""
    folds: int = 16
    """Draws of gaps."""
    fitted: Mapping[str, BackgroundFit] = field(default_factory=dict)
    """What was found, by modality; filled in from the data."""

    def __post_init__(self) -> None:
        """Refuse no draws."""
        if self.folds < 1:
            raise ConfigError(f"background.folds must be at least 1, got {self.folds}")


@dataclass(frozen=True, kw_only=True)
class CrossMAEConfig(RunConfig):
    """Train a masked autoencoder on one or more modalities, to fill what is missing."""

    data: DataConfig = field(default_factory=DataConfig)
    """What is trained on."""
    modalities: Mapping[str, ModalityConfig] = field(default_factory=dict)
    """Modalities by name; filled in from the data where there are none."""
    static_dim: int = 0
    """Static attributes; filled in from the data."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The networks."""
    masking: MaskingConfig = field(default_factory=MaskingConfig)
    """What is hidden."""
    background: BackgroundConfig = field(default_factory=BackgroundConfig)
    """What the answers are added to."""
    loss: LossConfig = field(default_factory=LossConfig)
    """What is minimized."""

    def __post_init__(self) -> None:
        """Refuse what does not go together."""
        super().__post_init__()
        if self.train.accumulate > 1:
            raise ConfigError(
                f"the loss is a mean over the hidden cells of a whole batch: train.accumulate must be 1, "
                f"got {self.train.accumulate}; lower train.batch_size instead"
            )
        if self.background.kinds and self.data.split == "time":
            raise ConfigError("a background needs data.split cells: it is computed from what is around the gaps")
        if self.background.kinds and self.loss.normalize_patches:
            raise ConfigError("loss.normalize_patches and a background do not go together; leave one of them out")
