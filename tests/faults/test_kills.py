"""A sample of the kills, races and readers of `make kills`, which tries them all.

A failure prints how to run its trial again: `python -m tests.faults.kills --only 'NAME' --point N`.
The sample is drawn by a seed and the points depend on the code alone: the trials are fixed.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def harness(*arguments: object) -> None:
    """Run the harness in a fresh process: a process that forks must have no threads."""
    command = [sys.executable, "-m", "tests.faults.kills", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("only", "n"), [("prepare", 12), (" cllm4rec", 40), (" rsllm", 36), (" ease", 12)])
def test_a_command_that_was_killed_leaves_the_old_or_the_new_and_runs_again(only: str, n: int) -> None:
    harness("--only", only, "--sample", n, "--seed", 0, "--jobs", 1, "--races", 0, "--loads", 0)


@pytest.mark.slow
def test_two_commands_that_write_one_output_have_one_outcome() -> None:
    harness("--only", "nothing", "--races", 12, "--loads", 0)


@pytest.mark.slow
def test_a_reader_during_writes_sees_the_old_or_the_new() -> None:
    harness("--only", "nothing", "--races", 0, "--loads", 300)
