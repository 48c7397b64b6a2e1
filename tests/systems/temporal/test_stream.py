import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from gridloom.core.errors import ConfigError, DataError
from gridloom.systems.temporal import Clip, TemporalModule, TemporalStream, stabilize_clip
from gridloom.systems.temporal.clips import as_clip, open_recording
from gridloom.systems.temporal.data import with_flicker
from gridloom.systems.temporal.stream import replay
from tests.systems.temporal.small import moving_clip
from tests.systems.temporal.test_module import GATES, trained


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def noisy_clip(level=0.3, *, known=True, **options):
    options = {"height": 14, "width": 16, **options}
    recording = open_recording(moving_clip(**options))
    frames, variance = with_flicker(recording.frames, level=level)
    clean = as_clip(recording).frames
    return as_clip(replace(recording, frames=frames), noise=variance if known else None), clean


def error(frames, clean, start=6):
    return float((frames - clean)[:, start:].square().mean())


@pytest.mark.parametrize("gate", GATES)
def test_a_clip_is_what_its_frames_are_one_by_one(gate):
    clip, _ = noisy_clip(known=False)
    module = trained(TemporalModule(3, gate=gate), scale=0.05).eval()
    stream = TemporalStream(module)
    found = [
        stream.push(clip.frames[:, time], clip.flow[:, time], occluded=clip.occluded[:, time], cut=clip.cut[:, time])
        for time in range(len(clip))
    ]
    done = stabilize_clip(module, clip)
    assert torch.equal(torch.stack([frame.z for frame in found], dim=1), done.frames)


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("known", [True, False])
def test_a_later_frame_changes_nothing_earlier(gate, known):
    clip, _ = noisy_clip(known=known)
    module = trained(TemporalModule(3, gate=gate), scale=0.05).eval()
    done = stabilize_clip(module, clip)
    later, flow, occluded = clip.frames.clone(), clip.flow.clone(), clip.occluded.clone()
    later[:, 10:] = 100 * torch.randn_like(later[:, 10:])
    flow[:, 10:] = 3
    occluded[:, 10:] = False
    other = stabilize_clip(module, replace(clip, frames=later, flow=flow, occluded=occluded))
    assert torch.equal(other.frames[:, :10], done.frames[:, :10])
    assert torch.equal(other.noise[:, :10].nan_to_num(), done.noise[:, :10].nan_to_num())
    assert not torch.equal(other.frames[:, 10:], done.frames[:, 10:])


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("mode", ["causal", "bidirectional"])
def test_clips_side_by_side_change_nothing_for_each_other(gate, mode):
    clip, _ = noisy_clip()
    module = trained(TemporalModule(3, gate=gate), scale=0.05).eval()
    alone = stabilize_clip(module, clip, mode=mode).frames
    wild = 50 * torch.randn_like(clip.frames)
    both = Clip(
        **{
            name: None if value is None else torch.cat([value, value])
            for name, value in ((name, getattr(clip, name)) for name in Clip.__dataclass_fields__)
            if name != "frames"
        },
        frames=torch.cat([clip.frames, wild]),
    )
    together = stabilize_clip(module, both, mode=mode).frames
    torch.testing.assert_close(together[:1], alone, rtol=0, atol=2e-6)


def test_less_flicker_than_before_and_least_with_what_is_to_come():
    clip, clean = noisy_clip(length=30)
    module = TemporalModule(3, gate="kalman", interpolation="bicubic", refiner="none")
    causal, both = (stabilize_clip(module, clip, mode=mode).frames for mode in ("causal", "bidirectional"))
    inner = slice(6, -6)
    before, after, best = (error(frames[:, inner], clean[:, inner], 0) for frames in (clip.frames, causal, both))
    assert after < 0.35 * before and best < 0.75 * after


def test_the_first_half_backwards_is_the_second_half_forwards():
    clip, _ = noisy_clip()
    module = TemporalModule(3, gate="kalman", refiner="none")
    there = stabilize_clip(module, clip.backward())
    again = stabilize_clip(module, clip, mode="bidirectional")
    assert torch.equal(torch.stack([frame.z for frame in again.passes[1]], dim=1), there.frames.flip(1))


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("told", [True, False])
def test_a_cut_begins_anew(gate, told):
    clip, _ = noisy_clip(cut=12)
    if not told:
        clip = replace(clip, cut=None)
    module = trained(TemporalModule(3, gate=gate), scale=0.05).eval()
    done = stabilize_clip(module, clip)
    assert done.cut[0].nonzero().flatten().tolist() == [0, 12]
    assert torch.equal(done.frames[:, 12], clip.frames[:, 12])
    before = clip.frames.clone()
    before[:, :12] = 7.0
    other = stabilize_clip(module, replace(clip, frames=before))
    assert torch.equal(other.frames[:, 12:], done.frames[:, 12:])


