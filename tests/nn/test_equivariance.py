import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from gridloom.core.batch import Field
from gridloom.core.errors import DataError
from gridloom.core.random import window_keys
from gridloom.nn.equivariance import equivariance_error, equivariance_loss, move, random_motion, warp_gap
from gridloom.nn.warp import rescale_flow, warp

KEYS = window_keys(0, 0, range(6))


def smooth(count: int = 6, size: int = 64, channels: int = 2) -> Tensor:
    """Fields whose finest detail is several cells of an encoder with stride 8."""
    nodes = torch.randn(count, channels, 5, 5, generator=torch.Generator().manual_seed(0))
    return F.interpolate(nodes, size=(size, size), mode="bicubic", align_corners=True)


def means(frames: Tensor) -> Tensor:
    """An encoder that moves along as far as interpolation allows."""
    return F.avg_pool2d(frames, 8)


def corners(frames: Tensor) -> Tensor:
    """An encoder that doesn't: what lies in a corner of each patch."""
    return frames[..., ::8, ::8]


def whole(count: int, dx: float, dy: float, size: int = 64) -> Tensor:
    return torch.tensor([dx, dy]).view(1, 2, 1, 1).expand(count, 2, size, size).clone()


def test_motion_is_by_whole_cells_both_ways_and_a_sample_s_own() -> None:
    flow = random_motion(window_keys(0, 0, range(400)), (8, 8), shift=4)
    assert torch.equal(flow, flow[:, :, :1, :1].expand_as(flow))
    assert set(flow[:, :, 0, 0].flatten().tolist()) == set(range(-4, 5))
    assert torch.equal(random_motion(KEYS[2:3], (8, 8), shift=4), random_motion(KEYS, (8, 8), shift=4)[2:3])
    assert not torch.equal(flow, random_motion(window_keys(0, 1, range(400)), (8, 8), shift=4))


def test_rotation_and_zoom_keep_the_middle_and_stay_within_what_is_asked() -> None:
    flow = random_motion(window_keys(0, 0, range(200)), (33, 65), shift=0, rotate=10.0, zoom=1.1)
    assert flow[:, :, 16, 32].abs().max() < 1e-5
    # the end of the middle row, as a complex number over its distance
    end = torch.complex(flow[:, 0, 16, 64].double() + 32, flow[:, 1, 16, 64].double()) / 32
    assert end.angle().abs().max() <= math.radians(10.0) and end.angle().abs().max() > math.radians(9.0)
    assert 1 / 1.1 - 1e-6 <= end.abs().min() < 0.93 and 1.08 < end.abs().max() <= 1.1 + 1e-6


def test_a_whole_shift_moves_values_and_mask_to_the_bit() -> None:
    values = torch.randn(2, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    valid = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(1)) > 0.3
    field = Field.of(values, valid)
    flow = torch.tensor([3.0, -2.0]).view(1, 2, 1, 1).expand(2, 2, 16, 24)
    moved = move(field, flow)
    assert torch.equal(moved.values[..., 2:, :-3], field.values[..., :-2, 3:])
    assert torch.equal(moved.valid[..., 2:, :-3], field.valid[..., :-2, 3:])
    assert not moved.valid[..., :2, :].any() and not moved.valid[..., -3:].any()
    assert not moved.values[~moved.valid].any()


def test_a_moved_field_takes_its_values_from_known_cells_alone() -> None:
    valid = torch.rand(6, 2, 64, 64, generator=torch.Generator().manual_seed(1)) > 0.3
    flow = random_motion(KEYS, (64, 64), shift=4, rotate=15.0, zoom=1.2)
    fields = [Field(values=torch.where(valid, 3.0, hidden), valid=valid) for hidden in (0.0, torch.nan)]
    first, second = (move(field, flow) for field in fields)
    assert torch.equal(first.values, second.values) and torch.equal(first.valid, second.valid)
    assert torch.allclose(first.values[first.valid], torch.tensor(3.0), atol=1e-5)
    assert 0.4 < first.valid.float().mean() < 0.9


