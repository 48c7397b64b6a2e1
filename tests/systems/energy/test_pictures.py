import functools
import io
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from matplotlib.axis import Axis
from matplotlib.text import Text
from PIL import Image

from gridloom.core.errors import DataError
from gridloom.core.system import Drawing
from gridloom.systems.energy import pictures
from gridloom.systems.energy.pictures.accuracy import convex_hull, inside_hull
from gridloom.systems.energy.pictures.frame import Plane, density
from gridloom.viz.style import COLUMN_CM, to_png_bytes, to_svg

BOUNDS = np.array([[-1.0, -1.0], [1.0, 1.0]])
AXIS = np.linspace(-1, 1, 41)
IMAGE = np.ones((24, 32, 3))
IMAGE[5:12, 10:17, [0, 2]] = 0.0
TARGET = np.array([[2 * 8 / 23 - 1, 2 * 13 / 31 - 1]])


def bowl(row: float, column: float) -> np.ndarray:
    """Energy over the plane with its minimum at a point of the grid."""
    return 8 * (np.abs(AXIS[:, None] - row) + np.abs(AXIS[None] - column))


def assert_printable(drawing: Drawing) -> None:
    """Nine centimeters wide as PNG, all text within the figure and large enough; as SVG of bearable size."""
    made = drawing.figure
    picture = Image.open(io.BytesIO(to_png_bytes(made)))
    assert picture.size[0] == pytest.approx(COLUMN_CM / 2.54 * 200, abs=1)
    edge = made.bbox
    unseen = _unseen(made)
    texts = [t for t in made.findobj(Text) if t.get_visible() and t.get_text().strip() and t not in unseen]
    assert texts
    for text in texts:
        box = text.get_window_extent()
        outside = min(box.x0 - edge.x0, box.y0 - edge.y0, edge.x1 - box.x1, edge.y1 - box.y1)
        assert outside >= -1, f"{text.get_text()!r} ends {-outside:.0f} dots beyond the figure"
        assert text.get_fontsize() >= 6.5, text.get_text()
    assert drawing.caption.endswith(".")
    vector = to_svg(made)
    ElementTree.fromstring(vector)
    assert len(vector) < 400_000


def _unseen(made) -> set[Text]:
    """Numbers of ticks beyond the ends of their axes: matplotlib keeps them and does not draw them."""
    found = set()
    for axis in made.findobj(Axis):
        low, high = sorted(axis.get_view_interval())
        margin = 1e-6 * (high - low)
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
            if not low - margin <= tick.get_loc() <= high + margin:
                found |= {tick.label1, tick.label2}
    return found


def curve(**changes) -> Drawing:
    y = np.linspace(-1.2, 1.2, 121)
    energy = np.stack(
        [
            6 * np.abs(y - 0.3),
            30 * (y**2 - 0.25) ** 2 - 0.2 * (y > 0),
        ]
    )
    energy[:, 0] = -99.0  # beyond the bounds
    given = {
        "y": y,
        "energy": energy,
        "target": np.array([[0.32, np.nan], [-0.5, 0.5]]),
        "bounds": np.array([-1.0, 1.0]),
        "names": ["one well", "two wells"],
        "signal": np.sin(np.linspace(0, 9, 100))[None].repeat(2, 0),
    } | changes
    y, energy = given.pop("y"), given.pop("energy")
    return pictures.energy_curve(y, energy, **given)


def landscape(**changes) -> Drawing:
    given = {
        "image": [IMAGE, IMAGE],
        "energy": np.stack([bowl(-0.3, -0.15), bowl(0.5, 0.5)]),
        "bounds": BOUNDS,
        "target": np.stack([np.vstack([TARGET, [[np.nan, np.nan]]]), np.array([[0.5, 0.5], [-0.5, -0.5]])]),
        "minimum": np.array([[-0.3, -0.15], [0.5, 0.5]]),
        "second": np.array([[0.1, 0.1], [-0.5, -0.5]]),
    } | changes
    image, energy = given.pop("image"), given.pop("energy")
    return pictures.energy_landscape(image, energy, **given)


