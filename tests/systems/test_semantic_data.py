from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from gridloom.core.errors import ConfigError, DataError, UnknownNameError
from gridloom.core.system import Trained
from gridloom.grid.normalize import Normalizer
from gridloom.grid.prepare import GridConfig, prepare_grid, stack_windows
from gridloom.grid.synthetic import waves
from gridloom.grid.write import save_grid
from gridloom.systems.semantic import PRESETS, SYSTEM, ModelConfig, SelfSupervised, SemanticConfig
from gridloom.systems.semantic.data import Reconstructor, prepare, resolve


def config_for(path: Path | str, **changes) -> SemanticConfig:
    data = GridConfig(path=str(path), window=(32, 32), stride=(32, 32))
    return SemanticConfig(data=replace(data, **changes), model=ModelConfig(latent_dim=16, width=4))


@pytest.fixture(scope="module")
def dataset() -> xr.Dataset:
    return waves(num_times=60, height=32, width=64)


@pytest.fixture(scope="module")
def path(dataset: xr.Dataset, tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("data") / "waves.nc"
    save_grid(dataset, file)
    return str(file)


def test_parts_do_not_touch_and_windows_stay_inside(path: str) -> None:
    parts = prepare_grid(config_for(path).data, seed=0)
    assert parts.splits.dim == "time"
    bounds = [parts.splits.bounds(part)["time"] for part in ("train", "validation", "test")]
    assert all(early[1] + parts.splits.gap <= late[0] for early, late in pairwise(bounds))
    assert bounds[0][0] == 0 and bounds[-1][1] == 60
    for part, (start, stop) in zip(("train", "validation", "test"), bounds, strict=True):
        windows = parts.windows[part]
        first = windows.first(np.arange(len(windows)))["time"]
        assert len(windows) == 2 * (stop - start)
        assert (first.min(), first.max()) == (start, stop - 1)


@pytest.mark.parametrize("dim", ["longitude", "latitude"])
def test_windows_of_a_split_in_space_stay_inside_their_part(dim: str, tmp_path: Path) -> None:
    save_grid(waves(num_times=1, height=320, width=320, missing=0.0), tmp_path / "map.nc")
    config = config_for(tmp_path / "map.nc", stride=(8, 8), split_dim=dim, fractions=(0.5, 0.25, 0.25))
    parts = prepare_grid(config.data, seed=0)
    assert parts.splits.gap >= 32
    seen = np.zeros((3, 320), dtype=bool)
    for number, part in enumerate(("train", "validation", "test")):
        first = parts.windows[part].first(np.arange(len(parts.windows[part])))[dim]
        for start in np.unique(first):
            seen[number, start : start + 32] = True
        low, high = parts.splits.bounds(part)[dim]
        assert seen[number, low:high].all() and seen[number].sum() == high - low
    assert (seen.sum(axis=0) <= 1).all()
    assert seen.any(axis=0).sum() <= 320 - 2 * 32


def test_statistics_come_from_the_training_part_alone(dataset: xr.Dataset, path: str, tmp_path: Path) -> None:
    before = prepare(config_for(path))
    stop, start = before.splits["parts"]["train"][1], before.splits["parts"]["test"][0]
    changed = dataset.copy(deep=True)
    for name in changed.data_vars:
        changed[name][start:] = 1000 + 50 * changed[name][start:]
    save_grid(changed, tmp_path / "changed.nc")
    after = prepare(config_for(tmp_path / "changed.nc"))
    assert after.normalizer == before.normalizer
    assert after.splits == before.splits
    training = dataset["temperature"].values[:stop].astype(np.float64)
    normalized = Normalizer.from_json(before.normalizer).apply("temperature", dataset["temperature"].values[:stop])
    assert np.allclose(normalized, (training - np.nanmean(training)) / np.nanstd(training), atol=1e-4, equal_nan=True)


def test_sources_give_normalized_windows(dataset: xr.Dataset, path: str) -> None:
    prepared = prepare(config_for(path))
    batch = prepared.sources["train"].collate([0, 3], 0)
    field = batch.fields["image"]
    assert field.values.shape == (2, 2, 32, 32)
    raw = dataset["salinity"].values[1, :, 32:]
    expected = Normalizer.from_json(prepared.normalizer).apply("salinity", raw)
    assert np.allclose(field.values[1, 1], np.nan_to_num(expected), atol=1e-6)
    assert np.array_equal(field.valid[1, 1].numpy(), np.isfinite(raw))


def test_the_task_asks_for_every_valid_cell_of_the_held_out_part(dataset: xr.Dataset, path: str) -> None:
    prepared = prepare(config_for(path))
    task = prepared.task("test")
    start, stop = prepared.splits["parts"]["test"]
    assert task.split == "test" and task.truth.sizes == {"sample": 2 * (stop - start), "y": 32, "x": 32}
    assert task.truth.identical(task.given)
    assert np.array_equal(task.wanted["temperature"], np.isfinite(task.truth["temperature"]))
    assert np.array_equal(task.truth["temperature"][0], dataset["temperature"][start, :, :32], equal_nan=True)
    assert np.array_equal(np.unique(task.truth["time"]), dataset["time"].values[start:stop])
    history = prepared.history
    assert history["time"].max() < task.truth["time"].min()


def test_stacked_windows_are_spread_evenly(path: str) -> None:
    parts = prepare_grid(config_for(path).data, seed=0)
    few = stack_windows(parts, "train", most=5)
    assert few["window"].values.tolist() == np.linspace(0, len(parts.windows["train"]) - 1, 5).round().tolist()


def test_resolving_fills_in_what_the_data_says_and_does_it_once(path: str) -> None:
    resolved = resolve(config_for(path))
    assert resolved.data.variables == ("temperature", "salinity") and resolved.model.input_channels == 2
    assert resolve(resolved) == resolved
    chosen = resolve(config_for(path, variables=("salinity",)))
    assert chosen.data.variables == ("salinity",) and chosen.model.input_channels == 1


def test_resolving_refuses_what_does_not_fit(path: str) -> None:
    config = config_for(path)
    with pytest.raises(DataError, match=r"2 variables \(temperature, salinity\), but model\.input_channels is 3; pass"):
        resolve(replace(config, model=replace(config.model, input_channels=3)))
    with pytest.raises(UnknownNameError, match="'temprature'; did you mean 'temperature'"):
        resolve(config_for(path, variables=("temprature",)))
    with pytest.raises(DataError, match="no data: give a file, a folder or the name of a sample"):
        resolve(SemanticConfig())
    with pytest.raises(ConfigError, match=r"data\.window and data\.stride must be at least 1"):
        GridConfig(window=(0, 32))


def test_the_reconstructor_keeps_coordinates_units_and_order(path: str) -> None:
    config = resolve(config_for(path))
    prepared = prepare(config)
    torch.manual_seed(0)
    objective = SelfSupervised(config).eval()
    reconstructor = Reconstructor(Trained(config=config, objective=objective, normalizer=prepared.normalizer))
    task = prepared.task("test")
    answer = reconstructor.predict(task.given, task.wanted)
    assert list(answer.data_vars) == ["temperature", "salinity"]
    assert all(answer[name].dims == task.truth[name].dims for name in answer.data_vars)
    assert answer.coords.to_dataset().identical(task.truth.coords.to_dataset())
    assert answer["temperature"].attrs["units"] == "degree_Celsius" and answer["salinity"].attrs["units"] == "1e-3"
    assert np.isfinite(answer.to_array()).all()
    normalizer = Normalizer.from_json(prepared.normalizer)
    window = [normalizer.apply(name, task.given[name].values[3]) for name in ("temperature", "salinity")]
    with torch.no_grad():
        alone = objective.autoencoder(torch.from_numpy(np.stack(window))[None])[0].numpy()
    expected = normalizer.invert("salinity", alone[1])
    assert np.allclose(answer["salinity"][3], expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_make_a_model(name: str) -> None:
    config = PRESETS[name]()
    one_channel = replace(config, model=replace(config.model, input_channels=1))
    config = resolve(config) if config.data.path else one_channel
    with torch.device("meta"):
        objective = SYSTEM.objective(config)
    assert objective.encoder.config == config.model
    assert SYSTEM.encoder is not None
