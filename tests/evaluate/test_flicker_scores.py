"""Flicker scores: each against its formula on signals whose score is known."""

import numpy as np
import pytest
import torch

from gridloom.core.errors import DataError
from gridloom.evaluate.flicker import (
    bias_db,
    error_by_frame,
    error_db,
    flicker_scores,
    sharpness,
    temporal_variation_db,
    warp_error,
)

_NOISE = np.array([0.04, 0.25])


def _scene(num_frames: int = 200, size: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A picture that stands still, and the same with flicker."""
    draws = np.random.default_rng(seed)
    clean = np.broadcast_to(draws.normal(size=(1, 2, size, size)), (num_frames, 2, size, size)).copy()
    return clean, clean + draws.normal(size=clean.shape) * np.sqrt(_NOISE)[:, None, None]


def _blend(frames: np.ndarray, alpha: float) -> np.ndarray:
    state, blended = frames[0], [frames[0]]
    for frame in frames[1:]:
        state = alpha * state + (1 - alpha) * frame
        blended.append(state)
    return np.stack(blended)


def test_input_scores_zero_in_every_channel_whatever_its_noise():
    clean, noisy = _scene()
    assert abs(error_db(noisy, clean, _NOISE)) < 0.05
    assert temporal_variation_db(noisy, noisy, clean, _NOISE) == 0.0


@pytest.mark.parametrize("alpha", [0.5, 0.8])
def test_constant_blend_of_a_still_scene_scores_as_theory_says(alpha: float):
    clean, noisy = _scene()
    output = _blend(noisy, alpha)
    expected = 10 * np.log10((1 - alpha) / (1 + alpha))
    assert error_db(output, clean, _NOISE, start=30) == pytest.approx(expected, abs=0.25)
    variation = 10 * np.log10((1 - alpha) ** 2 / (1 + alpha))
    assert temporal_variation_db(output, noisy, clean, _NOISE, start=30) == pytest.approx(variation, abs=0.25)
    assert bias_db(_blend(clean, alpha), clean, _NOISE) < -200
    assert sharpness(_blend(clean, alpha), clean) == pytest.approx(1.0)


def test_frames_before_start_and_from_stop_on_are_not_scored():
    clean, noisy = _scene(20)
    output = noisy.copy()
    output[:8] += 100.0
    output[-4:] += 100.0
    assert error_db(output, clean, _NOISE, stop=-4) == error_db(noisy, clean, _NOISE, stop=-4)
    assert error_db(output, clean, _NOISE) > 40


def test_error_by_frame_shows_the_frame_that_is_wrong():
    clean, noisy = _scene(20)
    noisy[12] += 10.0
    found = error_by_frame(noisy, clean, _NOISE)
    assert found.shape == (20,)
    assert int(found.argmax()) == 12
    assert found[11] == pytest.approx(10 * np.log10(((noisy - clean)[11] ** 2 / _NOISE[:, None, None]).mean()))


def test_an_error_that_stays_is_bias_and_no_variation():
    clean, noisy = _scene()
    assert temporal_variation_db(clean + 0.3, noisy, clean, _NOISE) < -200
    assert bias_db(clean + 0.3, clean, _NOISE) == pytest.approx(10 * np.log10((0.09 / _NOISE).mean()))


def test_sharpness_is_the_share_of_gradient_energy():
    clean, _ = _scene()
    assert sharpness(0.5 * clean + 3.0, clean) == pytest.approx(0.25)
    assert sharpness(clean[..., :1], clean[..., :1]) == 1.0


def test_warp_error_is_zero_where_the_flow_tells_all_and_noise_counts_twice():
    draws = np.random.default_rng(1)
    wide = draws.normal(size=(2, 12, 60))
    clean = np.stack([wide[:, :, t : t + 16] for t in range(30)])
    noisy = clean + draws.normal(size=clean.shape) * np.sqrt(_NOISE)[:, None, None]
    flow = np.zeros((30, 2, 12, 16), dtype=np.float32)
    flow[:, 0] = 1.0
    occluded = np.zeros((30, 12, 16), dtype=bool)
    occluded[..., -1] = True
    found = warp_error(noisy, clean, _NOISE, flow=flow, occluded=occluded)
    assert found.floor == 0.0
    assert found.value == pytest.approx(2.0, rel=0.05)
    assert found.coverage == 15 / 16
    assert found.distance == found.value
    assert warp_error(clean, clean, _NOISE, flow=-flow, occluded=occluded).floor > 5


def test_warp_error_alone_prefers_what_is_worse_than_the_input():
    draws = np.random.default_rng(2)
    clean = draws.normal(size=(60, 2, 12, 12)).cumsum(axis=0) * 0.3
    noisy = clean + draws.normal(size=clean.shape) * np.sqrt(_NOISE)[:, None, None]
    flow = np.zeros((60, 2, 12, 12), dtype=np.float32)
    blend = flicker_scores(
        _blend(noisy, 0.9), _blend(clean, 0.9), noisy=noisy, clean=clean, noise_variance=_NOISE, flow=flow
    )
    assert blend.warp is not None
    assert blend.warp.value < blend.warp.floor
    assert blend.error_db > 0
    assert blend.bias_db > 0


def test_numpy_torch_and_clips_side_by_side_agree():
    clean, noisy = _scene(20)
    single = flicker_scores(noisy, clean, noisy=noisy, clean=clean, noise_variance=_NOISE)
    tensors = [torch.from_numpy(array) for array in (noisy, clean)]
    assert (
        flicker_scores(
            tensors[0], tensors[1], noisy=tensors[0], clean=tensors[1], noise_variance=torch.from_numpy(_NOISE)
        )
        == single
    )
    pair = [np.stack([array, array]) for array in (noisy, clean)]
    both = np.stack([_NOISE, _NOISE])
    flow = np.zeros((2, 20, 2, 12, 12), dtype=np.float32)
    found = flicker_scores(pair[0], pair[1], noisy=pair[0], clean=pair[1], noise_variance=both, flow=flow)
    assert found.error_db == pytest.approx(single.error_db)
    assert error_by_frame(pair[0], pair[1], both).shape == (2, 20)


def test_cells_whose_truth_is_unknown_are_not_scored():
    clean, noisy = _scene(20)
    holes, dirty = clean.copy(), noisy.copy()
    holes[:, :, :3], dirty[:, :, :3] = np.nan, np.nan
    assert error_db(dirty, holes, _NOISE) == pytest.approx(error_db(noisy[:, :, 3:], clean[:, :, 3:], _NOISE))
    assert sharpness(holes, holes) == 1.0


def test_what_cannot_be_scored_is_refused_in_one_line():
    clean, noisy = _scene(20)
    spoiled = noisy.copy()
    spoiled[9, 0, 0, 0] = np.nan
    with pytest.raises(DataError, match="got 1 values that are not"):
        error_db(spoiled, clean, _NOISE)
    with pytest.raises(DataError, match="above 0 in every channel"):
        error_db(noisy, clean, np.array([0.1, 0.0]))
    with pytest.raises(DataError, match="at least 2 frames"):
        error_db(noisy, clean, _NOISE, start=19)
    with pytest.raises(DataError, match="must flicker"):
        temporal_variation_db(noisy, clean, clean, _NOISE)
    with pytest.raises(DataError, match="no cell that is visible"):
        warp_error(noisy, clean, _NOISE, flow=np.full((20, 2, 12, 12), np.nan))
