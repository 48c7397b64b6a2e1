import numpy as np
import pytest
import torch
import xarray as xr

from gridloom.core.errors import DataError
from gridloom.nn.warp import inside, warp
from gridloom.systems.temporal import SYSTEM
from gridloom.systems.temporal.clips import as_clip, open_recording
from gridloom.systems.temporal.data import flicker_task, with_flicker
from gridloom.systems.temporal.source import ClipSource
from tests.systems.temporal.small import config, moving_clip, save


def source(clip=None, *, augment=True, window=4, crop=14, stride=1):
    recording = open_recording(moving_clip() if clip is None else clip)
    return ClipSource(
        [recording], [(0, len(recording))], window=window, stride=stride, crop=crop, seed=5, augment=augment
    )


def test_however_a_crop_is_turned_its_flow_still_leads_to_the_frame_before():
    batch = source().collate(list(range(20)), 0)
    frames, flow = batch.fields["frames"].values, batch.fields["flow"]
    assert len({float(flow.values[index, 1, :, 5, 5].sum()) for index in range(20)}) > 3  # turned in many ways
    for time in (1, 2, 3):
        moved = warp(frames[:, time - 1], flow.values[:, time], mode="bicubic")
        seen = (~batch.features["occluded"][:, time] & inside(flow.values[:, time], margin=-2.0)).expand_as(moved)
        assert seen.float().mean() > 0.3
        assert float((moved - frames[:, time])[seen].abs().max()) < 0.1


def test_a_cut_is_never_bridged_in_either_direction_of_time():
    batch = source(moving_clip(cut=9), window=5).collate(list(range(20)), 0)
    for index in range(20):
        for time in range(1, 5):
            assert bool(batch.features["cut"][index, time]) == bool(batch.features["occluded"][index, time].all())
    assert 0 < int(batch.features["cut"].sum()) < 20 * 4


def test_windows_depend_on_seed_epoch_and_address_alone():
    ours = source()
    first, again, later = ours.collate([3, 7], 1), ours.collate([7], 1), ours.collate([3, 7], 2)
    assert torch.equal(first.fields["frames"].values[1], again.fields["frames"].values[0])
    assert not torch.equal(first.fields["frames"].values, later.fields["frames"].values)


def test_missing_cells_and_unknown_flow_come_with_their_mask():
    clip = moving_clip()
    clip["frames"][5, :, 8:10] = np.nan
    clip["flow"][6, 0, 4] = np.inf
    batch = source(clip, augment=False, crop=20, window=24).collate([0], 0)
    frames, flow = batch.fields["frames"], batch.fields["flow"]
    assert torch.isfinite(frames.values).all() and torch.isfinite(flow.values).all()
    assert not frames.valid[0, 5, :, 8:10].any() and frames.valid[0, 5, :, :8].all()
    assert not flow.valid[0, 6, 0, 4].any() and flow.valid[0, 7].all()
    assert batch.features["occluded"][0, 6, 0, 4].all()


def test_parts_follow_each_other_and_a_held_out_clip_is_for_the_test_alone(tmp_path):
    first, second = save(moving_clip(length=40), tmp_path, "a"), save(moving_clip(length=30, seed=1), tmp_path, "b")
    apart = SYSTEM.prepare(config(first, data={"also": (second,)}))
    assert apart.splits["clips"][first] == {"train": (0, 24), "validation": (24, 30), "test": (30, 40)}
    assert apart.splits["clips"][second] == {"train": (0, 24), "validation": (24, 30), "test": (0, 0)}
    held = SYSTEM.prepare(config(first, data={"also": (second,), "held_out": True}))
    assert held.splits["clips"][first] == {"train": (0, 0), "validation": (0, 0), "test": (0, 40)}
    assert held.task("test").truth.sizes["time"] == 8  # data.max_frames
    for part in ("train", "validation"):
        names = set(held.sources[part].coordinates(range(len(held.sources[part])))["clip"])
        assert names == {second}


def test_the_flicker_has_the_strength_that_is_said():
    clip = open_recording(moving_clip(length=40))
    task = flicker_task(clip, level=0.2, split="test")
    noise = task.given["frames"].values - clip.frames
    expected = (0.2 * clip.frames.std(axis=(0, 2, 3))) ** 2
    np.testing.assert_allclose(task.given["noise"].values, expected, rtol=1e-4)
    np.testing.assert_allclose(noise.var(axis=(0, 2, 3)), expected, rtol=0.05)
    assert abs(np.corrcoef(noise[:-1].ravel(), noise[1:].ravel())[0, 1]) < 0.02  # independent from frame to frame
    again = with_flicker(clip.frames, level=0.2)[0]
    np.testing.assert_array_equal(again, task.given["frames"].values)


def test_frames_are_found_under_other_names_and_in_other_orders():
    clip = moving_clip()
    plain = open_recording(clip)
    other = xr.Dataset({"latent": clip["frames"].rename(y="lat", x="lon").transpose("lat", "channel", "time", "lon")})
    np.testing.assert_array_equal(open_recording(other, flow="none").frames, plain.frames)
    fields = clip["frames"].to_dataset("channel").rename({0: "u", 1: "v", 2: "ssh"})
    found = open_recording(fields, flow="none")
    assert found.channels == ("u", "v", "ssh")
    np.testing.assert_array_equal(found.frames, plain.frames)


def test_frames_are_reduced_with_their_flow():
    found = open_recording(moving_clip(height=22, width=26), factor=4)
    assert found.frames.shape == (24, 3, 5, 6)
    np.testing.assert_allclose(found.flow[1, :, 2, 2], [-0.75 / 4, 0.1], rtol=1e-5)
    assert as_clip(found).flow.shape == (1, 24, 2, 5, 6)


@pytest.mark.parametrize(
    ("clip", "message"),
    [
        (xr.Dataset({"a": ("x", [1.0, 2.0])}), r"expected frames on \(time, channel, y, x\).*got a \('x',\)"),
        (moving_clip(length=1), "expected at least 2 frames, got 1"),
        (moving_clip().assign(flow=("time", np.zeros(24))), "flow must be on"),
    ],
)
def test_what_is_no_clip_is_refused(clip, message):
    with pytest.raises(DataError, match=message):
        open_recording(clip, flow="none")
