"""Committed files that a command of experiments/ writes are exactly what it writes."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
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
