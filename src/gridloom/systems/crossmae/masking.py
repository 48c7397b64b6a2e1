"""What is hidden while training: patches by several strategies, with exact counts, drawn from the samples' keys.

A strategy ranks the patches; as many as wanted are hidden in the order of their ranks, among those with data. So all
strategies hide the same number, and samples with equally many patches make rectangular batches.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from gridloom.core.random import uniform

__all__ = ["STRATEGIES", "Strategy", "choose_share", "dirichlet_shares", "draw_masks", "transplant"]

Strategy = Literal["random", "tube", "time", "blocks", "gaps", "modality", "dirichlet"]
"""Single patches; places through all times; whole times; boxes in space and time; real gaps of other times; a whole
modality; shares of the modalities that vary, as MultiMAE draws them."""

_Rank = Callable[[Tensor, int, tuple[int, int], str], Tensor]
_NUM_BOXES = 64


def _random(key: Tensor, times: int, layout: tuple[int, int], stream: str) -> Tensor:
    return uniform(key, (times, layout[0] * layout[1]), f"{stream}.random")


def _tube(key: Tensor, times: int, layout: tuple[int, int], stream: str) -> Tensor:
    places = uniform(key, (1, layout[0] * layout[1]), f"{stream}.tube")
    return places.expand(-1, times, -1)


def _time(key: Tensor, times: int, layout: tuple[int, int], stream: str) -> Tensor:
    frames = uniform(key, (times, 1), f"{stream}.time")
    return frames.expand(-1, -1, layout[0] * layout[1])


def _blocks(key: Tensor, times: int, layout: tuple[int, int], stream: str) -> Tensor:
    """Number of the first box that covers a patch: boxes of up to half of each axis, anywhere."""
    draws = uniform(key, (_NUM_BOXES, 6), f"{stream}.blocks")
    covered = torch.ones(len(key), _NUM_BOXES, times, *layout, dtype=torch.bool, device=key.device)
    for axis, size in enumerate((times, *layout)):
        length = (draws[..., axis] * max(1.0, size / 2)).ceil().clamp(min=1)
        start = (draws[..., axis + 3] * (size + length - 1) - (length - 1)).floor()
        cells = torch.arange(size, device=key.device)
        inside = (cells >= start[..., None]) & (cells < (start + length)[..., None])
        covered &= inside.reshape(*inside.shape[:2], *(size if a == axis else 1 for a in range(3)))
    number = torch.where(covered.any(1), covered.float().argmax(1), _NUM_BOXES)
    return number.flatten(2) + 0.999 * uniform(key, (times, layout[0] * layout[1]), f"{stream}.rest")


STRATEGIES: Mapping[str, _Rank] = {
    "random": _random,
    "tube": _tube,
    "time": _time,
    "blocks": _blocks,
    # These hide single cells, or choose among the modalities; what is left is random.
    "gaps": _random,
    "modality": _random,
    "dirichlet": _random,
}
"""How each strategy ranks the patches of one modality: low ranks are hidden first."""


def choose_share(
    ranks: Float[Tensor, "batch times places"],
    among: Bool[Tensor, "batch times places"],
    share: Float[Tensor, " batch"],
) -> Bool[Tensor, "batch times places"]:
    """Choose this share of the patches in `among`, rounded, those of the lowest ranks."""
    flat = torch.where(among, ranks, torch.inf).flatten(1)
    place = flat.argsort(dim=1, stable=True).argsort(dim=1)
    count = (among.flatten(1).sum(1) * share.double()).round()
    return (place < count[:, None]).view(among.shape) & among


def dirichlet_shares(
    key: Int64[Tensor, " batch"], num_modalities: int, visible: float, alpha: float
) -> Float[Tensor, "batch modalities"]:
    """Hidden share of each modality when what is visible in all is dealt out by a Dirichlet (MultiMAE, 2204.01678).

    Args:
        key: Keys of the samples.
        num_modalities: Modalities to deal to.
        visible: Mean share of the patches that stay visible.
        alpha: Concentration: 1 is any way of dealing, large deals equally.
    """
    from scipy.special import gammaincinv

    draws = uniform(key, (num_modalities,), "dirichlet", dtype=torch.float64).cpu().numpy()
    gamma = np.maximum(gammaincinv(alpha, np.clip(draws, 1e-12, 1 - 1e-12)), 1e-300)
    budget = num_modalities * visible
    dealt = np.minimum(budget * gamma / gamma.sum(1, keepdims=True), 1.0)
    room = 1.0 - dealt  # what one modality cannot take goes to the others
    dealt += (budget - dealt.sum(1, keepdims=True)) * room / np.maximum(room.sum(1, keepdims=True), 1e-300)
    return torch.from_numpy(1.0 - dealt).clamp(0.0, 1.0).float().to(key.device)


def draw_masks(
    key: Int64[Tensor, " batch"],
    has_data: Mapping[str, Bool[Tensor, "batch times places"]],
    layouts: Mapping[str, tuple[int, int]],
    shares: Mapping[str, float],
    strategies: Sequence[Strategy],
    *,
    alpha: float = 1.0,
) -> tuple[dict[str, Tensor], Tensor]:
    """Choose the patches that are hidden.

    Args:
        key: Keys of the samples; each draws its own strategy.
        has_data: Patches with an observed cell, by modality.
        layouts: Rows and columns of the patches.
        shares: Share to hide, by modality; one that is not named stays visible under every strategy.
        strategies: Which to draw from, equally often.
        alpha: Of the strategy `dirichlet`.

    Returns:
        Masks by modality, and the number in `strategies` that each sample drew.
    """
    drawn = (uniform(key, (), "strategy") * len(strategies)).long().clamp(max=len(strategies) - 1)
    names = [name for name in has_data if name in shares]
    hidden_share = {name: torch.full((len(key),), shares[name], device=key.device) for name in names}
    if "dirichlet" in strategies and names:
        mean = 1.0 - sum(shares[name] for name in names) / len(names)
        dealt = dirichlet_shares(key, len(names), mean, alpha)
        chosen = drawn == strategies.index("dirichlet")
        for place, name in enumerate(names):
            hidden_share[name] = torch.where(chosen, dealt[:, place], hidden_share[name])
    if "modality" in strategies:
        which = (uniform(key, (), "modality") * len(names)).long().clamp(max=len(names) - 1)
        chosen = drawn == strategies.index("modality")
        for place, name in enumerate(names):
            hidden_share[name] = hidden_share[name].masked_fill(chosen & (which == place), 1.0)
    masks = {name: torch.zeros_like(patches) for name, patches in has_data.items()}
    for name in names:
        times = has_data[name].shape[1]
        ranks = torch.stack([STRATEGIES[kind](key, times, layouts[name], name) for kind in strategies])
        own = ranks[drawn, torch.arange(len(key), device=key.device)]
        masks[name] = choose_share(own, has_data[name], hidden_share[name])
    return masks, drawn


def transplant(
    key: Int64[Tensor, " batch"], valid: Bool[Tensor, "batch *dims"], stream: str, *, time_axis: int
) -> Bool[Tensor, "batch *dims"]:
    """Hide observed cells under the gaps of another time of the same sample.

    Args:
        key: Keys of the samples; each draws by how many steps the gaps are moved.
        valid: False where a cell is missing.
        stream: Name of the draw.
        time_axis: Axis of time, without the batch.

    Returns:
        True where an observed cell is hidden; nothing is where all times have the same gaps.
    """
    steps = valid.shape[time_axis + 1]
    by = 1 + (uniform(key, (), f"{stream}.gaps") * max(1, steps - 1)).long()
    moved = (torch.arange(steps, device=valid.device) + by[:, None]) % steps
    shape = [len(valid)] + [steps if axis == time_axis else 1 for axis in range(valid.ndim - 1)]
    other = torch.take_along_dim(valid, moved.reshape(shape), dim=time_axis + 1)
    return valid & ~other
