"""How far the latents of an autoencoder move with the frames, with and without the equivariance loss.

How: an autoencoder with a latent map (system semantic, stride 8, 16 latent channels of width 16) learns from 64 x 64
tiles of two videos, as many steps from the same start with the loss turned off and at two weights, and is scored on a
third video that it never saw. Flow is OpenCV's DIS (medium) between the frames; occluded cells are left out. Error over
variance of the current latent, predicted by the previous latent as it is, by the previous latent warped, and by the
latent of the warped previous frame; the gap is the difference of the last two. A latent can be made to look better by
making its smooth part loud: so there is also the mean over channels, each over its own variance, and what is decoded:
the reconstruction, and the warped latent, against the current frame, and the warped against the current latent's.

Goal: the weights lower the gap by 1 and by 3 dB.
`--quick` trains a few steps: its figures mean nothing. `--full` leaves out each of the three videos in turn.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from common import Bench
from flicker import VIDEOS

_WEIGHTS = {0.0: 0.0, 0.02: 1.0, 0.1: 3.0}
"""Weights of the loss, and by how many dB each is to lower the gap."""
_STEPS, _STEPS_QUICK = 400, 10
_EVERY, _EVERY_QUICK = 12, 40
"""Of the pairs of frames that follow each other, one in so many is scored."""
_TILES, _TILE = 2400, 64
_STRIDE = 8


def tiles(videos: list[str], folder: Path) -> Path:
    """Write tiles from anywhere in the clips of some videos, as many of each clip."""
    from gridloom.grid.read import open_grid
    from gridloom.grid.write import save_grid

    generator = np.random.default_rng(0)
    clips = [open_grid(clip)["frames"].values for video in videos for clip in VIDEOS[video]]
    found = []
    for number in range(_TILES):
        frames = clips[number % len(clips)]
        time, row, column = (
            int(generator.integers(size - room))
            for size, room in zip((len(frames), *frames.shape[-2:]), (0, _TILE - 1, _TILE - 1), strict=True)
        )
        found.append(frames[time, :, row : row + _TILE, column : column + _TILE])
    dataset = xr.Dataset({"frames": (("sample", "channel", "y", "x"), np.stack(found))})
    save_grid(dataset, folder / "tiles.zarr")
    return folder / "tiles.zarr"


def pairs(clip: str, every: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pairs of frames from 0 to 1, the flow between them, and what is not occluded."""
    from gridloom.grid.optical_flow import dis_flow, occluded_cells
    from gridloom.grid.read import open_grid

    frames = open_grid(clip)["frames"].values
    rows, columns = (size - size % _STRIDE for size in frames.shape[-2:])
    frames = frames[..., :rows, :columns]
    places = range(1, len(frames), every)
    flows = [dis_flow(frames[now], frames[now - 1]) for now in places]
    back = [dis_flow(frames[now - 1], frames[now]) for now in places]
    seen = [~occluded_cells(there, home)[None] for there, home in zip(flows, back, strict=True)]
    previous, current = (torch.from_numpy(frames[[now - ago for now in places]] / np.float32(255)) for ago in (1, 0))
    return previous, current, torch.from_numpy(np.stack(flows)), torch.from_numpy(np.stack(seen))


