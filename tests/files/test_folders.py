"""Folders are whole or absent: replaced in one step, and read again if replaced meanwhile."""

import os
import shutil
import sys
import threading
from pathlib import Path

import pytest

from cllm4rec.files import folders
from cllm4rec.files.folders import check_folder, read_folder, recover_folder, replace_folder
from cllm4rec.files.manifest import check_manifest, write_manifest
from cllm4rec.files.temporary import OLD_SUFFIX, temporary_path
from cllm4rec.files.writing import check_file, write_text
from tests.support.commands import call
from tests.support.folders import MARKER, OTHER, fill, names
from tests.support.tables import refused


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
    folder, renames_left = tmp_path / "folder", renames
    fill(folder, "old")
    monkeypatch.setattr(folders, "_exchange", lambda new, folder: False)
    rename, rmtree = os.rename, shutil.rmtree

    def killed(source: Path, target: Path) -> None:
        nonlocal renames_left
        if not renames_left:
            monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)  # a killed process removes nothing
            raise SystemExit
        renames_left -= 1
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


def test_a_temporary_folder_of_a_killed_process_is_ignored_and_removed(tmp_path: Path) -> None:
    leftover = temporary_path(tmp_path / "folder")
    leftover.mkdir()
    (leftover / "half").write_text("half")
    recover_folder(tmp_path / "folder")
    assert not (tmp_path / "folder").exists()
    fill(tmp_path / "folder", "")
    assert names(tmp_path) == ["folder"]


def test_foreign_files_in_the_parent_folder_are_kept(swap: str, tmp_path: Path) -> None:
    foreign_folders = [".folder.new", ".folder.old", ".folder", "folder.old"]
    foreign_files = [".folder.lock", ".file.new", ".file.tmp"]
    for name in foreign_folders:
        (tmp_path / name).mkdir()
        (tmp_path / name / "notes.txt").write_text("kept")
    for name in foreign_files:
        (tmp_path / name).write_text("kept")
    for text in ("old", "new"):
        fill(tmp_path / "folder", text)
        write_text(tmp_path / "file", text)
    assert names(tmp_path) == sorted([*foreign_folders, *foreign_files, "folder", "file"])
    assert all((tmp_path / name / "notes.txt").read_text() == "kept" for name in foreign_folders)


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("name", ["notes.txt", "inner/notes.txt", ".hidden"])
def test_a_folder_with_a_foreign_file_is_not_replaced(name: str, signed: bool, tmp_path: Path) -> None:
    with replace_folder(tmp_path / "folder", MARKER) as new:
        (new / MARKER).write_text("old")
        if signed:
            write_manifest(new)
    (tmp_path / "folder" / name).parent.mkdir(exist_ok=True)
    (tmp_path / "folder" / name).write_text("kept")
    with pytest.raises(ValueError, match=f"holds {name}, which is not a file of this package: move it"):
        fill(tmp_path / "folder", "new")
    assert (tmp_path / "folder" / MARKER).read_text() == "old"
    (tmp_path / "folder" / name).unlink()
    fill(tmp_path / "folder", "new")
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


def test_a_folder_that_cannot_be_exchanged_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    for current in (tmp_path / "folder", tmp_path / "folder" / "inner"):
        monkeypatch.chdir(current)
        with pytest.raises(
            ValueError,
            match="is the current folder, or holds it, and cannot be replaced: name a folder in it",
        ):
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
        with pytest.raises(
            ValueError, match="is inside of .*, which would be damaged: name a path outside of it"
        ):
            act()
    assert names(tmp_path) == [marker]


def test_links_in_a_circle_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(ValueError, match="cannot be written"):
        fill(tmp_path / "a", "new")


def test_the_target_of_a_link_is_replaced(swap: str, tmp_path: Path) -> None:
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


def test_a_reader_starts_again_when_the_folder_is_replaced_under_it(swap: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    fill(folder, "old")
    tries: list[str] = []

    def read(current: Path) -> str:
        tries.append((current / MARKER).read_text())
        if len(tries) == 1:
            fill(folder, "new")
            raise KeyError("half of each")
        return tries[-1]

    assert read_folder(folder, read) == "new"
    assert tries == ["old", "new"]
    with pytest.raises(KeyError, match="damaged"):
        read_folder(folder, lambda current: {}["damaged"])


def test_a_reader_finishes_an_interrupted_replacement(tmp_path: Path) -> None:
    new = temporary_path(tmp_path / "folder")
    for path, text in ((new, "new"), (new.with_name(new.name + OLD_SUFFIX), "old")):
        path.mkdir()
        (path / MARKER).write_text(text)
    assert read_folder(tmp_path / "folder", lambda current: (current / MARKER).read_text()) == "new"
    check_folder(tmp_path / "folder", MARKER)


@pytest.mark.slow
def test_a_reader_during_a_replacement_sees_the_old_or_the_new_folder(swap: str, tmp_path: Path) -> None:
    """Both files hold the same number: a mixture would hold two numbers."""
    folder, stop, seen = tmp_path / "folder", threading.Event(), set()

    def write() -> None:
        number = 0
        while not stop.wait(0.0005 * (number % 4)):  # pauses, so that a slow reader can finish
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
            pair = read_folder(
                folder, lambda current: [(current / name).read_text() for name in (MARKER, OTHER)]
            )
            assert pair[0] == pair[1]
            seen.add(pair[0])
            if len(seen) > 20:
                break
    finally:
        stop.set()
        thread.join()
    assert len(seen) > 20, "the folder was replaced meanwhile"


def test_a_foreign_file_in_a_stage_is_refused_before_training(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    call("pretrain", "--dataset", data, "--output", run, "--epochs", 1)
    call("finetune", "--run", run, "--epochs", 1)
    before = (run / "run.json").read_text(), (run / "metrics.jsonl").read_text()
    (run / "finetune" / "notes.txt").write_text("kept")
    assert "holds notes.txt, which is not a file of this package: move it" in refused(
        call, "finetune", "--run", run, "--epochs", 2
    )
    assert ((run / "run.json").read_text(), (run / "metrics.jsonl").read_text()) == before


def test_a_run_may_be_written_into_the_current_folder(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    call("pretrain", "--system", "popularity", "--dataset", data, "--output", ".")
    call("evaluate", "--run", ".", "--json", "test.json")
    assert names(tmp_path) == ["metrics.jsonl", "pretrain", "run.json", "test.json"]
