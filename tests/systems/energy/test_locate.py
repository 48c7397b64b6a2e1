"""Where, how certain, where else: on energies whose density is known, and through files and the command line."""

import csv
import functools
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from PIL import Image
from scipy.stats import truncnorm
from torch import Tensor, nn

from gridloom.cli.main import main
from gridloom.core.batch import Field
from gridloom.core.errors import CheckpointError, DataError
from gridloom.core.registry import get_system
from gridloom.core.settings import TrainConfig
from gridloom.core.system import Trained
from gridloom.grid.write import save_grid
from gridloom.systems.energy.config import DataConfig, EnergyConfig, LossConfig, ModelConfig
from gridloom.systems.energy.data import from_unit, prepare, resolve
from gridloom.systems.energy.locate import SECOND_WITHIN, Located, Locator, spread
from gridloom.systems.energy.objective import Location
from gridloom.workflows.locate import locate
from gridloom.workflows.train import train
from tests.systems.energy.test_data import field_file

SMALL = ModelConfig(widths=(4, 4), keypoints=4, hidden=16)
SHORT = TrainConfig(steps=4, batch_size=4, warmup_steps=0, validate_every=0, device="cpu", tensorboard=False)
DOT = EnergyConfig(
    data=DataConfig(size=(16, 20), square=5, num_train=8, num_validation=4, num_test=4),
    model=SMALL,
    loss=LossConfig(num_negatives=8),
    train=SHORT,
)


@dataclass
class Gaussian:
    """exp(-E) is normal around what is seen."""

    deviation: Tensor

    def encode(self, x: Tensor) -> Tensor:
        return x

    def energy(self, features: Tensor, y: Tensor) -> Tensor:
        return ((y - features[:, None]) / self.deviation).square().sum(-1) / 2


# --- spread ---


@pytest.mark.parametrize("outputs", [1, 2, 3])
@pytest.mark.parametrize("deviation", [0.5, 0.05, 0.003])
def test_the_spread_of_a_normal_density_is_its_deviation(outputs: int, deviation: float) -> None:
    """Within the bounds: of a broad density the bounds cut a part off, as they cut off what can be answered."""
    center = torch.tensor([[0.1, -0.33, 0.52], [0.4, 0.0, -0.2]])[:, :outputs]
    bounds = torch.tensor([[-1.0], [1.0]]).expand(-1, outputs)
    found = spread(Gaussian(torch.tensor(deviation)), center, bounds, [center])
    for image in range(2):
        for place in range(outputs):
            c = center[image, place].item()
            cut = truncnorm((-1 - c) / deviation, (1 - c) / deviation, loc=c, scale=deviation).std()
            assert found[image, place].item() == pytest.approx(cut, rel=0.05)


def test_the_spread_of_each_coordinate_is_its_own() -> None:
    center, deviation = torch.tensor([[0.1, 2.0]]), torch.tensor([0.02, 0.25])
    bounds = torch.tensor([[-1.0, 0.0], [1.0, 5.0]])
    found = spread(Gaussian(deviation), center, bounds, [center])
    assert found[0].tolist() == pytest.approx(deviation.tolist(), rel=0.05)


def test_the_spread_over_two_wells_counts_both() -> None:
    class Two(Gaussian):
        def energy(self, features: Tensor, y: Tensor) -> Tensor:
            each = [((y - features[:, None] - well) / 0.02).square().sum(-1) / 2 for well in places]
            return -torch.logsumexp(-torch.stack(each), 0)

    for places in ((0.4, -0.6), (0.4, 0.402), (0.4, 0.46), (0.4, 0.5), (0.4, 0.7)):
        expected = math.sqrt((places[0] - places[1]) ** 2 / 4 + 0.02**2)
        minima = [torch.full((1, 2), place) for place in places]
        bounds = torch.tensor([[-1.0, -1.0], [1.0, 1.0]])
        found = spread(Two(torch.tensor(1.0)), torch.zeros(1, 2), bounds, minima)
        alone = spread(Two(torch.tensor(1.0)), torch.zeros(1, 2), bounds, [*minima, torch.full((1, 2), torch.nan)])
        assert found[0].tolist() == pytest.approx([expected] * 2, rel=0.05) and torch.allclose(found, alone, rtol=1e-4)


# --- where else ---


