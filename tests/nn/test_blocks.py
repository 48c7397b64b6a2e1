"""Blocks: shapes, normalization, and the cosine basis against its definition."""

import math

import numpy as np
import pytest
import scipy.fft
import torch

from gridloom.nn.conv import BasicBlock, UpBlock, make_norm
from gridloom.nn.cosine import cosine_basis


def test_the_cosine_basis_is_orthonormal() -> None:
    basis = cosine_basis(8, 64)
    assert torch.allclose(basis @ basis.T, torch.eye(64), atol=1e-6)


def test_it_is_the_transform_that_scipy_computes() -> None:
    picture = np.random.default_rng(0).normal(size=(8, 8))
    ours = np.sort(np.abs(cosine_basis(8, 64).double().numpy() @ picture.ravel()))
    assert ours == pytest.approx(np.sort(np.abs(scipy.fft.dctn(picture, norm="ortho")).ravel()), abs=1e-5)


def test_frequencies_rise_and_finer_points_draw_the_same_functions() -> None:
    coarse, fine = cosine_basis(8, 20), cosine_basis(8, 20, points=24)
    assert torch.allclose(coarse[0], torch.full((64,), 1 / 8))
    centers = fine.view(20, 24, 24)[:, 1::3, 1::3].flatten(1)  # the middle of three cells is where the one cell is
    assert torch.allclose(centers, coarse, atol=1e-6)
    crossings = [
        (row.view(8, 8).sign().diff(dim=0) != 0).sum() + (row.view(8, 8).sign().diff(dim=1) != 0).sum()
        for row in coarse
    ]
    assert crossings[0] == 0 and crossings[-1] > crossings[1] > 0


@pytest.mark.parametrize("count", [0, 65])
def test_a_count_that_does_not_exist_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match="between 1 and size squared"):
        cosine_basis(8, count)


@pytest.mark.parametrize("channels", [1, 7, 16, 24, 64, 512])
def test_group_norm_fits_every_width(channels: int) -> None:
    x = torch.randn(2, channels, 4, 4)
    norm = make_norm("group", channels)
    assert isinstance(norm, torch.nn.GroupNorm)
    assert norm(x).shape == x.shape
    assert torch.allclose(norm(x)[:1], norm(x[:1]), atol=1e-6)
    assert isinstance(make_norm("batch", channels), torch.nn.BatchNorm2d)


@pytest.mark.parametrize(("stride", "outputs"), [(1, 8), (1, 12), (2, 8), (2, 16)])
def test_the_basic_block_projects_where_shape_changes(stride: int, outputs: int) -> None:
    block = BasicBlock(8, outputs, stride=stride)
    assert block(torch.randn(2, 8, 8, 8)).shape == (2, outputs, 8 // stride, 8 // stride)
    assert isinstance(block.skip, torch.nn.Identity) == (stride == 1 and outputs == 8)


def test_the_up_block_doubles() -> None:
    assert UpBlock(8, 4)(torch.randn(1, 8, 3, 5)).shape == (1, 4, 6, 10)
    assert math.prod(UpBlock(8, 4).conv.weight.shape) == 8 * 4 * 9
