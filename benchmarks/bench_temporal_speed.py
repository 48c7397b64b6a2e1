"""Warping, and the whole fusion of two latents, beside grid_sample with a grid built in every call.

One thread, float32, inference. All ways take turns in one process, who begins moves on by one each round, and each call
that is timed follows one of its own that is not, so that no way pays for the caches that another one left. CPU time of
the thread: the least and the median; ratios are of medians, with the lowest and highest ratio of a tenth of the rounds
behind them. "grid in every call" is the flow warp of the public video models: grid of cells, plus flow, 2x/(W-1)-1,
stack, grid_sample. kornia's remap gets maps of absolute places made in the call (`pip install kornia kornia_rs`; its
rows are missing without it). "plan kept" reads latents stored channels last; "plan" builds it too. Sizes that are no
power of two are padded to one first, which is what makes whole offsets exact, and costs most of what was gained.

Goals at 64 x 64: warp of 4 channels 2x, a kept plan of 64 channels 5x as fast as the grid in every call; the forward of
a TemporalModule of 16 channels with mask, refiner and gate, noise given, at most 6x that of one such call.
"""

import importlib.util
import time
from collections.abc import Callable
from typing import Any

import torch
from common import Bench, median
from torch import Tensor
from warp_peers import built_grid, kornia_remap

SOURCES = ("nn/warp.py", "nn/warp_plan.py", "systems/temporal")
SHAPES = ((1, 4, 64, 64), (1, 16, 64, 64), (1, 64, 64, 64), (4, 16, 64, 64), (1, 16, 68, 160), (1, 3, 272, 640))
GOALS = {("warp", (1, 4, 64, 64)): 2.0, ("plan kept", (1, 64, 64, 64)): 5.0}
FORWARD_GOAL = 6.0
BASE = "grid in every call"


def timed(ways: dict[str, Callable[[], Any]], rounds: int) -> dict[str, Any]:
    """CPU seconds of each way, and ratios of the base to it."""
    names = list(ways)
    costs: dict[str, list[float]] = {name: [] for name in names}
    for way in ways.values():
        way()
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            ways[name]()
            before = time.thread_time()
            ways[name]()
            costs[name].append(time.thread_time() - before)
    found: dict[str, Any] = {}
    part = max(1, rounds // 10)
    for name, times in costs.items():
        parts = [
            median(costs[BASE][start : start + part]) / median(times[start : start + part])
            for start in range(0, rounds - part + 1, part)
        ]
        found[name] = {
            "least": min(times),
            "median": median(times),
            "ratio": median(costs[BASE]) / median(times),
            "lowest": min(parts),
            "highest": max(parts),
        }
    return found


def given(shape: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Values, flow [B, 2, H, W] and the same flow [B, H, W, 2]."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(shape, generator=generator)
    flow = torch.randn(shape[0], 2, *shape[2:], generator=generator)
    return values, flow, flow.permute(0, 2, 3, 1).contiguous()


@torch.inference_mode()
def warping(shape: tuple[int, ...], rounds: int) -> dict[str, Any]:
    """One warp of one shape in all ways."""
    from gridloom.nn.warp import warp
    from gridloom.nn.warp_plan import WarpPlan

    values, flow, last = given(tuple(shape))
    stored = values.to(memory_format=torch.channels_last)
    plan = WarpPlan.of(flow)
    ways: dict[str, Callable[[], Any]] = {
        BASE: lambda: built_grid(values, last),
        "warp": lambda: warp(values, flow),
        "plan": lambda: WarpPlan.of(flow).apply(stored),
        "plan kept": lambda: plan.apply(stored),
        "bicubic": lambda: warp(values, flow, mode="bicubic"),
    }
    if importlib.util.find_spec("kornia_rs") is not None:
        ways["kornia remap"] = lambda: kornia_remap(values, last, align_corners=True)
    return timed(ways, rounds)


@torch.inference_mode()
def forward(rounds: int) -> dict[str, Any]:
    """The whole module beside one call of grid_sample."""
    from gridloom.systems.temporal.flow import invert_flow
    from gridloom.systems.temporal.module import TemporalModule

    values, flow, last = given((1, 16, 64, 64))
    generator = torch.Generator().manual_seed(1)
    current = values + 0.2 * torch.randn(values.shape, generator=generator)
    noise = torch.full((1, 16), 0.02)
    mask = torch.rand(1, 1, 64, 64, generator=generator) > 0.1
    ways: dict[str, Callable[[], Any]] = {BASE: lambda: built_grid(values, last)}
    for gate in ("scalar", "kalman", "spatial"):
        for direction in ("cur_to_prev", "prev_to_cur"):
            module = TemporalModule(16, gate=gate, flow_direction=direction).eval()
            ways[f"{gate}, {direction}"] = lambda module=module: module(
                values, current, flow=flow, valid=mask, noise=noise
            )
    ways["turning the flow round"] = lambda: invert_flow(flow)
    return timed(ways, rounds)


def main() -> None:
    bench = Bench(__file__, __doc__, sources=SOURCES)
    rounds = 100 if bench.quick else 400
    rows = []
    for shape in SHAPES[: 3 if bench.quick else None]:
        each = max(40, rounds * 4096 // (shape[0] * shape[2] * shape[3]))
        cell = bench.cell(f"warp {'x'.join(map(str, shape))}", warping, shape=list(shape), rounds=each)
        for way, figures in cell.items():
            goal = GOALS.get((way, shape))
            met = bench.goal(f"{way} {shape}: {goal}x", figures["ratio"] >= goal) if goal else ""
            rows.append([" x ".join(map(str, shape)), way, *_figures(figures), f"{goal}: {met}" if goal else ""])
        bench.figure(f"warp {shape}", {way: figures["ratio"] for way, figures in cell.items()})
    header = ["B x C x H x W", "way", "least ms", "median ms", f"faster than {BASE}", "goal"]
    bench.table(header, rows)
    cell = bench.cell("forward", forward, rounds=rounds // 4)
    rows = []
    for way, figures in cell.items():
        cost = 1 / figures["ratio"]
        met = bench.goal(f"forward, {way}: {FORWARD_GOAL}x", cost <= FORWARD_GOAL) if "prev" in way else ""
        spread = f"{cost:.2f} ({1 / figures['highest']:.2f} to {1 / figures['lowest']:.2f})"
        rows.append([way, figures["least"] * 1e3, figures["median"] * 1e3, spread, met])
    bench.figure("forward", {way: 1 / figures["ratio"] for way, figures in cell.items()})
    bench.table(["16 x 64 x 64", "least ms", "median ms", f"times {BASE}", "at most 6"], rows)
    bench.finish()


def _figures(figures: dict[str, float]) -> list[Any]:
    ratio = f"{figures['ratio']:.2f} ({figures['lowest']:.2f} to {figures['highest']:.2f})"
    return [figures["least"] * 1e3, figures["median"] * 1e3, ratio]


if __name__ == "__main__":
    main()
