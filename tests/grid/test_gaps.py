"""Gap-shaped masks: the ones that published figures stand on, and never a cell without an observation."""

import numpy as np
import pytest

from gridloom.core.errors import ConfigError, DataError
from gridloom.grid.gaps import hide_blocks, hide_cells, hide_frames, mask_digest, transplant_gaps
from gridloom.grid.samples import open_sample


@pytest.fixture(scope="module")
def observed():
    names = {"ostia": "surface_temperature", "a1b": "air_temperature", "ssta": "sst"}
    return {sample: np.isfinite(open_sample(sample)[name].values) for sample, name in names.items()}


@pytest.fixture
def cloudy():
    """Land that never has data, and clouds three times long."""
    generator = np.random.default_rng(1)
    seen = np.ones((20, 12, 15), dtype=bool)
    for time in range(0, 20, 5):
        y, x = generator.integers(8), generator.integers(10)
        seen[time : time + 3, y : y + 4, x : x + 5] = False
    seen[:, :2, :3] = False
    return seen


def hide_40_percent(seen):
    return hide_cells(seen, share=0.4)


@pytest.mark.parametrize(
    ("sample", "hide", "digest"),
    [
        ("ostia", hide_blocks, "62721366da9d804c"),
        ("ostia", hide_frames, "638ca917abb2ee39"),
        ("ostia", hide_40_percent, "ccadcb9bebbc16a4"),
        ("a1b", hide_blocks, "9581e917d1ccd284"),
        ("a1b", hide_frames, "9d73146ff5329103"),
        ("ssta", hide_blocks, "ab06cd771caa837b"),
        ("ssta", hide_frames, "9369407611ec1785"),
        ("ssta", hide_40_percent, "91f0a3c5ca64ee55"),
    ],
)
def test_masks_are_those_of_the_known_figures(observed, sample, hide, digest):
    assert mask_digest(hide(observed[sample])) == digest


@pytest.mark.parametrize(
    "hide", [hide_blocks, hide_frames, hide_40_percent, lambda seen: transplant_gaps(seen, share=0.1)]
)
def test_only_observed_cells_are_hidden(cloudy, hide):
    hidden = hide(cloudy)
    assert hidden.any() and not (hidden & ~cloudy).any()


@pytest.mark.parametrize("hide", [hide_blocks, transplant_gaps])
def test_the_share_is_reached_but_hardly_exceeded(cloudy, hide):
    share = hide(cloudy, share=0.2, seed=3)[cloudy].mean()
    assert 0.2 <= share < 0.2 + 3 * 4 * 5 / cloudy.sum()


def test_boxes_have_the_size_that_is_asked():
    hidden = hide_blocks(np.ones((9, 9, 9), dtype=bool), share=0.0001, box=(1, 2, 3), seed=5)
    assert hidden.sum(axis=0).max() == 1 and hidden.any((0, 2)).sum() <= 2 and hidden.any((0, 1)).sum() <= 3


def test_frames_are_whole_and_spare_the_ends(cloudy):
    hidden = hide_frames(cloudy, share=0.8, seed=2)
    times = hidden.any((1, 2))
    assert times.sum() == 16 and not times[[0, -1]].any()
    np.testing.assert_array_equal(hidden[times], cloudy[times])


def test_transplanted_gaps_have_the_shape_of_the_gaps_of_other_times(cloudy):
    hidden = transplant_gaps(cloudy, share=0.02, seed=4)
    gaps = ~cloudy & cloudy.any(axis=0)
    for frame, seen in zip(hidden, cloudy, strict=True):
        assert not frame.any() or any(np.array_equal(frame, gap & seen) for gap in gaps)


def test_other_seeds_hide_other_cells(cloudy):
    digests = {mask_digest(hide(cloudy, share=0.2, seed=s)) for s in (0, 1) for hide in (hide_blocks, transplant_gaps)}
    assert len(digests) == 4


def test_what_cannot_be_hidden_is_refused():
    seen = np.ones((6, 3, 3), dtype=bool)
    with pytest.raises(ConfigError, match=r"between 0 and 1, got 1\.5"):
        hide_blocks(seen, share=1.5)
    with pytest.raises(ConfigError, match="three sizes of 1 or more"):
        hide_blocks(seen, box=(0, 1, 1))
    with pytest.raises(ConfigError, match="1 to 4 of 6 times"):
        hide_frames(seen, share=0.1)
    with pytest.raises(DataError, match="got none"):
        hide_cells(~seen, share=0.1)
    with pytest.raises(DataError, match="gaps that change"):
        transplant_gaps(seen, share=0.1)
