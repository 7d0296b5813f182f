"""The backbone that the tests of CLLM4Rec share."""

from pathlib import Path

import pytest

from tests.support.llama import save_llama


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a small random Llama."""
    return save_llama(tmp_path_factory.mktemp("llama"))
