import numpy as np
import pytest
import xarray as xr

from gridloom.core.errors import ConfigError, DataError
from gridloom.systems.temporal.latents import PatchPCA


def _frames(shape=(3, 2, 16, 24), seed=0):
    return np.random.default_rng(seed).random(shape).astype(np.float32)


def _slow_patches(frames, size):
    return np.stack(
        [
            frame[:, y : y + size, x : x + size].ravel()
            for frame in frames.astype(np.float64)
            for y in range(0, frame.shape[1], size)
            for x in range(0, frame.shape[2], size)
        ]
    )


def test_components_are_those_of_a_singular_value_decomposition():
    frames = _frames()
    fitted = PatchPCA.fit([frames], size=4, num_components=5)
    patches = _slow_patches(frames, 4)
    reference = np.linalg.svd(patches - patches.mean(axis=0), full_matrices=False)[2][:5]
    assert np.allclose(fitted.mean, patches.mean(axis=0), atol=1e-6)
    assert np.allclose(np.abs((fitted.components * reference).sum(axis=1)), 1, atol=1e-4)
    assert (fitted.components.sum(axis=1) >= 0).all()


def test_a_latent_is_the_projection_of_its_patch():
    frames = _frames()
    fitted = PatchPCA.fit([frames], size=4, num_components=5)
    latents = fitted.encode(frames)
    assert latents.shape == (3, 5, 4, 6)
    patch = frames[2, :, 4:8, 12:16].ravel()
    assert np.allclose(latents[2, :, 1, 3], fitted.components @ (patch - fitted.mean), atol=1e-5)


def test_all_components_give_the_frames_back():
    frames = _frames()
    fitted = PatchPCA.fit([frames], size=4, num_components=32)
    assert np.allclose(fitted.decode(fitted.encode(frames)), frames, atol=1e-5)


def test_pixels_of_a_video_are_shares_of_255():
    pixels = np.random.default_rng(1).integers(0, 256, (2, 3, 8, 8), dtype=np.uint8)
    shares = pixels.astype(np.float32) / 255
    fitted = PatchPCA.fit([pixels], size=4, num_components=3)
    assert np.allclose(fitted.components, PatchPCA.fit([shares], size=4, num_components=3).components, atol=1e-5)
    assert np.allclose(fitted.encode(pixels), fitted.encode(shares), atol=1e-6)


def test_each_clip_weighs_the_same_however_long_it_is():
    short, long = _frames((1, 1, 8, 8), seed=1), _frames((1, 1, 8, 8), seed=2)
    once = PatchPCA.fit([short, long], size=4, num_components=2)
    often = PatchPCA.fit([short, np.repeat(long, 5, axis=0)], size=4, num_components=2)
    assert np.allclose(once.mean, often.mean, atol=1e-6)
    assert np.allclose(once.components, often.components, atol=1e-4)


def test_pixels_that_fill_no_patch_are_left_out():
    frames = _frames((1, 1, 11, 9))
    fitted = PatchPCA.fit([frames], size=4, num_components=2)
    assert np.array_equal(fitted.encode(frames), fitted.encode(frames[..., :8, :8]))


def test_a_clip_keeps_its_time_and_its_motion_is_counted_in_patches():
    frames = _frames((3, 1, 8, 8))
    occluded = np.zeros((3, 8, 8), dtype=bool)
    occluded[1, :4, :2], occluded[2, 4, 4:] = True, True  # half of one patch, a quarter of another
    clip = xr.Dataset(
        {
            "frames": (("time", "channel", "y", "x"), frames),
            "flow": (("time", "component", "y", "x"), np.full((3, 2, 8, 8), 6.0, np.float32)),
            "occluded": (("time", "y", "x"), occluded),
            "cut": ("time", np.array([False, True, False])),
        },
        coords={"time": [0.0, 0.5, 1.0], "channel": ["gray"]},
        attrs={"frames_per_second": 2.0},
    )
    fitted = PatchPCA.fit([frames], size=4, num_components=3)
    latents = fitted.encode_clip(clip)
    assert latents["frames"].dims == ("time", "channel", "y", "x")
    assert np.array_equal(latents["frames"].values, fitted.encode(frames))
    assert np.allclose(latents["flow"], 1.5)
    assert latents["flow"].shape == (3, 2, 2, 2)
    assert latents["occluded"].values.nonzero()[0].tolist() == [1]
    assert latents["cut"].values.tolist() == [False, True, False]
    assert latents["time"].values.tolist() == [0.0, 0.5, 1.0]
    assert latents.attrs["frames_per_second"] == 2.0


def test_what_does_not_fit_is_refused():
    frames = _frames((2, 1, 8, 8))
    fitted = PatchPCA.fit([frames], size=4, num_components=2)
    broken = frames.copy()
    broken[0, 0, 3, 3] = np.nan
    with pytest.raises(DataError, match="NaN"):
        PatchPCA.fit([broken], size=4, num_components=2)
    with pytest.raises(DataError, match="no clip"):
        PatchPCA.fit([], size=4)
    with pytest.raises(DataError, match="one number of channels"):
        PatchPCA.fit([frames, _frames()], size=4, num_components=2)
    with pytest.raises(DataError, match="smaller than a patch"):
        PatchPCA.fit([frames], size=16)
    with pytest.raises(ConfigError, match="between 1 and the 16"):
        PatchPCA.fit([frames], size=4, num_components=17)
    with pytest.raises(DataError, match="1 channels, as it was fitted on, got 2"):
        fitted.encode(_frames())
    with pytest.raises(DataError, match="latents of 2 channels, got 3"):
        fitted.decode(np.zeros((1, 3, 2, 2), np.float32))
