import math

import pytest
import torch
from torch import Tensor

from gridloom.core.errors import ConfigError
from gridloom.nn.warp import inside, warp
from gridloom.systems.temporal.flow import check_flow_direction, invert_flow, occluded, splat


def affine(size: int, degrees: float, zoom: float, shift: tuple[float, float] = (0.0, 0.0)) -> tuple[Tensor, Tensor]:
    """Flow [1, 2, size, size] of a motion about the center, and that of the motion back, in float64."""
    axis = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    places = torch.stack([axis.expand(size, size), axis[:, None].expand(size, size)])
    angle = math.radians(degrees)
    turn = zoom * torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    moved = torch.tensor(shift, dtype=torch.float64).view(2, 1, 1)
    there = torch.einsum("ij,jyx->iyx", turn.double(), places) + moved
    back = torch.einsum("ij,jyx->iyx", torch.linalg.inv(turn.double()), places - moved)
    return (there - places)[None], (back - places)[None]


def interior(flow: Tensor) -> Tensor:
    """True an eighth of the frame away from its border, where the flow stays inside."""
    margin = flow.shape[-1] // 8
    found = inside(flow)
    found[..., :margin, :] = found[..., -margin:, :] = found[..., :margin] = found[..., -margin:] = False
    return found


def picture(across: Tensor, down: Tensor) -> Tensor:
    """A smooth texture at any place, [1, 3, y, x]."""
    generator = torch.Generator().manual_seed(3)
    waves = 0.7 * (torch.rand(12, 2, generator=generator) - 0.5)
    phases = 6 * torch.rand(3, 12, generator=generator)
    angles = waves[:, 0, None, None] * across + waves[:, 1, None, None] * down
    return torch.stack([torch.sin(angles + phase[:, None, None]).sum(0) for phase in phases])[None]


def clip(size: int, flow: Tensor) -> tuple[Tensor, Tensor]:
    """Previous and current frame, where the current one is the previous one seen at x + flow(x)."""
    across, down = torch.arange(float(size)), torch.arange(float(size))[:, None]
    return picture(across, down), picture(across + flow[0, 0], down + flow[0, 1])


@pytest.mark.parametrize("size", [32, 64, 128])
@pytest.mark.parametrize(("degrees", "zoom"), [(2.0, 1.0), (-5.0, 1.0), (0.0, 1.1), (0.0, 1 / 1.1)])
def test_two_steps_turn_an_affine_flow_round_to_five_thousandths_of_a_cell(size, degrees, zoom):
    flow, back = affine(size, degrees, zoom)
    found, known = invert_flow(flow.float())
    assert known is not None
    error = (found.double() - back).abs()
    assert error[interior(back).expand_as(error)].max() < 5e-3
    assert known[interior(back)].all()
    more, _ = invert_flow(flow, iterations=6)
    error = (more - back).abs()
    assert error[interior(back).expand_as(error)].max() < 1e-5


def test_every_way_turns_a_shift_round_and_only_that_is_exact_when_negated():
    shift, back = affine(32, 0.0, 1.0, (1.5, -2.25))
    for method in ("fixed_point", "negate", "splat"):
        found, _ = invert_flow(shift.float(), method=method)
        error = (found.double() - back).abs()
        assert error[interior(back).expand_as(error)].max() < 1e-5
    turned, back = affine(64, 5.0, 1.0)
    chosen = interior(back).expand(1, 2, 64, 64)
    errors = {
        method: (invert_flow(turned.float(), method=method)[0].double() - back).abs()[chosen].max()
        for method in ("fixed_point", "negate", "splat")
    }
    assert errors["negate"] > 0.1
    assert max(errors["splat"], errors["fixed_point"]) < 5e-3


@pytest.mark.parametrize("method", ["fixed_point", "splat"])
def test_unknown_flow_stays_where_it_is(method):
    flow = torch.full((1, 2, 8, 8), 1.0)
    flow[0, 1] = 0.0
    flow[0, 1, 4, 3] = math.nan
    flow.requires_grad_()
    found, known = invert_flow(flow, method=method)
    assert found.isfinite().all()
    assert known is not None
    assert not known[0, 0, 4, 4]  # what was unknown moved one cell to the right
    assert known[0, 0, :4, 1:].all()
    found.square().sum().backward()
    assert flow.grad is not None
    assert flow.grad.isfinite().all()


def test_settings_that_make_no_sense_are_refused():
    flow = torch.zeros(1, 2, 4, 4)
    with pytest.raises(ConfigError, match="at least 1, got 0"):
        invert_flow(flow, iterations=0)
    with pytest.raises(ConfigError, match="stride must be above 0 pixels to a cell, got 0"):
        occluded(flow, flow, stride=0.0)


