"""Encoding 128x128 fields with the default encoder, ours against the loop of the toolkit it replaces.

One and two threads, batches of 1, 16 and 64, by turns in one process on the same weights and fields: `encode` as the
toolkit's README times it (a plain eager network under no_grad, weights in torch's usual layout), `encode_batch`, and
`encode_batch(precision="bf16")`. The ceiling is the network's own convolutions, each alone, on inputs in the best
layout. Then what must not change an embedding: companions in the call, byte order, memory layout, size of the batch,
values of hidden cells; the toolkit's normalization beside it.

Goals, at batch 16: 1.2x the loop in float32 and 2.3x in bfloat16; 80 % of the ceiling in float32, 70 % in bfloat16; the
same embeddings to 1e-5, hidden values to the bit.
"""

import copy
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from common import Bench, median
from torch import nn
from torch.nn import functional as F

SOURCES = ("nn/conv.py", "systems/semantic/model.py", "systems/semantic/heads.py", "encoders")
GOALS = {"fp32": (1.2, 0.8), "bf16": (2.3, 0.7)}


class PlainEncoder(nn.Module):
    """The same network from the same weights, written as ResNets usually are; nothing is done for speed."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(encoder).to(memory_format=torch.contiguous_format)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Encode [B, C, H, W] without missing cells."""
        encoder = self.encoder
        known = torch.ones_like(x)
        h = torch.cat([x, known.mean(1, keepdim=True)], 1)
        h = F.max_pool2d(F.relu(encoder.stem[1](encoder.stem[0](h))), 3, 2, 1)
        for name in ("layer1", "layer2", "layer3", "layer4"):
            for block in encoder.get_submodule(name):
                y = F.relu(block.norm1(block.conv1(h)))
                y = block.norm2(block.conv2(y))
                h = F.relu(y + block.skip(h))
        return encoder.head(h, x, known)


def _encoder() -> Any:
    import warnings

    from gridloom import SemanticEncoder

    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return SemanticEncoder(device="cpu")


