"""export of a model whose system has no encoder, but can be a function of tensors."""

from pathlib import Path

import torch

from gridloom.core.errors import ConfigError
from gridloom.encoders.artifact import load_model
from gridloom.encoders.fingerprint import fingerprint
from gridloom.encoders.portable import Export, check_output, write_portable

__all__ = ["export_model"]


def export_model(model: Path | str, output: Path | str, *, replace: bool = False) -> Export:
    """Write a trained model as one file for other programs.

    What the inputs and outputs are, the system's `graph` says. The file's metadata has, under `gridloom`, a JSON
    record: system, axes of inputs and outputs, the SHA-256 of the model's weights, and what the system adds.

    Args:
        model: Run folder or artifact.
        output: `.onnx`, or `.pt2` for `torch.export.load` (which can run code: load your own files alone).
        replace: Overwrite an existing output.

    Raises:
        CheckpointError: No model, or the file gives other answers than it; nothing is left then.
        ConfigError: The system has no graph, packages of the extra `export` are missing, or the model cannot be traced.
        DataError: The output is there already or ends otherwise.
    """
    output = Path(output)
    form = check_output(output, replace=replace)
    artifact, trained = load_model(model)
    system = artifact.system
    if system.graph is None:
        raise ConfigError(f"{artifact.path}: system {system.name!r} has no graph that could be exported")
    graph = system.graph(trained)
    record = {
        "model_sha256": fingerprint(trained.objective, trained.normalizer),
        "inputs": {name: ["batch", *axes] for name, axes in graph.inputs.items()},
        "outputs": {name: ["batch", *axes] for name, axes in graph.outputs.items()},
        "least": dict(graph.least),
        **graph.record,
    }

    @torch.inference_mode()
    def expected() -> list[tuple[torch.Tensor, ...]]:
        return [graph.module(*(example[name] for name in graph.inputs)) for example in graph.examples]

    return write_portable(
        graph, output, form=form, system=system.name, model=model, part="model", record=record, expected=expected
    )
