"""Recipes refuse wrong and damaged files in one line, and write nothing."""

import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from experiments.recipes.__main__ import main
from experiments.recipes.recipe import Counts
from experiments.recipes.sets import RECIPES
from tests.support.originals import write_amazon, write_lines, write_movielens_1m, write_movielens_100k


def refusal(name: str, original: Path) -> str:
    """The one line that refuses an original; nothing was written."""
    output = original.parent / "made"
    with pytest.raises(ValueError) as caught:
        main([name, "--original", str(original), "--output", str(output)])
    line = str(caught.value)
    assert "\n" not in line
    assert str(original) in line
    assert not output.exists()
    return line


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A new folder for the published files."""
    path = tmp_path / "original"
    path.mkdir()
    return path


def test_other_counts_than_those_of_the_published_files(folder: Path) -> None:
    write_movielens_100k(folder)
    line = refusal("ml-100k", folder)
    assert "is not MovieLens 100K: 40 events read, 36 kept of 6 users and 6 items" in line
    assert "expected: 100,000 events read, 54,413 kept of 938 users and 1,008 items" in line


def test_rows_in_another_order(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A known hash is compared if the published files are confirmed; else the difference is printed."""
    write_movielens_100k(folder)
    small = replace(RECIPES["ml-100k"], published=Counts(40, 36, 6, 6), hashes=("0" * 64,))
    monkeypatch.setitem(RECIPES, "ml-100k", small)
    line = refusal("ml-100k", folder)
    assert f"expected: {'0' * 64}: its rows are not those of the data set, or in another order" in line


def test_another_draw_is_said_to_be_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    write_movielens_1m(folder)
    small = replace(RECIPES["ml-1m"], published=Counts(40, 39, 7, 7), hashes=("0" * 64,))
    monkeypatch.setitem(RECIPES, "ml-1m", small)
    main(["ml-1m", "--original", str(folder), "--output", str(folder / "made"), "--seeds", "0"])
    assert "another draw than the split of the reported results\n" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("name", "file"), [("ml-100k", "u.item"), ("ml-100k", "u.data"), ("beauty", "meta_Beauty.json")]
)
def test_a_missing_file(folder: Path, name: str, file: str) -> None:
    write_movielens_100k(folder)
    write_amazon(folder, "Beauty")
    for path in folder.glob(f"{file}*"):
        path.unlink()
    assert f": no {file} or {file}.gz: the recipe of {RECIPES[name].title} reads " in refusal(name, folder)


def test_the_zip_file_of_another_set(folder: Path) -> None:
    write_movielens_1m(folder)
    path = folder / "ml-1m.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(folder / "ratings.dat", "ml-1m/ratings.dat")
    assert "no u.data or u.data.gz" in refusal("ml-100k", path)


def test_a_damaged_zip_file(folder: Path) -> None:
    write_movielens_100k(folder)
    path = folder / "ml-100k.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("u.data", "u.item"):
            archive.write(folder / name, f"ml-100k/{name}")
    content = path.read_bytes()
    path.write_bytes(content[:80] + bytes(20) + content[100:])
    assert "cannot be unpacked" in refusal("ml-100k", path)
    path.write_bytes(content[:-200])
    assert "is no folder and no zip file: name the one that holds u.data and u.item" in refusal(
        "ml-100k", path
    )


def test_a_zip_file_with_two_files_of_a_name(folder: Path) -> None:
    write_movielens_100k(folder)
    path = folder / "both.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for parent in ("a", "b"):
            archive.write(folder / "u.data", f"{parent}/u.data")
    assert "holds several files u.data" in refusal("ml-100k", path)


def test_a_truncated_gzip_file(folder: Path) -> None:
    write_amazon(folder, "Beauty")
    path = folder / "reviews_Beauty_5.json.gz"
    path.write_bytes(path.read_bytes()[:-30])
    assert "reviews_Beauty_5.json.gz: " in refusal("beauty", folder)


def test_a_damaged_line_of_a_zip_file_is_named(folder: Path) -> None:
    write_movielens_100k(folder)
    path = folder / "ml-100k.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ml-100k/u.data", "1\t2\t5\t880000000\n1\t3\t5\n")
    assert f"{path}/u.data, line 2: " in refusal("ml-100k", path)


def test_metadata_is_not_evaluated(folder: Path, tmp_path: Path) -> None:
    write_amazon(folder, "Beauty")
    trap = tmp_path / "evaluated"
    write_lines(folder / "meta_Beauty.json.gz", [f"{{'asin': 'B1', 'title': open({str(trap)!r}, 'w')}}"])
    assert "meta_Beauty.json.gz" in refusal("beauty", folder)
    assert not trap.exists()


def test_no_file_and_a_file_of_another_kind(folder: Path) -> None:
    events = folder / "reviews_Beauty_5.json.gz"
    write_amazon(folder, "Beauty")
    assert "no folder and no zip file" in refusal("beauty", events)
    assert "does not exist" in refusal("beauty", folder / "no-such.zip")


def test_a_republished_table_without_ratings(folder: Path) -> None:
    (folder / "interactions.tsv").write_text("user_id\titem_id\ttimestamp\n1\t2\t3\n")
    (folder / "items.tsv").write_text("item_id\ttitle\n2\tHeat\n")
    assert "needs a column rating" in refusal("ml-100k", folder)


def test_folders_of_others_are_left_alone(folder: Path) -> None:
    output = folder / "made"
    output.mkdir()
    no_marker, foreign = r"not a folder of this kind \(no recipe\.json\)", "not a file of this package"
    for name, reason in {"thesis.txt": no_marker, "recipe.json": foreign}.items():
        (output / name).write_text("all of it")
        with pytest.raises(ValueError, match=reason):
            main(["ml-100k", "--original", str(folder), "--output", str(output)])
        assert (output / "thesis.txt").read_text() == "all of it"
    (output / "interactions.tsv.gz").write_text("all of it")
    for name in ("thesis.txt", "recipe.json"):
        (output / name).unlink()
    with pytest.raises(ValueError, match=no_marker):
        main(["ml-100k", "--original", str(folder), "--output", str(output)])
    assert (output / "interactions.tsv.gz").read_text() == "all of it"


@pytest.mark.parametrize(
    "seeds", [["0", "0"], ["-1"], ["1", "0", "1"]], ids=["repeated", "negative", "repeated later"]
)
def test_seeds_are_different_and_not_negative(
    folder: Path, seeds: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["ml-100k", "--original", str(folder), "--output", str(folder / "made"), "--seeds", *seeds])
    assert ended.value.code == 2
    mistake = f"argument --seeds: {' '.join(seeds)}: give different seeds, none below 0"
    assert capsys.readouterr().err == f"error: {mistake} (--help shows all flags)\n"


def test_the_command_ends_in_one_line(folder: Path) -> None:
    typed = ["ml-1m", "--original", str(folder), "--output", str(folder / "made")]
    ended = subprocess.run(
        [sys.executable, "-m", "experiments.recipes", *typed],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: ")
    assert len(ended.stderr.splitlines()) == 1
