"""Locks: a single process writes a file or a folder at a time."""

import os
import threading
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from cllm4rec.files.locks import locked
from cllm4rec.files.writing import write_text
from tests.support.commands import call
from tests.support.folders import MARKER, fill, lock_holder, names
from tests.support.tables import refused


def test_where_no_lock_can_be_made_nobody_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in /proc, where a new file is not found."""

    def times_out(*_: object, **options: object) -> None:
        raise Timeout(str(tmp_path))

    monkeypatch.setattr(FileLock, "acquire", times_out)
    with (
        pytest.raises(ValueError, match=f"file: cannot be written: no file can be made in {tmp_path}$"),
        locked(tmp_path / "file"),
    ):
        raise AssertionError


def test_a_second_writer_is_refused_and_told_who_is_there(tmp_path: Path) -> None:
    fill(tmp_path / "folder", "old")
    process = lock_holder(tmp_path / "folder")
    with pytest.raises(
        ValueError, match=rf"folder is being written by process {process.pid} on \S+ since 20\d\d-"
    ) as caught:
        fill(tmp_path / "folder", "new")
    assert "\n" not in str(caught.value)
    assert (tmp_path / "folder" / MARKER).read_text() == "old"
    process.communicate()
    fill(tmp_path / "folder", "new")
    assert (tmp_path / "folder" / MARKER).read_text() == "new"
    assert names(tmp_path) == ["folder"]


def test_the_lock_of_a_killed_process_holds_nobody_up(tmp_path: Path) -> None:
    process = lock_holder(tmp_path / "folder")
    process.kill()
    process.wait()
    assert names(tmp_path) == [".folder.cllm4rec.lock"]
    fill(tmp_path / "folder", "new")
    assert names(tmp_path) == ["folder"]


def test_a_lock_is_taken_again_by_its_own_thread_and_by_no_other(tmp_path: Path) -> None:
    messages: list[str] = []

    def other() -> None:
        try:
            with locked(tmp_path / "folder"):
                messages.append("")
        except ValueError as error:
            messages.append(str(error))

    with locked(tmp_path / "folder"):
        with locked(tmp_path / "folder"):
            pass
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert f"is being written by process {os.getpid()}" in messages[0]
    other()
    assert messages[1] == "" and names(tmp_path) == []


def test_a_writer_of_a_single_file_waits_for_the_other(tmp_path: Path) -> None:
    process = lock_holder(tmp_path / "file")
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
    with (
        pytest.raises(ValueError, match="file is a file, not a folder: name another one"),
        locked(tmp_path / "file" / "x"),
    ):
        pass


def test_a_folder_that_may_not_be_written_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(lock: FileLock, **_: object) -> None:
        raise PermissionError(13, "Permission denied", lock.lock_file)

    monkeypatch.setattr(FileLock, "acquire", forbidden)
    with pytest.raises(ValueError, match="folder: cannot be written: Permission denied$"):
        fill(tmp_path / "made" / "folder", "new")
    assert names(tmp_path) == []


def test_a_second_training_in_one_folder_is_refused_and_told_who_is_there(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = lock_holder(run / "run.json", tmp_path / "prepared")
    flags = ["--system", "popularity", "--dataset", data, "--output", run]
    try:
        assert f"run is being written by process {process.pid} on" in refused(call, "pretrain", *flags)
        assert f"by process {process.pid} on" in refused(call, "pretrain", "--output", run, "--resume")
        assert f"by process {process.pid} on" in refused(call, "finetune", "--run", run)
        events = tmp_path / "events.csv"
        events.write_text("user_id,item_id\nu,a\nu,b\n")
        assert f"by process {process.pid} on" in refused(
            call, "prepare", "--interactions", events, "--output", tmp_path / "prepared"
        )
        call("pretrain", *flags, "--dry-run")  # writes nothing
        assert names(run) == [".run.json.cllm4rec.lock"]
    finally:
        process.kill()  # its lock holds nobody up
        process.communicate()
    call("pretrain", *flags)
    assert names(tmp_path) == [".prepared.cllm4rec.lock", "events.csv", "run"]
    with locked(run):
        call("evaluate", "--run", run)  # readers need no lock
