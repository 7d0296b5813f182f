"""The process in which examples of the fuzzing run."""

from collections.abc import Iterator

import pytest

from tests.faults.fuzzing import Executor


@pytest.fixture(scope="module")
def executor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Executor]:
    """One process a test file, ended after its last test."""
    process = Executor(tmp_path_factory.mktemp("fuzz"))
    yield process
    process.close()
