"""Attention against float64 references with a loop over samples, heads and queries."""

import math

import pytest
import torch
from torch import Tensor

from gridloom.core.errors import ConfigError
from gridloom.nn.attention import (
    NORM_EPS,
    CrossAttention,
    CrossAttentionBlock,
    SelfAttention,
    SelfAttentionBlock,
    attend,
)
from gridloom.nn.position import sine_cosine, sine_cosine_2d


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def jitter(module: torch.nn.Module) -> torch.nn.Module:
    """Move every parameter off its start: norms and biases count too."""
    generator = torch.Generator().manual_seed(7)
    for parameter in module.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
    return module.eval().requires_grad_(False)


def slow_linear(layer: torch.nn.Linear, x: Tensor) -> Tensor:
    return torch.stack([(layer.weight * x).sum(1)[i] + layer.bias[i] for i in range(layer.out_features)])


def slow_norm(layer: torch.nn.LayerNorm, x: Tensor) -> Tensor:
    centered = x - x.mean()
    return centered / torch.sqrt(centered.square().mean() + 1e-6) * layer.weight + layer.bias


def slow_heads(queries: list[Tensor], keys: list[Tensor], values: list[Tensor], num_heads: int) -> list[Tensor]:
    """Attention of one sample, query by query and head by head."""
    size = len(queries[0]) // num_heads
    answers = []
    for query in queries:
        parts = []
        for head in range(num_heads):
            own = slice(head * size, (head + 1) * size)
            scores = [float(query[own] @ key[own]) / math.sqrt(size) for key in keys]
            weights = [math.exp(score) for score in scores]
            total = sum(weights)
            parts.append(
                sum((w / total * value[own] for w, value in zip(weights, values, strict=True)), query[own] * 0)
            )
        answers.append(torch.cat(parts))
    return answers


def slow_mlp(block: CrossAttentionBlock | SelfAttentionBlock, x: Tensor) -> Tensor:
    hidden = slow_linear(block.mlp.fc1, slow_norm(block.norm2, x))
    return slow_linear(block.mlp.fc2, torch.stack([h * 0.5 * (1 + torch.erf(h / math.sqrt(2))) for h in hidden]))


def slow_cross_block(block: CrossAttentionBlock, queries: Tensor, context: Tensor) -> Tensor:
    """One sample: queries [length, dim], context [keys, context_dim] without padding."""
    x = list(queries)
    if block.self_attention is not None:
        told = [slow_linear(block.self_attention.qkv, slow_norm(block.norm0, row)).chunk(3) for row in x]
        q, k, v = ([row[part] for row in told] for part in range(3))
        answers = slow_heads(q, k, v, block.self_attention.num_heads)
        x = [row + slow_linear(block.self_attention.proj, a) for row, a in zip(x, answers, strict=True)]
    cross = block.cross_attention
    width = cross.q.out_features
    told = [slow_linear(cross.kv, row) for row in context]
    keys, values = [row[:width] for row in told], [row[width:] for row in told]
    asked = [slow_linear(cross.q, slow_norm(block.norm1, row)) for row in x]
    x = [
        row + slow_linear(cross.proj, a)
        for row, a in zip(x, slow_heads(asked, keys, values, cross.num_heads), strict=True)
    ]
    return torch.stack([row + slow_mlp(block, row) for row in x])


@pytest.mark.parametrize("self_attention", [False, True])
def test_a_cross_attention_block_equals_a_slow_reference_with_ragged_contexts(self_attention: bool) -> None:
    torch.manual_seed(0)
    block = jitter(CrossAttentionBlock(8, 6, 2, mlp_ratio=2.0, self_attention=self_attention).double())
    queries, context = normal(3, 4, 8), normal(3, 5, 6, seed=1)
    lengths = [5, 2, 3]
    padding = torch.arange(5) >= torch.tensor(lengths)[:, None]
    found = block(queries, context, padding)
    for sample, length in enumerate(lengths):
        expected = slow_cross_block(block, queries[sample], context[sample, :length])
        torch.testing.assert_close(found[sample], expected, rtol=1e-12, atol=1e-12)


def test_a_self_attention_block_equals_a_slow_reference() -> None:
    torch.manual_seed(0)
    block = jitter(SelfAttentionBlock(8, 2, mlp_ratio=2.0).double())
    x = normal(2, 4, 8)
    for sample in range(2):
        told = [slow_linear(block.attention.qkv, slow_norm(block.norm1, row)).chunk(3) for row in x[sample]]
        answers = slow_heads(*([row[part] for row in told] for part in range(3)), 2)
        rows = [row + slow_linear(block.attention.proj, a) for row, a in zip(x[sample], answers, strict=True)]
        expected = torch.stack([row + slow_mlp(block, row) for row in rows])
        torch.testing.assert_close(block(x)[sample], expected, rtol=1e-12, atol=1e-12)


