"""Small modalities, batches with gaps, and slow references that several tests use."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from gridloom.core.batch import Batch, Field
from gridloom.core.random import window_keys
from gridloom.systems.crossmae.config import CrossMAEConfig, LossConfig, MaskingConfig, ModalityConfig, ModelConfig
from gridloom.systems.crossmae.decoder import DecoderShape, PatchDecoder
from gridloom.systems.crossmae.encoder import EncoderShape
from gridloom.systems.crossmae.multimodal import Modality, MultiModalMAE
from gridloom.systems.crossmae.objective import MaskedModeling
from gridloom.systems.crossmae.patches import ImagePatches, SeriesPatches
from gridloom.systems.crossmae.tokens import MaskInfo

__all__ = [
    "ENCODER",
    "IMAGE",
    "SERIES",
    "config",
    "jitter",
    "make_batch",
    "make_model",
    "make_objective",
    "normal",
    "pick",
    "slow_decode",
]

Net = TypeVar("Net", bound=torch.nn.Module)
IMAGE = ImagePatches(5, 7, (2, 3))  # 3 x 3 patches, the last ones cut off by the grid
SERIES = SeriesPatches(3, 2, 2)  # 3 places, 2 steps of 2 features: of 5 steps, the last patch has one
ENCODER = EncoderShape(dim=16, depth=2, num_heads=2, mlp_ratio=2.0)
DECODER = DecoderShape(dim=8, depth=2, num_heads=2, mlp_ratio=2.0)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def pick(*shape: int, share: float = 0.5, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < share


def jitter(module: Net) -> Net:
    """Move every parameter off its start, so that norms, biases and embeddings count."""
    generator = torch.Generator().manual_seed(7)
    for parameter in module.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
    return module.eval()


def make_model(
    fusion: str = "none", *, static_dim: int = 0, static: str = "token", encoder: Mapping | None = None, **decoder
) -> MultiModalMAE:
    """An image `a` and series `b`, in float64."""
    torch.manual_seed(0)
    shapes = {"encoder": replace(ENCODER, **(encoder or {})), "decoder": replace(DECODER, **decoder)}
    modalities = {"a": Modality(patches=IMAGE, static=False, **shapes), "b": Modality(patches=SERIES, **shapes)}
    return jitter(MultiModalMAE(modalities, static_dim, fusion, static=static).double())


def slow_decode(decoder: PatchDecoder, tokens: Tensor | list[Tensor], info: MaskInfo) -> Tensor:
    """The specification's decoder: sample by sample, position by position, with the unpadded tokens alone."""
    mask = info["mask"]
    size, times, places = mask.shape
    position = decoder.position
    dim = decoder.shape.dim
    predicted = torch.zeros(size, times, places, decoder.patches.num_cells, dtype=torch.float64)
    for b in range(size):
        kept = ~info["padding_mask"][b]
        known = [one[b : b + 1, kept] for one in (tokens if isinstance(tokens, list) else [tokens])]
        for t in range(times):
            for p in range(places):
                if not mask[b, t, p]:
                    continue
                rates = 10000.0 ** (-torch.arange(dim // 2, dtype=torch.float64) / (dim // 2))
                temporal = torch.cat([torch.sin(t * rates), torch.cos(t * rates)])
                x = (decoder.mask_token + position.spatial[p] + temporal)[None, None]
                for number, block in enumerate(decoder.layers):
                    context = known[-1]
                    if decoder.mixing is not None:
                        weights = decoder.mixing.linear.weight[number]
                        context = sum(w * one for w, one in zip(weights, known, strict=True))
                        context = decoder.context_norms[number](context)
                    x = block(x, context)
                predicted[b, t, p] = decoder.head(decoder.norm(x))[0, 0]
    return predicted


def config(
    *,
    modalities: Mapping[str, ModalityConfig] | None = None,
    model: Mapping | None = None,
    masking: Mapping | None = None,
    loss: LossConfig | None = None,
    static_dim: int = 0,
) -> CrossMAEConfig:
    """The same two modalities as a configuration."""
    return CrossMAEConfig(
        modalities=modalities
        or {
            "a": ModalityConfig(kind="image", size=(5, 7)),
            "b": ModalityConfig(kind="vector", size=(3, 1), variables=("u", "v")),
        },
        static_dim=static_dim,
        model=replace(
            ModelConfig(
                dim=16,
                image_depth=2,
                vector_depth=1,
                num_heads=2,
                decoder_dim=8,
                decoder_depth=2,
                decoder_heads=2,
                mlp_ratio=2.0,
                image_patch=(2, 3),
                vector_patch=2,
                season=False,
                place=False,
            ),
            **(model or {}),
        ),
        masking=replace(MaskingConfig(share=0.5), **(masking or {})),
        loss=loss or LossConfig(kind="mse"),
    )


def make_objective(**changes) -> MaskedModeling:
    torch.manual_seed(0)
    return jitter(MaskedModeling(config(**changes)))


def make_batch(size: int = 4, *, observed: float = 0.8, seed: int = 0, steps: int = 5) -> Batch:
    """Fields `a` and `b` with gaps."""
    shapes = {"a": (size, steps, 5, 7), "b": (size, 3, steps, 2)}
    fields = {
        name: Field.of(normal(*shape, seed=seed + n, dtype=torch.float32), pick(*shape, share=observed, seed=seed + n))
        for n, (name, shape) in enumerate(shapes.items())
    }
    return Batch(fields=fields, features={}, window=torch.arange(size), key=window_keys(seed, 0, range(size)))
