"""Configuration of the temporal system."""

from dataclasses import dataclass, field
from typing import Literal

from gridloom.core.errors import ConfigError
from gridloom.core.settings import RunConfig
from gridloom.systems.temporal.flow import InverseKind
from gridloom.systems.temporal.fusion import FlowDirection, GateKind, Interpolation, OcclusionKind, RefinerKind
from gridloom.systems.temporal.module import TemporalModule
from gridloom.systems.temporal.warmup import AlphaWarmup

__all__ = ["DataConfig", "FlickerConfig", "LossConfig", "ModelConfig", "TemporalConfig"]

_ROUNDING = 1e-6


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which clips, and how they are cut into windows and parts."""

    path: str = ""
    """Clip that the model is evaluated on: a video, a file with frames or latents (time, channel, y, x), or a sample
    (`gridloom data list`)."""
    also: tuple[str, ...] = ()
    """More clips to train on. Each is cut in time; its last stretch is for the validation."""
    held_out: bool = False
    """Train on `also` alone: `path` is for the test, all of it."""
    factor: int = 1
    """Frames are reduced to the means of `factor` x `factor` pixels, and their flow with them; 1 takes them as they
    are (latents)."""
    flow: Literal["dis", "none"] = "dis"
    """Where clips bring no flow of their own: OpenCV's DIS between frames, or none, so that nothing moves."""
    window: int = 16
    """Frames of a training window."""
    stride: int = 1
    """Frames between the starts of two training windows."""
    crop: int = 32
    """Cells of a training window along both axes; less where a clip is smaller."""
    turn: bool = True
    """Mirror training windows and exchange their axes. Not for latents of patches: the grid would be turned, the patch
    in each cell would not."""
    fractions: tuple[float, float, float] = (0.6, 0.15, 0.25)
    """Shares of training, validation and test, in this order of time."""
    max_frames: int = 60
    """Most frames of the evaluation, from the beginning of its part."""

    def __post_init__(self) -> None:
        """Refuse what makes no window and no question."""
        if self.window < 2:
            raise ConfigError(f"data.window must be at least 2 frames, got {self.window}")
        for name, least in (("factor", 1), ("stride", 1), ("crop", 8), ("max_frames", 4)):
            if getattr(self, name) < least:
                raise ConfigError(f"data.{name} must be at least {least}, got {getattr(self, name)}")
        if min(self.fractions) <= 0 or abs(sum(self.fractions) - 1) > _ROUNDING:
            raise ConfigError(f"data.fractions must be above 0 and add up to 1, got {list(self.fractions)}")
        if self.held_out and not self.also:
            raise ConfigError("data.held_out leaves nothing to train on: give other clips in data.also")


@dataclass(frozen=True, kw_only=True)
class FlickerConfig:
    """The flicker that is added to clips, which are taken as clean: independent from frame to frame."""

    low: float = 0.03
    """Least standard deviation in training, as a share of each channel's own; drawn anew for each window."""
    high: float = 0.5
    """Largest one."""
    test: float = 0.15
    """That of the evaluation."""

    def __post_init__(self) -> None:
        """Refuse what is no flicker."""
        if not 0 < self.low <= self.high or self.test <= 0:
            raise ConfigError(
                f"flicker: expected 0 < low <= high and test above 0, got {self.low}, {self.high} and {self.test}"
            )


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The module; see `TemporalModule`."""

    channels: int = 0
    """Channels of a latent; filled in from the data."""
    variances: tuple[float, ...] = ()
    """Variance of each channel over the training part; filled in from the data."""
    alpha_init: float = 0.3
    """Weight of the past at the start."""
    learnable_alpha: bool = True
    """Whether it is learnt."""
    gate: GateKind = "spatial"
    """One alpha for all cells, a learnt map, or a map by rule."""
    flow_direction: FlowDirection = "cur_to_prev"
    """How the flow runs that `forward` of the trained module, or its exported graph, is given: as in files of clips."""
    inverse: InverseKind = "fixed_point"
    """How a flow that runs from previous to current is turned round."""
    interpolation: Interpolation = "spline"
    """How the past is sampled."""
    occlusion: OcclusionKind = "weigh"
    """Whether cells that a forward-backward check of the flow calls occluded are taken from the current frame, or left
    to the gate, which sees better what fits."""
    refiner: RefinerKind = "none"
    """What corrects it. On frames that are sampled well a plain one costs more than it gains; latents of patches
    need `flow`."""
    predict_flow: bool = False
    """Learn to predict the flow from the latents; clips' own is not used then."""
    compat: Literal["none", "seed"] = "none"
    """`seed`: the literal formulas of the first specification."""

    def build(self) -> TemporalModule:
        """Build the module."""
        return TemporalModule(
            self.channels,
            alpha_init=self.alpha_init,
            learnable_alpha=self.learnable_alpha,
            gate=self.gate,
            flow_direction=self.flow_direction,
            inverse=self.inverse,
            interpolation=self.interpolation,
            occlusion=self.occlusion,
            refiner=self.refiner,
            predict_flow=self.predict_flow,
            compat="seed" if self.compat == "seed" else None,
        )


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """What is learnt from beside the error against the clean frames in units of the flicker's variance."""

    edge: float = 0.0
    """Weight of the difference of edges between what was moved and the frame, where it is valid."""
    refine: float = 0.0
    """Weight of what the refiner leaves of the difference between clean frames: the logarithm of its share of the
    channels' variance. Through the filter alone a refiner learns little: a gate that distrusts it gives it no
    gradient."""
    photometric: float = 1.0
    """With `model.predict_flow`: weight of the difference between the moved frame and the frame."""
    smooth: float = 0.2
    """With `model.predict_flow`: weight of the flow's unevenness."""
    skip: int = 1
    """Frames at the beginning of a window that do not count: the filter knows nothing yet."""

    def __post_init__(self) -> None:
        """Refuse what is no weight."""
        if min(self.edge, self.refine, self.photometric, self.smooth) < 0 or self.skip < 0:
            raise ConfigError(
                f"loss: weights and skip must be 0 or more, got {self.edge}, {self.refine}, {self.photometric}, "
                f"{self.smooth} and {self.skip}"
            )


@dataclass(frozen=True, kw_only=True)
class TemporalConfig(RunConfig):
    """Everything about a run of the temporal system."""

    data: DataConfig = field(default_factory=DataConfig)
    """Data."""
    flicker: FlickerConfig = field(default_factory=FlickerConfig)
    """Flicker that is added."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """Model."""
    loss: LossConfig = field(default_factory=LossConfig)
    """Loss."""
    warmup: AlphaWarmup = field(default_factory=lambda: AlphaWarmup(steps=0))
    """Warm-up of alpha while training; 0 steps do without."""

    def __post_init__(self) -> None:
        """Refuse what cannot be trained."""
        super().__post_init__()
        if self.loss.skip >= self.data.window:
            raise ConfigError(
                f"loss.skip must be below data.window (={self.data.window}), got {self.loss.skip}: nothing would count"
            )
        if self.model.gate == "kalman" and self.model.refiner == "none" and not self.model.predict_flow:
            raise ConfigError(
                "gate kalman without refiner and flow predictor has nothing to learn; use it without training: "
                "TemporalModule(channels, gate='kalman')"
            )
