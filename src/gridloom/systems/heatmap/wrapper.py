"""Encoder, causal part, head and decoder in one: the next frame from those before."""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from gridloom.core.errors import DataError
from gridloom.nn.causal import CausalTransformer
from gridloom.systems.heatmap.config import CausalConfig, ModelConfig
from gridloom.systems.heatmap.decoder import HeatmapDecoder
from gridloom.systems.heatmap.encoder import HeatmapEncoder, check_frames, check_slots
from gridloom.systems.heatmap.local import LocalNetwork
from gridloom.systems.heatmap.memory import FrameMemory, num_phases
from gridloom.systems.heatmap.motion import MotionNetwork

__all__ = ["AutoRegOutput", "AutoRegWrapper", "PlaceholderCausal"]


class AutoRegOutput(NamedTuple):
    """What the wrapper returns."""

    loss: Tensor
    """Mean smooth-L1 loss of all predicted frames but the last, whose truth is not known yet; a scalar."""
    x_hat: Tensor
    """Predicted frames, (B,T,C,H,W): frame t is the prediction of frame t+1."""


class PlaceholderCausal(nn.Module):
    """A two-layer MLP on each latent alone: it looks at the current frame and at nothing before it."""

    def __init__(self, latent_dim: int = 4096) -> None:
        super().__init__()
        self.fc1 = nn.Linear(latent_dim, latent_dim)
        self.fc2 = nn.Linear(latent_dim, latent_dim)

    def forward(self, z: Float[Tensor, "*leading latent"]) -> Float[Tensor, "*leading latent"]:
        """Transform each latent."""
        return self.fc2(F.gelu(self.fc1(z)))  # type: ignore[no-any-return]


def build_causal(config: CausalConfig, latent_dim: int) -> PlaceholderCausal | CausalTransformer:
    """What looks back over the latents."""
    if config.kind == "placeholder":
        return PlaceholderCausal(latent_dim)
    return CausalTransformer(
        latent_dim,
        dim=config.dim,
        depth=config.depth,
        num_heads=config.num_heads,
        window=config.window,
        dropout=config.dropout,
    )


