"""Blocks and intervals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridloom.core.errors import DataError
from gridloom.evaluate.bootstrap import MIN_BLOCKS, block_ids, paired_block_bootstrap


@settings(max_examples=30, deadline=None)
@given(size=st.integers(0, 300), num_blocks=st.integers(1, 40))
def test_blocks_are_contiguous_and_of_like_size(size, num_blocks):
    ids = block_ids(size, num_blocks)
    assert len(ids) == size
    assert np.all(np.isin(np.diff(ids), [0, 1]))
    if size:
        sizes = np.bincount(ids)
        assert len(sizes) == min(size, num_blocks)
        assert sizes.max() - sizes.min() <= 1


def test_value_and_skill_are_those_of_the_whole():
    losses = np.array([[4.0, 8.0, 3.0, 6.0, 9.0], [2.0, 4.0, 1.5, 3.0, 4.5]])
    weights = np.array([2.0, 4.0, 1.0, 2.0, 3.0])
    found = paired_block_bootstrap(losses, weights, statistic=np.sqrt)
    np.testing.assert_allclose(found.statistic.value, [np.sqrt(30 / 12), np.sqrt(15 / 12)])
    np.testing.assert_allclose(found.skill.value, [0.0, 0.5])


def test_a_constant_ratio_has_an_interval_of_no_width_because_draws_are_paired():
    losses = np.random.default_rng(0).gamma(1.0, size=30)
    found = paired_block_bootstrap(np.stack([losses, 0.7 * losses]), np.ones(30))
    np.testing.assert_allclose([found.skill.low[1], found.skill.high[1]], 0.3)
    assert found.statistic.high[1] - found.statistic.low[1] > 0.1


def test_interval_agrees_with_students_t():
    from scipy.stats import norm, t

    losses = 10.0 + norm.ppf((np.arange(12) + 0.5) / 12)[None]  # symmetric, so that percentiles are as good as t
    found = paired_block_bootstrap(losses, np.ones(12), num_draws=40_000)
    half = t.ppf(0.95, 11) * losses.std(ddof=1) / np.sqrt(12)
    np.testing.assert_allclose(found.statistic.low, losses.mean() - half, atol=0.06 * half)
    np.testing.assert_allclose(found.statistic.high, losses.mean() + half, atol=0.06 * half)


def test_interval_covers_the_true_mean_as_often_as_it_says():
    generator = np.random.default_rng(2)
    num_trials, hits = 400, 0
    for trial in range(num_trials):
        found = paired_block_bootstrap(generator.normal(3.0, 1.0, size=(1, 10)), np.ones(10), num_draws=400, seed=trial)
        hits += int(found.statistic.low[0] <= 3.0 <= found.statistic.high[0])
    assert abs(hits / num_trials - 0.90) < 0.045  # three standard deviations of the count


def test_skill_interval_covers_the_true_skill_as_often_as_it_says():
    generator = np.random.default_rng(3)
    num_trials, hits = 300, 0
    for trial in range(num_trials):
        hard = generator.gamma(4.0, size=25)  # shared by both methods
        reference = hard * generator.gamma(20.0, 1 / 20, size=25)
        model = 0.8 * hard * generator.gamma(20.0, 1 / 20, size=25)
        found = paired_block_bootstrap(np.stack([reference, model]), np.ones(25), num_draws=400, seed=trial)
        hits += int(found.skill.low[1] <= 0.2 <= found.skill.high[1])
    assert abs(hits / num_trials - 0.90) < 0.055


def test_cells_of_one_block_are_not_taken_as_independent():
    generator = np.random.default_rng(4)
    cells = np.repeat(generator.normal(size=20), 50)  # 1000 cells, 20 independent values
    per_cell = paired_block_bootstrap(cells[None], np.ones(1000)).statistic
    blocks = cells.reshape(20, 50).sum(axis=1)[None]
    per_block = paired_block_bootstrap(blocks, np.full(20, 50.0)).statistic
    assert (per_block.high - per_block.low)[0] > 5 * (per_cell.high - per_cell.low)[0]


def test_few_blocks_have_no_interval():
    found = paired_block_bootstrap(np.ones((2, MIN_BLOCKS - 1)), np.ones(MIN_BLOCKS - 1))
    assert found.num_blocks == 0
    assert np.isnan(found.skill.low).all()
    assert np.isnan(found.statistic.high).all()
    np.testing.assert_array_equal(found.statistic.value, 1.0)


def test_blocks_without_weight_are_left_out():
    losses = np.array([[1.0, 0.0, 2.0, 3.0, 0.0, 4.0, 5.0]])
    weights = np.array([1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0])
    kept = weights > 0
    whole, part = paired_block_bootstrap(losses, weights), paired_block_bootstrap(losses[:, kept], weights[kept])
    assert whole.num_blocks == 5
    np.testing.assert_array_equal(whole.statistic.low, part.statistic.low)


def test_skill_against_a_faultless_reference_is_zero_or_undefined():
    found = paired_block_bootstrap(np.stack([np.zeros(8), np.zeros(8), np.ones(8)]), np.ones(8))
    for ends in (found.skill.value, found.skill.low, found.skill.high):
        np.testing.assert_array_equal(ends, [0.0, 0.0, np.nan])


def test_skill_has_no_interval_where_some_draws_leave_it_undefined():
    reference = np.zeros(8)
    reference[0] = 1.0  # a third of the draws miss this block
    found = paired_block_bootstrap(np.stack([reference, np.ones(8)]), np.ones(8))
    assert found.skill.value[1] == -7.0
    assert np.isnan(found.skill.low[1])
    assert (found.skill.low[0], found.skill.high[0]) == (0.0, 0.0)


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    losses = np.random.default_rng(5).gamma(1.0, size=(1, 30))
    first, again, other = (paired_block_bootstrap(losses, np.ones(30), seed=seed).statistic.low for seed in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    ("losses", "weights", "message"),
    [([[np.nan]], [1.0], "must be finite"), ([[1.0]], [0.0], "no block has a cell")],
)
def test_bad_losses_are_refused(losses, weights, message):
    with pytest.raises(DataError, match=message):
        paired_block_bootstrap(np.array(losses), np.array(weights))
