"""Figures are looked at by eye; here is what must hold whatever they look like."""

import io
import re

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from gridloom.core.errors import DataError
from gridloom.core.score import Score
from gridloom.viz.curve import bars, curves
from gridloom.viz.embedding import embedding_map, neighbor_strip, spread_out
from gridloom.viz.field import field_rows
from gridloom.viz.globe import globe
from gridloom.viz.scale import color_scale
from gridloom.viz.style import (
    COLUMN_CM,
    DIVERGING,
    FULL_CM,
    MISSING,
    SEQUENTIAL,
    figure,
    save,
    style,
    to_png_bytes,
    to_svg,
)

generator = np.random.default_rng(0)
FIELDS = generator.normal(size=(12, 8, 10))
LATITUDE, LONGITUDE = np.arange(-85.0, 90, 10), np.arange(5.0, 360, 10)


def score(method, value, low, high, *, metric="skill", group="all", unit="1"):
    return Score(
        data="sea", split="test", method=method, metric=metric, unit=unit, group=group, seed=0,
        value=value, low=low, high=high, num_blocks=20,
    )  # fmt: skip


def draw_all():
    rows = [{"truth": field, "answer": field + 0.1, "error": field * 0 + 0.1} for field in FIELDS[:2]]
    skills = [score("a", 0.0, 0.0, 0.0), score("b", 0.4, 0.3, 0.5)]
    line = (np.arange(5.0), np.arange(5.0))
    return {
        "field": field_rows(rows, labels=["one", "two"], unit="K"),
        "globe": globe(generator.normal(size=(18, 36)), LATITUDE, LONGITUDE, label="height [m]", center=0),
        "curves": curves({"training": line, "validation": line}, xlabel="step", ylabel="loss"),
        "bars": bars(skills),
        "map": embedding_map(generator.normal(size=(12, 2)), thumbnails=FIELDS, labels=np.arange(12) % 3),
        "strip": neighbor_strip(FIELDS[:2], FIELDS[:6].reshape(2, 3, 8, 10), np.ones((2, 3))),
    }


FIGURES = draw_all()


@pytest.mark.parametrize("name", list(FIGURES))
def test_a_figure_is_as_wide_as_a_column_and_draws_the_same_each_time(name):
    made, again = FIGURES[name], draw_all()[name] if name == "bars" else FIGURES[name]
    assert isinstance(made, Figure)
    assert made.get_size_inches()[0] * 2.54 == pytest.approx(COLUMN_CM)
    assert to_png_bytes(made) == to_png_bytes(again)
    assert to_svg(made) == to_svg(again)


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("field", ["truth", "answer", "error", "one", "two", "value [K]", "error [K]"]),
        ("globe", ["height [m]", "60°N", "60°W", "0°"]),
        ("curves", ["step", "loss", "training", "validation"]),
        ("bars", ["a", "b", "skill"]),
        ("map", ["principal component 1", "principal component 2", "0", "1", "2"]),
        ("strip", ["query", "nearest neighbors", "1.00"]),
    ],
)
def test_text_stays_text(name, texts):
    svg = to_svg(FIGURES[name])
    found = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    for text in texts:
        assert text in found
    assert "<dc:date>" not in svg


def test_text_is_large_enough_to_read_in_print():
    for made in FIGURES.values():
        texts = [text for text in made.findobj(mpl.text.Text) if text.get_text()]
        assert min(text.get_fontsize() for text in texts) >= 7


def test_nothing_is_left_in_global_state():
    before = dict(mpl.rcParams)
    draw_all()
    to_svg(FIGURES["bars"])
    assert dict(mpl.rcParams) == before
    with style():
        assert mpl.rcParams["svg.hashsalt"] == "gridloom"


def test_figures_are_saved_by_suffix(tmp_path):
    made = figure(width_cm=5, height_cm=4)
    save(made, tmp_path / "new" / "a.png")
    save(made, tmp_path / "a.svg")
    with Image.open(tmp_path / "new" / "a.png") as image:
        np.testing.assert_allclose(image.size, [5 / 2.54 * 200, 4 / 2.54 * 200], atol=1)
    assert (tmp_path / "a.svg").read_text().startswith("<?xml")
    with pytest.raises(DataError, match="jpg"):
        save(made, tmp_path / "a.jpg")


