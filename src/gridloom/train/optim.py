"""AdamW with decay where it belongs, and the learning rate of each step."""

import math

import torch
from torch import nn

from gridloom.core.settings import TrainConfig

__all__ = ["learning_rate", "make_optimizer"]


def learning_rate(step: int, config: TrainConfig) -> float:
    """Linear warm-up to the peak, then half a cosine down to the final rate.

    Args:
        step: The step that is about to be made, from 0.
        config: Peak, final rate, length of warm-up and run.
    """
    warmup = min(config.warmup_steps, config.steps)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, config.steps - 1 - warmup)
    share = 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
    return config.final_learning_rate + (config.learning_rate - config.final_learning_rate) * share


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019); vectors (biases, norms, scalars) are not decayed."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in trainable if parameter.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [parameter for parameter in trainable if parameter.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, eps=config.epsilon, fused=True)
