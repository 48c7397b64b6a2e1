"""Going on from a past: frame after frame, each one fed back, without computing anything twice."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from gridloom.nn.causal import CausalTransformer, KeyValueCache
from gridloom.systems.heatmap.memory import FrameMemory
from gridloom.systems.heatmap.wrapper import AutoRegWrapper

__all__ = ["Draw", "Feedback", "Past", "begin", "begin_from", "roll_out"]

Feedback = Literal["frames", "latents"]
"""What the next step is told: the frame that was forecast, encoded; or the latent it was decoded from, so that nothing
needs to be decoded but what is asked."""

Draw = Callable[[Tensor, int], Tensor]
"""Draws frames from what is expected of them: (expected pixels [batch, channel, y, x], step from 0) to pixels."""


@dataclass
class Past:
    """Where a forecast starts: what is known after the last frame.

    Attributes:
        hidden: What the causal part says after the last frame, [batch, latent]; None for a model without.
        cache: Keys and values of the steps before; None without transformer.
        memory: What is remembered; None without.
    """

    hidden: Tensor | None
    cache: KeyValueCache | None
    memory: FrameMemory | None

    def repeat(self, times: int) -> "Past":
        """A copy in which every sample stands `times` times, one after the other: for sample paths."""
        return Past(
            hidden=None if self.hidden is None else self.hidden.repeat_interleave(times, 0),
            cache=None if self.cache is None else self.cache.repeat(times),
            memory=None if self.memory is None else self.memory.repeat(times),
        )


@torch.inference_mode()
def begin(
    model: AutoRegWrapper,
    frames: Float[Tensor, "batch time channel y x"],
    slots: Int64[Tensor, "batch time"],
    memory: FrameMemory | None = None,
    usual: Float[Tensor, "batch time channel cell"] | None = None,
) -> Past:
    """Look at the last frames before a forecast.

    Args:
        model: In eval mode.
        frames: The last frames; more than the transformer's window are of no use to it.
        slots: Their slots.
        memory: What is remembered after the last frame; with a residual.
        usual: The base that the memory had for each of the frames.
    """
    if model.causal is None:
        return Past(None, None, memory)
    return begin_from(model, model.encode(frames, slots.contiguous(), usual), memory)


@torch.inference_mode()
def begin_from(model: AutoRegWrapper, z: Float[Tensor, "batch time latent"], memory: FrameMemory | None) -> Past:
    """The same from the latents of the last frames."""
    assert model.causal is not None
    if not isinstance(model.causal, CausalTransformer):
        return Past(model.causal(z[:, -1]), None, memory)
    cache = model.causal.new_cache(len(z))
    return Past(model.causal(z, cache)[:, -1], cache, memory)


@torch.inference_mode()
def roll_out(
    model: AutoRegWrapper,
    past: Past,
    slots: Int64[Tensor, "batch step"],
    sessions: Int64[Tensor, "batch step"],
    *,
    feedback: Feedback = "frames",
    draw: Draw | None = None,
    keep: Sequence[int] | None = None,
    happens: Bool[Tensor, "batch step"] | None = None,
) -> Float[Tensor, "batch kept channel y x"]:
    """Forecast frame after frame.

    Args:
        model: In eval mode.
        past: Where to start; it is used up.
        slots: Slots of the frames to forecast.
        sessions: Their sessions.
        feedback: What the next step is told.
        draw: Draws a frame from what is expected, for a sample path; None feeds back and returns what is expected.
        keep: Steps to return, from 0, rising; None returns all.
        happens: Which slots will happen at all; None takes all. The others are forecast but not remembered.

    Returns:
        Pixels in [0, 1].
    """
    steps = slots.shape[1]
    kept = range(steps) if keep is None else keep
    if feedback == "latents" and past.memory is None and draw is None:
        return _roll_out_latents(model, past, slots, list(kept))
    found = []
    for step in range(steps):
        slot, session = slots[:, step], sessions[:, step]
        remembered = None if past.memory is None else past.memory.features(slot, session)[:, None]
        hidden = None if past.hidden is None else past.hidden[:, None]
        frame = model.compose(hidden, slot[:, None], remembered)[:, 0].clamp(0.0, 1.0)
        if draw is not None:
            frame = draw(frame, step)
        if step in kept:
            found.append(frame)
        if step + 1 < steps:
            happened = torch.ones_like(slot, dtype=torch.bool) if happens is None else happens[:, step]
            _feed(model, past, frame, slot, session, happened, feedback)
    return torch.stack(found, dim=1)


def _feed(
    model: AutoRegWrapper,
    past: Past,
    frame: Tensor,
    slot: Tensor,
    session: Tensor,
    happened: Tensor,
    feedback: Feedback,
) -> None:
    """Take a forecast for what came."""
    if past.hidden is not None:
        if feedback == "latents":
            z = model.latents(past.hidden, slot)
        else:
            usual = past.memory.base(slot, session) if past.memory is not None else None
            z = model.encode(frame, slot.contiguous(), usual)
        past.hidden = _step(model, z, past.cache)
    if past.memory is not None:
        past.memory.update(model.to_cells(frame), slot, session, happened)


def _step(model: AutoRegWrapper, z: Tensor, cache: KeyValueCache | None) -> Tensor:
    assert model.causal is not None
    if cache is None:
        return model.causal(z)  # type: ignore[no-any-return]
    assert isinstance(model.causal, CausalTransformer)
    return model.causal.step(z, cache)


def _roll_out_latents(model: AutoRegWrapper, past: Past, slots: Tensor, kept: list[int]) -> Tensor:
    """Stay among the latents, and decode what is asked at the end, all at once."""
    hidden = past.hidden
    assert hidden is not None
    found = []
    for step in range(slots.shape[1]):
        if step in kept:
            found.append(hidden)
        if step + 1 < slots.shape[1]:
            hidden = _step(model, model.latents(hidden, slots[:, step]), past.cache)
    return model.compose(torch.stack(found, dim=1), slots[:, kept], None).clamp(0.0, 1.0)
