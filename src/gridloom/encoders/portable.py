"""A graph to one file that other programs run, compared with the model before the file is kept."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

import gridloom
from gridloom.core.atomic import new_file
from gridloom.core.errors import CheckpointError, ConfigError, DataError
from gridloom.core.graph import Graph
from gridloom.encoders.formats import FormatName, PortableFormat, choose_format, trace
from gridloom.encoders.parity import Parity, compare

__all__ = ["Export", "check_output", "write_portable"]

_TOLERANCE = 1e-4


@dataclass(frozen=True, kw_only=True)
class Export:
    """What was exported.

    Attributes:
        output: The file.
        format: `onnx` or `pt2`.
        system: Name of the system.
        inputs: Axes of each input by name, after the batch: a size, or a name where any size will do.
        outputs: Axes of each output by name, after the batch.
        parity: How far the file's answers are from the model's.
    """

    output: Path
    format: FormatName
    system: str
    inputs: Mapping[str, tuple[int | str, ...]]
    outputs: Mapping[str, tuple[int | str, ...]]
    parity: Parity


def check_output(output: Path, *, replace: bool) -> PortableFormat:
    """The format that an output asks for.

    Raises:
        DataError: The output is there already or ends otherwise.
        ConfigError: What the format needs is not installed.
    """
    form = choose_format(output)
    if output.exists() and not (replace and output.is_file()):
        raise DataError(f"{output} exists already; choose another --output, or pass --replace to overwrite a file")
    return form


def write_portable(
    graph: Graph,
    output: Path,
    *,
    form: PortableFormat,
    system: str,
    model: Path | str,
    part: str,
    record: Mapping[str, Any],
    expected: Callable[[], Sequence[Sequence[Tensor]]],
) -> Export:
    """Write a graph, and keep the file if it gives what it should.

    Args:
        graph: What is written.
        output: The file.
        form: Its format.
        system: Name of the system.
        model: Where the model came from, for errors.
        part: What of the system it is, for errors: `encoder` or `model`.
        record: JSON for the file's metadata, beside version and system.
        expected: Gives the outputs of each of the graph's examples.

    Raises:
        CheckpointError: The file gives something else; nothing is left then.
        ConfigError: The graph cannot be traced.
    """
    described = {"gridloom": gridloom.__version__, "system": system, **record}
    with new_file(output) as temporary:
        with _in_one_line(ConfigError, f"{model}: the {part} of system {system!r} cannot be exported"):
            form.write(trace(graph), temporary, record=described)
        with _in_one_line(CheckpointError, f"{output}: the file does not give what the {part} gives, it was not kept"):
            parity = compare(graph, form.load(temporary), expected())
            _check(parity)
    return Export(
        output=output, format=form.name, system=system, inputs=graph.inputs, outputs=graph.outputs, parity=parity
    )


def _check(parity: Parity) -> None:
    if not parity.max_relative <= _TOLERANCE:  # NaN is not either
        cosine = "" if parity.min_cosine is None else f"; least cosine {parity.min_cosine:.6f}"
        raise CheckpointError(
            f"largest relative difference {parity.max_relative:.2g}, at most {_TOLERANCE:g} is accepted{cosine}"
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
