"""Flow between two frames: turned round, pushed forward, checked for its direction and for what it cannot see."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gridloom.core.errors import ConfigError
from gridloom.nn.warp import inside, warp

__all__ = ["FlowCheck", "InverseKind", "check_flow_direction", "invert_flow", "occluded", "splat"]

InverseKind = Literal["fixed_point", "negate", "splat"]

_WHOLE = 0.999  # a share above this came from known cells alone; the rest is rounding
_LEAST_WEIGHT = 1e-3  # of a cell that is sure to have been hit; below it, a quotient would be rounding
_CLEAR_DECIBELS = 0.5


def invert_flow(
    flow: Float[Tensor, "batch 2 y x"], *, method: InverseKind = "fixed_point", iterations: int = 2
) -> tuple[Float[Tensor, "batch 2 y x"], Bool[Tensor, "batch 1 y x"] | None]:
    """Turn a flow round: from frame a to b becomes from b to a.

    Args:
        flow: Offsets (dx, dy) in cells, on the grid of a; not finite where unknown.
        method: `fixed_point` repeats b(x) = -F(x + b(x)) from b = -F; after two steps it is within 0.005 cells for
            rotations up to 5 degrees and zooms up to 1.1 on 128 x 128 cells. `negate` is -F, exact for a shift of the
            whole frame alone. `splat` pushes -F along F and averages; it knows which cells nothing moved to.
        iterations: Steps of the fixed point, at least 1.

    Returns:
        Flow on the grid of b, always finite with `fixed_point` and `splat`; and where it is known, None with `negate`
        (it is as finite as the flow given). Samples outside the frame are not looked at: see `inside`.
        Differentiable.

    Raises:
        ConfigError: An unknown method, or fewer than 1 iteration.
    """
    if method not in ("fixed_point", "negate", "splat"):
        raise ConfigError(f"method must be fixed_point, negate or splat, got {method!r}")
    if iterations < 1:
        raise ConfigError(f"iterations must be at least 1, got {iterations}")
    if method == "negate":
        return -flow, None
    if method == "splat":
        pushed, weight = splat(-flow, flow)
        return pushed, weight > _LEAST_WEIGHT
    if not torch.compiler.is_exporting() and bool(flow.detach().sum().isfinite()):  # then no summand is anything else
        opposite = back = -flow
        for _ in range(iterations):
            back = warp(opposite, back)
        return back, torch.ones_like(flow[:, :1], dtype=torch.bool)
    finite = flow.isfinite().all(dim=1, keepdim=True)
    back = torch.where(finite, -flow, torch.zeros_like(flow))
    planes = torch.cat([back, finite.to(flow.dtype)], dim=1)
    known = torch.ones_like(finite)
    for _ in range(iterations):
        sampled = warp(planes, back)
        back, known = sampled[:, :2], known & (sampled[:, 2:] > _WHOLE)
    return back, known


def splat(
    values: Float[Tensor, "batch channel y x"], flow: Float[Tensor, "batch 2 y x"]
) -> tuple[Float[Tensor, "batch channel y x"], Float[Tensor, "batch 1 y x"]]:
    """Push values along a flow and average what meets (average splatting; Niklaus and Liu 2020, arXiv 2003.05534).

    Each value goes to the four cells around x + flow(x) with bilinear weights. Sums are in float32 (float64 if the
    values are). Differentiable in values and flow.

    Args:
        values: On the grid that the flow starts from. A cell with a value that is not finite is left out.
        flow: Offsets (dx, dy) in cells from there; a cell where it is not finite is left out.

    Returns:
        The averages in the type of the values, 0 where nothing arrived; and the sum of weights, 1 where things are
        as dense as before, in the type of the sums.
    """
    batch, channels, height, width = values.shape
    dtype = torch.promote_types(values.dtype, torch.float32)
    usable = flow.isfinite().all(dim=1, keepdim=True) & values.isfinite().all(dim=1, keepdim=True)
    offsets = torch.where(usable, flow, torch.zeros_like(flow)).to(dtype)
    given = torch.where(usable, values, torch.zeros_like(values)).to(dtype)
    sent = torch.cat([given, usable.to(dtype)], dim=1).flatten(2)
    columns = offsets[:, 0] + torch.arange(width, dtype=dtype, device=flow.device)
    rows = offsets[:, 1] + torch.arange(height, dtype=dtype, device=flow.device)[:, None]
    across, down = _corners(columns, width), _corners(rows, height)
    arrived = sent.new_zeros(batch, channels + 1, height * width)
    for row, row_weight in down:
        for column, column_weight in across:
            place = (row * width + column).flatten(1)[:, None].expand_as(sent)
            arrived = arrived.scatter_add(2, place, sent * (row_weight * column_weight).flatten(1)[:, None])
    arrived = arrived.view(batch, channels + 1, height, width)
    weight = arrived[:, channels:]
    average = torch.where(weight > 0, arrived[:, :channels] / weight.clamp_min(_LEAST_WEIGHT), 0.0)
    return average.to(values.dtype), weight


def _corners(place: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    """The two cells around each place on an axis, kept inside, and their weights, 0 outside; [batch, y, x]."""
    place = place.clamp(-2, size + 1)  # farther out nothing arrives either
    first = place.detach().floor()
    fraction = place - first
    found = []
    for cell, weight in ((first, 1 - fraction), (first + 1, fraction)):
        within = (cell >= 0) & (cell < size)
        found.append((cell.clamp(0, size - 1).long(), weight * within))
    return found


def occluded(
    backward: Float[Tensor, "batch 2 y x"], forward: Float[Tensor, "batch 2 y x"], *, stride: float = 1.0
) -> Bool[Tensor, "batch 1 y x"]:
    """True where a cell of the current frame cannot be seen in the previous one.

    The two flows b and f should cancel out; a cell counts as occluded where
    |b + f(x + b)|^2 > 0.01 (|b|^2 + |f(x + b)|^2) + 0.5 pixels^2 (Sundaram et al. 2010, section 3.1), and also where
    b leads out of the frame, or one of the two is not finite.

    Args:
        backward: From the current frame to the previous one, in cells.
        forward: From the previous frame to the current one, in cells.
        stride: Pixels to a cell: the tolerance of 0.5 is in pixels^2.

    Raises:
        ConfigError: A stride that is not above 0.
    """
    if not stride > 0:
        raise ConfigError(f"stride must be above 0 pixels to a cell, got {stride}")
    known = forward.isfinite().all(dim=1, keepdim=True)
    planes = torch.cat([torch.where(known, forward, torch.zeros_like(forward)), known.to(forward.dtype)], dim=1)
    sampled = warp(planes, backward)
    there = sampled[:, :2]
    gap = (backward + there).square().sum(dim=1, keepdim=True)
    motion = backward.square().sum(dim=1, keepdim=True) + there.square().sum(dim=1, keepdim=True)
    # Asked the other way round, since a comparison with NaN is False.
    agree = gap <= 0.01 * motion + 0.5 / stride**2
    return ~(agree & (sampled[:, 2:] > _WHOLE) & inside(backward))


@dataclass(frozen=True, kw_only=True)
class FlowCheck:
    """Which way a flow runs, by how well the previous frame explains the current one after each way of warping.

    Attributes:
        direction: What to pass as `flow_direction`; `unclear` if the best way is not 0.5 dB better than the other and
            than not warping: hardly any motion, much noise, or a flow of other frames.
        as_given: Left of the current frame if +flow is sampled (right for `cur_to_prev`), in dB of its variance;
            lower is better.
        negated: The same with -flow.
        inverted: The same with the inverse of the flow (right for `prev_to_cur`).
        unwarped: The same without warping.
    """

    direction: Literal["cur_to_prev", "prev_to_cur", "unclear"]
    as_given: float
    negated: float
    inverted: float
    unwarped: float


def check_flow_direction(
    z_prev: Float[Tensor, "batch channel y x"],
    z_cur: Float[Tensor, "batch channel y x"],
    flow: Float[Tensor, "batch 2 y x"],
) -> FlowCheck:
    """Say whether a flow runs from the current frame to the previous one, or the other way.

    Papers and libraries call either one forward. Taken the wrong way, warping is worse than none at all on every real
    clip that we measured. All ways are compared on the same cells, those that every way finds inside the frame.

    Args:
        z_prev: Previous frame, or a latent of it.
        z_cur: Current frame.
        flow: Offsets (dx, dy) in cells.

    Returns:
        The direction for the whole batch, and the residuals. All are NaN if no cell can be compared.
    """
    with torch.no_grad():
        inverse, known = invert_flow(flow.float())
        ways = {"as_given": flow.float(), "negated": -flow.float(), "inverted": inverse}
        finite = z_prev.isfinite().all(dim=1, keepdim=True)
        planes = torch.cat([torch.where(finite, z_prev, torch.zeros_like(z_prev)), finite.to(z_prev.dtype)], dim=1)
        warped = {name: warp(planes.float(), offsets) for name, offsets in ways.items()}
        compared = finite & z_cur.isfinite().all(dim=1, keepdim=True)
        if known is not None:
            compared = compared & known
        for name, offsets in ways.items():
            compared = compared & inside(offsets) & (warped[name][:, -1:] > _WHOLE)
        warped["unwarped"] = planes.float()
        chosen = compared.expand_as(z_cur)
        truth = z_cur[chosen].float()
        scale = truth.var(correction=0).item() if truth.numel() else 0.0
        found = {name: _decibels(moved[:, :-1][chosen] - truth, scale) for name, moved in warped.items()}
    return FlowCheck(direction=_direction(found), **found)


def _decibels(left: Tensor, scale: float) -> float:
    """Mean square, in dB of a variance; NaN if there is nothing to compare."""
    if left.numel() == 0 or not scale > 0:
        return math.nan
    return 10 * math.log10(max(left.square().mean().item() / scale, 1e-20))


def _direction(found: dict[str, float]) -> Literal["cur_to_prev", "prev_to_cur", "unclear"]:
    given, turned = found["as_given"], min(found["negated"], found["inverted"])
    if given + _CLEAR_DECIBELS <= min(turned, found["unwarped"]):
        return "cur_to_prev"
    if turned + _CLEAR_DECIBELS <= min(given, found["unwarped"]):
        return "prev_to_cur"
    return "unclear"
