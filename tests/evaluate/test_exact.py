"""The exact search itself: float32 only proposes."""

import numpy as np
import pytest
import torch

from gridloom.evaluate import exact
from gridloom.evaluate.exact import ExactSearch

METRICS = ["cosine", "euclidean"]


@pytest.fixture(params=[(16_384, 256), (17, 13)], ids=["one block", "many blocks"])
def blocks(request, monkeypatch):
    monkeypatch.setattr(exact, "_ROWS", request.param[0])
    monkeypatch.setattr(exact, "_QUERIES", request.param[1])


def similarities(queries, rows, metric):
    queries, rows = queries.astype(np.float64), rows.astype(np.float64)
    if metric == "euclidean":
        return -np.linalg.norm(queries[:, None] - rows[None], axis=-1)
    unit = [a / np.where((n := np.linalg.norm(a, axis=1, keepdims=True)) > 0, n, 1) for a in (queries, rows)]
    return unit[0] @ unit[1].T


def vectors(count, width=24, *, offset=0.0, seed=0):
    """Vectors around a point, one of them zero, one twice."""
    values = (np.random.default_rng(seed).normal(size=(count, width)) + offset).astype("float32")
    values[5] = 0
    values[9] = values[3]
    return values


@pytest.mark.parametrize("offset", [0.0, 30.0, 1e4])
@pytest.mark.parametrize("metric", METRICS)
def test_what_is_found_is_what_a_slow_search_in_float64_finds(metric, offset, blocks):
    rows, queries = vectors(200, offset=offset), vectors(40, offset=offset, seed=1)
    expected = similarities(queries, rows, metric)
    best = -np.sort(-expected, axis=1)[:, :7]
    index, similarity = ExactSearch(rows, metric).top(queries, 7)
    np.testing.assert_allclose(similarity, best, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(np.take_along_axis(expected, index, axis=1), best, rtol=1e-11, atol=1e-12)
    assert all(len(set(line)) == 7 for line in index.tolist())


@pytest.mark.parametrize(("metric", "step"), [("cosine", 1e-5), ("euclidean", 1e-9)])
def test_differences_that_float32_cannot_see_are_decided_in_float64(metric, step, blocks):
    rows = np.full((300, 3), 1.0)
    rows[:, 0] += np.random.default_rng(0).permutation(300) * step
    index, _ = ExactSearch(rows, metric).top(rows[:50], 3)
    order = np.argsort(rows[:, 0])
    place = np.argsort(order)[:50]
    assert (index[:, 0] == np.arange(50)).all()
    for line, at in enumerate(place):
        assert all(abs(np.flatnonzero(order == found)[0] - at) <= 2 for found in index[line])


@pytest.mark.parametrize("offset", [0.0, 1.0, 1e3])
@pytest.mark.parametrize("metric", METRICS)
def test_the_bound_of_the_rounding_holds_and_is_not_idle(metric, offset):
    rows, queries = vectors(500, 768, offset=offset), vectors(30, 768, offset=offset, seed=1)
    search = ExactSearch(rows, metric)
    centered = search.prepare(queries) - search._center
    every = slice(0, 500)
    error = (search._score(centered.float(), every).double() - search._score(centered, every)).abs().amax(dim=1)
    assert (error <= search._rounding(centered)).all()
    assert (search._rounding(centered) < 1e5 * error.max()).all()
    np.testing.assert_allclose(
        search._score(centered, every),
        search._as_score(torch.from_numpy(similarities(queries, rows, metric)).T, centered).T,
        atol=1e-9 * max(1.0, offset) ** 2,
    )


def test_a_coarser_matrix_product_is_known_to_be_coarser():
    search = ExactSearch(vectors(50), "cosine")
    centered = search.prepare(vectors(10, seed=1)) - search._center
    fine = search._rounding(centered)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        assert (search._rounding(centered) > 1e4 * fine).all()
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("metric", METRICS)
def test_hidden_pairs_are_not_found(metric, blocks):
    rows = vectors(60)
    index, similarity = ExactSearch(rows, metric).top(rows, 60, hidden=lambda query, row: (query + row) % 3 == 0)
    for query, line in enumerate(index):
        allowed = [row for row in range(60) if (query + row) % 3]
        assert sorted(line[line >= 0]) == allowed
        assert (similarity[query, len(allowed) :] == -np.inf).all()
        assert (np.diff(similarity[query, : len(allowed)]) <= 0).all()


@pytest.mark.parametrize(
    ("metric", "threshold"), [("cosine", 0.9), ("cosine", 1.0), ("euclidean", -1.0), ("euclidean", 0.0)]
)
@pytest.mark.parametrize("near", [0, 20])
def test_repeats_are_those_of_a_slow_loop(metric, threshold, near, blocks):
    generator = np.random.default_rng(1)
    rows = generator.normal(size=(40, 4))[generator.integers(0, 40, 200)]
    rows += generator.normal(size=(200, 4)) * 0.2 * generator.integers(0, 2, (200, 1))
    rows[[3, 7]] = 0
    between = similarities(rows, rows, metric)
    hidden = (lambda row, other: (row - other).abs() < near) if near else None
    first, similarity = ExactSearch(rows, metric).repeats(threshold, hidden=hidden)
    expected = np.full(200, -1)
    for row in range(200):
        for other in range(row):
            enough = between[row, other] >= threshold - 1e-12 and row - other >= near
            if enough and expected[other] < 0:
                expected[row] = other
                break
    np.testing.assert_array_equal(first, expected)
    found = expected >= 0
    assert 0 < found.sum() < 200 and np.isnan(similarity[~found]).all()
    np.testing.assert_allclose(similarity[found], between[found, expected[found]], atol=1e-12)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int16", ">f4"])
def test_every_real_dtype_is_taken(dtype):
    rows = (np.random.default_rng(0).normal(size=(30, 5)) * 10).astype(dtype)
    index, similarity = ExactSearch(rows, "euclidean").top(rows, 1)
    np.testing.assert_array_equal(rows[index[:, 0]], rows)
    np.testing.assert_array_equal(similarity, 0.0)


def test_vectors_of_any_length_that_float32_holds_have_a_cosine():
    rows = np.random.default_rng(0).normal(size=(60, 5))
    scaled = rows * 10.0 ** np.linspace(-44, 17, 60)[:, None]
    np.testing.assert_allclose(
        ExactSearch(scaled, "cosine").top(rows, 5)[1], ExactSearch(rows, "cosine").top(rows, 5)[1], atol=1e-12
    )
