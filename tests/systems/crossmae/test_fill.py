"""Filling: observed cells untouched, hidden ones unseen, any size, spread, provenance, coordinates; forecasts."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import gridloom
from gridloom.core.errors import ConfigError, DataError
from gridloom.core.registry import get_system
from gridloom.core.settings import TrainConfig
from gridloom.core.system import Trained
from gridloom.encoders.encoder import SemanticEncoder
from gridloom.grid.gaps import mask_digest
from gridloom.grid.hydrology import hydrology
from gridloom.grid.read import open_grid
from gridloom.grid.synthetic import waves
from gridloom.systems.crossmae.config import (
    BackgroundConfig,
    CrossMAEConfig,
    DataConfig,
    MaskingConfig,
    ModalityConfig,
    ModelConfig,
)
from gridloom.systems.crossmae.fill import Filler

SMALL = ModelConfig(
    dim=16, image_depth=1, vector_depth=1, num_heads=2, decoder_dim=16, decoder_depth=1, decoder_heads=2,
    image_patch=(4, 4), vector_patch=4,
)  # fmt: skip
SHORT = TrainConfig(steps=12, batch_size=4, warmup_steps=2, validate_every=6, checkpoint_every=12, tensorboard=False)


def record(**options) -> xr.Dataset:
    return waves(num_times=20, height=12, width=16, **{"missing": 0.2, **options})


def settings(path: str, **changes) -> CrossMAEConfig:
    config = CrossMAEConfig(
        data=DataConfig(path=path, window=(6, 8, 8), gaps="real", gap_share=0.1),
        model=SMALL,
        masking=MaskingConfig(strategies=("random", "gaps"), share=0.5, cells=0.1),
        train=SHORT,
    )
    return replace(config, **changes)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "waves.nc"
    whole = record()
    whole["temperature"][:, 0, :3] = np.nan  # never observed
    gridloom.save_grid(whole.assign_coords(run=3), path)
    return path


@pytest.fixture(scope="module")
def run(data, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    gridloom.train_system("crossmae", settings(str(data)), output=folder, show=False)
    assert "Held out" in (folder / "report.html").read_text()
    return folder


@pytest.fixture(scope="module")
def filled(run, data) -> xr.Dataset:
    return gridloom.fill(data, run)


def test_every_gap_is_filled_and_observed_cells_are_untouched_to_the_bit(filled, data):
    given = open_grid(data)
    for name in ("temperature", "salinity"):
        seen = np.isfinite(given[name].values)
        assert filled[name].dtype == given[name].dtype
        np.testing.assert_array_equal(filled[name].values[seen], given[name].values[seen])
        ever = np.broadcast_to(seen.any(0), seen.shape)
        assert np.isfinite(filled[name].values[ever]).all()


def test_filled_cells_have_a_spread_and_every_cell_a_source(filled, data):
    seen = np.isfinite(open_grid(data)["temperature"].values)
    source, std = filled["temperature_source"].values, filled["temperature_std"].values
    never = ~np.broadcast_to(seen.any(0), seen.shape)
    assert never.any() and (source[never] == 2).all() and np.isnan(filled["temperature"].values[never]).all()
    assert ((source == 0) == seen).all() and (source[~seen & ~never] == 1).all()
    assert (std[seen] == 0).all() and (std[source == 1] > 0).all() and np.isnan(std[never]).all()
    assert filled["temperature_source"].attrs["flag_meanings"] == "observed filled never_had_data"


def test_coordinates_units_and_everything_else_are_kept(filled, data):
    given = open_grid(data)
    assert set(filled.coords) == set(given.coords)
    for name in given.coords:
        xr.testing.assert_identical(filled[name], given[name])
    assert filled["temperature"].attrs["units"] == given["temperature"].attrs["units"]
    assert filled["temperature_std"].attrs["units"] == given["temperature"].attrs["units"]
    assert filled["temperature"].dims == given["temperature"].dims
    assert (
        "filled_by_model" in filled.attrs
        and "temperature, held-out cells of the training record within 1 sigma" in filled.attrs
    )


def test_what_is_written_is_what_is_returned(run, data, tmp_path):
    for name in ("a.nc", "a.zarr"):
        returned = gridloom.fill(data, run, output=tmp_path / name)
        written = open_grid(tmp_path / name).load()
        xr.testing.assert_equal(written, returned)
        with pytest.raises(DataError, match="exists already"):
            gridloom.fill(data, run, output=tmp_path / name)


def test_direction_and_order_of_the_axes_change_nothing(run, data, filled):
    given = open_grid(data).load()
    turned = given.isel(latitude=slice(None, None, -1)).transpose("longitude", "latitude", "time")
    back = gridloom.fill(turned, run).isel(latitude=slice(None, None, -1)).transpose(*given["temperature"].dims)
    np.testing.assert_allclose(back["temperature"].values, filled["temperature"].values, rtol=0, atol=1e-5)


@pytest.mark.parametrize("box", [{"time": 3}, {"latitude": 5, "longitude": 7}, {"time": 11, "longitude": 15}])
def test_records_of_any_size_are_filled(run, data, box):
    part = open_grid(data).isel({dim: slice(0, size) for dim, size in box.items()})
    found = gridloom.fill(part, run)
    seen = np.isfinite(part["salinity"].values)
    assert found["salinity"].shape == part["salinity"].shape
    assert np.isfinite(found["salinity"].values[np.broadcast_to(seen.any(0), seen.shape)]).all()


def test_hidden_values_are_not_seen_when_a_run_is_evaluated(run):
    system = get_system("crossmae")
    _, trained = gridloom_model(run)
    task = system.prepare(trained.config).task("test")
    assert all(np.isnan(task.given[name].values[task.wanted[name].values]).all() for name in task.wanted.data_vars)
    assert all(task.wanted[name].values.any() for name in task.wanted.data_vars)
    # What is not in `given` cannot be known: the truth enters through it alone.
    first = Filler(trained).predict(task.given, task.wanted)
    again = Filler(trained).predict(task.given.copy(deep=True), task.wanted)
    xr.testing.assert_identical(first, again)


def gridloom_model(run: Path) -> tuple:
    from gridloom.encoders.artifact import load_model

    return load_model(run)


def test_parts_do_not_overlap_and_masks_are_recorded(run, data):
    from gridloom.core.atomic import read_json

    _, trained = gridloom_model(run)
    prepared = get_system("crossmae").prepare(trained.config)
    test, validation = (prepared.task(part).wanted["temperature"].values for part in ("test", "validation"))
    assert test.any() and validation.any() and not (test & validation).any()
    history = prepared.history["temperature"].values
    assert np.isnan(history[test]).all() and np.isnan(history[validation]).all()
    assert read_json(run / "splits.json")["masks"]["test"]["temperature"] == mask_digest(test)


def test_intervals_are_calibrated_on_validation_cells(run):
    _, trained = gridloom_model(run)
    prepared = get_system("crossmae").prepare(trained.config)
    task = prepared.task("validation")
    found = Filler(trained).predict(task.given, task.wanted)
    for name in ("temperature", "salinity"):
        cells = task.wanted[name].values
        ratio = (np.abs(found[name] - task.truth[name]) / found[f"{name}_std"]).values[cells]
        assert (ratio <= 1.6449).mean() == pytest.approx(0.9, abs=0.01)


def test_no_value_of_a_filled_record_depends_on_what_else_is_asked(run, data):
    _, trained = gridloom_model(run)
    given = open_grid(data)[["temperature", "salinity"]].load()
    gaps = given.map(np.isnan)
    one = gaps.copy(deep=True)
    one["salinity"][:] = False
    one["temperature"][10:] = False
    whole, part = (Filler(trained).predict(given, asked) for asked in (gaps, one))
    cells = one["temperature"].values
    assert cells.any()
    np.testing.assert_allclose(whole["temperature"].values[cells], part["temperature"].values[cells], rtol=0, atol=1e-4)


def test_frames_to_come_go_on_with_the_calendar(run, data):
    ahead = gridloom.forecast(data, run, 2)
    last = open_grid(data)["time"].values[-1]
    assert (ahead["time"].values == last + np.arange(1, 3) * np.timedelta64(1, "D")).all()
    ever = np.isfinite(open_grid(data)["salinity"].values).any(0)
    assert np.isfinite(ahead["salinity"].values[:, ever]).all() and (ahead["salinity_std"].values[:, ever] > 0).all()
    with pytest.raises(DataError, match="1 step or more"):
        gridloom.forecast(data, run, 0)


def test_windows_are_encoded_with_their_coordinates(run, data):
    encoder = SemanticEncoder.from_pretrained(run)
    embeddings = encoder.encode_dataset(data, stride={"time": 6})
    assert embeddings.dims == ("time", "latitude", "longitude", "feature") and embeddings.sizes["feature"] == 32
    assert np.isfinite(embeddings.values).all()
    tokens = encoder.encode(probe(encoder), output="tokens")
    assert tokens.shape == (2, 2 * 6 * 4, 16)
    with pytest.raises(DataError, match="temperature"):
        encoder.encode(torch.zeros(2, 1, 8, 8))


def probe(encoder: SemanticEncoder):
    from gridloom.encoders.fitting import probe_batch

    return probe_batch(encoder.encoder.inputs, 2)


def test_a_background_is_what_an_untrained_model_says(data, tmp_path):
    config = settings(
        str(data),
        data=DataConfig(path=str(data), variables=("temperature",), window=(6, 0, 0), gaps="blocks", gap_share=0.1),
        background=BackgroundConfig(kinds=("linear", "eof"), folds=2),
    )
    system = get_system("crossmae")
    config = system.resolve(config)
    assert system.resolve(config) == config and config.background.fitted["temperature"].eof_rank >= 0
    prepared = system.prepare(config)
    batch = prepared.sources["train"].collate([0, 1], 0)
    known = batch.fields["temperature.known"].values
    visible = batch.fields["temperature"].valid & ~batch.features["temperature.hidden"]
    values = batch.fields["temperature"].values
    assert known.shape == (*values.shape, len(config.background.kinds) + 1)
    torch.testing.assert_close(known[..., 0][visible], values[visible], rtol=0, atol=1e-4)  # observations stand
    objective = system.objective(config).eval()
    task = prepared.task("test")
    found = Filler(Trained(config=config, objective=objective, normalizer=prepared.normalizer)).predict(
        task.given, task.wanted
    )
    cells = task.wanted["temperature"].values
    error = np.sqrt(np.square((found["temperature"] - task.truth["temperature"]).values[cells]).mean())
    assert error < 0.8 * float(task.truth["temperature"].std())


def test_hidden_cells_do_not_reach_the_background(data):
    config = settings(
        str(data),
        data=DataConfig(path=str(data), variables=("temperature",), window=(6, 0, 0), gaps="blocks", gap_share=0.1),
        background=BackgroundConfig(kinds=("linear",), folds=1),
    )
    system = get_system("crossmae")
    config = system.resolve(config)
    task = system.prepare(config).task("test")
    objective = system.objective(config).eval()
    filler = Filler(Trained(config=config, objective=objective, normalizer=system.prepare(config).normalizer))
    first = filler.predict(task.given, task.wanted)
    spoiled = task.given.copy(deep=True)
    assert np.isnan(spoiled["temperature"].values[task.wanted["temperature"].values]).all()
    xr.testing.assert_identical(first, filler.predict(spoiled, task.wanted))


def test_series_and_attributes_are_filled_beside_fields(tmp_path):
    made = hydrology(num_days=60, height=12, width=8, num_places=5, patch=2)
    gridloom.save_grid(made, tmp_path / "water.nc")
    config = CrossMAEConfig(
        data=DataConfig(path=str(tmp_path / "water.nc"), window=(8, 0, 0), split="time", fractions=(0.5, 0.2, 0.3)),
        model=replace(SMALL, image_patch=(2, 2), fusion="cross"),
        masking=MaskingConfig(share=0.5, predict=0.5),
        train=replace(SHORT, steps=4, validate_every=4),
    )
    run = tmp_path / "run"
    result = gridloom.train_system("crossmae", config, output=run, show=False, report=False)
    assert {"climatology", "linear in time", "crossmae"} == {score.method for score in result.scores}
    assert {score.group for score in result.scores} >= {"precipitation", "river_flow"}
    filled = gridloom.fill(tmp_path / "water.nc", run)
    seen = np.isfinite(made["river_flow"].values)
    ever = np.broadcast_to(seen.any(1, keepdims=True), seen.shape)
    assert np.isfinite(filled["river_flow"].values[ever]).all()
    np.testing.assert_array_equal(filled["river_flow"].values[seen], made["river_flow"].values[seen])
    alone = gridloom.impute(tmp_path / "water.nc", run)
    assert "precipitation_std" not in alone and "river_flow_std" in alone
    xr.testing.assert_identical(alone["soil_moisture"], open_grid(tmp_path / "water.nc")["soil_moisture"])


def test_a_variable_of_another_name_keeps_it(data, tmp_path):
    config = settings(str(data), data=DataConfig(path=str(data), variables=("salinity",), window=(6, 8, 8)))
    config = replace(config, train=replace(SHORT, steps=1, validate_every=0))
    gridloom.train_system("crossmae", config, output=tmp_path / "run", show=False, report=False)
    other = open_grid(data)["salinity"].rename("salt")
    found = gridloom.fill(other, tmp_path / "run")
    assert {"salt", "salt_std", "salt_source"} == set(map(str, found.data_vars))
    assert "salt" in gridloom.forecast(other, tmp_path / "run", 1)


def test_what_is_no_target_stays_visible_and_is_not_asked(data):
    config = settings(str(data), modalities={"temperature": ModalityConfig(), "salinity": ModalityConfig(target=False)})
    system = get_system("crossmae")
    task = system.prepare(system.resolve(config)).task("test")
    assert task.wanted["temperature"].values.any() and not task.wanted["salinity"].values.any()


def test_what_cannot_be_filled_is_said_in_one_line(run, data, tmp_path):
    with pytest.raises(DataError, match="time"):
        gridloom.fill(record().isel(time=0, drop=True), run)
    with pytest.raises(DataError, match="add it full of NaN"):
        gridloom.fill(record().drop_vars("salinity").assign(other=record()["salinity"]), run)
    with pytest.raises(DataError, match="real needs gaps"):
        system = get_system("crossmae")
        gridloom.save_grid(record(missing=0.0), tmp_path / "whole.nc")
        system.resolve(settings(str(tmp_path / "whole.nc")))
    with pytest.raises(ConfigError, match=r"data\.split cells"):
        settings(str(data), data=DataConfig(split="time"), background=BackgroundConfig(kinds=("eof",)))
    with pytest.raises(DataError, match="fields alone"):
        gridloom.impute(data, run)
