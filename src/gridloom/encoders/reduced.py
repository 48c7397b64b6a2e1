"""Encoding in bfloat16, from a copy of the weights that follows the original."""

import copy
from typing import Literal, get_args

import torch
from torch import Tensor

from gridloom.core.batch import Batch
from gridloom.core.contracts import Encoder
from gridloom.core.errors import DataError

__all__ = ["Precision", "ReducedCopy", "check_precision"]

Precision = Literal["fp32", "bf16"]


def check_precision(precision: str) -> None:
    """Refuse another name than those there are.

    Raises:
        DataError: Names what there is.
    """
    if precision not in get_args(Precision):
        raise DataError(f"precision must be 'fp32' or 'bf16', got {precision!r}")


class ReducedCopy:
    """A copy of an encoder for inference in bfloat16; made when it is first needed, and again when weights changed."""

    def __init__(self) -> None:
        self._made_from: list[tuple[int, int]] = []
        self._copy: Encoder | None = None

    def encode(self, encoder: Encoder, batch: Batch) -> Tensor:
        """Embed a batch in eval mode; float32 comes out.

        Args:
            encoder: The original. Submodules that it names in `bf16_modules` are cast; without any, its float32
                weights are used under autocast.
            batch: On the encoder's device.
        """
        # Every change in place counts a tensor's version up, and another tensor lies elsewhere.
        tensors = [*encoder.parameters(), *encoder.buffers()]
        state = [(tensor.data_ptr(), -1 if tensor.is_inference() else tensor._version) for tensor in tensors]
        if self._copy is None or state != self._made_from:
            made = copy.deepcopy(encoder).eval().requires_grad_(False)
            for name in made.bf16_modules:
                made.get_submodule(name).to(torch.bfloat16)
            self._made_from, self._copy = state, made
        with torch.autocast(batch.key.device.type, torch.bfloat16, enabled=not encoder.bf16_modules):
            embedding: Tensor = self._copy(batch)["embedding"]
        return embedding.float()
