"""Search over embeddings: against slow float64 loops, with coordinates, without what overlaps."""

import sys

import numpy as np
import pytest
import xarray as xr

from gridloom.core.errors import ConfigError, DataError
from gridloom.encoders.index import EmbeddingIndex, open_embeddings
from gridloom.grid.write import save_grid

BACKENDS = ("exact", "faiss-flat")
WIDTH = 6


def grid(*, empty=(7,), seed=0):
    """Embeddings of windows of 4 x 4 cells, moved by 2, on four days; some are empty."""
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(4, 5, 6, WIDTH)).astype("float32")
    values.reshape(-1, WIDTH)[list(empty)] = np.nan
    days = np.array(["2020-01-01", "2020-01-02", "2020-01-20", "2020-02-01"], dtype="datetime64[ns]")
    return xr.DataArray(
        values,
        dims=("time", "lat", "lon", "feature"),
        coords={
            "time": days,
            "lat": ("lat", [-20.0, -10, 0, 10, 20], {"units": "degrees_north"}),
            "lon": ("lon", [0.0, 60, 120, 180, 240, 300], {"units": "degrees_east"}),
            "cell_time": ("time", np.arange(4)),
            "cell_lat": ("lat", np.arange(5) * 2),
            "cell_lon": ("lon", np.arange(6) * 2),
            "missing_share": (("time", "lat", "lon"), np.isnan(values[..., 0]).astype("float32")),
        },
        attrs={"encoder_sha256": "a" * 64, "system": "semantic", "window_time": 1, "window_lat": 4, "window_lon": 4},
    )


def similarities(rows, metric):
    rows = rows.astype(np.float64)
    if metric == "euclidean":
        return -np.sqrt(((rows[:, None] - rows[None]) ** 2).sum(-1))
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300)
    return unit @ unit.T


