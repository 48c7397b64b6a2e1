"""The causal transformer against a float64 loop over samples, steps and heads; its cache against the whole pass."""

import math

import pytest
import torch
from torch import Tensor

from gridloom.core.errors import ConfigError, DataError
from gridloom.nn.causal import CausalTransformer, KeyValueCache

LATENT, DIM, HEADS, WINDOW = 6, 8, 2, 4


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def build(*, window: int = WINDOW, dim: int = DIM, num_heads: int = HEADS, depth: int = 2) -> CausalTransformer:
    """A transformer with every parameter off its start: norms and biases count too."""
    torch.manual_seed(0)
    model = CausalTransformer(LATENT, dim=dim, depth=depth, num_heads=num_heads, window=window)
    generator = torch.Generator().manual_seed(7)
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return model.double().eval()


def slow_linear(layer: torch.nn.Linear, x: Tensor) -> Tensor:
    return torch.stack([(layer.weight[i] * x).sum() + layer.bias[i] for i in range(layer.out_features)])


def slow_norm(layer: torch.nn.LayerNorm, x: Tensor) -> Tensor:
    centered = x - x.mean()
    return centered / torch.sqrt(centered.square().mean() + 1e-6) * layer.weight + layer.bias


def slow_gelu(x: Tensor) -> Tensor:
    return torch.stack([value / 2 * (1 + math.erf(float(value) / math.sqrt(2))) for value in x])


def slow_rotate(x: Tensor, position: int) -> Tensor:
    """Turn one head's vector: pair (i, i + half) by position / 10000^(i / half)."""
    half = len(x) // 2
    turned = x.clone()
    for i in range(half):
        angle = position * 10000.0 ** (-i / half)
        turned[i] = x[i] * math.cos(angle) - x[i + half] * math.sin(angle)
        turned[i + half] = x[i] * math.sin(angle) + x[i + half] * math.cos(angle)
    return turned


def slow_attention(queries: list[Tensor], keys: list[Tensor], values: list[Tensor], window: int) -> list[Tensor]:
    """One head: each step's softmax over itself and the `window - 1` steps before it."""
    answers = []
    for step, query in enumerate(queries):
        seen = range(max(0, step - window + 1), step + 1)
        weights = [math.exp(float((query * keys[j]).sum()) / math.sqrt(len(query))) for j in seen]
        total = sum(weights)
        answers.append(sum(weight / total * values[j] for weight, j in zip(weights, seen, strict=True)))
    return answers


@torch.no_grad()
def slow_forward(model: CausalTransformer, z: Tensor) -> Tensor:
    """One sequence [time, latent]."""
    heads, size = model.num_heads, model.dim // model.num_heads
    x = [slow_linear(model.inputs, step) for step in z]
    for block in model.blocks:
        parts = [slow_linear(block.qkv, slow_norm(block.norm1, step)).view(3, heads, size) for step in x]
        attended = []
        for head in range(heads):
            queries = [slow_rotate(part[0, head], position) for position, part in enumerate(parts)]
            keys = [slow_rotate(part[1, head], position) for position, part in enumerate(parts)]
            attended.append(slow_attention(queries, keys, [part[2, head] for part in parts], model.window))
        for step in range(len(x)):
            x[step] = x[step] + slow_linear(block.proj, torch.cat([found[step] for found in attended]))
            hidden = slow_gelu(slow_linear(block.mlp.fc1, slow_norm(block.norm2, x[step])))
            x[step] = x[step] + slow_linear(block.mlp.fc2, hidden)
    return torch.stack([slow_linear(model.outputs, slow_norm(model.norm, step)) for step in x])


def step_through(model: CausalTransformer, z: Tensor, start: int) -> Tensor:
    """The first `start` steps at once, the others one by one from the cache."""
    cache = model.new_cache(len(z))
    found = [model(z[:, :start], cache)] if start else []
    for step in range(start, z.shape[1]):
        assert cache.length == step
        found.append(model.step(z[:, step], cache)[:, None])
    return torch.cat(found, dim=1)


