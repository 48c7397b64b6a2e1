"""A trained model as a function of tensors with names, which is what a file that other programs run can hold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

__all__ = ["Graph"]


@dataclass(frozen=True, kw_only=True)
class Graph:
    """A function of tensors with names.

    The first axis of every tensor is the batch. Of the others, a number is a fixed size and a name an axis of any size:
    the same one wherever the name stands.

    Attributes:
        module: Takes the inputs in order and returns a tuple of the outputs in order. On the CPU, in eval mode; no
            branch in it may depend on values or on the size of an axis with a name.
        inputs: Axes of each input after the batch, by name.
        outputs: The same of the outputs.
        least: Least size of an axis with a name; 1 where it is not given.
        examples: Inputs by name. The first are traced, with at least 2 samples and different sizes of different axes;
            with all of them, of which some should have other sizes, what was written is compared with `module`.
        record: JSON for those who use the file: what the inputs mean.
    """

    module: nn.Module
    inputs: Mapping[str, tuple[int | str, ...]]
    outputs: Mapping[str, tuple[int | str, ...]]
    least: Mapping[str, int] = field(default_factory=dict)
    examples: Sequence[Mapping[str, Tensor]]
    record: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what a file cannot hold."""
        both = sorted(set(self.inputs) & set(self.outputs))
        assert not both, f"inputs and outputs of a graph have different names, both have {', '.join(both)}"

    def sizes(self, example: Mapping[str, Tensor]) -> dict[str, int]:
        """Sizes of the batch and of the axes with a name in an example."""
        found = {}
        for name, axes in self.inputs.items():
            named = zip(("batch", *axes), example[name].shape, strict=True)
            found.update({axis: size for axis, size in named if isinstance(axis, str)})
        return found
