"""Moving digits: straight lines, walls, parts that share no digit, and the figures of dumb forecasts."""

import numpy as np
import pytest

from gridloom.core.errors import DataError
from gridloom.grid.moving_digits import moving_digits
from gridloom.grid.samples import open_sample


@pytest.fixture(scope="module")
def digits():
    return open_sample("moving-digits")


def test_the_sample_is_a_thousand_sequences_that_are_sessions(digits):
    assert dict(digits.sizes) == {"time": 20_000, "channel": 2, "y": 32, "x": 32}
    assert digits["counts"].dtype == np.uint8 and digits["counts"].attrs["count_cap"] == 255
    assert digits.attrs["pixel"] == "linear" and digits.attrs["num_slots"] == 20
    assert (np.bincount(digits["session"].values) == 20).all()
    assert digits["slot"].values[:41].tolist() == [*range(20), *range(20), 0]
    assert (np.diff(digits["time"].values) > np.timedelta64(0)).all()


def test_dumb_forecasts_have_figures_near_the_known_ones(digits):
    frames = (digits["counts"].values.reshape(1000, 20, 2, 32, 32)[800:] / 255).astype(np.float32)
    before, last, target = frames[:, :-2], frames[:, 1:-1], frames[:, 2:]
    line = np.clip(2 * last - before, 0, 1)
    for predicted, known in ((0 * last, 447), (last, 402), (line, 459)):
        assert float(np.mean((predicted - target) ** 2) * 1e4) == pytest.approx(known, rel=0.06)
    shifted = shift_like_before(before[::10], last[::10])
    assert float(np.mean((shifted - target[::10]) ** 2) * 1e4) == pytest.approx(195, rel=0.2)


def shift_like_before(before, last):
    """The last frame moved by the shift that brings the one before nearest to it."""
    best, answer = np.full(last.shape[:3], np.inf), np.zeros_like(last)
    for shift in np.ndindex(9, 9):
        shift = tuple(np.array(shift) - 4)
        error = np.square(np.roll(before, shift, (-2, -1)) - last).sum((-2, -1))
        better = error < best
        best[better] = error[better]
        answer[better] = np.roll(last, shift, (-2, -1))[better]
    return answer


def test_a_digit_keeps_its_ink_and_moves_at_its_speed(digits):
    frames = digits["counts"].values.reshape(1000, 20, 2, 32, 32)[::50].astype(np.float64)
    ink = frames.sum((-2, -1))
    assert (ink == ink[:, :1]).all() and (ink > 0).all()
    center = (frames * np.arange(32)[:, None]).sum((-2, -1)) / ink, (frames * np.arange(32)).sum((-2, -1)) / ink
    moves = np.stack([np.diff(part, axis=1) for part in center])
    assert np.allclose(moves, np.rint(moves)) and np.abs(moves).max() == pytest.approx(4)
    assert 2 < np.hypot(*moves).mean() < 2.8  # walls take some of the mean of 2.65


def test_training_and_test_share_no_digit():
    data = moving_digits(num_sequences=400, num_steps=1, seed=1)["counts"].values.reshape(-1, 32, 32)
    seen = [{_crop(frame) for frame in part} for part in (data[: 800 * 7 // 10], data[800 * 8 // 10 :])]
    assert len(seen[0]) > 300 and len(seen[1]) > 100
    assert len(seen[0] & seen[1]) <= 2  # the file has a few twins


def test_seeds_tell_sequences_apart_and_repeat_them():
    first, again, other = (moving_digits(num_sequences=10, num_steps=5, seed=seed)["counts"] for seed in (3, 3, 4))
    assert first.identical(again) and not first.equals(other)


def test_sequences_that_cannot_be_cut_into_tenths_are_refused():
    with pytest.raises(DataError, match="multiple of 10 sequences"):
        moving_digits(num_sequences=15)


def _crop(frame):
    rows, columns = np.flatnonzero(frame.any(1)), np.flatnonzero(frame.any(0))
    return frame[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].tobytes()