@pytest.mark.parametrize("length", [1, WINDOW - 1, WINDOW, WINDOW + 1, 2 * WINDOW + 3])
@pytest.mark.parametrize("num_heads", [1, 2])
def test_the_whole_pass_is_that_of_the_loop(length: int, num_heads: int) -> None:
    model, z = build(num_heads=num_heads), normal(2, length, LATENT)
    expected = torch.stack([slow_forward(model, sample) for sample in z])
    torch.testing.assert_close(model(z), expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("length", [1, WINDOW - 1, WINDOW, WINDOW + 1, 2 * WINDOW, 3 * WINDOW + 2])
@pytest.mark.parametrize("start", [0, 1, WINDOW - 1, WINDOW, WINDOW + 1, 2 * WINDOW + 1])
def test_steps_from_the_cache_are_the_whole_pass(length: int, start: int) -> None:
    model, z = build(), normal(2, length, LATENT)
    start = min(start, length)
    torch.testing.assert_close(step_through(model, z, start), model(z), rtol=0, atol=1e-12)


def test_float32_steps_from_the_cache_are_the_whole_pass_to_1e_5() -> None:
    torch.manual_seed(0)
    model = CausalTransformer(64, dim=64, depth=6, num_heads=8, window=16).eval()
    z = normal(2, 40, 64).float()
    torch.testing.assert_close(step_through(model, z, 12), model(z), rtol=0, atol=1e-5)


@pytest.mark.parametrize("length", [WINDOW, 3 * WINDOW])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_later_step_changes_nothing_earlier_to_the_bit(length: int, dtype: torch.dtype) -> None:
    model, z = build().to(dtype), normal(2, length, LATENT).to(dtype)
    before = model(z)
    for changed in range(1, length):
        other = z.clone()
        other[:, changed:] = normal(2, length - changed, LATENT, seed=changed) * 100
        after = model(other)
        assert torch.equal(after[:, :changed], before[:, :changed])
        assert not torch.equal(after[:, changed], before[:, changed])


def test_a_step_sees_as_far_back_as_its_window_in_every_layer() -> None:
    depth = 2
    model, z = build(depth=depth), normal(1, 12, LATENT)
    before = model(z)[0, -1]
    reach = depth * (WINDOW - 1)
    for position in range(12):
        other = z.clone()
        other[0, position] += 1.0
        changed = not torch.equal(model(other)[0, -1], before)
        assert changed == (position >= 11 - reach), position


def test_a_window_of_one_looks_at_each_step_alone() -> None:
    model, z = build(window=1), normal(2, 5, LATENT)
    alone = torch.cat([model(z[:, step : step + 1]) for step in range(5)], dim=1)
    torch.testing.assert_close(model(z), alone, rtol=0, atol=1e-12)
    torch.testing.assert_close(step_through(model, z, 2), alone, rtol=0, atol=1e-12)


def test_only_differences_of_positions_count() -> None:
    # A sequence that repeats itself gives the same answers once nothing but the repetition is in sight.
    model = build(depth=1)
    z = normal(1, 1, LATENT).expand(1, 3 * WINDOW, LATENT)
    found = model(z)[0, WINDOW - 1 :]
    torch.testing.assert_close(found, found[:1].expand_as(found), rtol=0, atol=1e-12)
    first = normal(1, WINDOW, LATENT)
    late = model(torch.cat([normal(1, 50, LATENT, seed=1), first], dim=1))[0, -1]
    torch.testing.assert_close(late, model(first)[0, -1], rtol=0, atol=1e-11)


def test_order_counts() -> None:
    model, z = build(), normal(1, WINDOW, LATENT)
    swapped = z[:, [1, 0, 2, 3]]
    assert (model(swapped)[0, -1] - model(z)[0, -1]).abs().max() > 1e-3


def test_a_repeated_cache_goes_on_as_each_sample_would() -> None:
    model, z = build(), normal(2, WINDOW + 2, LATENT)
    cache = model.new_cache(2)
    model(z, cache)
    paths = cache.repeat(3)
    assert (paths.length, paths.window, paths.keys.shape[1]) == (WINDOW + 2, WINDOW, 6)
    following = normal(6, 3, LATENT, seed=5)
    found = torch.stack([model.step(following[:, step], paths) for step in range(3)], dim=1)
    whole = model(torch.cat([z.repeat_interleave(3, 0), following], dim=1))[:, -3:]
    torch.testing.assert_close(found, whole, rtol=0, atol=1e-12)
    # The original is where it was.
    assert cache.length == WINDOW + 2
    again = torch.stack([model.step(following[::3, step], cache) for step in range(3)], dim=1)
    torch.testing.assert_close(again, whole[::3], rtol=0, atol=1e-12)


def test_a_cache_takes_its_memory_once() -> None:
    model = build()
    cache = model.new_cache(3)
    assert cache.keys.shape == cache.values.shape == (2, 3, HEADS, WINDOW, DIM // HEADS)
    assert cache.keys.dtype == torch.float64
    places = cache.keys.data_ptr(), cache.values.data_ptr()
    for step in range(3 * WINDOW):
        model.step(normal(3, LATENT, seed=step), cache)
    assert (cache.keys.data_ptr(), cache.values.data_ptr()) == places
    assert cache.length == 3 * WINDOW


def test_samples_do_not_see_each_other() -> None:
    model, z = build(), normal(3, 6, LATENT)
    torch.testing.assert_close(model(z)[1:2], model(z[1:2]), rtol=0, atol=1e-12)
    torch.testing.assert_close(step_through(model, z, 2)[1:2], model(z[1:2]), rtol=0, atol=1e-12)


def test_a_used_cache_is_refused() -> None:
    model, z = build(), normal(1, 3, LATENT)
    cache = model.new_cache(1)
    model(z, cache)
    with pytest.raises(DataError, match="expected a new cache, got one with 3 steps; go on with step"):
        model(z, cache)


@pytest.mark.parametrize(("dim", "num_heads"), [(8, 3), (10, 4), (6, 2), (8, 0), (7, 1)])
def test_widths_that_the_heads_do_not_divide_into_pairs_are_refused(dim: int, num_heads: int) -> None:
    with pytest.raises(
        ConfigError, match=rf"width {dim} must be a multiple of twice the number of heads, got {num_heads}"
    ):
        CausalTransformer(LATENT, dim=dim, num_heads=num_heads)


def test_a_window_without_a_step_is_refused() -> None:
    with pytest.raises(ConfigError, match="the window must have 1 step or more, got 0"):
        CausalTransformer(LATENT, dim=DIM, num_heads=HEADS, window=0)


def test_gradients_reach_all_weights_and_the_steps_in_sight() -> None:
    model, z = build(depth=1), normal(1, 8, LATENT).requires_grad_()
    model(z)[0, 6].square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name
    assert z.grad is not None
    seen = z.grad[0].abs().amax(1) > 0
    assert seen.tolist() == [False, False, False, True, True, True, True, False]


def test_gradients_are_those_of_differences() -> None:
    model = build(window=3, depth=1)
    z = normal(1, 5, LATENT).requires_grad_()
    assert torch.autograd.gradcheck(model, (z,), eps=1e-6, atol=1e-7)


def test_dropout_acts_while_training_alone() -> None:
    model = CausalTransformer(LATENT, dim=DIM, depth=2, num_heads=HEADS, window=WINDOW, dropout=0.5)
    z = normal(1, 6, LATENT).float()
    model.train()
    assert not torch.equal(model(z), model(z))
    model.eval()
    assert torch.equal(model(z), model(z))


def test_the_default_size() -> None:
    projections = (4096 + 1) * 512 + (512 + 1) * 4096
    block = (512 + 1) * 3 * 512 + (512 + 1) * 512 + (512 + 1) * 2048 + (2048 + 1) * 512 + 4 * 512
    size = sum(parameter.numel() for parameter in CausalTransformer().parameters())
    assert size == projections + 6 * block + 2 * 512 == 23_114_240


def test_a_cache_of_no_steps_gives_what_is_written() -> None:
    cache = KeyValueCache(torch.zeros(1, 2, 1, 3, 4), torch.zeros(1, 2, 1, 3, 4))
    key, value = torch.ones(2, 1, 1, 4), torch.full((2, 1, 1, 4), 2.0)
    keys, values = cache.write(0, key, value)
    assert torch.equal(keys, key)
    assert torch.equal(values, value)