def places(embeddings):
    """Day, row and column of each window."""
    return np.stack(np.unravel_index(np.arange(embeddings.size // WIDTH), embeddings.shape[:-1]), axis=1)


def overlap(embeddings, one, other):
    day, down, across = np.abs(places(embeddings)[one] - places(embeddings)[other])
    return day == 0 and down < 2 and across < 2


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_neighbors_are_those_of_a_slow_loop_without_itself_empty_rows_and_overlapping_windows(metric, backend):
    embeddings = grid(empty=(7, 30))
    index = EmbeddingIndex(embeddings, metric=metric, backend=backend)
    assert len(index) == 118 and index.num_left_out == 2
    found = index.search_rows(index.rows, 4)
    between = similarities(np.nan_to_num(embeddings.values.reshape(-1, WIDTH)), metric)
    for place, row in enumerate(index.rows):
        allowed = [other for other in index.rows if not overlap(embeddings, row, other)]
        best = sorted(allowed, key=lambda other: -between[row, other])[:4]
        np.testing.assert_array_equal(found["found_row_number"][place], best)
        value = found["similarity"] if metric == "cosine" else -found["distance"]
        np.testing.assert_allclose(value[place], between[row, best], atol=1e-12)
    assert np.array_equal(found["query_lat"], embeddings["lat"].values[places(embeddings)[index.rows, 1]])
    assert np.array_equal(
        found["found_time"], embeddings["time"].values[places(embeddings)[found["found_row_number"], 0]]
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_overlapping_windows_are_found_on_request_but_never_the_query_itself(backend):
    embeddings = grid()
    embeddings[0, 2, 3] = embeddings[0, 2, 2] * 2
    index = EmbeddingIndex(embeddings, backend=backend)
    row = int(index.places.find({"time": "2020-01-01", "lat": 0, "lon": 120})[0])
    found = index.search_rows([row], 200, overlapping=True)
    assert found["found_lon"][0, 0] == 180 and found["similarity"][0, 0] == pytest.approx(1, abs=1e-12)
    assert sorted(found["found_row_number"].values[0]) == [other for other in index.rows if other != row]
    assert 180 not in index.search_rows([row], 1)["found_lon"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_apart_leaves_out_what_is_close_along_every_dimension_named(backend):
    index = EmbeddingIndex(grid(), backend=backend)
    row = int(index.places.find({"time": "2020-01-02", "lat": 0, "lon": 0})[0])
    found = index.search_rows([row], 200, overlapping=True, apart={"time": "5D", "lon": 70})
    near_time = np.isin(found["found_time"].values, grid()["time"].values[:2])
    near_lon = np.isin(found["found_lon"].values, [0, 60, 300])  # the longitudes close the circle
    assert not (near_time & near_lon).any() and near_time.any() and near_lon.any()
    assert found.sizes["rank"] == 119 - (2 * 5 * 3 - 1)


def test_where_fewer_are_left_the_rest_is_missing():
    embeddings = grid(empty=range(2, 120)).assign_coords(name=("lat", list("abcde")))
    found = EmbeddingIndex(embeddings).search_rows([0, 1], 3, overlapping=False)
    assert found.sizes["rank"] == 0
    far = embeddings.copy()
    far[3, 4, 5] = 1.0
    found = EmbeddingIndex(far).search(far[:1, :1], 3, apart={"time": "1h", "lon": 90})
    np.testing.assert_array_equal(found["found_row_number"], [[119], [119]])
    found = EmbeddingIndex(far).search(far[[0, 3]], 3, apart={"time": "1D"})
    np.testing.assert_array_equal(found["found_row_number"], [[119, -1], [119, -1], sorted_by(far)])
    assert np.isnan(found["similarity"][0, 1]) and np.isnan(found["found_lat"][0, 1])
    assert np.isnat(found["found_time"].values[0, 1]) and found["found_name"][0, 1] == ""


def sorted_by(far):
    rows = far.values.reshape(-1, WIDTH)
    return sorted((0, 1), key=lambda row: -(rows[row] @ rows[119]) / np.linalg.norm(rows[row]))


@pytest.mark.parametrize("backend", BACKENDS)
def test_k_may_exceed_the_rows_and_one_row_is_enough(backend):
    one = EmbeddingIndex(np.ones((1, 3)), backend=backend)
    found = one.search(np.array([[2.0, 2, 2], [0, 0, 0]]), 5)
    np.testing.assert_allclose(found["similarity"], [[1.0], [0.0]], atol=1e-12)
    assert one.search_rows([0], 5).sizes["rank"] == 0
    assert one.outliers().sizes["rank"] == 0 and one.duplicates(0.5).sizes["duplicate"] == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_identical_rows_are_found_in_order(backend):
    rows = np.tile(np.random.default_rng(0).normal(size=13), (40, 1)).astype("float32")
    index = EmbeddingIndex(rows, backend=backend)
    found = index.search_rows([3], 39)
    np.testing.assert_array_equal(found["found_row_number"][0], [row for row in range(40) if row != 3])
    np.testing.assert_allclose(found["similarity"], 1.0, atol=1e-12)


def test_a_single_embedding_is_a_query_and_its_place_is_told():
    embeddings = grid()
    found = EmbeddingIndex(embeddings).search(embeddings[1, 2, 3], 119, apart={"time": "3D"})
    assert found["query_time"].values == embeddings["time"].values[1:2] and found["query_lon"].values == [180]
    assert found.sizes["rank"] == 60 and (found["found_time"] >= np.datetime64("2020-01-20")).all()


def test_stacked_embeddings_are_searched_as_the_grid_they_come_from(tmp_path):
    embeddings = grid()
    stacked = embeddings.stack(window=("time", "lat", "lon")).transpose("window", "feature").dropna("window")
    rows = EmbeddingIndex(embeddings).rows
    whole, found = EmbeddingIndex(embeddings).search_rows(rows, 3), EmbeddingIndex(stacked).search_rows(range(119), 3)
    np.testing.assert_array_equal(rows[found["found_row_number"]], whole["found_row_number"])
    for name in ("query_time", "found_time", "found_lat", "found_lon"):
        np.testing.assert_array_equal(found[name], whole[name])
    save_grid(found, tmp_path / "found.nc")


def test_search_does_not_change_or_copy_what_it_is_given():
    rows = np.random.default_rng(0).normal(size=(20, 4)).astype("float32")
    before = rows.copy()
    index = EmbeddingIndex(rows)
    assert np.shares_memory(index._values, rows)
    index.search(rows[:3])
    np.testing.assert_array_equal(rows, before)
    foreign = rows.astype(">f4")[::-1]
    foreign.setflags(write=False)
    np.testing.assert_array_equal(EmbeddingIndex(foreign).search(rows[:3], 1)["found_row_number"][:, 0], [19, 18, 17])


def test_lists_of_faiss_find_most_of_the_neighbors():
    generator = np.random.default_rng(0)
    rows = (generator.normal(size=(4000, 8)) @ generator.normal(size=(8, 32))).astype("float32")
    exact = EmbeddingIndex(rows).search(rows[:50], 5)["found_row_number"].values
    lists = EmbeddingIndex(rows, backend="faiss-ivf").search(rows[:50], 5)["found_row_number"].values
    assert np.mean([len(np.intersect1d(a, b)) / 5 for a, b in zip(exact, lists, strict=True)]) > 0.9


@pytest.mark.parametrize("backend", BACKENDS)
def test_much_may_be_hidden(backend):
    rows = np.random.default_rng(0).normal(size=(600, 4)) + np.repeat(np.eye(4) * 9, 150, axis=0)
    index = EmbeddingIndex(rows, backend=backend)
    found = index.search_rows(range(0, 600, 7), 5, apart={"item": 200})
    between = similarities(rows, "cosine")
    for query, row in enumerate(range(0, 600, 7)):
        allowed = np.flatnonzero(np.abs(np.arange(600) - row) >= 200)
        np.testing.assert_array_equal(found["found_row_number"][query], allowed[np.argsort(-between[row, allowed])[:5]])


def test_without_faiss_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ConfigError, match=r"pip install 'gridloom\[search\]'"):
        EmbeddingIndex(grid(), backend="faiss-flat")


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_without_duplicates_none_as_near_is_left_and_each_names_the_first(metric):
    generator = np.random.default_rng(3)
    values = (np.round(generator.normal(size=(12, WIDTH)), 1)[generator.integers(0, 12, 120)]).reshape(4, 5, 6, WIDTH)
    embeddings = grid().copy(data=values)
    threshold = 0.6 if metric == "cosine" else 1.5
    found = EmbeddingIndex(embeddings, metric=metric).duplicates(threshold)
    between = similarities(values.reshape(-1, WIDTH), metric)
    near = between >= (threshold - 1e-12 if metric == "cosine" else -threshold - 1e-12)
    first = {}
    for row in range(120):
        for other in range(row):
            if other not in first and near[row, other] and not overlap(embeddings, row, other):
                first[row] = other
                break
    assert dict(zip(found["found_row_number"].values, found["first_row_number"].values, strict=True)) == first
    value = found["similarity"] if metric == "cosine" else -found["distance"]
    np.testing.assert_allclose(value, [between[pair] for pair in first.items()], atol=1e-12)
    assert np.array_equal(found["first_lat"], embeddings["lat"].values[places(embeddings)[list(first.values()), 1]])


def test_exact_copies_are_found_at_the_strictest_threshold():
    rows = np.random.default_rng(0).normal(size=(30, 9)).astype("float32")
    rows[20:25] = rows[3:8]
    for metric, threshold in (("cosine", 1.0), ("euclidean", 0.0)):
        found = EmbeddingIndex(rows, metric=metric).duplicates(threshold)
        np.testing.assert_array_equal(found["found_row_number"], range(20, 25))
        np.testing.assert_array_equal(found["first_row_number"], range(3, 8))


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_outliers_are_the_rows_farthest_from_their_kth_neighbor(metric):
    embeddings = grid()
    index = EmbeddingIndex(embeddings, metric=metric)
    found = index.outliers(6, k=3)
    between = similarities(np.nan_to_num(embeddings.values.reshape(-1, WIDTH)), metric)
    score = {}
    for row in index.rows:
        third = sorted(-between[row, other] for other in index.rows if not overlap(embeddings, row, other))[2]
        score[row] = third + (metric == "cosine")
    worst = sorted(score, key=lambda row: -score[row])[:6]
    np.testing.assert_array_equal(found["found_row_number"], worst)
    np.testing.assert_allclose(found["score"], [score[row] for row in worst], atol=1e-12)


def test_a_stranger_is_an_outlier_though_it_has_a_companion():
    rows = np.random.default_rng(0).normal(size=(60, 4)) * 0.1 + 5
    rows[[10, 40]] = -3
    found = EmbeddingIndex(rows).outliers(2, k=2)
    assert set(found["found_row_number"].values) == {10, 40}


@pytest.mark.parametrize(
    ("question", "says"),
    [
        (lambda index: index.search(np.ones((2, 3))), "queries have 3 features, the embeddings 6"),
        (lambda index: index.search(np.ones(6)), r"expected an array \[rows, features\], got 1"),
        (lambda index: index.search(np.full((2, 6), np.nan)), "none of the 2 queries is finite"),
        (lambda index: index.search(np.ones((2, 6)), 0), "k must be at least 1, got 0"),
        (lambda index: index.search(np.full((1, 6), 1e30)), "length 2.45e.30 cannot be searched"),
        (lambda index: index.search_rows([7]), "row 7 is empty, there was nothing to encode"),
        (lambda index: index.search_rows([120]), "row 120 is none of the 120 rows"),
        (lambda index: index.search_rows([-1]), "row -1 is none of the 120 rows"),
        (lambda index: index.duplicates(1.5), "a cosine between -1 and 1, got 1.5"),
        (lambda index: index.outliers(0), "number of outliers must be at least 1"),
        (lambda index: index.search(grid().assign_attrs(encoder_sha256="b" * 64)), "of another encoder .bbbbbbbbbbbb."),
        (lambda index: EmbeddingIndex(np.full((3, 2), np.nan)), "none of the 3 embeddings is finite"),
        (lambda index: EmbeddingIndex(np.array([["a"]])), "expected embeddings that are numbers"),
        (lambda index: EmbeddingIndex(grid().rename(feature="f")), "expected embeddings with a dimension `feature`"),
    ],
)
def test_what_cannot_be_searched_is_refused(question, says):
    with pytest.raises(DataError, match=says):
        question(EmbeddingIndex(grid()))


def test_embeddings_that_do_not_say_who_made_them_are_searched_with_a_warning(caplog):
    index = EmbeddingIndex(grid())
    index.search(grid())
    assert "2 of 240" not in caplog.text and "1 of 120 queries are empty" in caplog.text
    assert "not known whether one encoder made both" not in caplog.text
    index.search(grid().assign_attrs(encoder_sha256=""))
    assert "not known whether one encoder made both" in caplog.text


def test_results_and_embeddings_survive_a_file(tmp_path):
    save_grid(grid().to_dataset(name="embedding"), tmp_path / "embeddings.zarr")
    index = EmbeddingIndex.open(tmp_path / "embeddings.zarr")
    for name, found in (
        ("near.nc", index.search_rows([0, 1], 3)),
        ("same.zarr", index.duplicates(0.9999)),
        ("odd.nc", index.outliers(2)),
    ):
        save_grid(found, tmp_path / name)
        with xr.open_dataset(tmp_path / name) as read:
            assert read.load().equals(found)
    save_grid(grid().to_dataset(name="a").rename(feature="f"), tmp_path / "data.nc")
    with pytest.raises(DataError, match=r"data\.nc: expected embeddings .* got a; make them with gridloom encode"):
        open_embeddings(tmp_path / "data.nc")
    with pytest.raises(DataError, match=r"^the dataset: expected embeddings"):
        open_embeddings(grid().to_dataset(name="a").rename(feature="f"))
