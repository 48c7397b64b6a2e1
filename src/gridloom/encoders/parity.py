"""Whether a file gives what the model gives that it was written from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gridloom.core.batch import Batch, Field
from gridloom.core.contracts import FieldSpec, InputSpec
from gridloom.core.errors import CheckpointError
from gridloom.core.graph import Graph
from gridloom.core.random import uniform
from gridloom.encoders.fitting import probe_batch
from gridloom.encoders.graph import name_inputs
from gridloom.grid.normalize import Normalizer

__all__ = ["Parity", "compare", "describe_sizes", "probe"]

_MISSING_SHARE = 0.2
_GARBAGE = 99
_LEAST_SCALE = 1e-2
"""What is smaller than this is compared as if it were as large: a feature that is 0 has rounding errors alone."""


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How far a file is from the model.

    Attributes:
        sizes: What was tried: number of samples and sizes of the axes with a name.
        max_difference: Largest absolute difference in any output.
        max_relative: The same over the largest absolute value of that output, at least 0.01.
        min_cosine: Least cosine similarity of two embeddings of a sample; None where there are no embeddings.
    """

    sizes: tuple[Mapping[str, int], ...]
    max_difference: float
    max_relative: float
    min_cosine: float | None


def compare(
    graph: Graph, run: Callable[[Mapping[str, Tensor]], list[Tensor]], expected: Sequence[Sequence[Tensor]]
) -> Parity:
    """Compare what a file gives on the examples of a graph with what it should give.

    Args:
        graph: What was written.
        run: What is in the file: inputs by name to the outputs, in order.
        expected: The outputs of each example, in order.

    Returns:
        NaN where either side gave something that is not finite.

    Raises:
        CheckpointError: An output has another shape.
    """
    differences, relatives, cosines = [], [], []
    for example, right in zip(graph.examples, expected, strict=True):
        for name, ours, theirs in zip(graph.outputs, right, run(example), strict=True):
            if ours.shape != theirs.shape:
                raise CheckpointError(
                    f"output {name!r} of {describe_sizes(graph.sizes(example))}: expected shape {list(ours.shape)}, "
                    f"got {list(theirs.shape)}"
                )
            difference = (ours.double() - theirs.double()).abs().max()
            differences.append(difference)
            relatives.append(difference / ours.double().abs().max().clamp(min=_LEAST_SCALE))
            if name == "embedding":
                cosines.append(torch.cosine_similarity(ours.double(), theirs.double()).min())
    return Parity(
        sizes=tuple(graph.sizes(example) for example in graph.examples),
        max_difference=float(torch.stack(differences).max()),
        max_relative=float(torch.stack(relatives).max()),
        min_cosine=float(torch.stack(cosines).min()) if cosines else None,
    )


def describe_sizes(sizes: Mapping[str, int]) -> str:
    """Sizes of axes in a few words."""
    return ", ".join(f"{name} {size}" for name, size in sizes.items())


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
