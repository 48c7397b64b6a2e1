"""A decoder that cross-attends from masked positions, beside the specification's loop and an MAE's decoder.

The specification's sizes: 94 patches of 100 cells at T times, 75 % or 40 % of them hidden, encoder 256 x 6, decoder
128 x 4, float32, one thread; 4 samples, 1 at T = 90. All ways take turns in one process on the same tokens and weights
(`crossmae_peers.py`); ratios are of medians of CPU time, with the lowest and highest ratio of a round behind them.
"decoder" is forward, loss and backward of the decoder alone, from tokens to [B, T, 94, 100]; "step" is that of encoder,
decoder and loss. "quarter" predicts a quarter of the masked positions, the MAE beside it all; "maps" mixes the
encoder's input and six layers anew for each decoder layer. Memory: what autograd keeps for backward, parameters left
out; and by how much one forward and backward raises a fresh process's peak.

Goals at 75 %: decoder 2.5x the loop and 2.7x the MAE at T=8, 3.5x and 3.5x at T=30, 4x the MAE at T=90; a quarter 6x
and 9x at T=8 and 30; step 1.5x, 2x, 2.7x the MAE's, 2.8x with a quarter at T=30; maps at most 8 % of a step.
"""

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from common import Bench, median
from crossmae_peers import LoopDecoder, MAEDecoder
from torch import Tensor, nn

SOURCES = (
    *(f"systems/crossmae/{name}.py" for name in ("decoder", "embedding", "encoder", "mixing", "patches", "tokens")),
    "nn/attention.py",
    "nn/position.py",
)
PLACES, CELLS, BATCH = 94, (10, 10), {8: 4, 30: 4, 90: 1}
DECODER_GOALS = {
    (8, "loop"): 2.5,
    (8, "MAE"): 2.7,
    (30, "loop"): 3.5,
    (30, "MAE"): 3.5,
    (90, "MAE"): 4.0,
    (8, "quarter"): 6.0,
    (30, "quarter"): 9.0,
}
STEP_GOALS = {(8, "MAE"): 1.5, (30, "MAE"): 2.0, (90, "MAE"): 2.7, (30, "quarter"): 2.8}
MAPS_GOAL = 0.08


