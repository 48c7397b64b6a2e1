"""gridloom export MODEL."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

__all__ = ["run"]


@dataclass(frozen=True, kw_only=True)
class ExportVerb:
    """Write an encoder as one file that other programs run, and compare the file with the encoder."""

    model: tyro.conf.Positional[Path]
    """Run folder, artifact or file of weights."""
    output: Path
    """An .onnx file, for ONNX Runtime and others; or a .pt2 file, for torch.export.load."""
    window: tuple[int, int] | None = None
    """Height and width that the file takes, in cells; default is what the encoder was trained on."""
    normalize: bool = False
    """The file takes values in data units and normalizes them itself; otherwise normalized ones."""
    replace: bool = False
    """Overwrite an existing file."""


def run(arguments: Sequence[str]) -> int:
    """Export and say what the file takes and gives, and how near it is."""
    parsed = tyro.cli(ExportVerb, args=list(arguments), prog="gridloom export")
    from gridloom.cli.console import print_record
    from gridloom.workflows.export import export

    done = export(parsed.model, parsed.output, window=parsed.window, normalize=parsed.normalize, replace=parsed.replace)
    parity = done.parity
    print_record(
        {
            "file": str(done.output),
            "bytes": done.output.stat().st_size,
            "units": "data (the file normalizes)"
            if parsed.normalize
            else "normalized (see the normalizer in its metadata)",
            **{f"input {name}": " x ".join(map(str, ("N", *shape))) for name, shape in done.inputs.items()},
            **{f"output {name}": " x ".join(("N", *dims)) for name, dims in done.outputs.items()},
            "largest difference": f"{parity.max_difference:.2g} ({parity.max_relative:.2g} relative)",
            "least cosine": f"{parity.min_cosine:.8f}",
            "compared on": f"{' and '.join(map(str, parity.counts))} samples with what the encoder gives",
        }
    )
    return 0
