"""Experiments name the extra of a library that is not installed."""

import sys

import pytest

from experiments.libraries import required_library


def test_a_missing_library_ends_in_one_line_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tabulate", None)
    with pytest.raises(SystemExit) as caught:
        required_library("tabulate", "experiments")
    line = "error: this needs the library tabulate: pip install -c constraints.txt '.[experiments]'"
    assert caught.value.code == line


def test_a_library_that_is_there_is_given() -> None:
    assert required_library("json", "experiments") is sys.modules["json"]
