"""Where things in the last frame have moved when the next one comes: a small network that looks at how they moved."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from gridloom.systems.heatmap.config import ModelConfig

__all__ = ["MotionNetwork", "correlate", "move"]

_SHARPNESS = 4
_LEAST = 1e-3


def correlate(
    before: Float[Tensor, "batch y x"], after: Float[Tensor, "batch y x"], reach: int
) -> Float[Tensor, "batch shift shift"]:
    """How well each frame, shifted, agrees with the one after it: sums of products, with zeros beyond the borders.

    Args:
        before: Frames.
        after: As many others.
        reach: Largest shift along each axis, in cells.

    Returns:
        For shifts from `-reach` to `reach` along y and x; positive ones are towards higher places.
    """
    found = F.conv2d(_padded(before, reach)[None], after[:, None], groups=len(before))[0]
    return found.flip(1, 2)


def move(frames: Float[Tensor, "batch y x"], weights: Float[Tensor, "batch shift shift"]) -> Float[Tensor, "batch y x"]:
    """Sum of each frame's shifts, times their weights; what leaves is lost, and zeros come in.

    Args:
        frames: Frames.
        weights: Of the shifts, in the order of `correlate`.
    """
    return _Move.apply(frames, weights)  # type: ignore[no-any-return, no-untyped-call]


class _Move(torch.autograd.Function):
    """The kernel's gradient is a correlation, ten times faster as such than as a convolution's gradient on a CPU."""

    @staticmethod
    def forward(ctx: Any, frames: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(frames, weights)
        padded = _padded(frames, weights.shape[-1] // 2)
        return F.conv2d(padded[None], weights.flip(1, 2)[:, None], groups=len(frames))[0]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        frames, weights = ctx.saved_tensors
        back = move(gradients[0], weights.flip(1, 2)) if ctx.needs_input_grad[0] else None
        along = correlate(frames, gradients[0], weights.shape[-1] // 2) if ctx.needs_input_grad[1] else None
        return back, along


class MotionNetwork(nn.Module):
    """Moves the last frame on: a distribution over shifts, from how the frames before it moved.

    Each channel is a sample of its own. The network is told how the last frames correlate under each shift, and which
    of their rows and columns are occupied, so that walls can be learnt. Its answer is a kernel for the whole frame, as
    in dynamic filters (De Brabandere et al. 2016, arXiv 1605.09673; Finn et al. 2016, arXiv 1605.07157), blended with
    the last frame by a learnt share that starts at 0: an untrained network leaves the frame where it is.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config, motion = config, config.motion
        self.reach, self.num_frames = motion.reach, motion.num_frames
        self.num_shifts = (2 * self.reach + 1) ** 2
        memory = config.memory
        self.first_lag = 1 + len(memory.seasonal) + len(memory.averages) + len(memory.count_averages)
        inputs = (self.num_frames - 1) * self.num_shifts + self.num_frames * (config.height + config.width)
        self.first = nn.Linear(inputs, motion.hidden)
        self.second = nn.Linear(motion.hidden, motion.hidden)
        self.shifts = nn.Linear(motion.hidden, self.num_shifts)
        self.share = nn.Linear(motion.hidden, 1)
        nn.init.zeros_(self.share.weight)
        nn.init.zeros_(self.share.bias)

    def forward(
        self, remembered: Float[Tensor, "*leading feature channel cell"]
    ) -> Float[Tensor, "*leading channel cell"]:
        """Return the last frame, moved.

        Args:
            remembered: As `FrameMemory.features` gives it. Frames of before a session's begin are 0 and move nothing.
        """
        lags = remembered[..., self.first_lag : self.first_lag + self.num_frames, :, :].transpose(-3, -2)
        frames = lags.reshape(-1, self.num_frames, self.config.height, self.config.width)
        hidden = F.gelu(self.second(F.gelu(self.first(self._inputs(frames)))))
        last = frames[:, 0]
        weights = self.shifts(hidden).softmax(-1).view(-1, 2 * self.reach + 1, 2 * self.reach + 1)
        moved = last + self.share(hidden)[..., None] * (move(last, weights) - last)
        return moved.view(*remembered.shape[:-3], *remembered.shape[-2:])  # type: ignore[no-any-return]

    def _inputs(self, frames: Float[Tensor, "sample lag y x"]) -> Float[Tensor, "sample input"]:
        """Correlations of neighboring frames as shares of the largest, sharpened; occupied rows and columns."""
        agreement = correlate(frames[:, 1:].flatten(0, 1), frames[:, :-1].flatten(0, 1), self.reach).flatten(1)
        agreement = (agreement / (agreement.amax(1, keepdim=True) + _LEAST)) ** _SHARPNESS
        occupied = torch.cat([frames.sum(2), frames.sum(3)], dim=2).tanh()
        return torch.cat([agreement.view(len(frames), -1), occupied.flatten(1)], dim=1)


def _padded(frames: Tensor, reach: int) -> Tensor:
    return F.pad(frames, (reach, reach, reach, reach))
