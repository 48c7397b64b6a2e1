"""Pictures of flicker: all are drawn from a run, and the numbers behind them are those of the run."""

import io
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from PIL import Image

from gridloom.core.system import Drawing, Trained, View
from gridloom.evaluate.flicker import error_by_frame
from gridloom.systems.temporal import SYSTEM
from gridloom.systems.temporal.baselines import BASELINES
from gridloom.systems.temporal.data import prepare, resolve
from gridloom.systems.temporal.figures import FIGURES
from gridloom.systems.temporal.objective import FlickerFree
from gridloom.systems.temporal.pictures.decoded import draw_decoded
from gridloom.systems.temporal.pictures.pair import PairFrames
from gridloom.systems.temporal.pictures.slices import busiest_columns, busiest_row
from gridloom.systems.temporal.pictures.stabilized import draw_stabilized
from gridloom.systems.temporal.pictures.tiles import decibels, method_color
from gridloom.systems.temporal.pictures.tradeoff import draw_tradeoff
from gridloom.systems.temporal.warmup import AlphaWarmup
from gridloom.viz.style import to_png_bytes
from gridloom.workflows.evaluate import evaluate_trained
from tests.systems.temporal.small import config, moving_clip, save

CUT = 5
"""Frame of the test part that begins a new shot."""
LENGTH = 12


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> View:
    """An untrained model, asked about twelve frames of two shots."""
    path = save(moving_clip(length=48, cut=36 + CUT), tmp_path_factory.mktemp("clip"))
    whole = resolve(config(path, data={"max_frames": LENGTH}, warmup=AlphaWarmup(start=0.1, target=0.5, steps=4)))
    prepared = prepare(whole)
    torch.manual_seed(0)
    trained = Trained(config=whole, objective=FlickerFree(whole).eval(), normalizer={})
    few = {name: SYSTEM.baselines[name] for name in ("input", "constant 0.5", "kalman")}
    found = evaluate_trained(replace(SYSTEM, baselines=few), trained, prepared)
    assert found.task is not None
    return View(
        trained=trained,
        prepared=prepared,
        task=found.task,
        predictions=found.predictions,
        scores=found.scores,
        metrics=[
            {"step": 2, "part": "train", "alpha": 0.2},
            {"step": 4, "part": "train", "alpha": 0.4},
            {"step": 4, "part": "validation", "alpha": 0.5},
        ],
    )


@pytest.fixture(scope="module")
def drawings(view: View) -> dict[str, Drawing]:
    drawn = {name: draw(view) for name, draw in FIGURES.items()}
    return {name: drawing for name, drawing in drawn.items() if drawing is not None}


def test_every_picture_is_drawn_and_says_what_it_shows(drawings: dict[str, Drawing]) -> None:
    assert set(drawings) == set(FIGURES)
    for drawing in drawings.values():
        with Image.open(io.BytesIO(to_png_bytes(drawing.figure))) as image:
            assert image.width > 500 and len(image.getcolors(1 << 20) or range(99)) > 20
        assert len(drawing.caption) > 80 and drawing.data


def test_a_fusion_is_the_mix_that_its_maps_say(view: View, drawings: dict[str, Drawing]) -> None:
    data = drawings["fusion"].data
    mix = data["current"] + data["alpha"] * (data["warped"] - data["current"])  # the refiner is the identity as yet
    np.testing.assert_allclose(data["fused"], mix, atol=1e-5)
    units = (data["current"] - data["warped"]) / np.sqrt(view.task.given["noise"].values)[:, None, None]
    np.testing.assert_array_equal(np.isnan(data["residual"]), ~data["valid"])
    np.testing.assert_allclose(
        data["residual"][data["valid"]], np.sqrt((units**2).mean(axis=0))[data["valid"]], rtol=1e-5
    )
    assert 0.8 < data["residual"][data["valid"]].mean() < 1.6  # the flow is exact: flicker is left
    clean = view.task.truth["frames"].values
    shown = [at for at in range(LENGTH) if np.array_equal(clean[at], data["clean"])]
    assert len(shown) == 1 and shown[0] not in (0, CUT)


