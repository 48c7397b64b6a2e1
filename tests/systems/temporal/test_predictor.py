"""The flow predictor: starts at no motion, learns motion without labels, takes any size and any unit."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from gridloom.core.errors import ConfigError
from gridloom.nn.warp import warp
from gridloom.systems.temporal.predictor import FlowPredictor, flow_losses


def texture(num_samples: int, channels: int, size: int, *, seed: int = 0) -> Tensor:
    """Smooth random maps."""
    drawn = torch.randn(num_samples, channels, size, size, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(F.avg_pool2d(drawn, 3, 1, 1), scale_factor=2, mode="bicubic")


def trained(steps: int, shifts: Tensor) -> FlowPredictor:
    """A predictor that has seen textures shifted by whole cells."""
    torch.manual_seed(0)
    model = FlowPredictor(2, width=8, levels=3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for step in range(steps):
        z_prev, z_cur = shifted(texture(4, 2, 20, seed=step), shifts[step % len(shifts)])
        photometric, uneven = flow_losses(z_prev, z_cur, model(z_prev, z_cur))
        optimizer.zero_grad()
        (photometric + 0.02 * uneven).mean().backward()
        optimizer.step()
    return model.eval()


def shifted(maps: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """The previous and the current frame, where the backward flow is the shift everywhere."""
    dx, dy = int(shift[0]), int(shift[1])
    moved = maps.roll((-dy, -dx), dims=(2, 3))
    return maps[..., 8:-8, 8:-8], moved[..., 8:-8, 8:-8]


def test_starts_at_no_motion() -> None:
    z_prev, z_cur = texture(2, 3, 12), texture(2, 3, 12, seed=1)
    assert torch.equal(FlowPredictor(3)(z_prev, z_cur), torch.zeros(2, 2, 24, 24))


def test_every_parameter_has_a_gradient_after_one_step() -> None:
    torch.manual_seed(0)
    model = FlowPredictor(3, width=8)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(2):
        optimizer.zero_grad()
        z_prev, z_cur = shifted(texture(2, 3, 16), torch.tensor([1, 0]))
        flow_losses(z_prev, z_cur, model(z_prev, z_cur))[0].sum().backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        optimizer.step()
    still = [name for name, parameter in model.named_parameters() if not (parameter.grad != 0).any()]
    assert still == []


def test_learns_motion_without_labels_and_beats_no_motion_by_far_on_new_frames() -> None:
    shifts = torch.tensor([[1, 0], [0, -2], [-2, 1]])
    model = trained(24, shifts)
    for shift in shifts:
        z_prev, z_cur = shifted(texture(2, 2, 24, seed=1000), shift)
        with torch.no_grad():
            left = (warp(z_prev, model(z_prev, z_cur)) - z_cur).square().mean()
        assert left < 0.5 * (z_prev - z_cur).square().mean()


@pytest.mark.parametrize("size", [(36, 44), (8, 8), (17, 9), (1, 5), (3, 2)])
def test_takes_any_size(size: tuple[int, int]) -> None:
    model = moving(FlowPredictor(2))
    z_prev, z_cur = torch.rand(2, 1, 2, *size)
    flow = model(z_prev, z_cur)
    assert flow.shape == (1, 2, *size)
    assert flow.isfinite().all()
    photometric, uneven = flow_losses(z_prev, z_cur, flow)
    assert photometric.isfinite().all() and uneven.isfinite().all()


def test_units_and_offsets_of_channels_do_not_matter() -> None:
    model = moving(FlowPredictor(3))
    z_prev, z_cur = texture(1, 3, 12), texture(1, 3, 12, seed=1)
    scale, offset = torch.tensor([1e3, 0.1, 4.0]).view(1, 3, 1, 1), torch.tensor([50.0, 0.0, -3.0]).view(1, 3, 1, 1)
    torch.testing.assert_close(
        model(scale * z_prev + offset, scale * z_cur + offset), model(z_prev, z_cur), rtol=1e-3, atol=1e-3
    )
    flow = model(z_prev, z_cur)
    for one, other in zip(
        flow_losses(z_prev, z_cur, flow), flow_losses(z_prev * scale, z_cur * scale, flow), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_samples_of_a_batch_do_not_touch_each_other() -> None:
    model = moving(FlowPredictor(2))
    z_prev, z_cur = texture(3, 2, 10), texture(3, 2, 10, seed=1)
    alone = torch.cat([model(z_prev[[i]], z_cur[[i]]) for i in range(3)])
    torch.testing.assert_close(model(z_prev, z_cur), alone, rtol=1e-4, atol=1e-5)


def test_constant_and_half_precision_latents_give_finite_float32_flow() -> None:
    model = moving(FlowPredictor(2))
    still = torch.ones(1, 2, 16, 16)
    assert model(still, still).isfinite().all()
    flow = model(texture(1, 2, 8).half(), texture(1, 2, 8, seed=1).half())
    assert flow.dtype == torch.float32
    assert flow.isfinite().all()


def test_true_flow_has_the_lowest_loss_and_an_affine_one_is_even() -> None:
    z_prev, z_cur = shifted(texture(1, 2, 32), torch.tensor([2, -1]))
    flow = torch.tensor([2.0, -1.0]).view(1, 2, 1, 1).expand(1, 2, *z_cur.shape[-2:])
    right, wrong = (flow_losses(z_prev, z_cur, sign * flow)[0] for sign in (1, -1))
    assert right < 1e-4 < 0.1 < wrong
    ramp = torch.linspace(-1, 1, z_cur.shape[-1]).expand_as(flow)
    torn = torch.where(ramp > 0, 3.0, -3.0)
    assert flow_losses(z_prev, z_cur, ramp)[1] < 0.2 * flow_losses(z_prev, z_cur, torn)[1]


def test_what_lies_outside_does_not_count() -> None:
    z_prev, z_cur = texture(1, 2, 8), texture(1, 2, 8, seed=1)
    assert flow_losses(z_prev, z_cur, torch.full((1, 2, 16, 16), 99.0))[0] == 0


def test_is_exported_for_any_size() -> None:
    model = moving(FlowPredictor(1, width=4, levels=2, radius=1))
    free = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    given = torch.rand(2, 2, 1, 8, 10)
    with torch.no_grad():
        program = torch.export.export(model, tuple(given), dynamic_shapes=(free, free)).module()
        for batch, *size in ((2, 8, 10), (1, 9, 13), (3, 16, 16)):
            z_prev, z_cur = torch.rand(2, batch, 1, *size)
            torch.testing.assert_close(program(z_prev, z_cur), model(z_prev, z_cur), rtol=1e-4, atol=1e-5)


def test_refuses_sizes_that_are_none() -> None:
    with pytest.raises(ConfigError, match="levels at least 2"):
        FlowPredictor(2, levels=1)


def moving(model: FlowPredictor) -> FlowPredictor:
    """With last layers that are not zero."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for last in (model.coarse.last, model.fine.last):
            last.weight.copy_(0.05 * torch.randn(last.weight.shape, generator=generator))
    return model.eval()
