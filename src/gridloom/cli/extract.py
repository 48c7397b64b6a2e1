"""gridloom extract CHECKPOINT."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

__all__ = ["run"]


@dataclass(frozen=True, kw_only=True)
class Extract:
    """Get the encoder out of a checkpoint: a run folder, or a file of weights however it was wrapped."""

    checkpoint: tyro.conf.Positional[Path]
    """Run folder, artifact, checkpoint folder (also a sharded one), .pth, .ckpt or .safetensors file."""
    output: Path | None = None
    """Artifact folder, or a .pth file; beside the checkpoint if not given."""
    input_channels: int | None = None
    """Data channels that it must have; read off the weights if not given."""
    latent_dim: int | None = None
    """Latent size that it must have; read off the weights if not given."""
    verify: bool = False
    """Read it back and compare every tensor to the bit, and the embeddings of a probe batch."""
    layout: Literal["artifact", "seed"] | None = None
    """A folder with everything, or the .pth layout; by the output's suffix if not given."""
    average: bool = False
    """Take averaged weights (EMA) where the file has them."""
    prefix: str | None = None
    """What stands before the encoder's names, where a file has several encoders: teacher.encoder."""


def run(arguments: Sequence[str]) -> int:
    """Extract and say what was written."""
    parsed = tyro.cli(Extract, args=list(arguments), prog="gridloom extract")
    from gridloom.cli.console import print_record
    from gridloom.workflows.extract import extract

    extraction = extract(
        parsed.checkpoint,
        parsed.output,
        input_channels=parsed.input_channels,
        latent_dim=parsed.latent_dim,
        verify=parsed.verify,
        layout=parsed.layout,
        average=parsed.average,
        prefix=parsed.prefix,
    )
    print_record(
        {
            "encoder": str(extraction.output),
            "layout": extraction.layout,
            "parameters": extraction.num_parameters,
            "verified": "bit-equal after reading back" if extraction.verified else "not asked (--verify)",
        }
    )
    return 0
