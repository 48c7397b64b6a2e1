"""Decoders: queries at the masked positions alone, which attend to the visible tokens of their own sample."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gridloom.nn.attention import NORM_EPS, CrossAttentionBlock, SelfAttentionBlock
from gridloom.systems.crossmae.context import Context
from gridloom.systems.crossmae.embedding import PositionEmbedding
from gridloom.systems.crossmae.encoder import as_maps
from gridloom.systems.crossmae.mixing import WeightedFeatureMaps
from gridloom.systems.crossmae.patches import ImagePatches, Patches, SeriesPatches
from gridloom.systems.crossmae.tokens import Chosen, MaskInfo, padding_or_none, scatter_rows, take_rows, where_true

__all__ = ["Answer", "DecoderShape", "ImageDecoder", "PatchDecoder", "VectorDecoder"]

_MASK_TOKEN_STD = 0.02


@dataclass(frozen=True, kw_only=True)
class DecoderShape:
    """Size of a decoder."""

    dim: int = 128
    """Width."""
    depth: int = 4
    """Layers."""
    num_heads: int = 4
    """Heads of each layer."""
    mlp_ratio: float = 4.0
    """Hidden width of the MLPs over `dim`."""
    dropout: float = 0.0
    """Dropout of each branch while training."""
    self_attention: bool = False
    """Let the queries attend to each other before they attend to the context."""
    attention: Literal["cross", "self"] = "cross"
    """`self` is the decoder that cross-attention replaces: self-attention over visible and masked positions."""


class Answer(NamedTuple):
    """What a decoder says of the positions that were asked.

    Attributes:
        asked: Where.
        mean: Values of each patch.
        log_variance: Log of the variance of each value; None where the decoder does not say.
    """

    asked: Chosen
    mean: Float[Tensor, "batch asked cells"]
    log_variance: Float[Tensor, "batch asked cells"] | None


class PatchDecoder(nn.Module):
    """What decoders of images and series share; use `ImageDecoder` or `VectorDecoder`.

    Args:
        patches: How values are cut.
        shape: Size.
        context_dim: Width of the tokens that are attended to.
        num_maps: Feature maps that come; more than one are mixed for each layer.
        spread: Say a variance too.
        known_channels: Channels of `Context.known`: what is known of the asked patch itself, part of its query.
        time_features: Numbers in `Context.times`.
        place_features: Numbers in `Context.places`.
    """

    def __init__(
        self,
        patches: Patches,
        shape: DecoderShape,
        *,
        context_dim: int,
        num_maps: int = 1,
        spread: bool = False,
        known_channels: int = 0,
        time_features: int = 0,
        place_features: int = 0,
    ) -> None:
        super().__init__()
        self.patches, self.shape, self.spread = patches, shape, spread
        self.mask_token = nn.Parameter(torch.zeros(shape.dim))
        self.position = PositionEmbedding(
            patches.layout, shape.dim, time_features=time_features, place_features=place_features
        )
        self.of_known = nn.Linear(known_channels * patches.num_cells, shape.dim) if known_channels else None
        self.mixing = WeightedFeatureMaps(num_maps, shape.depth) if num_maps > 1 else None
        norms = shape.depth if self.mixing is not None else 0
        self.context_norms = nn.ModuleList(nn.LayerNorm(context_dim, eps=NORM_EPS) for _ in range(norms))
        if shape.attention == "cross":
            self.layers = nn.ModuleList(
                CrossAttentionBlock(
                    shape.dim,
                    context_dim,
                    shape.num_heads,
                    mlp_ratio=shape.mlp_ratio,
                    self_attention=shape.self_attention,
                    dropout=shape.dropout,
                )
                for _ in range(shape.depth)
            )
        else:
            self.of_context = nn.Linear(context_dim, shape.dim)
            self.layers = nn.ModuleList(
                SelfAttentionBlock(shape.dim, shape.num_heads, mlp_ratio=shape.mlp_ratio, dropout=shape.dropout)
                for _ in range(shape.depth)
            )
        self.norm = nn.LayerNorm(shape.dim, eps=NORM_EPS)
        self.head = nn.Linear(shape.dim, patches.num_cells * (2 if spread else 1))
        nn.init.normal_(self.mask_token, std=_MASK_TOKEN_STD)

    def answer(
        self,
        tokens: Tensor | Sequence[Tensor],
        mask_info: MaskInfo,
        *,
        context: Context | None = None,
        visible: Tensor | None = None,
    ) -> Answer:
        """Predict the positions at which `mask_info["mask"]` is True.

        Args:
            tokens: What is known of each sample, normalized; a list of feature maps where the decoder mixes them.
            mask_info: What to predict, and which tokens are padding.
            context: What else is known.
            visible: Positions of the visible patches, for self-attention from a pooled token.
        """
        context = context or Context()
        asked = where_true(mask_info["mask"].flatten(1))
        queries = self.mask_token + self._position(asked, mask_info, context)
        if self.of_known is not None and context.known is not None:
            parts = [self.patches.cut(channel).flatten(1, 2) for channel in context.known.unbind(-1)]
            known = torch.cat([take_rows(part, asked.positions) for part in parts], dim=-1)
            queries = queries + self.of_known(known)
        maps = as_maps(tokens)
        if self.shape.attention == "cross":
            x = self._cross(queries, maps, mask_info, asked)
        else:
            x = self._self(queries, maps[-1], mask_info, asked, context, visible)
        values = self.head(self.norm(x))
        if not self.spread:
            return Answer(asked, values, None)
        mean, log_variance = values.chunk(2, dim=-1)
        return Answer(asked, mean, log_variance)

    def place(self, asked: Chosen, cells: Tensor, num_times: int) -> Float[Tensor, "batch times places cells"]:
        """Put answers at their positions, 0 elsewhere."""
        num_places = self.patches.num_places
        placed = scatter_rows(cells, asked, num_times * num_places)
        return placed.view(len(cells), num_times, num_places, cells.shape[2])

    def forward(
        self, tokens: Tensor | Sequence[Tensor], mask_info: MaskInfo, *, context: Context | None = None
    ) -> Float[Tensor, "batch times places cells"]:
        """Predict masked patches; zeros where nothing was predicted.

        Args:
            tokens: From the encoder.
            mask_info: From the encoder, or with another `mask`: what to predict.
            context: What else is known.
        """
        answer = self.answer(tokens, mask_info, context=context)
        return self.place(answer.asked, answer.mean, mask_info["mask"].shape[1])

    def _position(self, chosen: Chosen, mask_info: MaskInfo, context: Context) -> Tensor:
        embedded: Tensor = self.position(chosen.positions, mask_info["mask"].shape[1], context.times, context.places)
        return embedded

    def _cross(self, queries: Tensor, maps: list[Tensor], mask_info: MaskInfo, asked: Chosen) -> Tensor:
        padding = padding_or_none(mask_info["padding_mask"])
        if self.mixing is None:
            known = [maps[-1]] * len(self.layers)
        else:
            mixed = self.mixing(maps).unbind(-1)
            known = [norm(one) for norm, one in zip(self.context_norms, mixed, strict=True)]
        x = queries
        for layer, seen in zip(self.layers, known, strict=True):
            x = layer(x, seen, padding, asked.padding)
        return x

    def _self(
        self,
        queries: Tensor,
        tokens: Tensor,
        mask_info: MaskInfo,
        asked: Chosen,
        context: Context,
        visible: Tensor | None,
    ) -> Tensor:
        """Self-attention over what is visible and what is asked, in one sequence; answers are those of the asked."""
        seen = self.of_context(tokens)
        padding = mask_info["padding_mask"]
        if visible is not None:  # one token for all: it stands at each visible position; those of attributes follow
            shown = where_true(visible.flatten(1))
            stands = seen[:, :1] + self._position(shown, mask_info, context)
            seen = torch.cat([stands, seen[:, 1:]], dim=1)
            padding = torch.cat([shown.mask(), padding[:, 1:]], dim=1)
        else:
            here = Chosen(mask_info["positions"], None)
            seen = seen + self._position(here, mask_info, context)
        mask = padding_or_none(torch.cat([padding, asked.mask()], dim=1))
        x = torch.cat([seen, queries], dim=1)
        for layer in self.layers:
            x = layer(x, mask)
        return x[:, seen.shape[1] :]


class ImageDecoder(PatchDecoder):
    """Masked patches of fields from visible tokens."""

    patches: ImagePatches


class VectorDecoder(PatchDecoder):
    """Masked patches of series from visible tokens."""

    patches: SeriesPatches