class Wells(nn.Module):
    """Cones at fixed places with depths of their own."""

    def __init__(self, wells: list[tuple[float, float, float]], slope: float = 40.0) -> None:
        super().__init__()
        self.wells, self.slope = wells, slope

    def energy(self, features: Tensor, y: Tensor) -> Tensor:
        cones = [
            self.slope * (y - torch.tensor([row, column])).norm(dim=-1) + bottom for row, column, bottom in self.wells
        ]
        return torch.stack(cones).amin(0) + 0 * features.sum(-1, keepdim=True)


def locator(config: EnergyConfig = DOT) -> Locator:
    config = resolve(config)
    torch.manual_seed(0)
    return Locator(Trained(config=config, objective=Location(config), normalizer=prepare(config).normalizer))


def images(count: int = 2) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (count, 3, 16, 20)).astype(np.float32)


def located_in(wells: list[tuple[float, float, float]]) -> Located:
    made = locator()
    made.objective.model.energy = Wells(wells).energy
    return made.locate(images())


def test_a_second_well_is_the_second_minimum() -> None:
    found = located_in([(0.5, -0.5, -2.0), (-0.3, 0.6, 0.0), (0.9, 0.9, 1.0)])
    assert torch.allclose(found.best, torch.tensor([0.5, -0.5]), atol=2e-3)
    assert found.energy.tolist() == pytest.approx([-2.0] * 2, abs=0.05)
    assert torch.allclose(found.second, torch.tensor([-0.3, 0.6]), atol=2e-3)
    assert found.second_energy.tolist() == pytest.approx([0.0] * 2, abs=0.05)


@pytest.mark.parametrize("others", [[], [(-0.3, 0.6, SECOND_WITHIN - 1.5)]])
def test_one_well_has_no_second_minimum(others: list[tuple[float, float, float]]) -> None:
    found = located_in([(0.5, -0.5, -2.0), *others])
    assert found.second.isnan().all() and found.second_energy.isnan().all()
    assert found.best.isfinite().all() and found.energy.isfinite().all()
    # Around a cone the density falls as exp(-40 r); a shallow well far away, though it is no answer, spreads it.
    share = math.exp(-(SECOND_WITHIN + 0.5)) if others else 0.0
    share /= 1 + share
    expected = [math.sqrt(3 / 40**2 + share * (1 - share) * apart**2) for apart in (0.8, 1.1)]
    assert found.spread[0].tolist() == found.spread[1].tolist() == pytest.approx(expected, rel=0.05)


def test_a_regression_knows_neither_energy_nor_spread() -> None:
    found = locator(replace(DOT, model=replace(SMALL, kind="explicit"))).locate(images())
    assert found.best.isfinite().all()
    for unknown in (found.energy, found.spread, found.second, found.second_energy):
        assert unknown.isnan().all()


# --- images ---


def test_missing_cells_are_refused_by_a_model_that_does_not_know_them() -> None:
    holes = images()
    holes[1, :, 3, 4] = np.nan
    with pytest.raises(DataError, match=r"missing cells \(NaN\), this model was trained without; fill them first"):
        locator().locate(holes)
    told = locator(replace(DOT, model=replace(SMALL, mask_missing=True)))
    assert told.locate(holes).best.isfinite().all()


def test_what_is_hidden_does_not_reach_the_answer() -> None:
    told = locator(replace(DOT, model=replace(SMALL, mask_missing=True)))
    values, valid = torch.from_numpy(told.normalize(images())), torch.rand(2, 3, 16, 20) > 0.3
    dirty = Field(values=torch.where(valid, values, 77.0), valid=valid)
    assert torch.equal(told.answer(dirty), told.answer(Field.of(values, valid)))
    assert not torch.equal(told.features(dirty), told.features(Field.of(values)))


def test_images_of_other_shapes_are_refused_in_one_line() -> None:
    with pytest.raises(DataError, match=r"expected images \[N, 3, H, W\] with channels red, green, blue, got \[2, 1"):
        locator().locate(images()[:, :1])
    signal = EnergyConfig(data=DataConfig(task="signal", num_train=4, num_validation=2, num_test=2), model=SMALL)
    with pytest.raises(DataError, match=r"expected signals \[N, 100\], got \[100\]"):
        locator(signal).locate(np.zeros(100, np.float32))
    assert locator(signal).locate(np.zeros((3, 100), np.float32)).spread.shape == (3, 1)


def test_answers_are_the_same_one_by_one_and_in_a_long_row() -> None:
    made, many = locator(), images(19)
    together = made.locate(many)
    alone = [made.locate(many[i : i + 1]) for i in (0, 15, 18)]
    for place, one in zip((0, 15, 18), alone, strict=True):
        assert torch.allclose(one.best[0], together.best[place], atol=1e-5)
        assert torch.allclose(one.spread[0], together.spread[place], atol=1e-5)


