"""Streams without end and whole clips: a state that is moved, fused with each frame, and begun anew at a cut."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gridloom.core.errors import ConfigError, DataError
from gridloom.grid.optical_flow import CUT_SHARE
from gridloom.nn.warp import inside
from gridloom.systems.temporal.fusion import CELL_MARGIN, Fusion, noise_of
from gridloom.systems.temporal.module import TemporalModule
from gridloom.systems.temporal.noise import NoiseTracker
from gridloom.systems.temporal.smoothing import combine

__all__ = ["Clip", "Mode", "Pushed", "Stabilized", "TemporalStream", "replay", "stabilize_clip"]

Mode = Literal["causal", "bidirectional"]


@dataclass(frozen=True, kw_only=True)
class Clip:
    """Frames with what is known of their motion; flows run from each frame to its neighbor, in cells.

    Attributes:
        frames: Frames or latents, of several clips of one length side by side.
        flow: From each frame to the one before; None: nothing moves, or the module predicts it. The first is not used.
        occluded: Where the frame before does not show what this one does; None: nowhere.
        cut: True where a frame begins a new shot; None: nowhere but where too much of a frame is occluded.
        flow_next: From each frame to the one after, for the way back; the last is not used.
        occluded_next: Where the frame after does not show what this one does.
        noise: Variance of the flicker by channel; None estimates it.
        style: Style embeddings of the frames.
    """

    frames: Float[Tensor, "batch time channel y x"]
    flow: Float[Tensor, "batch time 2 y x"] | None = None
    occluded: Bool[Tensor, "batch time 1 y x"] | None = None
    cut: Bool[Tensor, "batch time"] | None = None
    flow_next: Float[Tensor, "batch time 2 y x"] | None = None
    occluded_next: Bool[Tensor, "batch time 1 y x"] | None = None
    noise: Float[Tensor, "batch channel"] | None = None
    style: Float[Tensor, "batch time style"] | None = None

    def __len__(self) -> int:
        return self.frames.shape[1]

    def backward(self) -> "Clip":
        """The same clip from its last frame to its first."""

        def turned(values: Tensor | None) -> Tensor | None:
            return None if values is None else values.flip(1)

        cut = None
        if self.cut is not None:  # the frame after a cut is where the way back begins anew
            cut = torch.cat([torch.zeros_like(self.cut[:, :1]), self.cut[:, 1:].flip(1)], dim=1)
        return Clip(
            frames=self.frames.flip(1),
            flow=turned(self.flow_next),
            occluded=turned(self.occluded_next),
            cut=cut,
            flow_next=turned(self.flow),
            occluded_next=turned(self.occluded),
            noise=self.noise,
            style=turned(self.style),
        )


@dataclass(frozen=True, kw_only=True)
class Pushed(Fusion):
    """What became of a frame of a stream.

    Attributes:
        style: Fused style; None where there is none.
        cut: Where the state was begun anew.
        noise: Variance of the flicker by channel that was reckoned with; NaN where nothing is known of it yet.
    """

    style: Float[Tensor, "batch style"] | None
    cut: Bool[Tensor, " batch"]
    noise: Float[Tensor, "batch channel"]


class TemporalStream:
    """Frame by frame: a state that goes along.

    Attributes:
        z: The state; None before the first frame.
        variance: Of the state, in units of the noise of a frame.
        style: Style of the state.
    """

    def __init__(
        self,
        module: TemporalModule,
        *,
        noise: Float[Tensor, "batch channel"] | None = None,
        cut_share: float = CUT_SHARE,
    ) -> None:
        """Begin a stream.

        Args:
            module: What fuses.
            noise: Variance of the flicker by channel; None follows an estimate from the frames so far.
            cut_share: Share of cells without a counterpart above which a frame begins a new shot; 1 never.

        Raises:
            ConfigError: A share outside of (0, 1].
        """
        if not 0 < cut_share <= 1:
            raise ConfigError(f"cut_share must be above 0, up to 1, got {cut_share}")
        self.module, self._noise, self._cut_share = module, noise, cut_share
        self.reset()

    def reset(self) -> None:
        """Forget what was: the next frame begins a new shot, and a new estimate of the noise."""
        self.z: Tensor | None = None
        self.variance: Tensor | None = None
        self.style: Tensor | None = None
        self._tracker = NoiseTracker()

    def push(
        self,
        frame: Float[Tensor, "batch channel y x"],
        flow: Float[Tensor, "batch 2 y x"] | None = None,
        *,
        occluded: Bool[Tensor, "batch 1 y x"] | None = None,
        cut: Bool[Tensor, " batch"] | None = None,
        style: Float[Tensor, "batch style"] | None = None,
    ) -> Pushed:
        """Take the next frame.

        Args:
            frame: The frame; NaN where it is missing.
            flow: **From this frame to the one before**, in cells; None moves nothing, or lets the module predict it.
            occluded: Where the frame before does not show what this one does.
            cut: Where a new shot begins.
            style: Of the frame.

        Raises:
            DataError: Another size than the frames before.
        """
        if self.z is None or self.variance is None:
            pushed = self._begin(frame, style)
        else:
            if self.z.shape != frame.shape:
                raise DataError(
                    f"frames of a stream are of one size: expected {list(self.z.shape)}, got {list(frame.shape)}; "
                    f"reset() begins another one"
                )
            pushed = self._go_on(self.z, self.variance, frame, flow, occluded, cut, style)
        self.z, self.variance, self.style = pushed.z, pushed.variance, pushed.style
        return pushed

    def _begin(self, frame: Tensor, style: Tensor | None) -> Pushed:
        ones = frame.new_ones(len(frame), 1, *frame.shape[2:], dtype=torch.float32)
        return Pushed(
            z=frame,
            alpha=torch.zeros_like(ones),
            variance=ones,
            prior=ones,
            valid=torch.zeros_like(ones, dtype=torch.bool),
            z_warp=frame,
            z_warp_refined=frame,
            flow=None,
            style=style,
            cut=torch.ones(len(frame), dtype=torch.bool, device=frame.device),
            noise=self._known_noise(frame),
        )

    def _known_noise(self, frame: Tensor) -> Tensor:
        noise = self._noise if self._noise is not None else self._tracker.value
        return frame.new_full(frame.shape[:2], torch.nan, dtype=torch.float32) if noise is None else noise

    def _go_on(
        self,
        z: Tensor,
        variance: Tensor,
        frame: Tensor,
        flow: Tensor | None,
        occluded: Tensor | None,
        cut: Tensor | None,
        style: Tensor | None,
    ) -> Pushed:
        seen = torch.ones_like(variance, dtype=torch.bool) if flow is None else inside(flow, margin=CELL_MARGIN)
        shown = seen if occluded is None else seen & ~occluded
        lost = (~shown).float().mean(dim=(1, 2, 3)) > self._cut_share
        if self.module.masks_occluded:
            seen = shown
        cut = lost if cut is None else lost | cut
        seen = seen & ~cut[:, None, None, None]
        noise = self._noise if self._noise is not None else self._tracker.value
        fusion = self.module.fuse(z, frame, flow, variance=variance, valid=seen, noise=noise)
        if self._noise is None:
            found = noise_of(fusion.z_warp_refined, frame.nan_to_num(0.0), fusion.prior, fusion.valid)
            enough = ~cut & (fusion.valid.float().mean(dim=(1, 2, 3)) > 1 - self._cut_share)
            self._tracker.update(found, enough)
        if self.style is not None and style is not None:
            mixed = self.module.fuse_styles(self.style, style)
            style = mixed if mixed is None else torch.where(cut[:, None], style, mixed)
        fields = {name: getattr(fusion, name) for name in Fusion.__dataclass_fields__}
        used = noise if noise is not None else self._known_noise(frame)
        alpha = torch.where(fusion.valid, fusion.alpha, 0.0)
        return Pushed(**{**fields, "alpha": alpha}, style=style, cut=cut, noise=used)


@dataclass(frozen=True, kw_only=True)
class Stabilized:
    """A clip after the filter.

    Attributes:
        frames: Fused frames.
        style: Fused styles; None where there were none.
        passes: What was done frame by frame, forward and, with `bidirectional`, on the way back (in the order of time).
        weight: With `bidirectional`, the weight of the future in each cell; else None.
        variance: Of the fused frames, in units of the noise of one frame.
    """

    frames: Float[Tensor, "batch time channel y x"]
    style: Float[Tensor, "batch time style"] | None
    passes: tuple[list[Pushed], ...]
    weight: Float[Tensor, "batch time 1 y x"] | None
    variance: Float[Tensor, "batch time 1 y x"]

    @property
    def alpha(self) -> Float[Tensor, "batch time 1 y x"]:
        """Weight of the past in each cell."""
        return torch.stack([frame.alpha for frame in self.passes[0]], dim=1)

    @property
    def cut(self) -> Bool[Tensor, "batch time"]:
        """Where the state was begun anew."""
        return torch.stack([frame.cut for frame in self.passes[0]], dim=1)

    @property
    def noise(self) -> Float[Tensor, "batch time channel"]:
        """Variance of the flicker that was reckoned with."""
        return torch.stack([frame.noise for frame in self.passes[0]], dim=1)


def stabilize_clip(
    module: TemporalModule,
    clip: Clip,
    *,
    mode: Mode = "causal",
    cut_share: float = CUT_SHARE,
    each: Callable[[], None] = lambda: None,
) -> Stabilized:
    """Filter a whole clip.

    Args:
        module: What fuses.
        clip: The frames and their motion.
        mode: `causal`: each frame from those before. `bidirectional`: from all; needs flow to the next frames, or none
            at all.
        cut_share: See `TemporalStream`.
        each: Called after each frame of each pass, to show progress.

    Raises:
        ConfigError: An unknown mode.
        DataError: Flow to the previous frames alone for `bidirectional`.
    """
    if mode not in ("causal", "bidirectional"):
        raise ConfigError(f"mode must be causal or bidirectional, got {mode!r}")
    if mode == "bidirectional" and (clip.flow is None) != (clip.flow_next is None):
        raise DataError("bidirectional needs flow both ways: to the frame before and to the one after (flow_next)")
    there = _run(module, clip, cut_share, each)
    if mode == "causal":
        return Stabilized(
            frames=torch.stack([frame.z for frame in there], dim=1),
            style=_styles(there),
            passes=(there,),
            weight=None,
            variance=torch.stack([frame.variance for frame in there], dim=1),
        )
    noise = clip.noise if clip.noise is not None else there[-1].noise
    back = _run(module, replace(clip.backward(), noise=noise), cut_share, each)[::-1]
    frames, variances, weights = [], [], []
    for forward, backward in zip(there, back, strict=True):
        gain = combine(forward, backward)
        frames.append(torch.lerp(forward.z, backward.z_warp_refined, gain.alpha.to(forward.z.dtype)))
        variances.append(gain.variance)
        weights.append(gain.alpha)
    return Stabilized(
        frames=torch.stack(frames, dim=1),
        style=_styles(there),
        passes=(there, back),
        weight=torch.stack(weights, dim=1),
        variance=torch.stack(variances, dim=1),
    )


def replay(
    module: TemporalModule, done: Stabilized, frames: Float[Tensor, "batch time channel y x"]
) -> Float[Tensor, "batch time channel y x"]:
    """Put other frames through a filter whose weights stay what they were: what it does to a clean clip is its bias.

    Args:
        module: What filtered.
        done: What it did.
        frames: Other frames of the same clip, without missing cells.
    """
    moved = [_replay(module, steps, frames, back=index == 1) for index, steps in enumerate(done.passes)]
    forward = torch.stack([z for z, _ in moved[0]], dim=1)
    if done.weight is None:
        return forward
    return torch.lerp(forward, torch.stack([warped for _, warped in moved[1]], dim=1), done.weight)


def _replay(module: TemporalModule, steps: list[Pushed], frames: Tensor, *, back: bool) -> list[tuple[Tensor, Tensor]]:
    """Return the fused and the moved frames."""
    order = range(len(steps))[::-1] if back else range(len(steps))
    found: dict[int, tuple[Tensor, Tensor]] = {}
    z: Tensor | None = None
    for index in order:
        step, current = steps[index], frames[:, index]
        warped = current
        if z is not None:
            warped = module.moved(z, current, step.flow, step.valid)
        z = torch.lerp(current, warped, step.alpha.to(current.dtype))
        found[index] = (z, warped)
    return [found[index] for index in range(len(steps))]


def _run(module: TemporalModule, clip: Clip, cut_share: float, each: Callable[[], None]) -> list[Pushed]:
    stream = TemporalStream(module, noise=clip.noise, cut_share=cut_share)
    pushed = []
    for index in range(len(clip)):

        def at(values: Tensor | None, index: int = index) -> Tensor | None:
            return None if values is None else values[:, index]

        frame = clip.frames[:, index]
        pushed.append(
            stream.push(frame, at(clip.flow), occluded=at(clip.occluded), cut=at(clip.cut), style=at(clip.style))
        )
        each()
    return pushed


def _styles(steps: list[Pushed]) -> Tensor | None:
    found = [step.style for step in steps if step.style is not None]
    return torch.stack(found, dim=1) if found else None