def test_without_flow_nothing_is_said_to_have_moved(view: View) -> None:
    still = view.task.given.drop_vars(["flow", "flow_next", "occluded", "occluded_next"])
    drawing = FIGURES["fusion"](replace(view, task=replace(view.task, given=still)))
    assert drawing is not None and "flow" not in drawing.data
    assert "nothing was moved" in drawing.caption
    np.testing.assert_array_equal(drawing.data["warped"], drawing.data["previous"])


def test_large_frames_are_cut_to_where_motion_is() -> None:
    values = np.arange(3 * 20 * 30, dtype=np.float32).reshape(3, 20, 30)
    flow = np.zeros((2, 20, 30), dtype=np.float32)
    flow[:, 12:15, 22:25] = np.nan
    flow[0, 11, 21] = flow[0, 15, 26] = 3.0
    flat, known = values[0], np.ones((20, 30), dtype=bool)
    pair = PairFrames(
        previous=values, current=values, warped=values, fused=values, clean=values, flow=flow, valid=known,
        alpha=flat, variance=flat, noise=np.ones(3),
    )  # fmt: skip
    part = pair.busiest((5, 6))
    np.testing.assert_array_equal(part.clean, values[:, 11:16, 21:27])
    assert part.flow is not None and part.flow[0, 0, 0] == part.flow[0, 4, 5] == 3.0
    assert part.alpha.shape == part.valid.shape == (5, 6)
    assert replace(pair, flow=None).busiest((40, 40)).clean.shape == values.shape


def test_slices_are_one_row_of_each_clip_and_its_distance_to_the_clean(
    view: View, drawings: dict[str, Drawing]
) -> None:
    data, row = drawings["slices"].data, int(drawings["slices"].data["row"])
    given = view.task.given
    np.testing.assert_array_equal(data["with flicker"], given["frames"].values[:, :, row].transpose(0, 2, 1))
    error = (given["frames"] - given["beside"]).values[:, :, row] / np.sqrt(given["noise"].values)[:, None]
    np.testing.assert_allclose(data["error of with flicker"], error.mean(axis=1), atol=1e-5)
    errors = {score.method: score.value for score in view.scores if score.metric == "error"}
    baselines = {name: value for name, value in errors.items() if name not in ("input", "temporal")}
    assert min(baselines, key=lambda name: baselines[name]) in data
    assert {"clean", "temporal"} < set(data)
    titles = {axes.get_title(loc="left") for axes in drawings["slices"].figure.axes}
    assert f"temporal, {decibels(errors['temporal'])} dB" in titles


def test_the_busiest_row_and_columns_are_where_neighbors_differ() -> None:
    frames = np.zeros((4, 2, 9, 40), dtype=np.float32)
    frames[:, :, 6, 25:31:2] = 1.0
    frames[:, :, 2, 3] = 1.0
    frames[:, :, 4] = np.nan
    assert busiest_row(frames) == 6
    columns = busiest_columns(frames, 6, 10)
    assert columns.stop - columns.start == 10 and columns.start < 25 and columns.stop > 30
    assert busiest_columns(frames, 6, 50) == slice(0, 40)


def test_the_error_is_back_at_that_of_a_frame_after_a_cut(view: View, drawings: dict[str, Drawing]) -> None:
    data = drawings["error"].data
    assert data["cuts"].tolist() == [CUT]
    given = view.task.given
    answer = view.predictions["temporal"]["frames"].values
    np.testing.assert_allclose(
        data["temporal"], error_by_frame(answer, given["beside"].values, given["noise"].values), atol=1e-9
    )
    assert abs(data["temporal"][CUT]) < 0.5 and data["temporal"][CUT - 1] < -1.0
    assert set(view.predictions) < set(data)


