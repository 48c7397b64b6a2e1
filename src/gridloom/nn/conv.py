"""Convolution blocks: normalization by name, two residual blocks, an up-sampling block."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["BasicBlock", "Bottleneck", "UpBlock", "make_norm"]

NormName = Literal["group", "batch"]


def make_norm(name: NormName, channels: int) -> nn.Module:
    """GroupNorm with groups of at least 8 channels, at most 8 groups; or BatchNorm.

    GroupNorm gives the same on one process and many, in train and eval mode; BatchNorm is for old weights. More groups
    of fewer channels are up to 14 times slower on small bfloat16 maps.
    """
    if name == "batch":
        return nn.BatchNorm2d(channels)
    groups = min(8, max(1, channels // 8))
    while channels % groups:
        groups -= 1
    return nn.GroupNorm(groups, channels)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a skip (He et al. 2016, figure 5 left; arXiv 1512.03385).

    Args:
        inputs: Channels that come in.
        outputs: Channels that go out.
        stride: Of the first convolution; the skip is projected where shape changes.
        norm: Kind of normalization.
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1, norm: NormName = "group") -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm1 = make_norm(norm, outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = make_norm(norm, outputs)
        self.skip = _skip(inputs, outputs, stride, norm)

    def forward(self, x: Float[Tensor, "batch inputs y x"]) -> Float[Tensor, "batch outputs y2 x2"]:
        """Apply the block."""
        y = F.relu(self.norm1(self.conv1(x)), inplace=True)
        y = self.norm2(self.conv2(y))
        return F.relu(y.add_(self.skip(x)), inplace=True)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions with a skip (He et al. 2016, figure 5 right; arXiv 1512.03385).

    The stride is that of the 3x3 convolution, as most do it since (Goyal et al. 2017, arXiv 1706.02677).

    Args:
        inputs: Channels that come in.
        outputs: Channels that go out; a quarter of them in between.
        stride: Of the middle convolution; the skip is projected where shape changes.
        norm: Kind of normalization.
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1, norm: NormName = "group") -> None:
        super().__init__()
        middle = outputs // 4
        self.conv1 = nn.Conv2d(inputs, middle, 1, bias=False)
        self.norm1 = make_norm(norm, middle)
        self.conv2 = nn.Conv2d(middle, middle, 3, stride=stride, padding=1, bias=False)
        self.norm2 = make_norm(norm, middle)
        self.conv3 = nn.Conv2d(middle, outputs, 1, bias=False)
        self.norm3 = make_norm(norm, outputs)
        self.skip = _skip(inputs, outputs, stride, norm)

    def forward(self, x: Float[Tensor, "batch inputs y x"]) -> Float[Tensor, "batch outputs y2 x2"]:
        """Apply the block."""
        y = F.relu(self.norm1(self.conv1(x)), inplace=True)
        y = F.relu(self.norm2(self.conv2(y)), inplace=True)
        return F.relu(self.norm3(self.conv3(y)).add_(self.skip(x)), inplace=True)


def _skip(inputs: int, outputs: int, stride: int, norm: NormName) -> nn.Module:
    """The way around a residual block: nothing, or a projection where the shape changes."""
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), make_norm(norm, outputs))


class UpBlock(nn.Module):
    """Nearest up-sampling by two, a 3x3 convolution, then a residual block.

    Nearest up-sampling and convolution leave no checkerboard (Odena et al. 2016, "Deconvolution and checkerboard
    artifacts").
    """

    def __init__(self, inputs: int, outputs: int, *, norm: NormName = "group") -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm = make_norm(norm, outputs)
        self.block = BasicBlock(outputs, outputs, norm=norm)

    def forward(self, x: Float[Tensor, "batch inputs y x"]) -> Float[Tensor, "batch outputs y2 x2"]:
        """Apply the block."""
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        return self.block(F.relu(self.norm(self.conv(x))))  # type: ignore[no-any-return]
