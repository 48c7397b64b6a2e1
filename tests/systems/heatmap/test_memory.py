"""The memory against a loop in float64 that keeps the whole past in lists."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from gridloom.systems.heatmap.config import MemoryConfig, ModelConfig
from gridloom.systems.heatmap.memory import FrameMemory, num_features, num_phases
from tests.systems.heatmap.small import CAP, MEMORY, SMALL

CELLS, SLOTS, LENGTH = 5, 6, 34
FULL = replace(MEMORY, count_averages=(0.3, 0.1))


def model(memory: MemoryConfig = FULL, residual: str = "slot_mean") -> ModelConfig:
    return ModelConfig(**SMALL, memory=memory, residual=residual, count_cap=CAP)


class SlowMemory:
    """One record; a list for everything."""

    def __init__(self, config: ModelConfig, *, restart: bool, prior: np.ndarray | None = None) -> None:
        memory = self.memory = config.memory
        self.residual, self.restart = config.residual, restart
        shape = (2, CELLS)
        self.zero = np.zeros(shape)
        self.means: list[dict[int, tuple[float, np.ndarray]]] = []
        first = 0
        for period, _ in memory.seasonal:
            start = {} if prior is None else {phase: (1e6, prior[first + phase].copy()) for phase in range(period)}
            self.means.append(start)
            first += period
        self.session: int | None = None
        self.begin(None)

    def begin(self, usual: np.ndarray | None) -> None:
        start = self.zero if usual is None else usual
        self.known = usual is not None
        self.past = [start] * 50
        self.deviations = [self.zero] * 50
        self.averages = [start for _ in self.memory.averages]
        self.count_averages = [self.counts(start) for _ in self.memory.count_averages]
        self.deviation_averages = [self.zero for _ in self.memory.deviation_averages]

    @staticmethod
    def counts(frame: np.ndarray) -> np.ndarray:
        return np.expm1(frame * math.log1p(CAP))

    def mean(self, which: int, slot: int) -> np.ndarray:
        period = self.memory.seasonal[which][0]
        return self.means[which].get(slot % period, (0.0, self.zero))[1]

    def enter(self, slot: int, session: int) -> None:
        if self.restart and session != self.session:
            known = bool(self.memory.seasonal) and slot % self.memory.seasonal[0][0] in self.means[0]
            self.begin(self.mean(0, slot) if known else None)
        self.session = session

    def base(self, slot: int) -> np.ndarray:
        if self.residual == "slot_mean":
            return self.mean(0, slot)
        return self.averages[0] if self.residual == "ema" else self.past[-1]

    def features(self, slot: int, session: int) -> np.ndarray:
        self.enter(slot, session)
        return np.stack(
            [
                self.base(slot),
                *(self.mean(which, slot) for which in range(len(self.memory.seasonal))),
                *self.averages,
                *(np.log1p(average) / math.log1p(CAP) for average in self.count_averages),
                *(self.past[-lag] for lag in self.memory.lags),
                *(self.deviations[-lag] for lag in self.memory.deviation_lags),
                *self.deviation_averages,
            ]
        )

    def update(self, frame: np.ndarray, slot: int, session: int, valid: bool) -> None:
        self.enter(slot, session)
        base = self.base(slot).copy()
        if not valid:
            self.past.append(base)
            self.deviations.append(self.zero)
            return
        self.deviations.append(frame - base)

        def follow(old: np.ndarray, new: np.ndarray, rate: float) -> np.ndarray:
            return old + rate * (new - old)

        first = not self.known
        rates = self.memory
        self.averages = [
            frame if first else follow(old, frame, rate)
            for old, rate in zip(self.averages, rates.averages, strict=True)
        ]
        self.count_averages = [
            self.counts(frame) if first else follow(old, self.counts(frame), rate)
            for old, rate in zip(self.count_averages, rates.count_averages, strict=True)
        ]
        self.deviation_averages = [
            follow(old, frame - base, rate)
            for old, rate in zip(self.deviation_averages, rates.deviation_averages, strict=True)
        ]
        for means, (period, rate) in zip(self.means, rates.seasonal, strict=True):
            count, mean = means.get(slot % period, (0.0, self.zero))
            means[slot % period] = (count + 1, follow(mean, frame, max(rate, 1 / (count + 1))))
        self.past.append(frame)
        self.known = True


def walk(batch: int = 3, *, seed: int = 0, halted: float = 0.0, sessions: int = 4) -> dict[str, Tensor]:
    """Frames [batch, time, channel, cell] with slots, sessions and validity [batch, time]."""
    generator = torch.Generator().manual_seed(seed)
    slot = (torch.arange(LENGTH) % SLOTS).repeat(batch, 1) + torch.arange(batch)[:, None]
    return {
        "frame": torch.rand(batch, LENGTH, 2, CELLS, generator=generator),
        "slot": slot % SLOTS,
        "session": (torch.arange(LENGTH) * sessions // LENGTH).repeat(batch, 1),
        "valid": torch.rand(batch, LENGTH, generator=generator) >= halted,
    }


def step(memory: FrameMemory, past: dict[str, Tensor], time: int) -> None:
    memory.update(*(past[name][:, time] for name in ("frame", "slot", "session", "valid")))


def look(memory: FrameMemory, past: dict[str, Tensor], time: int) -> Tensor:
    return memory.features(past["slot"][:, time], past["session"][:, time]).clone()


@pytest.mark.parametrize("residual", ["last", "ema", "slot_mean"])
@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("halted", [0.0, 0.4])
@pytest.mark.parametrize("with_prior", [False, True])
def test_every_feature_is_that_of_the_loop(residual: str, restart: bool, halted: float, with_prior: bool) -> None:
    config = model(residual=residual)
    prior = torch.rand(num_phases(config.memory), 2, CELLS, generator=torch.Generator().manual_seed(5))
    past = walk(halted=halted)
    given = prior if with_prior else None
    memory = FrameMemory(config, batch=3, num_cells=CELLS, prior=given, restart=restart)
    slow = [SlowMemory(config, restart=restart, prior=prior.double().numpy() if with_prior else None) for _ in range(3)]
    for time in range(LENGTH):
        slots, sessions = past["slot"][:, time].tolist(), past["session"][:, time].tolist()
        found = look(memory, past, time)
        expected = [one.features(*where) for one, *where in zip(slow, slots, sessions, strict=True)]
        assert found.shape == (3, num_features(config.memory), 2, CELLS)
        np.testing.assert_allclose(found.numpy(), np.stack(expected), rtol=0, atol=2e-5, err_msg=f"time {time}")
        step(memory, past, time)
        for number, one in enumerate(slow):
            frame = past["frame"][number, time].double().numpy()
            one.update(frame, slots[number], sessions[number], bool(past["valid"][number, time]))


def test_a_rate_of_nought_is_the_plain_mean_of_all_that_was_seen() -> None:
    config = model(MemoryConfig(seasonal=((SLOTS, 0.0),)))
    past, memory = walk(halted=0.3), FrameMemory(config, batch=3, num_cells=CELLS)
    for time in range(LENGTH):
        step(memory, past, time)
    for slot in range(SLOTS):
        found = memory.features(torch.full((3,), slot), torch.zeros(3, dtype=torch.int64))[:, 1]
        for number in range(3):
            chosen = (past["slot"][number] == slot) & past["valid"][number]
            mean = past["frame"][number, chosen].double().mean(0).float()
            torch.testing.assert_close(found[number], mean, rtol=0, atol=1e-6)


@pytest.mark.parametrize("restart", [False, True])
def test_what_an_invalid_frame_holds_does_not_matter(restart: bool) -> None:
    past = walk(halted=0.5)
    other = {**past, "frame": torch.where(past["valid"][..., None, None], past["frame"], torch.tensor(float("nan")))}
    answers = []
    for version in (past, other):
        memory, found = FrameMemory(model(), batch=3, num_cells=CELLS, restart=restart), []
        for time in range(LENGTH):
            found.append(look(memory, version, time))
            step(memory, version, time)
        answers.append(torch.stack(found))
    assert torch.equal(answers[0], answers[1]) and answers[0].isfinite().all()


def test_after_a_halt_averages_are_as_they_were_and_lags_hold_what_was_usual() -> None:
    config, past = model(), walk()
    memory = FrameMemory(config, batch=3, num_cells=CELLS)
    for time in range(20):
        step(memory, past, time)
    before = look(memory, past, 20)
    memory.update(past["frame"][:, 20], past["slot"][:, 20], past["session"][:, 20], torch.zeros(3, dtype=torch.bool))
    after = look(memory, past, 20)
    names = ["base", *["seasonal"] * 2, *["average"] * 2, *["count"] * 2, "lag 1", "lag 2", "lag 5", "deviation 1"]
    names += ["deviation 3", "deviation average"]
    for place, name in enumerate(names):
        if name == "lag 1":
            assert torch.equal(after[:, place], before[:, 0]), "the last frame is what was expected"
        elif name == "lag 2":
            assert torch.equal(after[:, place], before[:, 7]), "the others moved on"
        elif name == "deviation 1":
            assert not after[:, place].any(), "it came as expected"
        elif not name.startswith(("lag", "deviation 3")):
            assert torch.equal(after[:, place], before[:, place]), name


def test_a_session_begins_anew_but_for_the_seasonal_means() -> None:
    past = walk(sessions=2)
    kept = FrameMemory(model(), batch=3, num_cells=CELLS, restart=False)
    anew = FrameMemory(model(), batch=3, num_cells=CELLS, restart=True)
    for time in range(17):
        step(kept, past, time)
        step(anew, past, time)
        assert torch.equal(look(kept, past, time)[:, :3], look(anew, past, time)[:, :3])
    slot, same, new = past["slot"][:, 17], past["session"][:, 16], past["session"][:, 17]
    assert torch.equal(anew.copy().features(slot, same), kept.copy().features(slot, same)), "nothing new yet"
    found, usual = anew.features(slot, new), kept.features(slot, new)[:, 1]
    # base and the first seasonal mean, averages, averages of counts, lags
    for place in (0, 1, 3, 4, 5, 6, 7, 8, 9):
        torch.testing.assert_close(found[:, place], usual, rtol=0, atol=1e-6)
    assert not found[:, 10:].any(), "deviations"


@pytest.mark.parametrize("time", [0, 1, 4, 7, 23])
def test_a_copy_leaves_the_original_alone_and_goes_on_as_it_would(time: int) -> None:
    past, other = walk(), walk(seed=1)
    memory = FrameMemory(model(), batch=3, num_cells=CELLS, restart=True)
    for now in range(time):
        step(memory, past, now)
    copy = memory.copy()
    assert torch.equal(look(copy, past, time), look(memory, past, time))
    for now in range(time, time + 9):
        step(copy, other, now)
    fresh = FrameMemory(model(), batch=3, num_cells=CELLS, restart=True)
    for now in range(time + 9):
        step(fresh, past if now < time else other, now)
    assert torch.equal(look(copy, other, time + 9), look(fresh, other, time + 9))
    again = FrameMemory(model(), batch=3, num_cells=CELLS, restart=True)
    for now in range(time):
        step(again, past, now)
    assert torch.equal(look(memory, past, time), look(again, past, time)), "the original"


def test_copies_from_different_times_go_on_side_by_side() -> None:
    past, other = walk(), walk(6, seed=1)
    memory, copies = FrameMemory(model(), batch=3, num_cells=CELLS), []
    for time in range(20):
        if time in (6, 17):
            copies.append(memory.copy())
        step(memory, past, time)
    joined, alone = FrameMemory.join(copies), [copy.copy() for copy in copies]
    for time in range(8):
        step(joined, other, time)
        for number, one in enumerate(alone):
            step(one, {name: value[3 * number : 3 * number + 3] for name, value in other.items()}, time)
    separate = torch.cat(
        [look(one, {n: v[3 * k : 3 * k + 3] for n, v in other.items()}, 8) for k, one in enumerate(alone)]
    )
    assert torch.equal(look(joined, other, 8), separate)
    assert not torch.equal(look(copies[0], past, 6)[:, 4], look(joined, other, 8)[:3, 4]), "copies stay where they were"


@pytest.mark.parametrize("times", [1, 3])
def test_paths_of_one_past_go_apart(times: int) -> None:
    past, other = walk(2), walk(2 * times, seed=1)
    memory = FrameMemory(model(), batch=2, num_cells=CELLS)
    for time in range(13):
        step(memory, past, time)
    before = look(memory, past, 13)
    paths = memory.repeat(times)
    for time in range(13, 20):
        step(paths, other, time)
    found = look(paths, other, 20)
    for path in range(times):
        alone = memory.copy()
        mine = {name: value[path::times] for name, value in other.items()}
        for time in range(13, 20):
            step(alone, mine, time)
        assert torch.equal(look(alone, mine, 20), found[path::times])
    assert torch.equal(look(memory, past, 13), before), "the original"


def test_only_finished_copies_are_joined() -> None:
    memory, past = FrameMemory(model(), batch=3, num_cells=CELLS), walk()
    step(memory, past, 0)
    with pytest.raises(AssertionError, match="copy"):
        FrameMemory.join([memory])


def test_seasonal_means_of_one_record_are_a_prior_for_another() -> None:
    config, past = model(), walk(1)
    memory = FrameMemory(config, batch=1, num_cells=CELLS)
    for time in range(LENGTH):
        step(memory, past, time)
    prior = memory.seasonal_means()
    assert prior.shape == (num_phases(config.memory), 2, CELLS) == (9, 2, CELLS)
    other = FrameMemory(config, batch=2, num_cells=CELLS, prior=prior)
    slot, session = torch.tensor([4, 4]), torch.zeros(2, dtype=torch.int64)
    expected = memory.features(slot[:1], session[:1])[:, 1:3].expand(2, -1, -1, -1)
    assert torch.equal(other.features(slot, session)[:, 1:3], expected)
    frame = torch.ones(2, 2, CELLS)
    other.update(frame, slot, session, torch.ones(2, dtype=torch.bool))
    moved = other.features(slot, session)[:, 1:3]
    torch.testing.assert_close(moved[:, 0], expected[:, 0] + 0.3 * (1 - expected[:, 0]), rtol=0, atol=1e-6)
    torch.testing.assert_close(moved[:, 1], expected[:, 1], rtol=0, atol=1e-5)  # the plain mean of a million


def test_records_of_a_batch_do_not_see_each_other() -> None:
    past = walk(halted=0.3)
    whole = FrameMemory(model(), batch=3, num_cells=CELLS, restart=True)
    alone = FrameMemory(model(), batch=1, num_cells=CELLS, restart=True)
    mine = {name: value[1:2] for name, value in past.items()}
    for time in range(LENGTH - 1):
        step(whole, past, time)
        step(alone, mine, time)
    assert torch.equal(look(whole, past, LENGTH - 1)[1:2], look(alone, mine, LENGTH - 1))


def test_a_memory_of_nothing_but_the_last_frame() -> None:
    config = model(MemoryConfig(), residual="last")
    assert num_features(config.memory) == 1 and num_phases(config.memory) == 0
    memory, past = FrameMemory(config, batch=3, num_cells=CELLS), walk()
    assert not look(memory, past, 0).any()
    step(memory, past, 0)
    assert torch.equal(look(memory, past, 1)[:, 0], past["frame"][:, 0])