def test_a_whole_shift_is_pushed_exactly():
    values, flow = torch.arange(24.0).view(1, 1, 4, 6), torch.zeros(1, 2, 4, 6)
    flow[:, 0], flow[:, 1] = 2, -1
    found, weight = splat(values, flow)
    assert torch.equal(found[..., :3, 2:], values[..., 1:, :-2])
    assert torch.equal(weight[..., :3, 2:], torch.ones(1, 1, 3, 4))
    assert found[..., 3, :].sum() == found[..., :2].sum() == weight[..., 3, :].sum() == weight[..., :2].sum() == 0


def test_what_meets_is_averaged_by_its_weight_and_unknown_values_are_left_out():
    values = torch.tensor([4.0, 8.0, math.nan, 1.0]).view(1, 1, 1, 4)
    flow = torch.zeros(1, 2, 1, 4)
    flow[0, 0, 0, 0] = 0.75
    flow[0, 0, 0, 3] = 90.0
    found, weight = splat(values, flow)
    torch.testing.assert_close(weight.flatten(), torch.tensor([0.25, 1.75, 0.0, 0.0]))
    torch.testing.assert_close(found.flatten(), torch.tensor([4.0, (3.0 + 8.0) / 1.75, 0.0, 0.0]))


def test_gradients_of_a_splat_are_those_of_finite_differences():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(2, 2, 4, 5, generator=generator, dtype=torch.float64).requires_grad_()
    # Each value falls between the same four cells for small changes of the flow, and every cell is hit well.
    flow = (0.3 + 0.2 * torch.rand(2, 2, 4, 5, generator=generator, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(splat, (values, flow))


def test_the_direction_of_a_flow_is_named():
    flow, inverse = affine(48, 3.0, 1.05, (2.0, -1.0))
    previous, current = clip(48, flow)
    found = check_flow_direction(previous, current, flow.float())
    assert found.direction == "cur_to_prev"
    assert found.as_given < found.unwarped - 10
    turned = check_flow_direction(previous, current, inverse.float())
    assert turned.direction == "prev_to_cur"
    assert turned.inverted < turned.negated < turned.unwarped - 10
    assert turned.as_given > turned.unwarped


def test_a_direction_that_does_not_matter_is_unclear():
    flow, _ = affine(48, 3.0, 1.05, (2.0, -1.0))
    previous, current = clip(48, flow)
    assert check_flow_direction(previous, current, torch.zeros_like(flow)).direction == "unclear"
    noise = torch.randn(current.shape, generator=torch.Generator().manual_seed(0))
    assert check_flow_direction(previous, noise, flow.float()).direction == "unclear"
    nothing = check_flow_direction(previous, current, torch.full_like(flow, math.nan))
    assert nothing.direction == "unclear"
    assert math.isnan(nothing.as_given)


def test_missing_cells_do_not_hide_the_direction():
    flow, _ = affine(48, 3.0, 1.05, (2.0, -1.0))
    previous, current = clip(48, flow)
    whole = check_flow_direction(previous, current, flow.float())
    previous[..., 5:9, 7:20], current[..., 30:33, :] = math.nan, math.inf
    part = check_flow_direction(previous, current, flow.float())
    assert part.direction == "cur_to_prev"
    assert part.as_given == pytest.approx(whole.as_given, abs=1.0)


def test_flows_that_cancel_out_see_all_but_what_leaves_the_frame():
    flow, back = affine(64, 5.0, 1.1)
    for stride in (1.0, 8.0):
        assert torch.equal(occluded(flow.float(), back.float(), stride=stride), ~inside(flow.float()))


def test_a_moving_square_hides_what_it_uncovers():
    forward, backward = torch.zeros(1, 2, 16, 24), torch.zeros(1, 2, 16, 24)
    forward[:, 0, 4:12, 6:12] = 5.0  # columns 6 to 11 go to 11 to 16
    backward[:, 0, 4:12, 11:17] = -5.0
    hidden = occluded(backward, forward)
    expected = torch.zeros(1, 1, 16, 24, dtype=torch.bool)
    expected[..., 4:12, 6:11] = True
    assert torch.equal(hidden, expected)
    forward[0, 0, 0, 0] = backward[0, 0, 15, 23] = math.nan
    expected[..., 0, 0] = expected[..., 15, 23] = True
    assert torch.equal(occluded(backward, forward), expected)


def test_the_tolerance_of_occlusion_is_in_pixels():
    backward = torch.zeros(1, 2, 8, 8)
    forward = torch.full_like(backward, 0.4)  # 0.32 cells squared
    assert not occluded(backward, forward).any()
    assert occluded(backward, forward, stride=4.0).all()


def test_warping_by_the_inverse_undoes_the_motion_on_a_picture():
    flow, back = affine(64, 2.0, 1.0)
    previous, current = clip(64, back)
    inverse, _ = invert_flow(flow.float())
    error = (warp(previous, inverse, mode="bicubic") - current)[interior(back).expand_as(current)]
    assert 10 * math.log10(error.square().mean() / current.var()) < -30
