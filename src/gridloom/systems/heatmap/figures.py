"""Pictures of the heatmap system drawn from a run: frames, forecasts, how good they are, what latents hold."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import xarray as xr

from gridloom.core.system import Drawing, View
from gridloom.evaluate.bootstrap import Estimate
from gridloom.evaluate.forecast import frame_errors
from gridloom.evaluate.neighbors import project
from gridloom.systems.heatmap.clock import Clock
from gridloom.systems.heatmap.config import HeatmapConfig
from gridloom.systems.heatmap.encoder import FIELD
from gridloom.systems.heatmap.objective import NextFrame
from gridloom.systems.heatmap.pictures.cells import Look, read_look
from gridloom.systems.heatmap.pictures.curves import Fan, draw_skill, draw_slots, draw_spread
from gridloom.systems.heatmap.pictures.frames import draw_film, draw_forecast, draw_strip, is_wide
from gridloom.systems.heatmap.pictures.latents import draw_latents
from gridloom.systems.heatmap.predict import SAMPLES, HeatmapForecaster
from gridloom.systems.heatmap.record import SERIES, Record
from gridloom.systems.heatmap.source import FrameSource
from gridloom.systems.heatmap.verification import Losses, cover, frame_losses, mean_by_slot

__all__ = ["FIGURES"]

_PERSISTENCE, _SLOT_MEAN = "persistence", "slot mean"
_MOST_BINS = 48
_FAN_SAMPLES = 100
_STRIP = {True: (3, 8), False: (4, 10)}
"""Frames seen and all frames of a strip, of wide and of other frames."""
_CYCLES, _COMPARED, _DAY_FRAMES = 8, 192, 240
"""Of the latents that are compared: most frames of a slot, and all frames; and most frames of the day that is drawn."""
_ENCODE_AT_ONCE = 64
_STILLS = 6
_DAY_MINUTES = 24 * 60


class _Scene:
    """What all pictures ask of a run.

    Attributes:
        view: The run.
        config: Its configuration.
        record: All frames.
        clock: Their times.
        look: How they are drawn.
        truth: [series, origin, lead, channel, y, x], NaN where it is not known.
        position: Place of each origin's last frame in the record.
        leads: Slots ahead.
        model: Name of the model's answers.
        series: The series with most events, which is shown.
    """

    def __init__(self, view: View) -> None:
        source = view.prepared.sources["test"]
        assert isinstance(source, FrameSource)
        config: HeatmapConfig = view.trained.config
        self.view, self.config = view, config
        self.record: Record = source.record
        self.clock = Clock(self.record)
        self.look: Look = read_look(
            self.record.attrs,
            (config.model.height, config.model.width),
            cap=self.record.count_cap,
            scale=self.record.scale,
        )
        self.truth = _ordered(view.task.truth[FIELD])
        self.position = view.task.truth["position"].values.astype(np.int64)
        self.leads = [int(lead) for lead in view.task.truth["lead"].values]
        self.model = list(view.predictions)[-1]
        self.series = int(np.nansum(self.truth, axis=(1, 2, 3, 4, 5)).argmax())

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels."""
        return self.record.channels

    def answer(self, method: str) -> np.ndarray:
        """Answers of a method, as the truth."""
        return _ordered(self.view.predictions[method][FIELD])

    def losses(self) -> Losses:
        """Squared errors of all methods."""
        answers = {name: self.answer(name) for name in self.view.predictions}
        return frame_losses(self.truth, _ordered(self.view.task.wanted[FIELD]), answers)

    @property
    def origin(self) -> int:
        """The busiest origin in the middle third of the test part, of those of which every lead is known."""
        known = np.isfinite(self.truth[self.series]).all(axis=(1, 2, 3, 4))
        middle = np.zeros(len(known), dtype=bool)
        middle[len(known) // 3 : max(len(known) // 3 + 1, 2 * len(known) // 3)] = True
        chosen = np.flatnonzero(known & middle)
        if not len(chosen):
            chosen = np.flatnonzero(known) if known.any() else np.arange(len(known))
        activity = np.nansum(self.look.counts(self.truth[self.series, chosen]), axis=(1, 2, 3, 4))
        return int(chosen[activity.argmax()])

    def frames(self, first: int, last: int) -> np.ndarray:
        """Frames of the series that is shown, NaN where they did not happen."""
        found = self.record.pixels(self.series, slice(first, last))
        happened = self.record.valid[self.series, first:last, None, None, None]
        return np.where(happened, found, np.float32(np.nan))

    def steps_after(self, position: int, most: int) -> int:
        """How many frames there are after a position, up to the end of the session where that ends a forecast."""
        ahead = self.record.session[position + 1 : position + 1 + most]
        return int((ahead == ahead[:1]).sum()) if self.config.data.within_session else len(ahead)

    def first_before(self, position: int, most: int) -> int:
        """Where the last frames up to a position begin, of its session."""
        start = max(0, position + 1 - most)
        if self.config.data.within_session:
            start += int((self.record.session[start : position + 1] != self.record.session[position]).sum())
        return start

    def roll_out(self, position: int, steps: int, *, num_samples: int = 0) -> tuple[np.ndarray, np.ndarray | None]:
        """Forecast of each step [step, channel, y, x], and sample paths [sample, step, ...]."""
        found, samples = HeatmapForecaster(self.view.trained).paths(
            self.record, [position], range(steps), num_samples=num_samples, seed=self.config.seed
        )
        return found[self.series, 0], None if samples is None else samples[:, self.series, 0]

    def when(self, position: int) -> str:
        """Time and date of a frame."""
        date = self.clock.date(position)
        return f"{date} {self.clock.time(position)}" if date else self.clock.time(position)

    def titles(self, positions: Sequence[int]) -> list[str]:
        """Times of frames, with the date of the first one and of those with another."""
        dates = [self.clock.date(position).rsplit(" ", 1)[0] for position in positions]
        if not any(dates):
            return [self.clock.time(position) for position in positions]
        shown = ["" if number and dates[number - 1] == date else date for number, date in enumerate(dates)]
        return [f"{date}\n{self.clock.time(position)}" for date, position in zip(shown, positions, strict=True)]


def _ordered(values: xr.DataArray) -> np.ndarray:
    """With a dimension of series, in the order of `_Scene.truth`."""
    own = values if SERIES in values.dims else values.expand_dims(SERIES)
    sample = ("sample",) if "sample" in own.dims else ()
    return np.asarray(own.transpose(*sample, SERIES, "origin", "lead", "channel", "y", "x").values)


def strip(view: View) -> Drawing | None:
    """Frames before and after an origin, and their forecast."""
    scene = _Scene(view)
    before, length = _STRIP[is_wide(scene.look)]
    position = int(scene.position[scene.origin])
    start = scene.first_before(position, before)
    steps = scene.steps_after(position, length - before)
    if not steps:
        return None
    forecast, _ = scene.roll_out(position, steps)
    return draw_strip(
        scene.frames(start, position + 1),
        scene.frames(position + 1, position + 1 + steps),
        forecast,
        titles=scene.titles(range(start, position + 1 + steps)),
        channels=scene.channels,
        look=scene.look,
        step=scene.clock.step,
    )


def forecast(view: View) -> Drawing | None:
    """Truth, forecast, persistence and error at each lead."""
    scene = _Scene(view)
    at = scene.origin
    known = [lead for lead in range(len(scene.leads)) if np.isfinite(scene.truth[scene.series, at, lead]).all()]
    if _PERSISTENCE not in view.predictions or not known:
        return None
    shown = {"truth": scene.truth, "forecast": scene.answer(scene.model), _PERSISTENCE: scene.answer(_PERSISTENCE)}
    position = int(scene.position[at])
    titles = [f"+{_ahead(scene, scene.leads[lead])}" for lead in known]
    return draw_forecast(
        {name: values[scene.series, at, known] for name, values in shown.items()},
        titles=titles,
        channels=scene.channels,
        look=scene.look,
        origin=scene.when(position),
    )


def _ahead(scene: _Scene, lead: int) -> str:
    """A lead for people: `6 h`, `15 min`, `3 slots`."""
    minutes = lead * scene.clock.step_minutes
    if not np.isfinite(minutes):
        return f"{lead} slots"
    return f"{minutes / 60:g} h" if minutes % 60 == 0 else f"{minutes:g} min"


def skill(view: View) -> Drawing | None:
    """Skill by lead against persistence and against the mean of the slot."""
    scene = _Scene(view)
    references = [name for name in (_PERSISTENCE, _SLOT_MEAN) if name in view.predictions]
    if not references:
        return None
    methods = tuple(view.predictions)
    expected = {name: answers[[FIELD]] for name, answers in view.predictions.items()}
    scores = frame_errors(view.task, expected, scene.config.seed, references=references, max_slots=0)
    found = {(score.metric, score.group, score.method): score for score in scores}
    asked = [lead for lead in scene.leads if ("mse", f"lead={lead}", scene.model) in found]

    def estimate(reference: str, lead: int) -> Estimate:
        row = [found[f"skill vs {reference}", f"lead={lead}", name] for name in methods]
        ends = [np.array([getattr(score, end) for score in row]) for end in ("value", "low", "high")]
        return Estimate(value=ends[0], low=ends[1], high=ends[2])

    return draw_skill(
        {name: [estimate(name, lead) for lead in asked] for name in references},
        methods=methods,
        leads=[str(lead) for lead in asked],
        step=scene.clock.step,
    )


def slots(view: View) -> Drawing | None:
    """Error by slot, and how much happens in it."""
    scene = _Scene(view)
    record, num_slots = scene.record, scene.record.num_slots
    edges = np.append(np.arange(0, num_slots, -(-num_slots // _MOST_BINS)), num_slots)
    losses = scene.losses()
    slot = view.task.truth["slot"].transpose("origin", "lead").values
    # The best baseline comes first, the model last.
    best, *_ = losses.methods
    chosen = [name for name in dict.fromkeys((_PERSISTENCE, _SLOT_MEAN, best)) if name in losses.methods[:-1]]
    mse = {
        name: mean_by_slot(losses.squared[losses.methods.index(name)], losses.count, slot, edges)
        for name in (*chosen, scene.model)
    }
    stop = view.prepared.history.sizes["time"]
    events = np.where(record.valid[:, :stop], record.frames[:, :stop].sum(axis=(2, 3, 4), dtype=np.float64), 0.0)
    slot_of = np.broadcast_to(record.slot[:stop], events.shape)
    return draw_slots(
        edges,
        mse,
        mean_by_slot(events, record.valid[:, :stop], slot_of, edges),
        ticks=scene.clock.slot_ticks(),
        unit="events per frame" if record.count_cap else "sum of pixels",
        leads=f"leads of {', '.join(map(str, scene.leads))} slots together",
    )


def film(view: View) -> Drawing | None:
    """A forecast that goes on over the longest lead, as a moving picture."""
    scene = _Scene(view)
    position = int(scene.position[scene.origin])
    steps = scene.steps_after(position, max(scene.leads))
    if not steps:
        return None
    answer, _ = scene.roll_out(position, steps)
    valid = np.flatnonzero(scene.record.valid[scene.series, : position + 1])
    last = int(valid[-1]) if len(valid) else position
    truth, seen = scene.frames(position, position + 1 + steps), scene.frames(last, last + 1)
    frames = {
        "truth": truth,
        "forecast": np.concatenate([seen, answer]),
        _PERSISTENCE: np.repeat(seen, steps + 1, axis=0),
    }
    positions = range(position, position + 1 + steps)
    stills = np.unique(np.linspace(1, steps, min(_STILLS, steps)).round().astype(int)).tolist()
    above = [
        f"{scene.when(at)}, slot {scene.record.slot[at]}, " + (f"+{_ahead(scene, n)}" if n else "the last frame seen")
        for n, at in enumerate(positions)
    ]
    return draw_film(
        frames,
        stills=dict(zip(stills, scene.titles([position + at for at in stills]), strict=True)),
        titles=above,
        channels=scene.channels,
        look=scene.look,
        step=scene.clock.step,
    )


def spread(view: View) -> Drawing | None:
    """Sample paths of totals from one origin, and how often intervals hold the truth; None without samples."""
    scene = _Scene(view)
    answers = view.predictions[scene.model]
    if SAMPLES not in answers:
        return None
    position = int(scene.position[scene.origin])
    steps = scene.steps_after(position, max(scene.leads))
    _, samples = scene.roll_out(position, steps, num_samples=_FAN_SAMPLES)
    assert samples is not None
    seen = _totals(scene, scene.frames(scene.first_before(position, max(steps, 12)), position + 1))
    came, drawn = _totals(scene, scene.frames(position + 1, position + 1 + steps)), _totals(scene, samples)
    nominal = np.linspace(0.05, 0.95, 19)
    truth = _totals(scene, scene.truth)
    paths = _totals(scene, _ordered(answers[SAMPLES]))
    covered = {
        f"lead {lead}": cover(paths[:, :, :, number], truth[:, :, number], nominal)
        for number, lead in enumerate(scene.leads)
        if np.isfinite(truth[:, :, number]).any()
    }
    return draw_spread(
        [
            Fan(name=name, seen=seen[:, c], came=came[:, c], samples=drawn[..., c])
            for c, name in enumerate(scene.channels)
        ],
        nominal,
        covered,
        hours=scene.clock.step_minutes / 60,
        origin=scene.when(position),
        unit="events per frame" if scene.look.cap else "sum of pixels",
    )


def _totals(scene: _Scene, frames: np.ndarray) -> np.ndarray:
    """Sums of counts over the cells of frames [..., y, x]; NaN for those that are not known."""
    flat = frames.reshape(-1, *frames.shape[-2:])
    step = 4096
    sums = [scene.look.counts(flat[at : at + step]).sum(axis=(-2, -1)) for at in range(0, len(flat), step)]
    return np.concatenate(sums).reshape(frames.shape[:-2])


def latents(view: View) -> Drawing | None:
    """How similar latents of the same slot are, and of different slots; latents of a cycle."""
    scene = _Scene(view)
    objective, record = view.trained.objective, scene.record
    assert isinstance(objective, NextFrame)
    happened = np.flatnonzero(record.valid[scene.series])
    chosen = _same_slots(record, happened[happened >= scene.position[0]])
    if len(chosen) == 0:  # no slot comes twice in the test part
        chosen = _same_slots(record, happened)
    if len(chosen) < 2:
        return None
    cosine = _unit(_encode(scene, objective, chosen))
    cosine = cosine @ cosine.T
    slot = record.slot[chosen]
    first, second = np.triu_indices(len(chosen), 1)
    alike = slot[first] == slot[second]
    similarity = cosine[first, second]
    day = _day(scene, int(scene.position[scene.origin]))
    marked = day[np.unique(np.linspace(0, len(day) - 1, min(_STILLS, len(day))).round().astype(int))]
    return draw_latents(
        similarity[alike],
        similarity[~alike],
        project(_encode(scene, objective, day)),
        record.slot[day],
        ticks=(record.slot[marked].tolist(), [scene.clock.time(int(at)) for at in marked]),
        when=scene.clock.date(int(day[0])),
    )


def _same_slots(record: Record, positions: np.ndarray) -> np.ndarray:
    """Some positions of some slots that come more than once among these."""
    slot, count = np.unique(record.slot[positions], return_counts=True)
    often = slot[count > 1]
    if len(often) < 2:
        return np.empty(0, dtype=np.int64)
    num_slots = _COMPARED // int(min(count.max(), _CYCLES))
    some = often[np.unique(np.linspace(0, len(often) - 1, num_slots).round().astype(int))]
    found = [positions[record.slot[positions] == one] for one in some]
    thinned = [at[np.unique(np.linspace(0, len(at) - 1, _CYCLES).round().astype(int))] for at in found]
    return np.concatenate(thinned)


def _day(scene: _Scene, position: int) -> np.ndarray:
    """Frames of the cycle of slots around a position, or of its date where a cycle is longer; at most 240."""
    record, local = scene.record, scene.clock.local
    begins = np.flatnonzero(np.diff(record.slot, prepend=record.slot[:1] + 1) < 0)
    first, last = (begins[begins <= position].max(initial=0), begins[begins > position].min(initial=len(record)))
    day = np.arange(first, last)
    if local is not None and record.num_slots * scene.clock.step_minutes >= 2 * _DAY_MINUTES:
        dates = local[day].astype("datetime64[D]")
        day = day[dates == local[position].astype("datetime64[D]")]
    day = day[record.valid[scene.series, day]]
    return np.asarray(day[np.unique(np.linspace(0, len(day) - 1, min(len(day), _DAY_FRAMES)).round().astype(int))])


@torch.no_grad()
def _encode(scene: _Scene, objective: NextFrame, positions: np.ndarray) -> np.ndarray:
    found = []
    device = next(objective.parameters()).device
    for start in range(0, len(positions), _ENCODE_AT_ONCE):
        part = positions[start : start + _ENCODE_AT_ONCE]
        x = torch.from_numpy(scene.record.pixels(scene.series, part)).to(device)
        found.append(objective.encoder(x, torch.from_numpy(scene.record.slot[part]).to(device)).double().cpu().numpy())
    return np.concatenate(found)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))


FIGURES: Mapping[str, Callable[[View], Drawing | None]] = {
    "strip": strip,
    "forecast": forecast,
    "skill_by_lead": skill,
    "skill_by_slot": slots,
    "film": film,
    "spread": spread,
    "latents": latents,
}
"""Pictures by name; each is None for a run that it does not apply to."""