def measure(*, held_out: str, weight: float, steps: int, every: int) -> dict[str, Any]:
    """Train on the other videos and score the clips of this one."""
    from gridloom.core.registry import get_system
    from gridloom.core.system import Trained
    from gridloom.encoders.artifact import write_artifact
    from gridloom.train.distributed import processes
    from gridloom.train.loop import train
    from gridloom.workflows.decode import FrameCodec
    from gridloom.workflows.train import configure

    torch.set_num_threads(1)
    system = get_system("semantic")
    with tempfile.TemporaryDirectory() as folder, processes("cpu") as peers:
        settings = {
            "data.path": str(tiles([video for video in VIDEOS if video != held_out], Path(folder))),
            "data.window": [_TILE, _TILE],
            "data.split_dim": "sample",
            "data.fractions": [0.98, 0.01, 0.01],
            "model.latent": "map",
            "model.latent_dim": 16,
            "model.width": 16,
            "equivariance.weight": weight,
            "train.steps": steps,
            "train.batch_size": 16,
            "train.validate_every": 0,
            "train.tensorboard": False,
        }
        config = system.resolve(configure(system, settings=settings))
        prepared = system.prepare(config)
        torch.manual_seed(0)
        objective = system.objective(config)
        train(objective, prepared.sources, config.train, seed=0, folder=Path(folder) / "run", peers=peers, record={})
        trained = Trained(config=config, objective=objective, normalizer=prepared.normalizer)
        described = {"system": system, "config": config, "normalizer": trained.normalizer, "training": {}}
        write_artifact(Path(folder) / "artifact", objective, kind="model", **described)
        codec = FrameCodec(Path(folder) / "artifact")
    return {clip: score(codec, clip, every) for clip in VIDEOS[held_out]}


def score(codec: Any, clip: str, every: int) -> dict[str, float]:
    """Gaps in dB and signal-to-noise ratios of what is decoded, where nothing is occluded."""
    from gridloom.nn.equivariance import warp_gap
    from gridloom.nn.warp import inside, rescale_flow, warp

    previous, current, flow, seen = pairs(clip, every)
    together, each = (
        warp_gap(codec.encode, previous, current, flow, stride=_STRIDE, valid=seen, per_channel=per_channel)
        for per_channel in (False, True)
    )
    before, now = codec.encode(previous), codec.encode(current)
    moved = warp(before, rescale_flow(flow, (now.shape[-2], now.shape[-1])))
    rebuilt, drawn = codec.decode(now), codec.decode(moved)
    chosen = (seen & inside(flow)).expand_as(current)

    def ratio(first: torch.Tensor, second: torch.Tensor) -> float:
        return float(-10 * torch.log10((first - second)[chosen].square().mean()))

    return {
        "no warp": together.none,
        "latent warped": together.latent,
        "frame warped": together.frames,
        "gap": together.gap,
        "gap, channels alike": each.gap,
        "reconstruction": ratio(rebuilt, current),
        "warped, decoded": ratio(drawn, current),
        "warped to current, decoded": ratio(drawn, rebuilt),
    }


def main() -> None:
    bench = Bench(__file__, __doc__)
    size = {"steps": _STEPS, "every": _EVERY}
    if bench.quick:
        size = {"steps": _STEPS_QUICK, "every": _EVERY_QUICK}
    figures: dict[str, dict[str, float]] = {}
    for video in VIDEOS if bench.full else ("bunny",):
        for weight in _WEIGHTS:
            found = bench.cell(f"{video} weight {weight}", measure, held_out=video, weight=weight, **size)
            figures |= {f"{clip}, weight {weight}": values for clip, values in found.items()}
    clips = list(dict.fromkeys(name.rpartition(", weight")[0] for name in figures))
    rows = [
        [f"{clip}, weight {weight}", *(round(value, 2) for value in figures[f"{clip}, weight {weight}"].values())]
        for clip in clips
        for weight in _WEIGHTS
    ]
    bench.table(["held-out clip", *(f"{name} [dB]" for name in next(iter(figures.values())))], rows)
    for weight, least in _WEIGHTS.items():
        if not least:
            continue
        lowered = [figures[f"{clip}, weight 0.0"]["gap"] - figures[f"{clip}, weight {weight}"]["gap"] for clip in clips]
        bench.goal(f"weight {weight}: gap {least:g} dB less", min(lowered) >= least)
        bench.figure(f"gap lowered, weight {weight}", [round(value, 2) for value in lowered])
    bench.figure("dB", {name: {k: round(v, 2) for k, v in values.items()} for name, values in figures.items()})
    bench.finish()


if __name__ == "__main__":
    main()
