"""Damaged and hostile dataset and run folders: each ends in one error line or a defined acceptance.

The examples are the same each time. A failure prints one of each kind of fault, and how to run it again:
python tests/fuzzing.py --example '...'. `make fuzz` tries others, for as long as asked.
"""

from collections.abc import Iterator

import pytest
from fuzzing import Executor, groups, tried


@pytest.fixture(scope="module")
def executor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Executor]:
    made = Executor(tmp_path_factory.mktemp("fuzz"))
    yield made
    made.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    "group",
    ["datasets", "runs of ease", "runs of sasrec", "runs of cllm4rec", "runs of rsllm", "interrupted runs"],
)
def test_whatever_is_read_ends_in_an_error_line_or_a_defined_acceptance(group: str, executor: Executor) -> None:
    examples, n = groups(executor.files)[group]
    account = tried(executor.ask, examples, n)
    assert not account.faults, f"{account}\n{account.report()}"
    assert min(account.outcomes["accepted"], account.outcomes["refused"]) > n / 50, account
