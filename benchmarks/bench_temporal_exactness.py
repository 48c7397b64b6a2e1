"""A warp that is exact for whole offsets and right to 1e-4 of a cell for others, beside the ways in use.

Coordinate error: an affine motion samples two ramps (the column and the row of each cell), on which bilinear
interpolation is exact, so that what comes out is the place that was sampled; compared with float64 where the sample is
a cell inside the frame. Flow from the previous frame is turned round first; there the interior counts, without an
eighth of the frame at each side, and without what leaves it. "grid in every call" is what most public video models do,
"mixed corners" the 2x/(W-1)-1 with `align_corners=False` of three of them, and kornia's remap has that as its default
(`pip install kornia kornia_rs`; the column is empty without it).

Goals: zero flow and whole shifts to the bit; at most 1e-4 cells given the flow to the previous frame, 5e-3 given the
flow from it (rotation up to 5 degrees, zoom up to 1.1; 32, 64, 128); the same values, from 0 to 1, as a float64 grid
for either `align_corners` gives, to 1e-5, sizes of 1 and of unequal sides too; half types are sampled where float32 is;
flow that is not finite is masked; `compat="seed"` equals the listing to 1e-6; exported programs (torch.export, ONNX)
are the same to 1e-5.
"""

import importlib.util
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import Bench
from torch import Tensor, nn
from torch.nn import functional as F
from warp_peers import built_grid, half_grid, kornia_remap, mixed_corners, seed_fused

SOURCES = ("nn/warp.py", "nn/warp_plan.py", "systems/temporal/flow.py", "systems/temporal/module.py")
SIZES = (32, 64, 128, 640)
WHOLE_SIZES = ((64, 64), (36, 44), (68, 160), (1, 9), (9, 1), (1, 1))
MOTIONS = {
    "rotation 2": (2.0, 1.0),
    "rotation 5": (5.0, 1.0),
    "zoom 1.1": (0.0, 1.1),
    "zoom 1/1.1": (0.0, 1 / 1.1),
}
Warp = Callable[[Tensor, Tensor], Tensor]


def warps(**options: Any) -> dict[str, Warp]:
    """All ways, of values [B, C, H, W] and flow [B, 2, H, W]."""
    from gridloom.nn.warp import warp
    from gridloom.nn.warp_plan import WarpPlan

    found: dict[str, Warp] = {
        "warp": lambda values, flow: warp(values, flow, **options),
        "plan": lambda values, flow: WarpPlan.of(flow, **options).apply(values),
        "grid in every call": lambda values, flow: built_grid(values, flow.permute(0, 2, 3, 1), **options),
        "mixed corners": lambda values, flow: mixed_corners(values, flow.permute(0, 2, 3, 1)),
    }
    if importlib.util.find_spec("kornia_rs") is not None:
        found["kornia remap"] = lambda values, flow: kornia_remap(values, flow.permute(0, 2, 3, 1))
    return found


def affine(size: int, degrees: float, zoom: float) -> tuple[Tensor, Tensor, Tensor]:
    """Places [2, size, size], the flow of a motion about the center, and the flow back; float64."""
    axis = torch.arange(size, dtype=torch.float64)
    places = torch.stack([axis.expand(size, size), axis[:, None].expand(size, size)])
    angle = math.radians(degrees)
    turn = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    matrix = zoom * torch.tensor(turn, dtype=torch.float64)
    about = places - (size - 1) / 2
    there, back = (torch.einsum("ij,jyx->iyx", one, about) - about for one in (matrix, torch.linalg.inv(matrix)))
    return places, there[None], back[None]


def whole(quick: bool) -> dict[str, Any]:
    """Share of values that differ in any bit from those moved by slicing."""
    generator = torch.Generator().manual_seed(0)
    found = {}
    for mode in ("bilinear", "bicubic", "nearest"):
        for name, way in warps(mode=mode).items() if mode == "bilinear" else list(warps(mode=mode).items())[:3]:
            for shift in ((0, 0), (3, -2)):
                differ = total = 0
                for size in WHOLE_SIZES[: 3 if quick else None]:
                    values = torch.randn(2, 3, *size, generator=generator)
                    flow = torch.tensor(shift, dtype=torch.float32).view(1, 2, 1, 1).expand(2, 2, *size).contiguous()
                    columns, rows = torch.arange(size[1]) + shift[0], torch.arange(size[0]) + shift[1]
                    within = ((rows >= 0) & (rows < size[0]))[:, None] & ((columns >= 0) & (columns < size[1]))
                    moved = values[:, :, rows.clamp(0, size[0] - 1)][..., columns.clamp(0, size[1] - 1)]
                    differ += int(((way(values, flow) != moved) & within).sum())
                    total += int(within.sum()) * 6
                found[f"{name} | {mode} | {'zero' if shift == (0, 0) else 'shift'}"] = differ / total
    return found


