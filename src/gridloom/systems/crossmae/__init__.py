"""System C: a multi-modal masked autoencoder on fields with missing cells, which fills them."""

from gridloom.nn.attention import CrossAttention, CrossAttentionBlock
from gridloom.systems.crossmae.config import CrossMAEConfig
from gridloom.systems.crossmae.decoder import DecoderShape, ImageDecoder, VectorDecoder
from gridloom.systems.crossmae.encoder import EncoderShape, ImageEncoder, VectorEncoder
from gridloom.systems.crossmae.mixing import WeightedFeatureMaps
from gridloom.systems.crossmae.multimodal import Modality, MultiModalEncoder, MultiModalMAE
from gridloom.systems.crossmae.patches import ImagePatches, SeriesPatches
from gridloom.systems.crossmae.system import SYSTEM

__all__ = [
    "SYSTEM",
    "CrossAttention",
    "CrossAttentionBlock",
    "CrossMAEConfig",
    "DecoderShape",
    "EncoderShape",
    "ImageDecoder",
    "ImageEncoder",
    "ImagePatches",
    "Modality",
    "MultiModalEncoder",
    "MultiModalMAE",
    "SeriesPatches",
    "VectorDecoder",
    "VectorEncoder",
    "WeightedFeatureMaps",
]