class Setting:
    """Weights, values and masks of one size."""

    def __init__(self, times: int, share: float) -> None:
        from gridloom.systems.crossmae.decoder import DecoderShape, ImageDecoder
        from gridloom.systems.crossmae.encoder import EncoderShape, ImageEncoder
        from gridloom.systems.crossmae.patches import ImagePatches

        torch.manual_seed(0)
        torch.set_num_threads(1)
        self.batch, self.positions = BATCH[times], times * PLACES
        patches = ImagePatches(2 * CELLS[0], PLACES // 2 * CELLS[1], CELLS)
        plain, maps = EncoderShape(), EncoderShape(feature_maps=True)
        self.encoders = {"plain": ImageEncoder(patches, plain), "maps": ImageEncoder(patches, maps)}
        self.encoders["maps"].load_state_dict(self.encoders["plain"].state_dict())
        self.ours = ImageDecoder(patches, DecoderShape(), context_dim=plain.dim)
        self.mixing = ImageDecoder(patches, DecoderShape(), context_dim=plain.dim, num_maps=maps.num_maps)
        self.seen = ImageDecoder(patches, DecoderShape(attention="self"), context_dim=plain.dim)
        self.loop, self.mae = LoopDecoder(self.ours, times), MAEDecoder(self.seen, times)
        self.x = torch.randn(self.batch, times, patches.height, patches.width)
        self.truth = patches.cut(self.x)
        ranks = torch.rand(self.batch, self.positions).argsort(1).argsort(1)
        self.masked = round(share * self.positions)
        self.mask = (ranks < self.masked).view(self.batch, times, PLACES)
        self.quarter = (ranks < self.masked // 4).view(self.batch, times, PLACES)
        with torch.no_grad():
            tokens, self.info = self.encoders["plain"](self.x, self.mask)
            self.maps = [one.requires_grad_() for one in self.encoders["maps"](self.x, self.mask)[0]]
        self.tokens = tokens.requires_grad_()

    def decoders(self) -> dict[str, Callable[[], Tensor]]:
        """Predictions [B, T, 94, 100] from the same tokens."""
        part = {**self.info, "mask": self.quarter}
        return {
            "ours": lambda: self.ours(self.tokens, self.info),
            "loop": lambda: self.loop(self.tokens, self.info),
            "MAE": lambda: self.mae(self.tokens, self.info),
            "quarter": lambda: self.ours(self.tokens, part),
            "maps": lambda: self.mixing(self.maps, self.info),
        }

    def decode(self, name: str) -> Callable[[], Tensor]:
        """Loss of a decoder alone: the mean square over what was asked, computed alike for all."""
        asked = self.quarter if name == "quarter" else self.mask
        predict = self.decoders()[name]
        return lambda: ((predict() - self.truth).square().mean(-1) * asked).sum() / asked.sum()

    def step(self, name: str) -> Callable[[], Tensor]:
        """Loss of encoder and decoder."""
        from gridloom.systems.crossmae.tokens import take_rows

        encoder = self.encoders["maps" if name == "maps" else "plain"]
        decoder = self.mixing if name == "maps" else self.ours
        asked = self.quarter if name == "quarter" else self.mask

        def rows() -> Tensor:
            tokens, info = encoder(self.x, self.mask)
            answer = decoder.answer(tokens, {**info, "mask": asked})
            return (answer.mean - take_rows(self.truth.flatten(1, 2), answer.asked.positions)).square().mean()

        def everywhere() -> Tensor:
            predicted = (self.mae if name == "MAE" else self.loop)(*encoder(self.x, self.mask))
            return ((predicted - self.truth).square().mean(-1) * asked).sum() / asked.sum()

        return everywhere if name in ("MAE", "loop") else rows

    def modules(self) -> list[nn.Module]:
        """All networks."""
        return [*self.encoders.values(), self.ours, self.mixing, self.seen, self.loop, self.mae]

    def clear(self) -> None:
        """Forget gradients."""
        for module in self.modules():
            module.zero_grad(set_to_none=True)
        for tensor in (self.tokens, *self.maps):
            tensor.grad = None


def check(times: int, share: float) -> dict[str, Any]:
    """Largest differences: loop and ours, MAE and our own self-attention decoder, a quarter and all, gradients."""
    setting = Setting(times, share)
    found = {name: predict().detach() for name, predict in setting.decoders().items()}
    gradients = []
    for name in ("ours", "loop"):
        setting.clear()
        setting.decode(name)().backward()
        gradients.append(setting.tokens.grad.clone())
    asked = setting.mask[..., None]
    alike = setting.seen(setting.tokens, setting.info).detach()
    differences = {
        "loop": (found["loop"] - found["ours"]).abs().max(),
        "loop's gradient, relative": (gradients[0] - gradients[1]).abs().max() / gradients[1].abs().max(),
        "MAE": ((found["MAE"] - alike) * asked).abs().max(),
        "quarter": ((found["quarter"] - found["ours"]) * setting.quarter[..., None]).abs().max(),
        "step": (setting.step("ours")() - setting.step("loop")()).abs().detach(),
    }
    figures = {name: float(value) for name, value in differences.items()}
    assert max(figures.values()) <= 1e-5, figures
    return figures


def measure(what: str, times: int, share: float, ways: list[str], repetitions: int) -> dict[str, Any]:
    """CPU and wall seconds of each way, by turns."""
    setting = Setting(times, share)
    losses = {way: (setting.decode if what == "decoder" else setting.step)(way) for way in ways}
    costs: dict[str, dict[str, list[float]]] = {way: {"cpu": [], "wall": []} for way in ways}
    for repetition in range(-1, repetitions):
        for way in ways if repetition % 2 == 0 else reversed(ways):
            setting.clear()
            started = time.process_time(), time.perf_counter()
            losses[way]().backward()
            if repetition >= 0:  # the first round warms up
                costs[way]["cpu"].append(time.process_time() - started[0])
                costs[way]["wall"].append(time.perf_counter() - started[1])
    found: dict[str, Any] = {}
    for way, cost in costs.items():
        kept = _kept(losses[way], setting)
        found[way] = {"cpu": median(cost["cpu"]), "wall": median(cost["wall"]), "saved_mb": kept / 2**20}
    for way, base in _pairs(ways):
        rounds = [a / b for a, b in zip(costs[base]["cpu"], costs[way]["cpu"], strict=True)]
        found[f"{base} / {way}"] = {
            "cpu": found[base]["cpu"] / found[way]["cpu"],
            "wall": found[base]["wall"] / found[way]["wall"],
            "lowest": min(rounds),
            "highest": max(rounds),
        }
    return found


def _pairs(ways: list[str]) -> list[tuple[str, str]]:
    """What is compared: (the faster, the slower)."""
    pairs = [("ours", "loop"), ("ours", "MAE"), ("quarter", "MAE"), ("maps", "MAE"), ("ours", "maps")]
    return [pair for pair in pairs if set(pair) <= set(ways)]


def _kept(loss: Callable[[], Tensor], setting: Setting) -> int:
    """Bytes of the storages that autograd keeps for backward, each once, without parameters."""
    own = {parameter.untyped_storage().data_ptr() for one in setting.modules() for parameter in one.parameters()}
    storages: dict[int, Any] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage  # held, so that no address is given twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = loss()
    total = sum(storage.nbytes() for storage in storages.values())
    del result
    return total


def _growth(what: str, times: int, share: float, way: str) -> float:
    """MB by which one forward and backward raises the peak of this process."""
    setting = Setting(times, share)
    loss = (setting.decode if what == "decoder" else setting.step)(way)
    before = _status("VmRSS")
    loss().backward()
    return (_status("VmHWM") - before) / 1024


def _status(name: str) -> int:
    """KB of this process; unlike that of `getrusage`, this peak is not inherited from the parent."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def measure_peak(what: str, times: int, share: float, ways: list[str]) -> dict[str, float]:
    """Growth of the peak resident memory, each way in a fresh process."""
    found = {}
    for way in ways:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            found[way] = pool.submit(_growth, what, times, share, way).result()
    return found


def _plan(bench: Bench) -> list[tuple[str, int, float, list[str], int]]:
    """What, times, share, ways and rounds."""
    ways, step = ["ours", "loop", "MAE", "quarter", "maps"], ["ours", "MAE", "quarter", "maps"]
    if bench.quick:
        return [("decoder", 8, 0.75, ways, 5), ("step", 8, 0.75, step, 5)]
    plan = [
        ("decoder", 8, 0.75, ways, 11),
        ("decoder", 8, 0.4, ways, 5),
        ("decoder", 30, 0.75, ways, 3),
        ("decoder", 90, 0.75, ["ours", "MAE", "quarter"], 3),
        ("step", 8, 0.75, step, 11),
        ("step", 8, 0.4, ["ours", "MAE"], 7),
        ("step", 30, 0.75, step, 4),
        ("step", 30, 0.4, ["ours", "MAE"], 2),
        ("step", 90, 0.75, ["ours", "MAE", "quarter"], 3),
    ]
    if bench.full:
        plan = [(what, times, share, names, 3 * rounds) for what, times, share, names, rounds in plan]
        plan += [
            ("decoder", 30, 0.4, ways, 5),
            ("decoder", 90, 0.4, ["ours", "MAE"], 5),
            ("step", 90, 0.4, ["ours", "MAE"], 5),
        ]
    return plan


def _rows(bench: Bench, what: str, times: int, share: float, cell: dict[str, Any], peak: dict[str, float]) -> list:
    """A line for each way; goals stand at the masks of 75 %."""
    goals = DECODER_GOALS if what == "decoder" else STEP_GOALS
    rows = []
    for way in ("ours", "quarter", "maps", "loop", "MAE"):
        if way not in cell:
            continue
        figures, texts, words = cell[way], [], []
        for base in ("loop", "MAE"):
            ratio = cell.get(f"{base} / {way}")
            texts.append(f"{ratio['cpu']:.2f} ({ratio['lowest']:.2f} to {ratio['highest']:.2f})" if ratio else "")
            goal = goals.get((times, base if way == "ours" else way)) if share == 0.75 and ratio else None
            if goal and way != "maps":
                met = bench.goal(f"{what}, T={times}, {way}: {goal}x the {base}", ratio["cpu"] >= goal)
                words.append(f"{goal}: {met}")
        if way == "maps" and what == "step" and share == 0.75:
            cost = cell["maps / ours"]["cpu"] - 1
            met = bench.goal(f"maps at T={times}: at most {MAPS_GOAL:.0%} of a step", cost <= MAPS_GOAL)
            words.append(f"{cost:+.1%} of {MAPS_GOAL:.0%}: {met}")
        milliseconds = [round(figures["cpu"] * 1e3), round(figures["wall"] * 1e3)]
        memory = [round(figures["saved_mb"]), round(peak[way]) if way in peak else ""]
        rows.append([what, times, share, way, *milliseconds, *texts, "; ".join(words), *memory])
    return rows


def main() -> None:
    bench = Bench(__file__, __doc__, sources=SOURCES)
    same = bench.cell("all compute the same", check, times=8, share=0.75)
    rows = []
    for what, times, share, ways, repetitions in _plan(bench):
        place = f"{what} T={times} r={share}"
        cell = bench.cell(place, measure, what=what, times=times, share=share, ways=ways, repetitions=repetitions)
        peak = {}
        if what == "decoder" and share == 0.75 and not bench.quick and times < 90:
            peak = bench.cell(f"{place} peak", measure_peak, what=what, times=times, share=share, ways=ways)
        rows += _rows(bench, what, times, share, cell, peak)
        bench.figure(place, {name: value["cpu"] for name, value in cell.items() if "/" in name})
    header = ["what", "T", "hidden", "way", "CPU ms", "wall ms", "faster than loop", "faster than MAE", "goal"]
    bench.table([*header, "kept MB", "peak MB"], rows)
    bench.table(["largest difference", ""], [[name, value] for name, value in same.items()])
    bench.goal("the loop's predictions and gradients to 1e-5", max(same.values()) <= 1e-5)
    bench.finish()


if __name__ == "__main__":
    main()