def coordinates(size: int) -> dict[str, float]:
    """Largest coordinate error of each way over all motions, given the flow to the previous frame."""
    from gridloom.nn.warp import inside

    worst: dict[str, float] = {}
    for degrees, zoom in MOTIONS.values():
        places, flow, _ = affine(size, degrees, zoom)
        within = inside(flow, margin=-1.0).expand(1, 2, size, size)  # not where some ways mix in zeros
        ramps = places - (size - 1) / 2  # about 0, so that they round as little as they can
        for name, way in warps().items():
            error = (way(ramps[None].float(), flow.float()).double() - ramps - flow).abs()[within].max().item()
            worst[name] = max(worst.get(name, 0.0), error)
    return worst


def turned_round(size: int) -> dict[str, dict[str, float]]:
    """Largest and mean coordinate error in the interior, given the flow from the previous frame."""
    from gridloom.nn.warp import inside, warp
    from gridloom.systems.temporal.flow import invert_flow

    found: dict[str, dict[str, float]] = {}
    for motion, (degrees, zoom) in MOTIONS.items():
        places, flow, back = affine(size, degrees, zoom)
        within, margin = inside(back), size // 8
        within[..., :margin, :] = within[..., -margin:, :] = within[..., :margin] = within[..., -margin:] = False
        ways = {
            "two steps": invert_flow(flow.float())[0],
            "three steps": invert_flow(flow.float(), iterations=3)[0],
            "splat": invert_flow(flow.float(), method="splat")[0],
            "negated": -flow.float(),
            "taken as it is": flow.float(),
        }
        for name, inverse in ways.items():
            error = (warp(places[None].float(), inverse).double() - places - back).abs()
            chosen = error[within.expand_as(error)]
            found.setdefault(motion, {})[name] = chosen.max().item()
            found[motion][f"{name}, mean"] = chosen.mean().item()
    return found


def checks() -> dict[str, float]:
    """Largest differences of what the contract promises."""
    from gridloom.nn.warp import inside, sampling_grid, warp
    from gridloom.systems.temporal.module import TemporalModule

    generator = torch.Generator().manual_seed(0)
    found: dict[str, float] = {}
    for align_corners in (True, False):
        for size in ((64, 64), (36, 44), (1, 9), (9, 1), (1, 1)):
            values = torch.rand(2, 3, *size, generator=generator)
            flow = 2 * torch.randn(2, 2, *size, generator=generator)
            if align_corners:  # such a grid cannot leave an axis of one cell
                flow[:, 0] *= size[1] > 1
                flow[:, 1] *= size[0] > 1
            grid = sampling_grid(flow.double(), align_corners=align_corners)
            exact = F.grid_sample(values.double(), grid, padding_mode="border", align_corners=align_corners)
            name = f"align_corners={align_corners}"
            found[name] = max(found.get(name, 0.0), (warp(values, flow) - exact).abs().max().item())
    for dtype in (torch.float16, torch.bfloat16):
        # Ramps with whole values up to 127 have no rounding of their own in either type but that of the answer.
        places, flow, _ = affine(128, 5.0, 1.1)
        single = warp(places[None].to(dtype).float(), flow.float())
        name = str(dtype).removeprefix("torch.")
        found[name] = (warp(places[None].to(dtype), flow.float()) - single.to(dtype)).abs().max().item()
        given = inside(flow).expand_as(single)
        found[f"{name}, all of it in {name}"] = (half_grid_places(dtype) - single)[given].abs().max().item()
    values, flow = torch.randn(1, 16, 64, 64, generator=generator), torch.randn(1, 2, 64, 64, generator=generator)
    current = torch.randn(1, 16, 64, 64, generator=generator)
    broken = flow.clone()
    broken[0, 0, 3, 4], broken[0, 1, 5, 6], broken[0, :, 7, 8] = math.nan, math.inf, -math.inf
    module = TemporalModule(16, flow_direction="cur_to_prev").eval()
    with torch.no_grad():
        fused, _, aux = module(values, current, flow=broken)
    places_of = torch.zeros(64, 64, dtype=torch.bool)
    places_of[3, 4] = places_of[5, 6] = places_of[7, 8] = True
    found["flow that is not finite"] = float(
        aux["valid"][0, 0][places_of].any()
        or not fused.isfinite().all()
        or not torch.equal(fused[0, :, places_of], current[0, :, places_of])
    )
    seed = TemporalModule(16, alpha_init=0.3, compat="seed").eval()
    with torch.no_grad():
        expected = seed_fused(values, current, flow, 0.3)
        found["compat seed"] = (seed(values, current, flow=flow)[0] - expected).abs().max().item()
    return found


