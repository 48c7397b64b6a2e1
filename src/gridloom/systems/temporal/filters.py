"""Known filters against flicker, to be compared with: constant blends, gates by rule, means and medians over time.

Each takes a clip and returns its frames together with `replay`, which puts another signal through the same weights: a
filter that looks at its frames is not linear, but with its weights frozen it is, and what it then does to the clean
frames is its bias.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from gridloom.core.errors import DataError
from gridloom.nn.warp import inside, warp
from gridloom.systems.temporal.fusion import CELL_MARGIN
from gridloom.systems.temporal.gates import Evidence, Gain, constant_gain
from gridloom.systems.temporal.noise import NoiseTracker, estimate_noise
from gridloom.systems.temporal.seed import warp_seed
from gridloom.systems.temporal.stream import Clip

__all__ = [
    "Filter",
    "Filtered",
    "Pass",
    "RecursiveFilter",
    "Rule",
    "bidirectional",
    "centered_mean",
    "constant",
    "kalman",
    "median_of_three",
    "residual_gate",
    "unchanged",
]

_LEAST_COUNT = 0.05  # half of one cell of nine
_LEAST_SHARE = 0.4  # of a frame that must be seen in the one before, for its noise to be estimated
_ONE_DIFFERENCE = 2.0
"""Squared difference of two frames that show the same, in units of the variance of their noise."""


@dataclass(frozen=True, kw_only=True)
class Filtered:
    """What a filter made of a clip.

    Attributes:
        frames: Filtered frames.
        replay: Puts other frames of the same shape through the weights that were chosen for this clip.
    """

    frames: Float[Tensor, "batch time channel y x"]
    replay: Callable[[Tensor], Tensor]


Filter = Callable[[Clip], Filtered]
Rule = Callable[[Evidence], Gain]


def unchanged(clip: Clip) -> Filtered:
    """The clip as it is."""
    return Filtered(frames=clip.frames, replay=lambda other: other)


def constant(alpha: float) -> Rule:
    """The past weighs alpha (0 to 1) wherever it says something."""
    return lambda evidence: constant_gain(evidence, evidence.warped.new_tensor(alpha))


def residual_gate(alpha: float) -> Rule:
    """The past weighs less where it differs from the frame by more than the noise of two frames.

    alpha exp(-max(0, r / 2 - 1)), where r is the squared difference in units of the noise variance, a mean over
    channels and 3 x 3 cells.
    """

    def rule(evidence: Evidence) -> Gain:
        excess = (_residual(evidence) / _ONE_DIFFERENCE - 1.0).clamp(min=0.0)
        return constant_gain(evidence, alpha * torch.exp(-excess))

    return rule


def kalman(evidence: Evidence) -> Gain:
    """A Kalman filter in each cell: process noise is what the squared difference, over 3 x 3 cells, shows beyond noise.

    Q = max(0, r - P - 1), alpha = 1 / (P + Q + 1), P' = 1 - alpha, in units of the noise variance; 1 where nothing is
    known of the past.
    """
    process = (_residual(evidence) - evidence.variance - 1.0).clamp(min=0.0)
    alpha = torch.where(evidence.valid, 1.0 / (evidence.variance + process + 1.0), 0.0)
    return Gain(alpha=alpha, variance=1.0 - alpha)


def _residual(evidence: Evidence) -> Tensor:
    """Squared difference in units of the noise variance, mean over channels and the valid ones of 3 x 3 cells."""
    noise = evidence.noise[:, :, None, None]
    squares = ((evidence.warped - evidence.current) ** 2 / noise).mean(dim=1, keepdim=True)
    total, count = (
        F.avg_pool2d(part, 3, stride=1, padding=1)
        for part in (squares * evidence.valid, evidence.valid.to(squares.dtype))
    )
    return total / count.clamp(min=_LEAST_COUNT)


@dataclass(frozen=True, kw_only=True)
class RecursiveFilter:
    """Moves the last output onto each frame, weighs it by a rule, and mixes: out = alpha moved + (1 - alpha) frame."""

    rule: Rule
    """Weight of the past, from what is seen of a pair."""
    warping: Literal["bilinear", "bicubic", "none", "seed"] = "bilinear"
    """How the past is moved: sampled along the flow; not at all; or by `warp_seed`, from the flow to the next frame."""
    masked: bool = True
    """Whether the past counts only where it shows the same: in the frame, not occluded, not before a cut."""
    two_frames: bool = False
    """Mix with the last frame as it came, instead of the last output."""

    def __call__(self, clip: Clip) -> Filtered:
        """Filter a clip. Without `clip.noise` it follows an estimate from the frames so far.

        Raises:
            DataError: The way of moving needs a flow that the clip does not have.
        """
        done = self.run(clip)
        return Filtered(frames=done.frames, replay=lambda other: self.run(clip, other, done.alpha).frames)

    def run(self, clip: Clip, frames: Tensor | None = None, alpha: Tensor | None = None) -> "Pass":
        """Filter frames along the motion of a clip.

        Args:
            clip: The clip.
            frames: Other frames [batch, time, channel, y, x] than the clip's.
            alpha: Weights [batch, time, 1, y, x] to use; None asks the rule.
        """
        self._check(clip)
        frames = clip.frames if frames is None else frames
        state, tracker = frames[:, 0], NoiseTracker()
        variance = torch.ones_like(state[:, :1])
        steps = [(state, state, torch.zeros_like(variance), variance)]
        for index in range(1, len(clip)):
            current, last = frames[:, index], frames[:, index - 1]
            moved = self._moved(clip, last if self.two_frames else state, index)
            if alpha is None:
                before = self._moved_variance(clip, variance, index)
                seen = self._seen(clip, index) & torch.isfinite(moved).all(dim=1, keepdim=True) & torch.isfinite(before)
                noise = clip.noise
                if noise is None:
                    noise = _follow_noise(tracker, current - self._moved(clip, last, index), seen)
                warped = torch.where(seen, moved, current)
                gain = self.rule(Evidence(warped=warped, current=current, variance=before, valid=seen, noise=noise))
                weight, variance = gain.alpha, gain.variance
            else:
                weight = alpha[:, index]
            # Where the past does not count it may be NaN, and 0 times NaN is NaN.
            state = torch.where(weight > 0, weight * moved + (1.0 - weight) * current, current)
            steps.append((state, moved, weight, variance))
        fused, moves, weights, variances = (torch.stack(part, dim=1) for part in zip(*steps, strict=True))
        return Pass(frames=fused, moved=moves, alpha=weights, variance=variances)

    def _moved(self, clip: Clip, values: Tensor, index: int) -> Tensor:
        """Frame `index` as the frame before shows it."""
        if self.warping == "seed" and clip.flow_next is not None:
            return warp_seed(values, clip.flow_next[:, index - 1])
        if self.warping in ("bilinear", "bicubic") and clip.flow is not None:
            return warp(values, clip.flow[:, index], mode=self.warping)
        return values

    def _moved_variance(self, clip: Clip, variance: Tensor, index: int) -> Tensor:
        """A variance is not sharpened: no overshoots below 0."""
        return variance if clip.flow is None or self.warping == "none" else warp(variance, clip.flow[:, index])

    def _seen(self, clip: Clip, index: int) -> Tensor:
        """Where the past counts."""
        seen = torch.ones_like(clip.frames[:, index, :1], dtype=torch.bool)
        if not self.masked:
            return seen
        if clip.flow is not None and self.warping != "none":
            seen = seen & inside(clip.flow[:, index], margin=CELL_MARGIN)
        if clip.occluded is not None:
            seen = seen & ~clip.occluded[:, index]
        if clip.cut is not None:
            seen = seen & ~clip.cut[:, index, None, None, None]
        return seen

    def _check(self, clip: Clip) -> None:
        needed = {"seed": "flow_next", "none": ""}.get(self.warping, "flow")
        if needed and getattr(clip, needed) is None:
            raise DataError(f"warping {self.warping!r} needs clips with {needed}, this one has none; use 'none'")


def _follow_noise(tracker: NoiseTracker, difference: Tensor, seen: Tensor) -> Tensor:
    """Variance of the flicker by channel, from the differences of frames as they came; at a cut that of before."""
    known = seen & torch.isfinite(difference).all(dim=1, keepdim=True)
    found = estimate_noise(torch.where(known, difference, 0.0), known, gain=_ONE_DIFFERENCE)
    followed = tracker.update(found, known.float().mean(dim=(1, 2, 3)) > _LEAST_SHARE)
    return found if followed is None else followed


@dataclass(frozen=True, kw_only=True)
class Pass:
    """What a recursive filter did, frame by frame."""

    frames: Float[Tensor, "batch time channel y x"]
    """Outputs."""
    moved: Float[Tensor, "batch time channel y x"]
    """The past, moved onto each frame."""
    alpha: Float[Tensor, "batch time 1 y x"]
    """Its weight; 0 for the first frame."""
    variance: Float[Tensor, "batch time 1 y x"]
    """Of the outputs, in units of the noise variance, as far as the rule knows."""


def bidirectional(forward: RecursiveFilter) -> Filter:
    """A Kalman filter from both sides: what is predicted from the frames after is one more measurement of each frame.

    The output of the way there (variance P) and the prediction of the way back (variance B) are mixed with weights
    1 / P and 1 / B, where B = (1 - alpha) / alpha is what the rule gave it when it chose alpha.

    Args:
        forward: The filter for both ways; its rule is `kalman`, or keeps account of variances as that does.
    """

    def both(clip: Clip) -> Filtered:
        turned = clip.backward()
        there, back = forward.run(clip), forward.run(turned)
        chosen = back.alpha.flip(1)
        share = there.variance * chosen
        weight = share / (share + 1.0 - chosen)

        def mixed(first: Pass, second: Pass) -> Tensor:
            return torch.where(weight > 0, torch.lerp(first.frames, second.moved.flip(1), weight), first.frames)

        def again(other: Tensor) -> Tensor:
            return mixed(forward.run(clip, other, there.alpha), forward.run(turned, other.flip(1), back.alpha))

        return Filtered(frames=mixed(there, back), replay=again)

    return both


def centered_mean(clip: Clip) -> Filtered:
    """Mean of each frame and its two neighbors in the same shot, without any motion."""

    def mean(frames: Tensor) -> Tensor:
        return _neighbors(clip, frames).mean(dim=0)

    return Filtered(frames=mean(clip.frames), replay=mean)


def median_of_three(clip: Clip) -> Filtered:
    """Median of each frame and its two neighbors in the same shot, in each channel, without any motion."""
    median, chosen = _neighbors(clip, clip.frames).median(dim=0)
    return Filtered(frames=median, replay=lambda other: _neighbors(clip, other).gather(0, chosen[None])[0])


def _neighbors(clip: Clip, frames: Tensor) -> Tensor:
    """[3, batch, time, ...]: the frame before, the frame, the one after; itself where a shot begins or ends."""
    first = (
        torch.zeros(frames.shape[:2], dtype=torch.bool, device=frames.device) if clip.cut is None else clip.cut.clone()
    )
    first[:, 0] = True
    last = first.roll(-1, dims=1)
    before, after = frames.roll(1, dims=1), frames.roll(-1, dims=1)

    def own(where: Tensor, other: Tensor) -> Tensor:
        return torch.where(where[:, :, None, None, None], frames, other)

    return torch.stack([own(first, before), frames, own(last, after)])
