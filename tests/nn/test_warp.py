import logging
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gridloom.core.errors import DataError
from gridloom.nn.warp import inside, rescale_flow, sampling_grid, warp
from gridloom.nn.warp_plan import WarpPlan

MODES = ("bilinear", "bicubic", "nearest")
PADDINGS = ("border", "zeros")
SIZES = ((8, 16), (7, 12), (1, 5), (5, 1), (1, 1))


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def cubic(distance: float) -> float:
    distance = abs(distance)
    if distance <= 1:
        return 1.25 * distance**3 - 2.25 * distance**2 + 1
    return -0.75 * (distance**3 - 5 * distance**2 + 8 * distance - 4) if distance < 2 else 0.0


KERNELS = {"bilinear": (1, lambda distance: max(0.0, 1 - abs(distance))), "bicubic": (2, cubic)}


def reference(values: np.ndarray, flow: np.ndarray, mode: str, padding: str) -> np.ndarray:
    """Sum over taps, cell by cell, in float64."""
    batch, channels, height, width = values.shape
    found = np.zeros((batch, channels, height, width))
    for b, y, x in np.ndindex(batch, height, width):
        offset = np.where(np.isfinite(flow[b, :, y, x]), flow[b, :, y, x], 0.0)
        across, down = x + offset[0], y + offset[1]
        if mode == "nearest":
            taps = [(round(down), round(across), 1.0)]
        else:
            reach, kernel = KERNELS[mode]
            rows = range(math.floor(down) - reach + 1, math.floor(down) + reach + 1)
            columns = range(math.floor(across) - reach + 1, math.floor(across) + reach + 1)
            taps = [(row, column, kernel(down - row) * kernel(across - column)) for row in rows for column in columns]
        for row, column, weight in taps:
            if padding == "border":
                row, column = min(max(row, 0), height - 1), min(max(column, 0), width - 1)
            if 0 <= row < height and 0 <= column < width:
                found[b, :, y, x] += weight * values[b, :, row, column]
    return found


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("padding", PADDINGS)
def test_values_are_those_of_a_sum_over_taps(size, mode, padding):
    values, flow = drawn(2, 3, *size).double(), 3 * drawn(2, 2, *size, seed=1).double()
    expected = reference(values.numpy(), flow.numpy(), mode, padding)
    np.testing.assert_allclose(warp(values, flow, mode=mode, padding=padding), expected, atol=1e-12)
    # Where float32 decides for another nearest cell than float64 is no question here: no draw is that near to a half.
    single = warp(values.float(), flow.float(), mode=mode, padding=padding)
    np.testing.assert_allclose(single, expected, atol=2e-5)
    planned = WarpPlan.of(flow.float(), mode=mode, padding=padding).apply(values.float())
    np.testing.assert_allclose(planned, expected, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [(64, 64), (36, 44), *SIZES])
def test_zero_flow_changes_no_bit(size, dtype):
    values, still = drawn(2, 3, *size).to(dtype), torch.zeros(2, 2, *size)
    for mode in MODES:
        for padding in PADDINGS:
            assert torch.equal(warp(values, still, mode=mode, padding=padding), values)
            assert torch.equal(WarpPlan.of(still, mode=mode, padding=padding).apply(values), values)


@settings(max_examples=30, deadline=None)
@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    shift=st.tuples(st.integers(-9, 9), st.integers(-9, 9)),
    mode=st.sampled_from(MODES),
)
def test_a_whole_shift_moves_the_bits(size, shift, mode):
    values = drawn(1, 2, *size)
    flow = torch.tensor(shift, dtype=torch.float32).view(1, 2, 1, 1).expand(1, 2, *size)
    columns, rows = torch.arange(size[1]) + shift[0], torch.arange(size[0]) + shift[1]
    kept = values[:, :, rows.clamp(0, size[0] - 1)][..., columns.clamp(0, size[1] - 1)]
    within = ((rows >= 0) & (rows < size[0]))[:, None] & ((columns >= 0) & (columns < size[1]))
    for padding, expected in (("border", kept), ("zeros", kept * within)):
        assert torch.equal(warp(values, flow, mode=mode, padding=padding), expected)
        assert torch.equal(WarpPlan.of(flow, mode=mode, padding=padding).apply(values), expected)
    assert torch.equal(inside(flow)[0, 0], within)