def test_a_diverging_scale_is_symmetric_around_its_center():
    scale = color_scale([np.array([-1.0, 5.0, np.nan])], center=2, clip=0.0)
    assert (scale.norm.vmin, scale.norm.vmax) == (-1.0, 5.0)
    scale = color_scale([np.array([1.0, 5.0])], center=2, clip=0.0)
    assert (scale.norm.vmin, scale.norm.vmax) == (-1.0, 5.0)
    assert scale.cmap.name == DIVERGING


def test_a_scale_leaves_outliers_beyond_its_ends_and_says_so():
    values = np.append(np.linspace(0, 1, 1000), 1e6)
    scale = color_scale([values])
    assert scale.norm.vmax < 1.01
    assert scale.extend == "both"
    assert color_scale([values], clip=0.0).extend == "neither"
    assert scale.cmap.name == SEQUENTIAL


@pytest.mark.parametrize("values", [np.full((2, 2), np.nan), np.zeros((2, 2)), np.full((2, 2), -7.0)])
@pytest.mark.parametrize("center", [None, 0])
def test_a_scale_of_nothing_or_of_a_constant_has_a_range(values, center):
    scale = color_scale([values], center=center)
    assert scale.norm.vmin < scale.norm.vmax
    assert scale.extend == "neither"


def pixels(made):
    with Image.open(io.BytesIO(to_png_bytes(made))) as image:
        return np.asarray(image.convert("RGB")).reshape(-1, 3)


def test_missing_cells_are_gray_and_named_only_where_there_are_any():
    gray = np.array([int(MISSING[i : i + 2], 16) for i in (1, 3, 5)])
    gappy = FIELDS[0].copy()
    gappy[2:6] = np.nan
    for field, expected in ((gappy, True), (FIELDS[0], False)):
        made = field_rows([{"truth": field}])
        assert ((pixels(made) == gray).all(axis=1).mean() > 0.05) == expected
        assert ("missing" in to_svg(made)) == expected
    values = generator.normal(size=(18, 36))
    values[3:9] = np.nan
    assert "missing" in to_svg(globe(values, LATITUDE, LONGITUDE))


def scales_of(made):
    return {axes.get_title(): axes.images[0].norm for axes in made.axes if axes.images}


def test_values_share_a_scale_and_errors_another():
    rows = [{"error": FIELDS[0] * 0.1, "truth": FIELDS[1] * 100, "answer": FIELDS[2]}]
    norms = scales_of(field_rows(rows))
    assert list(norms) == ["truth", "answer", "error"]
    assert norms["truth"] is norms["answer"]
    assert norms["error"].vmax == -norms["error"].vmin < 1


def test_rows_may_lack_a_column_and_many_columns_take_the_whole_page():
    made = field_rows([dict.fromkeys("abcde", FIELDS[0]), {"a": FIELDS[1]}])
    assert made.get_size_inches()[0] * 2.54 == pytest.approx(FULL_CM)
    assert sum(len(axes.images) for axes in made.axes) == 6


def test_a_globe_is_turned_so_that_each_cell_stays_at_its_longitude():
    values = np.zeros((18, 36))
    values[16, 20] = 5.0  # 75 N, 205 E
    made = globe(values, LATITUDE, LONGITUDE)
    image = made.axes[0].images[0]
    west, east, south, north = image.get_extent()
    assert (west, east, south, north) == (-180.0, 180.0, -90.0, 90.0)
    row, column = np.argwhere(np.asarray(image.get_array()) == 5.0)[0]
    assert south + (row + 0.5) * 10 == 75.0
    assert west + (column + 0.5) * 10 == 205.0 - 360.0


