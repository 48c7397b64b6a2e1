"""The slot is part of the latent, and is checked."""

import pytest
import torch

from gridloom.core.errors import DataError
from gridloom.systems.heatmap import HeatmapEncoder, ModelConfig
from tests.systems.heatmap.small import NUM_SLOTS, SIZE, SMALL, jitter, pixels, slots_of


@pytest.fixture(scope="module")
def encoder() -> HeatmapEncoder:
    torch.manual_seed(0)
    return jitter(HeatmapEncoder(ModelConfig(**SMALL)))


def test_the_same_frame_in_another_slot_has_another_latent(encoder: HeatmapEncoder) -> None:
    x = pixels(1, 1, 2, SIZE, SIZE).expand(1, NUM_SLOTS, -1, -1, -1)
    z = encoder(x, slots_of(1, NUM_SLOTS))[0]
    assert torch.pdist(z).min() > 0.1
    assert torch.equal(encoder(x, torch.zeros(1, NUM_SLOTS, dtype=torch.long))[0, 3], z[0])


def test_slots_of_the_seed_differ_more_than_frames() -> None:
    torch.manual_seed(0)
    encoder = HeatmapEncoder(ModelConfig(**{**SMALL, "latent_dim": 256, "num_slots": 239, "alpha": 0.1})).eval()
    x = pixels(2, 2, 2, SIZE, SIZE)
    z = encoder(x, torch.tensor([[0, 238], [0, 238]]))
    cosine = torch.nn.functional.cosine_similarity
    assert cosine(z[0, 0], z[1, 0], dim=0) > 0.98  # another frame, the same slot: alpha is 0.1
    assert cosine(z[0, 0], z[0, 1], dim=0).abs() < 0.3


def test_gradients_reach_the_slots_that_came_and_no_others(encoder: HeatmapEncoder) -> None:
    encoder.zero_grad()
    encoder(pixels(1, 2, 2, SIZE, SIZE), torch.tensor([[1, 4]])).square().mul(torch.arange(16.0)).sum().backward()
    moved = encoder.slot_embedding.weight.grad.abs().amax(1) > 0
    assert moved.tolist() == [slot in (1, 4) for slot in range(NUM_SLOTS)]


def test_slots_may_be_flat(encoder: HeatmapEncoder) -> None:
    x, slots = pixels(2, 3, 2, SIZE, SIZE), slots_of(2, 3)
    assert torch.equal(encoder(x, slots.flatten()), encoder(x, slots))
    assert torch.equal(encoder(x.flatten(0, 1), slots.flatten()), encoder(x, slots).flatten(0, 1))


@pytest.mark.parametrize("slot", [-1, NUM_SLOTS, 10_000])
def test_a_slot_out_of_range_is_refused(encoder: HeatmapEncoder, slot: int) -> None:
    slots = torch.tensor([[0, slot, 1]])
    low, high = min(0, slot), max(1, slot)
    with pytest.raises(DataError, match=rf"^slot_id out of range: expected 0 to {NUM_SLOTS - 1}, got {low} to {high}$"):
        encoder(pixels(1, 3, 2, SIZE, SIZE), slots)


def test_the_last_slot_of_the_seed_is_238() -> None:
    config = ModelConfig(**{**SMALL, "num_slots": ModelConfig().num_slots})
    encoder, x = HeatmapEncoder(config), pixels(1, 1, 2, SIZE, SIZE)
    assert encoder(x, torch.tensor([[238]])).isfinite().all()
    with pytest.raises(DataError, match="slot_id out of range: expected 0 to 238, got 239 to 239"):
        encoder(x, torch.tensor([[239]]))


@pytest.mark.parametrize("dtype", [torch.int32, torch.float32, torch.uint8])
def test_slots_of_another_type_are_refused(encoder: HeatmapEncoder, dtype: torch.dtype) -> None:
    with pytest.raises(DataError, match=rf"^slot_id must be torch.long, got {dtype}"):
        encoder(pixels(1, 3, 2, SIZE, SIZE), slots_of(1, 3).to(dtype))


@pytest.mark.parametrize("shape", [(2,), (3, 2), (2, 3, 1), (7,), ()])
def test_another_number_of_slots_than_of_frames_is_refused(encoder: HeatmapEncoder, shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"slot_id must be \(2, 3\) or \(6,\), one for each frame, got "):
        encoder(pixels(2, 3, 2, SIZE, SIZE), torch.zeros(shape, dtype=torch.long))


def test_missing_slots_are_refused(encoder: HeatmapEncoder) -> None:
    with pytest.raises(DataError, match="slot_id is missing"):
        encoder(pixels(2, 3, 2, SIZE, SIZE))
