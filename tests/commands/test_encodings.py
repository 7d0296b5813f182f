"""Encodings of terminals and files, whatever the machine's default is."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import cllm4rec
from tests.support.commands import start

PACKAGE = Path(cllm4rec.__file__).parent


@pytest.mark.parametrize(
    "environment",
    [{"PYTHONIOENCODING": "cp1252"}, {"PYTHONUTF8": "0", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}],
    ids=["cp1252", "ASCII"],
)
def test_titles_that_the_terminal_does_not_have_are_listed_with_replacements(
    environment: dict[str, str], popularity_workspace: Path, tmp_path: Path
) -> None:
    users = ("--run", popularity_workspace / "run", "--all", "--k", 2)
    process = start("recommend", *users, **environment)
    printed, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, "")
    lines = printed.splitlines()
    assert len(lines) == 81
    assert all(line.endswith(" ? ??") for line in lines[1:])
    process = start("recommend", *users, "--output", tmp_path / "lists.csv", **environment)
    process.communicate(timeout=60)
    assert (tmp_path / "lists.csv").read_text("utf-8").splitlines()[1].endswith(" ☃ 日本")


def test_a_closed_output_costs_nothing(popularity_workspace: Path) -> None:
    line = f"{sys.executable} -m cllm4rec.recommend --run {popularity_workspace / 'run'} --all >&-"
    done = subprocess.run(line, shell=True, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_text_is_read_and_written_in_an_encoding_that_is_named() -> None:
    """A default encoding depends on the machine; folders must be portable."""
    silent = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
                n_before = {"read_text": 0, "write_text": 1}.get(name)
                named = any(word.arg == "encoding" for word in node.keywords)
                if (
                    isinstance(node.func, ast.Attribute)
                    and n_before is not None
                    and len(node.args) <= n_before
                    and not named
                ):
                    silent.append(f"{path.name}, line {node.lineno}")
                binary = any(
                    isinstance(mode, ast.Constant) and "b" in str(mode.value) for mode in node.args[1:2]
                )
                if isinstance(node.func, ast.Name) and name == "open" and not named and not binary:
                    silent.append(f"{path.name}, line {node.lineno}")
    assert silent == []
