"""Encoders that keep the sequence: visible patches in, one token for each out."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from gridloom.core.errors import ConfigError, DataError
from gridloom.nn.attention import NORM_EPS, SelfAttentionBlock
from gridloom.systems.crossmae.context import Context
from gridloom.systems.crossmae.embedding import PositionEmbedding
from gridloom.systems.crossmae.patches import ImagePatches, Patches, SeriesPatches
from gridloom.systems.crossmae.static import StaticAttributes, StaticMode
from gridloom.systems.crossmae.tokens import MaskInfo, length_buckets, padding_or_none, take_rows, where_true

__all__ = ["EncoderShape", "ImageEncoder", "PatchEncoder", "Tokens", "VectorEncoder", "as_maps"]

Tokens = Tensor | list[Tensor]
"""A sequence, or one for each feature map."""


@dataclass(frozen=True, kw_only=True)
class EncoderShape:
    """Size of an encoder and what it hands on."""

    dim: int = 256
    """Width."""
    depth: int = 6
    """Layers."""
    num_heads: int = 8
    """Heads of each layer."""
    mlp_ratio: float = 4.0
    """Hidden width of the MLPs over `dim`."""
    dropout: float = 0.0
    """Dropout of each branch while training."""
    pool: bool = False
    """One mean token instead of the sequence: what CrossMAE moves away from, kept for comparison."""
    feature_maps: bool = False
    """Hand on the sequence after several layers, for weighted feature maps."""
    use_fm_layers: tuple[int, ...] | None = None
    """Layers that are handed on, from 0; None takes all."""
    use_input: bool = True
    """Hand on the input of the first layer too."""
    normalize_maps: bool = True
    """Maps pass the encoder's norm; the input never does. False is the paper's form."""

    def __post_init__(self) -> None:
        """Refuse layers that are not there."""
        for layer in self.use_fm_layers or ():
            if not 0 <= layer < self.depth:
                raise ConfigError(f"use_fm_layers must lie between 0 and {self.depth - 1}, got {layer}")
        if self.feature_maps and not self.map_layers and not self.use_input:
            raise ConfigError("feature maps need at least one layer in use_fm_layers, or use_input")

    @property
    def map_layers(self) -> tuple[int, ...]:
        """Layers that are handed on."""
        return tuple(range(self.depth)) if self.use_fm_layers is None else self.use_fm_layers

    @property
    def num_maps(self) -> int:
        """How many sequences are handed on."""
        return len(self.map_layers) + self.use_input if self.feature_maps else 1


class PatchEncoder(nn.Module):
    """What encoders of images and series share; use `ImageEncoder` or `VectorEncoder`.

    Args:
        patches: How values are cut.
        shape: Size.
        known_channels: Channels in `Context.known`.
        time_features: Numbers in `Context.times`.
        place_features: Numbers in `Context.places`.
        static_dim: Static attributes of a sample or place; 0 for none.
        static: How they reach the tokens, see `StaticAttributes`.
    """

    def __init__(
        self,
        patches: Patches,
        shape: EncoderShape,
        *,
        known_channels: int = 0,
        time_features: int = 0,
        place_features: int = 0,
        static_dim: int = 0,
        static: StaticMode = "token",
    ) -> None:
        super().__init__()
        self.patches, self.shape = patches, shape
        self.embed = nn.Linear((2 + known_channels) * patches.num_cells, shape.dim)
        self.position = PositionEmbedding(
            patches.layout, shape.dim, time_features=time_features, place_features=place_features
        )
        self.layers = nn.ModuleList(
            SelfAttentionBlock(shape.dim, shape.num_heads, mlp_ratio=shape.mlp_ratio, dropout=shape.dropout)
            for _ in range(shape.depth)
        )
        self.norm = nn.LayerNorm(shape.dim, eps=NORM_EPS)
        self.attributes = StaticAttributes(static_dim, shape.dim, static) if static_dim else None

    @property
    def output_dim(self) -> int:
        """Width of the tokens that come out."""
        return self.shape.dim if self.attributes is None else self.attributes.output_dim

    def encode(
        self,
        values: Float[Tensor, "batch *dims"],
        patch_mask: Bool[Tensor, "batch times places"],
        valid: Bool[Tensor, "batch *dims"] | None = None,
        *,
        static: Float[Tensor, "batch *attributes"] | None = None,
        context: Context | None = None,
    ) -> tuple[Tokens, MaskInfo]:
        """Encode what is visible; `ImageEncoder.forward` says what the arguments are."""
        context = context or Context()
        finite = values.abs() < torch.inf  # as isfinite, in half the time
        observed = self.patches.cut(finite if valid is None else valid & finite)
        self._check(observed, patch_mask)
        has_data = observed.any(-1)
        visible = where_true((has_data & ~patch_mask).flatten(1))
        # Whole fields are only cut; all else is done for the visible patches alone.
        known = () if context.known is None else context.known.unbind(-1)
        own, *others = (take_rows(self.patches.cut(one).flatten(1, 2), visible.positions) for one in (values, *known))
        seen = take_rows(observed.flatten(1, 2), visible.positions)
        zero = torch.zeros((), dtype=values.dtype, device=values.device)
        cells = torch.cat([torch.where(seen, own, zero), seen.to(values.dtype), *others], dim=-1)
        tokens = self.embed(cells) + self.position(
            visible.positions, patch_mask.shape[1], context.times, context.places
        )
        maps = self._layers(tokens, visible.padding)
        told = visible.mask()
        info = MaskInfo(mask=patch_mask & has_data, padding_mask=told, positions=visible.positions)
        if self.shape.pool:
            maps = [self._pooled(sequence, told) for sequence in maps]
            nothing = told.all(1, keepdim=True)
            info = MaskInfo(mask=info["mask"], padding_mask=nothing, positions=torch.zeros_like(nothing).long())
        if self.attributes is not None:
            maps, info = self.attributes(maps, info, static, self.patches.num_places, pooled=self.shape.pool)
        return (maps if self.shape.feature_maps else maps[0]), info

    def _check(self, observed: Tensor, patch_mask: Tensor) -> None:
        if observed.shape[:3] != patch_mask.shape:
            raise DataError(
                f"patch_mask: expected {list(observed.shape[:3])} (batch, times, places) for these values, "
                f"got {list(patch_mask.shape)}"
            )

    def _layers(self, tokens: Tensor, padding: Tensor | None) -> list[Tensor]:
        """Run the layers; samples of similar length together."""
        if padding is None:
            return self._run(tokens, padding)
        buckets = length_buckets(padding)
        if len(buckets) == 1:
            return self._run(tokens, padding)
        whole: list[Tensor] = []
        for samples, length in buckets:
            part = self._run(tokens[samples, :length], padding_or_none(padding[samples, :length]))
            whole = whole or [tokens.new_zeros(*tokens.shape[:2], one.shape[2]) for one in part]
            rest = tokens.shape[1] - length
            whole = [
                all_of.index_copy(0, samples, nn.functional.pad(one, (0, 0, 0, rest)).to(all_of.dtype))
                for all_of, one in zip(whole, part, strict=True)
            ]
        return whole

    def _run(self, tokens: Tensor, padding: Tensor | None) -> list[Tensor]:
        shape, maps = self.shape, []
        if shape.feature_maps and shape.use_input:
            maps.append(tokens)
        for number, layer in enumerate(self.layers):
            tokens = layer(tokens, padding)
            if shape.feature_maps and number in shape.map_layers:
                maps.append(self.norm(tokens) if shape.normalize_maps else tokens)
        return maps if shape.feature_maps else [tokens if shape.pool else self.norm(tokens)]

    def _pooled(self, sequence: Tensor, padding: Tensor) -> Tensor:
        """Mean over what is visible, then the norm, as in the model that this one replaces."""
        kept = (~padding)[..., None].to(sequence.dtype)
        return self.norm((sequence * kept).sum(1, keepdim=True) / kept.sum(1, keepdim=True).clamp(min=1))  # type: ignore[no-any-return]


class ImageEncoder(PatchEncoder):
    """Fields over time to the tokens of their visible patches."""

    patches: ImagePatches

    def forward(
        self,
        x: Float[Tensor, "batch time height width"],
        patch_mask: Bool[Tensor, "batch time places"],
        valid: Bool[Tensor, "batch time height width"] | None = None,
        *,
        static: Float[Tensor, "batch *attributes"] | None = None,
        context: Context | None = None,
    ) -> tuple[Tokens, MaskInfo]:
        """Encode the visible patches.

        Args:
            x: Values; NaN is missing.
            patch_mask: True = hidden. A patch without data is never visible and never a target, whatever it says.
            valid: False where a cell is missing; None takes every finite cell.
            static: Static attributes of each sample, or of each place.
            context: What else is known.

        Returns:
            Tokens [batch, visible, dim] (a list of them with feature maps), and the masks. Tokens of padding are
            undefined; never look at them.

        Raises:
            DataError: A mask of another shape.
        """
        return self.encode(x, patch_mask, valid, static=static, context=context)


class VectorEncoder(PatchEncoder):
    """Series of places to the tokens of their visible patches."""

    patches: SeriesPatches

    def forward(
        self,
        x: Float[Tensor, "batch place time *feature"],
        patch_mask: Bool[Tensor, "batch times place"],
        valid: Bool[Tensor, "batch place time *feature"] | None = None,
        *,
        static: Float[Tensor, "batch *attributes"] | None = None,
        context: Context | None = None,
    ) -> tuple[Tokens, MaskInfo]:
        """Encode the visible patches, see `ImageEncoder.forward`."""
        return self.encode(x, patch_mask, valid, static=static, context=context)


def as_maps(tokens: Tensor | Sequence[Tensor]) -> list[Tensor]:
    """A single sequence is a list of one map."""
    return [tokens] if isinstance(tokens, Tensor) else list(tokens)
