"""gridloom stabilize: videos, datasets and arrays in, without flicker out."""

import json
import logging

import numpy as np
import pytest
import torch
import xarray as xr

import gridloom
from gridloom.cli.main import main
from gridloom.core.errors import ConfigError, DataError
from gridloom.grid.read import open_grid
from gridloom.grid.video import VideoWriter
from gridloom.systems.temporal import TemporalModule
from tests.systems.temporal.small import STEP, config, moving_clip, save


@pytest.fixture(scope="module")
def clean():
    """A clip from 0 to 1 with its motion."""
    clip = moving_clip(length=16, height=64, width=72)
    frames = clip["frames"]
    return clip.assign(frames=0.2 + 0.6 * (frames - frames.min()) / (frames.max() - frames.min()))


@pytest.fixture(scope="module")
def shaky(clean):
    noise = 0.06 * np.random.default_rng(0).standard_normal(clean["frames"].shape).astype(np.float32)
    return clean.assign(frames=clean["frames"] + noise)


@pytest.fixture(scope="module")
def video(shaky, tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "shaky.avi"
    with VideoWriter(path, frames_per_second=25) as writer:
        for frame in shaky["frames"].values:
            writer.write(frame)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    plan = config(save(moving_clip(length=32), folder), train={"steps": 3})
    gridloom.train_system("temporal", plan, output=folder / "run", show=False, report=False)
    return folder / "run"


def error(found, clean, start=5):
    """Mean squared error over that of the flicker."""
    return float(((found - clean["frames"].values)[start:] ** 2).mean()) / 0.06**2


def test_a_dataset_with_its_own_flow_flickers_less(clean, shaky):
    calm = gridloom.stabilize(shaky, "kalman")
    both = gridloom.stabilize(shaky, "kalman", mode="bidirectional")
    assert calm["frames"].dims == ("time", "channel", "y", "x")
    np.testing.assert_array_equal(calm["time"], shaky["time"])
    assert error(shaky["frames"].values, clean) == pytest.approx(1.0, abs=0.05)
    assert error(both["frames"].values, clean) < error(calm["frames"].values, clean) < 0.3
    np.testing.assert_allclose(calm["noise"].values[-1], 0.06, rtol=0.2)
    assert not calm["cut"].any() and float(calm["weight"][8]) > 0.5 and float(calm["variance"][8]) < 0.5


def test_a_video_goes_in_and_comes_out_frame_by_frame(clean, video, tmp_path):
    found = gridloom.stabilize(video, "kalman", output=tmp_path / "calm.avi", picture=tmp_path / "calm.png", row=7)
    calm = open_grid(tmp_path / "calm.avi")
    assert calm["frames"].shape == (16, 3, 64, 72) and calm.attrs["frames_per_second"] == pytest.approx(25)
    assert "frames" not in found and found.sizes["time"] == 16
    assert error(calm["frames"].values / 255, clean) < 0.45
    in_memory = gridloom.stabilize(open_grid(video), "kalman", flow="dis")["frames"].values
    np.testing.assert_allclose(calm["frames"].values / 255, in_memory.clip(0, 1), rtol=0, atol=0.51 / 255)
    assert (tmp_path / "calm.png").stat().st_size > 10_000


def test_arrays_and_tensors_are_taken(shaky):
    frames = shaky["frames"].values
    expected = gridloom.stabilize(shaky[["frames"]], "kalman", flow="none")["frames"].values
    for given in (frames, torch.from_numpy(frames)):
        np.testing.assert_array_equal(gridloom.stabilize(given, "kalman", flow="none")["frames"], expected)
    with pytest.raises(DataError, match=r"frames must be \[T,C,H,W\], got \[3, 64, 72\]"):
        gridloom.stabilize(frames[0], "kalman")


def test_a_given_flow_is_used_in_either_direction_and_the_wrong_one_is_warned_of(clean, shaky, tmp_path, caplog):
    frames = shaky[["frames"]]
    own = gridloom.stabilize(shaky.drop_vars(["occluded", "occluded_next"]), "kalman")["frames"].values
    forward = shaky[["flow"]].copy(deep=True)
    forward["flow"][1:, 0], forward["flow"][1:, 1] = STEP
    forward.to_netcdf(tmp_path / "flow.nc")
    turned = gridloom.stabilize(frames, "kalman", flow=tmp_path / "flow.nc", flow_direction="prev_to_cur")
    inner = (..., slice(4, -4), slice(4, -4))
    np.testing.assert_allclose(turned["frames"].values[inner], own[inner], rtol=0, atol=1e-4)
    with caplog.at_level(logging.WARNING):
        wrong = gridloom.stabilize(frames, "kalman", flow=tmp_path / "flow.nc")
    assert "seems to run prev_to_cur, not cur_to_prev" in caplog.text
    assert error(wrong["frames"].values, clean) > error(turned["frames"].values, clean)


def test_what_a_strength_says_is_used(shaky):
    timid = gridloom.stabilize(shaky, "kalman", noise=1e-4)
    assert float(np.abs(timid["frames"] - shaky["frames"]).max()) < 0.01
    assert float(timid["noise"][3, 0]) == pytest.approx(1e-4)


def test_cuts_are_found(tmp_path):
    clip = moving_clip(length=12, height=64, width=64, cut=5)
    found = gridloom.stabilize(clip.drop_vars("cut"), "kalman")
    assert np.flatnonzero(found["cut"].values).tolist() == [5]
    np.testing.assert_array_equal(found["frames"][5], clip["frames"][5])


def test_a_trained_run_from_the_command_line(run, tmp_path, capsys):
    clip = moving_clip(length=10)
    gridloom.save_grid(clip, tmp_path / "clip.zarr")
    output = tmp_path / "calm.zarr"
    arguments = ["stabilize", str(run), str(tmp_path / "clip.zarr"), "--output", str(output)]
    assert main([*arguments, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["frames"] == 10 and record["cuts"] == [] and record["output"] == str(output)
    with xr.open_zarr(output, chunks=None) as stored:
        expected = gridloom.stabilize(clip, run)
        np.testing.assert_array_equal(stored["frames"], expected["frames"])
    assert main(arguments) == 2
    assert "exists already" in capsys.readouterr().err
    assert main([*arguments, "--replace"]) == 0
    assert "weight of the past" in capsys.readouterr().out


def test_what_does_not_fit_is_refused(run, shaky, tmp_path):
    with pytest.raises(DataError, match="takes 3 channels, got 2; latents of a video need the --autoencoder"):
        gridloom.stabilize(shaky.isel(channel=slice(2)), run)
    with pytest.raises(ConfigError, match="this model predicts no flow"):
        gridloom.stabilize(shaky, run, flow="predict")
    with pytest.raises(DataError, match=r"expected \.mp4, .* got '\.txt'"):
        gridloom.stabilize(shaky, run, output=tmp_path / "out.txt")
    with pytest.raises(DataError, match=r"a video has 1 or 3 channels, got 2"):
        gridloom.stabilize(shaky.isel(channel=slice(2)), "kalman", output=tmp_path / "out.avi")
    with pytest.raises(DataError, match="expected flow of 16 x 2 x 64 x 72 as the frames are, got 16 x 2 x 20 x 24"):
        gridloom.stabilize(shaky, run, flow=moving_clip(length=16)[["flow"]])
    with pytest.raises(DataError, match="row must be from 0 to 63, got 64"):
        gridloom.stabilize(shaky, run, row=64)
    assert not list(tmp_path.iterdir())


def test_a_module_is_taken_as_it_is(shaky):
    module = TemporalModule(3, alpha_init=0.5, refiner="none")
    frames = shaky["frames"].values
    found = gridloom.stabilize(shaky[["frames"]], module, flow="none")["frames"].values
    np.testing.assert_allclose(found[1], 0.5 * frames[0] + 0.5 * frames[1], rtol=0, atol=1e-6)
