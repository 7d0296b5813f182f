"""Files are whole or absent, and only regular files are replaced."""

import os
from pathlib import Path

import polars as pl
import pytest

from cllm4rec.files import writing
from cllm4rec.files.temporary import temporary_path, temporary_paths
from cllm4rec.files.writing import check_file, remove_file, replace_file, write_table, write_text
from tests.support.folders import names


def test_files_of_a_run_and_names_too_long_are_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "run.json").touch()
    for name in ("run.json", "metrics.jsonl", "pretrain-state.safetensors"):
        with pytest.raises(ValueError, match="is a file of the run: name another one"):
            check_file(str(tmp_path / name))
    check_file(str(tmp_path / "test.json"))
    with pytest.raises(ValueError, match="the name has 201 bytes: at most 200 can be written"):
        check_file(str(tmp_path / ("x" * 201)))
    write_text(tmp_path / ("x" * 200), "whole")


def test_a_file_that_fails_to_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with (
        pytest.raises(ValueError, match="file: cannot be written: the disk is full"),
        replace_file(tmp_path / "file") as new,
    ):
        new.write_text("half")
        raise OSError("the disk is full")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "old")]


def test_temporary_files_of_killed_processes_are_removed_by_the_next_writer(tmp_path: Path) -> None:
    for name in ("file", "file*"):
        temporary_path(tmp_path / name).write_text("half")
    assert len(temporary_paths(tmp_path / "file*")) == 1, "a name is not a pattern"
    write_text(tmp_path / "file", "whole")
    remove_file(tmp_path / "file*")
    assert names(tmp_path) == ["file"]


def test_only_a_regular_file_is_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", "/dev/null"):
        with pytest.raises(ValueError, match="not a regular file: name another one"):
            check_file(str(path))
    with pytest.raises(ValueError, match="there is no folder"):
        check_file(str(tmp_path / "none" / "file"))


@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.jsonl"])
@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), pl.exceptions.ComputeError("disk\nfull")]
)
def test_a_table_on_a_full_disk_is_one_line_and_leaves_nothing(
    name: str, error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(table: pl.DataFrame, path: Path) -> None:
        path.write_bytes(b"half")
        raise error

    monkeypatch.setattr(pl.DataFrame, writing.TABLE_WRITERS[Path(name).suffix], full)
    with pytest.raises(ValueError, match=f"{name}: cannot be written: (No space left|disk)") as caught:
        write_table(pl.DataFrame({"a": [1]}), str(tmp_path / name))
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == []
