"""Speed of the heatmap system: its parts beside the processor's ceiling, the fast decoder, rollouts with a cache.

One thread, CPU time, all ways by turns in one process, medians; ratios are medians over the rounds. The model is the
seed's size (2x32x32, 239 slots, latents of 4096), in rollouts with a causal transformer of width 512 and 6 layers; its
slot embedding and decoder start so that frames differ from each other.

Parts: encoder, decoder and a training step (forward, backward, AdamW; the seed's wrapper) on 2x16 frames, float32 and
bfloat16 under autocast; "fast" is `fast_model` in that type. The ceiling is a product of two 2048x2048 matrices in the
same type in the same run; the fast decoder's share counts the operations of the plain one, of which it saves 43 %.

Decoder: `fast_decoder` beside the plain module in the same type (its weights cast once), 1, 8 and 32 frames.

Rollout: context of 60 frames, 40 more. "naive" encodes all frames and runs the causal part over all of them at each
step; "latents kept" encodes each frame once; "cache" is `begin` and `roll_out`; "fast" the same with `fast_model`. The
total goes from the context to the last frame; at batch 8 naive ways are timed at the middle step alone. Last, a day of
239 slots in one call.

Goals: decoder 1.5x plain in the same type, and bfloat16 1.5x plain float32; the same pixels to 1e-4 and 1e-2. One frame
alone reads 67 MB of weights in the first layer whichever way, which leaves little to win in float32; `fast_model`
multiplies that layer out. Cache 10x naive at batch 1, the same frames to 1e-5; at most 25 ms a frame at batch 1 and
10 ms a frame and sample at batch 8.
"""

import time
from collections.abc import Callable
from typing import Any

import torch
from common import Bench, median
from torch import Tensor, nn

SOURCES = ("nn/attention.py", "nn/causal.py", "systems/heatmap")
CONTEXT, MORE, DAY = 60, 40, 239
DECODER_GOAL, CACHE_GOAL, FRAME_GOALS = 1.5, 10.0, {1: 25.0, 8: 10.0}
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
ADAM = {"lr": 1e-4, "fused": True}


