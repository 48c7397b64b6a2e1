"""gridloom stabilize MODEL VIDEO|ZARR."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

__all__ = ["run"]


@dataclass(frozen=True, kw_only=True)
class Stabilize:
    """Take the flicker out of a video, or of latents over time."""

    model: tyro.conf.Positional[Path]
    """Run folder or artifact of a temporal model; or the word kalman, a filter by rule that needs no training."""
    data: tyro.conf.Positional[str]
    """A video, any file with frames (time, channel, y, x), or a sample."""
    output: Path
    """.mp4 or .mov (with loss), .avi or .mkv (without), .zarr or .nc."""
    flow: str = "auto"
    """auto: the data's own flow, or what the model has learnt to predict, or OpenCV's DIS. dis, none, predict: that.
    Otherwise a file with flow (time, component, y, x) in pixels."""
    flow_direction: Literal["cur_to_prev", "prev_to_cur"] = "cur_to_prev"
    """How a given flow runs: from each frame to the one before, or from the one before to each frame."""
    mode: Literal["causal", "bidirectional"] = "causal"
    """Each frame from those before, frame by frame; or from all, which is better and needs them in memory."""
    noise: float | None = None
    """Standard deviation of the flicker, in units of the frames (0 to 1 for videos); estimated if not given."""
    autoencoder: Path | None = None
    """Run of a semantic autoencoder with a latent map: its latents are stabilized, and decoded."""
    picture: Path | None = None
    """.png or .svg: one row of pixels over time, before and after; flicker shows as stripes."""
    row: int | None = None
    """Row of that picture; the middle one if not given."""
    replace: bool = False
    """Overwrite an existing output."""
    json: bool = False
    """Print JSON."""


def run(arguments: Sequence[str]) -> int:
    """Stabilize, write, and say what was done."""
    parsed = tyro.cli(Stabilize, args=list(arguments), prog="gridloom stabilize")
    from gridloom.cli.console import print_json, print_record
    from gridloom.workflows.stabilize import stabilize, summarize

    known = ("auto", "dis", "none", "predict")
    found = stabilize(
        parsed.data,
        parsed.model,
        flow=Path(parsed.flow) if parsed.flow not in known and Path(parsed.flow).exists() else parsed.flow,
        flow_direction=parsed.flow_direction,
        mode=parsed.mode,
        noise=parsed.noise,
        autoencoder=parsed.autoencoder,
        output=parsed.output,
        picture=parsed.picture,
        row=parsed.row,
        replace=parsed.replace,
        show=not parsed.json,
    )
    record = {"output": str(parsed.output), **summarize(found)}
    if parsed.picture is not None:
        record["picture"] = str(parsed.picture)
    if parsed.json:
        print_json(record)
    else:
        print_record(record)
    return 0
