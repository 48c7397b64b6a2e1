from pathlib import Path

import numpy as np
import pytest
import torch

from gridloom.core.errors import DataError
from gridloom.encoders.arrays import scale_by_own_range
from gridloom.encoders.encoder import SemanticEncoder
from tests.encoders.small import LATENT, images, small_encoder


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> SemanticEncoder:
    """Weights without statistics."""
    return small_encoder(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def trained(tiny_run: Path) -> SemanticEncoder:
    return SemanticEncoder.from_pretrained(tiny_run, device="cpu")


def fields(count: int = 4, channels: int = 1) -> np.ndarray:
    """In data units, no gaps."""
    return (15 + 3 * images(count, channels=channels).numpy()).astype(np.float32)


def test_shapes(plain: SemanticEncoder, tmp_path: Path) -> None:
    values = fields()
    wanted = plain.encode_numpy(values)
    assert wanted.shape == (4, LATENT) and wanted.dtype == np.float32
    assert np.array_equal(plain.encode_numpy(values[:, 0]), wanted)
    assert np.allclose(plain.encode_numpy(values[0, 0]), wanted[:1], rtol=1e-5, atol=1e-6)
    assert small_encoder(tmp_path, channels=3).encode_numpy(fields(2, 3)).shape == (2, LATENT)
    assert plain.encode_numpy(values[:0]).shape == (0, LATENT)


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros(32), r"got 1 dimensions \(32,\)"),
        (np.zeros((1, 1, 1, 32, 32)), "got 5 dimensions"),
        (np.zeros((2, 3, 32, 32)), r"expected 1 channels.*got \(2, 3, 32, 32\)"),
        (np.zeros((32, 32), dtype="datetime64[s]"), "expected numbers, got dtype datetime64"),
        (np.zeros((32, 32), dtype=object), "expected numbers, got dtype object"),
        (np.zeros((32, 32), dtype=complex), "expected numbers, got dtype complex128"),
        (np.zeros((31, 32)), "multiples of 32, got 31x32"),
    ],
)
def test_what_is_no_field_is_refused(plain: SemanticEncoder, array: np.ndarray, says: str) -> None:
    with pytest.raises(DataError, match=says):
        plain.encode_numpy(array)


LAYOUTS = {
    "big-endian": lambda values: values.astype(">f4"),
    "float64": lambda values: values.astype(np.float64),
    "Fortran order": np.asfortranarray,
    "negative strides": lambda values: np.ascontiguousarray(values[..., ::-1, ::-1])[..., ::-1, ::-1],
    "negative stride of samples": lambda values: np.ascontiguousarray(values[::-1])[::-1],
    "every other cell": lambda values: values.repeat(2, axis=-1)[..., ::2],
    "masked without a mask": np.ma.masked_array,
}


