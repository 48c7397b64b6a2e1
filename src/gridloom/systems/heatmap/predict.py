"""A trained model answers questions: which frames come after these."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int64
from torch import Tensor

from gridloom.core.errors import DataError
from gridloom.core.system import Trained
from gridloom.nn.causal import CausalTransformer
from gridloom.systems.heatmap.config import HeatmapConfig
from gridloom.systems.heatmap.data import check_sizes
from gridloom.systems.heatmap.encoder import FIELD
from gridloom.systems.heatmap.fast import Precision, fast_model
from gridloom.systems.heatmap.memory import FrameMemory
from gridloom.systems.heatmap.objective import NextFrame
from gridloom.systems.heatmap.record import SERIES, Record, read_record, session_starts
from gridloom.systems.heatmap.rollout import Feedback, Past, begin_from, roll_out
from gridloom.systems.heatmap.wrapper import AutoRegWrapper

__all__ = ["SAMPLES", "Future", "HeatmapForecaster", "Walk"]

SAMPLES = "frames_sample"
"""Variable with sample paths beside `frames`, which is what is expected."""

_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True)
class Future:
    """Slots after the end of a record.

    Attributes:
        slot: [step].
        session: [step].
    """

    slot: Int64[np.ndarray, " step"]
    session: Int64[np.ndarray, " step"]


class Walk:
    """Goes along a record once and stops at origins, with all that is known there.

    The past of an origin is made of the frames up to it alone.
    """

    def __init__(
        self, model: AutoRegWrapper, record: Record, config: HeatmapConfig, *, prior: Tensor | None = None
    ) -> None:
        """Begin before the first frame.

        Args:
            model: In eval mode.
            record: The record.
            config: Its configuration.
            prior: Seasonal means to begin with.
        """
        self.model, self.record = model, record
        self.device = model.encoder.alpha.device
        self._memory: FrameMemory | None = None
        if config.model.remembers:
            self._memory = self.model.new_memory(record.num_series, prior=prior, restart=config.data.within_session)
        self._first = np.zeros(len(record), dtype=np.int64)  # where the session of each frame begins
        if config.data.within_session:
            starts = session_starts(record.session)
            self._first = starts[np.searchsorted(starts, np.arange(len(record)), side="right") - 1]
        self._time = 0
        self._usual: list[Tensor] = []  # base of each frame so far, where the encoder needs it

    def stops(self, positions: Sequence[int]) -> Iterator[tuple[list[int], Past]]:
        """Go to rising positions; give them in groups, each with the pasts of all its origins and series.

        Returns:
            For each group the places of its positions among all, and a past whose batch is (origin, series), series
            fastest. Origins of a group have equally many frames behind them.
        """
        for start in range(0, len(positions), _AT_ONCE):
            chunk = [int(position) for position in positions[start : start + _AT_ONCE]]
            memories = [self._remember(position) for position in chunk]
            lengths = np.array([self._length(position) for position in chunk])
            for length in np.unique(lengths):
                members = np.flatnonzero(lengths == length).tolist()
                known = [memory for memory in (memories[member] for member in members) if memory is not None]
                joined = FrameMemory.join(known) if known else None
                past = self._begin([chunk[member] for member in members], int(length), joined)
                yield [start + member for member in members], past

    def _length(self, position: int) -> int:
        """Frames that the causal part looks at, up to a position: none of another session, if windows stay in one."""
        causal = self.model.causal
        behind = position + 1 - int(self._first[position])
        return min(behind, causal.window if isinstance(causal, CausalTransformer) else 1)

    @torch.inference_mode()
    def _begin(self, group: list[int], length: int, memory: FrameMemory | None) -> Past:
        """Look at the last frames up to each position. Where positions lie close, each frame is encoded once."""
        if self.model.causal is None:
            return Past(None, None, memory)
        first, stop = group[0] + 1 - length, group[-1] + 1
        if stop - first <= length * len(group):
            z = self._encode(slice(first, stop))
            parts = [z[:, position + 1 - length - first : position + 1 - first] for position in group]
        else:
            parts = [self._encode(slice(position + 1 - length, position + 1)) for position in group]
        return begin_from(self.model, torch.cat(parts), memory)

    def _encode(self, chosen: slice) -> Float[Tensor, "series time latent"]:
        """Latents of a stretch of frames."""
        frames = torch.from_numpy(self.record.pixels(time=chosen)).to(self.device)
        slot = torch.from_numpy(self.record.slot[chosen]).to(self.device)
        usual = torch.stack(self._usual[chosen], dim=1) if self._usual else None
        return self.model.encode(frames, slot.repeat(self.record.num_series, 1), usual)

    @torch.inference_mode()
    def _remember(self, position: int) -> FrameMemory | None:
        """Go on to a position."""
        if self._memory is None:
            return None
        for time in range(self._time, position + 1):
            frame = torch.from_numpy(self.record.pixels(time=time)).to(self.device)
            slot, session = (
                torch.full((self.record.num_series,), int(values[time]), device=self.device)
                for values in (self.record.slot, self.record.session)
            )
            valid = torch.from_numpy(self.record.valid[:, time]).to(self.device)
            if self.model.follows:
                self._usual.append(self._memory.base(slot, session).clone())
            self._memory.update(self.model.to_cells(frame), slot, session, valid)
        self._time = position + 1
        return self._memory.copy()


class HeatmapForecaster:
    """A trained model that forecasts; a `core.contracts.Predictor`.

    Attributes:
        objective: The model as it was trained.
        model: A copy arranged for inference.
    """

    def __init__(self, trained: Trained[HeatmapConfig], *, precision: Precision = "fp32") -> None:
        """Take a trained model.

        Args:
            trained: The model.
            precision: `bf16` halves the bytes of the weights, which is faster where the CPU has AVX512-BF16 or AMX, or
                on a GPU, for many paths at once above all; pixels are then up to a few hundredths off.
        """
        objective = trained.objective
        assert isinstance(objective, NextFrame)
        self.objective, self.config = objective, trained.config
        self.model = fast_model(objective.model, precision=precision)

    def predict(self, given: xr.Dataset, wanted: xr.Dataset) -> xr.Dataset:
        """Answer the question of `data.forecast_task`.

        Args:
            given: The whole record, `frames`; the answer to an origin uses those up to its position alone.
            wanted: `frames` (origin, lead, channel, y, x), with the coordinates `position` and `lead`.

        Returns:
            `frames`, what is expected, and with `data.num_samples` also `frames_sample` with the dimension `sample`.
        """
        record = read_record(given, num_slots=self.config.model.num_slots)
        check_sizes(record, self.config)
        asked = wanted[FIELD]
        steps = [int(lead) - 1 for lead in wanted["lead"].values]
        positions = wanted["position"].values
        num_samples = self.config.data.num_samples if bool(self.objective.sampler.fitted) else 0
        expected, samples = self.paths(
            record,
            positions,
            steps,
            num_samples=num_samples,
            seed=self.config.seed,
            future=_beyond(record, max(steps) + 1),
        )
        dims = (SERIES, "origin", "lead", "channel", "y", "x")
        own = SERIES in asked.dims
        found = {FIELD: xr.DataArray(expected, dims=dims)}
        if samples is not None:
            found[SAMPLES] = xr.DataArray(samples, dims=("sample", *dims))
        answers = {name: value if own else value.isel({SERIES: 0}) for name, value in found.items()}
        order = {FIELD: asked.dims, SAMPLES: ("sample", *asked.dims)}
        return xr.Dataset(
            {name: value.transpose(*order[name]).drop_vars(SERIES, errors="ignore") for name, value in answers.items()},
            coords=wanted.coords,
        )

    def paths(
        self,
        record: Record,
        positions: Sequence[int] | np.ndarray,
        steps: Sequence[int],
        *,
        num_samples: int = 0,
        seed: int = 0,
        future: Future | None = None,
        feedback: Feedback = "frames",
        prior: Tensor | None = None,
    ) -> tuple[Float[np.ndarray, "series origin lead channel y x"], np.ndarray | None]:
        """Forecast from several origins.

        Args:
            record: The record.
            positions: Rising places of the last frames that may be seen.
            steps: Steps to return, from 0 (the next frame), rising.
            num_samples: Sample paths for each origin.
            seed: Of the sample paths.
            future: Slots after the record's end; needed where a forecast reaches beyond it.
            feedback: What the next step is told.
            prior: Seasonal means to begin with.

        Returns:
            What is expected, and the sample paths [sample, ...] if any are asked.

        Raises:
            DataError: Slots after the end are needed and not given, or samples of a model that knows no spread.
        """
        if num_samples and not bool(self.objective.sampler.fitted):
            raise DataError("this model knows no spread: it was not trained to its end; leave num_samples at 0")
        slot, session = record.slot, record.session
        if future is not None:
            slot, session = np.concatenate([slot, future.slot]), np.concatenate([session, future.session])
        longest = max(steps) + 1
        if len(positions) and int(positions[-1]) + longest >= len(slot):
            raise DataError(f"the slots of {longest} steps after position {positions[-1]} are needed; pass future")
        shape = (record.num_series, len(positions), len(steps), *record.frames.shape[2:])
        expected = np.empty(shape, dtype=np.float32)
        samples = np.empty((num_samples, *shape), dtype=np.float32) if num_samples else None
        generator = torch.Generator().manual_seed(seed)
        origins = np.asarray(positions, dtype=np.int64)
        for places, past in Walk(self.model, record, self.config, prior=prior).stops(origins.tolist()):
            ahead = origins[places][:, None] + 1 + np.arange(longest)
            slots, sessions = (self._each_series(values[ahead], record.num_series) for values in (slot, session))
            many = past.repeat(num_samples) if num_samples else None
            found = roll_out(self.model, past, slots, sessions, feedback=feedback, keep=steps)
            expected[:, places] = _by_series(found, len(places), record.num_series)
            if many is not None and samples is not None:
                samples[:, :, places] = self._sample(many, slots, sessions, steps, num_samples, generator, record)
        return expected, samples

    def _sample(
        self,
        past: Past,
        slots: Tensor,
        sessions: Tensor,
        steps: Sequence[int],
        num_samples: int,
        generator: torch.Generator,
        record: Record,
    ) -> np.ndarray:
        many = slots.repeat_interleave(num_samples, 0)
        draw = self.objective.sampler.path(len(many), generator)
        found = roll_out(self.model, past, many, sessions.repeat_interleave(num_samples, 0), draw=draw, keep=steps)
        origins = len(slots) // record.num_series
        parts = found.cpu().numpy().reshape(origins, record.num_series, num_samples, *found.shape[1:])
        return np.moveaxis(parts, (2, 1, 0), (0, 1, 2))

    def _each_series(self, values: np.ndarray, num_series: int) -> Tensor:
        """[origin, step] to [(origin, series), step]."""
        device = next(self.objective.parameters()).device
        return torch.from_numpy(np.repeat(values, num_series, axis=0)).to(device)


def _beyond(record: Record, steps: int) -> Future:
    """Slots after a record's end: nobody asks for them, but origins near it go as many steps as the others."""
    slot = (record.slot[-1] + 1 + np.arange(steps, dtype=np.int64)) % record.num_slots
    return Future(slot=slot, session=np.full(steps, record.session[-1], dtype=np.int64))


def _by_series(found: Tensor, origins: int, num_series: int) -> np.ndarray:
    values = found.cpu().numpy().reshape(origins, num_series, *found.shape[1:])
    return np.moveaxis(values, 1, 0)
