"""What travels from a source to a model and back: fields with their masks, and one loss per sample."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

__all__ = ["Batch", "Field", "Step", "masked_mean"]


@dataclass(frozen=True, kw_only=True)
class Field:
    """One modality of a batch.

    Attributes:
        values: Any dtype; 0 where invalid, so that a stray NaN can never reach a model.
        valid: Broadcasts to `values`. All False for a sample means that the modality is absent there.
    """

    values: Shaped[Tensor, "batch *dims"]
    valid: Bool[Tensor, "batch *valid_dims"]

    @staticmethod
    def of(values: Tensor, valid: Tensor | None = None) -> "Field":
        """Make a field, with invalid and non-finite cells set to 0 and marked invalid.

        Args:
            values: Any tensor with the batch first.
            valid: Boolean, broadcastable to `values`; None means that every finite cell is valid.
        """
        if valid is None:
            valid = torch.ones_like(values, dtype=torch.bool)
        elif valid.ndim != values.ndim or len(valid) != len(values):
            valid = valid.expand_as(values)  # one mask for all samples: give each its own, so that `take` works
        if values.is_floating_point():
            finite = torch.isfinite(values)
            if not bool(finite.all()):
                valid = valid & finite
        return Field(values=torch.where(valid, values, torch.zeros((), dtype=values.dtype)), valid=valid)

    def apply(self, function: Callable[[Tensor], Tensor]) -> "Field":
        """Return the field with `function` applied to values and mask alike (a move, a slice)."""
        return Field(values=function(self.values), valid=function(self.valid))


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What a source gives and a model takes.

    Attributes:
        fields: Modalities by name: `image`, `river_flow`, `static`, `target`, `flow`.
        features: Side information by name, with the batch first: `slot`, `cut`, `day_of_year`.
        window: Address of each sample in its source; leads back to coordinates.
        key: hash(seed, epoch, window). Every draw that belongs to a sample comes from it (see `core.random`).
    """

    fields: Mapping[str, Field]
    features: Mapping[str, Shaped[Tensor, "batch ..."]]
    window: Int64[Tensor, " batch"]
    key: Int64[Tensor, " batch"]

    def __len__(self) -> int:
        return len(self.window)

    def apply(self, function: Callable[[Tensor], Tensor]) -> "Batch":
        """Return the batch with `function` applied to every tensor."""
        return Batch(
            fields={name: field.apply(function) for name, field in self.fields.items()},
            features={name: function(value) for name, value in self.features.items()},
            window=function(self.window),
            key=function(self.key),
        )

    def to(self, device: torch.device | str) -> "Batch":
        """Return the batch on another device."""
        return self.apply(lambda tensor: tensor.to(device, non_blocking=True))

    def take(self, samples: slice | Tensor) -> "Batch":
        """Return the chosen samples, in the order asked."""
        return self.apply(lambda tensor: tensor[samples])

    def with_field(self, name: str, field: Field) -> "Batch":
        """Return a batch in which one field is replaced or added."""
        return replace(self, fields={**self.fields, name: field})


@dataclass(frozen=True)
class Step:
    """What an objective returns: one loss and one value of each metric per sample.

    Each loss is divided by a number that does not depend on the other samples, so that ranks, accumulation and
    padding change nothing; the trainer averages over the global batch.
    """

    loss: Float[Tensor, " batch"]
    metrics: Mapping[str, Float[Tensor, " batch"]]


def masked_mean(values: Float[Tensor, "batch *dims"], valid: Bool[Tensor, "batch *dims"]) -> Float[Tensor, " batch"]:
    """Mean of each sample over its valid cells; 0, with gradient 0, where a sample has none."""
    chosen = torch.where(valid, values, torch.zeros((), dtype=values.dtype, device=values.device))
    count = valid[..., None].flatten(1).sum(1)
    return chosen[..., None].flatten(1).sum(1) / count.clamp(min=1).to(values.dtype)
