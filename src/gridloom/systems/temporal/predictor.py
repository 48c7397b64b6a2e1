"""Flow from two latents alone: a light network that goes from coarse to fine, and the losses that need no labels."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from gridloom.core.errors import ConfigError
from gridloom.nn.pad import crop, pad_to_multiple
from gridloom.nn.warp import inside, warp

__all__ = ["FlowPredictor", "flow_losses"]

_FEATURES = 8
_WINDOWS = (3, 7)
_DAMPING = 0.02  # of a feature's variance, at the start
_FLOW_UNIT = 4.0  # cells; what goes into a network is of order 1
_LEAST = 1e-6
_LEAST_LEVELS = 2


class FlowPredictor(nn.Module):
    """Predicts the flow from the current latent to the previous one. Starts at no motion.

    From an eighth of the resolution to the full one, the flow found so far is doubled and corrected. Every correction
    is led by the least-squares answer of the brightness constancy equation in windows of 3 and 7 cells (Lucas and
    Kanade 1981, IJCAI), at the two coarsest levels by the agreement under whole shifts too (a cost volume as in
    PWC-Net, Sun et al. 2018, arXiv 1709.02371). A small convolutional network, the same one at all levels of a kind,
    decides how far to trust which. Latents are standardized first, each channel over the pair, so that units do not
    matter, and mixed into 8 feature maps.
    """

    def __init__(self, channels: int, *, width: int = 16, levels: int = 4, radius: int = 2) -> None:
        """Build it.

        Args:
            channels: Channels of a latent.
            width: Channels between, at fine levels; twice as many at the two coarsest.
            levels: Resolutions, each half of the one before. Motions are found up to about `radius * 2**(levels - 1)`
                cells.
            radius: Largest whole shift that is compared at the two coarsest levels, in cells there.

        Raises:
            ConfigError: A size below 1, or fewer than 2 levels.
        """
        super().__init__()
        if min(channels, width, radius) < 1 or levels < _LEAST_LEVELS:
            raise ConfigError(
                f"channels, width and radius must be at least 1 and levels at least {_LEAST_LEVELS}, "
                f"got {channels}, {width}, {radius} and {levels}"
            )
        self.levels = levels
        self.mix = nn.Conv2d(channels, _FEATURES, 3, padding=1)
        self.sharpen = nn.Conv2d(_FEATURES, _FEATURES, 3, padding=1)
        self.coarse = _Correction(2 * width, radius)
        self.fine = _Correction(width, 0)

    def forward(
        self, z_prev: Float[Tensor, "batch channel y x"], z_cur: Float[Tensor, "batch channel y x"]
    ) -> Float[Tensor, "batch 2 y x"]:
        """Predict the flow of a pair.

        Args:
            z_prev: Latents of before, or the state of a filter; finite.
            z_cur: Latents of now; finite.

        Returns:
            Offsets (dx, dy) in cells, float32, from the current frame to the previous one: the previous one is sampled
            at x + flow(x).
        """
        z_prev, z_cur = z_prev.float(), z_cur.float()
        mean, deviation = _statistics(z_prev, z_cur)
        pair = torch.cat([(z_prev - mean) / deviation, (z_cur - mean) / deviation])
        scales = [self.mix(pad_to_multiple(pair, 2 ** (self.levels - 1)))]
        for _ in range(self.levels - 1):
            scales.append(F.avg_pool2d(scales[-1], 2))
        flow = torch.zeros_like(_halves(scales[-1])[0][:, :2])
        for level in reversed(range(self.levels)):
            maps = scales[level]
            previous, current = _halves(maps + self.sharpen(F.relu(maps)))
            if level < self.levels - 1:
                flow = 2.0 * F.interpolate(flow, scale_factor=2, mode="bilinear", align_corners=False)
            correct = self.coarse if level >= max(1, self.levels - 2) else self.fine
            flow = flow + correct(previous, current, flow)
        return crop(flow, z_cur)


class _Correction(nn.Module):
    """What is to be added to a flow at one resolution."""

    def __init__(self, width: int, radius: int) -> None:
        super().__init__()
        self.radius = radius
        num_windows, num_shifts = len(_WINDOWS), (2 * radius + 1) ** 2 if radius else 0
        self.log_damping = nn.Parameter(torch.full((num_windows,), math.log(_DAMPING)))
        self.body = nn.Sequential(
            nn.Conv2d(3 * num_windows + 3 + _FEATURES + num_shifts, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
        )
        self.last = nn.Conv2d(width, num_windows + 2, 3, padding=1)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, previous: Tensor, current: Tensor, flow: Tensor) -> Tensor:
        moved = warp(previous, flow)
        steps, residuals = self._least_squares(moved, current)
        seen = [steps.flatten(1, 2), residuals, flow / _FLOW_UNIT, current]
        if self.radius:
            seen.append(_agreement(moved, current, self.radius))
        weights: Tensor
        free: Tensor
        weights, free = self.last(self.body(torch.cat(seen, dim=1))).split([len(_WINDOWS), 2], dim=1)
        return (weights[:, :, None] * steps).sum(dim=1) + free

    def _least_squares(self, moved: Tensor, current: Tensor) -> tuple[Tensor, Tensor]:
        """Damped least-squares steps [B, window, 2, H, W], bounded, and the logarithm of the mean squared residuals."""
        difference = current - moved
        across, down = _gradient(0.5 * (current + moved))
        products = [across * across, across * down, down * down, across * difference, down * difference]
        tensor = torch.stack([*products, difference * difference], dim=1).mean(dim=2)
        steps, residuals = [], [tensor[:, 5]]
        for window, log_damping in zip(_WINDOWS, self.log_damping, strict=True):
            xx, xy, yy, xt, yt, tt = _window_mean(tensor, window).unbind(dim=1)
            damping = log_damping.exp() + 0.1 * tt  # noise looks like texture: the more is unexplained, the shorter
            xx, yy = xx + damping, yy + damping
            determinant = xx * yy - xy * xy
            step = torch.stack([yy * xt - xy * yt, xx * yt - xy * xt], dim=1) / determinant[:, None]
            steps.append(step * torch.rsqrt(1.0 + 0.25 * step.square().sum(dim=1, keepdim=True)))  # at most 2 cells
            residuals.append(tt)
        return torch.stack(steps, dim=1), torch.log(torch.stack(residuals, dim=1) + 1e-3) / 3.0


def flow_losses(
    z_prev: Float[Tensor, "batch channel y x"],
    z_cur: Float[Tensor, "batch channel y x"],
    flow: Float[Tensor, "batch 2 y x"],
    *,
    tolerance: float = 0.1,
    edge_sharpness: float = 4.0,
) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    """How badly a flow explains a pair, and how uneven it is. No labels are needed.

    The first is the mean of log(1 + d^2 / tolerance^2) / 2, where d is the difference between the moved previous latent
    and the current one, each channel over its standard deviation in the pair, root mean square over channels. It grows
    slowly beyond the tolerance (Black and Anandan 1996, Computer Vision and Image Understanding 63), so that occluded
    cells, which no flow explains, count little; 0 where the sample lies outside the frame. The second is the mean
    length of the second differences of the flow, less where the latent has edges (as in UFlow, Jonschkowski et al.
    2020, arXiv 2006.04902).

    Args:
        z_prev: Latents of before; clean ones where there are, whatever the flow was predicted from.
        z_cur: Latents of now.
        flow: Backward flow in cells.
        tolerance: Difference below which the loss is quadratic, in standard deviations; more than 0.
        edge_sharpness: How fast the weight of unevenness falls, per standard deviation between neighboring cells.

    Returns:
        Both, one value a sample, at least 0; the second in cells.
    """
    _, deviation = _statistics(z_prev, z_cur)
    difference = (z_cur - warp(z_prev, flow, mode="bicubic")) / deviation
    misfit = 0.5 * torch.log1p(difference.square().mean(dim=1, keepdim=True) / tolerance**2)
    photometric = (misfit * inside(flow, margin=0.5)).mean(dim=(1, 2, 3))
    unevenness = torch.zeros_like(photometric)
    for dim in (2, 3):
        if flow.shape[dim] < 3:  # no second difference
            continue
        edge = torch.exp(-edge_sharpness * (z_cur / deviation).diff(dim=dim).abs().mean(dim=1, keepdim=True))
        length = edge.shape[dim] - 1
        weight = torch.minimum(edge.narrow(dim, 0, length), edge.narrow(dim, 1, length))
        bend = (flow.diff(dim=dim, n=2).square().sum(dim=1, keepdim=True) + 1e-4).sqrt()
        unevenness = unevenness + (weight * bend).mean(dim=(1, 2, 3))
    return photometric, unevenness


def _halves(pair: Tensor) -> tuple[Tensor, Tensor]:
    """The samples of before and those of now; `chunk` would fix their number while torch exports."""
    previous, current = pair.unflatten(0, (2, -1)).unbind()  # type: ignore[no-untyped-call]
    return previous, current


def _statistics(z_prev: Tensor, z_cur: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel over a pair, [B, C, 1, 1] each."""
    variance, mean = torch.var_mean(torch.cat([z_prev, z_cur], dim=2), dim=(2, 3), correction=0, keepdim=True)
    return mean, (variance + _LEAST**2).sqrt()


