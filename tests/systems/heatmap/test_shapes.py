"""Shapes, types and range of encoder and decoder, and what they say about input that does not fit."""

import pytest
import torch

from gridloom.core.errors import DataError
from gridloom.systems.heatmap import HeatmapDecoder, HeatmapEncoder, ModelConfig
from gridloom.systems.heatmap.wrapper import AutoRegWrapper
from tests.systems.heatmap.small import NUM_SLOTS, SIZE, SMALL, jitter, pixels, slots_of


@pytest.fixture(scope="module")
def encoder() -> HeatmapEncoder:
    torch.manual_seed(0)
    return jitter(HeatmapEncoder(ModelConfig(**SMALL)))


@pytest.fixture(scope="module")
def decoder() -> HeatmapDecoder:
    torch.manual_seed(0)
    return jitter(HeatmapDecoder(ModelConfig(**SMALL)))


@pytest.fixture(scope="module")
def seed_encoder() -> HeatmapEncoder:
    """The encoder as it is without arguments."""
    torch.manual_seed(0)
    return HeatmapEncoder().eval()


@torch.no_grad()
def test_the_encoder_of_the_seed_takes_windows_and_single_frames(seed_encoder: HeatmapEncoder) -> None:
    x, slots = pixels(2, 3, 2, 32, 32), torch.tensor([[0, 1, 2], [120, 237, 238]])
    z = seed_encoder(x, slots)
    assert z.shape == (2, 3, 4096) and z.dtype == torch.float32 and z.isfinite().all()
    flat = seed_encoder(x.flatten(0, 1), slots.flatten())
    assert flat.shape == (6, 4096)
    assert torch.equal(flat, z.flatten(0, 1))


@torch.no_grad()
def test_the_decoder_of_the_seed_gives_pixels() -> None:
    torch.manual_seed(0)
    decoder = HeatmapDecoder().eval()
    z = torch.randn(2, 2, 4096)
    x = decoder(z)
    assert x.shape == (2, 2, 2, 32, 32) and x.dtype == torch.float32
    assert 0 <= x.min() < 0.5 < x.max() <= 1
    flat = decoder(z.flatten(0, 1))
    assert flat.shape == (4, 2, 32, 32)
    assert torch.equal(flat, x.flatten(0, 1))


@pytest.mark.parametrize(
    "sizes",
    [
        {"channels": 1, "height": 8, "width": 24},
        {"channels": 5, "height": 16, "width": 8},
        {"widths": (8, 16, 24, 8)},
        {"latent_dim": 7, "hidden": 5, "num_slots": 3},
    ],
)
@torch.no_grad()
def test_any_size_by_configuration(sizes: dict) -> None:
    config = ModelConfig(**{**SMALL, **sizes})
    x = pixels(2, 3, config.channels, config.height, config.width)
    z = HeatmapEncoder(config)(x, slots_of(2, 3, num_slots=3))
    assert z.shape == (2, 3, config.latent_dim)
    assert HeatmapDecoder(config)(z).shape == x.shape


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_the_decoder_stays_between_0_and_1_whatever_it_is_given(decoder: HeatmapDecoder, scale: float) -> None:
    x = decoder(scale * torch.randn(4, 16, generator=torch.Generator().manual_seed(0)))
    assert x.isfinite().all() and x.min() >= 0 and x.max() <= 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_floating_type_is_cast_to_float32(encoder: HeatmapEncoder, dtype: torch.dtype) -> None:
    x, slots = pixels(2, 3, 2, SIZE, SIZE).to(dtype), slots_of(2, 3)
    z = encoder(x, slots)
    assert z.dtype == torch.float32
    assert torch.equal(z, encoder(x.float(), slots))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64, torch.bool])
def test_integers_are_counts_and_refused(encoder: HeatmapEncoder, dtype: torch.dtype) -> None:
    counts = torch.ones(2, 3, 2, SIZE, SIZE, dtype=dtype)
    with pytest.raises(DataError, match=rf"float pixels in \[0, 1\], got {dtype}: integers are counts"):
        encoder(counts, slots_of(2, 3))


def test_the_seeds_message_for_a_wrong_shape(seed_encoder: HeatmapEncoder) -> None:
    for shape in [(2, 3, 1, 32, 32), (2, 3, 2, 32, 16), (2, 32, 32), (32, 32), (1, 2, 3, 2, 32, 32)]:
        told = str(shape).replace("(", r"\(").replace(")", r"\)")
        with pytest.raises(DataError, match=rf"^input must be \(B,T,2,32,32\) or \(N,2,32,32\), got {told}$"):
            seed_encoder(torch.zeros(shape), torch.zeros(shape[:1], dtype=torch.long))


def test_a_decoder_says_which_latents_it_takes(decoder: HeatmapDecoder) -> None:
    for shape in [(2, 3, 15), (16,), (1, 2, 3, 16)]:
        with pytest.raises(DataError, match=r"latents must be \(B,T,16\) or \(N,16\), got "):
            decoder(torch.zeros(shape))


def test_the_wrapper_takes_windows_alone() -> None:
    model = AutoRegWrapper(ModelConfig(**SMALL))
    for shape in [(3, 2, SIZE, SIZE), (1, 3, 3, SIZE, SIZE), (SIZE, SIZE)]:
        with pytest.raises(DataError, match=r"^input must be \(B,T,2,8,8\)"):
            model(torch.zeros(shape), torch.zeros(3, dtype=torch.long))
    with pytest.raises(DataError, match="integers are counts"):
        model(torch.zeros(1, 3, 2, SIZE, SIZE, dtype=torch.uint8), slots_of(1, 3))


@pytest.mark.parametrize("value", [0.0, 1.0, 0.3])
def test_a_frame_without_contrast_has_a_finite_latent(encoder: HeatmapEncoder, value: float) -> None:
    assert encoder(torch.full((1, 1, 2, SIZE, SIZE), value), slots_of(1, 1)).isfinite().all()


def test_frames_of_a_call_do_not_depend_on_each_other(encoder: HeatmapEncoder) -> None:
    x, slots = pixels(4, 3, 2, SIZE, SIZE), slots_of(4, 3)
    whole = encoder(x, slots)
    torch.testing.assert_close(encoder(x[2:3, 1:2], slots[2:3, 1:2]), whole[2:3, 1:2], rtol=0, atol=1e-6)
    assert whole.shape[-1] == 16 and encoder.slot_embedding.num_embeddings == NUM_SLOTS
