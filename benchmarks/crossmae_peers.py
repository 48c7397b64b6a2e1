"""Two decoders that gridloom's is measured beside: the specification's loop over positions, and that of an MAE."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["LoopDecoder", "MAEDecoder"]

_EPS = 1e-6


def _mlp(dim: int) -> nn.ModuleDict:
    return nn.ModuleDict({"fc1": nn.Linear(dim, 4 * dim), "fc2": nn.Linear(4 * dim, dim)})


def _run_mlp(mlp: nn.ModuleDict, x: Tensor) -> Tensor:
    return mlp["fc2"](F.gelu(mlp["fc1"](x)))


class _CrossBlock(nn.Module):
    """Pre-norm cross-attention and MLP."""

    def __init__(self, dim: int, context_dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=_EPS), nn.LayerNorm(dim, eps=_EPS)
        self.cross_attention = nn.ModuleDict(
            {"q": nn.Linear(dim, dim), "kv": nn.Linear(context_dim, 2 * dim), "proj": nn.Linear(dim, dim)}
        )
        self.mlp = _mlp(dim)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        batch, length, dim = x.shape
        part, size = self.cross_attention, dim // self.num_heads
        q = part["q"](self.norm1(x)).reshape(batch, length, self.num_heads, size).transpose(1, 2)
        kv = part["kv"](context).reshape(batch, context.shape[1], 2, self.num_heads, size).permute(2, 0, 3, 1, 4)
        answer = F.scaled_dot_product_attention(q, kv[0], kv[1])
        x = x + part["proj"](answer.transpose(1, 2).reshape(batch, length, dim))
        return x + _run_mlp(self.mlp, self.norm2(x))


class LoopDecoder(nn.Module):
    """The specification's decoder ("better implementation, by batch"), step by step as listed.

    A query for each masked position of each sample in Python, the blocks one sample at a time, and each prediction
    written to its place by itself.

    Args:
        decoder: Where the weights come from.
        num_times: Times of the window.
    """

    def __init__(self, decoder: Any, num_times: int) -> None:
        super().__init__()
        from gridloom.nn.position import sine_cosine

        shape, context_dim = decoder.shape, decoder.layers[0].cross_attention.kv.in_features
        self.patch_dim = decoder.patches.num_cells
        self.mask_token = nn.Parameter(torch.zeros(1, 1, 1, shape.dim))
        self.spatial_pos = nn.Parameter(torch.zeros(1, 1, decoder.patches.num_places, shape.dim))
        self.register_buffer("temporal_pos", sine_cosine(torch.arange(num_times, dtype=torch.float32), shape.dim)[None])
        self.decoder_blocks = nn.ModuleList(
            _CrossBlock(shape.dim, context_dim, shape.num_heads) for _ in range(shape.depth)
        )
        self.decoder_norm = nn.LayerNorm(shape.dim, eps=_EPS)
        self.pred_head = nn.Linear(shape.dim, self.patch_dim)
        self.decoder_blocks.load_state_dict(decoder.layers.state_dict())
        self.decoder_norm.load_state_dict(decoder.norm.state_dict())
        self.pred_head.load_state_dict(decoder.head.state_dict())
        with torch.no_grad():
            self.mask_token.copy_(decoder.mask_token)
            self.spatial_pos.copy_(decoder.position.spatial)

    def forward(self, encoder_output: Tensor, mask_info: Any) -> Tensor:
        """Predict [batch, times, places, cells]; zeros where nothing was asked."""
        mask, padding_mask = mask_info["mask"], mask_info.get("padding_mask")
        num_samples, num_times, num_patches = mask.shape
        pred_patches = torch.zeros(num_samples, num_times, num_patches, self.patch_dim, dtype=encoder_output.dtype)
        for b in range(num_samples):
            if padding_mask is not None:
                valid_mask = ~padding_mask[b]
                keys_values = encoder_output[b : b + 1, valid_mask]
            else:
                keys_values = encoder_output[b : b + 1]
            batch_queries, batch_positions = [], []
            for t in range(num_times):
                for p in range(num_patches):
                    if mask[b, t, p]:
                        query = self.mask_token.squeeze() + self.spatial_pos[0, 0, p] + self.temporal_pos[0, t]
                        batch_queries.append(query)
                        batch_positions.append((t, p))
            if len(batch_queries) == 0:
                continue
            x = torch.stack(batch_queries).unsqueeze(0)
            for block in self.decoder_blocks:
                x = block(x, keys_values)
            predictions = self.pred_head(self.decoder_norm(x))
            for index, (t, p) in enumerate(batch_positions):
                pred_patches[b, t, p] = predictions[0, index]
        return pred_patches


class _SelfBlock(nn.Module):
    """Pre-norm self-attention and MLP, as ViT libraries have it."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=_EPS), nn.LayerNorm(dim, eps=_EPS)
        self.attention = nn.ModuleDict({"qkv": nn.Linear(dim, 3 * dim), "proj": nn.Linear(dim, dim)})
        self.mlp = _mlp(dim)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, dim = x.shape
        qkv = self.attention["qkv"](self.norm1(x)).reshape(batch, length, 3, self.num_heads, dim // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        answer = F.scaled_dot_product_attention(q, k, v)
        x = x + self.attention["proj"](answer.transpose(1, 2).reshape(batch, length, dim))
        return x + _run_mlp(self.mlp, self.norm2(x))


class MAEDecoder(nn.Module):
    """The decoder of a masked autoencoder (He et al. 2021): self-attention over all positions, written from the paper.

    Visible tokens are projected and put at their places, mask tokens at all others, positions are added, and the head
    predicts every patch. All samples must have equally many visible tokens.

    Args:
        decoder: A `PatchDecoder` with self-attention, where the weights come from.
        num_times: Times of the window.
    """

    def __init__(self, decoder: Any, num_times: int) -> None:
        super().__init__()
        from gridloom.nn.position import sine_cosine

        shape = decoder.shape
        self.layout = (num_times, decoder.patches.num_places)
        self.embed = nn.Linear(decoder.of_context.in_features, shape.dim)
        self.mask_token = nn.Parameter(decoder.mask_token.detach().clone())
        self.spatial = nn.Parameter(decoder.position.spatial.detach().clone())
        self.register_buffer("temporal", sine_cosine(torch.arange(num_times, dtype=torch.float32), shape.dim)[:, None])
        self.blocks = nn.ModuleList(_SelfBlock(shape.dim, shape.num_heads) for _ in range(shape.depth))
        self.norm = nn.LayerNorm(shape.dim, eps=_EPS)
        self.head = nn.Linear(shape.dim, decoder.patches.num_cells)
        self.embed.load_state_dict(decoder.of_context.state_dict())
        self.blocks.load_state_dict(decoder.layers.state_dict())
        self.norm.load_state_dict(decoder.norm.state_dict())
        self.head.load_state_dict(decoder.head.state_dict())

    def forward(self, tokens: Tensor, mask_info: Any) -> Tensor:
        """Predict [batch, times, places, cells], visible patches too."""
        x = self.embed(tokens)
        batch, visible, dim = x.shape
        total = self.layout[0] * self.layout[1]
        x = torch.cat([x, self.mask_token.expand(batch, total - visible, dim)], dim=1)
        # Where each position's row is: visible ones in their order, then mask tokens.
        shuffled = torch.ones(batch, total, dtype=torch.bool).scatter_(1, mask_info["positions"], False)
        restore = shuffled.argsort(dim=1, stable=True).argsort(dim=1)
        x = torch.gather(x, 1, restore[:, :, None].expand(-1, -1, dim))
        x = x + (self.temporal + self.spatial).flatten(0, 1)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)).unflatten(1, self.layout)
