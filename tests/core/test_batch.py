"""Fields with their masks, and one loss per sample."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gridloom.core.batch import Batch, Field, masked_mean

NAN, INF = math.nan, math.inf


def some_batch() -> Batch:
    values = torch.arange(24, dtype=torch.float32).reshape(4, 2, 3)
    return Batch(
        fields={"image": Field.of(values, values[:, :1, :1] < 18), "level": Field.of(torch.arange(4))},
        features={"slot": torch.arange(4) * 10, "flag": torch.tensor([[True], [False], [True], [False]])},
        window=torch.arange(4) + 100,
        key=torch.arange(4) - 2,
    )


def test_what_is_not_finite_is_zero_and_invalid() -> None:
    field = Field.of(torch.tensor([[1.0, NAN, INF], [-INF, 2.0, -0.5]]))
    assert field.values.tolist() == [[1, 0, 0], [0, 2, -0.5]]
    assert field.valid.tolist() == [[True, False, False], [False, True, True]]


def test_what_is_called_invalid_is_zero_too() -> None:
    field = Field.of(torch.tensor([[1.0, NAN], [3.0, 4.0]]), torch.tensor([[True, True], [False, True]]))
    assert field.values.tolist() == [[1, 0], [0, 4]]
    assert field.valid.tolist() == [[True, False], [False, True]]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool, torch.float64, torch.bfloat16])
def test_values_keep_their_type(dtype: torch.dtype) -> None:
    values = torch.tensor([[1, 0, 1]]).to(dtype)
    field = Field.of(values, torch.tensor([[False, True, True]]))
    assert field.values.dtype == dtype and field.valid.dtype == torch.bool
    assert field.values.tolist() == [[0, 0, 1]]
    assert Field.of(values).valid.all() and torch.equal(Field.of(values).values, values)


@pytest.mark.parametrize("shape", [(2, 1, 1), (1, 3, 4), (3, 4), (1, 1, 1), (4,), (2, 3, 4)])
def test_a_mask_may_broadcast_and_keeps_the_batch_first(shape: tuple[int, ...]) -> None:
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(0)) < 0.5
    for values in (torch.ones(2, 3, 4), torch.ones(2, 3, 4).index_fill(2, torch.tensor([1]), NAN)):
        field = Field.of(values, mask)
        expected = np.broadcast_to(mask.numpy(), (2, 3, 4)) & np.isfinite(values.numpy())
        assert len(field.valid) == 2
        assert np.array_equal(np.broadcast_to(field.valid.numpy(), (2, 3, 4)), expected)
        assert np.array_equal(field.values.numpy(), expected.astype(np.float32))


def test_the_callers_tensor_is_not_changed() -> None:
    values = torch.tensor([[1.0, NAN]])
    Field.of(values)
    assert math.isnan(values[0, 1])


def test_take_keeps_every_part_together_in_the_order_asked() -> None:
    batch = some_batch()
    taken = batch.take(torch.tensor([3, 0]))
    assert len(taken) == 2 and len(batch) == 4
    assert taken.window.tolist() == [103, 100] and taken.key.tolist() == [1, -2]
    assert taken.features["slot"].tolist() == [30, 0] and taken.features["flag"].tolist() == [[False], [True]]
    assert torch.equal(taken.fields["image"].values, batch.fields["image"].values[[3, 0]])
    assert taken.fields["image"].valid.flatten().tolist() == [False, True]
    assert taken.fields["level"].values.tolist() == [3, 0]
    assert batch.take(slice(1, 3)).window.tolist() == [101, 102]


def test_apply_reaches_every_tensor_and_leaves_the_batch_alone() -> None:
    batch = some_batch()
    seen: list[torch.Tensor] = []
    batch.apply(lambda tensor: seen.append(tensor) or tensor.flip(0))
    assert len(seen) == 2 * len(batch.fields) + len(batch.features) + 2
    assert batch.window.tolist() == [100, 101, 102, 103]


def test_to_moves_every_tensor() -> None:
    moved = some_batch().to("meta")
    tensors = [t for field in moved.fields.values() for t in (field.values, field.valid)]
    assert {t.device.type for t in [*tensors, *moved.features.values(), moved.window, moved.key]} == {"meta"}


def test_with_field_replaces_or_adds_one() -> None:
    batch, other = some_batch(), Field.of(torch.ones(4, 1))
    assert set(batch.with_field("more", other).fields) == {"image", "level", "more"}
    assert batch.with_field("level", other).fields["level"] is other
    assert set(batch.fields) == {"image", "level"}


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    shape=st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 7)),
    share=st.sampled_from([0.0, 0.2, 0.9, 1.0]),
)
def test_masked_mean_is_the_float64_mean_of_the_valid_cells(
    seed: int, shape: tuple[int, int, int], share: float
) -> None:
    rng = np.random.default_rng(seed)
    values, valid = rng.normal(size=shape), rng.random(shape) < share
    expected = [float(v[m].mean()) if m.any() else 0.0 for v, m in zip(values, valid, strict=True)]
    found = masked_mean(torch.tensor(values, dtype=torch.float32), torch.tensor(valid))
    assert found.tolist() == pytest.approx(expected, abs=1e-6)
    assert masked_mean(torch.tensor(values), torch.tensor(valid)).tolist() == pytest.approx(expected, abs=1e-14)


def test_masked_mean_ignores_what_stands_in_invalid_cells() -> None:
    values = torch.tensor([[1.0, NAN, 3.0], [INF, NAN, -INF]], requires_grad=True)
    valid = torch.tensor([[True, False, True], [False, False, False]])
    mean = masked_mean(values, valid)
    mean.sum().backward()
    assert mean.tolist() == [2.0, 0.0]
    assert values.grad is not None and values.grad.tolist() == [[0.5, 0.0, 0.5], [0.0, 0.0, 0.0]]


def test_masked_mean_of_one_value_per_sample_is_that_value() -> None:
    assert masked_mean(torch.tensor([1.0, 2.0]), torch.tensor([True, False])).tolist() == [1.0, 0.0]
