"""Configuration of the heatmap system."""

from dataclasses import dataclass, field
from typing import Literal

from gridloom.core.errors import ConfigError
from gridloom.core.settings import RunConfig
from gridloom.systems.heatmap.scale import PixelScale

__all__ = [
    "CausalConfig",
    "DataConfig",
    "HeatmapConfig",
    "LocalConfig",
    "LossConfig",
    "LossKind",
    "MemoryConfig",
    "ModelConfig",
    "MotionConfig",
]

LossKind = Literal["smooth_l1", "bce", "poisson"]

_GROUPS = 8
_ROUNDING = 1e-6


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which heatmaps, and how they are cut into windows and parts."""

    path: str = ""
    """Frames of `gridloom rasterize`, any array of (time, channel, y, x), or a sample (`gridloom data list`)."""
    window: int = 32
    """Frames of a training window; each but the last is a question, the next frame its answer."""
    stride: int = 8
    """Frames between the starts of two training windows."""
    coarsen: tuple[int, ...] = (1,)
    """Train also on the training part with so many slots taken together as one, counts added up: a busy minute looks
    like several quiet ones, and the test may be busier than anything before. 1 is the record as it is."""
    within_session: bool = True
    """Windows stay in one session, and averages and lags start anew with it: prices are binned around another reference
    in the next one. False where time simply goes on (hours of the year)."""
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2)
    """Shares of training, validation and test, in this order of time."""
    leads: tuple[int, ...] = (1, 3, 6, 24)
    """Slots ahead that the evaluation asks for."""
    max_origins: int = 128
    """Starting points of the evaluation, spread evenly over the part."""
    num_samples: int = 0
    """Sample paths of each starting point in the evaluation, for its intervals; 0 does without."""

    def __post_init__(self) -> None:
        """Refuse what makes no window and no question."""
        if self.window < 2:
            raise ConfigError(f"data.window must be at least 2 frames, got {self.window}")
        if self.stride < 1 or self.max_origins < 1:
            raise ConfigError(
                f"data.stride and data.max_origins must be at least 1, got {self.stride} and {self.max_origins}"
            )
        if 1 not in self.coarsen or min(self.coarsen) < 1:
            raise ConfigError(
                f"data.coarsen must have 1 (the record as it is) and whole numbers, got {list(self.coarsen)}"
            )
        if min(self.fractions) <= 0 or abs(sum(self.fractions) - 1) > _ROUNDING:
            raise ConfigError(f"data.fractions must be above 0 and add up to 1, got {list(self.fractions)}")
        if self.num_samples < 0:
            raise ConfigError(f"data.num_samples must be 0 or more, got {self.num_samples}")
        if not self.leads or min(self.leads) < 1 or list(self.leads) != sorted(set(self.leads)):
            raise ConfigError(f"data.leads must be rising numbers from 1 up, got {list(self.leads)}")


@dataclass(frozen=True, kw_only=True)
class CausalConfig:
    """What looks back over the latents."""

    kind: Literal["placeholder", "transformer"] = "placeholder"
    """`placeholder`: an MLP on the current latent alone, the seed's. `transformer`: sees the steps before."""
    dim: int = 512
    """Width of the transformer."""
    depth: int = 6
    """Its layers."""
    num_heads: int = 8
    """Its heads."""
    window: int = 256
    """Steps that each step sees in every layer."""
    dropout: float = 0.0
    """Dropout of each branch while training."""


@dataclass(frozen=True, kw_only=True)
class MemoryConfig:
    """What is remembered of the past, cell by cell, beside the latents: nothing of it is learnt."""

    seasonal: tuple[tuple[int, float], ...] = ()
    """(period in slots, rate): a mean for each slot of the period that follows what comes; rate 0 is the plain mean of
    all that was seen. The first one is the base of `residual slot_mean`."""
    averages: tuple[float, ...] = ()
    """Rates of exponential moving averages. The first one is the base of `residual ema`."""
    count_averages: tuple[float, ...] = ()
    """Rates of exponential moving averages of counts, given as pixels: they do not fall behind where single events
    follow nothing. With pixels that are no counts they are averages like the others."""
    lags: tuple[int, ...] = ()
    """Frames so many slots before the one to predict; 1 is the last one."""
    deviation_lags: tuple[int, ...] = ()
    """The same of the frames' deviation from what was the base then."""
    deviation_averages: tuple[float, ...] = ()
    """Exponential moving averages of the deviation."""
    cells: Literal["all", "seen"] = "all"
    """`seen`: cells that had no event in the whole training part are left out and forecast as empty; cheap where most
    of a frame can have none (airports on a map)."""

    def __post_init__(self) -> None:
        """Refuse rates and lags that there are not."""
        rates = [rate for _, rate in self.seasonal]
        if any(not 0 <= rate <= 1 for rate in rates) or any(period < 1 for period, _ in self.seasonal):
            raise ConfigError(
                f"memory.seasonal: expected (period of 1 or more, rate from 0 to 1), got {list(self.seasonal)}"
            )
        for name in ("averages", "count_averages", "deviation_averages"):
            if any(not 0 < rate <= 1 for rate in getattr(self, name)):
                raise ConfigError(f"memory.{name} must be rates above 0, up to 1, got {list(getattr(self, name))}")
        for name in ("lags", "deviation_lags"):
            if any(lag < 1 for lag in getattr(self, name)):
                raise ConfigError(f"memory.{name} must be 1 or more, got {list(getattr(self, name))}")