def by_turns(
    ways: dict[str, Callable[[], Any]], rounds: int, *, repeats: int = 1, warm: bool = True
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """CPU seconds of each way in each round, and what it gave; a first round warms up and is not counted."""
    costs: dict[str, list[float]] = {name: [] for name in ways}
    answers: dict[str, Any] = {}
    for number in range(-1 if warm else 0, rounds):
        for name in ways if number % 2 == 0 else reversed(ways):
            started = time.process_time()
            for _ in range(repeats if number >= 0 else 1):
                answers[name] = ways[name]()
            if number >= 0:
                costs[name].append((time.process_time() - started) / repeats)
    return costs, answers


def ratio(slow: list[float], quick: list[float]) -> float:
    """Median over the rounds of how many times faster."""
    return median([a / b for a, b in zip(slow, quick, strict=True)])


def _operations(way: Callable[[], Any]) -> int:
    """Floating-point operations of products and convolutions."""
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with counter:
        way()
    return counter.get_total_flops()


def _step(precision: str) -> Callable[[], None]:
    """A training step of the seed's wrapper."""
    from gridloom.systems.heatmap.wrapper import AutoRegWrapper

    model = AutoRegWrapper()
    optimizer = torch.optim.AdamW(model.parameters(), **ADAM)
    x, slots = torch.rand(2, 16, 2, 32, 32), torch.randint(DAY, (2, 16))

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.enable_grad():
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                loss = model(x, slots).loss
            loss.backward()
        optimizer.step()

    return step


def _under(precision: str, function: Callable[..., Tensor], *inputs: Tensor) -> Callable[[], Tensor]:
    """A call without gradients, in bfloat16 under autocast."""

    def call() -> Tensor:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            return function(*inputs)

    return call


def measure_parts(rounds: int) -> dict[str, Any]:
    """Encoder, decoder and training step beside a product of matrices in the same type."""
    from gridloom.systems.heatmap.decoder import HeatmapDecoder
    from gridloom.systems.heatmap.encoder import HeatmapEncoder
    from gridloom.systems.heatmap.fast import fast_model

    torch.manual_seed(0)
    torch.set_num_threads(1)
    encoder, decoder = HeatmapEncoder().eval(), HeatmapDecoder().eval()
    x, slots, z = torch.rand(2, 16, 2, 32, 32), torch.randint(DAY, (2, 16)), torch.randn(2, 16, 4096)
    found: dict[str, Any] = {}
    operations: dict[str, int] = {}
    for precision, dtype in TYPES.items():
        square = torch.randn(2048, 2048).to(dtype)
        ways: dict[str, Callable[[], Any]] = {
            "ceiling": lambda square=square: square @ square,
            "encoder": _under(precision, encoder, x, slots),
            "decoder": _under(precision, decoder, z),
            "training step": _step(precision),
        }
        operations = operations or {name: _operations(way) for name, way in ways.items()}
        for name, module, inputs in (("encoder", encoder, (x, slots)), ("decoder", decoder, (z,))):
            ways[f"fast {name}"] = _under("fp32", fast_model(module, precision=precision), *inputs)
            operations[f"fast {name}"] = operations[name]
        costs, _ = by_turns(ways, rounds)
        rates = {name: [operations[name] / cost for cost in costs[name]] for name in ways}
        for name in ways:
            found[f"{name} {precision}"] = {
                "seconds": median(costs[name]),
                "gflops": median(rates[name]) / 1e9,
                "share": ratio(rates[name], rates["ceiling"]),
            }
    return found


def _decoder() -> nn.Module:
    """A decoder whose pixels differ twice as much as those of a new one: so do what bfloat16 makes of them."""
    from gridloom.systems.heatmap.decoder import HeatmapDecoder

    decoder = HeatmapDecoder().eval().requires_grad_(False)
    decoder.out.weight.mul_(2.0)
    return decoder


def measure_decoder(frames: int, rounds: int) -> dict[str, Any]:
    """The fast decoder beside the plain one."""
    from gridloom.systems.heatmap.fast import fast_decoder

    torch.manual_seed(0)
    torch.set_num_threads(1)
    decoder, z = _decoder(), torch.randn(frames, 4096)
    half, zh = _decoder(), z.bfloat16()
    half.load_state_dict(decoder.state_dict())
    half.bfloat16()
    fast, fast_half = fast_decoder(decoder), fast_decoder(decoder, dtype=torch.bfloat16)
    ways: dict[str, Callable[[], Tensor]] = {
        "plain fp32": lambda: decoder(z),
        "fast fp32": lambda: fast(z),
        "plain bf16": lambda: half(zh),
        "fast bf16": lambda: fast_half(z),
    }
    costs, answers = by_turns(ways, rounds, repeats=max(1, 8 // frames))
    found: dict[str, Any] = {
        name: {
            "ms": 1e3 * median(costs[name]),
            "ratio": ratio(costs[f"plain {name[-4:]}"], costs[name]),
            "difference": float((answers[name].float() - answers["plain fp32"]).abs().max()),
        }
        for name in ways
    }
    found["fast bf16"]["ratio to plain fp32"] = ratio(costs["plain fp32"], costs["fast bf16"])
    found["standard deviation of pixels"] = float(answers["plain fp32"].std())
    return found


def _model() -> Any:
    from gridloom.systems.heatmap.config import ModelConfig
    from gridloom.systems.heatmap.wrapper import AutoRegWrapper

    torch.manual_seed(0)
    model = AutoRegWrapper(ModelConfig(alpha=1.0, slot_init_std=0.5), causal="transformer").eval()
    model.requires_grad_(False)
    model.decoder.out.weight.mul_(4.0)
    return model


@torch.inference_mode()
def naive(model: Any, frames: Tensor, slots: Tensor, future: Tensor, feedback: str) -> Tensor:
    """Encode all frames and look at all of them, for each new frame; latents fed back need no encoding."""
    z, found = model.encoder(frames, slots), []
    for step in range(future.shape[1]):
        if feedback == "frames" and step:
            z = model.encoder(torch.cat([frames, *found], 1), torch.cat([slots, future[:, :step]], 1))
        latent = model.head(model.causal(z)[:, -1:])
        found.append(model.decoder(latent))
        z = torch.cat([z, latent], 1)
    return torch.cat(found, 1)


@torch.inference_mode()
def latents_kept(model: Any, frames: Tensor, slots: Tensor, future: Tensor) -> Tensor:
    """Encode each frame once, and look at all latents for each new one."""
    z, found = model.encoder(frames, slots), []
    for step in range(future.shape[1]):
        if step:
            z = torch.cat([z, model.encoder(found[-1], future[:, step - 1 : step])], 1)
        found.append(model.decoder(model.head(model.causal(z)[:, -1:])))
    return torch.cat(found, 1)


class Rollout:
    """A context and the ways to go on from it."""

    def __init__(self, batch: int, context: int, more: int) -> None:
        from gridloom.systems.heatmap.fast import fast_model

        torch.set_num_threads(1)
        model = _model()
        started = time.process_time()
        self.models = {"cache": model, "cache, fast fp32": fast_model(model)}
        self.making = time.process_time() - started
        self.models["cache, fast bf16"] = fast_model(model, precision="bf16")
        self.frames = (torch.rand(batch, context, 2, 32, 32) - 0.7).clamp(min=0.0)
        slots = torch.arange(context + more).repeat(batch, 1) % DAY
        self.slots, self.future = slots[:, :context].contiguous(), slots[:, context:].contiguous()

    def begin(self, name: str) -> Any:
        """Look at the context."""
        from gridloom.systems.heatmap.rollout import begin

        return begin(self.models[name], self.frames, self.slots)

    def go_on(self, name: str, feedback: str) -> Callable[[], Tensor]:
        """Go on from it, any number of times."""
        from gridloom.systems.heatmap.rollout import roll_out

        past, sessions = self.begin(name), torch.zeros_like(self.future)
        return lambda: roll_out(self.models[name], past.repeat(1), self.future, sessions, feedback=feedback)

    def slow(self, feedback: str) -> dict[str, Callable[[], Tensor]]:
        """Ways without a cache."""
        given = (self.models["cache"], self.frames, self.slots, self.future)
        ways = {"naive": lambda: naive(*given, feedback)}
        return {**ways, "latents kept": lambda: latents_kept(*given)} if feedback == "frames" else ways


def _rows(costs: dict[str, list[float]], began: dict[str, float], more: int) -> Any:
    """Seconds of each way: the context, a frame after it, in all; and how many times faster than the naive one."""
    found = {}
    for name in costs:
        first = began.get(name, 0.0)
        total = [first + cost for cost in costs[name]]
        found[name] = {"context": began.get(name), "frame": median(costs[name]) / more, "total": median(total)}
        found[name]["ratio"] = ratio(costs["naive"], total)
        found[name]["frame ratio"] = ratio(costs["naive"], costs[name])
    return found


def measure_rollout(feedback: str, rounds: int, context: int, more: int) -> dict[str, Any]:
    """One sequence, all ways whole."""
    rollout = Rollout(1, context, more)
    quick = {name: rollout.go_on(name, feedback) for name in rollout.models}
    began = _medians(by_turns({name: lambda name=name: rollout.begin(name) for name in quick}, rounds, warm=False)[0])
    costs, answers = by_turns(rollout.slow(feedback) | quick, rounds, warm=False)
    rows = _rows(costs, began, more)
    for name, answer in answers.items():
        rows[name]["difference"] = float((answer - answers["naive"]).abs().max())
    changes = answers["naive"].diff(dim=1).abs().max()
    return {"ways": rows, "making": rollout.making, "largest change from frame to frame": float(changes)}


def _medians(costs: dict[str, list[float]]) -> dict[str, float]:
    return {name: median(values) for name, values in costs.items()}


def measure_batch(batch: int, feedback: str, rounds: int, context: int, more: int) -> dict[str, Any]:
    """Many sequences; the ways without a cache are timed at the middle step, which costs the mean of all."""
    rollout, middle = Rollout(batch, context, more), Rollout(batch, context + more // 2, 1)
    quick = {name: rollout.go_on(name, feedback) for name in rollout.models}
    began = _medians(by_turns({name: lambda name=name: rollout.begin(name) for name in quick}, 1, warm=False)[0])
    costs, answers = by_turns(quick, rounds, warm=False)
    model = rollout.models["cache"]
    with torch.inference_mode():
        z = model.encoder(middle.frames, middle.slots)
    frame, slot = middle.frames[:, -1:], middle.slots[:, -1:]
    look = _under("fp32", lambda: model.decoder(model.head(model.causal(z)[:, -1:])))
    steps: dict[str, Callable[[], Any]] = {
        "naive": look if feedback == "latents" else middle.slow(feedback)["naive"],
        "latents kept": lambda: (look(), _under("fp32", model.encoder, frame, slot)()),
    }
    if feedback == "latents":
        del steps["latents kept"]
    middles, _ = by_turns(steps, rounds, warm=False)
    slow = {name: [more * cost for cost in values] for name, values in middles.items()}
    rows = _rows(slow | costs, began, more)
    for name, answer in answers.items():
        rows[name]["difference"] = float((answer - answers["cache"]).abs().max())
    return {"ways": rows}


def measure_day(slots: int) -> dict[str, Any]:
    """Seconds of a day in one call."""
    rollout = Rollout(1, CONTEXT, slots)
    ways = {
        f"{name}, {feedback} fed back": rollout.go_on(name, feedback)
        for name in rollout.models
        for feedback in ("frames", "latents")
        if (name, feedback) != ("cache", "latents")
    }
    return _medians(by_turns(ways, 1, warm=False)[0])


def _show_parts(bench: Bench, found: dict[str, Any]) -> None:
    rows = []
    for precision in TYPES:
        ceiling = found[f"ceiling {precision}"]["gflops"]
        for name in ("encoder", "fast encoder", "decoder", "fast decoder", "training step"):
            cell = found[f"{name} {precision}"]
            rate = round(32 / cell["seconds"])
            rows.append([name, precision, 1e3 * cell["seconds"], rate, cell["gflops"], ceiling, f"{cell['share']:.0%}"])
            bench.figure(f"{name} {precision}", {"frames/s": rate, "share": cell["share"]})
    bench.table(["32 frames", "type", "ms", "frames/s", "GFLOP/s", "ceiling", "share"], rows)


def _show_decoder(bench: Bench, cells: dict[int, dict[str, Any]]) -> None:
    rows = []
    for frames, found in cells.items():
        for name in ("plain fp32", "fast fp32", "plain bf16", "fast bf16"):
            cell, words = found[name], ""
            if name.startswith("fast"):
                limit = 1e-4 if name.endswith("fp32") else 1e-2
                faster = bench.goal(f"decoder, {name}, {frames} frames: 1.5x plain", cell["ratio"] >= DECODER_GOAL)
                same = bench.goal(f"decoder, {name}, {frames} frames: same to {limit}", cell["difference"] <= limit)
                words = f"1.5x: {faster}; {limit:g}: {same}"
            rows.append([frames, name, cell["ms"], f"{cell['ratio']:.2f}x", cell["difference"], words])
        across = found["fast bf16"]["ratio to plain fp32"]
        met = bench.goal(f"decoder, {frames} frames: fast bf16 1.5x plain fp32", across >= DECODER_GOAL)
        rows.append([frames, "fast bf16 to plain fp32", "", f"{across:.2f}x", "", f"1.5x: {met}"])
        bench.figure(f"decoder {frames}", {name: cell["ratio"] for name, cell in found.items() if "fast" in name})
    bench.table(["frames", "way", "ms", "faster than plain", "off by at most", "goal"], rows)


def _show_rollout(bench: Bench, cells: dict[tuple[int, str], dict[str, Any]]) -> None:
    rows = []
    for (batch, feedback), found in cells.items():
        for name, cell in found["ways"].items():
            words, each = [], 1e3 * cell["frame"] / batch
            place = f"{name}, batch {batch}, {feedback} fed back"
            if "cache" in name and feedback == "frames" and not bench.quick:  # a short context says nothing
                limit = FRAME_GOALS.get(batch, 0.0)
                words.append(f"{limit:g} ms: {bench.goal(f'{place}: at most {limit:g} ms a frame', each <= limit)}")
                if batch == 1:
                    word = bench.goal(f"{place}: {CACHE_GOAL:g}x naive in all", cell["ratio"] >= CACHE_GOAL)
                    words.append(f"{CACHE_GOAL:g}x: {word}")
            if "cache" in name and "bf16" not in name:
                words.append(f"1e-5: {bench.goal(f'{place}: the same frames to 1e-5', cell['difference'] <= 1e-5)}")
            context = "" if cell["context"] is None else 1e3 * cell["context"]
            ratios = [f"{cell['ratio']:.1f}x", f"{cell['frame ratio']:.1f}x"]
            rows.append([batch, feedback, name, context, each, cell["total"], *ratios, cell.get("difference", "")])
            rows[-1].append("; ".join(words))
            bench.figure(place, {"ms": each, "seconds": cell["total"], "ratio": cell["ratio"]})
    header = ["batch", "fed back", "way", "context ms", "ms a frame and sample", "total s", "faster than naive in all"]
    bench.table([*header, "a frame", "off by at most", "goal"], rows)


def main() -> None:
    bench = Bench(__file__, __doc__, sources=SOURCES)
    quick = bench.quick
    _show_parts(bench, bench.cell("parts", measure_parts, rounds=1 if quick else 5))
    decoders = {}
    for frames in (1, 8, 32):
        decoders[frames] = bench.cell(f"decoder {frames}", measure_decoder, frames=frames, rounds=3 if quick else 15)
    _show_decoder(bench, decoders)
    size = {"context": 8, "more": 4} if quick else {"context": CONTEXT, "more": MORE}
    rounds = 1 if quick else 2
    cells = {}
    for feedback in ("frames", "latents"):
        name = f"rollout, {feedback} fed back"
        cells[1, feedback] = bench.cell(name, measure_rollout, feedback=feedback, rounds=rounds, **size)
        if not quick:
            cells[8, feedback] = bench.cell(
                f"{name}, batch 8", measure_batch, batch=8, feedback=feedback, rounds=2, **size
            )
    _show_rollout(bench, cells)
    bench.table(
        ["fed back", "largest change from one frame to the next", "s to make the fast model"],
        [
            [feedback, cells[1, feedback]["largest change from frame to frame"], cells[1, feedback]["making"]]
            for feedback in ("frames", "latents")
        ],
    )
    day = bench.cell("day", measure_day, slots=8 if quick else DAY)
    bench.table([f"{8 if quick else DAY} slots in one call", "s"], [[name, value] for name, value in day.items()])
    bench.figure("day", day)
    bench.finish()


if __name__ == "__main__":
    main()
