"""Known filters: what they mix, what they freeze, what they must not look at."""

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor
from torch.nn import functional as F

from gridloom.core.errors import DataError
from gridloom.evaluate.flicker import error_db
from gridloom.systems.temporal.baselines import BASELINES, FilterPredictor
from gridloom.systems.temporal.config import TemporalConfig
from gridloom.systems.temporal.filters import (
    Filter,
    RecursiveFilter,
    bidirectional,
    centered_mean,
    constant,
    kalman,
    median_of_three,
    residual_gate,
    unchanged,
)
from gridloom.systems.temporal.gates import KalmanGate
from gridloom.systems.temporal.stream import Clip

_BEST = RecursiveFilter(rule=kalman, warping="bicubic")
_FILTERS: dict[str, Filter] = {
    "unchanged": unchanged,
    "blend": RecursiveFilter(rule=constant(0.5)),
    "unmasked": RecursiveFilter(rule=constant(0.8), masked=False),
    "seed": RecursiveFilter(rule=constant(0.3), warping="seed", masked=False),
    "still": RecursiveFilter(rule=constant(0.5), warping="none", masked=False),
    "gate": RecursiveFilter(rule=residual_gate(0.8), warping="bicubic"),
    "two frames": RecursiveFilter(rule=residual_gate(0.5), two_frames=True),
    "kalman": _BEST,
    "kalman of the module": RecursiveFilter(rule=KalmanGate(), warping="bicubic"),
    "both ways": bidirectional(_BEST),
    "mean": centered_mean,
    "median": median_of_three,
}
_DIMS = ("time", "channel", "y", "x")


def _pan(num_frames: int = 12, size: int = 16, noise: float = 0.09) -> tuple[Clip, Tensor]:
    """A picture that moves by one cell to the left in each frame, with flicker; and without."""
    generator = torch.Generator().manual_seed(0)
    wide = torch.randn(1, 2, size, size + num_frames, generator=generator)
    clean = torch.stack([wide[..., t : t + size] for t in range(num_frames)], dim=1)
    flow = torch.zeros(1, num_frames, 2, size, size)
    flow[:, :, 0] = 1.0
    hidden = torch.zeros(1, num_frames, 1, size, size, dtype=torch.bool)
    clip = Clip(
        frames=clean + torch.randn(clean.shape, generator=generator) * noise**0.5,
        flow=flow,
        flow_next=-flow,
        occluded=hidden,
        occluded_next=hidden,
        noise=torch.full((1, 2), noise),
    )
    return clip, clean


def _given(clip: Clip, beside: Tensor | None = None, noise: float = 0.09) -> xr.Dataset:
    variables = {
        "frames": (_DIMS, clip.frames[0].numpy()),
        "flow": (("time", "component", "y", "x"), clip.flow[0].numpy()),
        "flow_next": (("time", "component", "y", "x"), clip.flow_next[0].numpy()),
        "occluded": (("time", "y", "x"), clip.occluded[0, :, 0].numpy()),
        "occluded_next": (("time", "y", "x"), clip.occluded_next[0, :, 0].numpy()),
        "noise": ("channel", np.full(clip.frames.shape[2], noise, dtype=np.float32)),
    }
    if beside is not None:
        variables["beside"] = (_DIMS, beside[0].numpy())
    return xr.Dataset(variables, coords={"time": np.arange(len(clip)) / 25.0, "channel": ["a", "b"]})


def _predictor(name: str) -> FilterPredictor:
    clip, _ = _pan()
    predictor = BASELINES[name](TemporalConfig(), _given(clip))
    assert isinstance(predictor, FilterPredictor)
    return predictor


def _changed(clip: Clip, **fields: Tensor | None) -> Clip:
    return Clip(**{**{name: getattr(clip, name) for name in Clip.__dataclass_fields__}, **fields})


