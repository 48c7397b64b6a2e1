"""export: an encoder to one file that other programs run, compared with the encoder before it is kept."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gridloom.core.batch import Batch
from gridloom.core.config import to_dict
from gridloom.core.contracts import Encoder
from gridloom.core.errors import ConfigError, DataError
from gridloom.core.graph import Graph
from gridloom.encoders.artifact import describe_inputs, load_encoder
from gridloom.encoders.extract import encoder_from_file
from gridloom.encoders.fingerprint import fingerprint
from gridloom.encoders.graph import EncoderGraph
from gridloom.encoders.parity import probe
from gridloom.encoders.portable import Export, check_output, write_portable
from gridloom.grid.normalize import Normalizer

__all__ = ["export_encoder"]

_COUNTS = (2, 1, 5)
"""Numbers of samples that are tried; torch takes 1 for a fixed size, so that it is not the first."""


def export_encoder(
    model: Path | str,
    output: Path | str,
    *,
    window: tuple[int, int] | None = None,
    normalize: bool = False,
    replace: bool = False,
) -> Export:
    """Write an encoder as one file for other programs, for any number of samples of one size.

    Inputs are `values` [N, C, H, W] and, where the encoder takes missing cells, `valid` (boolean, False where missing;
    NaN is missing too). An encoder of several fields has `NAME.values` and `NAME.valid` for each; features keep their
    names. Outputs are those of the encoder. The file's metadata has, under `gridloom`, a JSON record: system, inputs,
    outputs, normalizer, `units` of the values (`data` or `normalized`) and the encoder's SHA-256.

    Args:
        model: Run folder, artifact or file of weights.
        output: `.onnx`, or `.pt2` for `torch.export.load` (which can run code: load your own files alone).
        window: Height and width in cells; default is what the encoder was trained on.
        normalize: The file takes values in data units and normalizes them itself, with the training statistics.
            Otherwise it takes normalized values.
        replace: Overwrite an existing output.

    Raises:
        CheckpointError: No encoder, or the file gives other embeddings than the encoder; nothing is left then.
        ConfigError: Packages of the extra `export` are missing, the encoder cannot be traced, or there are no
            statistics to normalize with.
        DataError: The output is there already or ends otherwise, or a window that does not fit.
    """
    output = Path(output)
    form = check_output(output, replace=replace)
    encoder, system, record = _load(Path(model))
    if window is not None:
        _set_window(encoder, window)
    normalizer = _statistics(model, record) if normalize else None
    samples = [probe(encoder.inputs, count, normalizer=normalizer) for count in _COUNTS]
    graph = Graph(
        module=EncoderGraph(encoder, normalizer=normalizer),
        inputs={name: tuple(tensor.shape[1:]) for name, tensor in samples[0][0].items()},
        outputs=encoder.outputs,
        examples=[given for given, _ in samples],
    )
    described = {
        "encoder_sha256": fingerprint(encoder, record),
        "units": "data" if normalize else "normalized",
        "inputs": to_dict(encoder.inputs),
        "outputs": to_dict(encoder.outputs),
        "normalizer": dict(record),
    }
    return write_portable(
        graph,
        output,
        form=form,
        system=system,
        model=model,
        part="encoder",
        record=described,
        expected=lambda: _encode(encoder, [batch for _, batch in samples]),
    )


@torch.inference_mode()
def _encode(encoder: Encoder, batches: Sequence[Batch]) -> list[list[Tensor]]:
    encoded = [encoder(batch) for batch in batches]
    return [[each[name] for name in encoder.outputs] for each in encoded]


def _load(model: Path) -> tuple[Encoder, str, Mapping[str, Any]]:
    """Return the encoder, the name of its system and the record of its normalizer."""
    if model.is_file():
        found = encoder_from_file(model)
        return found.encoder, found.system.name, found.normalizer
    loaded = load_encoder(model)
    return loaded.encoder, loaded.artifact.system.name, loaded.normalizer


def _set_window(encoder: Encoder, window: tuple[int, int]) -> None:
    inputs = encoder.inputs
    (name, spec), *others = inputs.fields.items()
    if others or spec.dims[-2:] != ("y", "x"):
        raise DataError(f"a window is for encoders of one field [..., y, x], this one takes {describe_inputs(inputs)}")
    if any(size < 1 or size % spec.multiple_of for size in window):
        raise DataError(f"window must be multiples of {spec.multiple_of}, got {window[0]}x{window[1]}")
    resized = dataclasses.replace(spec, size=(*spec.size[:-2], *window))
    encoder.inputs = dataclasses.replace(inputs, fields={name: resized})


def _statistics(model: Path | str, record: Mapping[str, Any]) -> Normalizer:
    if not record:
        raise ConfigError(f"{model}: these weights came without training statistics; leave --normalize out")
    return Normalizer.from_json(record)