def keypoints(**changes) -> Drawing:
    maps = np.zeros((5, 24, 32))
    maps[0, 8, 13] = 50.0
    maps[1, 7:10, 12:15] = 9.0
    maps[2] = np.random.default_rng(0).normal(size=(24, 32))
    maps[3, 8, 13], maps[3, 20, 29] = 20.0, 20.0
    weights = np.exp(maps - maps.max((1, 2), keepdims=True))
    weights /= weights.sum((1, 2), keepdims=True)
    rows, columns = np.linspace(-1, 1, 24), np.linspace(-1, 1, 32)
    expected = np.stack([weights.sum(2) @ rows, weights.sum(1) @ columns], axis=-1)
    given = {"image": IMAGE, "maps": maps, "weights": weights, "expected": expected} | changes
    return pictures.soft_argmax(given.pop("image"), given.pop("maps"), given.pop("weights"), **given)


def contrast(**changes) -> Drawing:
    rng = np.random.default_rng(0)
    gaps = {0: 0.0, 50: 2.0, 75: 5.0, 100: 40.0}
    given = {
        "positive": {step: rng.normal(size=60) for step in gaps},
        "negative": {step: rng.normal(gap, size=400) for step, gap in gaps.items()},
        "distance": {step: rng.uniform(0, 2, 400) for step in gaps},
        "steps": np.arange(1, 101),
        "loss": np.linspace(5, 1, 100),
        "separation": np.linspace(0, 40, 100),
        "validation": np.where(np.arange(100) % 10 == 9, 3.0, np.nan),
        "guessing": float(np.log1p(128)),
    } | changes
    return pictures.info_nce(given.pop("positive"), given.pop("negative"), **given)


def path(**changes) -> Drawing:
    rng = np.random.default_rng(0)
    candidates = [np.clip(TARGET + scale * rng.normal(size=(50, 2)), -1, 1) for scale in (1.0, 0.3, 0.1)]
    given = {
        "image": IMAGE,
        "energy": bowl(-0.3, -0.15),
        "bounds": BOUNDS,
        "candidates": candidates,
        "energies": [np.abs(part - TARGET).sum(1) for part in candidates],
        "target": TARGET,
        "noise": [0.0, 0.3, 0.1],
        "others": {
            "derivative-free": (np.array([50, 100, 150]), np.array([2.0, 1, 0.5]), np.array([3.0, 1, 0.2])),
            "pattern search": (np.array([40, 80]), np.array([1.5, 0.4]), np.array([2.0, 0.0])),
        },
    } | changes
    return pictures.optimization(given.pop("image"), given.pop("energy"), **given)


def fused(**changes) -> Drawing:
    positions, candidates = np.linspace(-0.8, 0.8, 33), np.linspace(-1, 1, 41)
    straight = 20 * np.abs(candidates - positions[:, None])
    bent = 10 * np.abs(candidates - np.clip(positions, -0.4, 0.4)[:, None])
    given = {
        "surface": bowl(-0.3, -0.15),
        "lines": {"relative": straight, "concat": bent},
        "bounds": BOUNDS,
        "size": (24, 32),
        "positions": positions,
        "candidates": candidates,
        "train": np.array([-0.4, 0.1, 0.4]),
    } | changes
    return pictures.fusion(given.pop("surface"), given.pop("lines"), **given)


def trained_1d(**changes) -> Drawing:
    u, y = np.linspace(-0.2, 1, 49), np.linspace(-1, 1, 81)
    root = np.sqrt(np.maximum(u, 0))[:, None]
    learned = 30 * np.minimum(np.abs(y - root), np.abs(y + root) + 0.01)
    train_u = np.linspace(0, 1, 30)
    given = {
        "u": u,
        "y": y,
        "energy": {0: np.zeros((49, 81)), 10: 0.2 * learned, 100: learned},
        "train": (np.tile(train_u, 2), np.concatenate([np.sqrt(train_u), -np.sqrt(train_u)])),
        "curve": (np.arange(100), np.linspace(5, 1, 100)),
        "explicit": np.zeros(49),
    } | changes
    return pictures.train_1d(given.pop("u"), given.pop("y"), given.pop("energy"), **given)


