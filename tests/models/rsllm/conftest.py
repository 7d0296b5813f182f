"""A dataset and a run of both stages."""

from pathlib import Path

import pytest

from cllm4rec import finetune, pretrain
from tests.support.rsllm import small_dataset


@pytest.fixture(scope="session")
def trained_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data` and `run`: both stages, with a sequential recommender trained by the command."""
    folder = tmp_path_factory.mktemp("rsllm")
    small_dataset().save(folder / "data")
    flags = ["--dataset", str(folder / "data"), "--output", str(folder / "run"), "--title-words", "4"]
    pretrain.main(["--system", "rsllm", *flags, "--epochs", "1", "--seed", "3"])
    finetune.main(["--run", str(folder / "run"), "--epochs", "1"])
    return folder
