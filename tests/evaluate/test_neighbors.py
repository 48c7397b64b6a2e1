"""Exact search and projection."""

import numpy as np
import pytest

from gridloom.core.errors import DataError
from gridloom.evaluate import exact
from gridloom.evaluate.neighbors import mean_pairwise, nearest, project

generator = np.random.default_rng(0)
ITEMS = generator.normal(size=(50, 7)).astype("float32")
QUERIES = generator.normal(size=(9, 7)).astype("float32")


def similarities(metric):
    items, queries = ITEMS.astype(float), QUERIES.astype(float)
    if metric == "euclidean":
        return -np.sqrt(((queries[:, None] - items[None]) ** 2).sum(-1))
    return np.array([[q @ i / np.linalg.norm(q) / np.linalg.norm(i) for i in items] for q in queries])


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_neighbors_equal_a_slow_search_whatever_the_block_size(metric, monkeypatch):
    expected = similarities(metric)
    order = np.argsort(-expected, axis=1)[:, :6]
    for rows, columns in ((16_384, 256), (12, 4), (1, 1)):
        monkeypatch.setattr(exact, "_ROWS", rows)
        monkeypatch.setattr(exact, "_QUERIES", columns)
        indices, found = nearest(ITEMS, QUERIES, 6, metric=metric)
        np.testing.assert_array_equal(indices, order)
        np.testing.assert_allclose(found, np.take_along_axis(expected, order, axis=1), atol=1e-12)


def test_cosine_ignores_length_and_euclidean_does_not():
    scaled = ITEMS * np.linspace(0.1, 10, 50)[:, None].astype("float32")
    np.testing.assert_array_equal(nearest(scaled, QUERIES, 3)[0], nearest(ITEMS, QUERIES, 3)[0])
    assert (
        nearest(scaled, QUERIES, 3, metric="euclidean")[0] != nearest(ITEMS, QUERIES, 3, metric="euclidean")[0]
    ).any()


def test_an_item_finds_itself_unless_excluded():
    own = np.arange(50)
    for metric in ("cosine", "euclidean"):
        assert (nearest(ITEMS, ITEMS, 1, metric=metric)[0][:, 0] == own).all()
        assert (nearest(ITEMS, ITEMS, 49, metric=metric, exclude=own)[0] != own[:, None]).all()


def test_near_duplicates_far_from_the_origin_are_told_apart():
    items = 1e4 + np.array([[0.0], [0.01], [0.02]])
    indices, similarity = nearest(items, items[1:2] + 0.002, 1, metric="euclidean")
    assert indices[0, 0] == 1
    assert similarity[0, 0] == pytest.approx(-0.002, abs=1e-4)


def test_a_vector_of_zeros_is_similar_to_nothing():
    np.testing.assert_array_equal(nearest(ITEMS, np.zeros((1, 7)), 3)[1], 0.0)


@pytest.mark.parametrize(
    ("items", "queries", "k", "message"),
    [
        (ITEMS, QUERIES[:, :3], 1, "queries have 3 features, the embeddings 7"),
        (ITEMS, QUERIES, 51, "between 1 and the 50 items"),
        (ITEMS, QUERIES * np.nan, 1, "queries: 9 rows are not finite"),
    ],
)
def test_what_cannot_be_searched_is_refused(items, queries, k, message):
    with pytest.raises(DataError, match=message):
        nearest(items, queries, k)


def test_mean_pairwise_equals_the_mean_of_all_pairs():
    unit = ITEMS.astype(float) / np.linalg.norm(ITEMS.astype(float), axis=1, keepdims=True)
    pairs = (unit @ unit.T)[~np.eye(50, dtype=bool)]
    assert mean_pairwise(ITEMS) == pytest.approx(pairs.mean(), abs=1e-9)
    assert mean_pairwise(np.ones((4, 3))) == pytest.approx(1.0)


def test_projection_keeps_distances_of_a_plane_and_its_signs():
    plane = generator.normal(size=(30, 2)) @ generator.normal(size=(2, 6)) + 3.0
    points = project(plane)
    between = np.linalg.norm(plane[:, None] - plane[None], axis=-1)
    np.testing.assert_allclose(np.linalg.norm(points[:, None] - points[None], axis=-1), between, atol=1e-9)
    np.testing.assert_allclose(project(plane[::-1].copy())[::-1], points, atol=1e-9)
    assert points[:, 0].var() >= points[:, 1].var()


def test_projection_pads_what_is_too_narrow():
    points = project(np.arange(5.0)[:, None], 2)
    assert points.shape == (5, 2)
    np.testing.assert_array_equal(points[:, 1], 0.0)