class AutoRegWrapper(nn.Module):
    """The next frame from those before; without arguments exactly the seed's (76,460,995 parameters).

    Without residual `x_hat = sigmoid(decoder(head(causal(encoder(x)))))`. With one, what the decoder gives before the
    sigmoid and what the local network gives are both corrections of a base: the last frame, an average, the mean of the
    slot. Both start at zero, so that an untrained model forecasts the base.

    Attributes:
        spread: Standard deviation of what the base leaves, by channel: the unit of the corrections.
        cells: Places of the remembered cells in a frame.
        prior: Seasonal means at the end of the training part, for records too short to have their own.
        bias: Logit of the mean frame of the training part, with `output_bias`.
    """

    spread: Tensor
    cells: Tensor
    prior: Tensor
    bias: Tensor

    def __init__(
        self, config: ModelConfig | None = None, *, causal: Literal["placeholder", "transformer"] | None = None
    ) -> None:
        """Build it untrained.

        Args:
            config: The model; None is the seed's.
            causal: Takes the place of `config.causal.kind`.
        """
        super().__init__()
        self.config = config = config or ModelConfig()
        self.encoder = HeatmapEncoder(config)
        self.causal = self.head = self.decoder = None
        if config.decode:
            kind = CausalConfig(**{**vars(config.causal), "kind": causal}) if causal else config.causal
            self.causal = build_causal(kind, config.latent_dim)
            self.head = nn.Linear(config.latent_dim, config.latent_dim)
            self.decoder = HeatmapDecoder(config)
            if config.linear:
                self._start_linear()
        self.next_slot = None
        if config.next_slot:
            self.next_slot = nn.Embedding(config.num_slots, config.latent_dim)
            nn.init.zeros_(self.next_slot.weight)
        if config.remembers:
            self.register_buffer("spread", torch.ones(config.channels, 1))
            self.register_buffer("cells", torch.arange(config.remembered_cells))
            phases = num_phases(config.memory)
            self.register_buffer("prior", torch.zeros(phases, config.channels, config.remembered_cells))
        if self.decoder is not None and (config.remembers or config.output_bias):
            self.decoder.start_at_zero()
        self.local = LocalNetwork(config) if config.local.width else None
        self.motion = MotionNetwork(config) if config.motion.reach else None
        if config.output_bias:
            self.register_buffer("bias", torch.zeros(config.channels, config.height, config.width))

    def _start_linear(self) -> None:
        """Let the linear way lead straight through at first: what comes in goes out, times a gain that starts at 0."""
        assert self.head is not None and self.decoder is not None
        assert self.encoder.around is not None and self.decoder.around is not None
        nn.init.eye_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        with torch.no_grad():
            self.decoder.around.weight.copy_(self.encoder.around.weight.T)
            if isinstance(self.causal, CausalTransformer):
                nn.init.orthogonal_(self.causal.inputs.weight)
                self.causal.outputs.weight.copy_(self.causal.inputs.weight.T)

    def forward(self, x: Shaped[Tensor, "..."], slot_id: Shaped[Tensor, "..."]) -> AutoRegOutput:
        """Predict each next frame, and compare it with the one that came.

        Args:
            x: Frames, pixels in [0, 1].
            slot_id: Slot of each frame. The slot after the last one is taken to be the next number.

        Raises:
            DataError: Fewer than two frames, or what the encoder refuses.
        """
        if x.ndim != 5:
            size = f"{self.config.channels},{self.config.height},{self.config.width}"
            raise DataError(f"input must be (B,T,{size}), got {tuple(x.shape)}")
        frames = check_frames(x, self.config)
        if frames.shape[1] < 2:
            raise DataError(f"sequence length must be >= 2 (a frame and its next), got {frames.shape[1]}")
        slots = check_slots(slot_id, tuple(frames.shape[:2]), self.config.num_slots).view(frames.shape[:2])
        following = torch.cat([slots[:, 1:], (slots[:, -1:] + 1) % self.config.num_slots], dim=1)
        remembered, usual = self._remember(frames, slots, following) if self.config.remembers else (None, None)
        x_hat = self.predict(frames, slots, following, remembered, usual).clamp(0.0, 1.0)
        return AutoRegOutput(F.smooth_l1_loss(x_hat[:, :-1], frames[:, 1:]), x_hat)

    def predict(
        self,
        frames: Float[Tensor, "batch time channel y x"],
        slots: Int64[Tensor, "batch time"],
        following: Int64[Tensor, "batch time"],
        remembered: Float[Tensor, "batch time feature channel cell"] | None = None,
        usual: Float[Tensor, "batch time channel cell"] | None = None,
    ) -> Float[Tensor, "batch time channel y x"]:
        """Predict the frame after each one; with a residual the answers are not clamped to [0, 1].

        Args:
            frames: Pixels in [0, 1].
            slots: Their slots.
            following: Slots of the frames to predict.
            remembered: What the memory knows when each of these is to be predicted; with a residual.
            usual: The base that the memory had for each of the frames that are given.
        """
        hidden = self.causal(self.encode(frames, slots, usual)) if self.causal is not None else None
        return self.compose(hidden, following, remembered)

    @property
    def follows(self) -> bool:
        """Whether the encoder sees frames as deviations from means of slots that follow what comes."""
        return self.config.normalize == "slot" and self.config.residual == "slot_mean"

    def encode(
        self,
        frames: Float[Tensor, "*leading channel y x"],
        slots: Int64[Tensor, "*leading"],
        usual: Float[Tensor, "*leading channel cell"] | None,
    ) -> Float[Tensor, "*leading latent"]:
        """Encode frames, `usual` being the base that the memory had for each."""
        if usual is None or not self.follows:
            return self.encoder(frames, slots)  # type: ignore[no-any-return]
        return self.encoder(frames, slots, self.to_grid(usual))  # type: ignore[no-any-return]

    def compose(
        self, hidden: Tensor | None, following: Tensor, remembered: Tensor | None
    ) -> Float[Tensor, "batch time channel y x"]:
        """Put the frames to predict together from what the causal part and the memory say."""
        logits = None
        if hidden is not None:
            assert self.decoder is not None
            logits = self.decoder.logits(self.latents(hidden, following))
        if remembered is None:
            assert logits is not None
            return torch.sigmoid(logits + self.bias if self.config.output_bias else logits)
        found = remembered[:, :, 0] if self.motion is None else self.motion(remembered)
        if self.local is not None:
            corrected = self.local(remembered.flatten(0, 1), following.flatten()).view(found.shape)
            found = found + self.spread * corrected
        frames = self.to_grid(found)
        return frames if logits is None else frames + self.spread[..., None] * logits.view(frames.shape)

    def latents(self, hidden: Tensor, following: Tensor) -> Tensor:
        """Latents of the frames to predict."""
        assert self.head is not None
        if self.next_slot is not None:
            hidden = hidden + self.next_slot(following)
        return self.head(hidden)  # type: ignore[no-any-return]

    def to_grid(self, values: Float[Tensor, "*leading cell"]) -> Float[Tensor, "*leading y x"]:
        """Remembered cells in their places of a frame, 0 elsewhere."""
        size = (self.config.height, self.config.width)
        if values.shape[-1] == size[0] * size[1]:
            return values.view(*values.shape[:-1], *size)
        grid = values.new_zeros(*values.shape[:-1], size[0] * size[1])
        grid[..., self.cells] = values
        return grid.view(*values.shape[:-1], *size)

    def to_cells(self, frames: Float[Tensor, "*leading y x"]) -> Float[Tensor, "*leading cell"]:
        """The remembered cells of frames."""
        flat = frames.flatten(-2)
        return flat if len(self.cells) == flat.shape[-1] else flat[..., self.cells]

    def new_memory(self, batch: int, **options: object) -> FrameMemory:
        """A memory without any past, for so many records; options as `FrameMemory` takes them."""
        return FrameMemory(
            self.config,
            batch=batch,
            num_cells=len(self.cells),
            device=self.cells.device,
            **options,  # type: ignore[arg-type]
        )

    def _remember(self, frames: Tensor, slots: Tensor, following: Tensor) -> tuple[Tensor, Tensor]:
        """What a memory that begins with these frames knows of each next one, and the base it had for each."""
        memory = self.new_memory(len(frames), prior=self.prior if bool(self.prior.any()) else None)
        cells = self.to_cells(frames)
        session = torch.zeros_like(slots[:, 0])
        valid = torch.ones_like(session, dtype=torch.bool)
        found, usual = [], []
        for step in range(frames.shape[1]):
            usual.append(memory.base(slots[:, step], session).clone())
            memory.update(cells[:, step], slots[:, step], session, valid)
            found.append(memory.features(following[:, step], session))
        return torch.stack(found, dim=1), torch.stack(usual, dim=1)
