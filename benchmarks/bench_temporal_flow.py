"""No flow given: the flow predictor against DIS on noisy latents, and against no flow at all.

Four clips (means of 4x4 pixels) with independent flicker of 0.15 of each channel's deviation. The predictor is trained
on the other videos, without labels: pairs of frames one to three apart, flicker of 0.03 to 0.4, the losses of
`flow_losses` on the frames without it. Both bikes clips are one video.

Two tables. "Error" is that of the recursive filter (gate "kalman", bicubic) over the flicker's variance, in dB, from
frame 8 on, flicker known; only the flow differs. "Warp" is the mean squared difference between a clean frame and the
clean frame before it moved by that flow, in dB, over all cells. The rows: nothing moves; DIS between noisy latents with
the forward-backward mask of the protocol, and without it, since the gate finds occlusions by itself; DIS between the
filter's state and the noisy frame, which is what the predictor sees; the predictor; and, out of reach of any of these,
DIS between clean frames at full resolution with its mask.

Goals: the predictor's warp at least 1 dB better than none; the filter with it better than with DIS on noisy latents,
and than without flow, on each clip.
"""

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from common import Bench, median
from flicker import NAMES, VIDEOS, case, recording
from torch import Tensor

SOURCES = ("nn/warp.py", "grid/optical_flow.py", "systems/temporal")
STEPS, BATCH, CROP, FARTHEST = 450, 4, 48, 3
LOW, HIGH, QUIETEST = 0.03, 0.4, 0.4
SKIP = 8
SMOOTH = 0.2
LEARNED = "predictor"


def pairs(name: str) -> tuple[Tensor, list[tuple[int, int]]]:
    """Frames of a video, and which of them may be compared: at most three apart, no cut between."""
    found = recording(name)
    shot = np.cumsum(found.cut)
    apart = [number for number in range(-FARTHEST, FARTHEST + 1) if number]
    places = [(i, i + d) for i in range(len(shot)) for d in apart if 0 <= i + d < len(shot) and shot[i] == shot[i + d]]
    return torch.from_numpy(found.frames), places


def draw(videos: list[tuple[Tensor, list[tuple[int, int]]]], generator: torch.Generator) -> tuple[Tensor, ...]:
    """Crops of pairs of one video: previous and current frames, without and with flicker."""

    def below(limit: int) -> int:
        return int(torch.randint(limit, (1,), generator=generator))

    frames, places = videos[below(len(videos))]
    height, width = (min(CROP, size) for size in frames.shape[2:])
    taken = []
    for _ in range(BATCH):
        y, x = below(frames.shape[2] - height + 1), below(frames.shape[3] - width + 1)
        pair = frames[list(places[below(len(places))])][..., y : y + height, x : x + width]
        pair = pair.flip([dim for dim in (2, 3) if below(2)])
        taken.append(pair.transpose(2, 3) if height == width and below(2) else pair)
    previous, current = torch.stack(taken, dim=1)
    level = math.log(LOW) + torch.rand(BATCH, 1, 1, 1, generator=generator) * math.log(HIGH / LOW)
    scale = level.exp() * frames.std(dim=(0, 2, 3)).view(1, -1, 1, 1)
    quiet = QUIETEST + (1 - QUIETEST) * torch.rand(BATCH, 1, 1, 1, generator=generator)
    noise = [torch.randn(current.shape, generator=generator) * scale for _ in range(2)]
    return previous, current, previous + quiet * noise[0], current + noise[1]


def trained(videos: list[tuple[Tensor, list[tuple[int, int]]]], steps: int) -> Any:
    """A predictor that has seen these videos."""
    from gridloom.systems.temporal.predictor import FlowPredictor, flow_losses

    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    model = FlowPredictor(3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.99), weight_decay=1e-4)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * min(1.0, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * step / steps))
        previous, current, noisy_previous, noisy_current = draw(videos, generator)
        photometric, smooth = flow_losses(previous, current, model(noisy_previous, noisy_current))
        optimizer.zero_grad()
        (photometric + SMOOTH * smooth).mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model.eval()


def dis(previous: Tensor, current: Tensor) -> Tensor:
    """DIS between two latents [1, C, H, W], enlarged twice."""
    from gridloom.grid.optical_flow import dis_flow

    return torch.from_numpy(dis_flow(current[0].numpy(), previous[0].numpy(), value_range=(0.0, 1.0), enlarge=2))[None]


Flow = Callable[[int, Tensor, Tensor, Tensor], tuple[Tensor | None, Tensor | None]]


