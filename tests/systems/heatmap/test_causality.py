"""Nothing of the future, of neighbors in a batch or of slots that did not happen reaches a forecast."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

from gridloom.core.batch import Field
from gridloom.core.contracts import Predictor
from gridloom.core.errors import DataError
from gridloom.core.system import Trained
from gridloom.systems.heatmap import AutoRegWrapper, HeatmapForecaster
from gridloom.systems.heatmap.config import CausalConfig, HeatmapConfig, LossConfig, MemoryConfig
from gridloom.systems.heatmap.data import forecast_task
from gridloom.systems.heatmap.memory import FrameMemory, num_features
from gridloom.systems.heatmap.objective import NextFrame
from gridloom.systems.heatmap.record import Record, read_record
from gridloom.systems.heatmap.rollout import begin, roll_out
from gridloom.systems.heatmap.source import FrameSource, cut_record, remember
from tests.systems.heatmap.small import (
    LOCAL,
    MEMORY,
    SIZE,
    TRANSFORMER,
    config,
    frames_dataset,
    jitter,
    make_batch,
    pixels,
    record,
    slots_of,
    small_model,
    small_objective,
)

KINDS = {
    "placeholder": {},
    "transformer": {"causal": TRANSFORMER, "next_slot": True},
    "last": {"residual": "last", "memory": MEMORY},
    "whole": {
        "causal": TRANSFORMER, "residual": "slot_mean", "memory": MEMORY, "next_slot": True,
        "local": replace(LOCAL, kernel=3), "pool": "flatten", "normalize": "frame+stats",
    },
    "following": {
        "causal": TRANSFORMER, "residual": "slot_mean", "memory": MEMORY, "normalize": "slot", "linear": True,
    },
    "local": {"residual": "ema", "memory": MEMORY, "local": LOCAL, "decode": False},
}  # fmt: skip
NUM_FEATURES = num_features(MEMORY)


@contextmanager
def inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def predict_windows(model: AutoRegWrapper, x: Tensor) -> Tensor:
    with inference():
        return model(x, slots_of(*x.shape[:2])).x_hat.clone()


@pytest.mark.parametrize("kind", KINDS)
def test_a_later_frame_changes_no_earlier_prediction_to_the_bit(kind: str) -> None:
    model, x = small_model(**KINDS[kind]), pixels(2, 9, 2, SIZE, SIZE)
    before = predict_windows(model, x)
    for changed in (1, 4, 8):
        other = x.clone()
        other[:, changed:] = pixels(2, 9 - changed, 2, SIZE, SIZE, seed=changed)
        after = predict_windows(model, other)
        assert torch.equal(after[:, :changed], before[:, :changed])
        assert not torch.equal(after[:, changed], before[:, changed]), "of this frame it depends"


@pytest.mark.parametrize("kind", KINDS)
def test_neighbors_in_a_batch_do_not_matter(kind: str) -> None:
    model, x = small_model(size=0.1, **KINDS[kind]), pixels(4, 6, 2, SIZE, SIZE)
    torch.testing.assert_close(predict_windows(model, x[2:3]), predict_windows(model, x)[2:3], rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_of_a_window_is_its_own(kind: str) -> None:
    objective = small_objective(**KINDS[kind])
    batch = make_batch(4, 6, remembered=NUM_FEATURES if objective.config.model.remembers else 0)
    with inference():
        whole, alone = objective(batch), objective(batch.take(slice(1, 2)))
    torch.testing.assert_close(alone.loss, whole.loss[1:2], rtol=0, atol=1e-6)
    for name, value in whole.metrics.items():
        torch.testing.assert_close(alone.metrics[name], value[1:2], rtol=0, atol=1e-6)


def test_what_is_not_valid_has_no_part_in_the_loss() -> None:
    objective = small_objective(**KINDS["transformer"])
    happened = torch.tensor([[True, True, False, True, False, False]] * 2)
    batch = make_batch(2, 6, valid=happened)
    with inference():
        step = objective(batch)
        frames, slots = batch.fields["frames"].values, batch.features["slot"]
        x_hat = objective.model.predict(frames[:, :-1], slots[:, :-1], slots[:, 1:])
    error = (x_hat - frames[:, 1:]).square()[:, [0, 2]]  # of the second and the fourth frame
    torch.testing.assert_close(step.loss, error.mean((1, 2, 3, 4)) / 2, rtol=1e-5, atol=0)
    torch.testing.assert_close(step.metrics["mse"], error.mean((1, 2, 3, 4)), rtol=1e-5, atol=0)


def test_a_window_without_any_frame_that_happened_weighs_nothing() -> None:
    objective = small_objective().train()
    step = objective(make_batch(2, 4, valid=torch.zeros(2, 4, dtype=torch.bool)))
    assert not step.loss.any()
    step.loss.sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in objective.parameters())


@pytest.mark.parametrize(
    ("kind", "loss"),
    [("transformer", "smooth_l1"), ("transformer", "bce"), ("whole", "smooth_l1"), ("local", "poisson")],
)
def test_garbage_in_halted_slots_changes_no_loss_to_the_bit(kind: str, loss: str) -> None:
    whole = config(data={"window": 6, "within_session": True}, model=KINDS[kind], loss=LossConfig(kind=loss))
    torch.manual_seed(0)
    objective, answers = jitter(NextFrame(whole)), []
    clean = frames_dataset(halted=0.3, sessions=4)
    with inference():
        for dataset in (clean, spoil(clean)):
            source = make_source(read_record(dataset), whole)
            step = objective(source.collate(range(len(source)), 0))
            answers.append(torch.stack([step.loss, *step.metrics.values()]))
    assert torch.equal(answers[0], answers[1]) and answers[0].isfinite().all()


def spoil(dataset: xr.Dataset) -> xr.Dataset:
    """Write counts where nothing happened."""
    noise = np.random.default_rng(1).integers(1, 15, dataset["counts"].shape).astype(np.uint8)
    return dataset.assign(counts=dataset["counts"].where(dataset["valid"], noise).astype(np.uint8))


def make_source(found: Record, whole: HeatmapConfig) -> FrameSource:
    length = whole.data.window
    starts = cut_record(found, (0, len(found)), length=length, stride=2, within_session=True)
    cells = np.arange(SIZE * SIZE)
    remembered = remember(found, whole, cells, len(found)) if whole.model.remembers else None
    return FrameSource(found, starts, length, seed=0, remembered=remembered)


def test_a_batch_that_was_made_with_garbage_is_cleaned_by_its_field() -> None:
    objective, happened = small_objective(**KINDS["transformer"]), torch.tensor([[True, False, True, False, True]] * 3)
    batch = make_batch(valid=happened)
    frames = torch.where(happened[:, :, None, None, None], batch.fields["frames"].values, torch.tensor(float("nan")))
    dirty = batch.with_field("frames", Field.of(frames, batch.fields["frames"].valid.expand_as(frames)))
    with inference():
        assert torch.equal(objective(dirty).loss, objective(batch).loss)


@pytest.mark.parametrize("low, high", [(-0.1, 1.0), (0.0, 1.01), (0.0, 128.0), (float("nan"), 1.0)])
def test_frames_that_are_no_pixels_are_refused(low: float, high: float) -> None:
    batch = make_batch()
    frames = batch.fields["frames"].values.clone()
    frames[0, 0, 0, 0, 0], frames[0, 0, 0, 0, 1] = low, high
    with pytest.raises(DataError, match=r"frames must be pixels in \[0, 1\], got .*; scale counts first"):
        small_objective()(batch.with_field("frames", Field(values=frames, valid=batch.fields["frames"].valid)))


def memory_of(model: AutoRegWrapper, x: Tensor, slots: Tensor) -> FrameMemory | None:
    """What is remembered after these frames."""
    if not model.config.remembers:
        return None
    memory = model.new_memory(len(x))
    for step in range(x.shape[1]):
        session, valid = torch.zeros(len(x), dtype=torch.int64), torch.ones(len(x), dtype=torch.bool)
        memory.update(model.to_cells(x[:, step]), slots[:, step], session, valid)
    return memory


def naive(model: AutoRegWrapper, x: Tensor, first: int, steps: int) -> Tensor:
    """Encode everything anew for every step, and feed the frame back."""
    slots = slots_of(len(x), x.shape[1] + steps, first=first)
    frames = x
    for _ in range(steps):
        length = frames.shape[1]
        known = None
        if model.config.remembers:
            memory = memory_of(model, frames, slots)
            assert memory is not None
            known = memory.features(slots[:, length], torch.zeros(len(x), dtype=torch.int64))[:, None]
        hidden = None
        if model.causal is not None:
            hidden = model.causal(model.encode(frames, slots[:, :length], usual_of(model, frames, slots)))[:, -1:]
        following = model.compose(hidden, slots[:, length : length + 1], known).clamp(0, 1)
        frames = torch.cat([frames, following], dim=1)
    return frames[:, x.shape[1] :]


def usual_of(model: AutoRegWrapper, x: Tensor, slots: Tensor) -> Tensor | None:
    """The base that a memory had for each frame."""
    if not model.follows:
        return None
    memory, session = model.new_memory(len(x)), torch.zeros(len(x), dtype=torch.int64)
    cells, found = model.to_cells(x), []
    for step in range(x.shape[1]):
        found.append(memory.base(slots[:, step], session).clone())
        memory.update(cells[:, step], slots[:, step], session, torch.ones(len(x), dtype=torch.bool))
    return torch.stack(found, dim=1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("context", [1, 11])
def test_going_on_from_a_cache_is_encoding_the_whole_history_anew(kind: str, context: int) -> None:
    model, x, steps = small_model(**KINDS[kind]), pixels(2, context, 2, SIZE, SIZE), 7
    slots = slots_of(2, context + steps, first=2)
    with inference():
        past = begin(model, x, slots[:, :context], memory_of(model, x, slots), usual_of(model, x, slots))
        future = slots[:, context:]
        found = roll_out(model, past, future, torch.zeros_like(future))
        expected = naive(model, x, 2, steps)
    assert found.shape == (2, steps, 2, SIZE, SIZE)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert (found[:, 1:] - found[:, :-1]).abs().max() > 1e-4, "it moves"


@pytest.mark.parametrize("context", [9])
@pytest.mark.parametrize("kind", ["placeholder", "transformer", "whole"])
def test_latents_that_are_fed_back_go_on_as_the_whole_pass_over_them(kind: str, context: int) -> None:
    model, x, steps = small_model(**KINDS[kind]), pixels(2, context, 2, SIZE, SIZE), 6
    slots = slots_of(2, context + steps)
    future = slots[:, context:]
    assert model.causal is not None
    with inference():
        past = begin(model, x, slots[:, :context], memory_of(model, x, slots))
        found = roll_out(model, past, future, torch.zeros_like(future), feedback="latents")
        latents, frames = model.encoder(x, slots[:, :context]), x
        for step in range(steps):
            hidden = model.causal(latents)[:, -1:]
            memory = memory_of(model, frames, slots)
            session = torch.zeros(2, dtype=torch.int64)
            known = None if memory is None else memory.features(future[:, step], session)[:, None]
            frame = model.compose(hidden, future[:, step : step + 1], known).clamp(0, 1)
            torch.testing.assert_close(found[:, step], frame[:, 0], rtol=0, atol=1e-5)
            latents = torch.cat([latents, model.latents(hidden, future[:, step : step + 1])], dim=1)
            frames = torch.cat([frames, frame], dim=1)


@pytest.mark.parametrize("feedback", ["frames", "latents"])
@pytest.mark.parametrize("kind", KINDS)
def test_only_what_is_asked_is_kept(kind: str, feedback: str) -> None:
    model, x = small_model(**KINDS[kind]), pixels(2, 5, 2, SIZE, SIZE)
    slots = slots_of(2, 13)
    future, sessions = slots[:, 5:], torch.zeros(2, 8, dtype=torch.int64)
    with inference():
        whole, some = (
            roll_out(
                model, begin(model, x, slots[:, :5], memory_of(model, x, slots)), future, sessions,
                feedback=feedback, keep=keep,
            )
            for keep in (None, [0, 2, 7])
        )  # fmt: skip
    assert torch.equal(some, whole[:, [0, 2, 7]]) if feedback == "frames" else some.shape[1] == 3
    torch.testing.assert_close(some, whole[:, [0, 2, 7]], rtol=0, atol=1e-6)


def forecaster(
    found: Record, kind: str, *, num_samples: int = 0, window: int = 4, within_session: bool = False
) -> HeatmapForecaster:
    """An untrained model, away from its start, with a fitted sampler."""
    model = {**KINDS[kind], "num_slots": found.num_slots}
    if "causal" in model:
        model["causal"] = replace(TRANSFORMER, window=window)
    whole = config(data={"num_samples": num_samples, "within_session": within_session}, model=model)
    torch.manual_seed(0)
    objective = jitter(NextFrame(whole))
    expected = pixels(20, 2, SIZE * SIZE, seed=3)
    objective.sampler.fit(expected, pixels(20, 2, SIZE * SIZE, seed=4), torch.Generator().manual_seed(0))
    return HeatmapForecaster(Trained(config=whole, objective=objective, normalizer={}))


@pytest.mark.parametrize(("kind", "series"), [*((kind, 0) for kind in KINDS), ("whole", 2)])
def test_an_answer_knows_nothing_after_its_origin(kind: str, series: int) -> None:
    found = record(sessions=10, series=series, halted=0.1)
    task = forecast_task(found, (36, 60), leads=(1, 2, 4), max_origins=9, within_session=False, name="x", split="test")
    predictor: Predictor = forecaster(found, kind, num_samples=2)
    before = predictor.predict(task.given, task.wanted)
    first = int(task.wanted["position"][0])
    noise = np.random.default_rng(0).random(task.given["frames"].shape, dtype=np.float32)
    seen = xr.DataArray(np.arange(task.given.sizes["time"]) <= first, dims="time")
    after = predictor.predict(task.given.assign(frames=task.given["frames"].where(seen, noise)), task.wanted)
    assert before["frames"].dims == task.truth["frames"].dims
    for name in ("frames", "frames_sample"):
        ours, theirs = before[name].isel(origin=0), after[name].isel(origin=0)
        assert np.isfinite(ours).all()
        assert np.array_equal(ours, theirs), name
    assert not np.array_equal(before["frames"].isel(origin=-1), after["frames"].isel(origin=-1)), "others saw it"


def test_where_windows_stay_in_a_session_forecasts_do_not_look_into_the_one_before() -> None:
    found = record(sessions=10)
    task = forecast_task(found, (36, 60), leads=(1, 2), max_origins=50, within_session=True, name="x", split="test")
    predictor = forecaster(found, "transformer", window=5, within_session=True)
    before = predictor.predict(task.given, task.wanted)["frames"]
    last = int(task.wanted["session"].values.max())
    earlier = xr.DataArray(found.session < last, dims="time")
    other = np.random.default_rng(0).random(task.given["frames"].shape, dtype=np.float32)
    after = predictor.predict(task.given.assign(frames=task.given["frames"].where(~earlier, other)), task.wanted)[
        "frames"
    ]
    own = task.wanted["session"].values[:, 0] == last
    assert 0 < own.sum() < len(own)
    np.testing.assert_allclose(after.values[own], before.values[own], rtol=0, atol=1e-6)
    assert not np.array_equal(after.values[~own], before.values[~own])


def test_answers_and_training_see_the_same_deviations() -> None:
    found = record(sessions=10)
    task = forecast_task(found, (36, 60), leads=(1,), max_origins=50, within_session=False, name="x", split="test")
    predictor = forecaster(found, "following", window=4)
    whole = predictor.config
    known = remember(found, whole, np.arange(SIZE * SIZE), len(found))
    positions = task.wanted["position"].values
    starts = np.stack([np.zeros_like(positions), positions - 3], axis=1)
    batch = FrameSource(found, starts, 5, seed=0, remembered=known).collate(range(len(starts)), 0)
    frames, slots = batch.fields["frames"].values, batch.features["slot"]
    remembered, usual = batch.features["remembered"], batch.features["usual"]
    with inference():
        trained = predictor.objective.model.predict(frames[:, :-1], slots[:, :-1], slots[:, 1:], remembered, usual)
    answers = predictor.predict(task.given, task.wanted)["frames"].values[:, 0]
    np.testing.assert_allclose(answers, trained[:, -1].clamp(0, 1).numpy(), rtol=0, atol=1e-5)


def test_the_answers_are_those_of_a_rollout_from_each_origin() -> None:
    found = record(sessions=10)
    task = forecast_task(found, (36, 60), leads=(1, 4), max_origins=50, within_session=False, name="x", split="test")
    predictor = forecaster(found, "transformer", window=5)
    model = predictor.objective.model
    answers = predictor.predict(task.given, task.wanted)["frames"]
    assert task.wanted.sizes["origin"] == 24
    frames, slots = torch.from_numpy(found.pixels())[0], torch.from_numpy(found.slot)
    for number in (0, 10, 20, 23):
        position = int(task.wanted["position"][number])
        chosen = slice(position - 4, position + 1)
        future = (slots[position] + 1 + torch.arange(4))[None] % found.num_slots
        with inference():
            past = begin(model, frames[None, chosen], slots[None, chosen])
            expected = roll_out(model, past, future, torch.zeros_like(future), keep=[0, 3])[0]
        np.testing.assert_allclose(answers.isel(origin=number), expected.numpy(), rtol=0, atol=1e-5)


def test_halted_frames_are_not_seen_by_a_forecast() -> None:
    clean = frames_dataset(halted=0.3, sessions=8)
    answers = []
    for dataset in (clean, spoil(clean)):
        found = read_record(dataset)
        expected, samples = forecaster(found, "whole").paths(found, [20, 40], [0, 3], num_samples=2)
        answers.append((expected, samples))
    assert all(np.array_equal(ours, theirs) for ours, theirs in zip(*answers, strict=True))


def test_a_forecast_beyond_the_record_needs_the_slots_ahead() -> None:
    found = record(sessions=3)
    with pytest.raises(DataError, match="the slots of 2 steps after position 17 are needed; pass future"):
        forecaster(found, "transformer").paths(found, [17], [0, 1])


def test_a_whole_day_is_forecast_in_one_call() -> None:
    model = small_model(
        num_slots=239, causal=CausalConfig(kind="transformer", dim=16, depth=1, num_heads=2, window=60),
        residual="slot_mean", memory=MemoryConfig(seasonal=((239, 0.1),), lags=(1, 2)),
    )  # fmt: skip
    x, slots = pixels(1, 239, 2, SIZE, SIZE), torch.arange(239)[None]
    with inference():
        past = begin(model, x, slots, memory_of(model, x, slots))
        day = roll_out(model, past, slots, torch.zeros_like(slots))
    assert day.shape == (1, 239, 2, SIZE, SIZE)
    assert day.isfinite().all() and day.min() >= 0 and day.max() <= 1


def test_slots_that_will_not_happen_are_forecast_but_not_remembered() -> None:
    model = small_model(residual="last", memory=MemoryConfig(lags=(1, 2)), local=LOCAL, decode=False)
    x, slots = pixels(1, 4, 2, SIZE, SIZE), slots_of(1, 9)
    future, sessions = slots[:, 4:], torch.zeros(1, 5, dtype=torch.int64)
    happens = torch.tensor([[True, False, False, True, True]])
    with inference():
        memory = memory_of(model, x, slots)
        found = roll_out(model, begin(model, x, slots[:, :4], memory), future, sessions, happens=happens)
        memory = memory_of(model, x, slots)
        assert memory is not None
        for step in range(5):
            known = memory.features(future[:, step], sessions[:, step])
            frame = model.compose(None, future[:, step : step + 1], known[:, None])[:, 0].clamp(0, 1)
            assert torch.equal(found[:, step], frame)
            memory.update(model.to_cells(frame), future[:, step], sessions[:, step], happens[:, step])


def test_gradients_of_a_prediction_reach_the_frames_before_it_alone() -> None:
    size = 6
    model, x = small_model(**KINDS["whole"]), pixels(1, size, 2, SIZE, SIZE).requires_grad_()
    model(x, slots_of(1, size)).x_hat[:, 2].sum().backward()
    assert x.grad is not None
    assert (x.grad[0].abs().amax((1, 2, 3)) > 0).tolist() == [True, True, True, False, False, False]
