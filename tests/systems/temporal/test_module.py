import math

import pytest
import torch
from torch.nn import functional as F

from gridloom.core.errors import ConfigError, DataError
from gridloom.nn.warp import warp
from gridloom.systems.temporal import MultiscaleTemporal, TemporalModule
from gridloom.systems.temporal.warmup import AlphaWarmup

GATES = ("scalar", "spatial", "kalman")
REFINERS = ("plain", "flow", "none")


def pair(batch=2, channels=4, height=12, width=15, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(batch, channels, height, width, generator=generator).to(dtype) for _ in range(2))


def constant_flow(z, dx, dy):
    return torch.tensor([dx, dy], dtype=torch.float32).view(1, 2, 1, 1).expand(len(z), 2, *z.shape[2:]).clone()


def trained(module, seed=1, scale=0.2):
    """Every parameter away from its start, so that nothing is the identity by accident."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return module


def test_it_answers_as_documented():
    z_prev, z_cur = pair()
    s_prev, s_cur = torch.randn(2, 8), torch.randn(2, 8)
    module = TemporalModule(4, style_dim=8)
    fused, style, aux = module(z_prev, z_cur, s_prev, s_cur, constant_flow(z_cur, 1.3, -0.4), return_warp=True)
    assert fused.shape == z_cur.shape and style.shape == s_cur.shape
    assert {"alpha", "z_warp_refined_mean", "z_warp", "z_warp_refined"} <= set(aux)
    assert not aux["alpha"].requires_grad and not aux["z_warp_refined_mean"].requires_grad
    torch.testing.assert_close(fused, 0.3 * aux["z_warp_refined"] + 0.7 * z_cur)
    torch.testing.assert_close(style, 0.3 * s_prev + 0.7 * s_cur)
    torch.testing.assert_close(aux["z_warp_refined_mean"], aux["z_warp_refined"].mean())


@pytest.mark.parametrize("alpha", [0.01, 0.2, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("learnable", [True, False])
def test_alpha_starts_as_asked_and_is_a_parameter_only_if_learnable(alpha, learnable):
    module = TemporalModule(3, alpha_init=alpha, learnable_alpha=learnable)
    assert float(module.alpha.detach()) == pytest.approx(alpha, abs=1e-6)
    assert ("alpha_param" in dict(module.named_parameters())) is learnable
    assert "alpha_param" in module.state_dict()


@pytest.mark.parametrize("gate", ["scalar", "spatial"])
def test_without_training_every_valid_cell_has_the_alpha_of_the_start(gate):
    z_prev, z_cur = pair()
    _, _, aux = TemporalModule(4, alpha_init=0.4, gate=gate)(z_prev, z_cur)
    assert torch.allclose(aux["alpha"], torch.tensor(0.4), atol=1e-6)


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("refiner", REFINERS)
def test_alpha_zero_gives_the_current_frame_to_the_bit(gate, refiner):
    z_prev, z_cur = pair()
    module = trained(TemporalModule(4, gate=gate, refiner=refiner))
    before = module.alpha_param.clone()
    module.override_alpha(0.0)
    fused, _, _ = module(z_prev, z_cur, flow=constant_flow(z_cur, 0.7, 2.2))
    assert torch.equal(fused, z_cur) and torch.equal(module.alpha_param, before)
    module.override_alpha(None)
    assert not torch.equal(module(z_prev, z_cur)[0], z_cur)


def test_an_override_replaces_a_scalar_alpha_and_bounds_a_map():
    z_prev, z_cur = pair()
    scalar = TemporalModule(4, alpha_init=0.3)
    scalar.override_alpha(0.8)
    assert float(scalar(z_prev, z_cur)[2]["alpha"]) == pytest.approx(0.8)
    spatial = TemporalModule(4, alpha_init=0.3, gate="spatial")
    spatial.override_alpha(0.8)
    assert float(spatial(z_prev, z_cur)[2]["alpha"].max()) == pytest.approx(0.3, abs=1e-6)
    spatial.override_alpha(0.1)
    assert float(spatial(z_prev, z_cur)[2]["alpha"].max()) == pytest.approx(0.1, abs=1e-6)


def test_the_warm_up_rises_in_a_line_and_then_leaves_alpha_alone():
    warmup, module = AlphaWarmup(start=0.1, target=0.8, steps=10), TemporalModule(3, alpha_init=0.3)
    seen = []
    for step in range(12):
        warmup.apply(module, step)
        seen.append(float(module.alpha.detach()))
    assert seen[:10] == pytest.approx([0.1 + 0.07 * step for step in range(10)], abs=1e-6)
    assert seen[10:] == pytest.approx([0.3, 0.3], abs=1e-6)


def test_no_flow_moves_nothing():
    z_prev, z_cur = pair()
    _, _, aux = TemporalModule(4)(z_prev, z_cur, return_warp=True)
    assert torch.equal(aux["z_warp"], z_prev) and torch.equal(aux["z_warp_refined"], z_prev)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("direction", ["cur_to_prev", "prev_to_cur"])
def test_zero_flow_and_whole_shifts_move_the_bits(interpolation, direction):
    z_prev, z_cur = pair(height=13, width=17)
    module = TemporalModule(4, flow_direction=direction, interpolation=interpolation)
    assert torch.equal(module.warp_latent(z_prev, torch.zeros_like(z_cur[:, :2])), z_prev)
    sign = 1 if direction == "cur_to_prev" else -1
    moved = module.warp_latent(z_prev, constant_flow(z_cur, sign * 2.0, sign * -1.0))
    assert torch.equal(moved[:, :, 3:-3, 3:-4], z_prev[:, :, 2:-4, 5:-2])


def test_flow_from_previous_to_current_brings_the_previous_frame_onto_the_current_one():
    """A bright cell moves right by 3 and down by 1: the flow of the interface says (3, 1) there."""
    z_prev, z_cur = torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 16, 16)
    z_prev[0, 0, 6, 5], z_cur[0, 0, 7, 8] = 1.0, 1.0
    flow = constant_flow(z_cur, 3.0, 1.0)
    assert torch.equal(TemporalModule(1).warp_latent(z_prev, flow), z_cur)
    seed = TemporalModule(1, compat="seed").warp_latent(z_prev, flow)
    assert float(seed[0, 0, 7, 8]) == 0.0  # the literal formula moves it the other way


@pytest.mark.parametrize("shape", [(12, 15), (1, 9), (7, 1), (64, 64)])
def test_compat_seed_equals_six_lines(shape):
    z_prev, z_cur = pair(height=shape[0], width=shape[1])
    flow = 3 * torch.randn(2, 2, *shape, generator=torch.Generator().manual_seed(2))
    height, width = shape
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    grid = torch.stack([x + flow[:, 0] / (width / 2.0), y + flow[:, 1] / (height / 2.0)], dim=-1)
    z_warp = F.grid_sample(z_prev, grid, mode="bilinear", padding_mode="zeros", align_corners=True)
    expected = 0.3 * z_warp + 0.7 * z_cur
    fused, _, aux = TemporalModule(4, compat="seed")(z_prev, z_cur, flow=flow, return_warp=True)
    torch.testing.assert_close(aux["z_warp"], z_warp, rtol=0, atol=1e-6)
    torch.testing.assert_close(fused, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_flow_that_is_not_finite_is_masked(gate, value):
    z_prev, z_cur = pair()
    module = trained(TemporalModule(4, gate=gate, flow_direction="cur_to_prev"))
    flow = constant_flow(z_cur, 0.5, 0.25)
    flow[:, 0, 4, 6] = value
    noise = torch.full((2, 4), 0.1)
    fused, _, aux = module(z_prev, z_cur, flow=flow, noise=noise)
    assert torch.isfinite(fused).all()
    assert torch.equal(fused[:, :, 4, 6], z_cur[:, :, 4, 6]) and not aux["valid"][:, :, 4, 6].any()


def test_what_comes_from_outside_is_taken_from_the_current_frame():
    z_prev, z_cur = pair()
    fused, _, aux = TemporalModule(4, flow_direction="cur_to_prev")(z_prev, z_cur, flow=constant_flow(z_cur, -3.0, 0.0))
    assert (
        torch.equal(fused[..., :3], z_cur[..., :3]) and not aux["valid"][..., :3].any() and aux["valid"][..., 3:].all()
    )


def test_occluded_cells_are_taken_from_the_current_frame():
    z_prev, z_cur = pair()
    valid = torch.ones(2, 1, 12, 15, dtype=torch.bool)
    valid[:, :, 5:8, 2:9] = False
    module = trained(TemporalModule(4, gate="spatial"))
    fused, _, _ = module(z_prev, z_cur, valid=valid)
    other = z_prev.clone()
    other[:, :, 6, 3:8] = 1e6  # in the middle of what is not seen, further from its edge than the refiner looks
    assert torch.equal(fused[:, :, 5:8, 2:9], z_cur[:, :, 5:8, 2:9])
    assert torch.equal(module(other, z_cur, valid=valid)[0], fused)


def test_a_previous_latent_that_is_not_known_does_not_spread():
    z_prev, z_cur = pair()
    z_prev[:, :, 3, 4] = math.nan
    fused, _, aux = TemporalModule(4, flow_direction="cur_to_prev")(z_prev, z_cur, flow=constant_flow(z_cur, 0.5, 0.0))
    assert torch.isfinite(fused).all()
    lost = (~aux["valid"])[0, 0].nonzero().tolist()
    assert lost == [[3, 3], [3, 4]]  # the two cells that sample it


@pytest.mark.parametrize("gate", GATES)
def test_a_missing_cell_of_the_current_frame_is_answered_by_the_past(gate):
    z_prev, z_cur = pair()
    z_cur[:, :, 3, 4] = math.nan
    noise = torch.full((2, 4), 0.5)
    fused, _, _ = TemporalModule(4, gate=gate, refiner="none")(z_prev, z_cur, noise=noise)
    assert torch.isfinite(fused).all()
    assert torch.equal(fused[:, :, 3, 4], z_prev[:, :, 3, 4])


@pytest.mark.parametrize("gate", ["scalar", "spatial"])
@pytest.mark.parametrize("refiner", REFINERS)
@pytest.mark.parametrize("predict", [False, True])
def test_every_parameter_and_the_flow_get_a_gradient(gate, refiner, predict):
    z_prev, z_cur = pair(height=16, width=16)
    module = TemporalModule(4, style_dim=3, gate=gate, refiner=refiner, predict_flow=predict, style_gate="learned")
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    flow = None if predict else constant_flow(z_cur, 0.6, -0.3).requires_grad_()
    target = 0.5 * z_cur + 0.5 * z_prev.roll((1, 1), (2, 3))
    for step in range(2):
        fused, style, _ = module(z_prev, z_cur, torch.ones(2, 3), torch.zeros(2, 3), flow)
        loss = (fused - target).square().mean() + (style - 0.7).square().mean()
        optimizer.zero_grad()
        loss.backward()
        missing = [name for name, parameter in module.named_parameters() if parameter.grad is None]
        assert not missing
        if step == 0:
            optimizer.step()
    still = [name for name, parameter in module.named_parameters() if not parameter.grad.abs().sum() > 0]
    assert not still
    if flow is not None:
        assert float(flow.grad.abs().sum()) > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_coordinates_stay_float32_for_latents_of_half_precision(dtype):
    ramp = torch.arange(128.0).expand(1, 1, 4, 128)
    flow = constant_flow(ramp, 0.25, 0.0)
    module = TemporalModule(1, flow_direction="cur_to_prev")
    exact = module.warp_latent(ramp / 128, flow)
    found = module.warp_latent((ramp / 128).to(dtype), flow)
    assert found.dtype == dtype
    # only the values are rounded, not where they are sampled: that would be off by 0.06 cells
    assert float((found.float() - exact).abs().max()) * 128 < 128 * torch.finfo(dtype).eps


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("refiner", ["plain", "flow"])
def test_batch_neighbors_change_nothing(gate, refiner):
    z_prev, z_cur = pair(batch=3)
    module = trained(TemporalModule(4, gate=gate, refiner=refiner)).eval()
    flow = torch.randn(3, 2, 12, 15, generator=torch.Generator().manual_seed(3))
    together, _, _ = module(z_prev, z_cur, flow=flow)
    alone, _, _ = module(z_prev[1:2], z_cur[1:2], flow=flow[1:2])
    torch.testing.assert_close(together[1:2], alone, rtol=0, atol=2e-6)


@pytest.mark.parametrize("inverse", ["fixed_point", "negate", "splat"])
def test_each_way_to_turn_a_shift_round_is_right(inverse):
    z_prev, z_cur = pair()
    flow = constant_flow(z_cur, 2.0, 1.0)
    found = TemporalModule(4, inverse=inverse).warp_latent(z_prev, flow)
    expected = warp(z_prev, -flow)
    torch.testing.assert_close(found[:, :, 3:-3, 4:-4], expected[:, :, 3:-3, 4:-4], rtol=0, atol=1e-5)


def test_styles_are_fused_only_when_both_came():
    z_prev, z_cur = pair()
    module = TemporalModule(4, style_dim=3)
    assert module(z_prev, z_cur)[1] is None and module(z_prev, z_cur, s_cur=torch.zeros(2, 3))[1] is None
    with pytest.raises(DataError, match=r"styles must be \[B,3\]"):
        module(z_prev, z_cur, torch.zeros(2, 5), torch.zeros(2, 5))
    with pytest.raises(DataError, match="style_dim=5"):
        TemporalModule(4)(z_prev, z_cur, torch.zeros(2, 5), torch.zeros(2, 5))


def test_each_level_of_a_pyramid_is_moved_by_its_share():
    module = MultiscaleTemporal([2, 3], alpha_init=0.999, refine=False)
    z = [torch.randn(1, 2, 16, 24), torch.randn(1, 3, 8, 12)]
    flow = constant_flow(z[0], 4.0, 2.0)
    fused, aux = module(
        z, [level.roll((-dy, -dx), (2, 3)) for level, dx, dy in zip(z, (4, 2), (2, 1), strict=True)], flow
    )
    assert [level.shape for level in fused] == [level.shape for level in z] and len(aux) == 2
    torch.testing.assert_close(fused[1][:, :, :7, :10], z[1][:, :, 1:, 2:], rtol=0, atol=1e-5)
    with pytest.raises(DataError, match="expected features of 2 levels, got 1 and 1"):
        module(z[:1], z[:1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 0}, "channels must be at least 1"),
        ({"alpha_init": 1.0}, "between 0 and 1"),
        ({"gate": "wide"}, "gate must be one of scalar, spatial, kalman, got 'wide'"),
        ({"flow_direction": "forward"}, "flow_direction must be one of prev_to_cur, cur_to_prev"),
        ({"inverse": "exact"}, "inverse must be one of"),
        ({"compat": "seed", "gate": "spatial"}, "compat 'seed' has a scalar gate"),
    ],
)
def test_settings_that_are_not_possible_are_refused(options, message):
    build = getattr(TemporalModule.__init__, "__wrapped__", TemporalModule.__init__)  # types are not checked in use
    with pytest.raises(ConfigError, match=message):
        build(TemporalModule.__new__(TemporalModule), **{"channels": 4, **options})


def test_shapes_that_do_not_belong_together_are_refused():
    z_prev, z_cur = pair()
    module = TemporalModule(4)
    with pytest.raises(DataError, match=r"latents must be \[B,4,H,W\]"):
        module(z_prev[:, :3], z_cur[:, :3])
    with pytest.raises(DataError, match=r"rescale_flow\(flow, \(12, 15\)\)"):
        module.warp_latent(z_prev, torch.zeros(2, 2, 96, 120))
    with pytest.raises(ConfigError, match="alpha must be between 0 and 1"):
        module.override_alpha(1.5)
