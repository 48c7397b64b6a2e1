"""search: from embeddings in a file to a table in another."""

import csv
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from gridloom.core.errors import DataError
from gridloom.encoders.encoder import SemanticEncoder
from gridloom.grid.read import open_grid
from gridloom.grid.synthetic import waves
from gridloom.grid.write import save_grid
from gridloom.workflows.encode import encode
from gridloom.workflows.search import find_duplicates, find_outliers, parse_place, search
from tests.encoders.small import small_encoder


@pytest.fixture(scope="module")
def embedded(tiny_run: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Embeddings of 60 days; the second day is empty, the fifth a copy of the third."""
    days = open_grid(tiny_data)[["temperature"]].load()
    days["temperature"][1] = np.nan
    days["temperature"][4] = days["temperature"][2]
    path = tmp_path_factory.mktemp("search") / "embeddings.zarr"
    encode(tiny_run, days, output=path)
    return path


def test_a_place_finds_its_copy_and_never_itself_or_the_empty_day(embedded: Path) -> None:
    days = open_grid(embedded)["time"].values
    by_name = search(embedded, f"time={str(days[2])[:10]}", k=58)
    assert by_name.identical(search(str(embedded), {"time": days[2]}, k=58))
    assert by_name.identical(search(embedded, 2, k=58)) and by_name.identical(search(embedded, "2", k=58))
    assert by_name["found_time"][0, 0] == days[4] and by_name["similarity"][0, 0] == pytest.approx(1, abs=1e-12)
    assert sorted(by_name["found_row_number"].values[0]) == [0, *range(3, 60)]
    assert by_name.attrs["num_embeddings"] == 59 and by_name.attrs["num_left_out"] == 1


def test_data_is_encoded_by_the_model_and_finds_itself(
    embedded: Path, tiny_run: Path, tiny_data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    some = open_grid(tiny_data).isel(time=[10, 20])
    found = search(embedded, some, model=tiny_run, k=1)
    np.testing.assert_array_equal(found["found_row_number"][:, 0], [10, 20])
    np.testing.assert_array_equal(found["query_time"], some["time"])
    np.testing.assert_allclose(found["similarity"], 1.0, atol=1e-6)
    assert "overlapping" not in caplog.text
    far = search(embedded, str(tiny_data), model=tiny_run, k=2, apart={"time": "3D"}, overlapping=True)
    assert "overlapping windows are left out only where" in caplog.text
    assert (np.abs(far["found_time"] - far["query_time"]) >= np.timedelta64(3, "D")).all()


def test_other_embeddings_are_taken_if_the_same_encoder_made_them(embedded: Path, tmp_path: Path) -> None:
    with xr.open_zarr(embedded, chunks=None) as stored:
        some = stored["embedding"].isel(time=slice(30, 33)).load()
    save_grid(some.to_dataset(name="embedding"), tmp_path / "some.nc")
    for query in (tmp_path / "some.nc", str(tmp_path / "some.nc"), some):
        np.testing.assert_array_equal(search(embedded, query, k=1)["found_row_number"][:, 0], [30, 31, 32])
    with pytest.raises(DataError, match="of another encoder"):
        search(embedded, some.assign_attrs(encoder_sha256="0" * 64))


def test_data_through_another_encoder_is_refused(embedded: Path, tmp_path: Path) -> None:
    other = small_encoder(tmp_path)
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(DataError, match="the queries are of another encoder"):
        search(embedded, waves(num_times=1, height=128, width=128)[["temperature"]], model=tmp_path / "other")


def test_embeddings_say_which_encoder_made_them_and_where_their_windows_begin(tiny_run: Path, tmp_path: Path) -> None:
    encoder = SemanticEncoder.from_pretrained(tiny_run, device="cpu")
    encoder.save_pretrained(tmp_path / "encoder")
    again = SemanticEncoder.from_pretrained(tmp_path / "encoder", device="cpu")
    data = xr.Dataset({"temperature": (("lat", "lon"), np.random.default_rng(0).normal(size=(32, 70)))})
    made = [part.encode_dataset(data, stride=(32, 16)) for part in (encoder, again)]
    assert made[0].attrs["encoder_sha256"] == made[1].attrs["encoder_sha256"]
    assert made[0]["cell_lon"].values.tolist() == [0, 16, 32, 38]
    found = search(made[0], 0, k=9)
    assert found["found_lon"].values[0].tolist() in ([48, 54], [54, 48])
    assert search(made[0], 0, k=9, overlapping=True).sizes["rank"] == 3


def test_duplicates_and_outliers_are_written(embedded: Path, tmp_path: Path) -> None:
    found = find_duplicates(embedded, 1.0, output=tmp_path / "same.csv")
    assert found["found_row_number"].values.tolist() == [4] and found["first_row_number"].values.tolist() == [2]
    with (tmp_path / "same.csv").open() as file:
        (line,) = csv.DictReader(file)
    assert float(line["similarity"]) == pytest.approx(1) and line["found_row_number"] == "4"
    assert np.datetime64(line["first_time"]) == found["first_time"].values[0]
    odd = find_outliers(embedded, 3, k=2, output=tmp_path / "odd.nc")
    assert odd.sizes["rank"] == 3 and (np.diff(odd["score"]) <= 0).all()
    with pytest.raises(DataError, match=r"odd\.nc exists already"):
        find_outliers(embedded, 3, output=tmp_path / "odd.nc")
    find_outliers(embedded, 2, output=tmp_path / "odd.nc", replace=True)
    assert open_grid(tmp_path / "odd.nc").sizes["rank"] == 2
    with pytest.raises(DataError, match=r"ends in \.csv, \.nc, \.zarr"):
        find_duplicates(embedded, output=tmp_path / "same.txt")


def test_what_was_not_found_is_not_in_the_table(
    embedded: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    days = open_grid(embedded)["time"].values
    found = search(embedded, {}, k=59, apart={"time": "50D"}, output=tmp_path / "far.csv")
    assert (found["found_row_number"] == -1).any()
    assert "1 of 60 windows there are empty" in caplog.text
    with (tmp_path / "far.csv").open() as file:
        lines = list(csv.DictReader(file))
    full = np.delete(days, 1)
    assert len(lines) == (np.abs(full[:, None] - full[None]) >= np.timedelta64(50, "D")).sum()
    assert list(lines[0])[:2] == ["query_row_number", "query_time"] and list(lines[0])[-1] == "similarity"


@pytest.mark.parametrize("text", ["lat", "lat=", "=3", "lat=1,lat=2", ""])
def test_a_place_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="expected each name once with a value, like lat="):
        parse_place(text)


def test_a_place_is_read_with_its_spaces_and_signs() -> None:
    assert parse_place("month=3, lat = -10.5,time=2020-01-01T06:00") == {
        "month": "3",
        "lat": "-10.5",
        "time": "2020-01-01T06:00",
    }


def test_with_a_model_the_query_is_data(embedded: Path, tiny_run: Path) -> None:
    with pytest.raises(DataError, match=r"with a model the query is data .* got int"):
        search(embedded, 3, model=tiny_run)