def test_the_change_of_width_sits_in_the_projection_of_keys_and_values() -> None:
    attention = CrossAttention(8, 6, 2)
    shapes = {name: tuple(parameter.shape) for name, parameter in attention.named_parameters()}
    assert shapes == {
        "q.weight": (8, 8),
        "q.bias": (8,),
        "kv.weight": (16, 6),
        "kv.bias": (16,),
        "proj.weight": (8, 8),
        "proj.bias": (8,),
    }
    assert NORM_EPS == 1e-6


def test_what_padding_holds_reaches_nobody() -> None:
    key, query, padding = normal(2, 1, 4, 8), normal(2, 1, 3, 8, seed=1), torch.tensor([[0, 0, 1, 1], [0, 1, 0, 1]]) > 0
    expected = attend(query, key, key, padding)
    changed = torch.where(padding[:, None, :, None], torch.tensor(1e9, dtype=key.dtype), key)
    assert torch.equal(attend(query, changed, changed, padding), expected)
    alone = attend(query[:1], key[:1, :, :2], key[:1, :, :2])
    torch.testing.assert_close(expected[:1], alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("keys", [0, 3])
def test_a_sample_without_any_key_gets_the_bias_alone_and_a_finite_gradient(keys: int) -> None:
    torch.manual_seed(0)
    attention = CrossAttention(8, 6, 2).double()
    context, queries = normal(2, keys, 6).requires_grad_(), normal(2, 3, 8).requires_grad_()
    padding = torch.zeros(2, keys, dtype=torch.bool)
    padding[0] = True
    answer = attention(queries, context, padding)
    assert torch.equal(answer[0], attention.proj.bias.expand(3, -1))
    answer.square().sum().backward()
    gradients = [leaf.grad for leaf in (queries, context, *attention.parameters()) if leaf.grad is not None]
    assert attention.proj.bias.grad is not None and all(torch.isfinite(gradient).all() for gradient in gradients)


def test_without_self_attention_an_answer_does_not_depend_on_what_else_is_asked() -> None:
    queries, context = normal(1, 4, 8), normal(1, 5, 8, seed=1)
    for self_attention in (False, True):
        torch.manual_seed(0)
        block = jitter(CrossAttentionBlock(8, 8, 2, self_attention=self_attention).double())
        alone = torch.cat([block(queries[:, i : i + 1], context) for i in range(4)], dim=1)
        assert torch.allclose(block(queries, context), alone, atol=1e-10) != self_attention


def test_dropout_acts_in_training_alone() -> None:
    torch.manual_seed(0)
    block, x = SelfAttentionBlock(8, 2, dropout=0.5).double(), normal(1, 4, 8)
    assert not torch.equal(block(x), block(x))
    block.eval()
    assert torch.equal(block(x), block(x))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: SelfAttention(8, 3), "width 8 must be a multiple of the number of heads, got 3"),
        (lambda: CrossAttention(8, 4, 0), "width 8 must be a multiple of the number of heads, got 0"),
        (lambda: sine_cosine(torch.arange(3.0), 5), "multiple of 2, got 5"),
        (lambda: sine_cosine_2d(2, 3, 6), "multiple of 4, got 6"),
    ],
)
def test_widths_that_do_not_fit_are_a_clear_error(make, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_positions_are_embedded_as_in_the_formula() -> None:
    found = sine_cosine(torch.tensor([0.0, 3.0, 89.0]), 8)
    for row, position in enumerate((0, 3, 89)):
        for rate in range(4):
            angle = position / 10000 ** (rate / 4)
            assert found[row, rate] == pytest.approx(math.sin(angle), abs=1e-6)
            assert found[row, 4 + rate] == pytest.approx(math.cos(angle), abs=1e-6)


def test_places_of_a_grid_are_told_apart_row_by_row() -> None:
    places = sine_cosine_2d(3, 5, 8)
    assert places.shape == (15, 8)
    assert torch.equal(places[0, 4:], places[5, 4:]) and torch.equal(places[5, :4], places[9, :4])
    assert torch.cdist(places, places).add(10 * torch.eye(15)).min() > 0.1


def test_positions_stay_on_their_device() -> None:
    assert sine_cosine(torch.arange(3.0, device="meta"), 4).device.type == "meta"
