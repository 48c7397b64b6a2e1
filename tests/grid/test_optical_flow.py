"""Flow: its direction and units, what it hides, and where shots begin."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import xarray as xr
from scipy.ndimage import map_coordinates, zoom

from gridloom.core.errors import DataError
from gridloom.grid.optical_flow import clip_flow, dis_flow, occluded_cells, reduce_clip
from gridloom.grid.read import open_grid
from gridloom.grid.video import clip_of
from gridloom.grid.write import save_grid


def scene(height=96, width=128, *, dx=0.0, dy=0.0, seed=0, channels=3):
    """A smooth random picture that has moved by (dx, dy), 0 to 1."""
    noise = np.random.default_rng(seed).uniform(size=(channels, height // 8 + 8, width // 8 + 8))
    wide = np.stack([zoom(part, 8, order=3) for part in noise]).clip(0, 1)
    y, x = np.mgrid[:height, :width] + 32.0
    return np.stack([map_coordinates(part, [y - dy, x - dx], order=3) for part in wide]).clip(0, 1).astype(np.float32)


def to_bytes(frame):
    return np.rint(frame * 255).astype(np.uint8)


def clip_in_motion(count=4, **options):
    frames = np.stack([to_bytes(scene(dx=2.0 * time, dy=-1.0 * time, **options)) for time in range(count)])
    return clip_of(frames, frames_per_second=25)


@pytest.mark.parametrize("kind", ["colors", "gray", "bands", "floating", "latents"])
@pytest.mark.parametrize("preset", ["fast", "medium"])
def test_flow_leads_back_to_where_the_content_was(kind, preset):
    channels = {"colors": 3, "gray": 1, "bands": 4, "floating": 3, "latents": 8}[kind]
    previous, current = scene(channels=channels), scene(dx=3.0, dy=-2.0, channels=channels)
    if kind in ("colors", "gray", "bands"):
        previous, current = to_bytes(previous), to_bytes(current)
    flow = dis_flow(current, previous, preset=preset)
    assert flow.shape == (2, 96, 128) and flow.dtype == np.float32
    np.testing.assert_allclose(np.median(flow, axis=(1, 2)), [-3, 2], atol=0.2)


def test_sampling_the_previous_frame_at_the_flow_gives_the_current_one():
    previous, current = scene(), scene(dx=2.5, dy=1.5)
    flow = dis_flow(to_bytes(current), to_bytes(previous))
    y, x = np.mgrid[:96, :128]
    found = np.stack([map_coordinates(part, [y + flow[1], x + flow[0]], order=1) for part in previous])
    inner = (slice(None), slice(8, -8), slice(8, -8))
    before = np.mean((previous - current)[inner] ** 2)
    assert np.mean((found - current)[inner] ** 2) < 0.02 * before


def test_gray_frames_may_come_without_a_channel():
    previous, current = to_bytes(scene(channels=1)), to_bytes(scene(dx=2, channels=1))
    np.testing.assert_array_equal(dis_flow(current[0], previous[0]), dis_flow(current, previous))


def test_floating_frames_of_a_known_range_give_the_flow_of_their_bytes():
    previous, current = to_bytes(scene()), to_bytes(scene(dx=2, dy=1))
    floats = dis_flow(current / np.float32(255), previous / np.float32(255), value_range=(0.0, 1.0))
    np.testing.assert_allclose(floats, dis_flow(current, previous), atol=0.05)


@pytest.mark.parametrize("size", [(8, 64), (12, 20), (1, 40), (36, 44)])
def test_small_maps_are_enlarged_and_their_flow_counts_cells(size):
    previous, current = scene(*size, channels=1), scene(*size, dx=1.0, channels=1)
    flow = dis_flow(current, previous)
    assert flow.shape == (2, *size)
    if min(size) > 8:
        np.testing.assert_allclose(np.median(flow, axis=(1, 2)), [-1, 0], atol=0.25)


def test_a_preset_and_sizes_that_cannot_be_are_told():
    small = np.zeros((8, 64), np.uint8)
    with pytest.raises(DataError, match="must be enlarged 8 times"):
        dis_flow(small, small, enlarge=1)
    with pytest.raises(DataError, match="two frames of one shape"):
        dis_flow(small, small[:4])
    broken = np.zeros((32, 32), np.float32)
    broken[3, 3] = np.nan
    with pytest.raises(DataError, match="without NaN or infinity; fill them first"):
        dis_flow(broken, broken)


def test_equal_frames_do_not_move():
    frame = np.full((64, 64), 0.3, np.float32)
    np.testing.assert_array_equal(dis_flow(frame, frame), 0)


def test_flow_is_the_same_in_threads():
    pairs = [(to_bytes(scene(dx=time)), to_bytes(scene())) for time in range(4)]
    alone = [dis_flow(*pair) for pair in pairs]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda pair: dis_flow(*pair), pairs))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_clip_gets_flow_both_ways_as_pair_by_pair():
    clip = clip_in_motion()
    made = clip_flow(clip)
    frames = clip["frames"].values
    xr.testing.assert_identical(made["frames"].drop_vars("component", errors="ignore"), clip["frames"])
    assert made["flow"].dims == ("time", "component", "y", "x") and made["component"].values.tolist() == ["dx", "dy"]
    for now in range(1, 4):
        np.testing.assert_array_equal(made["flow"].values[now], dis_flow(frames[now], frames[now - 1]))
        np.testing.assert_array_equal(made["flow_next"].values[now - 1], dis_flow(frames[now - 1], frames[now]))
    assert not made["flow"].values[0].any() and not made["flow_next"].values[-1].any()
    assert made["occluded"].values[0].all() and made["occluded_next"].values[-1].all()
    assert made["occluded"].values[1:].mean() < 0.1 and not made["cut"].values.any()
    np.testing.assert_array_equal(
        made["occluded"].values[2], occluded_cells(made["flow"].values[2], made["flow_next"].values[1])
    )


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_a_clip_with_its_flow_is_written_and_read(suffix, tmp_path):
    made = clip_flow(clip_in_motion(2))
    save_grid(made, tmp_path / f"a{suffix}")
    read = open_grid(tmp_path / f"a{suffix}").load()
    xr.testing.assert_identical(read[list(made.data_vars)], made)


def test_a_new_scene_is_a_cut():
    frames = np.concatenate([clip_in_motion()["frames"].values, clip_in_motion(seed=9)["frames"].values])
    made = clip_flow(clip_of(frames, frames_per_second=25), preset="fast")
    assert np.flatnonzero(made["cut"].values).tolist() == [4]


def test_one_frame_is_a_clip_too():
    made = clip_flow(clip_in_motion(1))
    assert made["flow"].shape == (1, 2, 96, 128) and not made["cut"].values.any()


def test_occlusion_follows_the_rule():
    there, back = np.zeros((2, 2, 9, 11), np.float32)
    there[0], back[0] = 3.0, -3.0
    np.testing.assert_array_equal(occluded_cells(there, back), np.broadcast_to(np.arange(11) > 7, (9, 11)))
    # |there + back|^2 = 0.64 is more than 0.01 (9 + 4.84) + 0.5 = 0.6384, 0.63 is less
    for apart, hidden in ((0.8, True), (np.sqrt(0.63), False)):
        back[0] = -3.0 + apart
        assert occluded_cells(there, back)[4, 4] == hidden
    back[0] = -2.0
    assert occluded_cells(there, back)[4, 4] and not occluded_cells(there, back, tolerance=1.0)[4, 4]


def test_a_reduced_clip_has_means_and_flow_in_its_own_cells():
    clip = clip_in_motion(3)
    made = reduce_clip(clip_flow(clip), 4)
    full = clip_flow(clip)
    blocks = full["frames"].values.reshape(3, 3, 24, 4, 32, 4).astype(np.float64)
    assert made["frames"].dtype == np.float32
    np.testing.assert_allclose(made["frames"].values, blocks.mean((3, 5)) / 255, atol=1e-6)
    flow = full["flow"].values.reshape(3, 2, 24, 4, 32, 4).astype(np.float64)
    np.testing.assert_allclose(made["flow"].values, flow.mean((3, 5)) / 4, atol=1e-5)
    np.testing.assert_allclose(np.median(made["flow"].values[1:], axis=(0, 2, 3)), [-0.5, 0.25], atol=0.05)
    hidden = full["occluded_next"].values.reshape(3, 24, 4, 32, 4).sum((2, 4)) > 4
    np.testing.assert_array_equal(made["occluded_next"].values, hidden)
    assert made["cut"].equals(full["cut"]) and made.attrs == clip.attrs and made["time"].equals(clip["time"])


def test_latents_are_reduced_as_they_are():
    latents = clip_of(np.random.default_rng(0).normal(size=(2, 5, 4, 6)).astype(np.float32), frames_per_second=1)
    made = reduce_clip(latents, 2)["frames"].values
    np.testing.assert_allclose(made, latents["frames"].values.reshape(2, 5, 2, 2, 3, 2).mean((3, 5)), rtol=1e-6)


def test_sizes_that_do_not_divide_and_datasets_without_frames_are_told():
    clip = clip_in_motion(2)
    for factor in (5, 0):
        with pytest.raises(DataError, match=f"96 x 128 cannot be cut into blocks of {factor} x {factor}"):
            reduce_clip(clip, factor)
    for change in (reduce_clip, clip_flow):
        options = {"factor": 2} if change is reduce_clip else {}
        with pytest.raises(DataError, match="expected a clip with `frames`"):
            change(clip.rename(frames="pictures"), **options)
        with pytest.raises(DataError, match="at least one frame"):
            change(clip.isel(time=slice(0)), **options)
