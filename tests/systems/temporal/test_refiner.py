import pytest
import torch
from torch.nn import functional as F

from gridloom.core.errors import ConfigError
from gridloom.nn.warp import warp
from gridloom.systems.temporal.refiner import Refiner

KINDS = ("plain", "flow")


def _latents(channels=5, size=(6, 7), seed=0):
    generator = torch.Generator().manual_seed(seed)
    previous = torch.randn(2, channels, *size, generator=generator)
    flow = 3 * torch.randn(2, 2, *size, generator=generator)
    return warp(previous, flow), previous, flow


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_refiner_changes_no_bit(kind):
    warped, previous, flow = _latents()
    assert torch.equal(Refiner(5, kind=kind)(warped, previous, flow), warped)


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_has_a_gradient_and_none_is_zero_after_a_step(kind):
    torch.manual_seed(0)
    warped, previous, flow = _latents()
    refiner = Refiner(5, kind=kind)
    optimizer = torch.optim.SGD(refiner.parameters(), lr=0.1)
    for first in (True, False):
        optimizer.zero_grad()
        (refiner(warped, previous, flow) - previous).square().mean().backward()
        gradients = {name: parameter.grad for name, parameter in refiner.named_parameters()}
        assert not [name for name, gradient in gradients.items() if gradient is None]
        if first:
            optimizer.step()
    assert not [name for name, gradient in gradients.items() if not gradient.abs().max() > 0]


def _loud(refiner):
    """Give the zero layers weights."""
    with torch.no_grad():
        for parameter in refiner.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return refiner


def test_a_plain_refiner_looks_at_the_moved_latent_alone():
    warped, previous, flow = _latents()
    refiner = _loud(Refiner(5, kind="plain"))
    nowhere = torch.full_like(flow, torch.nan)
    assert torch.equal(refiner(warped, previous, flow), refiner(warped, nowhere[:, :1].expand_as(previous), nowhere))


def test_a_gradient_reaches_the_flow_through_a_flow_refiner():
    warped, previous, flow = _latents()
    flow.requires_grad_()
    _loud(Refiner(5, kind="flow"))(warped, previous, flow).sum().backward()
    assert torch.isfinite(flow.grad).all()
    assert flow.grad.abs().max() > 0


def test_a_flow_that_is_not_finite_counts_as_zero():
    warped, previous, flow = _latents()
    refiner = _loud(Refiner(5, kind="flow"))
    unknown = flow.clone()
    unknown[:, :, 2, 3] = torch.nan
    unknown[:, 0, 4, 1] = torch.inf
    answer = refiner(warped, previous, unknown)
    assert torch.equal(answer, refiner(warped, previous, unknown.nan_to_num(0.0, 0.0, 0.0)))
    assert torch.isfinite(answer).all()


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_a_refiner_of_patches_decodes_moves_the_picture_and_encodes(interpolation):
    frame = torch.rand(1, 3, 24, 32, generator=torch.Generator().manual_seed(2))
    components = torch.linalg.qr(torch.randn(48, 48, generator=torch.Generator().manual_seed(3)))[0]
    mean = torch.rand(48, generator=torch.Generator().manual_seed(4))

    def encode(picture):
        return torch.einsum("bpyx,cp->bcyx", F.pixel_unshuffle(picture, 4) - mean.view(1, 48, 1, 1), components)

    latents = encode(frame)
    offset = torch.tensor([1.5, -2.75]).view(1, 2, 1, 1)  # pixels: 0.375 and -0.6875 of a patch
    flow = (offset / 4).expand(1, 2, 6, 8)
    truth = encode(warp(frame, offset.expand(1, 2, 24, 32), mode=interpolation))
    warped = warp(latents, flow)
    refiner = Refiner.of_patches(components, mean, size=4, interpolation=interpolation)
    assert torch.allclose(refiner(warped, latents, flow), truth, atol=1e-5)
    assert not torch.allclose(warped, truth, atol=0.1)


def _moving(encoder, seed, count=4):
    """Noise that was smoothed over a few pixels, moved as a whole by parts of a patch; as latents of patches."""
    generator = torch.Generator().manual_seed(seed)
    frames = F.avg_pool2d(torch.randn(count, 1, 44, 44, generator=generator), 3, stride=1, padding=1)
    offset = 8 * torch.rand(count, 2, 1, 1, generator=generator) - 4
    moved = warp(frames, offset.expand(count, 2, 44, 44), mode="bicubic")
    previous, current = (
        torch.einsum("bpyx,cp->bcyx", F.pixel_unshuffle(one[..., 6:-6, 6:-6], 4), encoder) for one in (frames, moved)
    )
    return previous, current, (offset / 4).expand(count, 2, 8, 8)


def test_only_a_flow_refiner_learns_to_move_latents_of_patches():
    torch.manual_seed(0)
    encoder = torch.linalg.qr(torch.randn(16, 16))[0][:12]
    inner = (..., slice(1, -1), slice(1, -1))
    gains = {}
    for kind in KINDS:
        refiner = Refiner(12, kind=kind)
        optimizer = torch.optim.AdamW(refiner.parameters(), lr=2e-2)
        for step in range(40):
            previous, current, flow = _moving(encoder, seed=step)
            loss = (refiner(warp(previous, flow), previous, flow) - current)[inner].square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        previous, current, flow = _moving(encoder, seed=1000, count=16)
        warped = warp(previous, flow)
        with torch.no_grad():
            refined = refiner(warped, previous, flow)
        before, after = ((one - current)[inner].square().mean() for one in (warped, refined))
        gains[kind] = float(10 * torch.log10(before / after))
    assert gains["flow"] > 6
    assert gains["flow"] > gains["plain"] + 4


def test_nonsense_is_refused():
    with pytest.raises((ConfigError, TypeError), match="kind"):
        Refiner(4, kind="spline")
    with pytest.raises(ConfigError, match="at least 1"):
        Refiner(0, kind="plain")
    with pytest.raises(ConfigError, match="at least 1"):
        Refiner(4, kind="flow", width=0)
    with pytest.raises(ConfigError, match="whole patches of 4 x 4 pixels, got 50"):
        Refiner.of_patches(torch.zeros(3, 50), torch.zeros(50), size=4)
