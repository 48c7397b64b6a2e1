import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridloom.core.errors import DataError
from gridloom.grid.statistics import Moments


def of(values, valid=None):
    moments = Moments()
    moments.update(np.asarray(values), valid)
    return moments


def test_large_mean_small_deviation_is_exact_in_chunks_and_over_parts():
    values = np.random.default_rng(0).normal(1e4, 0.1, size=100_000).astype(np.float32)
    exact = values.astype(np.float64)
    parts = [Moments() for _ in range(3)]
    for index, chunk in enumerate(np.array_split(values, 30)):
        parts[index % 3].update(chunk)
    merged = parts[0].merge(parts[1]).merge(parts[2])
    assert merged.count == 100_000
    assert merged.mean == pytest.approx(exact.mean(), rel=1e-12)
    assert merged.variance == pytest.approx(exact.var(), rel=1e-9)
    assert (merged.minimum, merged.maximum) == (exact.min(), exact.max())


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.lists(st.one_of(st.floats(-1e6, 1e6), st.just(math.nan)), max_size=8), min_size=1, max_size=6),
)
def test_chunks_give_what_the_whole_gives(chunks):
    moments = Moments()
    for chunk in chunks:
        moments.update(np.array(chunk, dtype=np.float64))
    whole = np.array([value for chunk in chunks for value in chunk if not math.isnan(value)])
    assert moments.count == len(whole)
    if len(whole):
        assert moments.mean == pytest.approx(whole.mean(), rel=1e-9, abs=1e-6)
        assert moments.std == pytest.approx(whole.std(), rel=1e-6, abs=1e-6)


def test_missing_masked_and_infinite_values_are_left_out():
    values = np.array([[1.0, np.nan, 3.0], [np.inf, 5.0, 100.0]])
    moments = of(values, np.array([[True, True, True], [True, True, False]]))
    assert (moments.count, moments.mean, moments.maximum) == (3, 3.0, 5.0)


def test_merging_changes_neither_and_nothing_merges_to_nothing():
    left, right = of([1.0, 2.0]), of([10.0])
    assert left.merge(right).count == 3 and left.count == 2 and right.count == 1
    assert left.merge(Moments()).mean == 1.5 and Moments().merge(left).variance == 0.25
    empty = Moments().merge(Moments())
    assert empty.count == 0 and all(map(math.isnan, (empty.mean, empty.std, empty.minimum, empty.maximum)))


def test_equal_values_have_variance_zero_exactly():
    moments = Moments()
    for _ in range(7):
        moments.update(np.full(11, 0.1, dtype=np.float32))
    assert moments.variance == 0.0


def test_integers_and_foreign_byte_order_are_taken():
    assert of(np.array([250, 251], dtype=np.uint8)).mean == 250.5
    assert of(np.array([1, 2], dtype=">f4")).mean == 1.5


def test_moments_survive_json():
    for moments in (of([1.0, 2.5, np.nan]), Moments()):
        back = Moments.from_json(json.loads(json.dumps(moments.to_json(), allow_nan=False)))
        assert back.to_json() == moments.to_json()


@pytest.mark.parametrize("record", [{}, {"count": 2}, {"count": 0, "mean": 1.0}, {**of([1.0]).to_json(), "mean": "x"}])
def test_a_foreign_record_is_refused(record):
    with pytest.raises(DataError, match="moments: expected"):
        Moments.from_json(record)
