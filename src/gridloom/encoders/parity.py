"""Whether a file of an encoder gives what the encoder gives: on fixed samples with missing cells."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gridloom.core.batch import Batch, Field
from gridloom.core.contracts import Encoder, FieldSpec, InputSpec
from gridloom.core.errors import CheckpointError
from gridloom.core.random import uniform
from gridloom.encoders.fitting import probe_batch
from gridloom.encoders.graph import name_inputs
from gridloom.grid.normalize import Normalizer

__all__ = ["Parity", "measure_parity", "probe"]

_COUNTS = (1, 5)
_MISSING_SHARE = 0.2
_GARBAGE = 99
_LEAST_SCALE = 1e-2
"""What is smaller than this is compared as if it were as large: a feature that is 0 has rounding errors alone."""


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How far a file is from the encoder.

    Attributes:
        counts: Numbers of samples that were tried.
        max_difference: Largest absolute difference in any output.
        max_relative: The same over the largest absolute value of that output, at least 0.01.
        min_cosine: Least cosine similarity of two embeddings of a sample.
    """

    counts: tuple[int, ...]
    max_difference: float
    max_relative: float
    min_cosine: float


def measure_parity(
    encoder: Encoder, run: Callable[[Mapping[str, Tensor]], list[Tensor]], *, normalizer: Normalizer | None = None
) -> Parity:
    """Compare.

    Args:
        encoder: In eval mode, on the CPU.
        run: What is in the file: inputs by name to the encoder's outputs, in order.
        normalizer: The file takes values in data units; None if it takes normalized ones.

    Returns:
        NaN where either side gave something that is not finite.

    Raises:
        CheckpointError: An output has another shape.
    """
    differences, relatives, cosines = [], [], []
    for count in _COUNTS:
        given, batch = probe(encoder.inputs, count, normalizer=normalizer)
        with torch.inference_mode():
            expected = encoder(batch)
        for (name, ours), theirs in zip(((name, expected[name]) for name in encoder.outputs), run(given), strict=True):
            if ours.shape != theirs.shape:
                raise CheckpointError(
                    f"output {name!r} of {count} samples: expected shape {list(ours.shape)}, got {list(theirs.shape)}"
                )
            difference = (ours.double() - theirs.double()).abs().max()
            differences.append(difference)
            relatives.append(difference / ours.double().abs().max().clamp(min=_LEAST_SCALE))
            if name == "embedding":
                cosines.append(torch.cosine_similarity(ours.double(), theirs.double()).min())
    return Parity(
        counts=_COUNTS,
        max_difference=float(torch.stack(differences).max()),
        max_relative=float(torch.stack(relatives).max()),
        min_cosine=float(torch.stack(cosines).min()),
    )


def probe(inputs: InputSpec, count: int, *, normalizer: Normalizer | None = None) -> tuple[dict[str, Tensor], Batch]:
    """The same samples twice: as a file takes them, and as the encoder does.

    Where the encoder takes missing cells, a fifth are missing: half of them by mask, with a value that would be seen,
    the others by being NaN.

    Args:
        inputs: What the encoder takes.
        count: Number of samples.
        normalizer: The file takes values in data units.
    """
    batch = probe_batch(inputs, count)
    raw = batch
    for name, spec in inputs.fields.items():
        given = normalized = batch.fields[name].values
        if normalizer is not None:
            given = _each_channel(given, spec, normalizer.invert)
            normalized = _each_channel(given, spec, normalizer.apply)
        gap = torch.zeros_like(given, dtype=torch.bool)
        valid = ~gap
        if inputs.missing == "mask":
            shape = tuple(given.shape[1:])
            gap = uniform(batch.key, shape, f"{name} missing") < _MISSING_SHARE
            valid = ~gap
            given = given.masked_fill(gap, _GARBAGE)
            if given.is_floating_point():
                unmarked = gap & (uniform(batch.key, shape, f"{name} unmarked") < 0.5)
                given, valid = given.masked_fill(unmarked, torch.nan), valid | unmarked
        raw = raw.with_field(name, Field(values=given, valid=valid))
        batch = batch.with_field(name, Field.of(normalized, ~gap))
    return name_inputs(inputs, raw), batch


def _each_channel(values: Tensor, spec: FieldSpec, function: Callable[[str, np.ndarray], np.ndarray]) -> Tensor:
    axis = 1 + spec.dims.index("channel")
    channels = zip(spec.variables, values.unbind(axis), strict=True)
    return torch.stack([torch.from_numpy(function(name, channel.numpy())) for name, channel in channels], axis)
