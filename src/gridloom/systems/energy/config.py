"""Configuration of the energy system and its presets."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from gridloom.core.errors import ConfigError
from gridloom.core.settings import RunConfig, TrainConfig

__all__ = ["PRESETS", "DataConfig", "EnergyConfig", "LossConfig", "ModelConfig", "SearchConfig"]

_GENERATED = ("dot", "two_dots", "signal", "branches")
_SIGNALS = ("signal", "branches")
SIGNAL_LENGTH = 100
"""Numbers of a generated signal."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Images (or signals) and the coordinates to find in them."""

    task: Literal["dot", "two_dots", "signal", "branches", "extreme", "examples"] = "dot"
    """dot: a green square on white, find its center. two_dots: two of them, either is right. signal: a bump in 100
    numbers, find where. branches: a level x in 100 numbers, find +-sqrt(x). extreme: windows of a gridded field, find
    its highest (or lowest) cell through noise and missing cells. examples: your own images with positions."""
    path: str = ""
    """For extreme and examples: file, folder or name of a sample."""
    variables: tuple[str, ...] = ()
    """For extreme: the one variable to search (the first if not given). For examples: variables that make the channels;
    a variable `image` if not given."""
    find: Literal["highest", "lowest"] = "highest"
    """For extreme: which cell."""
    size: tuple[int, int] = (96, 96)
    """Height and width of the images, for all but examples and signals."""
    num_train: int = 10
    """Training examples (at most; extreme and examples may have fewer)."""
    num_validation: int = 32
    """Examples that choose the checkpoint; drawn independently."""
    num_test: int = 500
    """Test examples; drawn independently."""
    square: int = 7
    """Edge of a generated square in cells, odd."""
    placement: Literal["uniform", "clipped"] = "uniform"
    """Where generated squares lie: each whole place alike, or, as in the public version, each cell alike and then moved
    inside, so that the border gets four times its share."""
    stride: tuple[int, int] = (12, 12)
    """For extreme: cells between the starts of two windows, down and across."""
    normalize: Literal["unit", "centered"] = "unit"
    """For generated images: 0..255 to 0..1; centered subtracts the training part's mean of each channel too, so that
    the background is near 0, which is what the convolutions see beyond the border."""
    noise: float = 0.0
    """Standard deviation of the noise that images are seen through, as a share of the image's own."""
    missing: float = 0.0
    """Share of the cells that are hidden."""
    bounds: tuple[tuple[float, float], ...] = ()
    """Lower and upper end of each coordinate; filled in from the data if not given: cells of the image, or for examples
    with other coordinates the training part's range and 5 % on either side."""
    coordinates: tuple[str, ...] = ()
    """Names of the coordinates; filled in from the data."""

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        for name in ("num_train", "num_validation", "num_test", "square"):
            if getattr(self, name) < 1:
                raise ConfigError(f"data.{name} must be at least 1, got {getattr(self, name)}")
        if self.task in ("dot", "two_dots") and (self.square % 2 == 0 or self.square > min(self.size)):
            raise ConfigError(f"data.square must be odd and fit into {self.size}, got {self.square}")
        if not (self.noise >= 0 and 0 <= self.missing < 1):
            raise ConfigError(f"data.noise must be 0 or more, data.missing in [0, 1), got {self.noise}, {self.missing}")
        if any(not low < high for low, high in self.bounds):
            raise ConfigError(f"data.bounds must be pairs (low, high) with low < high, got {self.bounds}")

    def check_path(self) -> None:
        """Refuse a path where the task makes its own data.

        Raises:
            ConfigError: Says which tasks take one.
        """
        if self.path and self.task in _GENERATED:
            raise ConfigError(
                f"data.task {self.task} makes its own data, it does not take {self.path!r}; "
                f"use --preset examples (images with positions), or --data.task extreme (find the highest cell)"
            )

    @property
    def is_signal(self) -> bool:
        """Whether the inputs are signals, not images."""
        return self.task in _SIGNALS

    @property
    def many_answers(self) -> bool:
        """Whether an example has more than one right answer."""
        return self.task in ("two_dots", "branches")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network."""

    kind: Literal["energy", "explicit", "autoregressive"] = "energy"
    """energy: EBMConvMLP, or EBMMLP for signals. explicit: the baseline that regresses the coordinates with MSE.
    autoregressive: an energy for each coordinate given those before it, for more than three."""
    channels: tuple[str, ...] = ()
    """Names of the image's channels; filled in from the data."""
    widths: tuple[int, ...] = (16, 32, 32)
    """Channels of the CNN's stages."""
    keypoints: int = 16
    """Feature maps that go through the soft-argmax."""
    hidden: int = 256
    """Width of the energy network."""
    depth: int = 1
    """Hidden layers of the energy network."""
    coord_conv: bool = True
    """Give the CNN the coordinates of the cells."""
    fusion: Literal["concat", "relative"] = "concat"
    """How features meet candidates: side by side, or as differences, so that the energy moves with the image."""
    mask_missing: bool = False
    """Tell missing cells to the network by a plane, and standardize each image by its known cells."""
    compat: Literal["none", "seed"] = "none"
    """seed: the residual block as listed, whose first convolution is dead."""

    def __post_init__(self) -> None:
        """Refuse sizes that make no network."""
        if not self.widths or min(*self.widths, self.keypoints, self.hidden, self.depth) < 1:
            raise ConfigError(
                f"model.widths, keypoints, hidden and depth must be at least 1, got {self.widths}, {self.keypoints}, "
                f"{self.hidden}, {self.depth}"
            )


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """InfoNCE."""

    num_negatives: int = 256
    """Counter-examples for each example."""
    near_scales: tuple[float, ...] = ()
    """Standard deviations of counter-examples near the target, coordinates being -1 to 1; they are half of all. Empty:
    all are uniform in the bounds."""
    correct_density: bool = True
    """Subtract the log-density of the sampler where it is not uniform (ranking NCE)."""
    gradient_penalty: float = 0.0
    """Weight of the penalty on steep energies, for Langevin; 0 is none."""
    langevin_negatives: int = 0
    """Counter-examples besides, from short Langevin chains on the present energy; no gradient goes through a chain."""

    def __post_init__(self) -> None:
        """Refuse what is no sampler."""
        if self.num_negatives < 2 or any(not scale > 0 for scale in self.near_scales):
            raise ConfigError(
                f"loss.num_negatives must be at least 2 and loss.near_scales above 0, got {self.num_negatives} and "
                f"{self.near_scales}"
            )
        if self.langevin_negatives and self.near_scales and self.correct_density:
            raise ConfigError(
                "loss.langevin_negatives come from no density that could be taken out beside loss.near_scales; "
                "use one of them, or set --loss.no-correct-density"
            )
        if not (self.gradient_penalty >= 0 and self.langevin_negatives >= 0):
            raise ConfigError(
                f"loss.gradient_penalty and loss.langevin_negatives must be 0 or more, got {self.gradient_penalty} and "
                f"{self.langevin_negatives}"
            )


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """How the minimum is found at inference."""

    optimizer: Literal["pattern", "derivative_free", "langevin", "autoregressive"] = "pattern"
    """pattern: a grid, then ever finer ones (up to three coordinates). derivative_free: the paper's resampling.
    langevin: by gradients, with noise. autoregressive: one coordinate after another (for that kind of model)."""
    num_samples: int = 16384
    """Candidates of derivative_free; an eighth of it for autoregressive, a 64th for langevin."""
    iterations: int = 3
    """Resamplings of derivative_free and autoregressive."""
    noise_scale: float = 0.33
    """Standard deviation of their first noise, coordinates being -1 to 1."""
    noise_shrink: float = 0.5
    """Factor from one iteration's noise to the next."""
    polish: bool = False
    """Descend from the best candidate by its gradient."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16 computes the 3x3 convolutions in bfloat16, all else in float32."""

    def __post_init__(self) -> None:
        """Refuse what is no search."""
        if self.num_samples < 1 or not min(self.iterations, self.noise_scale, self.noise_shrink) >= 0:
            raise ConfigError(
                f"search.num_samples must be at least 1, iterations, noise_scale and noise_shrink 0 or more, got {self}"
            )