def scored(name: str, flow: Flow) -> dict[str, float]:
    """Filter a clip with a flow of (number, previous noisy frame, state, noisy frame); score filter and flow."""
    from gridloom.nn.warp import warp
    from gridloom.systems.temporal.module import TemporalModule
    from gridloom.systems.temporal.stream import TemporalStream

    one = case(name, flow="none")
    noisy, clean, noise = one.clip.frames, one.clean, one.clip.noise
    stream = TemporalStream(TemporalModule(3, gate="kalman", refiner="none", interpolation="bicubic"), noise=noise)
    errors, misses = [], []
    for at in range(noisy.shape[1]):
        backward, occluded = (None, None) if stream.z is None else flow(at, noisy[:, at - 1], stream.z, noisy[:, at])
        fused = stream.push(noisy[:, at], backward, occluded=occluded).z
        if at >= SKIP:
            before = clean[:, at - 1] if backward is None else warp(clean[:, at - 1], backward, mode="bicubic")
            errors.append(float(((fused - clean[:, at]).square() / noise[..., None, None]).mean()))
            misses.append(float((before - clean[:, at]).square().mean()))
    return {"error": 10 * math.log10(np.mean(errors)), "warp": 10 * math.log10(np.mean(misses))}


@torch.no_grad()
def baselines(name: str) -> dict[str, dict[str, float]]:
    """Scores of everything that is not learnt."""
    clean, noisy = case(name).clip, case(name, flow="noisy").clip
    return {
        "none": scored(name, lambda *_: (None, None)),
        "DIS, noisy, masked": scored(name, lambda at, *_: (noisy.flow[:, at], noisy.occluded[:, at])),
        "DIS, noisy": scored(name, lambda at, *_: (noisy.flow[:, at], None)),
        "DIS, state and noisy": scored(name, lambda _at, _before, state, frame: (dis(state, frame), None)),
        "DIS, clean pixels": scored(name, lambda at, *_: (clean.flow[:, at], clean.occluded[:, at])),
    }


def learned(held_out: str, steps: int) -> dict[str, Any]:
    """Train without a video, score on its clips."""
    videos = [pairs(name) for name in VIDEOS if name != held_out]
    started = time.process_time()
    model = trained(videos, steps)
    seconds = time.process_time() - started
    with torch.no_grad():
        found = {
            name: scored(name, lambda _at, _before, state, frame: (model(state, frame), None))
            for name in VIDEOS[held_out]
        }
    return {"scores": found, "seconds": seconds}


@torch.no_grad()
def speed(repetitions: int) -> dict[str, float]:
    """CPU milliseconds of one flow at C=4, 64x64, by turns."""
    from gridloom.systems.temporal.predictor import FlowPredictor

    torch.manual_seed(0)
    model, pair = FlowPredictor(4).eval(), torch.rand(2, 1, 4, 64, 64)
    ways: dict[str, Callable[[], Any]] = {LEARNED: lambda: model(*pair), "DIS": lambda: dis(*pair)}
    costs: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repetitions):
        for name, way in ways.items():
            started = time.process_time()
            way()
            costs[name].append(1e3 * (time.process_time() - started))
    return {
        f"{name} {kind}": of(found) for name, found in costs.items() for kind, of in (("min", min), ("mid", median))
    }


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    bench = Bench(__file__, __doc__ or "", sources=SOURCES)
    steps, videos = (40, ["carphone"]) if bench.quick else (STEPS, list(VIDEOS))
    names = [name for name in NAMES if any(name in VIDEOS[video] for video in videos)]
    found = {name: bench.cell(f"baselines {name}", baselines, name=name) for name in names}
    seconds = {}
    for video in videos:
        one = bench.cell(f"without {video}", learned, held_out=video, steps=steps)
        seconds[video] = one["seconds"]
        for name, scores in one["scores"].items():
            found[name][LEARNED] = scores
    rows = ["none", "DIS, noisy, masked", "DIS, noisy", "DIS, state and noisy", LEARNED, "DIS, clean pixels"]
    for metric in ("error", "warp"):
        bench.table([f"{metric}, dB", *names], [[row, *(found[name][row][metric] for name in names)] for row in rows])
    for name in names:
        ours, none = found[name][LEARNED], found[name]["none"]
        others = [found[name][row]["error"] for row in ("none", "DIS, noisy, masked", "DIS, noisy")]
        bench.figure(f"{name} error", ours["error"])
        bench.figure(f"{name} warp gain", none["warp"] - ours["warp"])
        print(
            f"{name}: warp 1 dB better than none {bench.goal(f'{name} warp', none['warp'] - ours['warp'] >= 1)}; "
            f"filter better than with DIS or none {bench.goal(f'{name} error', ours['error'] < min(others))}"
        )
    cost = bench.cell("speed", speed, repetitions=20 if bench.quick else 100)
    print(f"\nCPU ms at C=4, 64x64: {', '.join(f'{name} {value:.2f}' for name, value in cost.items())}")
    print(f"CPU s of a training: {', '.join(f'{name} {value:.0f}' for name, value in seconds.items())}\n")
    bench.figure("cpu ms", cost)
    bench.finish()


if __name__ == "__main__":
    main()
