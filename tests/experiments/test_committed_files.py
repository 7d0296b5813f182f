"""Committed files that a command of experiments/ writes are exactly what it writes."""

import subprocess
import sys
from pathlib import Path

import pytest

from experiments.tuning.chosen import best_settings
from experiments.tuning.rows import TrialTable, best_trial
from experiments.tuning.tried_rows import TriedRows, of_defaults

ROOT = Path(__file__).parents[2]
TUNED = ROOT / "experiments" / "tuned"
BOOKSHOP, FIGURE = Path("datasets/bookshop"), Path("docs/figures/prompt.svg")


@pytest.mark.parametrize(
    ("module", "output", "files"),
    [
        ("experiments.bookshop", BOOKSHOP, [BOOKSHOP / "events.csv", BOOKSHOP / "items.csv"]),
        ("experiments.prompt_figure", FIGURE, [FIGURE]),
    ],
)
def test_the_command_writes_the_committed_files(
    module: str, output: Path, files: list[Path], tmp_path: Path
) -> None:
    (tmp_path / output).parent.mkdir(parents=True)
    subprocess.run([sys.executable, "-m", module, "--output", tmp_path / output], cwd=ROOT, check=True)
    for file in files:
        assert (tmp_path / file).read_bytes() == (ROOT / file).read_bytes()
    written = {path.name for path in (tmp_path / output.parent).rglob("*") if path.is_file()}
    assert written == {file.name for file in files}


@pytest.mark.parametrize("file", sorted(TUNED.glob("*/*.csv")), ids=lambda file: "/".join(file.parts[-2:]))
def test_searches_can_be_read_and_continued(file: Path) -> None:
    table = TrialTable.read(file)
    assert best_trial(table.trials) is not None
    data = table.conditions["data_sha256"]
    chosen = best_settings(TUNED, file.parent.name, file.stem, data)
    assert chosen is not None
    assert chosen.seconds > 0
    assert f"| {file.stem} " in (file.parent / "chosen.md").read_text()


def test_tried_changes_have_the_defaults_that_they_are_changes_of() -> None:
    rows = TriedRows(ROOT / "experiments" / "tried.csv").rows
    assert all(of_defaults(rows, row) is not None for row in rows)
