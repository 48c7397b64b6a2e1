"""One tiny run that the tests of encoders, workflows and the command line share."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from gridloom.core.settings import TrainConfig
from gridloom.grid.prepare import GridConfig
from gridloom.grid.synthetic import waves
from gridloom.grid.write import save_grid
from gridloom.systems.semantic import ModelConfig, SemanticConfig
from gridloom.workflows.train import train

SHORT = TrainConfig(
    steps=6,
    batch_size=8,
    warmup_steps=2,
    log_every=1,
    validate_every=3,
    checkpoint_every=3,
    device="cpu",
    tensorboard=False,
)


def tiny_config(data: Path | str, **changes: object) -> SemanticConfig:
    """A configuration that trains in a second or two."""
    config = SemanticConfig(
        data=GridConfig(path=str(data), variables=("temperature",), window=(32, 32), stride=(32, 32)),
        model=ModelConfig(latent_dim=16, width=4),
        train=SHORT,
    )
    return replace(config, **changes)  # type: ignore[arg-type]


@cache
def make_data(folder: Path) -> Path:
    """A netCDF file of two variables over 60 days with missing cells."""
    save_grid(waves(num_times=60, height=32, width=32), folder / "waves.nc")
    return folder / "waves.nc"


@cache
def make_run(folder: Path) -> Path:
    """A finished run with report; made once for each process."""
    train("semantic", tiny_config(make_data(folder)), output=folder / "run", show=False)
    return folder / "run"


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same one for every folder of tests."""
    folder = tmp_path_factory.getbasetemp() / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def tiny_data(shared_folder: Path) -> Path:
    return make_data(shared_folder)


@pytest.fixture(scope="session")
def tiny_run(shared_folder: Path) -> Path:
    return make_run(shared_folder)
