"""From frames to a loss and back: the seed's wrapper to the last parameter, against plain formulas."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gridloom.core.errors import DataError
from gridloom.systems.heatmap import AutoRegWrapper, HeatmapDecoder, HeatmapEncoder, ModelConfig
from gridloom.systems.heatmap.wrapper import PlaceholderCausal
from tests.systems.heatmap.small import SIZE, SMALL, TRANSFORMER, jitter, pixels, slots_of, small_model


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture
def drawing_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seventy million random numbers that nobody looks at would take a second."""
    for name in ("kaiming_uniform_", "uniform_", "normal_"):
        monkeypatch.setattr(nn.init, name, lambda tensor, *_, **__: tensor)


@pytest.mark.usefixtures("drawing_is_off")
def test_the_defaults_have_the_seeds_parameters_to_the_last_one() -> None:
    model = AutoRegWrapper()
    assert model.causal is not None and model.head is not None and model.decoder is not None
    assert count(model.encoder) == 8_947_937
    assert count(model.decoder) == 17_169_122
    assert count(model.causal) == 33_562_624
    assert count(model.head) == 16_781_312
    assert count(model) == 76_460_995
    parts = {name: count(part) for name, part in model.encoder.backbone.named_children()}
    assert parts == {"stem": 672, "stages": 166_848 + 665_472 + 2_658_048}
    assert count(model.encoder.projector) == 4_469_760
    assert not list(model.buffers())


@pytest.mark.usefixtures("drawing_is_off")
def test_the_parts_alone_are_those_of_the_wrapper() -> None:
    model, encoder, decoder = AutoRegWrapper(), HeatmapEncoder(), HeatmapDecoder()
    assert model.decoder is not None
    for alone, part in ((encoder, model.encoder), (decoder, model.decoder)):
        assert {name: value.shape for name, value in alone.state_dict().items()} == {
            name: value.shape for name, value in part.state_dict().items()
        }
    assert HeatmapEncoder(ModelConfig(**{**SMALL, "alpha": ModelConfig().alpha})).alpha.item() == pytest.approx(0.1)


def slow_norm(x: Tensor, layer: nn.GroupNorm) -> Tensor:
    """Group norm of one sample [channel, y, x], group by group."""
    size = len(x) // layer.num_groups
    parts = [(group - group.mean()) / (group.var(correction=0) + layer.eps).sqrt() for group in x.split(size)]
    return torch.cat(parts) * layer.weight[:, None, None] + layer.bias[:, None, None]


def slow_conv(x: Tensor, layer: nn.Conv2d) -> Tensor:
    """One sample [channel, y, x], place by place."""
    kernel, stride = layer.kernel_size[0], layer.stride[0]
    border = kernel // 2
    padded = F.pad(x, (border, border, border, border))
    rows, columns = range(0, x.shape[1], stride), range(0, x.shape[2], stride)
    found = [
        [(layer.weight * padded[:, row : row + kernel, column : column + kernel]).sum((1, 2, 3)) for column in columns]
        for row in rows
    ]
    return torch.stack([torch.stack(line, dim=-1) for line in found], dim=-2) + layer.bias[:, None, None]


def slow_layer_norm(x: Tensor, layer: nn.LayerNorm) -> Tensor:
    return (x - x.mean()) / (x.var(correction=0) + layer.eps).sqrt() * layer.weight + layer.bias


def gelu(x: Tensor) -> Tensor:
    return x / 2 * (1 + torch.erf(x / 2**0.5))


