"""Pictures of frames to come: each is drawn from runs that it applies to, and its numbers can be counted."""

import io
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from PIL import Image

from gridloom.core.system import Drawing, Trained, View
from gridloom.grid.events import CALENDARS, LinearAxis, PriceAxis, VolumeAxis, axis_record, pixels
from gridloom.systems.heatmap.calibrate import calibrate
from gridloom.systems.heatmap.clock import Clock
from gridloom.systems.heatmap.data import prepare, resolve
from gridloom.systems.heatmap.figures import FIGURES
from gridloom.systems.heatmap.objective import NextFrame
from gridloom.systems.heatmap.pictures.cells import read_look
from gridloom.systems.heatmap.predict import SAMPLES, HeatmapForecaster
from gridloom.systems.heatmap.record import read_record
from gridloom.systems.heatmap.verification import cover, frame_losses, mean_by_slot
from tests.systems.heatmap.small import CAP, NUM_SLOTS, SIZE, config, frames_dataset, jitter, save


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> View:
    """An untrained model with sample paths; persistence is wrong by 0.1 everywhere and the mean of the slot by 0.2."""
    dataset = frames_dataset(halted=0.1, sessions=14)
    # With 14 sessions in one record; forecasts go on from one to the next.
    dataset.attrs["axes"] = json.dumps(
        {"y": axis_record(VolumeAxis(size=SIZE, v_cap=1000)), "x": axis_record(PriceAxis(size=SIZE))}
    )
    path = save(dataset, tmp_path_factory.mktemp("frames"))
    whole = resolve(config(path, data={"within_session": False, "num_samples": 6}, train={"steps": 1}))
    prepared = prepare(whole)
    torch.manual_seed(0)
    objective = jitter(NextFrame(whole), 0.02)
    calibrate(objective, whole, prepared)
    trained = Trained(config=whole, objective=objective, normalizer={})
    task = prepared.task("test")
    return View(
        trained=trained,
        prepared=prepared,
        task=task,
        predictions={
            "slot mean": task.truth + 0.2,
            "persistence": task.truth + 0.1,
            "heatmap": HeatmapForecaster(trained).predict(task.given, task.wanted),
        },
        scores=(),
        metrics=(),
    )


def drawn(name: str, of: View) -> Drawing:
    drawing = FIGURES[name](of)
    assert drawing is not None
    return drawing


@pytest.fixture(scope="module")
def drawings(run: View) -> dict[str, Drawing]:
    return {name: drawn(name, run) for name in FIGURES}


@pytest.mark.parametrize("name", sorted(FIGURES))
def test_every_picture_is_drawn(drawings, name):
    drawing = drawings[name]
    assert drawing.figure.get_axes() and drawing.caption and drawing.data


def test_pictures_are_left_out_where_they_do_not_apply(run):
    alone = replace(run, predictions={"heatmap": run.predictions["heatmap"].drop_vars(SAMPLES)})
    assert {name for name in ("forecast", "skill_by_lead", "spread") if FIGURES[name](alone) is not None} == set()


def test_forecast_shows_the_busiest_origin_of_the_middle_whose_leads_are_all_known(run, drawings):
    data = drawings["forecast"].data
    truth = run.task.truth["frames"].values
    third = len(truth) // 3
    counts = np.expm1(truth.astype(np.float64) * np.log1p(CAP)).sum(axis=(1, 2, 3, 4))
    counts[:third] = counts[2 * third :] = np.nan
    busiest = int(np.nanargmax(counts))
    np.testing.assert_array_equal(data["truth"], truth[busiest])
    np.testing.assert_allclose(data["persistence mse"], 0.01, rtol=1e-4)
    np.testing.assert_allclose(data["error"], data["forecast"] - data["truth"])


def test_a_strip_and_a_film_go_on_from_what_was_seen(drawings):
    strip, film = drawings["strip"], drawings["film"]
    seen, came = strip.data["seen"], strip.data["came"]
    assert seen.shape == (4, 2, SIZE, SIZE) and len(came) == 6
    assert film.animation is not None and len(film.data["truth"]) == 5  # the last frame seen, and 4 steps
    np.testing.assert_array_equal(film.data["truth"][0], seen[-1])
    np.testing.assert_array_equal(film.data["truth"][1:], came[:4])
    np.testing.assert_array_equal(film.data["forecast"][1:], strip.data["forecast"][:4])
    with Image.open(io.BytesIO(film.animation)) as picture:
        assert picture.n_frames == 5


def test_a_forecast_within_a_session_is_not_drawn_beyond_it(run):
    inside = replace(run.trained.config, data=replace(run.trained.config.data, within_session=True))
    data = drawn("strip", replace(run, trained=replace(run.trained, config=inside))).data
    assert len(data["seen"]) + len(data["came"]) <= NUM_SLOTS


def test_skill_is_against_both_references(drawings):
    data = drawings["skill_by_lead"].data
    np.testing.assert_allclose(data["slot mean persistence"][:, 0], 0.75, rtol=1e-3)
    np.testing.assert_allclose(data["persistence slot mean"][:, 0], -3.0, rtol=1e-3)
    assert data["persistence heatmap"].shape == (3, 3)


def test_errors_leave_out_what_was_not_asked():
    truth = np.zeros((1, 10, 2, 2, 3, 3))
    truth[:, 4:, 1] = np.nan
    wanted = np.ones(truth.shape, dtype=bool)
    wanted[:, 0, 0] = False
    losses = frame_losses(truth, wanted, {"a": truth + 1.0, "b": truth + 2.0})
    assert losses.count[:, 0].tolist() == [0] + [18] * 9 and losses.count[:, 1].tolist() == [18] * 4 + [0] * 6
    np.testing.assert_allclose(losses.squared[1], 4.0 * losses.count)