def _gradient(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences along x and y."""
    padded = F.pad(maps, (1, 1, 1, 1), mode="replicate")
    across = 0.5 * (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2])
    return across, 0.5 * (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1])


def _window_mean(maps: Tensor, window: int) -> Tensor:
    """Mean over windows, of the cells that lie in the frame; one axis after the other, which takes fewer sums."""
    reach = window // 2
    rows = F.avg_pool2d(maps, (1, window), stride=1, padding=(0, reach), count_include_pad=False)
    return F.avg_pool2d(rows, (window, 1), stride=1, padding=(reach, 0), count_include_pad=False)


def _agreement(moved: Tensor, current: Tensor, radius: int) -> Tensor:
    """How much better a whole shift explains the current maps than none does: half the fall in squared error."""
    side = 2 * radius + 1
    padded = F.pad(moved, (radius, radius, radius, radius), mode="replicate")
    # A convolution with one-hot kernels shifts; unlike `unfold` it can be exported for any size.
    one_hot = torch.eye(side * side, dtype=moved.dtype, device=moved.device).view(-1, 1, side, side)
    shifted = F.conv2d(padded.flatten(0, 1)[:, None], one_hot).view(*moved.shape[:2], -1, *moved.shape[2:])
    energy = F.conv2d(0.5 * padded.square().mean(dim=1, keepdim=True), one_hot)
    found: Tensor = (current[:, :, None] * shifted).mean(dim=1) - energy
    middle = side * side // 2
    return found - found[:, middle : middle + 1]