def test_an_encoder_that_moves_along_has_a_small_error_and_one_that_does_not_a_large_one() -> None:
    noise = torch.randn(6, 2, 64, 64, generator=torch.Generator().manual_seed(2))
    flow = random_motion(KEYS, (64, 64), shift=4)
    moving = equivariance_loss(means, smooth(), flow)
    still = equivariance_loss(corners, noise, flow)
    assert moving.shape == (6,) and moving.max() < 0.04
    assert (still[flow[:, :, 0, 0].any(1)] > 0.7).all()


def test_the_error_is_the_one_written_out_for_a_single_shift() -> None:
    latent, moved = torch.randn(2, 1, 3, 6, 6, generator=torch.Generator().manual_seed(3)).double().float()
    flow = whole(1, 4.0, 0.0, 48)
    halfway = (latent[..., :-1] + latent[..., 1:]) / 2
    square = (halfway - moved[..., :-1])[..., 1:5, 1 : 4 + 1].square().mean((-2, -1))
    variance = (latent.var((-2, -1), correction=0) + moved.var((-2, -1), correction=0)) / 2
    expected = (square / variance).mean(1)
    assert torch.allclose(equivariance_error(latent, moved, flow), expected, rtol=1e-3)


def test_scale_and_offset_of_a_channel_change_no_error_so_that_shrinking_is_no_way_out() -> None:
    frames, flow = smooth() + 0.3 * torch.randn(6, 2, 64, 64), random_motion(KEYS, (64, 64), shift=4)
    plain = equivariance_loss(means, frames, flow)
    scale = torch.tensor([1e-3, 50.0]).view(1, 2, 1, 1).requires_grad_()
    scaled = equivariance_loss(lambda x: scale * means(x), frames, flow)
    # up to the floor, of which the quiet channel has most
    assert torch.allclose(equivariance_loss(lambda x: 1e-3 * means(x), frames, flow), plain, rtol=1e-4)
    gradient = torch.autograd.grad(equivariance_loss(lambda x: scale[:, 1:] * means(x), frames, flow).sum(), scale)[0]
    assert gradient.abs().max() * 50 < 1e-3 * float(plain.sum())
    assert scaled.isfinite().all()


def test_a_sample_s_error_depends_on_no_other_sample() -> None:
    frames, flow = smooth(), random_motion(KEYS, (64, 64), shift=4)
    alone = equivariance_loss(corners, frames[1:2], flow[1:2])
    assert torch.allclose(equivariance_loss(corners, frames, flow)[1:2], alone)


def test_cells_with_a_missing_source_are_left_out() -> None:
    latent = torch.randn(1, 2, 8, 8, generator=torch.Generator().manual_seed(4))
    flow = whole(1, 4.0, 0.0)
    moved = warp(latent, rescale_flow(flow, (8, 8)))
    known = torch.ones(1, 1, 64, 64, dtype=torch.bool)
    known[..., 24:32, 32:40] = False
    wrong = latent.clone()
    wrong[..., 3, 4] = 1e3
    assert equivariance_error(latent, moved, flow).item() < 1e-10
    assert equivariance_error(wrong, moved, flow).item() > 1e-3
    assert equivariance_error(wrong, moved, flow, known=known).item() < 1e-10
    wrong = moved.clone()
    wrong[..., 3, 4] = 1e3
    assert equivariance_error(latent, wrong, flow, known_moved=known).item() < 1e-10


@pytest.mark.parametrize("frames", [torch.zeros(2, 1, 64, 64), torch.full((2, 1, 64, 64), 7.0)])
def test_a_flat_field_has_no_error_and_a_finite_gradient(frames: Tensor) -> None:
    gain = torch.ones(1, requires_grad=True)
    loss = equivariance_loss(lambda x: gain * means(x), frames, whole(2, 3.0, 1.0))
    loss.sum().backward()
    assert loss.max() < 1e-3 and gain.grad.isfinite().all()


