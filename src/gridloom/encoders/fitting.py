"""A batch that fits an input specification: to try an encoder without any data."""

import torch

from gridloom.core.batch import Batch, Field
from gridloom.core.contracts import FieldSpec, InputSpec
from gridloom.core.random import uniform, window_keys

__all__ = ["probe_batch"]


def probe_batch(inputs: InputSpec, size: int = 2) -> Batch:
    """A small fixed batch that fits an input specification."""
    key = window_keys(0, 0, range(size))

    def draw(name: str, spec: FieldSpec) -> Field:
        sizes = spec.size or (1,) * len(spec.dims)
        unit = uniform(key, tuple(length or spec.multiple_of for length in sizes), name)
        dtype = getattr(torch, spec.dtype)
        return Field.of((2.0 * unit - 1.0).to(dtype) if dtype.is_floating_point else (200.0 * unit).to(dtype))

    features = {
        name: torch.zeros(size, *spec.size, dtype=getattr(torch, spec.dtype)) for name, spec in inputs.features.items()
    }
    fields = {name: draw(name, spec) for name, spec in inputs.fields.items()}
    return Batch(fields=fields, features=features, window=torch.arange(size), key=key)
