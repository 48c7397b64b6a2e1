"""Pictures from runs: what they are drawn from is the run's, and the files are where they are said to be."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gridloom.cli.main import main
from gridloom.core.errors import DataError, UnknownNameError
from gridloom.core.settings import TrainConfig
from gridloom.core.system import Drawing
from gridloom.systems.energy.config import DataConfig, EnergyConfig, LossConfig, ModelConfig
from gridloom.systems.energy.figures import FIGURES
from gridloom.workflows.figures import figures
from gridloom.workflows.train import train
from gridloom.workflows.view import open_view
from tests.systems.energy.small import small

IN_A_PLANE = {"energy_landscape", "soft_argmax", "info_nce", "optimization", "fusion", "train_2d"}
OF_SIGNALS = {"energy_curve", "info_nce", "train_1d"}


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on squares that has learned to find them."""
    config = small()
    data = replace(config.data, noise=0.0, missing=0.0, square=5, normalize="centered")
    model = replace(config.model, keypoints=8, widths=(8, 8), fusion="relative", mask_missing=False)
    config = replace(config, data=data, model=model, train=replace(config.train, steps=150, snapshots=(0, 50, 150)))
    return trained(config, tmp_path_factory.mktemp("plane") / "run")


@pytest.fixture(scope="module")
def signals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(branches("energy"), tmp_path_factory.mktemp("signals") / "run")


@pytest.fixture(scope="module")
def regression(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(branches("explicit"), tmp_path_factory.mktemp("regression") / "run")


def branches(kind: str) -> EnergyConfig:
    return EnergyConfig(
        data=DataConfig(task="branches", num_train=100, num_validation=20, num_test=40),
        model=ModelConfig(kind=kind, hidden=32, depth=2, coord_conv=False),  # type: ignore[arg-type]
        loss=LossConfig(num_negatives=32),
        train=TrainConfig(
            steps=200,
            batch_size=32,
            learning_rate=3e-3,
            weight_decay=0.0,
            snapshots=(0, 200),
            device="cpu",
            tensorboard=False,
        ),
    )


def trained(config: EnergyConfig, folder: Path) -> Path:
    assert train("energy", config, output=folder, show=False, report=False).stopped_by is None
    return folder


def drawn(run: Path, name: str) -> Drawing:
    drawing = FIGURES[name](open_view(run)[3])
    assert drawing is not None
    return drawing


def test_all_draws_what_applies_and_the_gallery_gathers_runs(plane: Path, signals: Path, tmp_path: Path) -> None:
    written = figures(plane, output=tmp_path, data=True)
    assert set(written) == IN_A_PLANE
    for name in written:
        assert all((tmp_path / f"{name}{suffix}").stat().st_size > 500 for suffix in (".png", ".svg", ".npz"))
        assert json.loads((tmp_path / f"{name}.json").read_text())["run"] == "run"
        with np.load(tmp_path / f"{name}.npz") as numbers:
            assert len(numbers.files) > 3
    assert (tmp_path / "optimization.gif").read_bytes()[:4] == b"GIF8"
    assert main(["figures", str(signals), "energy_curve", "--output", str(tmp_path)]) == 0
    page = (tmp_path / "index.html").read_text()
    assert all(f'src="{name}.png"' in page for name in {*IN_A_PLANE, "energy_curve"})


def test_landscape_has_its_minimum_where_the_model_answers(plane: Path) -> None:
    data = drawn(plane, "energy_landscape").data
    energy = np.asarray(data["energy"])
    assert energy.shape[0] == 2 and energy.shape[1] == energy.shape[2]
    rows, columns = np.unravel_index(energy.reshape(2, -1).argmin(axis=1), energy.shape[1:])
    lowest = np.stack([rows, columns], axis=1) / (energy.shape[1] - 1) * 2 - 1
    np.testing.assert_allclose(lowest, data["minimum"], atol=0.05)
    near = np.linalg.norm(np.asarray(data["minimum"])[:, None] - np.asarray(data["target"]), axis=-1).min(axis=1)
    assert near[0] * 11.5 < 2.0, "the median error of the test part is below two cells"


def test_separation_grows_while_training(plane: Path) -> None:
    data = drawn(plane, "info_nce").data
    assert data["snapshots"].tolist() == [0, 50, 150]
    assert data["gap"][0] < 1 < data["gap"][-1]
    assert data["auc"][-1] > 0.9 > data["auc"][0]
    assert float(data["guessing"]) > float(data["loss"][-1])


def test_searches_end_lower_than_they_begin(plane: Path) -> None:
    data = drawn(plane, "optimization").data
    assert data["best_energy"][-1] <= data["best_energy"][0]
    for name in ("derivative-free, 16384", "Langevin, 256", "pattern search"):
        assert data[f"{name}_energy"][-1] <= data[f"{name}_energy"][0]
        assert np.all(np.diff(data[f"{name}_evaluations"]) > 0)


def test_curve_of_two_branches_has_its_minimum_on_one(signals: Path) -> None:
    data = drawn(signals, "energy_curve").data
    assert data["error"][0] < 0.2
    np.testing.assert_allclose(np.trapezoid(data["density"], data["y"], axis=1), 1.0, atol=0.02)


def test_a_regression_stands_beside_and_misses(signals: Path, regression: Path, tmp_path: Path) -> None:
    assert set(figures(signals, "train_1d", output=tmp_path, beside=regression, data=True)) == {"train_1d"}
    with np.load(tmp_path / "train_1d.npz") as numbers:
        assert numbers["argmin_distance"][-1] < 0.6 * numbers["explicit_distance"]


def test_signals_have_their_own_pictures(signals: Path) -> None:
    view = open_view(signals)[3]
    assert all(FIGURES[name](view) is None for name in IN_A_PLANE - OF_SIGNALS)


def test_what_does_not_apply_or_is_not_known_is_refused(plane: Path, regression: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="figure train_1d does not apply to this run"):
        figures(plane, "train_1d", output=tmp_path)
    with pytest.raises(UnknownNameError, match="did you mean 'energy_curve'"):
        figures(plane, "energy_curv", output=tmp_path)
    assert figures(regression, output=tmp_path) == {}
