"""What is hidden: exact counts, only where data are, from the samples' keys alone."""

import pytest
import torch
from torch import Tensor

from gridloom.core.random import uniform, window_keys
from gridloom.systems.crossmae.masking import STRATEGIES, choose_share, dirichlet_shares, draw_masks, transplant
from tests.systems.crossmae.small import pick

KEY = window_keys(0, 0, range(6))
LAYOUTS = {"a": (4, 5), "b": (3, 1)}
SHARES = {"a": 0.6, "b": 0.3}


def data(observed: float = 0.7, size: int = 6) -> dict[str, Tensor]:
    return {"a": pick(size, 8, 20, share=observed), "b": pick(size, 4, 3, share=observed, seed=1)}


def draw(*strategies: str, has_data: dict[str, Tensor] | None = None, key: Tensor = KEY, **others):
    return draw_masks(key, has_data or data(), LAYOUTS, others.pop("shares", SHARES), strategies, **others)


@pytest.mark.parametrize("strategy", ["random", "tube", "time", "blocks"])
def test_a_strategy_hides_exactly_its_share_of_the_patches_with_data(strategy: str) -> None:
    has_data = data()
    has_data["a"][2] = False  # absent
    masks, drawn = draw(strategy, has_data=has_data)
    assert not drawn.any()
    for name, share in SHARES.items():
        counts = has_data[name].flatten(1).sum(1)
        assert masks[name].flatten(1).sum(1).tolist() == [round(int(count) * share) for count in counts]
        assert not (masks[name] & ~has_data[name]).any()


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_a_mask_belongs_to_its_key_whatever_the_companions(strategy: str) -> None:
    has_data = data()
    together, _ = draw(strategy, has_data=has_data)
    again, _ = draw(strategy, has_data=has_data)
    for name in LAYOUTS:
        assert torch.equal(together[name], again[name])
        alone, _ = draw(strategy, has_data={n: v[3:4] for n, v in has_data.items()}, key=KEY[3:4])
        assert torch.equal(together[name][3:4], alone[name])
    other, _ = draw(strategy, has_data=has_data, key=window_keys(0, 1, range(6)))
    assert not torch.equal(together["a"], other["a"])


def test_tubes_hide_places_through_all_times_and_frames_hide_all_places() -> None:
    has_data = data(observed=1.1)
    tubes, frames = draw("tube", has_data=has_data)[0]["a"], draw("time", has_data=has_data)[0]["a"]
    assert set(tubes.sum(1).flatten().tolist()) == {0, 8}  # 12 of 20 places, at all 8 times
    assert ((frames.sum(2) > 0) & (frames.sum(2) < 20)).sum(1).le(1).all()  # 96 of 160: four whole times and a part
    assert frames.all(2).sum(1).tolist() == [4] * 6
    assert not torch.equal(tubes[0], tubes[1]) and not torch.equal(frames[0], frames[1])


def test_blocks_are_boxes_of_up_to_half_of_each_axis() -> None:
    ranks = STRATEGIES["blocks"](KEY, 8, (4, 5), "a").view(6, 8, 4, 5)
    seen = set()
    for sample in ranks.floor() == 0:
        where = sample.nonzero()
        low, high = where.min(0).values, where.max(0).values + 1
        assert int((high - low).prod()) == len(where)  # all of the box that holds them
        assert (high - low <= torch.tensor([4, 2, 3])).all()
        seen.add(tuple(low.tolist()))
    assert len(seen) > 1 and (ranks < 64).double().mean() > 0.7


def test_gaps_of_another_time_hide_observed_cells_alone() -> None:
    valid = pick(6, 5, 4, 3, share=0.6)
    moved = transplant(KEY, valid, "a", time_axis=0)
    assert moved.any() and not (moved & ~valid).any()
    for sample in range(6):
        shifts = [torch.equal(moved[sample], valid[sample] & ~valid[sample].roll(-by, 0)) for by in range(1, 5)]
        assert sum(shifts) == 1
    series = transplant(KEY, valid.transpose(1, 2), "a", time_axis=1)
    assert torch.equal(series.transpose(1, 2), moved)


def test_constant_gaps_and_single_times_transplant_nothing() -> None:
    assert not transplant(KEY, pick(6, 1, 4, 3).expand(-1, 5, -1, -1), "a", time_axis=0).any()
    assert not transplant(KEY, pick(6, 1, 4, 3), "a", time_axis=0).any()


@pytest.mark.parametrize("alpha", [0.3, 1.0, 50.0])
def test_a_dirichlet_spends_its_budget_exactly(alpha: float) -> None:
    shares = dirichlet_shares(window_keys(1, 0, range(400)), 3, 0.4, alpha)
    assert shares.min() >= 0 and shares.max() <= 1
    torch.testing.assert_close((1 - shares).sum(1), torch.full((400,), 1.2), rtol=0, atol=1e-6)
    torch.testing.assert_close((1 - shares).mean(0), torch.full((3,), 0.4), rtol=0, atol=0.06)


def test_a_larger_concentration_deals_more_equally() -> None:
    key = window_keys(1, 0, range(400))
    spreads = [dirichlet_shares(key, 3, 0.3, alpha).std().item() for alpha in (0.3, 1.0, 50.0)]
    assert spreads[0] > spreads[1] > 4 * spreads[2] > 0
    masks, _ = draw("dirichlet")
    counts = [(masks[name].flatten(1).sum(1) / data()[name].flatten(1).sum(1)).std() for name in LAYOUTS]
    assert min(counts) > 0.05


def test_a_whole_modality_is_hidden_and_the_other_by_its_share() -> None:
    has_data = data()
    masks, _ = draw("modality", has_data=has_data)
    whole = {name: (masks[name] == has_data[name]).flatten(1).all(1) for name in LAYOUTS}
    assert torch.equal(whole["a"], ~whole["b"]) and whole["a"].any() and whole["b"].any()
    counts = has_data["a"].flatten(1).sum(1)
    expected = torch.where(whole["a"], counts, (counts * 0.6).round().long())
    assert torch.equal(masks["a"].flatten(1).sum(1), expected)


@pytest.mark.parametrize("strategy", ["modality", "dirichlet", "random"])
def test_a_modality_without_a_share_stays_visible_whatever_the_strategy(strategy: str) -> None:
    masks, _ = draw(strategy, shares={"a": 0.6})
    assert not masks["b"].any() and masks["a"].any() and masks["b"].shape == (6, 4, 3)


def test_each_sample_draws_one_of_the_strategies() -> None:
    key = window_keys(0, 0, range(300))
    has_data = {name: torch.ones(300, *value.shape[1:], dtype=torch.bool) for name, value in data().items()}
    masks, drawn = draw("tube", "time", has_data=has_data, key=key)
    assert 0.4 < drawn.double().mean() < 0.6
    tubes = (masks["a"].sum(1) % 8 == 0).all(1)
    assert torch.equal(tubes, drawn == 0)


def test_no_share_hides_nothing_and_all_hides_everything() -> None:
    among = data()["a"]
    ranks = uniform(KEY, (8, 20), "ranks")
    assert not choose_share(ranks, among, torch.zeros(6)).any()
    assert torch.equal(choose_share(ranks, among, torch.ones(6)), among)
