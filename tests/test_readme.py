"""README.md: it is short, and its commands and its Python print what it shows."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.readme import difference, examples, program

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_readme_has_at_most_150_lines_of_110_columns() -> None:
    lines = README.splitlines()
    assert len(lines) <= 150
    assert [line for line in lines if len(line) > 110] == []


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("ndcg 0.3703\n", "ndcg 0.3712\n"),
        ("0.1200 ±.0360\n", "0.1250 ±.0380\n"),
        ("-0.0004 [-.0010, .0002]\n", "0.0010 [-.0020, .0020]\n"),
        ("loss 4.10\n", "loss 4.15\n"),
        ("3 rows ->  list.csv\n", "3 rows -> list.csv\n"),
        ("epoch 0: loss ...\n", "epoch 0: loss 4.1, 2 s\n"),
        ("first\n...\nlast\n", "first\nsecond\nthird\nlast\n"),
        ("first\n...\nlast\n", "first\nlast\n"),
    ],
)
def test_what_may_differ_from_the_readme(shown: str, printed: str) -> None:
    assert difference(shown, printed) is None


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("ndcg 0.3703\n", "ndcg 0.4703\n"),
        ("0.1200 ±.0360\n", "0.1200 ±.0560\n"),
        ("0.1200 ±.0360\n", "0.1200 ±.0160\n"),
        ("recall 0.0300\n", "recall 0.0200\n"),
        ("loss 4.10\n", "loss 4.20\n"),
        ("ndcg 0.3703\n", "nDCG 0.3703\n"),
        ("3 rows -> list.csv\n", "4 rows -> list.csv\n"),
        ("3 rows -> list.csv\n", "3 rows -> list.csv\nand a line more\n"),
        ("epoch 0: loss ...\nlast\n", "epoch 0: loss 4.1\nanother\nlast\n"),
        ("first\n...\nlast\n", "first\nsecond\n"),
    ],
)
def test_what_may_not_differ_from_the_readme(shown: str, printed: str) -> None:
    assert difference(shown, printed) is not None


def test_the_picture_has_the_reader_and_the_list_of_the_readme() -> None:
    from experiments.prompt_figure import LIST, READER

    assert f"--users {READER} " in README
    rows = [line.split()[1:4] for line in README.splitlines() if line.startswith(READER)]
    assert [(item, rank) for item, rank, _ in rows] == [(item, str(n)) for n, item in enumerate(LIST, 1)]
    scores = [float(score) for *_, score in rows]
    assert scores == pytest.approx(list(LIST.values()), abs=0.01)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the bookshop, and with the script `cllm4rec` of an installation."""
    shutil.copytree(ROOT / "datasets" / "bookshop", tmp_path / "datasets" / "bookshop")
    script = tmp_path / "bin" / "cllm4rec"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m cllm4rec "$@"\n')
    script.chmod(0o755)
    return tmp_path


def output(folder: Path, *command: str) -> str:
    """What a command prints in the folder, errors included."""
    environment = {
        **os.environ,
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": "1",
    }
    ended = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        cwd=folder,
        env=environment,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, f"{command}\n{ended.stdout}"
    return ended.stdout


@pytest.mark.slow
def test_the_commands_and_the_python_print_what_the_readme_shows(folder: Path) -> None:
    programs = {"shell": ["bash", "-c"], "python": [sys.executable, "-c"]}
    assert {example.language for example in examples(README)} == set(programs)
    for example in examples(README):
        printed = output(folder, *programs[example.language], example.source)
        differs = difference(example.shown, printed)
        assert differs is None, f"{example.source}\n{differs}"
    for wish, titles in wishes_of_the_docs():
        asked = ["--users", "reader-0109", "--k", "3", *([] if wish == "none" else ["--wish", wish])]
        printed = output(folder, "cllm4rec", "recommend", "--run", "runs/first", *asked)
        rows = [line.split("\t") for line in printed.splitlines() if line.startswith("reader-0109")]
        assert {row[-1] for row in rows} == set(titles), wish


def wishes_of_the_docs() -> list[tuple[str, list[str]]]:
    """The wishes of docs/running.md and the titles of their lists on the bookshop."""
    text = (ROOT / "docs" / "running.md").read_text()
    table = text.partition("| wish | list |")[2].partition("\n\n")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
    assert len(rows) == 4
    return [(wish, titles.split("; ")) for wish, titles in rows]


@pytest.mark.slow
def test_the_page_on_python_runs(folder: Path) -> None:
    output(folder, sys.executable, "-c", program((ROOT / "docs" / "python.md").read_text()))
