"""The output of `prepare`: nothing foreign is replaced, and a failure leaves the older dataset whole."""

import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from cllm4rec import prepare
from tests.support.datasets import prepared
from tests.support.tables import EVENTS_CSV, written


def contents(folder: Path) -> dict[str, bytes]:
    """File name -> bytes."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_foreign_output_is_left_alone(tmp_path: Path) -> None:
    events = written(tmp_path / "e.csv", EVENTS_CSV)
    written(tmp_path / "file", "foreign")
    (tmp_path / "photos").mkdir()
    written(tmp_path / "photos" / "cat.txt", "meow")
    for output in ("file", "photos", "file/data", "file/new/data"):
        with pytest.raises(ValueError, match="name another one"):
            prepared(events, tmp_path / output)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["cat.txt", "e.csv", "file", "photos"]
    assert len(prepared(events, tmp_path / "new" / "folders" / "data").interactions) == 20


@pytest.mark.parametrize("failing", ["write_parquet", "write_text"])
@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), pl.exceptions.ComputeError("disk\nfull")]
)
def test_a_full_disk_leaves_no_unfinished_files_and_the_older_dataset_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str, error: Exception
) -> None:
    events = written(tmp_path / "e.csv", EVENTS_CSV)
    prepared(events, tmp_path / "old")
    before = contents(tmp_path / "old")
    calls = []

    def full(self: object, *arguments: object, **_: object) -> None:
        calls.append(arguments)
        if len(calls) % 2 == 0 or failing == "write_text":
            raise error
        Path(str(arguments[0])).write_bytes(b"half")

    monkeypatch.setattr(pl.DataFrame if failing == "write_parquet" else Path, failing, full)
    for output in (tmp_path / "old", tmp_path / "made" / "for" / "it"):
        with pytest.raises(ValueError, match="cannot be written") as ended:
            prepared(events, output)
        assert "\n" not in str(ended.value)
        assert str(output) in str(ended.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e.csv", "old"]
    assert contents(tmp_path / "old") == before


def run_prepare(*arguments: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "cllm4rec.prepare", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(prepare.__file__).parents[1])}
    return subprocess.run(line, capture_output=True, text=True, env=environment, timeout=120, check=False)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("e.csv", EVENTS_CSV + "u9,i9,five,7\n"),
        ("e.csv", bytes(range(256)) * 9),
        ("e.jsonl", "{'user_id': '\\d', 'item_id': 1, 'rating': 'x'}\n"),
        ("e.parquet", b"PAR1" + bytes(40) + b"PAR1"),
    ],
)
def test_a_mistake_is_one_line_and_status_2_and_the_older_dataset_stays(
    tmp_path: Path, name: str, content: str | bytes
) -> None:
    prepared(written(tmp_path / "good.csv", EVENTS_CSV), tmp_path / "old")
    before = contents(tmp_path / "old")
    path = written(tmp_path / name, content)
    for output in ("old", "new"):
        ended = run_prepare("--interactions", path, "--output", tmp_path / output)
        assert ended.returncode == 2
        assert len(ended.stderr.splitlines()) == 1
        assert ended.stderr.startswith("error: ")
        assert ended.stdout == ""
    assert not (tmp_path / "new").exists()
    assert contents(tmp_path / "old") == before
