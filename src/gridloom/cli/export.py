"""gridloom export MODEL."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

__all__ = ["run"]


@dataclass(frozen=True, kw_only=True)
class ExportVerb:
    """Write an encoder, or a model without one, as one file that other programs run, and compare the file with it."""

    model: tyro.conf.Positional[Path]
    """Run folder, artifact or file of weights."""
    output: Path
    """An .onnx file, for ONNX Runtime and others; or a .pt2 file, for torch.export.load."""
    window: tuple[int, int] | None = None
    """Of an encoder: height and width that the file takes, in cells; default is what it was trained on."""
    normalize: bool = False
    """Of an encoder: the file takes values in data units and normalizes them itself; otherwise normalized ones."""
    replace: bool = False
    """Overwrite an existing file."""


def run(arguments: Sequence[str]) -> int:
    """Export and say what the file takes and gives, and how near it is."""
    parsed = tyro.cli(ExportVerb, args=list(arguments), prog="gridloom export")
    from gridloom.cli.console import print_record
    from gridloom.encoders.parity import describe_sizes
    from gridloom.workflows.export import export

    done = export(parsed.model, parsed.output, window=parsed.window, normalize=parsed.normalize, replace=parsed.replace)
    parity = done.parity
    units = "data (the file normalizes)" if parsed.normalize else "normalized (see the normalizer in its metadata)"
    cosine = parity.min_cosine
    print_record(
        {
            "file": str(done.output),
            "bytes": done.output.stat().st_size,
            "system": done.system,
            **({} if cosine is None else {"units": units}),
            **{f"input {name}": " x ".join(map(str, ("N", *axes))) for name, axes in done.inputs.items()},
            **{f"output {name}": " x ".join(map(str, ("N", *axes))) for name, axes in done.outputs.items()},
            "largest difference": f"{parity.max_difference:.2g} ({parity.max_relative:.2g} relative)",
            **({} if cosine is None else {"least cosine": f"{cosine:.8f}"}),
            "compared on": "; ".join(map(describe_sizes, parity.sizes)),
        }
    )
    return 0