def trained_2d(**changes) -> Drawing:
    rng = np.random.default_rng(0)
    given = {
        "train": np.array([[-0.5, -0.5], [-0.5, 0.5], [0.5, 0.5], [0.5, -0.5], [0.0, 0.0]]),
        "test": rng.uniform(-1, 1, (100, 2)),
        "error": np.concatenate([np.full(90, 0.1), np.full(10, 7.0)]),
        "size": (32, 32),
        "examples": (np.full((4, 32, 32, 3), 0.8), TARGET.repeat(4, 0), TARGET.repeat(4, 0) + 0.1),
        "curves": (np.arange(50), np.linspace(5, 1, 50), np.where(np.arange(50) % 9 == 8, 0.5, np.nan)),
        "explicit_error": np.full(100, 2.0),
    } | changes
    return pictures.train_2d(given.pop("train"), given.pop("test"), given.pop("error"), **given)


def over_examples(**changes) -> Drawing:
    given = {
        "examples": np.array([5, 10, 30]),
        "errors": {
            "energy": np.array([[1.0, 2.0, 9.0], [0.3, 0.2, 0.1], [0.02, 0.03, np.nan]]),
            "squared error": np.array([[8.0], [4.0], [1.0]]),
        },
    } | changes
    return pictures.error_over_examples(given.pop("examples"), given.pop("errors"), **given)


@functools.cache
def drawn(draw) -> Drawing:
    """The drawing of the arguments that each function above has, made once."""
    return draw()


DRAW = [curve, landscape, keypoints, contrast, path, fused, trained_1d, trained_2d, over_examples]


@pytest.mark.parametrize("draw", DRAW)
def test_picture_fits_a_column_and_renders(draw):
    assert_printable(drawn(draw))


def test_pictures_without_optional_parts_fit_a_column():
    y = np.linspace(-1, 1, 50)
    plain = {"names": None, "signal": None, "y": y, "energy": y[None] ** 2, "target": np.array([[0.1]])}
    assert_printable(curve(**plain))
    single = {"image": IMAGE[..., 0], "energy": bowl(0, 0), "target": TARGET, "minimum": TARGET[0], "second": None}
    assert_printable(landscape(**single, extent=np.array([[60.0, -20.0], [40.0, 10.0]]), unit="degrees"))


def test_minimum_of_a_curve_lies_in_the_bounds_and_is_compared_with_the_nearest_target():
    data = drawn(curve).data
    np.testing.assert_allclose(data["minimum"], [0.3, 0.5], atol=1e-9)
    np.testing.assert_allclose(data["error"], [0.02, 0.0], atol=1e-9)


def test_density_is_exp_of_minus_energy_over_its_integral():
    data = drawn(curve).data
    inside = (data["y"] >= -1) & (data["y"] <= 1)
    slow = np.exp(-data["energy"][:, inside])
    slow /= np.trapezoid(slow, data["y"][inside])[:, None]
    np.testing.assert_allclose(data["density"][:, inside], slow, rtol=1e-9)
    assert (data["density"][:, ~inside] == 0).all()


def test_density_of_large_energies_stays_finite():
    y = np.linspace(-1, 1, 11)
    assert np.trapezoid(density(1e5 * np.abs(y[None]), y), y) == pytest.approx(1.0)


def test_landscape_measures_in_cells_to_the_nearest_target():
    data = drawn(landscape).data
    np.testing.assert_allclose(data["grid_minimum"], [[-0.3, -0.15], [0.5, 0.5]], atol=1e-9)
    expected = np.hypot((-0.3 - TARGET[0, 0]) * 23 / 2, (-0.15 - TARGET[0, 1]) * 31 / 2)
    np.testing.assert_allclose(data["error"], [expected, 0.0], atol=1e-9)


