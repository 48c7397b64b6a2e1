"""The networks, against literal references in float64."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from gridloom.core.batch import Batch, Field
from gridloom.core.errors import CheckpointError, ConfigError, DataError
from gridloom.systems.energy.autoregressive import AutoregressiveEBM
from gridloom.systems.energy.model import (
    CNN,
    EBMMLP,
    ConvMLP,
    EBMConvMLP,
    EnergyHead,
    KeypointEncoder,
    ResidualBlock,
    SignalEncoder,
    load_listed_weights,
)
from gridloom.systems.energy.search import EnergyModel

State = dict[str, Tensor]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def scattered(module: torch.nn.Module, seed: int = 0, gain: float = 1.0) -> torch.nn.Module:
    """Weights that are not small, so that every path counts."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            fan = parameter[0].numel() if parameter.ndim > 1 else 10
            parameter.copy_(gain * torch.randn(parameter.shape, generator=generator) / math.sqrt(fan))
    return module.eval()


def small_encoder(**changes: object) -> KeypointEncoder:
    return KeypointEncoder(**{"widths": (4, 8), "keypoints": 3, "size": (12, 12), **changes})  # type: ignore[arg-type]


def listed_state(seed: int = 3) -> State:
    """Random weights under the public version's names and in its sizes."""
    generator = torch.Generator().manual_seed(seed)
    shapes: dict[str, tuple[int, ...]] = {}
    for place, (before, after) in enumerate(pairwise((5, 16, 32, 32))):
        shapes[f"cnn.net.{2 * place}"] = (after, before, 3, 3)
        shapes[f"cnn.net.{2 * place + 1}.conv1"] = (after, after, 3, 3)
        shapes[f"cnn.net.{2 * place + 1}.conv2"] = (after, after, 3, 3)
    shapes |= {"conv": (16, 32, 1, 1), "mlp.net.0": (256, 34), "mlp.net.2": (1, 256)}
    state = {}
    for name, shape in shapes.items():
        fan = math.prod(shape[1:])
        state[f"{name}.weight"] = torch.randn(shape, generator=generator) * math.sqrt(1.5 / fan)
        state[f"{name}.bias"] = 0.1 * torch.randn(shape[:1], generator=generator)
    return state


def literal_energies(state: State, x: Tensor, y: Tensor, *, listed: bool = True) -> Tensor:
    """The listing, line by line in float64: the image goes through the network once per candidate.

    Args:
        state: Weights under the public version's names.
        x: Images [B, 3, H, W].
        y: Candidates [B, N, 2].
        listed: The residual block as listed, not as in the formula.
    """
    weights = {name: value.double() for name, value in state.items()}
    count, (height, width) = y.shape[1], x.shape[2:]

    def convolve(name: str, values: Tensor) -> Tensor:
        return F.conv2d(values, weights[f"{name}.weight"], weights[f"{name}.bias"], padding="same")

    out = x.double().repeat_interleave(count, dim=0)
    rows = (2.0 * torch.arange(height, dtype=torch.float64) / (height - 1.0) - 1.0).view(-1, 1).repeat(1, width)
    columns = (2.0 * torch.arange(width, dtype=torch.float64) / (width - 1.0) - 1.0).view(1, -1).repeat(height, 1)
    out = torch.cat((torch.stack((rows, columns)).repeat(len(out), 1, 1, 1), out), dim=1)
    for place in (0, 2, 4):
        x0 = convolve(f"cnn.net.{place}", out)
        inner = torch.relu(x0)
        if not listed:
            inner = torch.relu(convolve(f"cnn.net.{place + 1}.conv1", inner))
        out = convolve(f"cnn.net.{place + 1}.conv2", inner) + x0
    out = torch.relu(convolve("conv", torch.relu(out)))
    softmax = torch.softmax(out.reshape(-1, height * width), dim=-1)
    row_mean = (softmax * rows.flatten()).sum(dim=1, keepdim=True)
    column_mean = (softmax * columns.flatten()).sum(dim=1, keepdim=True)
    features = torch.cat([row_mean, column_mean], dim=1).view(-1, 32)
    fused = torch.cat([features, y.double().reshape(-1, 2)], dim=-1)
    hidden = torch.relu(fused @ weights["mlp.net.0.weight"].T + weights["mlp.net.0.bias"])
    return (hidden @ weights["mlp.net.2.weight"].T + weights["mlp.net.2.bias"]).view(len(x), count)


# --- convolutions ---