def test_bfloat16_changes_answers_little() -> None:
    half = replace(DOT, search=replace(DOT.search, precision="bf16"))
    features = [
        made.features(Field.of(torch.from_numpy(made.normalize(images())))) for made in (locator(), locator(half))
    ]
    assert features[1].dtype == torch.float32
    assert 0 < (features[0] - features[1]).abs().max() < 0.05


# --- runs ---


def make_run(folder: Path, config: EnergyConfig) -> Path:
    train("energy", config, output=folder, show=False, report=False)
    return folder


@pytest.fixture(scope="module")
def dot_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("dot") / "run", DOT)


@pytest.fixture(scope="module")
def field_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("field")
    data = DataConfig(task="extreme", path=field_file(folder, missing=0.1), size=(16, 16), stride=(4, 4))
    return make_run(folder / "run", replace(DOT, data=data, model=replace(SMALL, mask_missing=True)))


@functools.cache
def pictures() -> np.ndarray:
    return images(3).round()


def png_folder(folder: Path) -> Path:
    folder.mkdir()
    for number, image in enumerate(pictures()):
        Image.fromarray(image.astype(np.uint8).transpose(1, 2, 0)).save(folder / f"frame{number}.png")
    return folder


def test_a_folder_an_array_and_a_dataset_give_the_same_positions(dot_run: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", pictures())
    dataset = xr.Dataset({"image": (("n", "channel", "y", "x"), pictures()), "other": 1.0})
    folder = png_folder(tmp_path / "pictures")
    found = [locate(dot_run, given) for given in (folder, tmp_path / "images.npy", dataset)]
    for other in found[1:]:
        assert np.array_equal(found[0]["position"], other["position"])
    assert found[0]["sample"].values.tolist() == ["frame0.png", "frame1.png", "frame2.png"]
    assert found[0]["coordinate"].values.tolist() == ["row", "column"]
    position = found[0]["position"].values
    assert position.shape == (3, 2) and (position >= 0).all() and (position <= [15, 19]).all()
    assert found[0]["position"].attrs["units"] == "cell" and found[0].attrs["task"] == "dot"
    single = locate(dot_run, folder / "frame1.png")
    assert np.allclose(single["position"].values[0], position[1], atol=1e-3)
    one = locate(dot_run, xr.Dataset({"image": (("channel", "y", "x"), pictures()[1])}))
    assert np.allclose(one["position"].values[0], position[1], atol=1e-3)


def test_positions_in_images_of_another_size_are_in_their_cells(dot_run: Path) -> None:
    large = np.repeat(np.repeat(pictures(), 2, axis=2), 3, axis=3)
    found = locate(dot_run, xr.Dataset({"image": (("n", "channel", "y", "x"), large)}))
    made = Locator(locator_of(dot_run))
    best = made.locate(large).best.numpy()
    assert np.allclose(found["position"], from_unit(best, ((0.0, 31.0), (0.0, 59.0))))
    assert np.allclose(found["spread"], made.locate(large).spread.numpy() * [15.5, 29.5])


def locator_of(run: Path) -> Trained:
    from gridloom.encoders.artifact import load_model

    return load_model(run)[1]


def test_bounds_of_one_s_own_hold_for_rows_and_columns_too(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    dataset = xr.Dataset(
        {
            "image": (("sample", "channel", "y", "x"), pictures()[rng.integers(0, 3, 12)]),
            "position": (("sample", "coordinate"), rng.uniform(4, 6, (12, 2))),
        }
    )
    save_grid(dataset, tmp_path / "own.nc")
    data = DataConfig(task="examples", path=str(tmp_path / "own.nc"), bounds=((4.0, 6.0), (4.0, 6.0)))
    run = make_run(tmp_path / "run", replace(DOT, data=data))
    position = locate(run, dataset[["image"]])["position"].values
    assert (position >= 4).all() and (position <= 6).all()


def test_places_in_a_field_are_latitudes_and_longitudes_inside_their_windows(field_run: Path) -> None:
    path = str(field_run.parent / "map.nc")
    field = xr.load_dataset(path)
    found = locate(field_run, path)
    assert found["coordinate"].values.tolist() == ["latitude", "longitude"]
    assert found.sizes["sample"] == 3 * 10
    made = Locator(locator_of(field_run))
    corners = [(row, column) for row in (0, 16, 24) for column in range(0, 160, 16)]
    for sample, (row, column) in enumerate(corners):
        box = field.isel(latitude=slice(row, row + 16), longitude=slice(column, column + 16))
        place = found["position"].values[sample]
        for value, axis in zip(place, (box["latitude"].values, box["longitude"].values), strict=True):
            assert axis.min() - 1e-6 <= value <= axis.max() + 1e-6
        if sample % 7 == 0:
            alone = made.locate(box["height"].values[None, None].astype(np.float32))
            cell = from_unit(alone.best.numpy(), ((0.0, 15.0), (0.0, 15.0)))[0]
            assert place[0] == pytest.approx(field["latitude"].values[0] + (row + cell[0]) * 10 / 39, abs=1e-3)
            assert place[1] == pytest.approx(field["longitude"].values[0] + (column + cell[1]) * 40 / 159, abs=1e-3)
            degrees = alone.spread.numpy()[0] * 7.5 * [10 / 39, 40 / 159]
            assert found["spread"].values[sample] == pytest.approx(degrees, rel=1e-3)
    denser = locate(field_run, path, stride=(24, 8))
    assert denser.sizes["sample"] == 2 * 19


def test_tables_and_files_are_written_once(dot_run: Path, tmp_path: Path) -> None:
    folder = png_folder(tmp_path / "pictures")
    found = locate(dot_run, folder, output=tmp_path / "found.csv")
    rows = list(csv.DictReader((tmp_path / "found.csv").read_text().splitlines()))
    assert [row["sample"] for row in rows] == ["frame0.png", "frame1.png", "frame2.png"]
    assert [float(row["row"]) for row in rows] == found["position"].values[:, 0].tolist()
    assert [float(row["spread_column"]) for row in rows] == found["spread"].values[:, 1].tolist()
    assert [float(row["energy"]) for row in rows] == found["energy"].values.astype(float).tolist()
    locate(dot_run, folder, output=tmp_path / "found.nc")
    assert np.array_equal(xr.load_dataset(tmp_path / "found.nc")["position"], found["position"])
    for name in ("found.csv", "found.nc"):
        before = (tmp_path / name).read_bytes()
        with pytest.raises(DataError, match=r"exists already; choose another --output, or pass --replace"):
            locate(dot_run, folder, output=tmp_path / name)
        assert (tmp_path / name).read_bytes() == before
        locate(dot_run, folder / "frame0.png", output=tmp_path / name, replace=True)
        assert (tmp_path / name).read_bytes() != before


def test_another_system_and_other_data_are_refused(dot_run: Path, tmp_path: Path) -> None:
    fake = get_system("fake_point")
    train(fake, fake.presets["default"](), output=tmp_path / "fake", show=False, report=False)
    with pytest.raises(DataError, match=r"locate needs a model of system energy, this one is fake_point"):
        locate(tmp_path / "fake", png_folder(tmp_path / "pictures"))
    with pytest.raises(CheckpointError, match="expected a run folder or an artifact"):
        locate(tmp_path, tmp_path / "pictures")
    with pytest.raises(DataError, match=r"expected a variable `image` or a single one, got a, b"):
        locate(dot_run, xr.Dataset({"a": (("y", "x"), np.ones((3, 3))), "b": (("y", "x"), np.ones((3, 3)))}))


def test_the_command_prints_json_without_nan_and_a_table(
    dot_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = png_folder(tmp_path / "pictures")

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    assert main(["locate", str(dot_run), str(folder), "--json"]) == 0
    records = json.loads(capsys.readouterr().out, parse_constant=refuse)
    found = locate(dot_run, folder)
    assert len(records) == 3
    for record, position, second in zip(records, found["position"].values, found["second"].values, strict=True):
        assert list(record["position"].values()) == pytest.approx(position.tolist())
        assert set(record) == {"position", "spread", "second", "energy", "second_energy"}
        assert (record["second"]["row"] is None) == bool(np.isnan(second[0])) == (record["second_energy"] is None)
    assert main(["locate", str(dot_run), str(folder), "--output", str(tmp_path / "found.csv")]) == 0
    printed = capsys.readouterr().out
    assert "positions in cell" in printed and "frame1.png" in printed and "written:" in printed
    assert main(["locate", str(dot_run), str(folder), "--output", str(tmp_path / "found.csv")]) == 2
    assert capsys.readouterr().err.startswith("gridloom: error:")


def test_the_command_prints_null_for_what_a_regression_does_not_know(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run", replace(DOT, model=replace(SMALL, kind="explicit")))
    assert main(["locate", str(run), str(png_folder(tmp_path / "pictures")), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)[0]
    assert record["energy"] is None and record["spread"] == {"row": None, "column": None}