def slow_encode(encoder: HeatmapEncoder, x: Tensor, slot: int) -> Tensor:
    """The seed's text, for one frame."""
    deviation = ((x - x.mean()).square().sum() / (x.numel() - 1)).sqrt()
    x = (x - x.mean()) / (deviation + 1e-6)
    convolution, norm, _ = encoder.backbone.stem
    x = gelu(slow_norm(slow_conv(x, convolution), norm))
    for stage in encoder.backbone.stages:
        convolution, norm, _, *blocks = stage
        x = gelu(slow_norm(slow_conv(x, convolution), norm))
        for block in blocks:
            y = gelu(slow_norm(slow_conv(x, block.conv1), block.norm1))
            x = gelu(slow_norm(slow_conv(y, block.conv2), block.norm2) + x)
    first, _, _, second, last = encoder.projector
    hidden = gelu(first.weight @ x.mean((1, 2)) + first.bias)
    projected = slow_layer_norm(second.weight @ hidden + second.bias, last)
    return slow_layer_norm(encoder.alpha * projected + encoder.slot_embedding.weight[slot], encoder.norm)


def slow_decode(decoder: HeatmapDecoder, z: Tensor) -> Tensor:
    """The seed's text, for one latent."""
    x = (decoder.linear.weight @ z + decoder.linear.bias).view(-1, *decoder.config.coarse)
    for _, convolution, norm, _ in decoder.stages:
        x = x.repeat_interleave(2, 1).repeat_interleave(2, 2)
        x = gelu(slow_norm(slow_conv(x, convolution), norm))
    return 1 / (1 + torch.exp(-slow_conv(x, decoder.out)))


@torch.no_grad()
def test_a_prediction_is_the_seeds_formula_in_float64() -> None:
    model = small_model(widths=(8, 16, 8), num_blocks=2)
    exact = small_model(widths=(8, 16, 8), num_blocks=2).double()
    assert exact.decoder is not None and exact.head is not None and isinstance(exact.causal, PlaceholderCausal)
    x, slots = pixels(1, 2, 2, SIZE, SIZE), slots_of(1, 2, first=4)
    z, x_hat = model.encoder(x, slots)[0], model(x, slots).x_hat[0]
    for step in range(2):
        latent = slow_encode(exact.encoder, x[0, step].double(), int(slots[0, step]))
        torch.testing.assert_close(z[step].double(), latent, rtol=0, atol=2e-5)
        fc1, fc2, head = exact.causal.fc1, exact.causal.fc2, exact.head
        hidden = fc2.weight @ gelu(fc1.weight @ latent + fc1.bias) + fc2.bias
        frame = slow_decode(exact.decoder, head.weight @ hidden + head.bias)
        torch.testing.assert_close(x_hat[step].double(), frame, rtol=0, atol=2e-5)


def test_the_loss_compares_each_prediction_with_the_frame_after_it() -> None:
    model, x, slots = small_model(), pixels(2, 5, 2, SIZE, SIZE), slots_of(2, 5)
    with torch.no_grad():
        loss, x_hat = model(x, slots)
    assert loss.ndim == 0 and x_hat.shape == x.shape
    assert torch.equal(loss, F.smooth_l1_loss(x_hat[:, :-1], x[:, 1:]))
    half_squared = (x_hat[:, :4] - x[:, 1:]).double().square().mean() / 2
    assert float(loss) == pytest.approx(float(half_squared), rel=1e-5)
    for wrong in (F.smooth_l1_loss(x_hat[:, 1:], x[:, 1:]), F.smooth_l1_loss(x_hat[:, 1:], x[:, :-1])):
        assert abs(float(wrong) - float(loss)) > 1e-5


def test_the_last_prediction_has_no_part_in_the_loss() -> None:
    model, x, slots = small_model(), pixels(1, 3, 2, SIZE, SIZE), slots_of(1, 3)
    x_hat = model(x, slots).x_hat
    gradient = torch.autograd.grad(model(x, slots).loss, model.encoder.slot_embedding.weight)[0]
    assert gradient[:2].abs().amax(1).gt(0).all() and not gradient[2:].any()
    assert torch.equal(model(x, slots.flatten()).x_hat, x_hat)


def test_it_is_half_precision_in_and_float32_out() -> None:
    model, slots = small_model(), slots_of(2, 3)
    x = pixels(2, 3, 2, SIZE, SIZE).half()
    loss, x_hat = model(x, slots)
    assert loss.dtype == x_hat.dtype == torch.float32
    assert torch.equal(x_hat, model(x.float(), slots).x_hat)