def test_image_and_energy_share_orientation_and_extent():
    extent = np.array([[60.0, -20.0], [40.0, 10.0]])
    single = {"image": IMAGE, "energy": bowl(0, 0), "target": TARGET, "minimum": TARGET[0], "second": None}
    made = landscape(**single, extent=extent, unit="degrees").figure
    left, right = made.axes[:2]
    assert left.get_xlim() == right.get_xlim()
    assert left.get_ylim() == right.get_ylim()
    bottom, top = left.get_ylim()
    assert bottom < 40 < 60 < top  # north is up, as the first row is
    bottom, top = landscape(**single).figure.axes[0].get_ylim()
    assert bottom == pytest.approx(23.5)
    assert top == pytest.approx(-0.5)  # rows run downward


def test_coordinates_of_corners_are_centers_of_corner_cells():
    plane = Plane.of((24, 32))
    np.testing.assert_allclose(plane.place(BOUNDS), [[0, 0], [23, 31]])
    assert plane.distance(BOUNDS[0], BOUNDS[1]) == pytest.approx(np.hypot(23, 31))


def test_certainty_of_a_map_is_told_by_entropy_peak_and_deviation():
    data = drawn(keypoints).data
    assert data["entropy"][0] == pytest.approx(0, abs=1e-6)
    assert data["entropy"][4] == pytest.approx(1)
    assert data["peak"][0] == pytest.approx(1)
    assert data["deviation"][0] < 0.01 < data["deviation"][1] < 3 < data["deviation"][3]
    assert data["chosen"][0] == 0
    assert data["chosen"][-1] == 4
    np.testing.assert_allclose(Plane.of((24, 32)).place(data["expected"][:2]), [[8, 13], [8, 13]], atol=0.1)
    np.testing.assert_allclose(Plane.of((24, 32)).place(data["expected"][3]), [14, 21], atol=0.1)


def test_chosen_channels_are_drawn_in_their_order():
    data = keypoints(chosen=[3, 1]).data
    assert data["chosen"].tolist() == [3, 1]
    assert data["maps"].shape == (2, 24, 32)


def test_separated_energies_have_an_auc_of_one_and_no_overlap():
    data = drawn(contrast).data
    assert data["snapshots"].tolist() == [0, 75, 100] or data["snapshots"].tolist() == [0, 50, 100]
    assert data["auc"][-1] == 1
    assert data["overlap"][-1] == 0
    assert data["auc"][0] == pytest.approx(0.5, abs=0.1)
    assert data["guessing"] == pytest.approx(np.log(129))


def test_gap_is_the_difference_of_the_means_and_densities_have_an_area_of_one():
    positive, negative = {0: np.array([1.0, 2.0, 2.0])}, {0: np.array([2.0, 3.0, 9.0, 40.0])}
    data = contrast(positive=positive, negative=negative, distance=None).data
    assert data["gap"][0] == pytest.approx(54 / 4 - 5 / 3)
    pairs = [(n > p) + 0.5 * (n == p) for n in negative[0] for p in positive[0]]
    assert data["auc"][0] == pytest.approx(np.mean(pairs))
    width = np.diff(data["bins"])
    for name in ("positive", "negative"):
        assert (data[name][0] * width).sum() == pytest.approx(1)


def test_near_negatives_are_half_of_all():
    data = drawn(contrast).data
    width = np.diff(data["bins"])
    assert (data["near"] * width).sum() / len(data["snapshots"]) == pytest.approx(0.5, abs=0.01)


def test_way_of_the_best_candidate_is_that_of_the_lowest_energies():
    drawing = drawn(path)
    assert drawing.data["best"].shape == (3, 2)
    assert drawing.data["evaluations"].tolist() == [50, 100, 150]
    assert drawing.data["deviation"][0] > drawing.data["deviation"][1] > drawing.data["deviation"][2]
    assert drawing.data["best_distance"].min() < 1
    np.testing.assert_array_equal(drawing.data["pattern search_energy"], [1.5, 0.4])