def _convolutions(encoder: nn.Module, batch: int, dtype: torch.dtype) -> Callable[[], None]:
    """All convolutions of the trunk, each on an input of its shape, in the layout that the kernels like best."""
    found: list[tuple[nn.Module, torch.Tensor]] = []

    def remember(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        alone = copy.deepcopy(module).to(dtype).to(memory_format=torch.channels_last)
        alone._forward_hooks.clear()
        found.append((alone, torch.randn(inputs[0].shape).to(dtype).contiguous(memory_format=torch.channels_last)))

    names = [name for name, module in encoder.named_modules() if isinstance(module, nn.Conv2d)]
    hooks = [encoder.get_submodule(name).register_forward_hook(remember) for name in names]
    plain = PlainEncoder.__new__(PlainEncoder)
    nn.Module.__init__(plain)
    plain.encoder = encoder
    plain.encode(torch.randn(batch, 1, 128, 128))
    for hook in hooks:
        hook.remove()

    def run() -> None:
        for module, x in found:
            module(x)

    return run


def measure_speed(threads: int, batch: int, repetitions: int) -> dict[str, Any]:
    """Seconds of each way, by turns: CPU time on one thread, wall time on two."""
    torch.set_num_threads(threads)
    clock = time.process_time if threads == 1 else time.perf_counter
    encoder = _encoder()
    plain = PlainEncoder(encoder.encoder).eval()
    x = torch.randn(batch, 1, 128, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ways: dict[str, Callable[[], Any]] = {
            "loop": lambda: plain.encode(x),
            "fp32": lambda: encoder.encode_batch(x, batch_size=batch),
            "bf16": lambda: encoder.encode_batch(x, batch_size=batch, precision="bf16"),
            "convolutions fp32": _convolutions(encoder.encoder, batch, torch.float32),
            "convolutions bf16": _convolutions(encoder.encoder, batch, torch.bfloat16),
        }
        first = {name: way() for name, way in ways.items()}
        costs: dict[str, list[float]] = {name: [] for name in ways}
        rounds = max(1, 16 // batch)
        for repetition in range(repetitions):
            order = list(ways) if repetition % 2 == 0 else list(reversed(ways))
            for name in order:
                started = clock()
                for _ in range(rounds):
                    ways[name]()
                costs[name].append((clock() - started) / rounds)
    found: dict[str, Any] = {"seconds": {name: median(values) for name, values in costs.items()}}
    for precision in ("fp32", "bf16"):
        found[f"{precision} ratio"] = median([a / b for a, b in zip(costs["loop"], costs[precision], strict=True)])
        ceiling = zip(costs[f"convolutions {precision}"], costs[precision], strict=True)
        found[f"{precision} share"] = median([a / b for a, b in ceiling])
        found[f"{precision} cosine"] = float(F.cosine_similarity(first["loop"], first[precision]).min())
    found["fp32 difference"] = float((first["loop"] - first["fp32"]).abs().max())
    return found


def _toolkit_normalize(fields: np.ndarray) -> np.ndarray:
    """The toolkit's way: minimum and maximum of the whole array that is passed, to [-1, 1]."""
    low, high = fields.min(), fields.max()
    return 2 * (fields - low) / (high - low) - 1


def measure_invariance() -> dict[str, Any]:
    """Largest change of the first field's embedding when something else in the call changes."""
    from gridloom.encoders.arrays import scale_by_own_range

    encoder = _encoder()
    generator = np.random.default_rng(0)
    fields = (15 + 5 * generator.normal(size=(20, 128, 128))).astype(np.float32)
    base = encoder.encode_numpy(fields[:1])[0]

    def change(array: np.ndarray, **options: Any) -> float:
        return float(np.abs(encoder.encode_numpy(array, **options)[0] - base).max())

    outlier, gap = fields.copy(), fields.copy()
    outlier[1] *= 1000
    gap[1, 5, 5] = np.nan
    holes = np.ma.masked_array(fields.copy(), mask=generator.random(fields.shape) < 0.3)
    other = holes.copy()
    other.data[other.mask] = 1e9
    hidden = np.abs(encoder.encode_numpy(holes) - encoder.encode_numpy(other)).max()
    special = np.stack([np.full((128, 128), 7.0), np.full((128, 128), np.nan), fields[0]]).astype(np.float32)
    special[2, 0, 0] = np.nan
    embedded = encoder.encode_numpy(special)
    with np.errstate(all="ignore"):
        seed_outlier = np.abs(_toolkit_normalize(outlier)[0] - _toolkit_normalize(fields)[0]).max()
        seed_gap = np.isnan(_toolkit_normalize(gap)).mean()
        seed_constant = np.isnan(_toolkit_normalize(special[:1])).mean()
    return {
        "ours": {
            "an outlier field in the call": change(outlier),
            "one missing cell in another field": change(gap),
            "19 companions, batches of 7": change(fields, batch_size=7),
            "big-endian, as netCDF-3 and GRIB have it": change(fields.astype(">f4")),
            "reversed twice, not contiguous": change(np.asfortranarray(fields)[:, ::-1][:, ::-1]),
            "float64": change(fields.astype(np.float64)),
            "values of masked cells (to the bit)": float(hidden),
            "share of NaN: constant, all missing and one missing cell": float(np.isnan(embedded).mean()),
        },
        "toolkit": {
            "an outlier field in the call": float(seed_outlier),
            "share of NaN: one missing cell": float(seed_gap),
            "share of NaN: a constant field": float(seed_constant),
        },
        "own range kept": float(
            np.abs(scale_by_own_range(outlier[:, None])[0] - scale_by_own_range(fields[:, None])[0]).max()
        ),
    }


def main() -> None:
    bench = Bench(__file__, __doc__, sources=SOURCES)
    rows = []
    for threads in (1, 2):
        for batch in (1, 16, 64):
            repetitions = 3 if bench.quick else {1: 25, 16: 25, 64: 9}[batch]
            if bench.quick and (threads, batch) != (1, 16):
                continue
            cell = bench.cell(
                f"{threads} threads, batch {batch}",
                measure_speed,
                threads=threads,
                batch=batch,
                repetitions=repetitions,
            )
            rows.append([threads, batch, "loop", round(batch / cell["seconds"]["loop"], 1), "", "", "", "", ""])
            for precision, (fast, full) in GOALS.items():
                ratio, share = cell[f"{precision} ratio"], cell[f"{precision} share"]
                words = ["", ""]
                if batch == 16:
                    place = f"{precision}, {threads} threads"
                    words[0] = bench.goal(f"{place}: {fast}x", ratio >= fast)
                    words[1] = bench.goal(f"{place}: {full:.0%} of the ceiling", share >= full)
                    bench.figure(place, {"ratio": ratio, "share": share})
                rate = round(batch / cell["seconds"][precision], 1)
                cosine = f"{1 - cell[f'{precision} cosine']:.1g}"
                rows.append(
                    [threads, batch, precision, rate, f"{ratio:.2f}x", words[0], f"{share:.0%}", words[1], cosine]
                )
            bench.goal("the loop's embeddings", cell["fp32 difference"] <= 1e-5)
    bench.table(["threads", "batch", "way", "fields/s", "x loop", "goal", "of ceiling", "goal ", "1 - cosine"], rows)
    found = bench.cell("what must not matter", measure_invariance)
    limit = {
        "values of masked cells (to the bit)": 0.0,
        "share of NaN: constant, all missing and one missing cell": 0.0,
    }
    table = []
    for name, value in found["ours"].items():
        goal = limit.get(name, 1e-5)
        table.append([name, value, goal, bench.goal(name, value <= goal), found["toolkit"].get(name, "")])
    table += [[name, "", "", "", value] for name, value in found["toolkit"].items() if name not in found["ours"]]
    bench.table(["what changes", "embedding changes by", "goal", "verdict", "toolkit's normalized field"], table)
    bench.finish()


if __name__ == "__main__":
    main()
