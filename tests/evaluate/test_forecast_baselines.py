"""Forecasts without learning: the known errors, definitions by slow loops, and no look at what comes after."""

import math
import tracemalloc
from importlib.util import find_spec

import numpy as np
import pytest
import xarray as xr

from gridloom.core.errors import ConfigError, DataError
from gridloom.evaluate.baselines import (
    AdaptiveSlotMean,
    ExponentialAverage,
    LastFrame,
    RidgeConfig,
    RidgeForecast,
    SeasonalNaive,
    SlotMean,
)
from gridloom.evaluate.baselines.record import follow, read_record
from gridloom.grid.samples import open_sample

NUM_SLOTS = 6
LEADS = (1, 2, 7)


def make(length=120, num_series=0, seed=0, missing=0.1):
    """A record of 3 x 4 cells: a cycle, noise that lasts, a dead cell, missing frames; origins from the middle on."""
    generator = np.random.default_rng(seed)
    shape = (max(num_series, 1), length, 2, 3, 4)
    slot = np.arange(length) % NUM_SLOTS
    cycle = generator.random((NUM_SLOTS, 2, 3, 4))
    noise = generator.normal(0, 0.1, shape)
    for time in range(1, length):
        noise[:, time] += 0.8 * noise[:, time - 1]
    frames = (cycle[slot] + noise).astype(np.float32)
    frames[..., 0, 0] = 0
    valid = generator.random(shape[:2]) >= missing
    frames[~valid] = np.nan
    dims = ("series", "time", "channel", "y", "x")
    session = np.arange(length) // 40
    along = {"slot": ("time", slot), "session": ("time", session)}
    position = np.arange(length // 2, length - max(LEADS), 3)
    asked = position[:, None] + np.array(LEADS)
    truth = frames[:, asked]
    coords = {
        "position": ("origin", position),
        "lead": list(LEADS),
        "slot": (("origin", "lead"), slot[asked]),
    }
    given = xr.Dataset({"frames": (dims, frames)}, coords=along)
    wanted = xr.Dataset({"frames": (("series", "origin", "lead", *dims[2:]), np.isfinite(truth))}, coords=coords)
    history = given.isel(time=slice(0, length // 2))
    parts = (given, wanted, history)
    if not num_series:
        parts = tuple(part.isel(series=0) for part in parts)
    return parts


def make_baselines(history):
    return {
        "last": LastFrame(),
        "average": ExponentialAverage(history),
        "restarted average": ExponentialAverage(rate=0.3, restart=True),
        "seasonal": SeasonalNaive((12, NUM_SLOTS)),
        "slot mean": SlotMean(history, "slot"),
        "adaptive": AdaptiveSlotMean(history),
        "ridge": RidgeForecast(history, RidgeConfig(seasons=(NUM_SLOTS,))),
        "ridge, restarted, without slots": RidgeForecast(history, RidgeConfig(slot="", restart=True)),
    }


NAMES = list(make_baselines(make()[2]))


@pytest.mark.parametrize("num_series", [0, 3])
@pytest.mark.parametrize("name", NAMES)
def test_every_cell_is_answered_and_nothing_after_the_origin_is_seen(name, num_series):
    given, wanted, history = make(num_series=num_series)
    baseline = make_baselines(history)[name]
    answers = baseline.predict(given, wanted)
    assert answers["frames"].dims == wanted["frames"].dims
    assert np.isfinite(answers["frames"].values).all()
    place = 4
    origin = int(wanted["position"][place])
    spoiled = given.copy(deep=True)
    later = given["frames"].dims.index("time")
    spoiled["frames"].values[(slice(None),) * later + (slice(origin + 1, None),)] = 7
    again = baseline.predict(spoiled, wanted)
    chosen = {"origin": slice(0, place + 1)}
    np.testing.assert_array_equal(again["frames"].isel(chosen), answers["frames"].isel(chosen))
    if name != "slot mean":
        assert (again["frames"].isel(origin=-1) != answers["frames"].isel(origin=-1)).any()


@pytest.mark.parametrize("name", NAMES)
def test_series_do_not_see_each_other_at_prediction(name):
    given, wanted, history = make(num_series=2)
    baseline = make_baselines(history)[name]
    spoiled = given.copy(deep=True)
    spoiled["frames"].values[0] = 5
    before, after = (baseline.predict(data, wanted)["frames"] for data in (given, spoiled))
    np.testing.assert_array_equal(before[1], after[1])


def test_the_last_frame_is_the_last_valid_one():
    given, wanted, _ = make()
    answers = LastFrame().predict(given, wanted)["frames"]
    for origin, position in enumerate(wanted["position"].values):
        time = max(t for t in range(position + 1) if np.isfinite(given["frames"].values[t]).all())
        for lead in range(len(LEADS)):
            np.testing.assert_array_equal(answers[origin, lead], given["frames"][time])


def test_the_average_is_its_recursion_in_float64():
    given, wanted, _ = make()
    answers = ExponentialAverage(rate=0.3).predict(given, wanted)["frames"]
    state, states = None, []
    for frame in given["frames"].values.astype(np.float64):
        if np.isfinite(frame).all():
            state = frame if state is None else 0.7 * state + 0.3 * frame
        states.append(state)
    for origin, position in enumerate(wanted["position"].values):
        for lead in range(len(LEADS)):
            np.testing.assert_allclose(answers[origin, lead], states[position], rtol=1e-6)


def test_a_restarted_average_forgets_the_session_before():
    given, _, _ = make(missing=0)
    record = read_record(given, "frames", "given")
    [(_, states)] = follow(record, np.array([39, 40, 41]), (0.5,), restart=True)
    frames = given["frames"].values.astype(np.float64)
    np.testing.assert_array_equal(states[1, 0, 0], frames[40])
    np.testing.assert_allclose(states[2, 0, 0], (frames[40] + frames[41]) / 2)


def test_averages_are_the_same_however_many_are_kept_at_a_time(monkeypatch):
    given, _, _ = make()
    record = read_record(given, "frames", "given")
    positions = np.arange(0, 100, 3)
    whole = np.concatenate([states for _, states in follow(record, positions, (0.2, 0.5), restart=False)])
    monkeypatch.setattr("gridloom.evaluate.baselines.record._CHUNK_NUMBERS", 50)
    parts = [states for _, states in follow(record, positions, (0.2, 0.5), restart=False)]
    assert len(parts) == len(positions)
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_the_seasonal_answer_is_the_latest_whole_season_before():
    given, wanted, _ = make(missing=0)
    answers = SeasonalNaive(3).predict(given, wanted)["frames"]
    frames = given["frames"].values
    for origin, position in enumerate(wanted["position"].values):
        for index, lead in enumerate(LEADS):
            time = position + lead
            while time > position:
                time -= 3
            np.testing.assert_array_equal(answers[origin, index], frames[time])


def test_a_season_longer_than_the_record_falls_back_on_the_next_and_then_on_the_last_frame():
    given, wanted, _ = make()
    for lags, same in ((1000, LastFrame()), ((1000, 6), SeasonalNaive(6))):
        expected = same.predict(given, wanted)["frames"]
        np.testing.assert_array_equal(SeasonalNaive(lags).predict(given, wanted)["frames"], expected)


def test_the_adaptive_mean_is_its_recursion():
    given, wanted, history = make()
    answers = AdaptiveSlotMean(history, rate=0.3).predict(given, wanted)["frames"]
    mean, count, done = np.zeros((NUM_SLOTS, 2, 3, 4)), np.zeros(NUM_SLOTS), 0
    for origin, position in enumerate(wanted["position"].values):
        for time in range(done, position + 1):
            frame = given["frames"].values[time]
            if np.isfinite(frame).all():
                slot = time % NUM_SLOTS
                count[slot] += 1
                mean[slot] += max(0.3, 1 / count[slot]) * (frame - mean[slot])
        done = position + 1
        for index, lead in enumerate(LEADS):
            np.testing.assert_allclose(answers[origin, index], mean[(position + lead) % NUM_SLOTS], atol=1e-6)


def test_a_slot_that_was_not_seen_takes_the_mean_of_the_history():
    given, wanted, history = make(missing=0)
    strange = wanted.assign_coords(slot=wanted["slot"] + 100)
    answers = AdaptiveSlotMean(history).predict(given, strange)["frames"]
    np.testing.assert_allclose(answers[0, 0], history["frames"].mean("time"), atol=1e-5)


def test_the_ridge_is_least_squares_on_the_features_of_a_slow_loop():
    given, wanted, history = make(missing=0, length=160)
    config = RidgeConfig(num_lags=2, rates=(0.5,), use_neighbors=True, use_channels=True, slot="")
    ridge = RidgeForecast(history, config)
    frames = history["frames"].values.astype(np.float64)
    rows, targets, average = [], [], None
    usual = frames.mean(0)
    for time in range(len(frames) - 1):
        average = frames[time] if average is None else (average + frames[time]) / 2
        before = frames[time - 1] if time else usual
        for channel, y, x in np.ndindex(2, 3, 4):
            near = frames[time, channel, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2].sum() / 9
            other = (frames[time, 1 - channel, y, x], average[1 - channel, y, x])
            here = (frames[time, channel, y, x], before[channel, y, x], average[channel, y, x])
            rows.append([*here, near, *other, 1])
            targets.append(frames[time + 1, channel, y, x])
    slow = np.linalg.lstsq(np.array(rows), np.array(targets), rcond=None)[0]
    np.testing.assert_allclose(ridge.weights("frames", 1), slow, atol=2e-3)
    assert ridge.predict(given, wanted)["frames"].shape == wanted["frames"].shape


def test_cells_without_any_event_change_only_the_constant_of_the_ridge():
    _, _, history = make(missing=0)
    config = RidgeConfig(slot="")
    wide = history.pad(y=(0, 30), x=(0, 30), constant_values=0)
    narrow, weights = (RidgeForecast(data, config).weights("frames", 1) for data in (history, wide))
    assert abs(weights[-1]) < 0.2 * abs(narrow[-1])
    by_hand = RidgeForecast(wide, config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gridloom.evaluate.baselines.ridge._alive", lambda record: np.ones(record.frames.shape[3:], bool))
        np.testing.assert_allclose(by_hand.weights("frames", 1), weights, atol=1e-6)


def test_slots_seen_once_do_not_spoil_the_ridge():
    given, wanted, history = make(missing=0, length=240)
    truth = given["frames"].values[wanted["position"].values[:, None] + np.array(LEADS)]
    given, history = (data.assign_coords(slot=("time", np.arange(data.sizes["time"]))) for data in (given, history))
    wanted = wanted.assign_coords(slot=wanted["position"] + wanted["lead"])
    with_slots, without = (
        np.square(RidgeForecast(history, config).predict(given, wanted)["frames"].values - truth).mean()
        for config in (RidgeConfig(), RidgeConfig(slot=""))
    )
    assert with_slots < 1.1 * without


def test_wrong_questions_are_told():
    given, wanted, history = make()
    with pytest.raises(DataError, match="coordinate 'position'"):
        LastFrame().predict(given, wanted.drop_vars("position"))
    with pytest.raises(DataError, match="positions that rise"):
        LastFrame().predict(given.isel(time=slice(0, 70)), wanted)
    with pytest.raises(DataError, match="leads from 1 up"):
        LastFrame().predict(given, wanted.assign_coords(lead=[0, 1, 2]))
    with pytest.raises(ConfigError, match="history to choose the rate"):
        ExponentialAverage()
    with pytest.raises(ConfigError, match="lags must be"):
        SeasonalNaive(0)
    with pytest.raises(DataError, match="coordinate 'slot' along time"):
        RidgeForecast(history.drop_vars("slot"))


def ask(dataset):
    """The protocol's question: every frame of the last fifth, one step ahead; the first 70 % are the history."""
    cap = dataset["counts"].attrs["count_cap"]
    frames = (np.log1p(dataset["counts"].values.astype(np.float32)) / np.float32(math.log1p(cap))).astype(np.float32)
    given = xr.Dataset({"frames": (("time", "channel", "y", "x"), frames)}, coords={"slot": dataset["slot"].variable})
    position = np.arange(int(len(frames) * 0.8) - 1, len(frames) - 1)
    truth = frames[position + 1][:, None]
    coords = {
        "position": ("origin", position),
        "lead": [1],
        "slot": (("origin", "lead"), given["slot"].values[position + 1][:, None]),
    }
    wanted = xr.Dataset(
        {"frames": (("origin", "lead", "channel", "y", "x"), np.ones(truth.shape, bool))}, coords=coords
    )
    return given, wanted, truth, given.isel(time=slice(0, int(len(frames) * 0.7)))


def error(baseline, given, wanted, truth):
    answers = baseline.predict(given, wanted)["frames"].values
    return float(np.mean((np.clip(answers, 0, 1) - truth) ** 2) * 1e4)


def test_baselines_of_flights_have_the_known_errors():
    given, wanted, truth, history = ask(open_sample("flights"))
    known = {
        "last": (LastFrame(), 18.987),
        "average": (ExponentialAverage(rate=0.3), 13.509),
        "day": (SeasonalNaive(24), 8.787),
        "week": (SeasonalNaive(168), 8.422),
        "adaptive": (AdaptiveSlotMean(history, rate=0.12), 5.754),
    }
    for name, (baseline, figure) in known.items():
        assert error(baseline, given, wanted, truth) == pytest.approx(figure, abs=0.002), name
    ridge = RidgeForecast(history, RidgeConfig(seasons=(24, 168)))
    assert error(ridge, given, wanted, truth) == pytest.approx(5.229, abs=0.02)  # the known one has 5.451


@pytest.mark.skipif(find_spec("mlfinpy") is None, reason="pip install --no-deps mlfinpy==0.1.2")
@pytest.mark.parametrize(
    ("name", "rate", "average", "ridge"), [("emini", 0.3, 21.543, 19.181), ("emini-spec", 0.5, 10.990, 10.910)]
)
def test_baselines_of_trades_have_the_known_errors(name, rate, average, ridge):
    dataset = open_sample(name)
    traded = dataset["counts"].any(("time", "channel"))
    rows, columns = (np.flatnonzero(traded.any(dim)) for dim in ("x", "y"))
    box = {"y": slice(rows[0], rows[-1] + 2), "x": slice(max(columns[0] - 1, 0), columns[-1] + 2)}
    given, wanted, truth, history = ask(dataset.isel(box))  # all else is always 0
    share = truth[0, 0, 0].size / 32**2
    found = error(ExponentialAverage(rate=rate), given, wanted, truth) * share
    assert found == pytest.approx(average, abs=0.002)
    found = error(RidgeForecast(history, RidgeConfig(slot="")), given, wanted, truth) * share
    assert found == pytest.approx(ridge, rel=0.01)


def test_the_rate_is_the_one_with_the_least_error_in_the_history():
    _, _, history = make(length=300)
    frames = history["frames"].values.astype(np.float64)
    frames = frames[np.isfinite(frames).all(axis=(1, 2, 3))]
    errors = {}
    for rate in (0.02, 0.1, 0.2, 0.5, 0.8):
        state, total = frames[0], 0.0
        for frame in frames[1:]:
            total += np.square(frame - state).sum()
            state = state + rate * (frame - state)
        errors[rate] = total
    best = min(errors, key=errors.get)
    assert abs(np.log(ExponentialAverage(history).rate / best)) < np.log(2.6)
    assert AdaptiveSlotMean(history).rate <= 0.2  # the cycle stays as it is


def test_thousands_of_origins_take_little_more_memory_than_their_answers():
    length = 1200
    frames = np.random.default_rng(0).random((length, 2, 32, 32), dtype=np.float32)
    given = xr.Dataset({"frames": (("time", "channel", "y", "x"), frames)})
    position = np.arange(199, length - 1)
    wanted = xr.Dataset(
        {"frames": (("origin", "lead", "channel", "y", "x"), np.ones((len(position), 1, 2, 32, 32), bool))},
        coords={"position": ("origin", position), "lead": [1]},
    )
    ridge = RidgeForecast(given.isel(time=slice(0, 199)), RidgeConfig(slot=""))
    ridge.weights("frames", 1)
    for baseline in (ExponentialAverage(rate=0.3), ridge):
        tracemalloc.start()
        baseline.predict(given, wanted)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1.5 * wanted["frames"].size * 4 + 40e6