@dataclass(frozen=True, kw_only=True)
class EnergyConfig(RunConfig):
    """Train an energy E(image, coordinate) whose minimum is the answer."""

    data: DataConfig = field(default_factory=DataConfig)
    """Images and coordinates."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The network."""
    loss: LossConfig = field(default_factory=LossConfig)
    """The loss."""
    search: SearchConfig = field(default_factory=SearchConfig)
    """The search for the minimum."""

    def __post_init__(self) -> None:
        """Refuse parts that do not go together."""
        super().__post_init__()
        if self.data.is_signal and self.model.fusion == "relative":
            raise ConfigError("model.fusion relative compares keypoints with coordinates; signals have none: concat")
        if self.data.missing and not self.model.mask_missing:
            raise ConfigError("data.missing hides cells: the network must be told, set --model.mask-missing")
        if (self.search.optimizer == "autoregressive") != (self.model.kind == "autoregressive"):
            raise ConfigError(
                f"search.optimizer autoregressive and model.kind autoregressive go together, got "
                f"{self.search.optimizer} and {self.model.kind}"
            )


_ADAM = TrainConfig(weight_decay=0.0, betas=(0.9, 0.999), clip_norm=0.0, validate_every=100)
"""The paper's optimizer."""
_LISTED = replace(
    _ADAM, steps=1000, batch_size=8, final_learning_rate=9e-4, warmup_steps=0, snapshots=(0, 50, 200, 1000)
)
_BEST = replace(_ADAM, precision="bf16", keep="best")


