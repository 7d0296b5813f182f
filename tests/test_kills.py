"""A sample of the kills, races and readers of `make kills`, which tries them all.

A failure prints how to run its trial again: python tests/kills.py --only 'NAME' --point N. The sample is drawn by a seed,
and the points depend on the code alone, so that the same kills are tried each time.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HARNESS = Path(__file__).with_name("kills.py")


def harness(*arguments: object) -> None:
    """Run the harness in a process that has not run anything yet: what it forks has to be without threads."""
    typed = [sys.executable, str(HARNESS), *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HARNESS.parents[1])}
    ended = subprocess.run(typed, capture_output=True, text=True, env=environment, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("only", "n"), [("prepare", 12), (" cllm4rec", 40), (" rsllm", 36), (" ease", 12)])
def test_a_command_that_was_killed_leaves_the_old_or_the_new_and_runs_again(only: str, n: int) -> None:
    harness("--only", only, "--sample", n, "--seed", 0, "--jobs", 1, "--races", 0, "--loads", 0)


@pytest.mark.slow
def test_two_commands_that_write_one_output_have_one_outcome() -> None:
    harness("--only", "nothing", "--races", 12, "--loads", 0)


@pytest.mark.slow
def test_a_reader_beside_a_writer_sees_the_old_or_the_new() -> None:
    harness("--only", "nothing", "--races", 0, "--loads", 300)