def turned(size: int, degrees: float, zoom: float) -> tuple[Tensor, Tensor]:
    """Cells as [2, size, size] and the flow [1, 2, size, size] of a rotation and zoom about the center, in float64."""
    axis = torch.arange(size, dtype=torch.float64)
    places = torch.stack([axis.expand(size, size), axis[:, None].expand(size, size)])
    cosine, sine = zoom * math.cos(math.radians(degrees)), zoom * math.sin(math.radians(degrees))
    about = places - (size - 1) / 2
    moved = torch.stack([cosine * about[0] - sine * about[1], sine * about[0] + cosine * about[1]])
    return places, (moved - about)[None]


@pytest.mark.parametrize("size", [32, 64, 128, 640])
def test_coordinates_of_an_affine_motion_are_right_to_a_ten_thousandth_of_a_cell(size):
    places, flow = turned(size, 5.0, 1.1)
    ramps = places - (size - 1) / 2  # about 0, so that they round as little as they can
    error = (warp(ramps[None].float(), flow.float()).double() - ramps - flow).abs()
    assert error[inside(flow).expand_as(error)].max() < 1e-4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_sampled_at_the_coordinates_of_float32(dtype):
    values, flow = drawn(1, 4, 96, 200).to(dtype), 20 * drawn(1, 2, 96, 200, seed=1)
    assert torch.equal(warp(values, flow), warp(values.float(), flow).to(dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(warp(values, flow), warp(values.float(), flow).to(dtype))


@pytest.mark.parametrize("size", [(8, 8), (5, 6)])
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("padding", PADDINGS)
def test_gradients_are_those_of_finite_differences(size, mode, padding):
    values = drawn(1, 2, *size).double().requires_grad_()
    # Away from whole cells, where bilinear has a kink.
    flow = (drawn(1, 2, *size, seed=1).double().round() + 0.3).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: warp(a, b, mode=mode, padding=padding), (values, flow))


def test_a_grid_kept_from_inference_serves_training():
    values, flow = drawn(1, 2, 24, 40), torch.full((1, 2, 24, 40), 0.3)
    with torch.inference_mode():
        expected = warp(values, flow)
    flow.requires_grad_()
    found = warp(values, flow)
    found.sum().backward()
    assert torch.equal(found, expected)
    assert flow.grad is not None
    assert flow.grad.abs().sum() > 0


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_flow_that_is_not_finite_counts_as_none_and_is_not_inside(wrong):
    values, flow = drawn(1, 2, 6, 8), torch.zeros(1, 2, 6, 8)
    flow[0, 0, 2, 3] = wrong
    expected = torch.ones(1, 1, 6, 8, dtype=torch.bool)
    expected[0, 0, 2, 3] = False
    for mode in MODES:
        assert torch.equal(warp(values, flow, mode=mode), values)
        plan = WarpPlan.of(flow, mode=mode)
        assert torch.equal(plan.apply(values), values)
        assert torch.equal(plan.valid, expected)
    assert torch.equal(inside(flow), expected)
    assert sampling_grid(flow).isfinite().all()
    flow.requires_grad_()
    warp(values, flow).square().sum().backward()
    assert flow.grad is not None
    assert flow.grad.isfinite().all()


def test_a_frame_ends_at_the_centers_of_its_cells_or_a_margin_beyond():
    flow = torch.zeros(1, 2, 3, 4)
    flow[:, 0] = 0.25
    assert inside(flow)[0, 0].tolist() == 3 * [[True, True, True, False]]
    assert inside(flow, margin=0.25).all()
    flow[:, 1] = -0.5
    assert inside(flow, margin=0.25)[0, 0].tolist() == [4 * [False], 4 * [True], 4 * [True]]


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("size", [(9, 14), (1, 6), (6, 1), (1, 1)])
def test_a_sampling_grid_is_right_for_either_convention(size, align_corners):
    values, flow = drawn(2, 3, *size).double(), 2 * drawn(2, 2, *size, seed=1).double()
    if align_corners:  # an axis of one cell cannot be left with this convention
        flow[:, 0] *= size[1] > 1
        flow[:, 1] *= size[0] > 1
    grid = sampling_grid(flow, align_corners=align_corners)
    for padding in PADDINGS:
        found = nn.functional.grid_sample(values, grid, padding_mode=padding, align_corners=align_corners)
        torch.testing.assert_close(found, warp(values, flow, padding=padding), atol=1e-12, rtol=0)


@settings(max_examples=20, deadline=None)
@given(
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    wanted=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    motion=st.tuples(st.floats(-3, 3, width=32), st.floats(-3, 3, width=32)),
)
def test_a_rescaled_shift_is_the_same_share_of_the_frame(size, wanted, motion):
    flow = torch.tensor(motion).view(1, 2, 1, 1).expand(1, 2, *size)
    found = rescale_flow(flow, wanted)
    assert found.shape == (1, 2, *wanted)
    for component, axis in ((0, 1), (1, 0)):
        expected = motion[component] * wanted[axis] / size[axis]
        torch.testing.assert_close(found[0, component], torch.full(wanted, expected), atol=1e-5, rtol=1e-5)


def test_a_smaller_flow_is_the_mean_over_areas():
    flow = drawn(2, 2, 8, 12)
    blocks = flow.view(2, 2, 4, 2, 3, 4).mean(dim=(3, 5)) * torch.tensor([3 / 12, 4 / 8]).view(1, 2, 1, 1)
    torch.testing.assert_close(rescale_flow(flow, (4, 3)), blocks)
    assert torch.equal(rescale_flow(flow, (8, 12)), flow)


def test_a_plan_serves_any_number_of_channels_in_either_layout():
    flow = 4 * drawn(3, 2, 10, 12)
    plan = WarpPlan.of(flow)
    for channels in (1, 3, 64):
        values = drawn(3, channels, 10, 12, seed=channels)
        expected = warp(values, flow)
        torch.testing.assert_close(plan.apply(values), expected, atol=1e-5, rtol=0)
        found = plan.apply(values.to(memory_format=torch.channels_last))
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
        assert found.is_contiguous(memory_format=torch.channels_last)
        assert plan.apply(values.bfloat16()).dtype == torch.bfloat16
    values = drawn(3, 2, 10, 12).requires_grad_()
    direct = torch.autograd.grad(warp(values, flow).square().sum(), values)
    torch.testing.assert_close(torch.autograd.grad(plan.apply(values).square().sum(), values), direct)


def test_what_does_not_fit_is_refused():
    values, flow = drawn(1, 2, 6, 8), torch.zeros(1, 2, 3, 4)
    with pytest.raises(DataError, match="grid of the values, 6 x 8 cells, got 3 x 4; rescale_flow"):
        warp(values, flow)
    with pytest.raises(DataError, match="1 maps of 3 x 4 cells, got 1 of 6 x 8"):
        WarpPlan.of(flow).apply(values)
    with pytest.raises(DataError, match=r"at least 1, got \(0, 3\)"):
        rescale_flow(flow, (0, 3))


class Warp(nn.Module):
    def forward(self, values: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
        return warp(values, flow), inside(flow)


def test_an_exported_warp_is_the_same_at_other_sizes():
    # pytest listens to every logger; torch would write down each step of the exporter for it.
    logger = logging.getLogger("torch.__trace")
    level = logger.level
    logger.setLevel(logging.WARNING)
    dynamic = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    example = (drawn(2, 3, 8, 12), drawn(2, 2, 8, 12, seed=1))
    try:
        program = torch.export.export(Warp(), example, dynamic_shapes=(dynamic, dynamic)).module()
    finally:
        logger.setLevel(level)
    for size in ((1, 16, 32), (3, 7, 20), (2, 2, 2)):
        values, flow = drawn(size[0], 3, *size[1:], seed=2), drawn(size[0], 2, *size[1:], seed=3)
        flow[0, 0, 0, 0] = math.nan
        expected, within = Warp()(values, flow)
        found = program(values, flow)
        torch.testing.assert_close(found[0], expected, atol=1e-5, rtol=0)
        assert torch.equal(found[1], within)
