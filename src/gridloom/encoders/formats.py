"""Files that other programs run: ONNX, and torch's own `.pt2`; written from one trace, and run again to compare."""

import importlib
import json
import logging
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from gridloom.core.errors import ConfigError, DataError
from gridloom.core.graph import Graph

__all__ = ["FormatName", "OnnxFormat", "PortableFormat", "TorchFormat", "Traced", "choose_format", "trace"]

FormatName = Literal["onnx", "pt2"]
Run = Callable[[Mapping[str, Tensor]], list[Tensor]]

_METADATA = "gridloom"
"""Key of an ONNX file's metadata, and name of the extra file in a `.pt2`, whose text is our JSON record."""
_MOST_BYTES = 2**31 - 2**24
"""An ONNX file is one protobuf message of less than 2 GiB."""


@dataclass(frozen=True, kw_only=True)
class Traced:
    """A graph as a program.

    Attributes:
        program: What torch traced.
        inputs: Names of its inputs, in order.
        outputs: Names of its outputs, in order.
        axes: Axes of any size of each input, as torch wants them.
    """

    program: ExportedProgram
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    axes: tuple[Any, ...]


class PortableFormat(ABC):
    """A kind of file that holds a graph with its weights.

    Attributes:
        name: Name, and suffix of its files.
        packages: What must be installed to write one and run it.
    """

    name: FormatName
    packages: tuple[str, ...] = ()

    @abstractmethod
    def write(self, traced: Traced, path: Path, *, record: Mapping[str, Any]) -> None:
        """Write one file.

        Args:
            traced: May be changed.
            path: Where to.
            record: JSON that goes with it.
        """

    @abstractmethod
    def load(self, path: Path) -> Run:
        """Read a file that was just written, and return the function in it: inputs by name to outputs in order."""


class OnnxFormat(PortableFormat):
    """ONNX, by torch's exporter over `torch.export`."""

    name: FormatName = "onnx"
    packages = ("onnx", "onnxscript", "onnxruntime")

    def write(self, traced: Traced, path: Path, *, record: Mapping[str, Any]) -> None:
        """Convert and write, weights included, without the lines of source code that the exporter notes."""
        size = sum(tensor.nbytes for tensor in traced.program.state_dict.values())
        if size > _MOST_BYTES:
            raise DataError(f"an .onnx file holds less than 2 GiB, the model has {size:,} bytes; write a .pt2 file")
        with _quiet_exporter():
            converted = torch.onnx.export(
                traced.program,
                input_names=traced.inputs,
                output_names=traced.outputs,
                dynamic_shapes=traced.axes,
                verbose=False,
            )
        assert converted is not None
        for node in converted.model.graph.all_nodes():
            node.metadata_props.clear()
            for value in node.outputs:  # are named after operations, of which `embedding` is one
                if value.name in (*traced.inputs, *traced.outputs) and not value.is_graph_output():
                    value.name = f"{value.name}.inside"
        converted.model.metadata_props.clear()
        converted.model.metadata_props[_METADATA] = json.dumps(record, ensure_ascii=False)
        converted.save(path, external_data=False)

    def load(self, path: Path) -> Run:
        """Run it with ONNX Runtime on the CPU."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

        def run(tensors: Mapping[str, Tensor]) -> list[Tensor]:
            outputs = session.run(None, {name: tensor.numpy() for name, tensor in tensors.items()})
            return [torch.from_numpy(output) for output in outputs]

        return run


class TorchFormat(PortableFormat):
    """The archive of `torch.export.save`. Reading one can run code: it is for one's own files alone."""

    name: FormatName = "pt2"

    def write(self, traced: Traced, path: Path, *, record: Mapping[str, Any]) -> None:
        """Write, without the lines of source code that were noted while tracing; its inputs have no names."""
        for node in traced.program.graph.nodes:
            node.meta.pop("stack_trace", None)
        torch.export.save(traced.program, path, extra_files={_METADATA: json.dumps(record, ensure_ascii=False)})

    def load(self, path: Path) -> Run:
        """Run it with torch."""
        module = torch.export.load(path).module()

        @torch.no_grad()
        def run(tensors: Mapping[str, Tensor]) -> list[Tensor]:
            return list(module(*tensors.values()))

        return run


def choose_format(output: Path) -> PortableFormat:
    """The format that a file's suffix asks for.

    Raises:
        DataError: Another suffix.
        ConfigError: What it needs is not installed.
    """
    chosen = {f".{form.name}": form for form in (OnnxFormat(), TorchFormat())}.get(output.suffix)
    if chosen is None:
        raise DataError(f"{output}: expected a name that ends in .onnx or .pt2, got {output.suffix or 'no suffix'!r}")
    for package in chosen.packages:
        try:
            importlib.import_module(package)
        except ImportError:
            raise ConfigError(
                f"{output}: needs {package}, which is not installed: pip install 'gridloom[export]', "
                f"or choose an output that ends in .pt2"
            ) from None
    return chosen


def trace(graph: Graph) -> Traced:
    """Trace a graph for any number of samples and any size of the axes that have a name."""
    names = dict.fromkeys(axis for axes in graph.inputs.values() for axis in axes if isinstance(axis, str))
    sizes = {"batch": Dim("batch")} | {name: Dim(name, min=graph.least.get(name)) for name in names}
    each = tuple(
        {place: sizes[axis] for place, axis in enumerate(("batch", *axes)) if isinstance(axis, str)}
        for axes in graph.inputs.values()
    )
    example = graph.examples[0]
    with _quiet_exporter():
        tensors = tuple(example[name] for name in graph.inputs)
        program = torch.export.export(_Positional(graph.module), tensors, dynamic_shapes=(each,))
    return Traced(program=program, inputs=tuple(graph.inputs), outputs=tuple(graph.outputs), axes=(each,))


class _Positional(nn.Module):
    """Takes its inputs as one tuple, whatever the module calls its own arguments: torch wants sizes in that form."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        outputs: tuple[Tensor, ...] = self.module(*tensors)
        return outputs


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Leave out what torch says about itself: its own deprecations, and operators of torchvision that nobody uses."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
            warnings.filterwarnings("ignore", r"# The axis name: .* will not be used", UserWarning)
            yield
    finally:
        logger.setLevel(level)
