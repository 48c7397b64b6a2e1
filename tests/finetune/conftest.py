"""One data set and its backbones, made once."""

from pathlib import Path

import pytest

from tests.finetune.small import finetuned, make_backbone, make_data, settings


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("labeled") / "digits.nc")


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    return make_backbone(data, tmp_path_factory.mktemp("group"))


@pytest.fixture(scope="session")
def batch_backbone(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """With BatchNorm, whose statistics could move."""
    return make_backbone(data, tmp_path_factory.mktemp("batch"), norm="batch")


@pytest.fixture(scope="session")
def frozen_run(tmp_path_factory: pytest.TempPathFactory, data: Path, batch_backbone: Path) -> Path:
    """Trained with the whole backbone frozen."""
    return finetuned(settings(data, batch_backbone, freeze=("all",)), tmp_path_factory.mktemp("frozen") / "run")