def seed() -> EnergyConfig:
    """The specification's model on ten 96x96 images with a 7x7 square.

    Concatenation, CoordConv, uniform counter-examples, the derivative-free search.
    """
    return EnergyConfig(
        data=DataConfig(placement="clipped"), search=SearchConfig(optimizer="derivative_free"), train=_LISTED
    )


def recommended() -> EnergyConfig:
    """The same task, better.

    Centered images, relative fusion without CoordConv, counter-examples also near the target with the sampler's
    density taken out, pattern search and polish, the checkpoint chosen by held-out error.
    """
    return EnergyConfig(
        data=DataConfig(normalize="centered"),
        model=ModelConfig(coord_conv=False, fusion="relative"),
        loss=LossConfig(near_scales=(0.3, 0.1, 0.03)),
        search=SearchConfig(polish=True),
        train=replace(_BEST, steps=600, batch_size=8, warmup_steps=20, validate_every=50, snapshots=(0, 50, 200, 600)),
    )


def _of_signals(data: DataConfig) -> EnergyConfig:
    return EnergyConfig(
        data=data,
        model=ModelConfig(hidden=128, depth=2, coord_conv=False),
        loss=LossConfig(num_negatives=64, near_scales=(0.3, 0.1, 0.03)),
        train=replace(_ADAM, steps=1500, batch_size=32, keep="best", snapshots=(0, 30, 150, 1500)),
    )


def one_d() -> EnergyConfig:
    """Signals of 100 numbers with a bump, no CNN: where is it? Seconds on a laptop."""
    return _of_signals(DataConfig(task="signal", num_train=1000, num_validation=100))


def branches() -> EnergyConfig:
    """Signals whose level is x, and the answer +sqrt(x) or -sqrt(x): what a regression cannot fit. Seconds."""
    return _of_signals(DataConfig(task="branches", num_train=400, num_validation=100))


def multimodal() -> EnergyConfig:
    """Images with two squares, either of which is right: an energy finds one, a regression their middle."""
    better = recommended()
    return EnergyConfig(
        data=DataConfig(task="two_dots", size=(64, 64), num_train=300, normalize="centered"),
        # The mean of two places is neither: with CoordConv a map can prefer, say, the upper one.
        model=ModelConfig(fusion="relative", hidden=128, depth=2),
        loss=LossConfig(near_scales=(0.3, 0.1)),
        search=better.search,
        train=replace(better.train, steps=1000, batch_size=16, validate_every=100, snapshots=(0, 100, 300, 1000)),
    )


def summit() -> EnergyConfig:
    """The highest place of windows of global elevation, seen through noise and missing cells; split in space."""
    better = recommended()
    return EnergyConfig(
        data=DataConfig(
            task="extreme",
            path="etopo20",
            size=(48, 48),
            num_train=4000,
            num_validation=200,
            noise=0.3,
            missing=0.3,
            stride=(8, 8),
        ),
        model=ModelConfig(coord_conv=False, fusion="relative", mask_missing=True),
        loss=LossConfig(near_scales=(0.3, 0.1)),
        search=better.search,
        train=replace(_BEST, steps=1000, batch_size=32, clip_norm=1.0, snapshots=(0, 100, 300, 1000)),
    )


def examples() -> EnergyConfig:
    """The recommended model for your own images with positions: a file with `image` and `position`."""
    better = recommended()
    return replace(
        better,
        data=DataConfig(task="examples"),
        train=replace(better.train, steps=1500, validate_every=100, snapshots=(0, 100, 400, 1500)),
    )


PRESETS: Mapping[str, Callable[[], EnergyConfig]] = {
    "default": seed,
    "seed": seed,
    "recommended": recommended,
    "one_d": one_d,
    "branches": branches,
    "multimodal": multimodal,
    "summit": summit,
    "examples": examples,
}