@pytest.mark.parametrize("causal", ["placeholder", "transformer"])
def test_gradients_reach_every_parameter(causal: str) -> None:
    model = small_model(causal=TRANSFORMER).train()
    model = AutoRegWrapper(model.config, causal=causal).train()
    model(pixels(2, 6, 2, SIZE, SIZE), slots_of(2, 6)).loss.backward()
    model(pixels(2, 6, 2, SIZE, SIZE, seed=1), slots_of(2, 6, first=1)).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all() and parameter.grad.abs().max() > 0, name


def test_a_step_against_the_gradient_lowers_the_loss() -> None:
    model, x, slots = small_model(), pixels(2, 4, 2, SIZE, SIZE), slots_of(2, 4)
    before = model(x, slots).loss
    before.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 0.01 * parameter.grad / parameter.grad.norm().clamp(min=1e-12)
    assert model(x, slots).loss.item() < before.item()


@pytest.mark.parametrize("length", [0, 1])
def test_a_sequence_without_a_next_frame_is_refused(length: int) -> None:
    with pytest.raises(DataError, match=rf"^sequence length must be >= 2 .*, got {length}$"):
        small_model()(pixels(1, length, 2, SIZE, SIZE), slots_of(1, length))


def test_the_placeholder_looks_at_the_current_frame_alone() -> None:
    model, x, slots = small_model(), pixels(1, 5, 2, SIZE, SIZE), slots_of(1, 5)
    before = model(x, slots).x_hat
    changed = x.clone()
    changed[:, 2] = pixels(2, SIZE, SIZE, seed=9)
    after = model(changed, slots).x_hat
    same = [torch.equal(before[:, step], after[:, step]) for step in range(5)]
    assert same == [True, True, False, True, True]


def test_the_transformer_looks_back() -> None:
    model, x, slots = small_model(causal=TRANSFORMER), pixels(1, 5, 2, SIZE, SIZE), slots_of(1, 5)
    before = model(x, slots).x_hat
    changed = x.clone()
    changed[:, 2] = pixels(2, SIZE, SIZE, seed=9)
    after = model(changed, slots).x_hat
    assert [torch.equal(before[:, step], after[:, step]) for step in range(5)] == [True, True, False, False, False]


def test_normalizing_each_frame_loses_its_level() -> None:
    encoder = jitter(HeatmapEncoder(ModelConfig(**SMALL)))
    x, slots = pixels(2, 3, 2, SIZE, SIZE), slots_of(2, 3)
    torch.testing.assert_close(encoder(0.1 * x, slots), encoder(x, slots), rtol=0, atol=2e-4)
    torch.testing.assert_close(encoder(0.5 * x + 0.5, slots), encoder(x, slots), rtol=0, atol=2e-4)


def test_the_deviation_of_a_frame_is_the_unbiased_one(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, seen = HeatmapEncoder(ModelConfig(**SMALL)), []
    monkeypatch.setattr(encoder.backbone, "forward", lambda x: seen.append(x) or x.new_zeros(len(x), 16, 4, 4))
    x = pixels(3, 2, SIZE, SIZE)
    encoder(x, torch.zeros(3, dtype=torch.long))
    torch.testing.assert_close(seen[0].std(dim=(1, 2, 3), correction=1), torch.ones(3), rtol=0, atol=2e-5)
    expected = (x - x.mean((1, 2, 3), keepdim=True)) / (x.std((1, 2, 3), keepdim=True, correction=1) + 1e-6)
    torch.testing.assert_close(seen[0], expected, rtol=0, atol=1e-6)


def test_dropout_acts_while_training_alone() -> None:
    model, x, slots = small_model(), pixels(1, 3, 2, SIZE, SIZE), slots_of(1, 3)
    assert torch.equal(model(x, slots).x_hat, model(x, slots).x_hat)
    torch.manual_seed(0)
    drawn = [model.train()(x, slots).x_hat for _ in range(4)]
    assert any(not torch.equal(first, second) for first, second in pairwise(drawn))
