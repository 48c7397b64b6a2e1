"""An encoder as a function of tensors with names, which is what a graph in a file can be."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gridloom.core.batch import Batch, Field
from gridloom.core.contracts import Encoder, FieldSpec, InputSpec
from gridloom.core.errors import ConfigError
from gridloom.grid.normalize import Normalizer
from gridloom.grid.steps import Bounds, Log1p, Standard, Step

__all__ = ["EncoderGraph", "input_names", "name_inputs", "steps_of_channels"]


def input_names(inputs: InputSpec) -> list[str]:
    """Names of a graph's inputs: `values` and `valid` of one field, `NAME.values` of several; features by name.

    An encoder that cannot take missing cells has no `valid`.
    """
    parts = ("values", "valid") if inputs.missing == "mask" else ("values",)
    names = [_name(inputs, field, part) for field in inputs.fields for part in parts]
    return [*names, *inputs.features]


def name_inputs(inputs: InputSpec, batch: Batch) -> dict[str, Tensor]:
    """The tensors of a batch under the names of a graph's inputs, in order."""
    tensors = dict(batch.features)
    for name, field in batch.fields.items():
        tensors[_name(inputs, name, "values")] = field.values
        tensors[_name(inputs, name, "valid")] = field.valid.expand_as(field.values).contiguous()
    return {name: tensors[name] for name in input_names(inputs)}


def _name(inputs: InputSpec, field: str, part: str) -> str:
    return part if len(inputs.fields) == 1 else f"{field}.{part}"


class EncoderGraph(nn.Module):
    """An encoder between tensors in and tensors out, in the order of `input_names` and `Encoder.outputs`.

    A cell is missing where `valid` is False or the value is not finite, so that a forgotten mask cannot spoil an
    embedding. Where the encoder cannot take missing cells, NaN comes out if NaN goes in.

    Args:
        encoder: Is put in eval mode.
        normalizer: Values are in data units: normalize them first. None: they are normalized already.

    Raises:
        ConfigError: Statistics that a graph cannot hold, or none for a field.
    """

    def __init__(self, encoder: Encoder, *, normalizer: Normalizer | None = None) -> None:
        super().__init__()
        self.encoder = encoder.eval()
        self._steps: dict[str, list[tuple[Step, ...]]] = {}
        if normalizer is not None:
            fields = encoder.inputs.fields.items()
            self._steps = {name: steps_of_channels(name, spec, normalizer) for name, spec in fields}

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Encode."""
        inputs = self.encoder.inputs
        given = dict(zip(input_names(inputs), tensors, strict=True))
        fields = {name: self._field(name, spec, given) for name, spec in inputs.fields.items()}
        address = torch.arange(tensors[0].shape[0])  # len() would fix the number of samples
        features = {name: given[name] for name in inputs.features}
        encoded = self.encoder(Batch(fields=fields, features=features, window=address, key=address))
        return tuple(encoded[name] for name in self.encoder.outputs)

    def _field(self, name: str, spec: FieldSpec, given: Mapping[str, Tensor]) -> Field:
        inputs = self.encoder.inputs
        values = given[_name(inputs, name, "values")]
        if name in self._steps:
            axis = 1 + spec.dims.index("channel")
            channels = zip(values.unbind(axis), self._steps[name], strict=True)
            values = torch.stack([_normalize(channel, steps) for channel, steps in channels], axis)
        if inputs.missing != "mask":
            return Field(values=values, valid=torch.ones_like(values, dtype=torch.bool))
        valid = given[_name(inputs, name, "valid")]
        if values.is_floating_point():
            valid = valid & torch.isfinite(values)
        return Field(values=torch.where(valid, values, torch.zeros((), dtype=values.dtype)), valid=valid)


def steps_of_channels(name: str, spec: FieldSpec, normalizer: Normalizer) -> list[tuple[Step, ...]]:
    """The normalizing steps of each channel of a field.

    Raises:
        ConfigError: A channel without statistics, or with a climatology, which needs to know the time.
    """
    unknown = [variable for variable in spec.variables if variable not in normalizer.steps]
    if unknown or not spec.variables or "channel" not in spec.dims:
        raise ConfigError(
            f"field {name!r}: expected training statistics for each channel, got none for "
            f"{', '.join(unknown) or 'any'}; leave --normalize out and give normalized values"
        )
    for variable in spec.variables:
        if normalizer.needs_position(variable):
            raise ConfigError(
                f"variable {variable!r}: a climatology needs to know the time, which a graph does not; "
                f"leave --normalize out and give normalized values"
            )
    return [normalizer.steps[variable] for variable in spec.variables]


def _normalize(values: Tensor, steps: tuple[Step, ...]) -> Tensor:
    """The steps in float32: no worse than the rounding of float32 values that come in, and every runtime has it."""
    for step in steps:
        if isinstance(step, Standard):
            values = (values - step.mean) / step.std
        elif isinstance(step, Bounds):
            values = (values - (step.high + step.low) / 2) / (step.scale or 1.0)
        else:
            assert isinstance(step, Log1p)
            values = torch.log1p(values)
    return values
