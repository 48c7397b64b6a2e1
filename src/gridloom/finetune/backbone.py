"""The pretrained encoder: read once before training, built from the configuration alone ever after."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gridloom.core.config import from_dict
from gridloom.core.contracts import Encoder, FieldSpec
from gridloom.core.errors import CheckpointError, ConfigError, DataError, UnknownNameError
from gridloom.core.registry import get_system
from gridloom.core.settings import RunConfig
from gridloom.encoders.artifact import describe_inputs, load_encoder
from gridloom.encoders.extract import encoder_from_file
from gridloom.encoders.fingerprint import fingerprint
from gridloom.encoders.fitting import probe_batch
from gridloom.finetune.config import FinetuneConfig

__all__ = ["Backbone", "build_encoder", "frozen_modules", "image_field", "num_features", "read_backbone"]

WHOLE = "all"
"""In `freeze`: the whole encoder."""


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A pretrained encoder with what is known of it.

    Attributes:
        encoder: With its weights, in eval mode, on the CPU.
        system: Name of the system that it was trained as.
        config: Its resolved configuration.
        normalizer: JSON record of its training statistics; empty where it came without.
    """

    encoder: Encoder
    system: str
    config: RunConfig
    normalizer: Mapping[str, Any]

    @property
    def sha256(self) -> str:
        """Digest of its weights and statistics."""
        return fingerprint(self.encoder, self.normalizer)


def read_backbone(path: str) -> Backbone:
    """Load a backbone from a run folder, an artifact or a file of weights.

    Raises:
        ConfigError: No path.
        CheckpointError: Nothing there, no encoder in it, or one that does not fit.
        DataError: The encoder takes something else than one image field.
    """
    if not path:
        raise ConfigError(
            "no backbone: pass --backbone RUN, a run folder, artifact or file of weights of a pretrained encoder; "
            "`gridloom train semantic --preset digits-contrast` makes one of digits, runs/semantic-digits-contrast"
        )
    place = Path(path)
    if not place.exists():
        raise CheckpointError(f"backbone not found: {path}; pass a run folder, an artifact or a file of weights")
    if place.is_file():
        found = encoder_from_file(place)
        backbone = Backbone(
            encoder=found.encoder,
            system=found.system.name,
            config=found.config,
            normalizer=found.normalizer,
        )
    else:
        loaded = load_encoder(place)
        backbone = Backbone(
            encoder=loaded.encoder,
            system=loaded.artifact.system.name,
            config=loaded.artifact.config,
            normalizer=loaded.normalizer,
        )
    image_field(backbone.encoder, path)
    return backbone


def image_field(encoder: Encoder, path: str = "backbone") -> tuple[str, FieldSpec]:
    """Return name and description of the one image field that an encoder takes.

    Raises:
        DataError: It takes something else.
    """
    inputs = encoder.inputs
    fields = list(inputs.fields.items())
    if len(fields) != 1 or inputs.features or fields[0][1].dims != ("channel", "y", "x"):
        raise DataError(
            f"{path}: expected an encoder of one field [channel, y, x] to fine-tune, it takes {describe_inputs(inputs)}"
        )
    return fields[0]


@torch.no_grad()
def num_features(encoder: Encoder) -> int:
    """Length of the embedding, measured on a probe batch."""
    return int(encoder.eval()(probe_batch(encoder.inputs, 1))["embedding"].shape[-1])


def build_encoder(config: FinetuneConfig) -> Encoder:
    """The backbone without its weights, from a resolved configuration; its inputs are named as in the data.

    Raises:
        ConfigError: The configuration is not resolved.
    """
    record = config.pretrained
    if not record.system:
        raise ConfigError("the backbone is not known yet: `resolve` the configuration first (`gridloom train` does)")
    system = get_system(record.system)
    if system.encoder is None:
        raise ConfigError(f"pretrained.system {record.system!r} has no encoder")
    encoder = system.encoder(from_dict(system.config, record.config, where="pretrained.config"))
    name, spec = image_field(encoder)
    own = replace(spec, variables=config.data.variables, size=(len(config.data.variables), *config.data.window))
    encoder.inputs = replace(encoder.inputs, fields={name: own})
    return encoder


def frozen_modules(encoder: Encoder, names: Iterable[str]) -> list[nn.Module]:
    """The modules that `freeze` names; `layer1` is not `layer10`.

    Raises:
        UnknownNameError: No such module; the message names the nearest.
    """
    known = [name for name, _ in encoder.named_modules() if name]
    found: list[nn.Module] = []
    for name in names:
        if name == WHOLE:
            found.append(encoder)
        elif name in known:
            found.append(encoder.get_submodule(name))
        else:
            nearby = known if "." in name else [other for other in known if "." not in other]
            raise UnknownNameError("layer to freeze", name, [*nearby, WHOLE])
    return found
