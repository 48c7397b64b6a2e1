"""From a heatmap and its slot to a latent."""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from gridloom.core.batch import Batch
from gridloom.core.contracts import Encoder, FeatureSpec, FieldSpec, InputSpec
from gridloom.core.errors import DataError
from gridloom.nn.spatial import SpatialSoftArgmax
from gridloom.systems.heatmap.config import ModelConfig

__all__ = ["FIELD", "SLOT", "HeatmapEncoder", "check_frames", "check_slots"]

FIELD, SLOT = "frames", "slot"
NUM_GROUPS = 8
_EPS = 1e-6
_LEVEL_FLOOR = 1e-4
_SMALL = 0.1


def check_frames(x: Tensor, config: ModelConfig, name: str = "input") -> Float[Tensor, "*leading channel y x"]:
    """Cast frames to float32, or say what is wrong with them.

    Raises:
        DataError: Another number of dimensions, another size, or integers, which are counts.
    """
    size = (config.channels, config.height, config.width)
    if x.ndim not in (4, 5) or tuple(x.shape[-3:]) != size:
        told = ",".join(map(str, size))
        raise DataError(f"{name} must be (B,T,{told}) or (N,{told}), got {tuple(x.shape)}")
    if not x.is_floating_point():
        raise DataError(
            f"{name} must be float pixels in [0, 1], got {x.dtype}: integers are counts; scale them first with "
            f"gridloom.grid.events.pixels"
        )
    return x.float()


def check_slots(slot_id: Tensor, leading: tuple[int, ...], num_slots: int) -> Int64[Tensor, " frames"]:
    """Flatten the slots of frames, or say what is wrong with them.

    Args:
        slot_id: One slot for each frame, in the shape of the frames' leading dimensions or flat.
        leading: Leading dimensions of the frames.
        num_slots: Slots that there are.

    Raises:
        DataError: Not torch.long, another number of slots than of frames, or one out of range.
    """
    count = 1
    for size in leading:
        count *= size
    if slot_id.dtype != torch.long:
        raise DataError(f"slot_id must be torch.long, got {slot_id.dtype}; convert it with .long()")
    if tuple(slot_id.shape) not in (leading, (count,)):
        raise DataError(f"slot_id must be {leading} or ({count},), one for each frame, got {tuple(slot_id.shape)}")
    flat = slot_id.reshape(-1)
    if not torch.compiler.is_compiling() and flat.numel():
        low, high = int(flat.min()), int(flat.max())
        if low < 0 or high >= num_slots:
            raise DataError(f"slot_id out of range: expected 0 to {num_slots - 1}, got {low} to {high}")
    return flat


class ResidualBlock(nn.Module):
    """conv-norm-GELU-conv-norm, add, GELU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm1 = nn.GroupNorm(NUM_GROUPS, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(NUM_GROUPS, channels)

    def forward(self, x: Float[Tensor, "batch channel y x"]) -> Float[Tensor, "batch channel y x"]:
        """Apply the block."""
        y = F.gelu(self.norm1(self.conv1(x)))
        return F.gelu(self.norm2(self.conv2(y)) + x)


class Backbone(nn.Module):
    """A stem at full resolution, then stages that halve it, with residual blocks after each."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        first, *rest = config.widths
        layers: list[nn.Module] = [nn.Conv2d(config.channels, first, 3, padding=1), nn.GroupNorm(NUM_GROUPS, first)]
        self.stem = nn.Sequential(*layers, nn.GELU())
        stages = []
        for inputs, outputs in zip(config.widths, rest, strict=False):
            down = [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.GroupNorm(NUM_GROUPS, outputs), nn.GELU()]
            stages.append(nn.Sequential(*down, *(ResidualBlock(outputs) for _ in range(config.num_blocks))))
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Float[Tensor, "batch channel y x"]) -> Float[Tensor, "batch feature y2 x2"]:
        """Return the last stage's features."""
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return x


