"""Contrastive learning: two views of a sample are to be nearer to each other than to anything else in the batch."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch import distributed as dist
from torch.nn import functional as F

__all__ = ["info_nce"]


def info_nce(
    first: Float[Tensor, "batch feature"],
    second: Float[Tensor, "batch feature"],
    *,
    temperature: float,
    gather: bool = False,
) -> Float[Tensor, " batch"]:
    """NT-Xent (Chen et al. 2020, arXiv 2002.05709, equation 1), the mean of both directions, for each sample.

    The loss of a sample depends on its companions: they are what it is told apart from.

    Args:
        first: One view of each sample; lengths do not matter.
        second: Another view, in the same order.
        temperature: Divides the cosine similarities.
        gather: Take the samples of all processes as companions, so that the loss is that of one process with the whole
            batch. All processes must have as many samples.
    """
    first, second = F.normalize(first.float(), dim=1), F.normalize(second.float(), dim=1)
    rank = 0
    everything = (first, second)
    if gather and dist.is_initialized() and dist.get_world_size() > 1:
        rank = dist.get_rank()
        everything = (_from_all(first), _from_all(second))
    count, total = len(first), len(everything[0])
    own = torch.arange(rank * count, (rank + 1) * count, device=first.device)
    others = torch.cat(everything)
    losses = []
    for view, (anchor, mate) in enumerate(((first, own + total), (second, own))):
        similarity = anchor @ others.T / temperature
        itself = F.one_hot(own + view * total, len(others)).bool()
        similarity = similarity.masked_fill(itself, -torch.inf)
        losses.append(F.cross_entropy(similarity, mate, reduction="none"))
    return (losses[0] + losses[1]) / 2


def _from_all(mine: Tensor) -> Tensor:
    """Samples of all processes, in the order of their ranks; gradients go back to where the samples came from."""
    from torch.distributed.nn.functional import all_gather

    return torch.cat(all_gather(mine.contiguous()))  # type: ignore[no-untyped-call]
