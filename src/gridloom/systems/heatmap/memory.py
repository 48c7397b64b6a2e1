"""What is remembered of the past of each cell: means that follow slowly, averages, lags. Nothing of it is learnt."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from gridloom.systems.heatmap.config import MemoryConfig, ModelConfig

__all__ = ["FrameMemory", "num_features", "num_phases"]

_NO_SESSION = torch.iinfo(torch.int64).min
_LONG = 1e6  # a prior counts as if it had been seen so often
_STATE = (
    "_table",
    "_counts",
    "_averages",
    "_count_averages",
    "_deviation_averages",
    "_frames",
    "_deviations",
    "_steps",
    "_session",
)


def num_features(memory: MemoryConfig) -> int:
    """Number of features that a memory gives for each cell and channel; the base is the first of them."""
    parts = (
        memory.seasonal,
        memory.averages,
        memory.count_averages,
        memory.lags,
        memory.deviation_lags,
        memory.deviation_averages,
    )
    return 1 + sum(map(len, parts))


def num_phases(memory: MemoryConfig) -> int:
    """Number of slots in all seasonal means together."""
    return sum(period for period, _ in memory.seasonal)


class FrameMemory:
    """The state of the memory of a batch of records, and how it goes on.

    After `update` with frame t, `features` says what is known when frame t+1, whose slot and session are known, is to
    be predicted. All of it depends on frames up to t alone.
    """

    def __init__(
        self,
        model: ModelConfig,
        *,
        batch: int,
        num_cells: int,
        device: torch.device | str = "cpu",
        prior: Float[Tensor, "phase channel cell"] | None = None,
        restart: bool = False,
    ) -> None:
        """Begin without any past.

        Args:
            model: Says what is remembered, and which of it is the base.
            batch: Records that go on side by side.
            num_cells: Cells of a frame.
            device: Where the state is kept.
            prior: Seasonal means to begin with, one after the other; they count as if they had been seen long enough.
            restart: Averages and lags begin anew with each session; seasonal means do not.
        """
        memory = model.memory
        self._config, self._residual, self._restart = memory, model.residual, restart
        self._scale = model.scale
        self._rows = torch.arange(batch, device=device)[:, None]

        def zeros(count: int) -> Tensor:
            return torch.zeros(batch, count, model.channels, num_cells, device=device)

        periods = torch.tensor([period for period, _ in memory.seasonal], dtype=torch.int64, device=device)
        self._periods, self._offsets = periods, periods.cumsum(0) - periods
        self._seasonal_rates = torch.tensor([rate for _, rate in memory.seasonal], device=device)
        self._rates = torch.tensor(memory.averages, device=device)[:, None, None]
        self._count_rates = torch.tensor(memory.count_averages, device=device)[:, None, None]
        self._deviation_rates = torch.tensor(memory.deviation_averages, device=device)[:, None, None]
        self._lags = torch.tensor(memory.lags, dtype=torch.int64, device=device)
        self._deviation_lags = torch.tensor(memory.deviation_lags, dtype=torch.int64, device=device)
        self._table = zeros(num_phases(memory))
        self._counts = torch.zeros(batch, num_phases(memory), device=device)
        if prior is not None:
            self._table += prior.to(device)
            self._counts += _LONG
        self._averages, self._count_averages = zeros(len(memory.averages)), zeros(len(memory.count_averages))
        self._deviation_averages = zeros(len(memory.deviation_averages))
        self._frames, self._deviations = zeros(max((*memory.lags, 1))), zeros(max((*memory.deviation_lags, 1)))
        self._steps = torch.zeros(batch, dtype=torch.int64, device=device)
        self._session = torch.full((batch,), _NO_SESSION, dtype=torch.int64, device=device)
        self._time = 0

    def base(
        self, slot: Int64[Tensor, " batch"], session: Int64[Tensor, " batch"]
    ) -> Float[Tensor, "batch channel cell"]:
        """What the networks correct when the frame of this slot and session is to be predicted.

        With `restart`, to ask for a frame of a new session is to begin it.
        """
        self._enter(slot, session)
        if self._residual == "slot_mean":
            return self._table[self._rows[:, 0], slot % self._config.seasonal[0][0]]
        if self._residual == "ema":
            return self._averages[:, 0]
        return self._frames[:, (self._time - 1) % self._frames.shape[1]]

    def features(
        self, slot: Int64[Tensor, " batch"], session: Int64[Tensor, " batch"]
    ) -> Float[Tensor, "batch feature channel cell"]:
        """All that is known when the frame of this slot and session is to be predicted.

        In order: base, seasonal means, averages, averages of counts, lags, lags of the deviation, averages of it.
        """
        parts = [self.base(slot, session)[:, None], self._table[self._rows, self._phase(slot)], self._averages]
        if len(self._count_rates):
            parts.append(self._scale.pixels(self._count_averages))
        for ring, lags in ((self._frames, self._lags), (self._deviations, self._deviation_lags)):
            parts.append(ring[:, (self._time - lags) % ring.shape[1]])
        return torch.cat([*parts, self._deviation_averages], dim=1)

    def update(
        self,
        frame: Float[Tensor, "batch channel cell"],
        slot: Int64[Tensor, " batch"],
        session: Int64[Tensor, " batch"],
        valid: Bool[Tensor, " batch"],
    ) -> None:
        """Go on with a frame. One that is not valid counts as what was expected of it."""
        base = self.base(slot, session)
        happened = valid[:, None, None]
        frame = torch.where(happened, frame, base)
        deviation = frame - base
        happened = happened[:, None]
        first = (self._steps == 0)[:, None, None, None]
        self._average(self._averages, self._rates, frame, first, happened)
        if len(self._count_rates):
            self._average(self._count_averages, self._count_rates, self._scale.counts(frame), first, happened)
        if len(self._deviation_rates):
            self._deviation_averages += (
                happened * self._deviation_rates * (deviation[:, None] - self._deviation_averages)
            )
        if len(self._periods):
            self._follow(frame, self._phase(slot), valid)
        self._frames[:, self._time % self._frames.shape[1]] = frame
        self._deviations[:, self._time % self._deviations.shape[1]] = deviation
        self._time += 1
        self._steps += valid

    def seasonal_means(self) -> Float[Tensor, "phase channel cell"]:
        """The seasonal means as they are now, averaged over the records that know the slot, as a prior for others."""
        known = (self._counts > 0)[..., None, None]
        return (self._table * known).sum(0) / known.sum(0).clamp(min=1)

    def repeat(self, times: int) -> "FrameMemory":
        """A copy in which every record stands `times` times, one after the other: for sample paths."""
        return self._with({name: getattr(self, name).repeat_interleave(times, 0) for name in _STATE}, self._time)

    def copy(self) -> "FrameMemory":
        """A copy whose rings begin at 0, so that copies from different times can be joined."""
        state = {name: getattr(self, name).clone() for name in _STATE}
        for name in ("_frames", "_deviations"):
            state[name] = torch.roll(state[name], -(self._time % state[name].shape[1]), 1)
        return self._with(state, 0)

    @staticmethod
    def join(memories: Sequence["FrameMemory"]) -> "FrameMemory":
        """Put copies (see `copy`) of one configuration side by side, as one batch."""
        assert all(memory._time == 0 for memory in memories), "expected results of copy()"
        state = {name: torch.cat([getattr(memory, name) for memory in memories]) for name in _STATE}
        return memories[0]._with(state, 0)

    def _with(self, state: dict[str, Tensor], time: int) -> "FrameMemory":
        other = object.__new__(FrameMemory)
        other.__dict__.update(self.__dict__)
        other.__dict__.update(state)
        other._rows = torch.arange(len(state["_steps"]), device=self._rows.device)[:, None]
        other._time = time
        return other

    def _phase(self, slot: Tensor) -> Int64[Tensor, "batch seasonal"]:
        """Where each seasonal mean of a slot lies in the table."""
        return self._offsets + slot[:, None] % self._periods

    def _average(self, state: Tensor, rates: Tensor, frame: Tensor, first: Tensor, happened: Tensor) -> None:
        """Exponential moving averages; the first frame is where they start."""
        if len(rates):
            moved = torch.where(first, torch.ones_like(rates), rates) * (frame[:, None] - state)
            state += torch.where(happened, moved, torch.zeros_like(moved))

    def _follow(self, frame: Tensor, phase: Tensor, valid: Tensor) -> None:
        """`mean += max(rate, 1 / count) * (frame - mean)`: a plain mean at first, then one that follows."""
        count = self._counts[self._rows, phase] + valid[:, None]
        self._counts[self._rows, phase] = count
        share = torch.maximum(1.0 / count.clamp(min=1.0), self._seasonal_rates) * valid[:, None]
        mean = self._table[self._rows, phase]
        self._table[self._rows, phase] = mean + share[..., None, None] * (frame[:, None] - mean)

    def _enter(self, slot: Tensor, session: Tensor) -> None:
        """Where a new session begins: averages and lags start from what is usual for its slot, or from nothing."""
        if not self._restart:
            return
        new = session != self._session
        self._session = session
        if not bool(new.any()):
            return
        usual, known = torch.zeros_like(self._frames[:, 0]), torch.zeros_like(new)
        if len(self._periods):
            phase = self._phase(slot)[:, 0]
            usual, known = self._table[self._rows[:, 0], phase], self._counts[self._rows[:, 0], phase] > 0
        self._averages[new] = usual[new][:, None]
        if len(self._count_rates):
            self._count_averages[new] = self._scale.counts(usual[new])[:, None]
        self._frames[new] = usual[new][:, None]
        self._deviation_averages[new] = 0.0
        self._deviations[new] = 0.0
        self._steps[new] = known[new].to(self._steps.dtype)