def test_marks_on_the_globe_lie_in_its_longitudes_and_are_in_the_legend():
    made = globe(
        np.zeros((18, 36)),
        LATITUDE[::-1],
        LONGITUDE,
        markers={"here": np.array([[10.0, 350.0]])},
        rectangles={"box": [(-20.0, 0.0, 190.0, 200.0)]},
    )
    axes = made.axes[0]
    np.testing.assert_allclose(axes.collections[0].get_offsets(), [[-10.0, 10.0]])
    assert axes.patches[0].get_xy() == (-170.0, -20.0)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["here", "box"]


@pytest.mark.parametrize("longitude", [np.zeros(36), np.geomspace(1, 300, 36)])
def test_uneven_coordinates_are_refused(longitude):
    with pytest.raises(DataError, match="longitude"):
        globe(np.zeros((18, 36)), LATITUDE, longitude)


def test_a_dot_is_filled_only_where_the_interval_excludes_zero():
    made = bars([score("yes", 0.4, 0.3, 0.5), score("no", 0.1, -0.1, 0.3), score("unknown", 0.2, np.nan, np.nan)])
    dots = [line for line in made.axes[0].lines if line.get_marker() == "o"]
    assert [dot.get_markerfacecolor() == "white" for dot in dots] == [False, True, True]


def test_bars_draw_one_panel_per_group_and_name_the_unit():
    scores = [score("a", 50.0, 40.0, 60.0, metric="accuracy", group=group, unit="%") for group in ("1-nn", "linear")]
    made = bars(scores, metric="accuracy")
    assert [axes.get_title() for axes in made.axes] == ["1-nn", "linear"]
    assert "accuracy [%]" in to_svg(made)
    with pytest.raises(DataError, match=r"expected metric 'skill', got \['accuracy'\]"):
        bars(scores)


def test_a_logarithmic_curve_leaves_out_what_has_no_logarithm():
    made = curves({"a": (np.arange(3.0), np.array([1.0, 0.0, -1.0]))}, xlabel="x", ylabel="y", log=True)
    np.testing.assert_array_equal(made.axes[0].lines[0].get_ydata(), [1.0, np.nan, np.nan])


def test_thumbnails_do_not_overlap_and_the_outermost_is_shown():
    places = generator.normal(size=(200, 2))
    chosen = spread_out(places, (0.5, 0.3))
    assert len(chosen) > 10
    assert np.argmax(np.linalg.norm(places - np.median(places, axis=0), axis=1)) in chosen
    for first in chosen:
        for second in chosen:
            if first != second:
                dx, dy = np.abs(places[first] - places[second])
                assert dx >= 0.5 or dy >= 0.3


def test_thumbnails_as_drawn_do_not_overlap():
    made = embedding_map(generator.normal(size=(12, 2)), thumbnails=FIELDS, labels=np.arange(12) % 3)
    made.draw_without_rendering()
    boxes = [image.get_window_extent() for image in made.axes[0].images]
    assert len(boxes) > 3
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: field_rows([]), "nothing to draw"),
        (lambda: field_rows([{"a": FIELDS}]), "expected a field"),
        (lambda: field_rows([{"a": FIELDS[0]}], labels=["x", "y"]), "one label per row"),
        (lambda: curves({}, xlabel="x", ylabel="y"), "at least one line"),
        (lambda: curves({"a": (np.zeros(3), np.zeros(2))}, xlabel="x", ylabel="y"), "of one length"),
        (lambda: embedding_map(np.zeros((3, 2)), labels=np.zeros(3), values=np.zeros(3)), "got both"),
        (lambda: embedding_map(np.full((3, 2), np.nan)), "all of them finite"),
        (lambda: embedding_map(np.zeros((3, 2)), labels=np.zeros(2)), "labels for 3 points"),
        (lambda: neighbor_strip(FIELDS[:1], FIELDS[None, :2], np.zeros((1, 2)), [["a"]]), "captions for 1 x 2"),
    ],
)
def test_what_cannot_be_drawn_is_refused(draw, message):
    with pytest.raises(DataError, match=message):
        draw()