def test_on_the_way_back_a_cut_stands_where_it_was():
    clip, _ = noisy_clip(cut=12)
    module = TemporalModule(3, gate="kalman", refiner="none")
    done = stabilize_clip(module, clip, mode="bidirectional")
    assert torch.equal(done.passes[1][11].z, clip.frames[:, 11])
    assert torch.equal(clip.backward().backward().cut, clip.cut)


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("mode", ["causal", "bidirectional"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_bad_cells_of_frames_and_flow_never_poison_the_state(gate, mode, value):
    clip, clean = noisy_clip()
    frames, flow, flow_next = clip.frames.clone(), clip.flow.clone(), clip.flow_next.clone()
    frames[:, 8, :, 5:9, 5:9] = value
    flow[:, 9, 0, 10:12] = value
    flow_next[:, 9, 0, 10:12] = value
    module = TemporalModule(3, gate=gate, refiner="none")
    done = stabilize_clip(module, replace(clip, frames=frames, flow=flow, flow_next=flow_next), mode=mode)
    assert torch.isfinite(done.frames).all()
    usual = stabilize_clip(module, clip, mode=mode).frames
    # the hole is filled from the past; long after it nothing is left of it
    assert error(done.frames[:, 8:9, :, 5:9, 5:9], clean[:, 8:9, :, 5:9, 5:9], 0) < 1.0
    assert float((done.frames - usual)[:, 20:].abs().max()) < 0.15


def test_a_hole_of_the_first_frame_stays_until_something_is_known():
    clip, _ = noisy_clip(known=False)
    frames = clip.frames.clone()
    frames[:, 0, :, :4, :4] = math.nan
    done = stabilize_clip(TemporalModule(3, gate="kalman"), replace(clip, frames=frames))
    assert torch.isnan(done.frames[:, 0, :, :4, :4]).all() and torch.isfinite(done.frames[:, 1:]).all()


def test_the_strength_of_the_flicker_is_found():
    clip, _ = noisy_clip(level=0.3, length=30, height=40, width=48)
    module = TemporalModule(3, gate="kalman", interpolation="bicubic", refiner="none")
    found = stabilize_clip(module, replace(clip, noise=None)).noise[0, -1]
    ratio = (found / clip.noise[0]).numpy()
    assert np.all((ratio > 0.7) & (ratio < 1.5))


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("mode", ["causal", "bidirectional"])
def test_replay_repeats_what_was_done_and_is_linear(gate, mode):
    clip, clean = noisy_clip(cut=12)
    module = TemporalModule(3, gate=gate, refiner="none")
    done = stabilize_clip(module, clip, mode=mode)
    torch.testing.assert_close(replay(module, done, clip.frames), done.frames, rtol=0, atol=1e-6)
    noise = clip.frames - clean
    parts = replay(module, done, clean) + replay(module, done, noise)
    torch.testing.assert_close(parts, done.frames, rtol=0, atol=1e-5)


def test_what_a_check_calls_occluded_is_masked_or_left_to_the_gate():
    clip, _ = noisy_clip()
    hidden = clip.occluded.clone()
    hidden[:, 8, :, 4:9, 4:9] = True
    clip = replace(clip, occluded=hidden)
    masked, weighed, scalar = (
        stabilize_clip(TemporalModule(3, gate=gate, occlusion=kind, refiner="none"), clip)
        for gate, kind in (("kalman", "mask"), ("kalman", "weigh"), ("scalar", "weigh"))
    )
    for done in (masked, scalar):
        assert torch.equal(done.frames[:, 8, :, 4:9, 4:9], clip.frames[:, 8, :, 4:9, 4:9])
    assert weighed.alpha[:, 8, :, 4:9, 4:9].mean() > 0.3


def test_a_frame_of_which_too_much_is_occluded_is_a_cut_for_every_gate():
    clip, _ = noisy_clip()
    hidden = clip.occluded.clone()
    hidden[:, 8, :, :10] = True  # 10 of 14 rows
    for kind in ("mask", "weigh"):
        module = TemporalModule(3, gate="kalman", occlusion=kind, refiner="none")
        done = stabilize_clip(module, replace(clip, occluded=hidden))
        assert done.cut[0].nonzero().flatten().tolist() == [0, 8]
        assert torch.equal(done.frames[:, 8], clip.frames[:, 8])


def test_styles_go_along_and_begin_anew_at_a_cut():
    clip, _ = noisy_clip(cut=12)
    style = torch.arange(24.0).view(1, 24, 1).expand(1, 24, 2)
    done = stabilize_clip(TemporalModule(3, style_dim=2, alpha_init=0.5), replace(clip, style=style))
    assert done.style.shape == style.shape
    assert float(done.style[0, 1, 0]) == pytest.approx(0.5) and float(done.style[0, 12, 0]) == 12.0


def test_a_stream_refuses_another_size_until_it_is_reset():
    stream = TemporalStream(TemporalModule(3))
    stream.push(torch.zeros(1, 3, 8, 8))
    with pytest.raises(DataError, match=r"expected \[1, 3, 8, 8\], got \[1, 3, 9, 8\]"):
        stream.push(torch.zeros(1, 3, 9, 8))
    stream.reset()
    assert bool(stream.push(torch.zeros(1, 3, 9, 8)).cut)


def test_what_a_stream_cannot_do_is_said():
    clip, _ = noisy_clip()
    module = TemporalModule(3)
    with pytest.raises(DataError, match="bidirectional needs flow both ways"):
        stabilize_clip(module, replace(clip, flow_next=None), mode="bidirectional")
    with pytest.raises(ConfigError, match=r"cut_share must be above 0, up to 1, got 0\.0"):
        TemporalStream(module, cut_share=0.0)
