import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from gridloom.core.errors import DataError
from gridloom.nn.warp import warp


def draw(*shape, seed=0, scale=1.0, dtype=torch.float64):
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("size", [(9, 14), (32, 32), (20, 31), (1, 12), (7, 1)])
def test_it_is_the_cubic_spline_through_the_values(size):
    values, flow = draw(1, 2, *size), draw(1, 2, *size, seed=1, scale=2.0)
    found = warp(values, flow, mode="spline")
    y, x = np.mgrid[: size[0], : size[1]]
    places = [np.clip(y + flow[0, 1].numpy(), 0, size[0] - 1), np.clip(x + flow[0, 0].numpy(), 0, size[1] - 1)]
    for channel in range(2):
        expected = map_coordinates(values[0, channel].numpy(), places, order=3, mode="mirror")
        np.testing.assert_allclose(found[0, channel], expected, rtol=0, atol=2e-5)


def test_whole_shifts_move_the_bits():
    values = draw(2, 3, 17, 22, dtype=torch.float32)
    assert torch.equal(warp(values, torch.zeros(2, 2, 17, 22), mode="spline"), values)
    shift = torch.tensor([2.0, -1.0]).view(1, 2, 1, 1).expand(2, 2, 17, 22)
    assert torch.equal(warp(values, shift, mode="spline")[:, :, 1:, :-2], values[:, :, :-1, 2:])


def test_half_a_turn_of_small_steps_keeps_more_than_bicubic():
    """Eight moves of an eighth, there and back again: what is left of fine detail."""
    y, x = torch.meshgrid(torch.arange(48.0), torch.arange(48.0), indexing="ij")
    values = (torch.sin(1.3 * x + 0.9 * y) + torch.sin(0.4 * x - 1.1 * y))[None, None]
    left = {}
    for mode in ("bilinear", "bicubic", "spline"):
        moved = values
        for step in range(16):
            moved = warp(moved, torch.full((1, 2, 48, 48), 0.37 if step % 2 else -0.37), mode=mode)
        left[mode] = float((moved - values)[..., 12:-12, 12:-12].square().mean())
    assert left["spline"] < 0.3 * left["bicubic"] and left["bicubic"] < left["bilinear"]


def test_values_and_flow_have_their_gradients():
    values, flow = draw(1, 1, 5, 6).requires_grad_(), (draw(1, 2, 5, 6, seed=2, scale=0.3) + 0.11).requires_grad_()
    inner = torch.zeros(1, 1, 5, 6, dtype=torch.float64)
    inner[..., 2:-2, 2:-2] = 1.0
    assert torch.autograd.gradcheck(lambda v, f: warp(v, f, mode="spline") * inner, (values, flow), atol=1e-5)


def test_half_precision_and_unknown_flow_are_taken():
    values, flow = draw(1, 2, 8, 8, dtype=torch.float32), torch.full((1, 2, 8, 8), 0.5)
    flow[0, 0, 3, 3] = torch.nan
    found = warp(values.half(), flow, mode="spline")
    assert found.dtype == torch.float16 and torch.isfinite(found).all()
    torch.testing.assert_close(found.float(), warp(values, flow, mode="spline"), rtol=0, atol=5e-3)
    with pytest.raises(DataError, match="padding 'border', got 'zeros'"):
        warp(values, flow, mode="spline", padding="zeros")