@pytest.mark.parametrize("compat", [None, "seed"])
def test_the_residual_block_is_its_formula(compat: str | None) -> None:
    block = scattered(ResidualBlock(3, compat=compat)).double()  # type: ignore[arg-type]
    x = draw(2, 3, 5, 6).double()
    one, two = block.conv1, block.conv2
    inner = torch.relu(x)
    if compat is None:
        inner = torch.relu(F.conv2d(inner, one.weight, one.bias, padding=1))
    expected = x + F.conv2d(inner, two.weight, two.bias, padding=1)
    assert torch.allclose(block(x), expected, atol=1e-12)


def test_the_listed_block_never_computes_its_first_convolution_and_never_trains_it() -> None:
    called = []
    block = ResidualBlock(3, compat="seed")
    block.conv1.register_forward_hook(lambda *arguments: called.append(arguments))
    block(draw(2, 3, 5, 6)).sum().backward()
    assert not called and block.conv1.weight.grad is None and not block.conv1.weight.requires_grad
    assert block.conv2.weight.grad is not None
    usual = ResidualBlock(3)
    usual(draw(2, 3, 5, 6)).square().sum().backward()
    assert float(usual.conv1.weight.grad.abs().sum()) > 0


def test_the_cnn_keeps_the_size_and_stacks_a_block_per_width() -> None:
    cnn = CNN(5)
    assert cnn(draw(2, 5, 12, 9)).shape == (2, 32, 12, 9)
    assert [type(layer).__name__ for layer in cnn.net] == ["Conv2d", "ResidualBlock"] * 3
    assert (cnn(draw(2, 5, 12, 9)) >= 0).all()


# --- the whole model ---


def test_the_default_model_has_66001_parameters() -> None:
    model = EBMConvMLP()
    assert sum(parameter.numel() for parameter in model.parameters()) == 66_001
    assert model.encode(draw(2, 3, 96, 96)).shape == (2, 32)
    assert isinstance(model, EnergyModel)


@pytest.mark.parametrize("compat", ["seed", None])
def test_listed_weights_give_the_listing_s_energies(compat: str | None) -> None:
    state = listed_state()
    model = EBMConvMLP(KeypointEncoder(compat=compat)).eval()  # type: ignore[arg-type]
    load_listed_weights(model, state)
    x, y = draw(2, 3, 20, 20), 2 * torch.rand(2, 7, 2, generator=torch.Generator().manual_seed(1)) - 1
    expected = literal_energies(state, x, y, listed=compat == "seed")
    spread = expected.std(1)
    assert (spread > 0.05).all(), "a reference that hardly depends on the candidate would compare nothing"
    assert torch.allclose(model(x, y).double(), expected, atol=1e-6 * max(1.0, float(expected.abs().max())))
    assert torch.allclose(model.double()(x.double(), y.double()), expected, atol=1e-12)
    with torch.no_grad():
        assert torch.allclose(model(x.double(), y.double()), expected, atol=1e-12)
    for name, value in state.items():
        ours = f"encoder.{name}" if name.startswith(("cnn.", "conv.")) else name
        assert torch.equal(model.state_dict()[ours].float(), value)


def test_listed_weights_that_do_not_fit_are_named_and_nothing_is_loaded() -> None:
    state = listed_state()
    del state["cnn.net.0.bias"], state["mlp.net.2.bias"]
    state["mlp.net.4.weight"] = torch.zeros(1)
    state["conv.weight"] = torch.zeros(8, 32, 1, 1)
    model = EBMConvMLP()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError) as error:
        load_listed_weights(model, state)
    message = str(error.value)
    assert "missing ['encoder.cnn.net.0.bias', 'mlp.net.2.bias']" in message
    assert "unexpected ['mlp.net.4.weight']" in message and "other shapes ['encoder.conv.weight']" in message
    assert "\n" not in message
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_listed_weights_of_another_kind_do_not_fit() -> None:
    with pytest.raises(CheckpointError, match=r"other shapes \['encoder\.cnn\.net\.0\.weight'\]"):
        load_listed_weights(EBMConvMLP(KeypointEncoder(coord_conv=False)), listed_state())


@pytest.mark.parametrize(("fusion", "outputs"), [("concat", 2), ("relative", 2), ("concat", 5), ("relative", 3)])
def test_the_head_is_one_network_over_features_and_candidate(fusion: str, outputs: int) -> None:
    head = scattered(EnergyHead(6, outputs, hidden=11, fusion=fusion)).double()  # type: ignore[arg-type]
    features, y = draw(3, 6).double(), draw(3, 1300, outputs, seed=1).double()
    repeated = features[:, None].expand(-1, 1300, -1)
    if fusion == "concat":
        inputs = torch.cat([repeated, y], dim=-1)
    else:
        inputs = (repeated.unflatten(-1, (-1, outputs)) - y[:, :, None]).flatten(2)
    whole = head.net(inputs).squeeze(-1)
    assert torch.allclose(head(features, y), whole, atol=1e-12)
    with torch.no_grad():
        assert torch.allclose(head(features, y), whole, atol=1e-12), "in chunks"


