"""iALS needs an optional library."""

import sys
from pathlib import Path

import pytest

from tests.support.commands import refusal
from tests.support.worlds import taste_dataset


def test_without_its_library_it_is_refused_before_a_run_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taste_dataset().save(tmp_path / "data")
    monkeypatch.setitem(sys.modules, "implicit.cpu.als", None)
    flags = ("--system", "ials", "--dataset", tmp_path / "data", "--output", tmp_path / "run")
    assert "cllm4rec[baselines]" in refusal("pretrain", *flags)
    assert not (tmp_path / "run").exists()
