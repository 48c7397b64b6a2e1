"""Scores of a filter against flicker, on clips whose clean signal is known.

A filter can remove flicker by smearing: a mean over many frames flickers least of all. So one figure is never enough.
The error says whether the output is nearer to the truth than the input was; the temporal variation, how much flicker is
left; bias and sharpness, how much detail was lost. These two need a run with **frozen gains**: the filter chooses its
weights on the frames with flicker, and the same weights are applied to the clean frames. What is missing then was lost
by the filter, and isn't hidden by noise.

The warping error of the literature (Lai et al., Learning Blind Video Temporal Consistency, ECCV 2018) looks at the
output alone: how far is each frame from the one before, moved by the flow? It can't be trusted by itself. A constant
blend of 80 % past has the lowest of all filters, far below that of the clean video, while its error is above that of
the frames it was given; and the method of the flow alone changes it by a factor of 4. So here it comes with its floor,
the value of the clean clip, and with its coverage, the share of cells it looked at; a good filter is near the floor.

Arrays are [..., time, channel, y, x], numpy or torch, noise variances [..., channel]; sums are in float64. Frames from
`start` up to `stop` (excluded; negative counts from the end) are scored: a recursive filter needs some to settle, one
that looks ahead some at the end too. Cells whose clean value is NaN are not scored.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from gridloom.core.errors import DataError
from gridloom.nn.warp import warp

__all__ = [
    "START",
    "FlickerScores",
    "WarpError",
    "bias_db",
    "error_by_frame",
    "error_db",
    "flicker_scores",
    "sharpness",
    "temporal_variation_db",
    "warp_error",
]

START = 8
"""First frame that is scored where nothing else is said."""

Frames = Float[np.ndarray, "*clips time channel y x"] | Float[Tensor, "*clips time channel y x"]
Variance = Float[np.ndarray, "*clips channel"] | Float[Tensor, "*clips channel"]
Flow = Float[np.ndarray, "*clips time 2 y x"] | Float[Tensor, "*clips time 2 y x"]
Mask = Bool[np.ndarray, "*clips time y x"] | Bool[Tensor, "*clips time y x"]


@dataclass(frozen=True, kw_only=True)
class WarpError:
    """The warping error of a clip, beside what it must be compared with.

    Attributes:
        value: Mean squared difference between a frame and the one before, moved onto it, where that is visible; in
            units of the noise variance.
        floor: The same of the clean clip: flow and sampling are not perfect.
        coverage: Share of cells that were looked at, 0 to 1.
    """

    value: float
    floor: float
    coverage: float

    @property
    def distance(self) -> float:
        """How far the value is from the floor; below it is as wrong as above, for that is blur."""
        return abs(self.value - self.floor)


@dataclass(frozen=True, kw_only=True)
class FlickerScores:
    """What is said of a filter, always together.

    Attributes:
        error_db: See `error_db`; 0 is the noise itself, lower is better.
        bias_db: See `bias_db`; lower is better.
        variation_db: See `temporal_variation_db`; 0 flickers like the input, lower is better.
        sharpness: See `sharpness`; 1 is the clean clip.
        warp: See `warp_error`; None where no flow was given.
    """

    error_db: float
    bias_db: float
    variation_db: float
    sharpness: float
    warp: WarpError | None


def flicker_scores(  # noqa: PLR0913 - a clip, and what came of it; by name
    output: Frames,
    frozen: Frames,
    *,
    noisy: Frames,
    clean: Frames,
    noise_variance: Variance,
    flow: Flow | None = None,
    occluded: Mask | None = None,
    start: int = START,
    stop: int | None = None,
) -> FlickerScores:
    """All scores of one filter on one clip.

    Args:
        output: What the filter made of `noisy`.
        frozen: What it makes of `clean` with the gains that it had chosen for `noisy`.
        noisy: The frames with flicker.
        clean: The frames without.
        noise_variance: Variance of the flicker per channel, above 0.
        flow: For the warping error: from each frame to the one before, in cells; the first is not used.
        occluded: Where the frame before does not show what a frame shows; None: nowhere.
        start: First frame that is scored.
        stop: First frame that is not scored any more.

    Raises:
        DataError: As the single scores.
    """
    warping = None
    if flow is not None:
        warping = warp_error(output, clean, noise_variance, flow=flow, occluded=occluded, start=start, stop=stop)
    return FlickerScores(
        error_db=error_db(output, clean, noise_variance, start=start, stop=stop),
        bias_db=bias_db(frozen, clean, noise_variance, start=start, stop=stop),
        variation_db=temporal_variation_db(output, noisy, clean, noise_variance, start=start, stop=stop),
        sharpness=sharpness(frozen, clean, start=start, stop=stop),
        warp=warping,
    )


def error_db(
    output: Frames, clean: Frames, noise_variance: Variance, *, start: int = START, stop: int | None = None
) -> float:
    """Error of the output over the variance of the flicker: 10 log10 mean((output - clean)^2 / R), in dB.

    0 is as wrong as the frames with flicker, -10 ten times better, above 0 worse than to do nothing. A filter with a
    constant weight a of the past on a scene that stands still comes to 10 log10((1 - a) / (1 + a)).

    Args:
        output: What the filter made of the frames with flicker.
        clean: The frames without.
        noise_variance: Variance R of the flicker per channel, above 0.
        start: First frame that is scored.
        stop: First frame that is not scored any more.

    Raises:
        DataError: Shapes that differ, a variance that is not above 0, too few frames, or an output that is not finite
            where the truth is known.
    """
    return _decibels(_mean(_errors(output, clean, noise_variance)[..., _scored(clean, start, stop), :, :, :] ** 2))


def bias_db(
    frozen: Frames, clean: Frames, noise_variance: Variance, *, start: int = START, stop: int | None = None
) -> float:
    """Detail that was lost: 10 log10 mean((frozen - clean)^2 / R), in dB; minus infinity if none was.

    Args:
        frozen: The clean frames, filtered with the gains that the filter chose for the frames with flicker.
        clean: The clean frames.
        noise_variance: Variance R of the flicker per channel, above 0.
        start: First frame that is scored.
        stop: First frame that is not scored any more.

    Raises:
        DataError: As `error_db`.
    """
    return error_db(frozen, clean, noise_variance, start=start, stop=stop)


def temporal_variation_db(
    output: Frames,
    noisy: Frames,
    clean: Frames,
    noise_variance: Variance,
    *,
    start: int = START,
    stop: int | None = None,
) -> float:
    """Flicker that is left: how much the error changes from frame to frame, over how much that of the input does.

    10 log10 (mean((e_t - e_t-1)^2 / R) / mean((n_t - n_t-1)^2 / R)) in dB, where e is the error of the output and n
    that of the input, over pairs of scored frames. An error that stays is not seen: that is what the bias is for. A
    constant weight a of the past on a scene that stands still comes to 10 log10((1 - a)^2 / (1 + a)).

    Args:
        output: What the filter made of `noisy`.
        noisy: The frames with flicker.
        clean: The frames without.
        noise_variance: Variance R of the flicker per channel, above 0.
        start: First frame that is scored.
        stop: First frame that is not scored any more.

    Raises:
        DataError: As `error_db`.
    """
    frames = _scored(clean, start, stop)
    left, before = (
        _mean(np.diff(_errors(signal, clean, noise_variance)[..., frames, :, :, :], axis=-4) ** 2)
        for signal in (output, noisy)
    )
    if before == 0:
        raise DataError("the input must flicker to be compared with, but its error never changes; give noisy frames")
    return _decibels(left / before)


def sharpness(frozen: Frames, clean: Frames, *, start: int = START, stop: int | None = None) -> float:
    """Energy of the spatial gradients of the frozen-gain run over that of the clean frames; 1 keeps all, 0 none.

    The energy is the mean squared difference of neighbors along x plus that along y. Above 1, structure was added:
    overshoots of an interpolation, or copies of objects that moved.

    Args:
        frozen: The clean frames, filtered with the gains that the filter chose for the frames with flicker.
        clean: The clean frames.
        start: First frame that is scored.
        stop: First frame that is not scored any more.

    Raises:
        DataError: Shapes that differ, too few frames, or clean frames without any gradient.
    """
    frames = _scored(clean, start, stop)
    _check_shapes(frozen, clean)
    after, before = (_gradient_energy(_array(signal)[..., frames, :, :, :]) for signal in (frozen, clean))
    if before == 0:
        raise DataError("sharpness needs clean frames with structure, got constant ones")
    return after / before


def warp_error(
    output: Frames,
    clean: Frames,
    noise_variance: Variance,
    *,
    flow: Flow,
    occluded: Mask | None = None,
    start: int = START,
    stop: int | None = None,
) -> WarpError:
    """The warping error of the output with its floor and coverage. Not to be reported without the other scores.

    sum(m (warp(output_t-1) - output_t)^2 / R) / sum(m), where m is 1 where the flow is finite and the cell not
    occluded, over pairs of scored frames, mean over channels; sampled bilinearly. (Lai et al. report the squared
    difference itself; divided by R, clips and noise levels can be compared.)

    Args:
        output: What the filter made of the frames with flicker; or the frames with flicker themselves.
        clean: The frames without.
        noise_variance: Variance R of the flicker per channel, above 0.
        flow: From each frame to the one before, in cells; the first is not used. Best estimated from the clean frames,
            and not from the output, which a filter can shape.
        occluded: Where the frame before does not show what a frame shows; None: nowhere.
        start: First frame that is scored.
        stop: First frame that is not scored any more.

    Raises:
        DataError: As `error_db`, or nothing to look at: everything is occluded.
    """
    _errors(output, clean, noise_variance)  # the checks
    frames = _scored(clean, start, stop)
    offsets = _array(flow)[..., frames, :, :, :][..., 1:, :, :, :]
    seen = np.isfinite(offsets).all(axis=-3)
    if occluded is not None:
        seen &= ~np.asarray(occluded)[..., frames, :, :][..., 1:, :, :]
    scale = _per_channel(noise_variance)
    values, floors = (
        _warp_residual(_array(signal)[..., frames, :, :, :], offsets, scale) for signal in (output, clean)
    )
    seen &= np.isfinite(floors)
    if not seen.any():
        raise DataError("warp_error found no cell that is visible in two frames; check `occluded` and `flow`")
    return WarpError(value=float(values[seen].mean()), floor=float(floors[seen].mean()), coverage=float(seen.mean()))


def error_by_frame(output: Frames, clean: Frames, noise_variance: Variance) -> Float64[np.ndarray, "*clips time"]:
    """Error of each frame over the variance of the flicker, in dB; `error_db` of one frame at a time.

    Shows what a cut does, and how long a filter needs to settle. NaN for frames of which nothing is known.

    Args:
        output: What the filter made of the frames with flicker.
        clean: The frames without.
        noise_variance: Variance R of the flicker per channel, above 0.

    Raises:
        DataError: As `error_db`.
    """
    squares = _errors(output, clean, noise_variance) ** 2
    known = np.isfinite(squares).sum(axis=(-3, -2, -1))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(10.0 * np.log10(np.nansum(squares, axis=(-3, -2, -1)) / known))


def _errors(output: Frames, clean: Frames, noise_variance: Variance) -> np.ndarray:
    """Error in units of the standard deviation of the noise; NaN where the truth is not known."""
    _check_shapes(output, clean)
    found, truth = _array(output), _array(clean)
    known = np.isfinite(truth)
    missing = int((known & ~np.isfinite(found)).sum())
    if missing:
        raise DataError(f"expected finite frames, got {missing} values that are not; fill or mask them before scoring")
    with np.errstate(invalid="ignore"):  # infinity minus infinity where the truth is not known
        return np.where(known, (found - truth) / np.sqrt(_per_channel(noise_variance)), np.nan)


def _check_shapes(output: Frames, clean: Frames) -> None:
    if tuple(output.shape) != tuple(clean.shape):
        raise DataError(
            f"expected frames of the shape of the clean ones, {list(clean.shape)}, got {list(output.shape)}"
        )


def _per_channel(noise_variance: Variance) -> np.ndarray:
    """Variances as [..., 1, channel, 1, 1]."""
    variance = _array(noise_variance)
    if not (np.isfinite(variance) & (variance > 0)).all():
        raise DataError(f"the noise variance must be above 0 in every channel, got {variance.ravel().tolist()}")
    return variance[..., None, :, None, None]


def _scored(clean: Frames, start: int, stop: int | None) -> slice:
    """The frames that are scored, two at least: changes are scored too."""
    length = clean.shape[-4]
    first, last, _ = slice(start, stop).indices(length)
    if last - first < 2:
        raise DataError(f"at least 2 frames must be scored, got frames {first} to {last - 1} of {length}; see `start`")
    return slice(first, last)


def _array(values: np.ndarray | Tensor) -> np.ndarray:
    """As a float64 array."""
    plain = values.detach().cpu().double().numpy() if isinstance(values, Tensor) else values
    return np.asarray(plain, dtype=np.float64)


def _mean(squares: np.ndarray) -> float:
    """Mean of what is known."""
    known = squares[~np.isnan(squares)]
    if not known.size:
        raise DataError("nothing to score: the clean frames are NaN everywhere")
    return float(known.mean())


def _decibels(ratio: float) -> float:
    return 10.0 * float(np.log10(ratio)) if ratio > 0 else float("-inf")


def _gradient_energy(frames: np.ndarray) -> float:
    """Mean squared difference of neighbors along x, plus that along y; an axis of one cell has none."""
    return sum(_mean(np.diff(frames, axis=axis) ** 2) for axis in (-1, -2) if frames.shape[axis] > 1)


def _warp_residual(frames: np.ndarray, offsets: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Squared difference of each frame to the one before, moved onto it, over the noise: [..., time - 1, y, x]."""
    before, current = frames[..., :-1, :, :, :], frames[..., 1:, :, :, :]
    size = before.shape
    moved = warp(
        torch.from_numpy(before.reshape(-1, *size[-3:])),
        torch.from_numpy(offsets.reshape(-1, *offsets.shape[-3:])),
    )
    return np.asarray(((moved.numpy().reshape(size) - current) ** 2 / scale).mean(axis=-3))
