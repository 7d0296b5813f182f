"""Damaged and hostile dataset and run folders: each is accepted by a rule or refused in one line.

The examples are fixed. A failure prints an example of each kind of fault, and how to run it again:
`python -m tests.faults.fuzzing --example '...'`. `make fuzz` tries further examples for some minutes.
"""

import pytest

from tests.faults.fuzzing import Executor, groups, tried


@pytest.mark.slow
@pytest.mark.parametrize(
    "group",
    ["datasets", "runs of ease", "runs of sasrec", "runs of cllm4rec", "runs of rsllm", "interrupted runs"],
)
def test_whatever_is_read_ends_in_an_error_line_or_a_defined_acceptance(
    group: str, executor: Executor
) -> None:
    examples, n = groups(executor.files)[group]
    account = tried(executor.ask, examples, n)
    assert not account.faults, f"{account}\n{account.report()}"
    assert min(account.outcomes["accepted"], account.outcomes["refused"]) > n / 50, account
