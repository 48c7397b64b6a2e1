from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from gridloom.core.errors import DataError, GridloomError
from gridloom.encoders.encoder import SemanticEncoder
from gridloom.grid.synthetic import waves
from tests.encoders.small import LATENT, small_encoder


@pytest.fixture
def trained(tiny_run: Path) -> SemanticEncoder:
    return SemanticEncoder.from_pretrained(tiny_run, device="cpu")


def wide() -> xr.Dataset:
    """Three days of 64 x 80 cells, with the west of the second day missing."""
    dataset = waves(num_times=3, height=64, width=80)[["temperature"]]
    dataset["temperature"][1, :32, :32] = np.nan
    return dataset


def test_coordinates_come_out_with_the_embeddings(trained: SemanticEncoder) -> None:
    dataset = wide()
    found = trained.encode_dataset(dataset)
    assert found.dims == ("time", "latitude", "longitude", "feature") and found.name == "embedding"
    assert found.dtype == np.float32 and found.sizes["feature"] == trained.latent_dim
    assert np.array_equal(found["time"], dataset["time"])
    latitude, longitude = dataset["latitude"].values, dataset["longitude"].values
    assert np.allclose(found["latitude"], [latitude[:32].mean(), latitude[32:].mean()])
    assert np.allclose(found["longitude"], [longitude[:32].mean(), longitude[32:64].mean(), longitude[48:].mean()])
    assert found["latitude"].attrs["units"] == "degrees_north"


def test_each_window_is_encoded_as_the_array_it_is(trained: SemanticEncoder) -> None:
    dataset = wide()
    found = trained.encode_dataset(dataset, batch_size=2)
    values = dataset["temperature"].values
    expected = trained.encode_numpy(np.stack([values[2, 32:, 48:], values[0, :32, 32:64]]))
    assert np.allclose(found.values[2, 1, 2], expected[0], rtol=1e-5, atol=1e-6)
    assert np.allclose(found.values[0, 0, 1], expected[1], rtol=1e-5, atol=1e-6)


def test_a_window_without_data_is_nan_and_the_share_is_told(trained: SemanticEncoder) -> None:
    dataset = wide()
    found = trained.encode_dataset(dataset)
    missing = np.isnan(dataset["temperature"].values)
    shares = np.stack([missing[:, y : y + 32, x : x + 32].mean(axis=(1, 2)) for y in (0, 32) for x in (0, 32, 48)], 1)
    assert np.allclose(found["missing_share"], shares.reshape(3, 2, 3))
    empty = found["missing_share"].values == 1
    assert empty.sum() == 1 and np.isnan(found.values[empty]).all()
    assert np.isfinite(found.values[~empty]).all()


def test_windows_may_overlap(trained: SemanticEncoder) -> None:
    dataset = wide()
    by_name = trained.encode_dataset(dataset, stride={"latitude": 16, "longitude": 24})
    assert by_name.sizes == {"time": 3, "latitude": 3, "longitude": 3, "feature": trained.latent_dim}
    assert by_name.identical(trained.encode_dataset(dataset, stride=(16, 24)))
    whole = trained.encode_dataset(dataset)
    assert np.allclose(by_name.values[:, 0, 0], whole.values[:, 0, 0], rtol=1e-5, atol=1e-6, equal_nan=True)


def test_the_size_of_the_parts_changes_nothing(trained: SemanticEncoder) -> None:
    one, many = (trained.encode_dataset(wide(), batch_size=size) for size in (1, 64))
    assert np.allclose(one, many, rtol=0, atol=1e-6 * float(np.nanmax(np.abs(one))), equal_nan=True)
    with pytest.raises(DataError, match="batch_size must be at least 1"):
        trained.encode_dataset(wide(), batch_size=0)


def test_a_path_is_taken_as_well(trained: SemanticEncoder, tiny_data: Path) -> None:
    found = trained.encode_dataset(tiny_data)
    assert found.sizes["time"] == 60
    with xr.open_dataset(tiny_data) as dataset:
        assert np.allclose(found, trained.encode_dataset(dataset.load()), rtol=1e-5, atol=1e-6)
    with pytest.raises(GridloomError, match=r"nowhere\.nc"):
        trained.encode_dataset("nowhere.nc")


def test_a_single_variable_of_another_name_is_taken(trained: SemanticEncoder) -> None:
    renamed = wide().rename(temperature="sst")
    assert np.array_equal(trained.encode_dataset(renamed), trained.encode_dataset(wide()), equal_nan=True)


def test_variables_that_are_not_the_trained_ones_are_refused(trained: SemanticEncoder) -> None:
    both = wide().rename(temperature="sst").assign(ice=lambda dataset: dataset["sst"] * 0)
    with pytest.raises(GridloomError, match="temperature"):
        trained.encode_dataset(both)
    with pytest.raises(DataError, match=r"longitude.*16|16.*longitude|larger"):
        trained.encode_dataset(wide().isel(longitude=slice(0, 16)))


def test_without_statistics_each_window_is_scaled_by_its_own_range(tmp_path: Path) -> None:
    encoder = small_encoder(tmp_path)
    dataset = waves(num_times=2, height=128, width=128, missing=0.0)[["temperature"]]
    found = encoder.encode_dataset(dataset)
    assert found.sizes == {"time": 2, "latitude": 1, "longitude": 1, "feature": LATENT}
    assert np.allclose(found, encoder.encode_dataset(dataset * 10 + 3), rtol=1e-3, atol=1e-4)
    assert np.allclose(found[:, 0, 0], encoder.encode_numpy(dataset["temperature"].values), atol=1e-5)
    dataset["temperature"][0] *= 1000  # a companion that the other window must not notice
    assert np.array_equal(encoder.encode_dataset(dataset)[1], found[1])


def test_another_window_than_the_trained_one_can_be_asked(trained: SemanticEncoder) -> None:
    found = trained.encode_dataset(wide(), window=(64, 32), stride=(64, 16))
    assert found.sizes["latitude"] == 1 and found.sizes["longitude"] == 4 and found.attrs["window_latitude"] == 64
    expected = trained.encode_numpy(wide()["temperature"].values[:1, :, 16:48])
    assert np.allclose(found[0, 0, 1], expected[0], rtol=1e-5, atol=1e-6)
    with pytest.raises(DataError, match="window must be multiples of 32, got 64x40"):
        trained.encode_dataset(wide(), window=(64, 40))


def test_longitude_before_latitude_gives_the_same_embeddings(trained: SemanticEncoder) -> None:
    found = trained.encode_dataset(wide().transpose("time", "longitude", "latitude"))
    assert found.dims == ("time", "latitude", "longitude", "feature")
    assert np.array_equal(found, trained.encode_dataset(wide()), equal_nan=True)


def test_a_data_array_is_one_variable(trained: SemanticEncoder) -> None:
    found = trained.encode_dataset(wide()["temperature"])
    assert np.array_equal(found, trained.encode_dataset(wide()), equal_nan=True)
    assert np.array_equal(trained.encode_dataset(wide()["temperature"].rename(None)), found, equal_nan=True)


def test_similarity_takes_arrays_and_refuses_what_are_no_rows() -> None:
    rows = np.eye(3, dtype=np.float32)
    assert np.array_equal(SemanticEncoder.similarity(rows, 2 * rows[:2]), rows[:, :2])
    with pytest.raises(DataError, match=r"expected \[n, feature\] and \[m, feature\], got \[3, 3\] and \[2, 5\]"):
        SemanticEncoder.similarity(rows, np.zeros((2, 5), dtype=np.float32))
