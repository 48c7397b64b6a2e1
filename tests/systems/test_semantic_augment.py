import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from gridloom.core.batch import Field
from gridloom.core.errors import ConfigError
from gridloom.core.random import window_keys
from gridloom.systems.semantic import AugmentConfig, ContrastConfig, MaskConfig, SemanticConfig
from gridloom.systems.semantic.augment import augment, hide_blocks

NOTHING = AugmentConfig(zoom=1.0, gain=0.0, offset=0.0, noise=0.0, hide=0.0)
ALL = AugmentConfig(zoom=1.5, shift=0.1, rotate=20.0, warp=0.05, flip=True, gain=0.2, offset=0.2, noise=0.2, hide=0.2)
KEYS = window_keys(0, 0, range(4))


def values(count: int = 4, size: tuple[int, int] = (16, 24)) -> Tensor:
    return torch.randn(count, 2, *size, generator=torch.Generator().manual_seed(0))


def test_a_view_with_everything_left_out_is_the_window() -> None:
    field = Field.of(values())
    view = augment(field, KEYS, NOTHING, "a")
    assert torch.equal(view.values, field.values) and view.valid.all()


def test_a_view_depends_on_its_own_sample_alone() -> None:
    field = Field.of(values())
    whole = augment(field, KEYS, ALL, "a")
    alone = augment(Field.of(values()[2:3]), KEYS[2:3], ALL, "a")
    assert torch.equal(whole.values[2:3], alone.values) and torch.equal(whole.valid[2:3], alone.valid)
    other = augment(field, KEYS, ALL, "b")
    assert not torch.equal(whole.values, other.values)


@pytest.mark.parametrize("config", [ALL, AugmentConfig(rotate=90.0), AugmentConfig(shift=0.3)])
def test_what_hidden_cells_hold_reaches_no_view(config: AugmentConfig) -> None:
    x = values()
    valid = torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) > 0.4
    views = [augment(Field.of(torch.where(valid, x, hidden), valid), KEYS, config, "a") for hidden in (0.0, 1e6)]
    assert torch.equal(views[0].values, views[1].values) and torch.equal(views[0].valid, views[1].valid)
    assert views[0].valid.any() and not views[0].valid.all()
    assert not views[0].values[~views[0].valid].any()


def test_a_constant_field_stays_constant_where_it_is_known() -> None:
    x = torch.full((4, 1, 16, 16), 3.0)
    x[:, :, :5, :5] = torch.nan
    view = augment(Field.of(x), KEYS, replace(NOTHING, zoom=1.7, rotate=30.0, hide=0.3), "a")
    assert view.valid.float().mean() < 0.9
    assert torch.allclose(view.values[view.valid], torch.tensor(3.0), atol=1e-5)


def test_a_rotation_turns_cells_not_the_aspect_ratio() -> None:
    """A point off the center of a wide window stays at its distance in cells."""
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(64.0), indexing="ij")
    x = torch.exp(-((rows - 15.5) ** 2 + (columns - 23.5) ** 2) / 4)[None, None].expand(4, 1, 32, 64)
    view = augment(Field.of(x.clone()), KEYS, replace(NOTHING, rotate=80.0), "a")
    for sample in range(4):
        weight = view.values[sample, 0].clamp(min=0)
        place = [(weight * axis).sum() / weight.sum() for axis in (rows, columns)]
        assert math.dist(map(float, place), (15.5, 31.5)) == pytest.approx(8.0, abs=0.2)


def test_a_warp_moves_places_smoothly_and_no_further_than_asked() -> None:
    columns = torch.arange(64.0).expand(4, 1, 48, 64)
    rows = torch.arange(48.0)[:, None].expand(4, 1, 48, 64)
    view = augment(Field.of(torch.cat([columns, rows], 1)), KEYS, replace(NOTHING, warp=0.05), "a").values
    inner = (..., slice(6, -6), slice(6, -6))  # at the border cells come in from beyond
    moved = torch.stack([view[:, 0] - columns[:, 0], view[:, 1] - rows[:, 0]])[inner]
    assert moved.abs().amax() > 0.5
    for axis, size in enumerate((64, 48)):
        assert moved[axis].abs().amax() <= 0.05 * size * 1.35  # a cubic goes a little beyond its nodes
    assert moved.diff(dim=-1).abs().amax() < 0.7 and moved.diff(dim=-2).abs().amax() < 0.7  # nothing folds over
    assert not torch.allclose(moved[:, 0], moved[:, 1])


def test_holes_are_whole_blocks_in_all_channels_and_as_many_as_asked() -> None:
    field = hide_blocks(Field.of(values()), KEYS, 0.25, 8, "holes")
    hidden = ~field.valid
    assert torch.equal(hidden[:, 0], hidden[:, 1])
    blocks = hidden[:, 0].unflatten(1, (2, 8)).unflatten(3, (3, 8)).float().mean((2, 4))
    assert set(blocks.unique().tolist()) == {0.0, 1.0} and (blocks.sum((1, 2)) == round(0.25 * 6)).all()
    assert not torch.equal(hidden[0], hidden[1])


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: AugmentConfig(zoom=0.5), "zoom must be 1 or more, got 0.5"),
        (lambda: AugmentConfig(noise=-1.0), "noise must be 0 or more"),
        (lambda: AugmentConfig(warp=-0.1), "warp must be 0 or more"),
        (lambda: AugmentConfig(hide=1.0), "hide must be at least 0 and below 1"),
        (lambda: MaskConfig(share=1.0), "mask.share must be at least 0 and below 1"),
        (lambda: ContrastConfig(temperature=0.0), "temperature above 0"),
        (lambda: SemanticConfig(reconstruct=0.0), "or 0 with a contrast.weight"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        make()
