"""A causal transformer over a sequence that grows: the whole of it at once, or step by step from a cache."""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from gridloom.core.errors import ConfigError, DataError
from gridloom.nn.attention import NORM_EPS, Mlp

__all__ = ["CausalTransformer", "KeyValueCache"]

_BASE = 10000.0


class KeyValueCache:
    """Keys and values of the last steps of every layer, in memory that is taken once.

    A ring of `window` places: a new step takes the place of the oldest. Keys are kept with their rotation, which only
    differences of positions enter, so that the order in the ring does not matter.

    Attributes:
        length: Steps seen so far.
    """

    def __init__(self, keys: Float[Tensor, "layer batch head window size"], values: Tensor) -> None:
        self.keys, self.values = keys, values
        self.length = 0

    @property
    def window(self) -> int:
        """Steps that are kept."""
        return self.keys.shape[3]

    def write(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Put one step's key and value [batch, head, 1, size] in their place; return all that are kept."""
        place = self.length % self.window
        self.keys[layer, :, :, place] = key[:, :, 0]
        self.values[layer, :, :, place] = value[:, :, 0]
        kept = min(self.length + 1, self.window)
        return self.keys[layer, :, :, :kept], self.values[layer, :, :, :kept]

    def fill(self, layer: int, key: Tensor, value: Tensor) -> None:
        """Put the first steps [batch, head, length, size] in their places; nothing was seen before."""
        length = key.shape[2]
        kept = min(length, self.window)
        places = torch.arange(length - kept, length, device=key.device) % self.window
        self.keys[layer][:, :, places] = key[:, :, length - kept :].to(self.keys.dtype)
        self.values[layer][:, :, places] = value[:, :, length - kept :].to(self.values.dtype)

    def repeat(self, times: int) -> "KeyValueCache":
        """A copy in which every sample stands `times` times, one after the other: for sample paths."""
        copy = KeyValueCache(self.keys.repeat_interleave(times, 1), self.values.repeat_interleave(times, 1))
        copy.length = self.length
        return copy


class _Block(nn.Module):
    """`x += SA(norm1 x)`, `x += MLP(norm2 x)`, with rotary positions."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def split(self, x: Tensor, rotation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key (both rotated) and value, [batch, head, length, size]."""
        batch, length, dim = x.shape
        parts = self.qkv(self.norm1(x)).view(batch, length, 3, self.num_heads, dim // self.num_heads)
        parts = parts.permute(2, 0, 3, 1, 4)
        query, key = _rotate(parts[:2], rotation).unbind(0)
        return query, key, parts[2]

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """Add what attention found, and the MLP."""
        x = x + self._drop(self.proj(attended.transpose(1, 2).flatten(2)))
        return x + self._drop(self.mlp(self.norm2(x)))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, True) if self.dropout and self.training else x


class CausalTransformer(nn.Module):
    """Each step sees itself and the `window - 1` steps before it, in every layer.

    Pre-norm blocks (Xiong et al. 2020, arXiv 2002.04745) with rotary positions (Su et al. 2021, arXiv 2104.09864), so
    that there is no longest sequence. The whole pass and the pass from a cache of the same window give the same
    numbers up to rounding.

    Args:
        latent_dim: Size of what comes in and goes out; projected to `dim` and back.
        dim: Width.
        depth: Layers.
        num_heads: Heads; `dim` must be a multiple of twice their number.
        window: Steps that each step sees, itself among them.
        mlp_ratio: Hidden width of the MLPs over `dim`.
        dropout: Of each branch while training.
    """

    def __init__(
        self,
        latent_dim: int = 4096,
        *,
        dim: int = 512,
        depth: int = 6,
        num_heads: int = 8,
        window: int = 256,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if num_heads < 1 or dim % (2 * num_heads):
            raise ConfigError(f"the width {dim} must be a multiple of twice the number of heads, got {num_heads}")
        if window < 1:
            raise ConfigError(f"the window must have 1 step or more, got {window}")
        self.dim, self.num_heads, self.window = dim, num_heads, window
        self.inputs = nn.Linear(latent_dim, dim)
        self.blocks = nn.ModuleList([_Block(dim, num_heads, mlp_ratio, dropout) for _ in range(depth)])
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.outputs = nn.Linear(dim, latent_dim)

    def forward(
        self, z: Float[Tensor, "batch time latent"], cache: KeyValueCache | None = None
    ) -> Float[Tensor, "batch time output"]:
        """Transform a sequence from its first step on.

        Args:
            z: Sequence. Changing a step leaves the outputs of all steps before it as they are, to the bit.
            cache: Is filled, so that `step` goes on from here; must be new.

        Raises:
            DataError: A cache that was used before.
        """
        if cache is not None and cache.length:
            raise DataError(f"expected a new cache, got one with {cache.length} steps; go on with step")
        length = z.shape[1]
        x = self.inputs(z)
        rotation = self._rotation(torch.arange(length, device=z.device), x.dtype)
        mask = self._mask(length, z.device)
        for layer, block in enumerate(self.blocks):
            query, key, value = block.split(x, rotation)  # type: ignore[operator]
            if cache is not None:
                cache.fill(layer, key, value)
            attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=mask is None)
            x = block.finish(x, attended)  # type: ignore[operator]
        if cache is not None:
            cache.length = length
        return self.outputs(self.norm(x))  # type: ignore[no-any-return]

    def step(self, z: Float[Tensor, "batch latent"], cache: KeyValueCache) -> Float[Tensor, "batch output"]:
        """Transform the next step of a sequence whose past is in the cache."""
        x = self.inputs(z[:, None])
        rotation = self._rotation(torch.tensor([cache.length], device=z.device), x.dtype)
        for layer, block in enumerate(self.blocks):
            query, key, value = block.split(x, rotation)  # type: ignore[operator]
            keys, values = cache.write(layer, key, value)
            x = block.finish(x, F.scaled_dot_product_attention(query, keys, values))  # type: ignore[operator]
        cache.length += 1
        return self.outputs(self.norm(x))[:, 0]  # type: ignore[no-any-return]

    def new_cache(self, batch: int) -> KeyValueCache:
        """An empty cache for so many sequences, on the device and in the type of the norms' weights."""
        weight = self.norm.weight
        shape = (len(self.blocks), batch, self.num_heads, self.window, self.dim // self.num_heads)
        return KeyValueCache(weight.new_zeros(shape), weight.new_zeros(shape))

    def _mask(self, length: int, device: torch.device) -> Bool[Tensor, "time time2"] | None:
        """Which steps each step sees; None where the window does not cut and plain causal attention does."""
        if length <= self.window:
            return None
        step = torch.arange(length, device=device)
        behind = step[:, None] - step
        return (behind >= 0) & (behind < self.window)

    def _rotation(self, position: Int64[Tensor, " time"], dtype: torch.dtype) -> Float[Tensor, "two time half"]:
        """Cosine and sine of each position's angles; computed in float64, since positions may grow large."""
        half = self.dim // self.num_heads // 2
        frequency = _BASE ** (-torch.arange(half, dtype=torch.float64, device=position.device) / half)
        angle = position.to(torch.float64)[:, None] * frequency
        return torch.stack([angle.cos(), angle.sin()]).to(dtype)


def _rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Turn the pairs (i, i + half) of the last axis by the angles of their position."""
    first, second = x.chunk(2, dim=-1)
    cosine, sine = rotation[0], rotation[1]
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine], dim=-1)