def test_the_head_without_gradients_agrees_in_float32_and_with_no_chunk_whole() -> None:
    head = scattered(EnergyHead(32, 2))
    features, y = draw(2, 32), draw(2, 1025, 2, seed=1)
    with torch.no_grad():
        chunked = head(features, y)
    assert torch.allclose(chunked, head(features, y).detach(), atol=1e-5) and chunked.shape == (2, 1025)


def test_relative_fusion_needs_keypoints_of_as_many_coordinates() -> None:
    with pytest.raises(ConfigError, match="relative fusion compares keypoints with candidates of 4 coordinates, got 6"):
        EnergyHead(6, 4, fusion="relative")


def test_relative_energies_move_with_the_keypoints_and_concatenated_ones_do_not() -> None:
    features, y, shift = draw(2, 6).double(), draw(2, 9, 2, seed=1).double(), torch.tensor([0.3, -0.7]).double()
    changes = {}
    for fusion in ("relative", "concat"):
        head = scattered(EnergyHead(6, 2, fusion=fusion)).double()  # type: ignore[arg-type]
        moved = head(features + shift.repeat(3), y + shift)
        changes[fusion] = (moved - head(features, y)).abs().max().item()
    assert changes["relative"] < 1e-12 < 0.1 < changes["concat"]


def test_without_coord_conv_keypoints_move_with_what_is_seen() -> None:
    encoder = scattered(small_encoder(coord_conv=False, size=(40, 40)), gain=2.0).double()
    with torch.no_grad():
        encoder.conv.weight.mul_(60)  # sharp maps: what is far from the square has no weight
        encoder.conv.bias.fill_(0)
        for layer in encoder.cnn.modules():
            if isinstance(layer, torch.nn.Conv2d):
                layer.bias.zero_()
    x, moved = torch.zeros(2, 1, 3, 40, 40).double()
    x[..., 10:15, 12:17] = moved[..., 16:21, 15:20] = draw(3, 5, 5).double()
    shift = torch.tensor([2 * 6 / 39, 2 * 3 / 39]).double().repeat(3)
    live = encoder.maps(x).amax((2, 3)).repeat_interleave(2, 1) > 40  # a dead map stays in the middle
    assert live.any()
    assert torch.allclose((encoder.encode(moved) - encoder.encode(x))[live], shift.expand(1, -1)[live], atol=1e-6)


def test_under_autocast_only_the_3x3_convolutions_run_in_bfloat16() -> None:
    encoder = small_encoder(coord_conv=True)
    model = EBMConvMLP(encoder, hidden=16).eval()
    seen: dict[str, torch.dtype] = {}
    for name, module in model.named_modules():
        module.register_forward_hook(lambda _, __, out, name=name: seen.__setitem__(name, out.dtype))
    x, y = draw(2, 3, 12, 12), draw(2, 4, 2, seed=1)
    with torch.autocast("cpu", torch.bfloat16):
        features = model.encode(x)
        energies = model.energy(features, y)
        explicit = ConvMLP(encoder, hidden=16).regress(features)
    assert seen["encoder.cnn.net.0"] == seen["encoder.cnn.net.1.conv2"] == torch.bfloat16
    assert seen["encoder.conv"] == seen["encoder.spatial"] == seen["mlp"] == torch.float32
    assert features.dtype == energies.dtype == explicit.dtype == torch.float32
    assert torch.equal(energies, model.energy(features, y))
    assert not torch.equal(features, model.encode(x)) and torch.allclose(features, model.encode(x), atol=0.05)


def test_signals_stay_in_float32_under_autocast() -> None:
    model = EBMMLP(SignalEncoder(10, hidden=8))
    x, y = draw(2, 10), draw(2, 4, 1, seed=1)
    with torch.autocast("cpu", torch.bfloat16):
        features, energies = model.encode(x), model(x, y)
    assert features.dtype == energies.dtype == torch.float32
    assert torch.equal(features, model.encode(x)) and torch.equal(energies, model(x, y))


# --- missing cells ---


