"""Several modalities: an encoder and a decoder each, and four ways in which one learns from the others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from gridloom.core.batch import Batch
from gridloom.core.contracts import Encoder, InputSpec
from gridloom.core.errors import ConfigError, UnknownNameError
from gridloom.nn.attention import NORM_EPS, SelfAttentionBlock
from gridloom.systems.crossmae.context import Context
from gridloom.systems.crossmae.decoder import Answer, DecoderShape, ImageDecoder, PatchDecoder, VectorDecoder
from gridloom.systems.crossmae.encoder import EncoderShape, ImageEncoder, PatchEncoder, VectorEncoder, as_maps
from gridloom.systems.crossmae.inputs import read_inputs
from gridloom.systems.crossmae.patches import ImagePatches, Patches, SeriesPatches
from gridloom.systems.crossmae.static import StaticMode
from gridloom.systems.crossmae.tokens import Chosen, MaskInfo, scatter_rows

__all__ = ["Encoded", "Fusion", "Modality", "MultiModalEncoder", "MultiModalMAE"]

Fusion = Literal["none", "pooled", "cross", "shared"]
"""Each decoder reads its own tokens; those and one mean token of each other modality; the tokens of all; the tokens of
all after a shared transformer."""

_EMBEDDING_STD = 0.02


@dataclass(frozen=True, kw_only=True)
class Modality:
    """One modality: how it is cut, and its two networks."""

    patches: Patches
    """Images or series."""
    encoder: EncoderShape = field(default_factory=EncoderShape)
    """Its encoder; all modalities need the same width."""
    decoder: DecoderShape = field(default_factory=DecoderShape)
    """Its decoder."""
    known_channels: int = 0
    """Channels of what else is known of each cell."""
    static: bool = True
    """Whether static attributes, where there are any, reach it."""


@dataclass(frozen=True)
class Encoded:
    """What is known of one modality.

    Attributes:
        maps: Its own tokens, one sequence or several feature maps, [batch, tokens, dim].
        info: Their masks and positions.
        num_extra: Tokens at the end that stand for static attributes.
    """

    maps: list[Tensor]
    info: MaskInfo
    num_extra: int


class MultiModalEncoder(Encoder):
    """The encoders of all modalities and what is shared between them; it stands alone without the decoders.

    Args:
        modalities: By name.
        static_dim: Static attributes of a sample or place; 0 for none.
        fusion: How modalities learn from each other.
        static: How static attributes reach the tokens.
        time_features: Numbers known of each time.
        place_features: Numbers known of each place.
        fusion_depth: Layers of the shared transformer.
        inputs: What `forward` takes.
    """

    outputs: Mapping[str, tuple[str, ...]] = {"embedding": ("feature",), "tokens": ("token", "feature")}

    def __init__(
        self,
        modalities: Mapping[str, Modality],
        static_dim: int = 0,
        fusion: Fusion = "none",
        *,
        static: StaticMode = "token",
        time_features: int = 0,
        place_features: int = 0,
        fusion_depth: int = 2,
        inputs: InputSpec | None = None,
    ) -> None:
        super().__init__()
        _check(modalities, fusion)
        self.fusion = fusion
        self.inputs = inputs or InputSpec(fields={})
        self.encoders = nn.ModuleDict()
        for name, modality in modalities.items():
            kind = ImageEncoder if isinstance(modality.patches, ImagePatches) else VectorEncoder
            self.encoders[name] = kind(
                modality.patches,
                modality.encoder,
                known_channels=modality.known_channels,
                time_features=time_features,
                place_features=place_features,
                static_dim=static_dim if modality.static else 0,
                static=static,
            )
        shape = next(iter(modalities.values())).encoder
        self.dim = shape.dim
        self.to_common = nn.ModuleDict()
        self.modality_embedding = nn.ParameterDict()
        self.shared = nn.ModuleList()
        if fusion != "none":
            for name, encoder in self._items():
                self.modality_embedding[name] = nn.Parameter(torch.randn(self.dim) * _EMBEDDING_STD)
                if encoder.output_dim != self.dim:
                    self.to_common[name] = nn.Linear(encoder.output_dim, self.dim)
        if fusion == "shared":
            self.shared.extend(
                SelfAttentionBlock(self.dim, shape.num_heads, mlp_ratio=shape.mlp_ratio, dropout=shape.dropout)
                for _ in range(fusion_depth)
            )
            self.shared_norm = nn.LayerNorm(self.dim, eps=NORM_EPS)

    def _items(self) -> list[tuple[str, PatchEncoder]]:
        return [(name, encoder) for name, encoder in self.encoders.items() if isinstance(encoder, PatchEncoder)]

    def context_dim(self, name: str) -> int:
        """Width of what the decoder of this modality attends to."""
        encoder = self.encoders[name]
        assert isinstance(encoder, PatchEncoder)
        return encoder.output_dim if self.fusion == "none" else self.dim

    def num_maps(self, name: str) -> int:
        """Feature maps that the decoder of this modality gets."""
        counts = {other: encoder.shape.num_maps for other, encoder in self._items()}
        if self.fusion in ("none", "pooled"):
            return counts[name]
        most = max(counts.values())
        return most + 1 if self.fusion == "shared" and most > 1 else most

    def encode(
        self,
        x: Mapping[str, Float[Tensor, "batch *dims"]],
        patch_masks: Mapping[str, Bool[Tensor, "batch times places"]],
        *,
        valid: Mapping[str, Bool[Tensor, "batch *dims"]] | None = None,
        static: Float[Tensor, "batch *attributes"] | None = None,
        contexts: Mapping[str, Context] | None = None,
    ) -> dict[str, Encoded]:
        """Encode each modality on its own; `MultiModalMAE.forward` says what the arguments are."""
        valid, contexts = valid or {}, contexts or {}
        found = {}
        for name, encoder in self._items():
            if name not in x or name not in patch_masks:
                raise UnknownNameError("modality", name, x if name not in x else patch_masks)
            own = static if encoder.attributes is not None else None
            tokens, info = encoder(x[name], patch_masks[name], valid.get(name), static=own, context=contexts.get(name))
            maps = as_maps(tokens)
            found[name] = Encoded(maps, info, maps[0].shape[1] - _num_visible(encoder, own, info))
        return found

    def fuse(self, encoded: Mapping[str, Encoded]) -> dict[str, tuple[list[Tensor], MaskInfo]]:
        """Give each modality's decoder what it may attend to."""
        if self.fusion == "none":
            return {name: (one.maps, one.info) for name, one in encoded.items()}
        common = {name: [self._common(name, tokens) for tokens in one.maps] for name, one in encoded.items()}
        paddings = {name: one.info["padding_mask"] for name, one in encoded.items()}
        if self.fusion == "pooled":
            return {name: self._with_pooled(name, encoded, common) for name in encoded}
        most = max(len(maps) for maps in common.values())
        # A modality with fewer layers stands for the rest with its last.
        maps = [torch.cat([m[min(level, len(m) - 1)] for m in common.values()], dim=1) for level in range(most)]
        padding = torch.cat(list(paddings.values()), dim=1)
        if self.fusion == "shared":
            told = self._share(maps[-1], padding)
            maps = [*maps, told] if most > 1 else [told]
        positions = torch.cat([one.info["positions"] for one in encoded.values()], dim=1)
        return {
            name: (maps, MaskInfo(mask=one.info["mask"], padding_mask=padding, positions=positions))
            for name, one in encoded.items()
        }

    def _common(self, name: str, tokens: Tensor) -> Tensor:
        tokens = self.to_common[name](tokens) if name in self.to_common else tokens
        embedded: Tensor = tokens + self.modality_embedding[name]
        return embedded

    def _share(self, tokens: Tensor, padding: Tensor) -> Tensor:
        mask = padding if bool(padding.any()) else None
        for layer in self.shared:
            tokens = layer(tokens, mask)
        return self.shared_norm(tokens)  # type: ignore[no-any-return]

    def _with_pooled(
        self, name: str, encoded: Mapping[str, Encoded], common: Mapping[str, Sequence[Tensor]]
    ) -> tuple[list[Tensor], MaskInfo]:
        info = encoded[name].info
        others = [other for other in encoded if other != name]
        maps = []
        for level, own in enumerate(common[name]):
            means = [
                _mean_token(common[other][min(level, len(common[other]) - 1)], encoded[other].info["padding_mask"])
                for other in others
            ]
            maps.append(torch.cat([own, *means], dim=1))
        absent = [encoded[other].info["padding_mask"].all(1, keepdim=True) for other in others]
        positions = info["positions"].new_zeros(len(info["positions"]), len(others))
        return maps, MaskInfo(
            mask=info["mask"],
            padding_mask=torch.cat([info["padding_mask"], *absent], dim=1),
            positions=torch.cat([info["positions"], positions], dim=1),
        )

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Embed a batch in which nothing is hidden but what is missing.

        Returns:
            `embedding`, the mean token of each modality beside each other (static tokens count), 0 where nothing of a
            modality is known; `tokens`, one for each time and place of each modality, 0 where there is no data.
        """
        inputs = read_inputs(batch, {name: encoder.patches for name, encoder in self._items()})
        nothing = {name: torch.zeros_like(cells) for name, cells in inputs.has_data.items()}
        encoded = self.encode(
            inputs.values, nothing, valid=inputs.visible, static=inputs.static, contexts=inputs.contexts
        )
        final = self._final(encoded)
        embedding, tokens = [], []
        for name, one in encoded.items():
            padding = one.info["padding_mask"]
            embedding.append(_mean_token(final[name], padding)[:, 0])
            own = padding.shape[1] - one.num_extra
            times, places = one.info["mask"].shape[1:]
            chosen = Chosen(one.info["positions"][:, :own], padding[:, :own])
            tokens.append(scatter_rows(final[name][:, :own], chosen, times * places))
        return {"embedding": torch.cat(embedding, dim=1), "tokens": torch.cat(tokens, dim=1)}

    def _final(self, encoded: Mapping[str, Encoded]) -> dict[str, Tensor]:
        """Tokens of each modality after everything that is shared, of one width."""
        last = {name: one.maps[-1] for name, one in encoded.items()}
        if self.fusion != "shared":
            if len({tokens.shape[2] for tokens in last.values()}) == 1:
                return last
            return {name: tokens[..., : self.dim] for name, tokens in last.items()}
        lengths = [tokens.shape[1] for tokens in last.values()]
        padding = torch.cat([one.info["padding_mask"] for one in encoded.values()], dim=1)
        told = self._share(torch.cat([self._common(name, tokens) for name, tokens in last.items()], dim=1), padding)
        return dict(zip(last, torch.split(told, lengths, dim=1), strict=True))


def _num_visible(encoder: PatchEncoder, static: Tensor | None, info: MaskInfo) -> int:
    attributes = encoder.attributes
    extra = 0
    if attributes is not None and attributes.mode == "token" and static is not None:
        extra = static.shape[1] if static.ndim == 3 else 1
    return int(info["positions"].shape[1]) - extra


def _mean_token(tokens: Tensor, padding: Tensor) -> Tensor:
    """Mean over what is no padding, 0 where nothing is: [batch, 1, dim]."""
    kept = (~padding)[..., None]
    zero = torch.zeros((), dtype=tokens.dtype, device=tokens.device)
    return torch.where(kept, tokens, zero).sum(1, keepdim=True) / kept.sum(1, keepdim=True).clamp(min=1)


def _check(modalities: Mapping[str, Modality], fusion: Fusion) -> None:
    if not modalities:
        raise ConfigError("expected at least one modality, got none")
    widths = {name: modality.encoder.dim for name, modality in modalities.items()}
    if len(set(widths.values())) > 1:
        raise ConfigError(f"encoders of all modalities need the same width, got {widths}")
    for name, modality in modalities.items():
        if not isinstance(modality.patches, ImagePatches | SeriesPatches):
            raise ConfigError(f"modality {name!r}: expected patches of images or series, got {modality.patches!r:.80}")
        if fusion != "none" and modality.decoder.attention == "self":
            raise ConfigError(
                f"modality {name!r}: a self-attention decoder takes its own tokens alone; use fusion none, got {fusion}"
            )


class MultiModalMAE(nn.Module):
    """Encoders, fusion and decoders: what is hidden, from what is visible.

    Args:
        modalities: By name.
        static_dim: Static attributes of a sample or place; 0 for none.
        fusion: How modalities learn from each other.
        static: How static attributes reach the tokens.
        spread: Predict a variance too.
        time_features: Numbers known of each time.
        place_features: Numbers known of each place.
        inputs: What the encoder takes when it stands alone.
    """

    def __init__(
        self,
        modalities: Mapping[str, Modality],
        static_dim: int = 0,
        fusion: Fusion = "none",
        *,
        static: StaticMode = "token",
        spread: bool = False,
        time_features: int = 0,
        place_features: int = 0,
        inputs: InputSpec | None = None,
    ) -> None:
        super().__init__()
        self.modalities = dict(modalities)
        self.encoder = MultiModalEncoder(
            modalities,
            static_dim,
            fusion,
            static=static,
            time_features=time_features,
            place_features=place_features,
            inputs=inputs,
        )
        self.decoders = nn.ModuleDict()
        for name, modality in modalities.items():
            kind = ImageDecoder if isinstance(modality.patches, ImagePatches) else VectorDecoder
            self.decoders[name] = kind(
                modality.patches,
                modality.decoder,
                context_dim=self.encoder.context_dim(name),
                num_maps=self.encoder.num_maps(name),
                spread=spread,
                known_channels=modality.known_channels,
                time_features=time_features,
                place_features=place_features,
            )
        self.apply(_initialize)

    def decoder(self, name: str) -> PatchDecoder:
        """The decoder of a modality."""
        found = self.decoders[name]
        assert isinstance(found, PatchDecoder)
        return found

    def forward(
        self,
        x: Mapping[str, Float[Tensor, "batch *dims"]],
        patch_masks: Mapping[str, Bool[Tensor, "batch times places"]],
        *,
        valid: Mapping[str, Bool[Tensor, "batch *dims"]] | None = None,
        static: Float[Tensor, "batch *attributes"] | None = None,
        contexts: Mapping[str, Context] | None = None,
        ask: Mapping[str, Bool[Tensor, "batch times places"]] | None = None,
    ) -> dict[str, Answer]:
        """Predict.

        Args:
            x: Values of each modality, [batch, time, height, width] or [batch, place, time(, feature)].
            patch_masks: True = hidden from the encoder.
            valid: False where a cell is missing, or hidden by itself. A modality that is absent for a sample has no
                valid cell there. None: every finite cell.
            static: Static attributes, [batch, attribute] or [batch, place, attribute].
            contexts: What else is known of each modality.
            ask: Patches to predict; None asks for the hidden ones that have data.

        Returns:
            An answer for each modality.

        Raises:
            UnknownNameError: A modality without values or mask.
            DataError: A mask of another shape, or no static attributes where some are expected.
        """
        encoded = self.encoder.encode(x, patch_masks, valid=valid, static=static, contexts=contexts)
        answers = {}
        for name, (maps, info) in self.encoder.fuse(encoded).items():
            shape = self.modalities[name].encoder
            visible = None
            if shape.pool and self.modalities[name].decoder.attention == "self":
                visible = self._visible(name, x[name], patch_masks[name], valid)
            if ask is not None:
                info = MaskInfo(mask=ask[name], padding_mask=info["padding_mask"], positions=info["positions"])
            context = contexts.get(name) if contexts else None
            answers[name] = self.decoder(name).answer(maps, info, context=context, visible=visible)
        return answers

    def _visible(self, name: str, values: Tensor, patch_mask: Tensor, valid: Mapping[str, Tensor] | None) -> Tensor:
        known = torch.isfinite(values)
        if valid is not None and name in valid:
            known = known & valid[name]
        observed: Tensor = self.modalities[name].patches.cut(known).any(-1)
        return observed & ~patch_mask


def _initialize(module: nn.Module) -> None:
    """Xavier for every linear layer, as in the paper; weights that mix feature maps keep their own."""
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
