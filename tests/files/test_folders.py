"""Folders and files that are whole or absent: replacement, locks, links, and files of other people beside them."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from filelock import FileLock

from cllm4rec.data import files, folders
from cllm4rec.data.files import check_file, remove_file, replace_file, write_table, write_text
from cllm4rec.data.folders import check_folder, read_folder, recover_folder, replace_folder
from cllm4rec.data.locks import locked
from cllm4rec.data.manifest import check_manifest, write_manifest
from cllm4rec.data.unfinished import OLD, unfinished, unfinished_name

MARKER, OTHER = "part-00000.parquet", "part-00001.parquet"  # of a kind of folder without a manifest
HOLD = """
import sys
from pathlib import Path
from cllm4rec.data.locks import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def fill(folder: Path, text: str) -> None:
    with replace_folder(folder, MARKER) as new:
        (new / MARKER).write_text(text)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def holder(path: Path) -> "subprocess.Popen[str]":
    """Another process that holds a lock until its standard input is closed."""
    line = [sys.executable, "-c", HOLD, str(path)]
    process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


@pytest.fixture(params=["exchange", "two renames"])
def swap(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How a folder is put in the place of another: in one step, or in two where the system cannot."""
    if request.param == "two renames":
        monkeypatch.setattr(folders, "_exchange", lambda new, folder: False)
    return str(request.param)


# ------------------------------------------------------------------------------------------------------------ replacement


def test_a_folder_is_made_and_replaced_whole(swap: str, tmp_path: Path) -> None:
    fill(tmp_path / "made" / "for" / "it", "old")
    fill(tmp_path / "made" / "for" / "it", "new")
    assert (tmp_path / "made" / "for" / "it" / MARKER).read_text() == "new"
    assert names(tmp_path / "made" / "for") == ["it"]


def test_the_system_of_these_tests_exchanges_folders_in_one_step(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    if not sys.platform.startswith("linux"):
        assert not folders._exchange(tmp_path / "a", tmp_path / "b")
        return
    assert folders._exchange(tmp_path / "a", tmp_path / "b")
    assert (names(tmp_path / "a"), names(tmp_path / "b")) == (["b"], ["a"])
    with pytest.raises(OSError, match="No such file"):
        folders._exchange(tmp_path / "a", tmp_path / "none")


@pytest.mark.parametrize("renames", [0, 1])
def test_a_folder_replaced_by_two_renames_is_the_old_or_the_new_one_when_killed(
    renames: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, left = tmp_path / "folder", [renames]
    fill(folder, "old")
    monkeypatch.setattr(folders, "_exchange", lambda new, folder: False)
    rename, rmtree = os.rename, shutil.rmtree

    def killed(source: Path, target: Path) -> None:
        if not left[0]:
            monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)  # a killed process removes nothing
            raise SystemExit
        left[0] -= 1
        rename(source, target)

    monkeypatch.setattr(os, "rename", killed)
    with pytest.raises(SystemExit):
        fill(folder, "new")
    monkeypatch.setattr(os, "rename", rename)
    monkeypatch.setattr(shutil, "rmtree", rmtree)
    recover_folder(folder)
    assert (folder / MARKER).read_text() == ("new" if renames else "old")
    fill(folder, "newest")
    assert (folder / MARKER).read_text() == "newest"
    assert names(tmp_path) == ["folder"]


def test_a_new_folder_of_a_killed_process_does_not_count_and_is_removed(tmp_path: Path) -> None:
    left = unfinished_name(tmp_path / "folder")
    left.mkdir()
    (left / "half").write_text("half")
    recover_folder(tmp_path / "folder")
    assert not (tmp_path / "folder").exists()
    fill(tmp_path / "folder", "")
    assert names(tmp_path) == ["folder"]


def test_a_persons_own_files_beside_the_output_are_left_alone(swap: str, tmp_path: Path) -> None:
    theirs = [".folder.new", ".folder.old", ".folder", "folder.old", ".folder.lock", ".file.new", ".file.tmp"]
    for name in theirs[:4]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").write_text("mine")
    for name in theirs[4:]:
        (tmp_path / name).write_text("mine")
    for text in ("old", "new"):
        fill(tmp_path / "folder", text)
        write_text(tmp_path / "file", text)
    assert names(tmp_path) == sorted([*theirs, "folder", "file"])
    assert all((tmp_path / name / "mine").read_text() == "mine" for name in theirs[:4])


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("name", ["notes.txt", "inner/notes.txt", ".hidden"])
def test_a_folder_with_a_foreign_file_is_not_replaced(name: str, signed: bool, tmp_path: Path) -> None:
    with replace_folder(tmp_path / "folder", MARKER) as new:
        (new / MARKER).write_text("old")
        if signed:
            write_manifest(new)
    fill_again: Callable[[], None] = lambda: fill(tmp_path / "folder", "new")  # noqa: E731
    (tmp_path / "folder" / name).parent.mkdir(exist_ok=True)
    (tmp_path / "folder" / name).write_text("mine")
    with pytest.raises(ValueError, match=f"holds {name}, which is not a file of this package: move it"):
        fill_again()
    assert (tmp_path / "folder" / MARKER).read_text() == "old"
    (tmp_path / "folder" / name).unlink()
    fill_again()
    assert names(tmp_path / "folder") == [MARKER]


@pytest.mark.parametrize("name", [".DS_Store", ".ipynb_checkpoints/notes.ipynb", ".nfs0001"])
def test_files_that_systems_leave_stop_neither_reading_nor_replacing(name: str, tmp_path: Path) -> None:
    with replace_folder(tmp_path / "folder", MARKER) as new:
        (new / MARKER).write_text("old")
        write_manifest(new)
    (tmp_path / "folder" / name).parent.mkdir(exist_ok=True)
    (tmp_path / "folder" / name).write_text("x")
    check_manifest(tmp_path / "folder", whole=True)
    fill(tmp_path / "folder", "new")
    assert (tmp_path / "folder" / MARKER).read_text() == "new"


def test_a_folder_that_cannot_be_exchanged_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    for current in (tmp_path / "folder", tmp_path / "folder" / "inner"):
        monkeypatch.chdir(current)
        with pytest.raises(ValueError, match="is the current folder, or holds it, and cannot be replaced: name a folder in it"):
            check_folder(tmp_path / "folder", MARKER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os.path, "ismount", lambda path: True)
    with pytest.raises(ValueError, match="is a mount point, and cannot be replaced: name a folder in it"):
        check_folder(tmp_path / "folder", MARKER)


@pytest.mark.parametrize("marker", ["dataset.json", "model.json"])
def test_nothing_is_written_into_a_dataset_or_a_model(marker: str, tmp_path: Path) -> None:
    (tmp_path / marker).touch()
    for act in (
        lambda: fill(tmp_path / "inner" / "folder", "new"),
        lambda: write_text(tmp_path / "test.json", "{}"),
        lambda: check_file(str(tmp_path / "test.json")),
        lambda: check_folder(tmp_path / "inner", MARKER),
    ):
        with pytest.raises(ValueError, match="is inside of .*, which would be damaged: name a path outside of it"):
            act()
    assert names(tmp_path) == [marker]


def test_files_of_a_run_and_names_too_long_are_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "run.json").touch()
    for name in ("run.json", "metrics.jsonl", "pretrain-state.safetensors"):
        with pytest.raises(ValueError, match="is a file of the run: name another one"):
            check_file(str(tmp_path / name))
    check_file(str(tmp_path / "test.json"))
    with pytest.raises(ValueError, match="the name has 201 bytes: at most 200 can be written"):
        check_file(str(tmp_path / ("x" * 201)))
    write_text(tmp_path / ("x" * 200), "whole")


def test_links_in_a_circle_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(ValueError, match="cannot be written"):
        fill(tmp_path / "a", "new")


def test_behind_a_link_the_folder_and_the_file_it_leads_to_are_replaced(swap: str, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "folder").symlink_to(tmp_path / "real" / "folder")
    (tmp_path / "file").symlink_to(tmp_path / "real" / "file")
    for text in ("first", "second"):  # the link dangles at first
        fill(tmp_path / "folder", text)
        write_text(tmp_path / "file", text)
        assert (tmp_path / "folder").is_symlink() and (tmp_path / "file").is_symlink()
        assert (tmp_path / "real" / "folder" / MARKER).read_text() == text
        assert (tmp_path / "real" / "file").read_text() == text
    assert names(tmp_path) == ["file", "folder", "real"]
    assert names(tmp_path / "real") == ["file", "folder"]


def test_a_file_that_fails_to_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(ValueError, match="file: cannot be written: the disk is full"), replace_file(tmp_path / "file") as new:
        new.write_text("half")
        raise OSError("the disk is full")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "old")]


def test_unfinished_files_of_killed_processes_go_with_the_next_writing(tmp_path: Path) -> None:
    for name in ("file", "file*"):
        unfinished_name(tmp_path / name).write_text("half")
    assert len(unfinished(tmp_path / "file*")) == 1, "a name is not a pattern"
    write_text(tmp_path / "file", "whole")
    remove_file(tmp_path / "file*")
    assert names(tmp_path) == ["file"]


def test_only_a_regular_file_is_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for odd in (tmp_path, tmp_path / "pipe", "/dev/null"):
        with pytest.raises(ValueError, match="not a regular file: name another one"):
            check_file(str(odd))
    with pytest.raises(ValueError, match="there is no folder"):
        check_file(str(tmp_path / "none" / "file"))


@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.jsonl"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), pl.exceptions.ComputeError("disk\nfull")])
def test_a_table_on_a_full_disk_is_one_line_and_leaves_nothing(
    name: str, error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(table: pl.DataFrame, path: Path) -> None:
        path.write_bytes(b"half")
        raise error

    monkeypatch.setattr(pl.DataFrame, files.TABLES[Path(name).suffix], full)
    with pytest.raises(ValueError, match=f"{name}: cannot be written: (No space left|disk)") as refused:
        write_table(pl.DataFrame({"a": [1]}), str(tmp_path / name))
    assert "\n" not in str(refused.value)
    assert names(tmp_path) == []


# ------------------------------------------------------------------------------------------------------------------ locks


def test_a_second_writer_is_refused_and_told_who_is_there(tmp_path: Path) -> None:
    fill(tmp_path / "folder", "old")
    process = holder(tmp_path / "folder")
    with pytest.raises(ValueError, match=rf"folder is being written by process {process.pid} on \S+ since 20\d\d-") as refused:
        fill(tmp_path / "folder", "new")
    assert "\n" not in str(refused.value)
    assert (tmp_path / "folder" / MARKER).read_text() == "old"
    process.communicate()
    fill(tmp_path / "folder", "new")
    assert (tmp_path / "folder" / MARKER).read_text() == "new"
    assert names(tmp_path) == ["folder"]


def test_the_lock_of_a_killed_process_holds_nobody_up(tmp_path: Path) -> None:
    process = holder(tmp_path / "folder")
    process.kill()
    process.wait()
    assert names(tmp_path) == [".folder.cllm4rec.lock"]
    fill(tmp_path / "folder", "new")
    assert names(tmp_path) == ["folder"]


def test_a_lock_is_taken_again_by_its_own_thread_and_by_no_other(tmp_path: Path) -> None:
    refused: list[str] = []

    def other() -> None:
        try:
            with locked(tmp_path / "folder"):
                refused.append("")
        except ValueError as error:
            refused.append(str(error))

    with locked(tmp_path / "folder"):
        with locked(tmp_path / "folder"):
            pass
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert f"is being written by process {os.getpid()}" in refused[0]
    other()
    assert refused[1] == "" and names(tmp_path) == []


def test_a_writer_of_a_single_file_waits_for_the_other(tmp_path: Path) -> None:
    process = holder(tmp_path / "file")
    threading.Timer(0.2, process.communicate).start()
    write_text(tmp_path / "file", "second")
    process.wait()
    assert (tmp_path / "file").read_text() == "second"
    assert names(tmp_path) == ["file"]


def test_folders_made_for_a_lock_that_was_not_needed_are_removed(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), locked(tmp_path / "made" / "for" / "it"):
        raise RuntimeError
    assert names(tmp_path) == []
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="file is a file, not a folder: name another one"), locked(tmp_path / "file" / "x"):
        pass


def test_a_folder_that_may_not_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(lock: FileLock, **_: object) -> None:
        raise PermissionError(13, "Permission denied", lock.lock_file)

    monkeypatch.setattr(FileLock, "acquire", forbidden)
    with pytest.raises(ValueError, match="folder: cannot be written: Permission denied$"):
        fill(tmp_path / "made" / "folder", "new")
    assert names(tmp_path) == []


# ---------------------------------------------------------------------------------------------------------------- readers


def test_a_reader_starts_again_when_the_folder_is_replaced_under_it(swap: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    fill(folder, "old")
    tries: list[str] = []

    def read(found: Path) -> str:
        tries.append((found / MARKER).read_text())
        if len(tries) == 1:
            fill(folder, "new")
            raise KeyError("half of each")
        return tries[-1]

    assert read_folder(folder, read) == "new"
    assert tries == ["old", "new"]
    with pytest.raises(KeyError, match="damaged"):
        read_folder(folder, lambda found: {}["damaged"])


def test_a_reader_finishes_a_replacement_that_was_cut_off(tmp_path: Path) -> None:
    new = unfinished_name(tmp_path / "folder")
    for place, text in ((new, "new"), (new.with_name(new.name + OLD), "old")):
        place.mkdir()
        (place / MARKER).write_text(text)
    assert read_folder(tmp_path / "folder", lambda found: (found / MARKER).read_text()) == "new"
    check_folder(tmp_path / "folder", MARKER)


@pytest.mark.slow
def test_a_reader_beside_a_writer_sees_the_old_or_the_new_folder(swap: str, tmp_path: Path) -> None:
    """Two files of one number each: a mixture would hold two numbers."""
    folder, stop, seen = tmp_path / "folder", threading.Event(), set()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            with replace_folder(folder, MARKER) as new:
                for name in (MARKER, OTHER):
                    (new / name).write_text(str(number))

    with replace_folder(folder, MARKER) as new:
        for name in (MARKER, OTHER):
            (new / name).write_text("0")
    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(100_000):
            pair = read_folder(folder, lambda found: [(found / name).read_text() for name in (MARKER, OTHER)])
            assert pair[0] == pair[1]
            seen.add(pair[0])
            if len(seen) > 20:
                break
    finally:
        stop.set()
        thread.join()
    assert len(seen) > 20, "the folder was replaced meanwhile"