def test_an_encoder_told_of_missing_cells_standardizes_by_the_known_ones() -> None:
    encoder = scattered(small_encoder(channels=2, missing=True, coord_conv=False)).double()
    x, valid = draw(2, 2, 12, 12).double(), draw(2, 2, 12, 12, seed=1) > 0
    plane = valid.double().mean(1, keepdim=True)
    expected = torch.zeros_like(x)
    for b in range(2):
        for c in range(2):
            known = x[b, c][valid[b, c]]
            expected[b, c][valid[b, c]] = (known - known.mean()) / known.std(correction=0)
    maps = torch.relu(encoder.conv(encoder.cnn(torch.cat([expected, plane], 1))))
    assert torch.allclose(encoder.maps(x, valid), maps, atol=1e-12)
    assert torch.allclose(encoder.embed(Field.of(7 * x + 3, valid)), encoder.embed(Field.of(x, valid)), atol=1e-9)
    holes = torch.where(valid, x, torch.nan)
    assert torch.equal(encoder.encode(holes), encoder.embed(Field.of(x, valid)))


def test_hidden_values_do_not_reach_the_features() -> None:
    encoder = scattered(small_encoder(missing=True))
    x, valid = draw(2, 3, 12, 12), draw(2, 3, 12, 12, seed=1) > 0
    dirty = torch.where(valid, x, 77.0)
    assert torch.equal(encoder.maps(dirty, valid), encoder.maps(torch.where(valid, x, 0.0), valid))


def test_an_encoder_is_called_with_batches_and_refuses_other_images() -> None:
    encoder = small_encoder(variables=("a", "b", "c"))
    key = torch.arange(2)
    batch = Batch(fields={"image": Field.of(draw(2, 3, 12, 12))}, features={}, window=key, key=key)
    assert torch.equal(encoder(batch)["embedding"], encoder.encode(draw(2, 3, 12, 12)))
    assert encoder.encode(draw(1, 3, 30, 17)).shape == (1, 6) and encoder.num_features == 6
    assert encoder.inputs.fields["image"].variables == ("a", "b", "c") and encoder.inputs.missing == "raise"
    with pytest.raises(DataError, match=r"expected images \[B, 3, H, W\], got \[2, 4, 12, 12\]"):
        encoder.encode(draw(2, 4, 12, 12))
    with pytest.raises(DataError, match=r"expected signals of 10 numbers, got \[2, 9\]"):
        SignalEncoder(10, hidden=4).encode(draw(2, 9))


# --- the others ---


@pytest.mark.parametrize(("depth", "outputs"), [(1, 1), (2, 1), (3, 2)])
def test_the_model_for_signals_is_one_network_over_signal_and_candidate(depth: int, outputs: int) -> None:
    model = scattered(EBMMLP(SignalEncoder(10, hidden=8), outputs=outputs, depth=depth)).double()
    x, y = draw(3, 10).double(), draw(3, 700, outputs, seed=1).double()
    weight = torch.cat([model.encoder.layer.weight, model.candidate.weight], dim=1)
    inputs = torch.cat([x[:, None].expand(-1, 700, -1), y], dim=-1)
    hidden = torch.relu(inputs @ weight.T + model.encoder.layer.bias)
    linear = [layer for layer in model.rest if isinstance(layer, torch.nn.Linear)]
    assert len(linear) == depth
    for layer in linear[:-1]:
        hidden = torch.relu(layer(hidden))
    expected = linear[-1](hidden).squeeze(-1)
    assert torch.allclose(model(x, y), expected, atol=1e-12)
    with torch.no_grad():
        assert torch.allclose(model(x, y), expected, atol=1e-12), "in chunks"


def test_the_explicit_baseline_is_a_network_over_the_same_features() -> None:
    encoder = small_encoder()
    model = scattered(ConvMLP(encoder, outputs=2, hidden=8))
    x = draw(2, 3, 12, 12)
    expected = model.mlp[2](torch.relu(model.mlp[0](encoder.encode(x))))
    assert torch.equal(model(x), expected) and expected.shape == (2, 2)
    signals = scattered(ConvMLP(SignalEncoder(10, hidden=8), outputs=1, hidden=8))
    features = torch.relu(signals.encoder.layer(draw(2, 10)))
    assert torch.allclose(signals(draw(2, 10)), signals.mlp[3](torch.relu(signals.mlp[1](features))))


def test_autoregressive_energies_see_only_the_coordinates_before() -> None:
    model = scattered(AutoregressiveEBM(SignalEncoder(10, hidden=8), outputs=3, hidden=8)).double()
    x, y = draw(2, 10).double(), draw(2, 5, 3, seed=1).double()
    features, total = model.encode(x), torch.zeros(2, 5).double()
    for place in range(3):
        inputs = torch.cat([features[:, None].expand(-1, 5, -1), y[..., : place + 1]], dim=-1)
        partial = model.heads[place].net(inputs).squeeze(-1)
        assert torch.allclose(model.partial(features, y[..., : place + 1]), partial, atol=1e-12)
        total += partial.detach()
    assert torch.allclose(model(x, y), total, atol=1e-12)
