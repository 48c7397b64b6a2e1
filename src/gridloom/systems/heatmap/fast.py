"""The same model arranged for inference: the decoder's up-sampling without waste, weights cast once."""

import copy
from typing import Literal, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from gridloom.core.errors import DataError
from gridloom.nn.causal import CausalTransformer
from gridloom.systems.heatmap.decoder import HeatmapDecoder
from gridloom.systems.heatmap.encoder import Backbone, ResidualBlock
from gridloom.systems.heatmap.wrapper import AutoRegWrapper

__all__ = ["FastBackbone", "FastDecoder", "FastLinear", "fast_decoder", "fast_model"]

Precision = Literal["fp32", "bf16"]
Model = TypeVar("Model", bound=nn.Module)

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}

# Rows for which a CPU multiplies weights by transposed inputs faster than inputs by transposed weights: up to 1.9 times
# in float32 (of less than 4 rows it reads each weight once either way), up to 1.5 times in bfloat16.
_WEIGHTS_FIRST = {torch.float32: range(4, 33), torch.bfloat16: range(2, 129)}

# Up-sampling by two and a 3x3 kernel make, of each axis, four taps: every second cell sees two of them. Rows: taps;
# columns: the kernel's rows that fall onto one and the same coarse cell.
_TAPS = ((0.0, 0.0, 1.0), (0.0, 1.0, 1.0), (1.0, 1.0, 0.0), (1.0, 0.0, 0.0))


class FastLinear(nn.Module):
    """A linear layer for few rows: memory bound, so that half the weights' bytes and the right order count.

    Args:
        layer: The original; its weights are copied.
        dtype: Of weights and products; sums over inputs are float32 in either.
        rows: Order in which the outputs come; as in the original if not given.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, layer: nn.Linear, dtype: torch.dtype = torch.float32, rows: Tensor | None = None) -> None:
        super().__init__()
        order = slice(None) if rows is None else rows
        self.register_buffer("weight", layer.weight.detach()[order].to(dtype, copy=True))
        bias = layer.bias.detach()[order].float().clone() if layer.bias is not None else None
        self.register_buffer("bias", bias)

    def forward(self, x: Float[Tensor, "*leading inputs"]) -> Float[Tensor, "*leading outputs"]:
        """Apply the layer; float32 comes out."""
        rows = x.reshape(-1, x.shape[-1]).to(self.weight.dtype)
        if len(rows) == 1:
            y = torch.mv(self.weight, rows[0]).float()
        elif x.device.type == "cpu" and len(rows) in _WEIGHTS_FIRST.get(self.weight.dtype, ()):
            y = (self.weight @ rows.t()).t().to(torch.float32, memory_format=torch.contiguous_format, copy=True)
        else:
            y = F.linear(rows, self.weight).float()
        if self.bias is not None:
            y += self.bias
        return y.view(*x.shape[:-1], len(self.weight))


class _Norm(nn.Module):
    """Group norm and GELU of maps in channels-last order."""

    weight: Tensor
    bias: Tensor

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.groups, self.eps = norm.num_groups, norm.eps
        self.register_buffer("weight", norm.weight.detach().float().clone())
        self.register_buffer("bias", norm.bias.detach().float().clone())

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """Normalize, add the skip, apply GELU."""
        dtype = x.dtype
        # The bfloat16 kernel is four times slower than the float32 one on narrow groups of small maps.
        if dtype != torch.float32 and x.shape[1] // self.groups < 16 and x.shape[2] * x.shape[3] < 1024:
            x = x.float()
        x = F.group_norm(x, self.groups, self.weight, self.bias, self.eps).to(dtype)
        if skip is not None:
            x += skip
        # Seen as [N, H, W, C] it is contiguous, which doubles the speed of GELU.
        return F.gelu(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class _Convolution(nn.Module):
    """A convolution and the norm after it, channels-last."""

    weight: Tensor
    bias: Tensor

    def __init__(self, convolution: nn.Conv2d, norm: nn.GroupNorm, dtype: torch.dtype) -> None:
        super().__init__()
        assert convolution.bias is not None
        self.stride = int(convolution.stride[0])
        weight = convolution.weight.detach().to(dtype, copy=True, memory_format=torch.channels_last)
        self.register_buffer("weight", weight)
        self.register_buffer("bias", convolution.bias.detach().to(dtype, copy=True))
        self.norm = _Norm(norm)

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """Convolve, normalize, add the skip, apply GELU."""
        return self.norm(F.conv2d(x, self.weight, self.bias, self.stride, 1), skip)  # type: ignore[no-any-return]


class _FastResidual(nn.Module):
    """A residual block, channels-last."""

    def __init__(self, block: ResidualBlock, dtype: torch.dtype) -> None:
        super().__init__()
        self.first = _Convolution(block.conv1, block.norm1, dtype)
        self.second = _Convolution(block.conv2, block.norm2, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        return self.second(self.first(x), x)  # type: ignore[no-any-return]


class FastBackbone(nn.Module):
    """The encoder's convolutions, channels-last, in another type; float32 goes in and comes out."""

    def __init__(self, backbone: Backbone, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        layers: list[nn.Module] = []
        for convolution, norm, _, *blocks in (backbone.stem, *backbone.stages):
            layers.append(_Convolution(convolution, norm, dtype))
            layers += [_FastResidual(block, dtype) for block in blocks]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Float[Tensor, "batch channel y x"]) -> Float[Tensor, "batch feature y2 x2"]:
        """Return the last stage's features."""
        return self.layers(x.to(self.dtype, memory_format=torch.channels_last)).float()  # type: ignore[no-any-return]