@pytest.mark.parametrize("change", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_layout_and_byte_order_change_nothing(plain: SemanticEncoder, change) -> None:
    assert np.array_equal(plain.encode_numpy(change(fields())), plain.encode_numpy(fields()))


def test_a_read_only_array_is_taken_and_no_array_is_changed(plain: SemanticEncoder) -> None:
    values = fields()
    values[0, 0, 0, 0] = np.inf
    before = values.copy()
    values.flags.writeable = False
    assert np.isfinite(plain.encode_numpy(values)).all()
    assert np.array_equal(values, before)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", ">u2", "int16", "int64", "float16"])
def test_any_number_type_is_taken(plain: SemanticEncoder, dtype: str) -> None:
    counts = np.arange(2 * 32 * 32).reshape(2, 32, 32) % 200
    assert np.array_equal(plain.encode_numpy(counts.astype(dtype)), plain.encode_numpy(counts.astype(np.float32)))


def test_booleans_are_taken(plain: SemanticEncoder) -> None:
    mask = images()[:, 0].numpy() > 0
    assert np.array_equal(plain.encode_numpy(mask), plain.encode_numpy(mask.astype(np.float32)))


def test_the_mask_of_a_masked_array_is_kept(plain: SemanticEncoder) -> None:
    values = fields()
    mask = values > 17
    gaps = np.where(mask, np.nan, values)
    masked = np.ma.masked_array(np.where(mask, -9999, values), mask)
    assert np.array_equal(plain.encode_numpy(masked), plain.encode_numpy(gaps))
    whole_numbers = np.ma.masked_array(np.arange(1024).reshape(32, 32), np.eye(32, dtype=bool), fill_value=-1)
    as_floats = np.where(np.eye(32, dtype=bool), np.nan, np.arange(1024.0).reshape(32, 32))
    assert np.array_equal(plain.encode_numpy(whole_numbers), plain.encode_numpy(as_floats))


@pytest.mark.parametrize("value", [0.0, 7.0, -1e30, 3e38])
def test_a_constant_field_has_a_finite_embedding(plain: SemanticEncoder, value: float) -> None:
    zero = plain.encode_numpy(np.zeros((32, 32), dtype=np.float32), normalize=False)
    assert np.array_equal(plain.encode_numpy(np.full((32, 32), value, dtype=np.float32)), zero)


def test_one_missing_cell_touches_no_other_field(plain: SemanticEncoder, trained: SemanticEncoder) -> None:
    for encoder in (plain, trained):
        whole, gap = fields(), fields()
        gap[1, 0, 3, 4] = np.nan
        before, after = encoder.encode_numpy(whole), encoder.encode_numpy(gap)
        assert np.array_equal(before[[0, 2, 3]], after[[0, 2, 3]])
        assert np.isfinite(after).all() and not np.array_equal(before[1], after[1])


def test_an_outlier_touches_no_other_field(plain: SemanticEncoder) -> None:
    whole, outlier = fields(), fields()
    outlier[2] *= 1000
    assert np.array_equal(plain.encode_numpy(whole)[[0, 1, 3]], plain.encode_numpy(outlier)[[0, 1, 3]])


def test_a_field_without_any_cell_is_defined(plain: SemanticEncoder, trained: SemanticEncoder) -> None:
    for encoder in (plain, trained):
        nothing = fields()
        nothing[1] = np.nan
        found = encoder.encode_numpy(nothing)
        assert np.isfinite(found).all()
        assert np.array_equal(found[[0, 2, 3]], encoder.encode_numpy(fields())[[0, 2, 3]])


def test_policies_for_missing_cells(plain: SemanticEncoder) -> None:
    gaps = fields()
    gaps[0, 0, :4] = np.nan
    filled = np.where(np.isnan(gaps), np.float32(15), gaps)
    assert np.array_equal(plain.encode_numpy(gaps, missing="fill", fill_value=15.0), plain.encode_numpy(filled))
    assert not np.allclose(plain.encode_numpy(gaps)[0], plain.encode_numpy(filled)[0])
    with pytest.raises(DataError, match="128 of 4096 cells are missing; pass missing='mask' or 'fill'"):
        plain.encode_numpy(gaps, missing="raise")
    assert np.array_equal(plain.encode_numpy(filled, missing="raise"), plain.encode_numpy(filled))


def test_without_statistics_each_field_is_scaled_by_its_own_range(plain: SemanticEncoder) -> None:
    values = fields()
    low, high = values.min(axis=(1, 2, 3), keepdims=True), values.max(axis=(1, 2, 3), keepdims=True)
    scaled = -1 + 2 * (values.astype(np.float64) - low) / (high - low)
    expected = plain.encode_numpy(scaled.astype(np.float32), normalize=False)
    assert np.allclose(plain.encode_numpy(values), expected, atol=1e-5)


def test_the_range_is_that_of_the_valid_cells() -> None:
    values = np.array([[[[1.0, 3.0, np.nan, 5.0]]], [[[np.nan, np.nan, np.nan, np.nan]]], [[[4.0, 4.0, np.nan, 4.0]]]])
    scaled = scale_by_own_range(values.astype(np.float32))
    expected = np.array([[-1.0, 0.0, np.nan, 1.0], [np.nan] * 4, [0.0, 0.0, np.nan, 0.0]])
    assert np.array_equal(scaled[:, 0, 0], expected, equal_nan=True)


def test_an_artifact_normalizes_with_its_training_statistics(trained: SemanticEncoder) -> None:
    values = fields()
    assert trained.normalizer is not None
    normalized = trained.normalizer.apply("temperature", values[:, 0])[:, None]
    expected = trained.encode_batch(torch.from_numpy(normalized)).numpy()
    assert np.array_equal(trained.encode_numpy(values), expected)
    assert not np.allclose(trained.encode_numpy(values), trained.encode_numpy(2 * values + 1))
    assert np.array_equal(trained.encode_numpy(normalized, normalize=False), expected)


def test_the_size_of_the_parts_changes_nothing(plain: SemanticEncoder) -> None:
    values = fields(9)
    wanted = plain.encode_numpy(values)
    for size in (1, 2, 5):
        assert np.allclose(plain.encode_numpy(values, batch_size=size), wanted, rtol=1e-5, atol=1e-6)


def test_the_encoder_is_as_before_afterwards(plain: SemanticEncoder) -> None:
    plain.train()
    plain.encode_numpy(fields())
    assert all(module.training for module in plain.modules())
    plain.eval()