def test_the_price_of_calm_is_that_of_the_scores(view: View, drawings: dict[str, Drawing]) -> None:
    data = drawings["tradeoff"].data
    assert set(data) == set(view.predictions)
    for at, metric in enumerate(("bias", "variation", "error")):
        found = {score.method: score.value for score in view.scores if score.metric == metric}
        assert {name: values[at] for name, values in data.items()} == pytest.approx(found)
    assert FIGURES["tradeoff"](replace(view, scores=())) is None


def test_names_of_dots_that_lie_close_do_not_hide_each_other() -> None:
    crowd = {f"filter {at}": (-10 + 0.02 * at, -6.0 + 0.02 * at, -3.0) for at in range(4)}
    made = draw_tradeoff({"input": (-np.inf, 0.0, 0.0), "far": (0.0, -8.0, 1.0), **crowd}).figure
    names = [text for text in made.axes[0].texts if text.get_text() != "none"]
    assert len(names) == 6
    boxes = [text.get_window_extent() for text in names]
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    frame = made.axes[0].get_window_extent()
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for box in boxes)


def test_alpha_stands_beside_its_warm_up(view: View, drawings: dict[str, Drawing]) -> None:
    data = drawings["alpha"].data
    assert data["train steps"].tolist() == [2, 4] and data["validation alpha"].tolist() == [0.5]
    np.testing.assert_allclose(data["warm-up alpha"], 0.1 + 0.1 * data["warm-up steps"])
    assert data["warm-up steps"].max() == 3
    assert FIGURES["alpha"](replace(view, metrics=())) is None


def test_a_film_has_all_frames_and_no_past_where_a_shot_begins(drawings: dict[str, Drawing]) -> None:
    film = drawings["film"]
    assert film.animation is not None
    with Image.open(io.BytesIO(film.animation)) as moving:
        assert moving.n_frames == LENGTH
    assert not film.data["alpha"][[0, CUT]].any()
    assert film.data["alpha"][CUT + 1].mean() > 0.05


@pytest.mark.parametrize(("channels", "grid"), [(1, (18, 300)), (3, (18, 300)), (5, (6, 100))])
def test_what_stabilize_did_is_drawn_for_gray_colors_and_latents(channels: int, grid: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    before = rng.random((30, channels, 18, 300), dtype=np.float32)
    after = 0.5 + 0.5 * (before - 0.5)
    made = draw_stabilized(
        np.moveaxis(before[:, :, 7], 1, -1),
        np.moveaxis(after[:, :, 7], 1, -1),
        last=(before[-1], after[-1]),
        alpha=rng.random(grid, dtype=np.float32),
        row=7,
    )
    slices = [axes.images[0] for axes in made.axes if axes.get_title(loc="left").startswith("row 7 over time")]
    assert len(slices) == 2
    left, right, *_ = slices[0].get_extent()
    shown = np.asarray(slices[0].get_array())
    assert shown.shape == (30, right - left, 3) and right - left == 240
    if channels < 5:
        expected = np.moveaxis(before[:, :, 7, int(left) : int(right)], 1, -1)
        np.testing.assert_allclose(shown, np.broadcast_to(expected, shown.shape), atol=1e-6)
    last = next(axes for axes in made.axes if axes.get_title(loc="left") == "last frame, after")
    np.testing.assert_array_equal(last.lines[0].get_ydata(), [7, 7])


def test_decoded_images_say_how_far_each_is_from_the_current_one() -> None:
    current = np.full((3, 12, 16), 0.5, dtype=np.float32)
    made = draw_decoded(current - 0.3, current, current + 0.1, current - 0.02)
    titles = [axes.get_title(loc="left") for axes in made.axes]
    assert [title.split("mean ")[1] for title in titles if "mean " in title] == ["0.300", "0.100", "0.020"]
    assert sum("decoded" in title for title in titles) == 4
    assert len(to_png_bytes(made)) > 1000


def test_no_two_methods_share_a_color():
    colors = [method_color(number, model=False) for number in range(len(BASELINES))] + [method_color(0, model=True)]
    assert len(set(colors)) == len(BASELINES) + 1
