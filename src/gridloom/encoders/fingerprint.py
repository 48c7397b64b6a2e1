"""One line that tells encoders apart: embeddings of different ones cannot be compared."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

__all__ = ["fingerprint"]


def fingerprint(module: nn.Module, normalizer: Mapping[str, Any]) -> str:
    """Return the SHA-256, in hex, of an encoder's weights and of the statistics that its input is normalized with.

    Args:
        module: The encoder; names, types, shapes and values of its tensors count, not the device.
        normalizer: JSON record of the normalizer; empty where there is none.
    """
    digest = hashlib.sha256(json.dumps(dict(normalizer), sort_keys=True).encode())
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