class _UpSampling(nn.Module):
    """Nearest up-sampling by two and a 3x3 convolution as one transposed convolution, then norm and GELU.

    Every second cell of the fine map sees the same 2x2 coarse cells: the nine products of a fine cell are four, with
    weights that are summed beforehand. That is a transposed convolution of kernel 4 and stride 2.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, convolution: nn.Conv2d, norm: nn.GroupNorm, dtype: torch.dtype) -> None:
        super().__init__()
        assert convolution.bias is not None
        kernel = convolution.weight.detach().double()
        taps = torch.tensor(_TAPS, dtype=torch.float64, device=kernel.device)
        weight = torch.einsum("ja,kb,oiab->iojk", taps, taps, kernel)
        self.register_buffer("weight", weight.to(dtype, memory_format=torch.channels_last))
        self.register_buffer("bias", convolution.bias.detach().to(dtype, copy=True))
        self.norm = _Norm(norm)

    def forward(self, x: Float[Tensor, "batch inputs y x"]) -> Float[Tensor, "batch outputs y2 x2"]:
        """Apply the stage."""
        return self.norm(F.conv_transpose2d(x, self.weight, self.bias, 2, 1))  # type: ignore[no-any-return]


class FastDecoder(nn.Module):
    """What a `HeatmapDecoder` computes, for inference: no gradients, weights copied.

    Each up-sampling and convolution is one transposed convolution with 4/9 of the products; maps lie channels-last from
    the linear layer on, whose outputs are put in that order once.

    Args:
        decoder: The original.
        dtype: Of weights and maps; norms' weights, logits and pixels stay float32.
        linear: Takes the place of the first layer, for other inputs than latents.
    """

    weight: Tensor
    bias: Tensor

    def __init__(
        self, decoder: HeatmapDecoder, dtype: torch.dtype = torch.float32, linear: nn.Linear | None = None
    ) -> None:
        super().__init__()
        self.config = config = decoder.config
        self.dtype = dtype
        height, width = config.coarse
        linear = linear or decoder.linear
        rows = torch.arange(linear.out_features, device=linear.weight.device)
        rows = rows.view(config.widths[-1], height, width).permute(1, 2, 0).flatten()
        self.linear = FastLinear(linear, dtype, rows)
        stages = [_UpSampling(stage[1], stage[2], dtype) for stage in decoder.stages]  # type: ignore[index]
        self.stages = nn.Sequential(*stages)
        assert decoder.out.bias is not None
        self.register_buffer("weight", decoder.out.weight.detach().flatten(1).to(dtype, copy=True))
        self.register_buffer("bias", decoder.out.bias.detach().float()[:, None].clone())
        self.around = None
        if decoder.around is not None:
            weight = decoder.gain.detach() * decoder.around.weight.detach()
            self.around = FastLinear(_linear(weight, torch.zeros(len(weight), device=weight.device)), dtype)
        self.eval()

    def forward(self, z: Float[Tensor, "*leading latent"]) -> Float[Tensor, "*leading channel y x"]:
        """Decode latents `(B,T,latent_dim)` or `(N,latent_dim)` to pixels in [0, 1], float32."""
        return self.logits(z).sigmoid_()

    @torch.no_grad()
    def logits(self, z: Float[Tensor, "*leading latent"]) -> Float[Tensor, "*leading channel y x"]:
        """What the sigmoid is taken of.

        Raises:
            DataError: Another shape of the latents.
        """
        config, size = self.config, self.linear.weight.shape[1]
        if z.ndim not in (2, 3) or z.shape[-1] != size:
            raise DataError(f"latents must be (B,T,{size}) or (N,{size}), got {tuple(z.shape)}")
        x = self.linear(z.reshape(-1, size)).to(self.dtype)
        x = x.view(-1, *config.coarse, config.widths[-1]).permute(0, 3, 1, 2)
        x = self.stages(x).permute(0, 2, 3, 1).flatten(1, 2)
        logits = torch.matmul(self.weight, x.transpose(1, 2)).float().add_(self.bias)
        if self.around is not None:
            logits = logits + self.around(z.reshape(-1, size)).view_as(logits)
        return logits.view(*z.shape[:-1], config.channels, config.height, config.width)


def fast_decoder(decoder: HeatmapDecoder, *, dtype: torch.dtype = torch.float32) -> FastDecoder:
    """A copy of a decoder for inference.

    Args:
        decoder: The original; later changes of it are not followed.
        dtype: float32, or bfloat16, which is faster where the CPU or GPU computes in it.
    """
    return FastDecoder(decoder, dtype)


class _EitherLinear(nn.Module):
    """The layer for inputs of this size."""

    def __init__(self, *layers: FastLinear) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.sizes = [layer.weight.shape[1] for layer in layers]

    def forward(self, x: Float[Tensor, "*leading inputs"]) -> Float[Tensor, "*leading outputs"]:
        """Apply it."""
        return self.layers[self.sizes.index(x.shape[-1])](x)  # type: ignore[no-any-return]


class _Room(nn.Module):
    """Room for the slot, behind the state."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Float[Tensor, "*leading state"]) -> Float[Tensor, "*leading larger"]:
        """Append zeros."""
        return F.pad(x, (0, self.size)) if self.size else x


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")  # draws no random numbers
    layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
    return layer


