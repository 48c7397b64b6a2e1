"""Keyed randomness: a function of (key, stream, position), and random by every test that is cheap."""

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gridloom.core import random
from gridloom.core.random import choose, epoch_order, mix, normal, permutation, stream_id, uniform, window_keys

KEYS = window_keys(0, 0, range(2000))
MASK = (1 << 64) - 1

PINNED_KEYS = [6875110694074790513, 1922885564889143652]
PINNED_UNIFORM = [[0.005118846893310547, 0.9117969870567322], [0.4206097722053528, 0.4953237771987915]]
PINNED_NORMAL = [0.4761854838937901, 0.3366412998595066, -1.4653008532826821, -0.07362675365235952]
PINNED_PERMUTATION = [[4, 0, 3, 1, 2, 5], [2, 0, 1, 3, 5, 4]]
PINNED_ORDER = [1, 0, 3, 5, 4, 7, 6, 2]
PINNED_STREAM = 4377148964241295795


def slow_mix(value: int) -> int:
    """SplitMix64's finalizer in whole numbers, from the paper."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


def signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


@settings(max_examples=30, deadline=None)
@given(value=st.integers(-(2**63), 2**63 - 1))
def test_mix_equals_the_published_function(value: int) -> None:
    assert mix(torch.tensor([value])).item() == signed(slow_mix(value & MASK))


def test_the_first_outputs_of_splitmix64_are_the_known_ones() -> None:
    golden = 0x9E3779B97F4A7C15
    states = torch.tensor([signed((i * golden) & MASK) for i in (1, 2, 3)])
    known = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert mix(states).tolist() == [signed(value) for value in known]


def test_the_numbers_are_pinned() -> None:
    """A change here changes every run that was ever made: masks, negatives, orders."""
    key = window_keys(7, 3, [0, 11])
    assert key.tolist() == PINNED_KEYS
    assert uniform(key, (2,), "mask").tolist() == PINNED_UNIFORM
    assert normal(key, (2,), "noise", dtype=torch.float64).flatten().tolist() == pytest.approx(PINNED_NORMAL, rel=1e-12)
    assert permutation(key, 6, "order").tolist() == PINNED_PERMUTATION
    assert epoch_order(7, 3, 8).tolist() == PINNED_ORDER
    assert stream_id("mask") == PINNED_STREAM


DRAWS = {
    "uniform": lambda key: uniform(key, (3, 2), "a"),
    "normal": lambda key: normal(key, (3, 2), "a"),
    "permutation": lambda key: permutation(key, 9, "a"),
    "choose": lambda key: choose(key, 9, 4, "a"),
}


@pytest.mark.parametrize("name", DRAWS)
def test_a_sample_draws_the_same_alone_and_in_any_company(name: str) -> None:
    draw, keys = DRAWS[name], KEYS[:16]
    together = draw(keys)
    assert torch.equal(torch.cat([draw(keys[i : i + 1]) for i in range(16)]), together)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(1))
    assert torch.equal(draw(keys[order]), together[order])


@pytest.mark.parametrize("name", DRAWS)
def test_the_global_generator_is_neither_read_nor_moved(name: str) -> None:
    torch.manual_seed(1)
    before, first = torch.get_rng_state(), DRAWS[name](KEYS[:4])
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(DRAWS[name](KEYS[:4]), first)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_uniform_numbers_are_uniform_in_the_half_open_interval(dtype: torch.dtype) -> None:
    draws = uniform(KEYS, (50,), "u", dtype=dtype)
    assert draws.dtype == dtype and draws.shape == (2000, 50)
    assert draws.min() >= 0 and draws.max() < 1
    flat = draws.double().flatten().numpy()
    assert flat.mean() == pytest.approx(0.5, abs=4 / np.sqrt(12 * flat.size))
    assert flat.var() == pytest.approx(1 / 12, abs=0.001)
    assert scipy.stats.kstest(flat, "uniform").pvalue > 1e-3
    assert scipy.stats.kstest(draws[:, 0].double().numpy(), "uniform").pvalue > 1e-3
    assert np.unique(flat).size > 0.99 * flat.size


def test_the_largest_and_smallest_bits_stay_in_the_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = torch.tensor([[-1, 0]])  # all bits set, none set
    monkeypatch.setattr(random, "_bits", lambda key, shape, stream: ends.expand(*shape) if len(shape) == 2 else ends)
    for dtype, bits in ((torch.float32, 24), (torch.float64, 53)):
        assert uniform(KEYS[:1], (2,), "u", dtype=dtype).tolist() == [[1 - 2.0**-bits, 0.0]]


def test_normal_numbers_are_standard_normal() -> None:
    draws = normal(KEYS, (50,), "n", dtype=torch.float64).flatten().numpy()
    assert np.isfinite(draws).all()
    assert draws.mean() == pytest.approx(0, abs=4 / np.sqrt(draws.size))
    assert draws.var() == pytest.approx(1, abs=0.02)
    assert scipy.stats.kstest(draws, "norm").pvalue > 1e-3
    assert normal(KEYS[:1], (3,), "n").dtype == torch.float32


def test_every_place_of_a_permutation_is_as_likely() -> None:
    orders = permutation(KEYS, 6, "p")
    assert torch.equal(orders.sort(dim=1).values, torch.arange(6).expand(2000, 6))
    for place in range(6):
        assert scipy.stats.chisquare(np.bincount(orders[:, place].numpy(), minlength=6)).pvalue > 1e-3
    codes = (orders[:, :3] * torch.tensor([36, 6, 1])).sum(1).numpy()
    counts = np.bincount(codes, minlength=216)
    assert scipy.stats.chisquare(counts[counts > 0]).pvalue > 1e-3 and (counts > 0).sum() == 120


def test_streams_samples_epochs_and_seeds_are_independent() -> None:
    ours = uniform(KEYS, (20,), "a", dtype=torch.float64).flatten().numpy()
    bound = 4 / np.sqrt(ours.size)
    others = {
        "stream": uniform(KEYS, (20,), "b", dtype=torch.float64),
        "epoch": uniform(window_keys(0, 1, range(2000)), (20,), "a", dtype=torch.float64),
        "seed": uniform(window_keys(1, 0, range(2000)), (20,), "a", dtype=torch.float64),
        "neighbor": uniform(KEYS.roll(1), (20,), "a", dtype=torch.float64),
        "position": uniform(KEYS, (20,), "a", dtype=torch.float64).roll(1, dims=1),
    }
    for name, other in others.items():
        assert abs(np.corrcoef(ours, other.flatten().numpy())[0, 1]) < bound, name


def test_a_longer_draw_begins_with_the_shorter_one() -> None:
    assert torch.equal(uniform(KEYS[:3], (10,), "a")[:, :4], uniform(KEYS[:3], (4,), "a"))


@pytest.mark.parametrize("shape", [(), (0,), (1,), (2, 0), (2, 3, 4)])
def test_a_draw_has_the_shape_asked(shape: tuple[int, ...]) -> None:
    assert uniform(KEYS[:5], shape, "a").shape == (5, *shape)
    assert normal(KEYS[:5], shape, "a").shape == (5, *shape)
    assert uniform(KEYS[:0], shape, "a").shape == (0, *shape)


@pytest.mark.parametrize("count", [0, 1, 5, 9])
def test_choose_takes_exactly_as_many_as_asked(count: int) -> None:
    chosen = choose(KEYS[:200], 9, count, "c")
    assert chosen.dtype == torch.bool and chosen.sum(1).tolist() == [count] * 200
    assert choose(KEYS, 9, 3, "c").double().mean(0).tolist() == pytest.approx([1 / 3] * 9, abs=0.05)


@pytest.mark.parametrize("count", [-1, 10])
def test_choose_refuses_more_than_there_are(count: int) -> None:
    with pytest.raises(ValueError, match=rf"count must be between 0 and size \(=9\), got {count}"):
        choose(KEYS[:2], 9, count, "c")


def test_keys_differ_by_seed_epoch_and_window_and_do_not_collide() -> None:
    seeds, epochs = (-(2**63), -5, -1, 0, 1, 2**63 - 1), (0, 1, 2, 10**12, 2**62)
    keys = torch.cat([window_keys(seed, epoch, range(100)) for seed in seeds for epoch in epochs])
    assert keys.unique().numel() == len(seeds) * len(epochs) * 100


def test_windows_may_come_as_any_kind_of_sequence() -> None:
    expected = window_keys(3, 1, [4, 3, 2])
    frozen = np.array([4, 3, 2])
    frozen.setflags(write=False)
    for windows in ((4, 3, 2), range(4, 1, -1), np.array([4, 3, 2], np.int32), torch.tensor([4, 3, 2]), frozen):
        assert torch.equal(window_keys(3, 1, windows), expected)
    assert torch.equal(window_keys(3, 1, np.arange(2, 5)[::-1]), expected)
    assert window_keys(3, 1, []).shape == (0,)


def test_an_epoch_goes_through_every_window_once_in_an_order_of_its_own() -> None:
    orders = [epoch_order(5, epoch, 100) for epoch in range(20)]
    assert all(np.array_equal(np.sort(order), np.arange(100)) for order in orders)
    assert len({order.tobytes() for order in orders}) == 20
    assert np.array_equal(epoch_order(5, 3, 100), orders[3])
    assert not np.array_equal(epoch_order(6, 3, 100), orders[3])
    assert epoch_order(5, 0, 1).tolist() == [0]


def test_the_name_of_a_stream_gives_the_same_number_everywhere() -> None:
    numbers = {name: stream_id(name) for name in ("mask", "negatives", "noise", "", "Maske ü")}
    assert len(set(numbers.values())) == 5
    assert all(0 <= number < 2**63 for number in numbers.values())
