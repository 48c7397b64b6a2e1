"""Fast forms against the modules they stand for."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gridloom.core.errors import DataError
from gridloom.nn.causal import CausalTransformer
from gridloom.systems.heatmap.config import CausalConfig, ModelConfig
from gridloom.systems.heatmap.decoder import HeatmapDecoder
from gridloom.systems.heatmap.encoder import Backbone, HeatmapEncoder
from gridloom.systems.heatmap.fast import FastBackbone, FastDecoder, FastLinear, fast_decoder, fast_model
from gridloom.systems.heatmap.rollout import begin, roll_out
from gridloom.systems.heatmap.wrapper import AutoRegWrapper

SMALL = ModelConfig(latent_dim=32, widths=(8, 16, 24), height=8, width=16, num_slots=5, hidden=16)
HALF = torch.bfloat16


def jitter(module: nn.Module, size: float = 0.1) -> nn.Module:
    """Move every parameter off its start: norms and biases count too."""
    generator = torch.Generator().manual_seed(7)
    for parameter in module.parameters():
        parameter.data += size * torch.randn(parameter.shape, generator=generator)
    return module.eval()


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def seed_decoder() -> HeatmapDecoder:
    torch.manual_seed(0)
    decoder = HeatmapDecoder().eval()
    for stage in decoder.stages:
        nn.init.uniform_(stage[2].weight, 0.5, 1.5)
        nn.init.normal_(stage[2].bias, std=0.5)
    # Pixels from 0 to 1, as a trained decoder has them; those of a new one all lie around a half.
    decoder.out.weight.data *= 5
    return decoder


@pytest.mark.parametrize("frames", [1, 2, 5, 33])
def test_the_seeds_decoder_is_met_to_1e_4_in_float32(seed_decoder: HeatmapDecoder, frames: int) -> None:
    z = normal(frames, 4096)
    expected = seed_decoder(z)
    assert expected.max() - expected.min() > 0.9
    torch.testing.assert_close(fast_decoder(seed_decoder)(z), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("frames", [1, 5])
def test_a_new_decoder_of_the_seed_is_met_to_1e_2_in_bfloat16(frames: int) -> None:
    torch.manual_seed(1)
    decoder, z = HeatmapDecoder().eval(), normal(frames, 4096)
    found = fast_decoder(decoder, dtype=HALF)(z)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, decoder(z), rtol=0, atol=1e-2)


def test_bfloat16_is_no_further_off_than_the_plain_decoder_in_bfloat16(seed_decoder: HeatmapDecoder) -> None:
    z = normal(5, 4096)
    expected = seed_decoder(z)
    plain = copy.deepcopy(seed_decoder).to(HALF)(z.to(HALF)).float()
    found = fast_decoder(seed_decoder, dtype=HALF)(z)
    assert (found - expected).square().mean() <= 1.2 * (plain - expected).square().mean()


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        ModelConfig(latent_dim=24, widths=(8, 40), height=2, width=6, channels=1),
        ModelConfig(latent_dim=16, widths=(16, 8, 32, 8, 64), height=16, width=48, channels=5),
        ModelConfig(latent_dim=16, widths=(64, 128), height=32, width=8),
    ],
)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (HALF, 1e-2)])
def test_other_sizes_and_widths(config: ModelConfig, dtype: torch.dtype, tolerance: float) -> None:
    decoder = jitter(HeatmapDecoder(config))
    fast = fast_decoder(decoder, dtype=dtype)
    z = normal(2, 3, config.latent_dim)
    found = fast(z)
    assert found.shape == (2, 3, config.channels, config.height, config.width)
    torch.testing.assert_close(found, decoder(z), rtol=0, atol=tolerance)
    torch.testing.assert_close(fast(z[0]), found[0], rtol=0, atol=tolerance)
    torch.testing.assert_close(torch.sigmoid(fast.logits(z)), found)
    assert fast(z[:0]).shape == (0, *found.shape[1:])


def test_a_fast_decoder_has_no_gradients_and_its_own_weights() -> None:
    decoder = HeatmapDecoder(SMALL).eval()
    fast = fast_decoder(decoder)
    z = normal(2, 32).requires_grad_()
    before = fast(z)
    assert not before.requires_grad
    assert not list(fast.parameters())
    assert not fast.training
    for parameter in decoder.parameters():
        parameter.data.zero_()
    torch.testing.assert_close(fast(z), before, rtol=0, atol=0)
    restored = FastDecoder(decoder)
    restored.load_state_dict(fast.state_dict())
    torch.testing.assert_close(restored(z), before, rtol=0, atol=0)


def test_a_fast_decoder_refuses_what_the_decoder_refuses() -> None:
    decoder = HeatmapDecoder(SMALL)
    for shape in ((32,), (2, 33), (1, 2, 3, 32)):
        with pytest.raises(DataError, match=r"latents must be \(B,T,32\)") as expected:
            decoder(torch.zeros(shape))
        with pytest.raises(DataError) as found:
            fast_decoder(decoder)(torch.zeros(shape))
        assert str(found.value) == str(expected.value)


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 4, 32, 33, 128, 129])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (HALF, 2e-2)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_fast_linear_layer_of_any_number_of_rows(rows: int, dtype: torch.dtype, tolerance: float, bias: bool) -> None:
    layer = nn.Linear(24, 40, bias=bias)
    x = normal(rows, 24)
    found = FastLinear(layer, dtype)(x)
    assert found.dtype == torch.float32
    assert found.is_contiguous()
    torch.testing.assert_close(found, layer(x).detach(), rtol=0, atol=tolerance)


def test_a_fast_linear_layer_keeps_leading_dimensions_and_orders_its_outputs() -> None:
    layer, order = nn.Linear(6, 4), torch.tensor([2, 0, 3, 1])
    x = normal(2, 3, 6)
    torch.testing.assert_close(FastLinear(layer, rows=order)(x), layer(x).detach()[..., order])


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (HALF, 0.1)])
def test_the_convolutions_of_an_encoder_channels_last(dtype: torch.dtype, tolerance: float) -> None:
    backbone = jitter(Backbone(ModelConfig(widths=(8, 64, 16), num_blocks=1)))
    x = normal(3, 2, 32, 32)
    expected = backbone(x).detach()
    found = FastBackbone(backbone, dtype)(x)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)
    assert F.cosine_similarity(found.flatten(1), expected.flatten(1)).min() > 0.9999


@pytest.mark.parametrize("pool", ["gap", "flatten", "softargmax"])
@pytest.mark.parametrize("normalize", ["frame", "none", "dataset", "frame+stats"])
def test_a_fast_encoder_is_called_as_the_encoder(pool: str, normalize: str) -> None:
    config = ModelConfig(**{**vars(SMALL), "pool": pool, "normalize": normalize})
    encoder = jitter(HeatmapEncoder(config))
    x, slots = normal(2, 3, 2, 8, 16).sigmoid(), torch.arange(6).view(2, 3) % 5
    expected = encoder(x, slots).detach()
    torch.testing.assert_close(fast_model(encoder)(x, slots), expected, rtol=0, atol=1e-5)
    half = fast_model(encoder, precision="bf16")(x, slots)
    assert half.dtype == torch.float32
    assert F.cosine_similarity(half.flatten(0, 1), expected.flatten(0, 1)).min() > 0.999


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("bf16", 3e-2)])
def test_a_fast_causal_transformer_steps_on_from_its_cache(precision: str, tolerance: float) -> None:
    causal = jitter(CausalTransformer(24, dim=16, depth=2, num_heads=2, window=4), 0.05)
    fast = fast_model(causal, precision=precision)
    z = normal(3, 7, 24)
    cache = fast.new_cache(3)
    found = [fast(z[:, :3], cache)] + [fast.step(z[:, step], cache)[:, None] for step in range(3, 7)]
    torch.testing.assert_close(torch.cat(found, 1), causal(z).detach(), rtol=0, atol=tolerance)


def build_wrapper(kind: str, *, next_slot: bool = False, dim: int = 16) -> AutoRegWrapper:
    torch.manual_seed(0)
    causal = CausalConfig(kind=kind, dim=dim, depth=2, num_heads=2, window=8)
    model = AutoRegWrapper(ModelConfig(**{**vars(SMALL), "causal": causal, "next_slot": next_slot})).eval()
    return jitter(model, 0.05)


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("bf16", 1e-2)])
@pytest.mark.parametrize("feedback", ["frames", "latents"])
@pytest.mark.parametrize(
    ("kind", "next_slot", "dim"),
    [("placeholder", True, 16), ("transformer", False, 16), ("transformer", True, 16), ("transformer", True, 32)],
)
def test_a_fast_model_rolls_out_as_the_model_does(
    precision: str, tolerance: float, feedback: str, kind: str, next_slot: bool, dim: int
) -> None:
    model = build_wrapper(kind, next_slot=next_slot, dim=dim)
    frames, slots = normal(2, 6, 2, 8, 16).sigmoid(), torch.arange(6).repeat(2, 1) % 5
    future = torch.arange(6, 10).repeat(2, 1) % 5
    answers = [
        roll_out(one, begin(one, frames, slots), future, torch.zeros_like(future), feedback=feedback)
        for one in (model, fast_model(model, precision=precision))
    ]
    torch.testing.assert_close(answers[1], answers[0], rtol=0, atol=tolerance)


@pytest.mark.parametrize("next_slot", [False, True])
def test_a_fast_wrapper_predicts_as_the_wrapper_does(next_slot: bool) -> None:
    model = build_wrapper("transformer", next_slot=next_slot)
    frames, slots = normal(2, 6, 2, 8, 16).sigmoid(), torch.arange(6).repeat(2, 1) % 5
    expected, found = model(frames, slots), fast_model(model)(frames, slots)
    torch.testing.assert_close(found.x_hat, expected.x_hat.detach(), rtol=0, atol=1e-5)
    torch.testing.assert_close(found.loss, expected.loss.detach(), rtol=0, atol=1e-5)


def test_a_fast_part_of_a_larger_module_is_found() -> None:
    model = nn.ModuleDict({"model": build_wrapper("transformer"), "other": nn.Linear(3, 2)})
    fast = fast_model(model)
    assert isinstance(fast["model"].decoder, FastDecoder)
    assert isinstance(fast["model"].encoder.projector[0], FastLinear)
    assert isinstance(fast["other"], FastLinear)


def test_a_fast_wrapper_has_a_tenth_of_the_weights_behind_the_causal_part() -> None:
    causal = CausalConfig(kind="transformer", dim=64, depth=1, num_heads=2)
    model = AutoRegWrapper(ModelConfig(latent_dim=1024, widths=(8, 64), height=8, width=8, causal=causal))
    fast = fast_model(model)
    assert sum(part.numel() for part in fast.decoder.linear.buffers()) == 1024 * 65
    assert isinstance(fast.head, nn.Identity)


def test_nothing_is_folded_where_a_state_is_no_smaller_than_a_latent() -> None:
    assert isinstance(fast_model(build_wrapper("transformer", dim=16)).head, nn.Identity)
    assert isinstance(fast_model(build_wrapper("transformer", dim=32)).head, FastLinear)
    assert isinstance(fast_model(build_wrapper("placeholder")).head, FastLinear)


def test_making_a_fast_model_draws_no_random_numbers() -> None:
    model = build_wrapper("transformer", next_slot=True)
    before = torch.get_rng_state()
    fast_model(model, precision="bf16")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_fast_model_is_a_copy_and_leaves_the_original_alone() -> None:
    model = AutoRegWrapper(SMALL).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fast = fast_model(model, precision="bf16")
    assert isinstance(fast, AutoRegWrapper)
    assert not fast.training
    assert not any(parameter.requires_grad for parameter in fast.parameters())
    assert model.training
    assert type(model.decoder) is HeatmapDecoder
    own = {tensor.data_ptr() for tensor in [*fast.parameters(), *fast.buffers()]}
    assert not own & {tensor.data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_another_precision_is_refused() -> None:
    with pytest.raises(DataError, match=r"precision must be 'fp32' or 'bf16', got 'int8'"):
        fast_model(HeatmapDecoder(SMALL), precision="int8")
