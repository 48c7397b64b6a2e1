"""export: an encoder to one file that other programs run, compared with the encoder before it is kept."""

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gridloom
from gridloom.core.atomic import new_file
from gridloom.core.config import to_dict
from gridloom.core.contracts import Encoder
from gridloom.core.errors import CheckpointError, ConfigError, DataError
from gridloom.encoders.artifact import describe_inputs, load_encoder
from gridloom.encoders.extract import encoder_from_file
from gridloom.encoders.fingerprint import fingerprint
from gridloom.encoders.formats import FormatName, choose_format, trace
from gridloom.encoders.graph import EncoderGraph
from gridloom.encoders.parity import Parity, measure_parity, probe
from gridloom.grid.normalize import Normalizer

__all__ = ["Export", "export_encoder"]

_TOLERANCE = 1e-4


@dataclass(frozen=True, kw_only=True)
class Export:
    """What was exported.

    Attributes:
        output: The file.
        format: `onnx` or `pt2`.
        inputs: Shape of each input by name, after the batch.
        outputs: Dimensions of each output by name, after the batch.
        parity: How far the file's answers are from the encoder's.
    """

    output: Path
    format: FormatName
    inputs: Mapping[str, tuple[int, ...]]
    outputs: Mapping[str, tuple[str, ...]]
    parity: Parity


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
    form = choose_format(output)
    if output.exists() and not (replace and output.is_file()):
        raise DataError(f"{output} exists already; choose another --output, or pass --replace to overwrite a file")
    encoder, system, record = _load(Path(model))
    if window is not None:
        _set_window(encoder, window)
    normalizer = _statistics(model, record) if normalize else None
    graph = EncoderGraph(encoder, normalizer=normalizer)
    inputs, _ = probe(encoder.inputs, 2, normalizer=normalizer)
    described = {
        "gridloom": gridloom.__version__,
        "system": system,
        "encoder_sha256": fingerprint(encoder, record),
        "units": "data" if normalize else "normalized",
        "inputs": to_dict(encoder.inputs),
        "outputs": to_dict(encoder.outputs),
        "normalizer": dict(record),
    }
    with new_file(output) as temporary:
        with _in_one_line(ConfigError, f"{model}: the encoder of system {system!r} cannot be exported"):
            form.write(trace(graph, inputs), temporary, record=described)
        with _in_one_line(CheckpointError, f"{output}: the file does not give what the encoder gives, it was not kept"):
            parity = measure_parity(encoder, form.load(temporary), normalizer=normalizer)
            _check(parity)
    shapes = {name: tuple(tensor.shape[1:]) for name, tensor in inputs.items()}
    return Export(output=output, format=form.name, inputs=shapes, outputs=encoder.outputs, parity=parity)


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


def _check(parity: Parity) -> None:
    if not parity.max_relative <= _TOLERANCE:  # NaN is not either
        raise CheckpointError(
            f"largest relative difference {parity.max_relative:.2g}, at most {_TOLERANCE:g} is accepted; "
            f"least cosine {parity.min_cosine:.6f}"
        )


@contextmanager
def _in_one_line(kind: type[ConfigError] | type[CheckpointError], what: str) -> Iterator[None]:
    """Turn what torch and ONNX Runtime raise, which has no common base and many lines, into one error of ours."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise kind(f"{what}: {first:.500}") from error
