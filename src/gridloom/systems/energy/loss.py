"""InfoNCE and its counter-examples: uniform in the bounds, or also near the target, with the density of the sampler."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from gridloom.core.random import normal, uniform

__all__ = ["draw_negatives", "gradient_penalty", "info_nce", "log_density"]


def info_nce(
    energies: Float[Tensor, "batch candidates"],
    index: Int64[Tensor, " batch"],
    *,
    log_density: Float[Tensor, "batch candidates"] | None = None,
) -> Float[Tensor, " batch"]:
    """Cross-entropy of `-E` against the true candidate (van den Oord et al. 2018, arXiv 1807.03748).

    Args:
        energies: Of the true candidate and the counter-examples.
        index: Place of the true one.
        log_density: log q of the sampler at every candidate, subtracted from the logits: ranking NCE (Singh et al.
            2023, arXiv 2309.05803), consistent for any sampler. None where it is constant (uniform).
    """
    logits = -energies if log_density is None else -energies - log_density
    return F.cross_entropy(logits, index, reduction="none")


def draw_negatives(
    key: Int64[Tensor, " batch"],
    target: Float[Tensor, "batch outputs"],
    bounds: Float[Tensor, "2 outputs"],
    count: int,
    *,
    near_scales: Sequence[float] = (),
) -> Float[Tensor, "batch count outputs"]:
    """Counter-examples of each sample, from its own key.

    Args:
        key: Keys of the samples.
        target: The true coordinates.
        bounds: Lower and upper end of each coordinate.
        count: How many.
        near_scales: Standard deviations, in the targets' units, of those that lie near the target: half of all, shared
            evenly among the scales. Empty: all are uniform.
    """
    low, high = bounds
    outputs = target.shape[1]
    near = count // 2 if near_scales else 0
    negatives: Tensor = low + (high - low) * uniform(key, (count - near, outputs), "uniform negatives")
    if not near:
        return negatives
    scale = torch.tensor([near_scales[i % len(near_scales)] for i in range(near)], device=target.device)[:, None]
    around = target[:, None] + scale * normal(key, (near, outputs), "near negatives")
    return torch.cat([negatives, around], dim=1)


def log_density(
    y: Float[Tensor, "batch candidates outputs"],
    target: Float[Tensor, "batch outputs"],
    bounds: Float[Tensor, "2 outputs"],
    *,
    near_scales: Sequence[float],
) -> Float[Tensor, "batch candidates"]:
    """Log q of the mixture that `draw_negatives` draws from: half uniform, half normal around the target."""
    low, high = bounds
    outputs = target.shape[1]
    inside = ((y >= low) & (y <= high)).all(-1)
    volume = (high - low).log().sum()
    parts = [torch.where(inside, math.log(0.5) - volume, torch.full((), -math.inf, device=y.device))]
    squared = (y - target[:, None]).square().sum(-1)
    for scale in near_scales:
        constant = math.log(0.5 / len(near_scales)) - outputs * math.log(scale * math.sqrt(2 * math.pi))
        parts.append(constant - squared / (2 * scale**2))
    return torch.stack(parts).logsumexp(0)


def gradient_penalty(
    energies: Float[Tensor, "batch candidates"], y: Float[Tensor, "batch candidates outputs"], *, margin: float = 1.0
) -> Float[Tensor, " batch"]:
    """Mean of `max(0, ||dE/dy||_inf - margin)^2` over the candidates (Florence et al. 2021, appendix B.3)."""
    (gradient,) = torch.autograd.grad(energies.sum(), y, create_graph=True)
    steepest = gradient.abs().amax(-1)
    return F.relu(steepest - margin).square().mean(1)
