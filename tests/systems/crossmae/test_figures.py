"""Pictures of fills: each is drawn from runs that it applies to, and its numbers are those that can be counted."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from gridloom.core.contracts import Prepared, Task
from gridloom.core.system import Drawing, Trained, View
from gridloom.systems.crossmae.config import CrossMAEConfig, ModalityConfig
from gridloom.systems.crossmae.figures import FIGURES
from gridloom.systems.crossmae.nearness import bin_errors, gap_lengths, nearest_observed
from gridloom.systems.crossmae.objective import MaskedModeling
from gridloom.viz.style import settle
from tests.systems.crossmae.small import config

TIMES = np.datetime64("2001-01-15", "ns") + 31 * np.timedelta64(1, "D") * np.arange(12)
IMAGE: Mapping[str, Any] = {"modalities": {"a": ModalityConfig(kind="image", size=(5, 7))}}


def fields(height: int = 5, width: int = 7) -> xr.Dataset:
    """An image `a` with a column of land and series `u`, `v`."""
    draw = np.random.default_rng(0)
    image = draw.normal(size=(12, height, width)) + 10
    image[:, :, 0] = np.nan
    return xr.Dataset(
        {
            "a": (("time", "lat", "lon"), image, {"units": "K", "long_name": "warmth"}),
            "u": (("place", "time"), draw.normal(size=(3, 12)), {"units": "mm/day"}),
            "v": (("place", "time"), draw.normal(size=(3, 12))),
        },
        coords={"time": TIMES, "lat": 2.0 * np.arange(height), "lon": 170 + 2.0 * np.arange(width)},
    )


def view(settings: CrossMAEConfig, truth: xr.Dataset, *, spread: bool = True, hidden: float = 0.3) -> View:
    """A run whose model is wrong by 1 everywhere and says 2, beside a baseline that is wrong by 3."""
    variables = [v for name, modality in settings.modalities.items() for v in modality.variables or (name,)]
    truth = truth[variables]
    draw = np.random.default_rng(1)
    wanted = truth.map(lambda one: one.notnull() & (draw.random(one.shape) < hidden))
    given = truth.where(~wanted)
    answers = xr.where(wanted, truth + 1.0, given)
    if spread:
        answers = answers.assign({f"{name}_std": xr.where(wanted[name], 2.0, np.nan) for name in variables})
    task = Task(name="made up", split="test", given=given, wanted=wanted, truth=truth, block_dim="time")
    return View(
        trained=Trained(config=settings, objective=MaskedModeling(settings), normalizer={}),
        prepared=Prepared(sources={}, normalizer={}, splits={}, history=given, task=lambda split: task),
        task=task,
        predictions={"climatology": xr.where(wanted, truth - 3.0, given), "crossmae": answers},
        scores=(),
        metrics=(),
    )


def drawn(name: str, of: View) -> Drawing:
    drawing = FIGURES[name](of)
    assert drawing is not None
    return drawing


@pytest.mark.parametrize("name", sorted(FIGURES))
def test_every_picture_is_drawn_of_a_run_with_images_and_series(name):
    settings = config(model={"architecture": "cross_maps"})
    drawing = drawn(name, view(settings, fields()))
    settle(drawing.figure)
    assert drawing.figure.axes and drawing.caption and drawing.data


def test_pictures_are_left_out_where_they_do_not_apply():
    images = view(config(**IMAGE, model={"architecture": "cross"}), fields(), spread=False)
    found = {name: draw(images) for name, draw in FIGURES.items()}
    assert {name for name, drawing in found.items() if drawing is None} == {"calibration", "feature_maps", "series"}
    series = config(modalities={"b": ModalityConfig(kind="vector", size=(3, 1), variables=("u", "v"))})
    assert FIGURES["fills"](view(series, fields())) is None
    nothing = view(config(), fields(), hidden=0.0)
    assert all(FIGURES[name](nothing) is None for name in ("fills", "distance", "calibration", "series"))


def test_fills_show_hidden_cells_alone_as_error_and_spread():
    of = view(config(), fields())
    data = drawn("fills", of).data
    hidden = np.isnan(data["seen"]) & np.isfinite(data["truth"])
    assert (
        hidden.any() and (np.isfinite(data["error"]) == hidden).all() and (np.isfinite(data["spread"]) == hidden).all()
    )
    np.testing.assert_allclose(data["error"][hidden], 1.0)
    np.testing.assert_array_equal(data["filled"][~hidden], data["seen"][~hidden])
    asked = of.task.wanted["a"].values.sum((1, 2))
    assert hidden.sum((1, 2)).max() == asked.max()  # the time with most is among them


def test_of_wide_fields_the_part_with_most_hidden_cells_is_shown():
    truth = fields(width=40)
    of = view(config(**IMAGE), truth, hidden=0.05)
    wanted = of.task.wanted.copy(deep=True)
    wanted["a"][:, :, 30:36] = True
    drawing = drawn("fills", replace(of, task=replace(of.task, wanted=wanted)))
    shown = drawing.data["truth"]
    assert shown.shape[1:] == (5, 13)
    first = int(np.flatnonzero((truth["a"].values[:, 2, :] == shown[0, 2, 0]).any(0))[0])
    assert first <= 30 and first + 13 >= 36


def test_distances_are_counted_in_cells_and_times():
    observed = np.zeros((4, 3, 6), dtype=bool)
    observed[0, 1, 1] = True
    observed[2] = True
    far = nearest_observed(observed)
    assert far[0, 1, 1] == 0 and far[0, 1, 5] == 4 and far[0, 2, 2] == pytest.approx(np.sqrt(2))
    assert nearest_observed(observed, periodic=True)[0, 1, 5] == 2
    assert np.isinf(far[1]).all() and (far[2] == 0).all()
    gaps = gap_lengths(observed)
    assert gaps[:, 0, 0].tolist() == [2, 2, 0, 1] and gaps[:, 1, 1].tolist() == [0, 1, 0, 1]


def test_errors_are_binned_by_root_mean_square_where_there_are_ten_cells():
    far = np.array([1.0] * 10 + [1.9] * 10 + [4.0] * 3 + [np.inf])
    squares = {"model": np.array([1.0] * 5 + [9.0] * 5 + [4.0] * 10 + [100.0] * 4)}
    found = bin_errors(far, squares)
    assert found is not None
    assert found.edges[:4].tolist() == [0.5, 1.5, 2.5, 3.5] and found.count.tolist() == [10, 10, 0, 3]
    np.testing.assert_allclose(found.lines["model"][:2], [np.sqrt(5), 2.0])
    assert np.isnan(found.lines["model"][2:]).all() and np.isnan(found.center[2]) and found.center[3] == 4
    assert bin_errors(np.array([np.inf]), {}) is None


def test_distance_has_the_model_the_best_baseline_and_the_spread():
    data = drawn("distance", view(config(**IMAGE), fields())).data
    for panel in ("0", "1"):
        enough = data[f"{panel} count"] >= 10
        assert enough.any()
        for line, value in (("model", 1.0), ("climatology", 3.0), ("spread", 2.0)):
            np.testing.assert_allclose(data[f"{panel} {line}"][enough], value)
    alone = drawn("distance", view(config(modalities={"u": ModalityConfig(kind="vector", size=(3, 1))}), fields()))
    assert not any(key.startswith("1 ") for key in alone.data)  # series have no space


def test_reliability_is_the_share_within_the_interval():
    data = drawn("calibration", view(config(), fields())).data
    within = data["nominal"] >= 0.3829  # of a normal distribution within half a standard deviation
    assert set(data) == {"nominal", "a", "u", "v"}
    np.testing.assert_array_equal(data["a"], np.where(within, 1.0, 0.0))


def test_series_are_those_of_the_least_median_and_largest_error():
    of = view(config(), fields())
    answers = dict(of.predictions)
    scale = xr.DataArray([5.0, 0.1, 1.0], dims="place")
    noise = of.task.wanted["u"] * scale * of.task.truth["u"].std("time")
    answers["crossmae"] = answers["crossmae"].assign(u=of.predictions["climatology"]["u"] + 3.0 + noise)
    drawing = drawn("series", replace(of, predictions=answers))
    data = drawing.data
    told = [axes.get_title(loc="left") for axes in drawing.figure.axes]
    assert told[::2] == ["place 1, least error", "place 2, median error", "place 0, largest error"]
    for row, place in enumerate((1, 2, 0)):
        np.testing.assert_array_equal(data[f"{row} u truth"], of.task.truth["u"].values[place])
    asked = of.task.wanted["u"].values[1]
    assert (np.isfinite(data["0 u filled"]) == asked).all() and np.isnan(data["0 u seen"][asked]).all()


def test_feature_maps_are_the_weights_that_the_decoder_uses():
    settings = config(model={"architecture": "cross_maps", "fusion": "shared"})
    of = view(settings, fields())
    drawing = drawn("feature_maps", of)
    objective = of.trained.objective
    assert isinstance(objective, MaskedModeling)
    weights = objective.model.decoder("a").mixing.weights  # type: ignore[union-attr]
    np.testing.assert_array_equal(drawing.data["a"], weights.detach().double().numpy())
    told = [label.get_text() for label in drawing.figure.axes[0].get_xticklabels()]
    assert told == ["input", "layer 1", "layer 2", "shared"] and drawing.data["b"].shape == (2, 4)
    assert isinstance(weights, torch.Tensor) and len(told) == weights.shape[1]