class HeatmapEncoder(Encoder):
    """A heatmap and its slot to a latent; without arguments exactly the seed's encoder (8,947,937 parameters).

    `z = LayerNorm(alpha * projector(pool(backbone(normalize(x)))) + slot_embedding[slot])`

    Attributes:
        mean: Of each cell over the training part, in each slot or in all: for `normalize` `slot` and `dataset`.
        std: Standard deviation of each cell from it.
    """

    mean: Tensor
    std: Tensor
    outputs = {"embedding": ("feature",)}  # noqa: RUF012 - as the contract declares it

    def __init__(self, config: ModelConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or ModelConfig()
        size = (config.channels, config.height, config.width)
        self.inputs = InputSpec(
            fields={FIELD: FieldSpec(dims=("channel", "y", "x"), size=size)},
            features={SLOT: FeatureSpec()},
            missing="raise",
        )
        self.backbone = Backbone(config)
        self.softargmax = SpatialSoftArgmax() if config.pool == "softargmax" else None
        self.projector = nn.Sequential(
            nn.Linear(self._num_features(), config.hidden),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, config.latent_dim),
            nn.LayerNorm(config.latent_dim),
        )
        self.around = None
        if config.linear:
            self.around = nn.Linear(config.channels * config.height * config.width, config.latent_dim, bias=False)
            nn.init.orthogonal_(self.around.weight)
            last = self.projector[-1]
            assert isinstance(last, nn.LayerNorm)
            nn.init.constant_(last.weight, _SMALL)  # so that the linear part is legible at first
        self.alpha = nn.Parameter(torch.tensor(float(config.alpha)))
        self.slot_embedding = nn.Embedding(config.num_slots, config.latent_dim)
        if config.slot_init_std != 1.0:
            nn.init.normal_(self.slot_embedding.weight, std=config.slot_init_std)
        self.norm = nn.LayerNorm(config.latent_dim)
        if config.normalize in ("dataset", "slot"):
            slots = config.num_slots if config.normalize == "slot" else 1
            self.register_buffer("mean", torch.zeros(slots, *size))
            self.register_buffer("std", torch.ones(size))

    def forward(  # type: ignore[override]
        self,
        x: Shaped[Tensor, "..."] | Batch,
        slot_id: Shaped[Tensor, "..."] | None = None,
        usual: Float[Tensor, "*frames"] | None = None,
    ) -> Float[Tensor, "*leading latent"] | Mapping[str, Tensor]:
        """Encode frames.

        Args:
            x: `(B,T,C,H,W)` or `(N,C,H,W)`, pixels in [0, 1], any floating type; or a batch with the field `frames` and
                the feature `slot`.
            slot_id: Slot of each frame, `(B,T)`, `(N,)` or flat; not with a batch.
            usual: With `normalize slot`: what was usual for each frame's slot when it came, in the shape of `x`.
                Without, the mean of the slot over the training part.

        Returns:
            Latents `(B,T,latent_dim)` or `(N,latent_dim)`; for a batch `{"embedding": latents}`, one for
            each sample: of windows in time, the last frame's.

        Raises:
            DataError: Another shape, integer frames, slots of another type or out of range.
        """
        if isinstance(x, Batch):
            frames, slots = x.fields[FIELD].values, x.features[SLOT]
            if frames.ndim == 5:
                frames, slots = frames[:, -1], slots[:, -1]
            return {"embedding": self(frames, slots)}
        x = check_frames(x, self.config)
        if slot_id is None:
            raise DataError("slot_id is missing: give one slot for each frame, torch.long")
        leading = tuple(x.shape[:-3])
        slots = check_slots(slot_id, leading, self.config.num_slots)
        if usual is not None:
            usual = usual.reshape(-1, *x.shape[-3:])
        z = self._embed(x.reshape(-1, *x.shape[-3:]), slots, usual)
        return z.reshape(*leading, z.shape[-1])

    def _embed(self, x: Tensor, slots: Tensor, usual: Tensor | None) -> Tensor:
        mean = std = None
        if self.config.normalize in ("frame", "frame+stats"):
            std, mean = torch.std_mean(x, dim=(1, 2, 3), keepdim=True)
            x = (x - mean) / (std + _EPS)
        elif self.config.normalize == "dataset":
            x = (x - self.mean) / self.std
        elif self.config.normalize == "slot":
            x = (x - (self.mean[slots] if usual is None else usual)) / self.std
        features = self._pool(self.backbone(x))
        if self.config.normalize == "frame+stats":
            assert mean is not None and std is not None
            # logarithms: the level of activity spans decades
            level = torch.cat([mean.flatten(1), std.flatten(1)], dim=1)
            features = torch.cat([features, torch.log(level.clamp(min=0.0) + _LEVEL_FLOOR)], dim=1)
        latent = self.projector(features)
        if self.around is not None:
            latent = latent + self.around(x.flatten(1))
        return self.norm(self.alpha * latent + self.slot_embedding(slots))  # type: ignore[no-any-return]

    def _pool(self, features: Tensor) -> Tensor:
        if self.config.pool == "flatten":
            return features.flatten(1)
        pooled = features.mean(dim=(2, 3))
        return pooled if self.softargmax is None else torch.cat([pooled, self.softargmax(features)], dim=1)

    def _num_features(self) -> int:
        config = self.config
        last = config.widths[-1]
        height, width = config.coarse
        pooled = {"gap": last, "flatten": last * height * width, "softargmax": 3 * last}[config.pool]
        return pooled + (2 if config.normalize == "frame+stats" else 0)