@dataclass(frozen=True, kw_only=True)
class LocalConfig:
    """A small network on what is remembered, which corrects the base cell by cell."""

    width: int = 0
    """Hidden channels; 0 does without."""
    depth: int = 2
    """Hidden layers."""
    kernel: int = 1
    """Size of the convolutions; 1 looks at each cell alone, and costs nothing for cells that never had an event."""
    cell_embedding: int = 0
    """Learnt numbers for each cell."""
    slot_embedding: int = 0
    """Learnt numbers for the slot to predict."""
    overall: bool = False
    """Show each cell the mean over all cells too."""

    def __post_init__(self) -> None:
        """Refuse what is no convolution."""
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise ConfigError(f"local.kernel must be odd, got {self.kernel}")
        if self.width < 0 or self.depth < 1 or self.cell_embedding < 0 or self.slot_embedding < 0:
            raise ConfigError(
                f"local: width and embeddings must be 0 or more and depth 1 or more, got {self.width}, "
                f"{self.cell_embedding}, {self.slot_embedding} and {self.depth}"
            )


@dataclass(frozen=True, kw_only=True)
class MotionConfig:
    """A small network that moves the last frame as a whole, each channel for itself, as the frames before it moved."""

    reach: int = 0
    """Largest motion from one frame to the next, in cells along each axis; 0 does without."""
    hidden: int = 192
    """Width of its two hidden layers."""
    num_frames: int = 5
    """Frames it looks at. `memory.lags` must begin with 1, 2, ... up to it."""

    def __post_init__(self) -> None:
        """Refuse what shows no motion."""
        if self.reach < 0 or self.hidden < 1 or self.num_frames < 2:
            raise ConfigError(
                f"motion: reach must be 0 or more, hidden 1 or more, num_frames 2 or more, got {self.reach}, "
                f"{self.hidden} and {self.num_frames}"
            )


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Encoder, causal part and decoder. The defaults are the seed's, to the last parameter."""

    channels: int = 2
    """Channels of a frame; filled in from the data."""
    height: int = 32
    """Rows of a frame; filled in from the data."""
    width: int = 32
    """Columns of a frame; filled in from the data."""
    num_slots: int = 239
    """Slots of a cycle; filled in from the data."""
    num_cells: int = 0
    """Cells that are remembered; filled in from the data."""
    count_cap: int = 0
    """Count that is pixel 1; 0 where the data are pixels. Filled in from the data."""
    count_scale: Literal["log1p", "linear"] = "log1p"
    """How counts become pixels. Filled in from the data."""
    latent_dim: int = 4096
    """Size of a latent."""
    widths: tuple[int, ...] = (32, 64, 128, 256)
    """Channels of the stem and of each stage, which halves the resolution."""
    num_blocks: int = 2
    """Residual blocks of each stage."""
    hidden: int = 1024
    """Hidden width of the projector."""
    dropout: float = 0.1
    """Of the projector, while training."""
    alpha: float = 0.1
    """Start of the learnt factor of what the frame says, beside the slot's embedding."""
    slot_init_std: float = 1.0
    """Standard deviation of the slots' embedding at the start. At 1 and alpha 0.1 a latent says which slot it is, and
    little else."""
    normalize: Literal["frame", "none", "dataset", "frame+stats", "slot"] = "frame"
    """`frame`: zero mean and unit deviation of each frame, which loses the level of activity. `none`. `dataset`: zero
    mean and unit deviation of each cell over the training part. `frame+stats`: as `frame`, and the encoder is told what
    they were. `slot`: deviation from the training part's mean of the cell in this slot."""
    pool: Literal["gap", "flatten", "softargmax"] = "gap"
    """What becomes of the coarsest map: its mean; all of it; its mean and the place of each channel's maximum."""
    linear: bool = False
    """A linear way around the convolutions of encoder and decoder, cell by cell: what a latent should carry of single
    cells need not be learnt through them."""
    causal: CausalConfig = field(default_factory=CausalConfig)
    """What looks back."""
    next_slot: bool = False
    """Tell the decoder the slot of the frame to predict."""
    output_bias: bool = False
    """Start from the mean frame of the training part: its logit is added before the sigmoid. Without residual alone."""
    decode: bool = True
    """Whether latents have a part in the forecast. Without, the local network and the base make it alone, and the
    encoder stays untrained: to compare with."""
    residual: Literal["none", "last", "ema", "slot_mean"] = "none"
    """What the networks correct: nothing, the last frame, a moving average, the mean of the slot to predict."""
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    """What is remembered for the residual and the local network."""
    local: LocalConfig = field(default_factory=LocalConfig)
    """The local network."""
    motion: MotionConfig = field(default_factory=MotionConfig)
    """What moves the last frame before it is corrected; with `residual last`."""

    @property
    def coarse(self) -> tuple[int, int]:
        """Height and width of the coarsest map."""
        factor = 2 ** (len(self.widths) - 1)
        return self.height // factor, self.width // factor

    @property
    def scale(self) -> PixelScale:
        """How counts become pixels."""
        return PixelScale(cap=self.count_cap, kind=self.count_scale)

    @property
    def remembers(self) -> bool:
        """Whether anything has to be remembered beside the latents."""
        return self.residual != "none"

    @property
    def remembered_cells(self) -> int:
        """How many cells are remembered."""
        return self.num_cells or self.height * self.width

    def __post_init__(self) -> None:
        """Refuse sizes that the stages cannot halve, and parts that miss another."""
        factor = 2 ** (len(self.widths) - 1)
        if self.height % factor or self.width % factor or min(self.height, self.width) < factor:
            raise ConfigError(
                f"model: {len(self.widths) - 1} stages halve the frame, so its sides must be multiples of {factor}, "
                f"got {self.height}x{self.width}; give fewer model.widths, or pad the frames"
            )
        if len(self.widths) < 2 or any(width < 1 or width % _GROUPS for width in self.widths):
            raise ConfigError(
                f"model.widths: expected two or more multiples of {_GROUPS} (the norms have {_GROUPS} groups), "
                f"got {list(self.widths)}"
            )
        if self.local.width and not self.remembers:
            raise ConfigError("model.local corrects a base: set model.residual to last, ema or slot_mean")
        if not self.decode and not self.local.width and not self.motion.reach:
            raise ConfigError("model.decode false needs a local network: set model.local.width (or model.motion.reach)")
        if not self.decode and self.next_slot:
            raise ConfigError(
                "model.next_slot is for the decoder, which model.decode false leaves out; drop one of them"
            )
        if self.output_bias and self.remembers:
            raise ConfigError("model.output_bias and model.residual both say where to start; leave one of them out")
        if self.local.kernel > 1 and self.memory.cells == "seen":
            raise ConfigError("model.local.kernel above 1 needs neighbors: set model.memory.cells to all")
        self._check_motion()
        needed = {"ema": ("averages", self.memory.averages), "slot_mean": ("seasonal", self.memory.seasonal)}
        name, given = needed.get(self.residual, ("", (1,)))
        if not given:
            raise ConfigError(f"model.residual {self.residual} takes the first of model.memory.{name}, which is empty")

    def _check_motion(self) -> None:
        frames = self.motion.num_frames
        if self.motion.reach and (
            self.residual != "last"
            or self.memory.lags[:frames] != tuple(range(1, frames + 1))
            or self.memory.cells != "all"
        ):
            raise ConfigError(
                f"model.motion moves the last frame as the {frames} last ones moved: set model.residual to last, "
                f"model.memory.cells to all, and begin model.memory.lags with 1 to {frames}; got {self.residual}, "
                f"{self.memory.cells} and {list(self.memory.lags)}"
            )


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """What is minimized."""

    kind: LossKind = "smooth_l1"
    """Of pixels: half the squared error (values in [0, 1] never reach the linear part); cross-entropy; the likelihood
    of counts under a Poisson distribution."""
    context_noise: float = 0.0
    """Standard deviation of noise on the frames that the encoder sees while training, in pixels: forecasts that feed
    on themselves meet such frames."""

    def __post_init__(self) -> None:
        """Refuse noise that there is not."""
        if not self.context_noise >= 0:
            raise ConfigError(f"loss.context_noise must be 0 or more, got {self.context_noise}")


@dataclass(frozen=True, kw_only=True)
class HeatmapConfig(RunConfig):
    """Train a forecaster of heatmaps: the next frame from those before."""

    data: DataConfig = field(default_factory=DataConfig)
    """What is trained on."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The networks."""
    loss: LossConfig = field(default_factory=LossConfig)
    """What is minimized."""

    def __post_init__(self) -> None:
        """Refuse what does not go together."""
        super().__post_init__()
        if max(self.data.coarsen) > 1 and self.model.memory.seasonal:
            raise ConfigError(
                f"data.coarsen {list(self.data.coarsen)} takes slots together, model.memory.seasonal counts them one "
                f"by one; leave one of them out"
            )
