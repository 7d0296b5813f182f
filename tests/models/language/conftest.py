"""Folders of a small language model and of a dataset."""

import shutil
from pathlib import Path

import pytest

from tests.support.backbones import save_backbone, small_dataset


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_backbone(tmp_path_factory.mktemp("pretrained") / "model", dropout=0.1)


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy of a model's folder, to be damaged."""
    return Path(shutil.copytree(original, tmp_path / "model"))


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    small_dataset().save(saved := tmp_path_factory.mktemp("pretrained") / "data")
    return saved