def _product(second: nn.Linear, first: nn.Linear) -> nn.Linear:
    """One linear layer for two."""
    return _linear(second.weight @ first.weight, F.linear(first.bias, second.weight, second.bias))


@torch.no_grad()
def _fold(model: AutoRegWrapper, dtype: torch.dtype) -> dict[int, nn.Module]:
    """Multiply out what lies between the transformer's last norm and the decoder's first map.

    These are three linear layers and a sum with the slot's embedding. Latents are wide and the transformer's state is
    not, so that the product has a tenth of the weights. The copy's causal part says its state, with room for the slot;
    the embedding puts a one there; the decoder's first layer takes both, and so does the causal part's for latents that
    are fed back. Nothing is folded where a state is not smaller than a latent, nor where the decoder has a linear way
    around, which takes latents too.

    Returns:
        What takes the place of which module.
    """
    causal, head, decoder = model.causal, model.head, model.decoder
    if not isinstance(causal, CausalTransformer) or head is None or decoder is None or decoder.around is not None:
        return {}
    num_slots = 0 if model.next_slot is None else model.next_slot.num_embeddings
    state = causal.dim + num_slots
    if state >= causal.inputs.in_features:
        return {}
    slots = [] if model.next_slot is None else [model.next_slot.weight.t()]
    outputs = _linear(torch.cat([causal.outputs.weight, *slots], 1), causal.outputs.bias)
    latents = _product(head, outputs)
    inputs = [FastLinear(causal.inputs, dtype), FastLinear(_product(causal.inputs, latents), dtype)]
    found: dict[int, nn.Module] = {
        id(causal.outputs): _Room(num_slots),
        id(causal.inputs): _EitherLinear(*inputs),
        id(head): nn.Identity(),
        id(decoder): FastDecoder(decoder, dtype, _product(decoder.linear, latents)),
    }
    if model.next_slot is not None:
        ones = F.pad(torch.eye(num_slots, device=head.weight.device), (causal.dim, 0))
        found[id(model.next_slot)] = nn.Embedding.from_pretrained(ones)  # type: ignore[no-untyped-call]
    return found


def fast_model(model: Model, *, precision: str = "fp32") -> Model:
    """A copy of a model for inference, in eval mode, that is called as the original is.

    Linear layers and the decoder are exchanged for their fast forms, in bf16 the encoder's convolutions as well. Norms,
    attention, keys and values stay float32; so do all inputs and outputs. In a wrapper with a transformer all linear
    layers from its last norm to the decoder's first map are multiplied out, which takes about half a second: its causal
    part then says its state instead of a latent.

    Args:
        model: The wrapper or a part of it; later changes of it are not followed.
        precision: `fp32`, the same numbers up to rounding; or `bf16`, half the bytes of weights, less than 1 % off.

    Raises:
        DataError: Another precision.
    """
    if precision not in _DTYPES:
        raise DataError(f"precision must be 'fp32' or 'bf16', got {precision!r}")
    # What is in the memo stands for the original in the copy, so that no weights are copied in vain.
    return copy.deepcopy(model, _exchanges(model, _DTYPES[precision])).eval().requires_grad_(False)


def _exchanges(module: nn.Module, dtype: torch.dtype) -> dict[int, nn.Module]:
    """What takes the place of which module, itself or a part of it."""
    if type(module) is nn.Linear:
        return {id(module): FastLinear(module, dtype)}
    if isinstance(module, HeatmapDecoder):
        return {id(module): FastDecoder(module, dtype)}
    if isinstance(module, Backbone) and dtype != torch.float32:
        return {id(module): FastBackbone(module, dtype)}
    found = _fold(module, dtype) if isinstance(module, AutoRegWrapper) else {}
    for part in module.children():
        # A folded part is exchanged as a whole; the causal part, in which others are, is looked into.
        found = (_exchanges(part, dtype) | found) if id(part) not in found else found
    return found