def test_errors_by_slot_are_pooled_over_frames(run, drawings):
    data = drawings["skill_by_slot"].data
    assert list(data["edges"]) == list(range(NUM_SLOTS + 1))
    np.testing.assert_allclose(data["persistence"], 0.01, rtol=1e-3)
    history = run.prepared.history
    counts = np.expm1(history["frames"].astype(np.float64) * np.log1p(CAP)).sum(["channel", "y", "x"], skipna=False)
    np.testing.assert_allclose(data["activity"], counts.groupby("slot").mean().values, rtol=1e-4)


def test_bins_of_slots_are_weighted_and_empty_ones_have_no_value():
    found = mean_by_slot(
        np.array([2.0, 6.0, 9.0]), np.array([1, 3, 3]), np.array([0, 1, 5]), np.array([0, 2, 4, 6], dtype=np.int64)
    )
    np.testing.assert_array_equal(found, [2.0, np.nan, 3.0])


def test_coverage_is_right_for_few_samples_and_whole_numbers():
    draw = np.random.default_rng(0)
    nominal = np.array([0.2, 0.5, 0.9])
    for rate in (0.3, 3.0, 300.0):  # mostly ties, some, hardly any
        found = cover(draw.poisson(rate, (8, 20_000)).astype(float), draw.poisson(rate, 20_000).astype(float), nominal)
        np.testing.assert_allclose(found, nominal, atol=0.02)
    narrow = cover(draw.normal(size=(8, 5000)) * 0.1, draw.normal(size=5000), nominal)
    assert (narrow < nominal - 0.05).all()


def test_the_spread_of_totals_is_counted_in_events(drawings):
    data, film = drawings["spread"].data, drawings["film"].data
    counts = np.expm1(film["truth"][1:].astype(np.float64) * np.log1p(CAP)).sum(axis=(-2, -1))
    np.testing.assert_allclose(data["B came"], counts[:, 0])
    assert data["S samples"].shape == (100, 4) and {"lead 1", "lead 2", "lead 4"} <= set(data)


def test_latents_that_are_slots_and_nothing_else_are_told_apart(run):
    torch.manual_seed(0)
    only_slots = NextFrame(run.trained.config).eval()
    with torch.no_grad():
        only_slots.encoder.alpha.zero_()
    data = drawn("latents", replace(run, trained=replace(run.trained, objective=only_slots))).data
    np.testing.assert_allclose(data["same"], 1.0, atol=1e-6)
    assert data["other"].max() < 0.99 and list(data["slots"]) == sorted(data["slots"])


def test_ticks_lie_where_prices_volumes_and_degrees_do():
    attrs: dict[str, Any] = {"axes": json.dumps({"y": axis_record(VolumeAxis()), "x": axis_record(PriceAxis())})}
    look = read_look(attrs, (32, 32), cap=128, scale="log1p")
    assert look.aspect == 1.0 and look.y.rises
    assert "0" in look.x.texts
    told = dict(zip(look.x.texts, look.x.ticks, strict=True))
    center = PriceAxis().column(np.array([10.0, 10.2]), 10.0)
    assert told["0"] + 0.5 == pytest.approx(15.5) and int(told["+2"] + 0.5) == center[1]
    volumes = dict(zip(look.y.texts, look.y.ticks, strict=True))
    assert int(volumes["100"] + 0.5) == VolumeAxis().row(np.array([100]))[0]
    north = {"of": "latitude", "units": "degrees_north", **axis_record(LinearAxis(low=50.0, high=25.0, size=10))}
    east = {"of": "longitude", "units": "degrees_east", **axis_record(LinearAxis(low=-120.0, high=-70.0, size=10))}
    world = read_look({"axes": json.dumps({"y": north, "x": east})}, (10, 10), cap=0, scale="linear")
    assert not world.y.rises and world.y.label == "" and 0.5 < world.aspect < 0.75
    assert dict(zip(world.y.texts, world.y.ticks, strict=True))["40°N"] == pytest.approx(3.5)


def test_colors_say_counts_and_what_there_is_of_axes():
    look = read_look({}, (4, 5), cap=128, scale="log1p")
    places, texts = look.bar_ticks(1.0)
    np.testing.assert_allclose(pixels(np.array([int(text) for text in texts])), places, rtol=1e-6)
    assert (look.y.label, look.x.label, look.y.ticks) == ("row", "column", ())
    linear = read_look({}, (4, 5), cap=100, scale="linear")
    assert linear.counts(np.array([0.5]))[0] == linear.pixel(50) * 100 == 50.0


def test_the_clock_is_that_of_the_exchange():
    dataset = frames_dataset(sessions=2)
    there = Clock(read_record(dataset))
    assert (there.time(0), there.date(0), there.step) == ("01:30", "Tue 2 Jan 2024", "1 min")
    dataset.attrs["calendar"] = CALENDARS["cn_a"].to_json()
    assert Clock(read_record(dataset)).time(0) == "09:30"  # written as UTC
    hours = dataset.assign_coords(time=dataset["time"].values[0] + np.timedelta64(1, "h") * np.arange(12))
    assert Clock(read_record(hours)).step == "1 h"
    unnamed = Clock(read_record(xr.Dataset({"counts": dataset["counts"].drop_vars("time")})))
    assert (unnamed.step, unnamed.date(3), unnamed.slot_ticks()[2]) == ("1 slot", "", "slot")
