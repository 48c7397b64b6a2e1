"""Attention and pre-norm transformer blocks (Vaswani et al. 2017; Xiong et al. 2020), with padded keys."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from gridloom.core.errors import ConfigError

__all__ = ["NORM_EPS", "CrossAttention", "CrossAttentionBlock", "Mlp", "SelfAttention", "SelfAttentionBlock", "attend"]

NORM_EPS = 1e-6
"""LayerNorm's epsilon in all blocks."""


def attend(
    query: Float[Tensor, "batch head queries size"],
    key: Float[Tensor, "batch head keys size"],
    value: Float[Tensor, "batch head keys size"],
    padding: Bool[Tensor, "batch keys"] | None = None,
) -> Float[Tensor, "batch head queries size"]:
    """Scaled dot-product attention; a sample without any key gets 0.

    Args:
        query: What asks.
        key: What is asked; there may be none.
        value: What it answers.
        padding: True where a key is padding and is not looked at. None: there is none.
    """
    if key.shape[2] == 0:
        return torch.zeros_like(query)
    if padding is None:
        return F.scaled_dot_product_attention(query, key, value)
    # Not every backend defines attention to nothing: such a sample looks at its padding, and the answer is set to 0.
    nothing = padding.all(1, keepdim=True)
    seen = ~padding | nothing
    answer = F.scaled_dot_product_attention(query, key, value, attn_mask=seen[:, None, None, :])
    return answer.masked_fill(nothing[:, :, None, None], 0.0)


def _heads(values: Tensor, num_heads: int) -> Tensor:
    """[batch, length, head * size] to [batch, head, length, size]; a view."""
    size = values.shape[-1] // num_heads
    return values.reshape(*values.shape[:-1], num_heads, size).transpose(1, 2)


def _check_heads(dim: int, num_heads: int) -> None:
    if num_heads < 1 or dim % num_heads:
        raise ConfigError(f"the width {dim} must be a multiple of the number of heads, got {num_heads}")


class CrossAttention(nn.Module):
    """Queries of one width attend to a context of another; the change of width sits in `kv`.

    Args:
        query_dim: Width of the queries and of the answer.
        context_dim: Width of the context.
        num_heads: Heads; `query_dim` must be a multiple.
    """

    def __init__(self, query_dim: int, context_dim: int, num_heads: int) -> None:
        super().__init__()
        _check_heads(query_dim, num_heads)
        self.num_heads = num_heads
        self.q = nn.Linear(query_dim, query_dim)
        self.kv = nn.Linear(context_dim, 2 * query_dim)  # keys first, then values
        self.proj = nn.Linear(query_dim, query_dim)

    def forward(
        self,
        queries: Float[Tensor, "batch queries query_dim"],
        context: Float[Tensor, "batch keys context_dim"],
        context_padding: Bool[Tensor, "batch keys"] | None = None,
    ) -> Float[Tensor, "batch queries query_dim"]:
        """Attend to the context of the same sample; True in `context_padding` is not looked at."""
        keys, values = self.kv(context).chunk(2, dim=-1)
        asked, keys, values = (_heads(part, self.num_heads) for part in (self.q(queries), keys, values))
        return self.proj(attend(asked, keys, values, context_padding).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class SelfAttention(nn.Module):
    """A sequence attends to itself.

    Args:
        dim: Width.
        num_heads: Heads; `dim` must be a multiple.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        _check_heads(dim, num_heads)
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(
        self, x: Float[Tensor, "batch length dim"], padding: Bool[Tensor, "batch length"] | None = None
    ) -> Float[Tensor, "batch length dim"]:
        """Attend; True in `padding` is not looked at (its own answer means nothing)."""
        query, key, value = (_heads(part, self.num_heads) for part in self.qkv(x).chunk(3, dim=-1))
        return self.proj(attend(query, key, value, padding).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class Mlp(nn.Module):
    """Two layers with exact GELU in between.

    Args:
        dim: Width in and out.
        hidden: Width in between.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Float[Tensor, "*shape dim"]) -> Float[Tensor, "*shape dim"]:
        """Apply to each position on its own."""
        return self.fc2(F.gelu(self.fc1(x)))  # type: ignore[no-any-return]


class SelfAttentionBlock(nn.Module):
    """`x += SA(norm1 x)`, `x += MLP(norm2 x)`.

    Args:
        dim: Width.
        num_heads: Heads.
        mlp_ratio: Hidden width of the MLP over `dim`.
        dropout: Of both branches, while training.
    """

    def __init__(self, dim: int, num_heads: int, *, mlp_ratio: float = 4.0, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attention = SelfAttention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.dropout = dropout

    def forward(
        self, x: Float[Tensor, "batch length dim"], padding: Bool[Tensor, "batch length"] | None = None
    ) -> Float[Tensor, "batch length dim"]:
        """Transform a sequence; True in `padding` is not looked at."""
        x = x + _drop(self.attention(self.norm1(x), padding), self.dropout, self.training)
        return x + _drop(self.mlp(self.norm2(x)), self.dropout, self.training)


class CrossAttentionBlock(nn.Module):
    """Optional `x += SA(norm0 x)`, then `x += CA(norm1 x, context)`, `x += MLP(norm2 x)` (CrossMAE, arXiv 2401.14391).

    The context arrives normalized.

    Args:
        query_dim: Width of the queries.
        context_dim: Width of the context.
        num_heads: Heads.
        mlp_ratio: Hidden width of the MLP over `query_dim`.
        self_attention: Let the queries attend to each other first. An answer then depends on what else is asked.
        dropout: Of each branch, while training.
    """

    def __init__(
        self,
        query_dim: int,
        context_dim: int,
        num_heads: int,
        *,
        mlp_ratio: float = 4.0,
        self_attention: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.self_attention = SelfAttention(query_dim, num_heads) if self_attention else None
        self.norm0 = nn.LayerNorm(query_dim, eps=NORM_EPS) if self_attention else None
        self.norm1 = nn.LayerNorm(query_dim, eps=NORM_EPS)
        self.cross_attention = CrossAttention(query_dim, context_dim, num_heads)
        self.norm2 = nn.LayerNorm(query_dim, eps=NORM_EPS)
        self.mlp = Mlp(query_dim, int(query_dim * mlp_ratio))
        self.dropout = dropout

    def forward(
        self,
        queries: Float[Tensor, "batch queries query_dim"],
        context: Float[Tensor, "batch keys context_dim"],
        context_padding: Bool[Tensor, "batch keys"] | None = None,
        query_padding: Bool[Tensor, "batch queries"] | None = None,
    ) -> Float[Tensor, "batch queries query_dim"]:
        """Answer queries from the context of the same sample.

        Args:
            queries: What is asked.
            context: What is known, normalized.
            context_padding: True where the context is padding.
            query_padding: True where a query is padding; matters with self-attention only.
        """
        x = queries
        if self.self_attention is not None and self.norm0 is not None:
            x = x + _drop(self.self_attention(self.norm0(x), query_padding), self.dropout, self.training)
        x = x + _drop(self.cross_attention(self.norm1(x), context, context_padding), self.dropout, self.training)
        return x + _drop(self.mlp(self.norm2(x)), self.dropout, self.training)


def _drop(x: Tensor, share: float, training: bool) -> Tensor:
    return F.dropout(x, share, training) if share and training else x
