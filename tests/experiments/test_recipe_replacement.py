"""A recipe replaces its folder in one step, follows links, and deletes no other files."""

from dataclasses import replace
from pathlib import Path

import pytest

from cllm4rec import prepare
from cllm4rec.files.temporary import TEMPORARY
from experiments import demo
from experiments.recipes.__main__ import main
from experiments.recipes.recipe import Counts
from experiments.recipes.sets import RECIPES
from tests.support.originals import write_movielens_1m


@pytest.fixture
def original(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Small files in the form of MovieLens 1M, which its recipe expects."""
    folder = tmp_path / "original"
    folder.mkdir()
    write_movielens_1m(folder)
    small = replace(RECIPES["ml-1m"], published=Counts(40, 39, 7, 7), hashes=())
    monkeypatch.setitem(RECIPES, "ml-1m", small)
    return folder


def make(original: Path, output: Path, *seeds: int) -> None:
    """Run the recipe with these seeds of splits."""
    main(["ml-1m", "--original", str(original), "--output", str(output), "--seeds", *map(str, seeds)])


def content(folder: Path) -> dict[str, bytes]:
    """Relative name -> content of all files of a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_an_earlier_folder_is_replaced_as_a_whole(original: Path, tmp_path: Path) -> None:
    output, expected = tmp_path / "made", tmp_path / "expected"
    make(original, output, 0, 1)
    make(original, output, 1)
    make(original, expected, 1)
    assert content(output) == content(expected)
    assert {name.partition("/")[0] for name in content(output) if "/" in name} == {"seed1"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError, OSError])
def test_an_interruption_leaves_the_earlier_folder(
    error: type[BaseException], original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "made"
    make(original, output, 0)
    before, names = content(output), sorted(tmp_path.iterdir())

    def interrupted(flags: list[str]) -> None:
        raise error("interrupted")

    monkeypatch.setattr(prepare, "main", interrupted)
    for path in (output, tmp_path / "new"):
        with pytest.raises((error, ValueError)):
            make(original, path, 0, 1)
    assert content(output) == before
    assert sorted(tmp_path.iterdir()) == names


@pytest.mark.parametrize("name", ["seed0/notes.txt", ".mine/notes.txt", ".notes", "seed7/x", "notes/x"])
def test_a_folder_with_other_files_is_left_alone(name: str, original: Path, tmp_path: Path) -> None:
    output = tmp_path / "made"
    make(original, output, 0)
    (output / name).parent.mkdir(exist_ok=True)
    (output / name).write_text("all of it")
    before = content(output)
    with pytest.raises(ValueError, match=f"made holds {name}, which is not a file of this package"):
        make(original, output, 0)
    assert content(output) == before


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_as_output_is_followed(exists: bool, original: Path, tmp_path: Path) -> None:
    link, target = tmp_path / "link", tmp_path / "target"
    link.symlink_to(target)
    if exists:
        make(original, target, 0)
    make(original, link, 1)
    assert link.is_symlink()
    assert (target / "seed1" / "dataset.json").is_file()
    assert not (target / "seed0").exists()


def test_the_demonstration_follows_a_link(tmp_path: Path) -> None:
    link, target = tmp_path / "link", tmp_path / "target"
    link.symlink_to(target)
    demo.make_folder(link)
    (target / "events.csv").write_text("of an earlier demonstration")
    demo.make_folder(link)
    assert link.is_symlink()
    assert [path.name for path in target.iterdir()] == [demo.MARKER]


def test_the_temporary_name_is_neither_printed_nor_recorded(
    original: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "made"
    make(original, output, 0)
    printed = capfd.readouterr()
    assert "--split split_A.tsv.gz --split-column seed_0 --output seed0\n" in printed.out
    assert " -> seed0\n" in printed.out
    assert TEMPORARY not in printed.out + printed.err
    for name, recorded in content(output).items():
        assert TEMPORARY.encode() not in recorded, name
        assert str(tmp_path).encode() not in recorded, name
