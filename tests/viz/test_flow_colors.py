"""Colors of motion, rows over time, latents as colors, moving pictures: what must hold whatever they look like."""

import io

import numpy as np
import pytest
from PIL import Image

from gridloom.core.errors import DataError
from gridloom.viz.flow import draw_flow_wheel, flow_colors, largest_motion
from gridloom.viz.gif import to_gif
from gridloom.viz.scale import color_scale
from gridloom.viz.slices import draw_time_slice, latent_rgb, time_slice
from gridloom.viz.style import figure, to_png_bytes

GRAY = (0xD9 / 255,) * 3
generator = np.random.default_rng(0)


def motion(dx, dy):
    return np.array([[[dx]], [[dy]]], dtype=np.float32)


@pytest.mark.parametrize(
    ("dx", "dy", "strong", "weak"), [(1, 0, "r", "gb"), (0, 1, "rg", "b"), (-1, 0, "gb", "r"), (0, -1, "b", "g")]
)
def test_direction_is_the_hue(dx, dy, strong, weak):
    color = dict(zip("rgb", flow_colors(motion(dx, dy), largest=1.0)[0, 0], strict=True))
    assert min(color[name] for name in strong) > 0.6 > 0.4 > max(color[name] for name in weak)


def test_length_is_the_strength():
    still, half, full, beyond = (flow_colors(motion(length, 0), largest=2.0)[0, 0] for length in (0, 1, 2, 5))
    np.testing.assert_allclose(still, 1)
    np.testing.assert_allclose(half, [1, 0.5, 0.5], atol=1e-6)
    np.testing.assert_allclose(full, [1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(beyond, [0.75, 0, 0], atol=1e-6)


def test_colors_go_round_without_a_jump():
    angle = np.linspace(0, 2 * np.pi, 721)
    colors = flow_colors(np.stack([np.cos(angle), np.sin(angle)])[:, None], largest=1.0)[0]
    assert np.abs(np.diff(colors, axis=0)).max() < 0.05
    np.testing.assert_allclose(colors[0], colors[-1], atol=1e-6)


def test_what_is_not_known_is_gray_and_does_not_set_the_scale():
    flow = generator.normal(size=(2, 6, 7)).astype(np.float32)
    flow[0, 1, 1], flow[1, 2, 2] = np.nan, np.inf
    colors = flow_colors(flow)
    assert colors.shape == (6, 7, 3) and colors.min() >= 0 and colors.max() <= 1
    np.testing.assert_allclose(colors[[1, 2], [1, 2]], [GRAY, GRAY])
    assert 0 < largest_motion([flow]) < 5
    assert (
        largest_motion([np.zeros((2, 3, 3))]) == largest_motion([]) == largest_motion([np.full((2, 3, 3), np.nan)]) == 1
    )


def test_a_few_wrong_cells_do_not_make_the_others_pale():
    flow = np.ones((2, 100, 100))
    flow[:, 0, :3] = 500
    assert largest_motion([flow]) == pytest.approx(np.sqrt(2))
    assert largest_motion([flow], clip=0) == pytest.approx(500 * np.sqrt(2))


def test_no_flow_and_no_scale_are_told():
    with pytest.raises(DataError, match=r"expected a flow \[2, height, width\]"):
        flow_colors(np.zeros((3, 4, 4)))
    with pytest.raises(DataError, match="must be above 0"):
        flow_colors(np.zeros((2, 4, 4)), largest=0)


def test_the_wheel_and_a_slice_can_be_drawn():
    made = figure()
    left, middle, right = made.subplots(1, 3)
    draw_flow_wheel(left, largest=3.25)
    assert left.texts[0].get_text() == "3.25 cells"
    draw_time_slice(middle, generator.uniform(size=(12, 9, 3)), seconds=2.0, cuts=[6])
    assert middle.get_ylim() == (2, 0) and list(middle.lines[0].get_ydata()) == [1, 1]
    field = generator.normal(size=(12, 9))
    draw_time_slice(right, field, scale=color_scale([field]))
    assert right.get_ylim() == (12, 0) and right.get_ylabel() == "frame"
    assert to_png_bytes(made).startswith(b"\x89PNG")


def test_a_slice_is_one_row_of_all_frames():
    pixels = generator.integers(0, 256, (5, 3, 4, 6), dtype=np.uint8)
    np.testing.assert_allclose(time_slice(pixels, 2), np.moveaxis(pixels[:, :, 2], 1, -1) / 255, rtol=1e-6)
    values = generator.normal(size=(5, 1, 4, 6))
    np.testing.assert_array_equal(time_slice(values, -1), values[:, 0, 3])
    noisy = generator.normal(size=(5, 3, 4, 6))
    assert time_slice(noisy, 0).min() == 0 and time_slice(noisy, 0).max() == 1
    with pytest.raises(DataError, match="a row from 0 to 3, got 4"):
        time_slice(values, 4)
    with pytest.raises(DataError, match="1 or 3 channels"):
        time_slice(np.zeros((5, 4, 4, 6)), 0)


def test_colors_stay_as_they_are():
    frames = generator.uniform(size=(2, 3, 4, 5))
    noisy = frames + 0.02 * generator.normal(size=frames.shape)
    clean, other = latent_rgb([frames, noisy])
    np.testing.assert_array_equal(clean, np.moveaxis(frames, 1, -1))
    np.testing.assert_array_equal(other, np.clip(np.moveaxis(noisy, 1, -1), 0, 1))
    pixels = (frames * 255).astype(np.uint8)
    np.testing.assert_allclose(latent_rgb([pixels])[0], np.moveaxis(pixels, 1, -1) / 255, rtol=1e-6)


def test_latents_share_one_basis():
    first, second = generator.normal(size=(2, 3, 8, 6, 5)) * np.arange(8, 0, -1)[:, None, None]
    together = latent_rgb([first, second, first[0]])
    assert [made.shape for made in together] == [(3, 6, 5, 3), (3, 6, 5, 3), (6, 5, 3)]
    np.testing.assert_array_equal(together[2], together[0][0])
    assert all(made.min() >= 0 and made.max() <= 1 for made in together)
    # red follows the strongest channel
    inner = (together[0][..., 0] > 0) & (together[0][..., 0] < 1)
    assert np.corrcoef(together[0][..., 0][inner], first[:, 0][inner])[0, 1] > 0.9


def test_latents_with_gaps_or_few_channels_are_drawn():
    values = generator.normal(size=(2, 4, 5, 5))
    values[0, 1, 2, 3], values[1, 0, 0, 0] = np.nan, np.inf
    made = latent_rgb([values])[0]
    np.testing.assert_allclose([made[0, 2, 3], made[1, 0, 0]], [GRAY, GRAY])
    gray = latent_rgb([generator.normal(size=(1, 5, 5))])[0]
    np.testing.assert_array_equal(gray[..., 0], gray[..., 2])
    two = latent_rgb([generator.normal(size=(2, 5, 5))])[0]
    np.testing.assert_allclose(two[..., 2], 0.5)
    np.testing.assert_allclose(latent_rgb([np.full((4, 5, 5), np.nan)])[0], GRAY[0])


def test_latents_that_do_not_go_together_are_told():
    for arrays in ([], [np.zeros((4, 3, 3)), np.zeros((5, 3, 3))], [np.zeros((3, 3))]):
        with pytest.raises(DataError, match="of one number of channels"):
            latent_rgb(arrays)
    with pytest.raises(DataError, match="three channels, got 4"):
        latent_rgb([np.zeros((4, 3, 3))], colors=True)


def test_a_moving_picture_holds_its_figures_in_order():
    def one_by_one():
        made = figure(width_cm=2, height_cm=1, constrained=False)
        for color in ("#ff0000", "#00ff00", "#0000ff"):
            made.set_facecolor(color)
            yield made

    with Image.open(io.BytesIO(to_gif(one_by_one(), milliseconds=100, dpi=100, hold=3))) as picture:
        assert picture.n_frames == 3 and picture.info["loop"] == 0 and picture.size == (78, 39)
        seen = []
        for number in range(3):
            picture.seek(number)
            seen.append((picture.convert("RGB").getpixel((5, 5)), picture.info["duration"]))
    assert seen == [((255, 0, 0), 100), ((0, 255, 0), 100), ((0, 0, 255), 300)]
    with pytest.raises(DataError, match="at least one figure"):
        to_gif([])