def test_optimization_moves_through_all_iterations():
    animation = drawn(path).animation
    assert animation is not None
    moving = Image.open(io.BytesIO(animation))
    assert moving.format == "GIF"
    assert moving.n_frames == 3


def test_ridge_tells_extrapolation_beyond_the_hull():
    data = drawn(fused).data
    np.testing.assert_allclose(data["hull"], [-0.4, 0.4])
    assert data["outside_relative"] < 0.5 < data["outside_concat"]
    assert data["inside_concat"] == pytest.approx(data["inside_relative"], abs=0.01)
    np.testing.assert_allclose(data["minimum"], [-0.3, -0.15], atol=1e-9)
    assert (data["lines_relative"].min(1) == 0).all()


def test_lowest_energy_follows_two_branches_that_a_mean_cannot():
    data = drawn(trained_1d).data
    assert data["argmin_distance"][-1] < 0.05 < 0.3 < data["explicit_distance"]
    assert data["density"].shape == (3, 49, 81)
    np.testing.assert_allclose(np.trapezoid(data["density"][-1], data["y"]), 1.0)
    assert data["inside"].tolist() == [0, 1]


def test_share_below_one_cell_and_hull_come_from_the_points():
    data = drawn(trained_2d).data
    assert data["count"].tolist() == [90, 0]
    np.testing.assert_allclose(data["share"], [0.9, 0.0])
    np.testing.assert_allclose(data["mean"], [0.79, 2.0])
    assert len(data["hull"]) == 4
    square = (np.abs(data["test"]) <= 0.5).all(1)
    np.testing.assert_array_equal(data["in_hull"], square)


def test_points_on_a_line_have_no_inside():
    hull = convex_hull(np.array([[0.0, 0.0], [0.5, 0.5], [1.0, 1.0]]))
    assert not inside_hull(np.array([[0.5, 0.5]]), hull).any()


def test_error_over_examples_is_the_median_over_seeds_that_there_are():
    data = drawn(over_examples).data
    np.testing.assert_allclose(data["energy_median"], [2.0, 0.2, 0.025])
    np.testing.assert_allclose(data["energy_high"], [9.0, 0.3, 0.03])
    assert data["energy_seeds"].tolist() == [3, 3, 2]


@pytest.mark.parametrize(
    ("draw", "changes"),
    [
        (curve, {"y": np.linspace(-1, 1, 7)}),
        (curve, {"bounds": np.array([1.0, -1.0])}),
        (curve, {"names": ["one"]}),
        (landscape, {"bounds": BOUNDS[::-1]}),
        (landscape, {"minimum": np.zeros((3, 2)), "second": None}),
        (landscape, {"image": [IMAGE, IMAGE[:5]]}),
        (keypoints, {"weights": np.ones((5, 24, 32))}),
        (keypoints, {"weights": np.ones((4, 24, 32))}),
        (keypoints, {"chosen": [5]}),
        (contrast, {"negative": {0: np.zeros(3)}}),
        (contrast, {"loss": np.zeros(3)}),
        (path, {"energies": [np.zeros(50)] * 2}),
        (path, {"noise": [0.1]}),
        (fused, {"lines": {"relative": np.zeros((3, 3))}}),
        (fused, {"line": "depth"}),
        (trained_1d, {"energy": {0: np.zeros((3, 3))}}),
        (trained_1d, {"explicit": np.zeros(3)}),
        (trained_2d, {"error": np.zeros(3)}),
        (trained_2d, {"test": np.zeros((100, 3))}),
        (over_examples, {"errors": {}}),
        (over_examples, {"errors": {"energy": np.full((3, 2), np.nan)}}),
    ],
)
def test_what_does_not_belong_together_is_refused_in_one_line(draw, changes):
    with pytest.raises(DataError, match=r"^nothing drawn: expected [^\n]+$"):
        draw(**changes)