def half_grid_places(dtype: torch.dtype) -> Tensor:
    """Places sampled by a way that does everything in one half type, as float32."""
    places, flow, _ = affine(128, 5.0, 1.1)
    return half_grid(places[None].to(dtype), flow.permute(0, 2, 3, 1)).float()


class Exported(nn.Module):
    """What is exported."""

    def forward(self, values: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
        """Warp and mask."""
        from gridloom.nn.warp import inside, warp

        return warp(values, flow), inside(flow)


def exports() -> dict[str, float]:
    """Largest difference of an exported program and its ONNX file to the warp, at other sizes than the example's."""
    import onnxruntime

    generator = torch.Generator().manual_seed(0)
    dynamic = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    example = (torch.randn(2, 3, 8, 12), torch.randn(2, 2, 8, 12))
    program = torch.export.export(Exported(), example, dynamic_shapes=(dynamic, dynamic))
    onnx = torch.onnx.export(program, dynamo=True, opset_version=20, verbose=False)
    assert onnx is not None
    found = {"torch.export": 0.0, "ONNX, opset 20": 0.0}
    with tempfile.TemporaryDirectory() as folder:
        onnx.save(Path(folder) / "warp.onnx")
        session = onnxruntime.InferenceSession(Path(folder) / "warp.onnx", providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    for size in ((1, 64, 64), (3, 36, 44), (2, 5, 7)):
        values = torch.rand(size[0], 3, *size[1:], generator=generator)
        flow = 2 * torch.randn(size[0], 2, *size[1:], generator=generator)
        expected, within = Exported()(values, flow)
        there = [
            torch.from_numpy(one) for one in session.run(None, dict(zip(names, _numpy(values, flow), strict=True)))
        ]
        for name, (moved, mask) in (("torch.export", program.module()(values, flow)), ("ONNX, opset 20", there)):
            wrong = math.inf if not torch.equal(mask, within) else (moved - expected).abs().max().item()
            found[name] = max(found[name], wrong)
    return found


def _numpy(*tensors: Tensor) -> list[Any]:
    return [tensor.numpy() for tensor in tensors]


def main() -> None:
    bench = Bench(__file__, __doc__, sources=SOURCES)
    torch.set_num_threads(1)
    bits = bench.cell("whole offsets", whole, quick=bench.quick)
    ways = ["warp", "plan", "grid in every call", "mixed corners", "kornia remap"]
    rows = []
    for mode in ("bilinear", "bicubic", "nearest"):
        for what in ("zero", "shift"):
            shares = [bits.get(f"{way} | {mode} | {what}", "") for way in ways]
            rows.append([mode, what, *[share if share == "" else f"{share:.1%}" for share in shares]])
    bench.table(["values not equal to the bit", "flow", *ways], rows)
    ours = [share for name, share in bits.items() if name.startswith(("warp", "plan"))]
    bench.goal("zero flow and whole shifts to the bit", not any(ours))
    rows = []
    for size in SIZES:
        cell = bench.cell(f"to the previous frame {size}", coordinates, size=size)
        met = bench.goal(f"{size}: 1e-4 cells to the previous frame", max(cell["warp"], cell["plan"]) <= 1e-4)
        rows.append([size, *[f"{cell[way]:.1e}" if way in cell else "" for way in ways], met])
        bench.figure(f"to the previous frame {size}", cell["warp"])
    bench.table(["largest error, cells", *ways, "1e-4"], rows)
    rows, turns = [], ["two steps", "three steps", "splat", "negated", "taken as it is"]
    for size in SIZES[:3]:
        cell = bench.cell(f"from the previous frame {size}", turned_round, size=size)
        for motion, errors in cell.items():
            met = bench.goal(f"{size}, {motion}: 5e-3 cells from the previous frame", errors["two steps"] <= 5e-3)
            rows.append([size, motion, *[f"{errors[way]:.4f} ({errors[f'{way}, mean']:.4f})" for way in turns], met])
        bench.figure(f"from the previous frame {size}", max(errors["two steps"] for errors in cell.values()))
    bench.table(["size", "largest (mean) error, cells", *turns, "two steps: 5e-3"], rows)
    rest = bench.cell("contract", checks) | bench.cell("exported", exports)
    limits = {
        "align_corners=True": 1e-5,
        "align_corners=False": 1e-5,
        "float16": 0.0,
        "bfloat16": 0.0,
        "flow that is not finite": 0.0,
        "compat seed": 1e-6,
        "torch.export": 1e-5,
        "ONNX, opset 20": 1e-5,
    }
    rows = []
    for name, value in rest.items():
        met = bench.goal(f"{name}: {limits[name]:g}", value <= limits[name]) if name in limits else "for comparison"
        rows.append([name, f"{value:.1e}", f"{limits[name]:g}" if name in limits else "", met])
        bench.figure(name, value)
    bench.table(["largest difference", "", "goal", ""], rows)
    bench.finish()


if __name__ == "__main__":
    main()
