"""Coordinates of cells, against double loops in float64."""

import math

import numpy as np
import pytest
import torch

from gridloom.nn.spatial import CoordConv, SpatialSoftArgmax, axis_coordinates


def random_maps(batch: int, channels: int, height: int, width: int) -> torch.Tensor:
    return 3 * torch.randn(batch, channels, height, width, generator=torch.Generator().manual_seed(0))


def expected_positions(maps: np.ndarray) -> np.ndarray:
    """Softmax over positions and expected coordinates, one cell at a time."""
    batch, channels, height, width = maps.shape
    found = np.zeros((batch, 2 * channels))
    for b in range(batch):
        for c in range(channels):
            total = sum(math.exp(maps[b, c, i, j]) for i in range(height) for j in range(width))
            for i in range(height):
                for j in range(width):
                    weight = math.exp(maps[b, c, i, j]) / total
                    found[b, 2 * c] += weight * (2 * i / (height - 1) - 1)
                    found[b, 2 * c + 1] += weight * (2 * j / (width - 1) - 1)
    return found


def test_coordinates_of_an_axis_run_from_minus_one_to_one() -> None:
    assert axis_coordinates(5).tolist() == [-1.0, -0.5, 0.0, 0.5, 1.0]
    assert axis_coordinates(1).tolist() == [0.0]
    assert axis_coordinates(3, dtype=torch.float64).dtype == torch.float64


def test_coord_conv_puts_row_and_column_planes_in_front() -> None:
    x = random_maps(2, 3, 4, 7)
    out = CoordConv()(x)
    assert out.shape == (2, 5, 4, 7) and out.dtype == x.dtype
    assert torch.equal(out[:, 2:], x)
    for b in range(2):
        for i in range(4):
            for j in range(7):
                assert out[b, 0, i, j].item() == pytest.approx(2 * i / 3 - 1, abs=1e-7)
                assert out[b, 1, i, j].item() == pytest.approx(2 * j / 6 - 1, abs=1e-7)


@pytest.mark.parametrize(("height", "width"), [(6, 6), (4, 9), (9, 4)])
def test_soft_argmax_is_the_expected_position_interleaved(height: int, width: int) -> None:
    maps = random_maps(2, 3, height, width)
    expected = expected_positions(maps.double().numpy())
    assert np.abs(SpatialSoftArgmax()(maps).numpy() - expected).max() < 1e-6
    assert np.abs(SpatialSoftArgmax()(maps.double()).numpy() - expected).max() < 1e-14


def test_a_map_that_stands_out_in_one_cell_gives_its_position() -> None:
    maps = torch.zeros(1, 2, 5, 9)
    maps[0, 0, 1, 6] = maps[0, 1, 4, 0] = 200.0
    assert SpatialSoftArgmax()(maps)[0].tolist() == [-0.5, 0.5, 1.0, -1.0]


def test_weights_are_a_distribution_over_positions_that_a_constant_does_not_change() -> None:
    maps = random_maps(2, 3, 4, 7)
    weights = SpatialSoftArgmax().weights(maps)
    assert weights.shape == maps.shape and (weights > 0).all()
    assert torch.allclose(weights.sum((2, 3)), torch.ones(2, 3), atol=1e-6)
    assert torch.allclose(SpatialSoftArgmax()(maps + 50.0), SpatialSoftArgmax()(maps), atol=1e-5)


def test_sharpening_standardizes_each_map_by_itself() -> None:
    maps = random_maps(2, 3, 4, 7).double()
    sharp = SpatialSoftArgmax(sharpen=True).double()
    with torch.no_grad():
        sharp.log_gain.fill_(math.log(2.5))
    values = maps.numpy()
    center, deviation = values.mean((2, 3), keepdims=True), values.std((2, 3), keepdims=True)
    expected = expected_positions(2.5 * (values - center) / deviation)
    assert np.abs(sharp(maps).detach().numpy() - expected).max() < 1e-12
    assert torch.allclose(sharp(1e-3 * maps), sharp(maps), atol=1e-9)
