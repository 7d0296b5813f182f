"""Experiments whose commands run in the process of the test. A process of its own takes seconds to start."""

from types import ModuleType
from typing import Any

import pytest

from experiments.commands import CommandFailed, Cost
from tests.support.commands import call

Calls = list[tuple[Any, ...]]  # of commands: the name and the arguments


def run_here(monkeypatch: pytest.MonkeyPatch, cost: Cost, *modules: ModuleType) -> Calls:
    """Run the commands of modules in this process.

    Args:
        monkeypatch: undoes it.
        cost: that each command reports.
        modules: which call `run_command`.

    Returns:
        A list that gets each command that is started.
    """
    started: Calls = []

    def run(command: str, *arguments: object, processes: int = 1) -> Cost:
        assert processes == 1, "more have to be started in processes of their own"
        started.append((command, *arguments))
        try:
            call(command, *arguments)
        except ValueError as error:  # in a process of its own, a line and a status
            raise CommandFailed(2, cost) from error
        return cost

    for module in modules:
        monkeypatch.setattr(module, "run_command", run)
    return started


def names(calls: Calls) -> list[str]:
    """The names of commands."""
    return [name for name, *_ in calls]