@pytest.mark.parametrize("name", _FILTERS)
def test_frozen_weights_give_the_same_output_again_and_are_linear(name: str):
    clip, clean = _pan()
    done = _FILTERS[name](clip)
    torch.testing.assert_close(done.replay(clip.frames), done.frames, rtol=0, atol=1e-6)
    noise = clip.frames - clean
    torch.testing.assert_close(done.replay(clean) + done.replay(noise), done.frames, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in _FILTERS if name not in ("both ways", "mean", "median")])
def test_causal_filters_do_not_see_the_frames_to_come(name: str):
    clip, _ = _pan()
    later = clip.frames.clone()
    later[:, 7:] += 3.0
    torch.testing.assert_close(
        _FILTERS[name](_changed(clip, frames=later)).frames[:, :7], _FILTERS[name](clip).frames[:, :7], rtol=0, atol=0
    )


@pytest.mark.parametrize("name", ["blend", "gate", "two frames", "kalman", "both ways"])
def test_nothing_is_lost_where_the_flow_tells_all(name: str):
    clip, clean = _pan()
    torch.testing.assert_close(_FILTERS[name](clip).replay(clean), clean, rtol=0, atol=1e-5)


def test_a_blend_follows_its_formula():
    clip, _ = _pan()
    state = clip.frames[0, 0]
    for frame in clip.frames[0, 1:]:
        moved = torch.cat([state[..., 1:], frame[..., -1:]], dim=-1)  # what comes into view is taken as it is
        state = 0.5 * moved + 0.5 * frame
    torch.testing.assert_close(_FILTERS["blend"](clip).frames[0, -1], state)


def test_seed_is_its_literal_formula():
    clip, _ = _pan(size=10)
    state, grid = clip.frames[:, 0], torch.linspace(-1, 1, 10)
    y, x = torch.meshgrid(grid, grid, indexing="ij")
    for index in range(1, len(clip)):
        dx, dy = clip.flow_next[:, index - 1].unbind(1)
        places = torch.stack([x + dx / 5, y + dy / 5], dim=-1)
        moved = F.grid_sample(state, places, align_corners=True)
        state = 0.3 * moved + 0.7 * clip.frames[:, index]
    torch.testing.assert_close(_FILTERS["seed"](clip).frames[:, -1], state, rtol=0, atol=1e-6)


def test_two_frames_mix_with_the_last_frame_and_not_with_the_last_output():
    clip, _ = _pan()
    filter_ = RecursiveFilter(rule=constant(0.5), two_frames=True)
    expected = 0.5 * clip.frames[0, 4, :, :, 1:] + 0.5 * clip.frames[0, 5, :, :, :-1]
    torch.testing.assert_close(filter_(clip).frames[0, 5, :, :, :-1], expected)


def test_kalman_averages_all_that_it_saw_and_stops_where_the_residual_shows_change():
    still, _ = _pan()
    frames = torch.randn(1, 12, 2, 16, 16, generator=torch.Generator().manual_seed(1)) * 0.05
    quiet = _changed(still, frames=frames, flow=torch.zeros_like(still.flow), noise=torch.full((1, 2), 0.09))
    torch.testing.assert_close(_BEST(quiet).frames[:, -1], frames.mean(dim=1), rtol=0, atol=1e-5)
    frames[:, 6:] += 5.0
    jump = _BEST(_changed(quiet, frames=frames)).frames[:, 6]
    assert float((jump - frames[:, 6]).abs().max()) < 0.03


def test_filters_rank_as_they_should_on_a_pan():
    clip, clean = _pan(num_frames=30)
    found = {name: error_db(_FILTERS[name](clip).frames, clean, clip.noise) for name in _FILTERS}
    assert abs(found["unchanged"]) < 0.5
    assert found["seed"] > 0
    assert found["still"] > 0
    assert found["both ways"] < found["kalman"] < found["blend"] < found["two frames"] < -2.0
    assert found["blend"] < found["unmasked"]