def test_no_cell_left_is_no_error() -> None:
    latent = torch.randn(1, 2, 2, 2)
    assert equivariance_error(latent, latent + 1, whole(1, 0.0, 0.0, 16)).item() == 0
    nothing = torch.zeros(1, 1, 64, 64, dtype=torch.bool)
    latent = torch.randn(1, 2, 8, 8)
    assert equivariance_error(latent, latent + 1, whole(1, 0.0, 0.0), known=nothing).item() == 0


def test_the_gap_is_what_warping_latents_costs_over_warping_frames() -> None:
    previous, flow = smooth(), whole(6, 3.0, -5.0)
    current = warp(previous, flow)
    moving = warp_gap(means, previous, current, flow, stride=8)
    still = warp_gap(
        lambda x: F.avg_pool2d(x * torch.linspace(-1, 1, 8).repeat(8), 8), previous, current, flow, stride=8
    )
    assert moving.frames < -200 and moving.latent < -15 < moving.none
    assert still.latent > moving.latent + 2 and still.gap == still.latent - still.frames
    assert 0.5 < moving.coverage < 1


def test_the_gap_of_no_motion_is_none_and_its_normalization_is_the_variance() -> None:
    frames = torch.randn(4, 1, 64, 64, generator=torch.Generator().manual_seed(5))
    noisy = frames + 0.1 * torch.randn(4, 1, 64, 64, generator=torch.Generator().manual_seed(6))
    gap = warp_gap(means, frames, noisy, whole(4, 0.0, 0.0), stride=8)
    assert gap.none == gap.latent == gap.frames == pytest.approx(-20.0, abs=1.0) and gap.gap == 0 and gap.coverage == 1


def test_a_loud_channel_hides_the_others_unless_channels_count_alike() -> None:
    noise = torch.randn(6, 1, 64, 64, generator=torch.Generator().manual_seed(7))
    previous = torch.cat([100 * smooth(channels=1), noise], 1)
    flow = whole(6, 4.0, 4.0)
    current = warp(previous, flow)

    def encode(frames: Tensor) -> Tensor:
        return torch.cat([means(frames[:, :1]), corners(frames[:, 1:])], 1)

    together = warp_gap(encode, previous, current, flow, stride=8)
    each = warp_gap(encode, previous, current, flow, stride=8, per_channel=True)
    assert together.latent < -15 and each.latent > -6
    silent = warp_gap(lambda x: 0 * means(x), previous, current, flow, stride=8, per_channel=True)
    assert silent.latent == silent.frames == -300 and silent.gap == 0


def test_occluded_cells_and_flow_that_is_not_finite_are_left_out_of_the_gap() -> None:
    previous, flow = smooth(), whole(6, 0.0, 0.0)
    current = previous.clone()
    current[..., :16, :] += 10.0
    current[..., 40:48, 40:48] -= 5.0
    flow[:, 0, 44, 44] = torch.nan
    flow[:, :, 40:48, 41] = torch.inf
    valid = torch.ones(6, 1, 64, 64, dtype=torch.bool)
    valid[..., :16, :] = False
    gap = warp_gap(means, previous, current, flow, stride=8, valid=valid)
    assert gap.none < -200 and gap.coverage == pytest.approx(1 - (16 + 1) / 64)


def test_a_gap_that_cannot_be_scored_says_why() -> None:
    frames, flow = smooth(), whole(6, 0.0, 0.0)
    with pytest.raises(DataError, match=r"frames of \[64, 64\] cells and stride 4, but latents of \[8, 8\]"):
        warp_gap(means, frames, frames, flow, stride=4)
    with pytest.raises(DataError, match="nothing to score"):
        warp_gap(means, frames, frames, flow + 1000, stride=8)