def test_hidden_cells_and_cuts_take_the_frame_itself():
    clip, _ = _pan()
    hidden = clip.occluded.clone()
    hidden[:, 5, :, :4] = True
    cut = torch.zeros(1, len(clip), dtype=torch.bool)
    cut[:, 9] = True
    for name in ("blend", "gate", "kalman", "both ways"):
        # The way back sees what the way there does not.
        told = _changed(clip, occluded=hidden, occluded_next=torch.ones_like(hidden), cut=cut)
        found = _FILTERS[name](told).frames
        torch.testing.assert_close(found[:, 5, :, :4], clip.frames[:, 5, :, :4], rtol=0, atol=0)
        torch.testing.assert_close(found[:, 9], clip.frames[:, 9], rtol=0, atol=0)
    for name in ("mean", "median"):
        alone = _FILTERS[name](_changed(clip, cut=torch.ones_like(cut))).frames
        torch.testing.assert_close(alone, clip.frames)


def test_a_missing_cell_and_a_broken_flow_do_not_stay():
    clip, _ = _pan()
    frames, flow = clip.frames.clone(), clip.flow.clone()
    frames[:, 3, :, 8, 8] = torch.nan
    flow[:, 4, 0, 2, 2] = torch.inf
    for name in ("blend", "unmasked", "gate", "kalman", "still", "seed"):
        found = _FILTERS[name](_changed(clip, frames=frames, flow=flow)).frames
        assert bool(torch.isfinite(found[:, 4:]).all())
        assert int(torch.isnan(found[:, 3]).sum()) == 2


@pytest.mark.parametrize("name", BASELINES)
def test_what_is_beside_does_not_change_the_answer(name: str):
    clip, clean = _pan()
    wanted = xr.Dataset({"frames": (_DIMS, np.ones(clean.shape[1:], dtype=bool))})
    alone = _predictor(name).predict(_given(clip), wanted)
    beside = _predictor(name).predict(_given(clip, beside=clean), wanted)
    xr.testing.assert_identical(alone["frames"], beside["frames"])
    assert "beside" not in alone
    assert beside["beside"].dims == _DIMS
    other = _predictor(name).predict(_given(clip, beside=clean * 7 + 1), wanted)
    xr.testing.assert_identical(other["frames"], alone["frames"])


def test_each_clip_is_filtered_by_itself():
    clip, clean = _pan()
    first, second = _given(clip, beside=clean), _given(_changed(clip, frames=clip.frames.flip(3)), beside=clean)
    both = xr.concat([first, second], dim="clip")
    wanted = xr.Dataset()
    answers = _predictor("kalman").predict(both, wanted)
    assert answers["frames"].dims == ("clip", *_DIMS)
    for index, alone in enumerate((first, second)):
        xr.testing.assert_identical(answers.isel(clip=index), _predictor("kalman").predict(alone, wanted))


def test_a_noise_that_is_not_known_is_estimated():
    clip, clean = _pan(num_frames=30, size=32)
    wanted = xr.Dataset()
    known, guessed = (
        _predictor("kalman").predict(_given(clip, noise=noise), wanted)["frames"].values for noise in (0.09, np.nan)
    )
    truth, variance = clean[0].numpy(), np.full(2, 0.09)
    assert error_db(guessed, truth, variance) < error_db(known, truth, variance) + 0.5


def test_without_flow_only_what_does_not_move_remains():
    clip, _ = _pan()
    bare = _given(clip).drop_vars(["flow", "flow_next"])
    remaining = [name for name, build in BASELINES.items() if build(TemporalConfig(), bare) is not None]
    assert remaining == ["input", "no warp 0.5", "kalman, no flow"]
    with pytest.raises(DataError, match="needs clips with flow"):
        _BEST(_changed(clip, flow=None))
    with pytest.raises(DataError, match="beside must be on"):
        _predictor("input").predict(_given(clip).assign(beside=("time", np.zeros(len(clip)))), xr.Dataset())
