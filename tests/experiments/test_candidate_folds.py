"""Folds of all users: each is measured once, by systems that know nothing of it."""

from pathlib import Path

import polars as pl
import pytest

from experiments.candidate_folds import last_targets, read_users, write_folds


def write(path: Path, header: str, *lines: str) -> Path:
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def read(path: Path) -> pl.DataFrame:
    return pl.read_csv(path, separator="\t", infer_schema=False)


def assert_refused(interactions: Path, split: Path, message: str) -> None:
    """The tables are refused in one line."""
    with pytest.raises(SystemExit, match=message) as refused:
        read_users(interactions, split, 2)
    assert "\n" not in str(refused.value)


@pytest.fixture
def sequences(tmp_path: Path) -> tuple[Path, Path]:
    """Twelve users with sequences of three to fourteen items, and four held-out rows without a user."""
    lines = [f"u{n}\t" + " ".join(str(item) for item in range(n, 2 * n)) for n in range(3, 15)]
    rows = [f"{part}\t{item} {item + 1}\t{item + 2}" for item, part in enumerate(["val", "test"] * 2, 50)]
    return (
        write(tmp_path / "sequences.tsv", "user_id\titem_ids", *lines),
        write(tmp_path / "held_out.tsv", "split\thistory_items\ttarget_item", *rows),
    )


def test_the_last_item_is_the_target_and_up_to_ten_before_it_the_history(
    sequences: tuple[Path, Path],
) -> None:
    users = {row["user_id"]: row for row in read_users(*sequences, 2).to_dicts()}
    assert users["u3"]["history"] == ["3", "4"]
    assert users["u3"]["target"] == "5"
    assert users["u14"]["history"] == [str(item) for item in range(17, 27)]
    assert users["u14"]["target"] == "27"
    assert users["row-1"] == {
        "user_id": "row-1", "history": ["50", "51"], "target": "52", "items": ["50", "51", "52"]
    }  # fmt: skip


def test_each_user_is_measured_once_and_is_not_trained_on_there(
    sequences: tuple[Path, Path], tmp_path: Path
) -> None:
    folders = write_folds(read_users(*sequences, 4), 4, tmp_path / "folds")
    expected = read_users(*sequences, 4)
    sequence_of = {row["target"]: " ".join(row["items"]) for row in expected.to_dicts()}
    tested = []
    for folder in folders:
        rows, training = read(folder / "split.tsv"), read(folder / "interactions.tsv")
        of_test, of_validation = (rows.filter(pl.col("split") == part) for part in ("test", "val"))
        tested += of_test["target_item"].to_list()
        left_out = {*sequence_of.values()} - {*training["item_ids"].to_list()}
        assert len(left_out) + len(training) == len(expected)
        measured = {sequence_of[target] for target in of_test["target_item"].to_list()}
        assert measured <= left_out
        validated = left_out - measured
        held_out = (of_validation["history_items"] + " " + of_validation["target_item"]).to_list()
        assert validated and all(any(row in sequence for sequence in validated) for row in held_out)
        assert len(held_out) == sum(min(3, sequence.count(" ")) for sequence in validated)
    assert sorted(tested) == sorted(expected["target"].to_list())


def test_targets_of_validation_are_the_last_items_that_are_new() -> None:
    users = pl.DataFrame({"user_id": ["a", "b"], "items": [["1", "2", "3", "2", "4"], ["5", "6"]]})
    rows = last_targets(users, 3).select("user_id", "history", "target").rows()
    assert sorted(rows) == [
        ("a", ["1", "2"], "3"),
        ("a", ["1", "2", "3", "2"], "4"),
        ("b", ["5"], "6"),
    ]


def test_rows_with_a_user_stand_for_the_events_of_that_user(tmp_path: Path) -> None:
    events = write(
        tmp_path / "events.tsv", "user_id\titem_id\ttimestamp",
        "a\t1\t5", "a\t2\t4", "a\t3\t9", "b\t4\t1", "b\t5\t10", "b\t6\t3",
    )  # fmt: skip
    rows = write(tmp_path / "rows.tsv", "split\tuser_id\thistory_items\ttarget_item", "test\tb\t4\t6")
    users = {row["user_id"]: row for row in read_users(events, rows, 2).to_dicts()}
    assert users["a"]["items"] == ["2", "1", "3"], "in time order, as numbers"
    assert users["b"]["items"] == ["4", "6"]
    assert len(users) == 2


def test_written_folds_stay(sequences: tuple[Path, Path], tmp_path: Path) -> None:
    folder = write_folds(read_users(*sequences, 2), 2, tmp_path / "folds")[0]
    before = (folder / "split.tsv").stat().st_mtime_ns
    write_folds(read_users(*sequences, 2), 2, tmp_path / "folds")
    assert (folder / "split.tsv").stat().st_mtime_ns == before


def test_folds_of_other_tables_replace_those_without_a_dataset(
    sequences: tuple[Path, Path], tmp_path: Path
) -> None:
    first, second = write_folds(read_users(*sequences, 2), 2, tmp_path / "folds")
    (first / "dataset-inputs.json").write_text("{}")  # of a preparation that was refused
    sequences[1].write_text(sequences[1].read_text().replace("50 51\t52", "60 61\t62"))
    write_folds(read_users(*sequences, 2), 2, tmp_path / "folds")
    written = [read(folder / "split.tsv")["target_item"].to_list() for folder in (first, second)]
    assert "62" in sum(written, []) and "52" not in sum(written, [])
    (second / "dataset").mkdir()
    sequences[1].write_text(sequences[1].read_text().replace("60 61\t62", "50 51\t52"))
    with pytest.raises(SystemExit, match=f"fold1 was made from other tables: remove {tmp_path}, or give"):
        write_folds(read_users(*sequences, 2), 2, tmp_path / "folds")


def test_spaces_around_ids_do_not_count(sequences: tuple[Path, Path], tmp_path: Path) -> None:
    expected = read_users(*sequences, 2)
    for file in sequences:
        text = file.read_text().replace(" ", "  ").replace("\t", " \t ").replace("\n", " \n")
        header, rest = text.split("\n", 1)
        file.write_text("\t".join(header.split()) + "\n" + rest)
    assert read_users(*sequences, 2).equals(expected)


def test_of_repeats_of_an_item_the_latest_is_kept(tmp_path: Path) -> None:
    events = write(
        tmp_path / "events.tsv", "user_id\titem_id\ttimestamp",
        "a\t1\t1", "a\t2\t2", "a\t1\t3", "a\t3\t4", "b\t4\t1", "b\t5\t2", "b\t4\t3",
    )  # fmt: skip
    rows = write(tmp_path / "rows.tsv", "split\thistory_items\ttarget_item", "test\t7\t8")
    users = {row["user_id"]: row for row in read_users(events, rows, 2).to_dicts()}
    assert (users["a"]["history"], users["a"]["target"]) == (["2", "1"], "3")
    assert (users["b"]["history"], users["b"]["target"]) == (["5"], "4")


@pytest.mark.parametrize("n", [1, 17])
def test_folds_are_two_to_the_number_of_users(n: int, sequences: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=f"--folds {n}: give 2 to 16, the number of users"):
        read_users(*sequences, n)


def test_a_fold_that_is_half_written_is_written_again(sequences: tuple[Path, Path], tmp_path: Path) -> None:
    first = write_folds(read_users(*sequences, 2), 2, tmp_path / "folds")[0]
    whole = (first / "split.tsv").read_bytes()
    (first / "split.tsv").unlink()
    (first / "interactions.tsv").unlink()
    assert (
        write_folds(read_users(*sequences, 2), 2, tmp_path / "folds")[0] / "split.tsv"
    ).read_bytes() == whole


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("user_id,item_ids\na,1\n", "has no column user_id, or is no table with tabs"),
        ("user_id\titem_id\na\t1\n", "has no column timestamp"),
        ("user_id\titem_id\ttimestamp\na\t1\tnoon\n", "is no table with tabs and numbers as times"),
        ("user_id\titem_id\ttimestamp\na\t1\t1\na\tb 1\t1\n", "line 3, column item_id: an id has a space"),
        ("user_id\titem_ids\na\t1 2\na\t3\n", "line 3, column user_id: this user has an earlier row: one"),
        ("user_id\titem_ids\na\t1 2\n\t3\n", "line 3, column user_id: an id is missing"),
    ],
)
def test_what_is_no_table_of_events_is_refused_in_one_line(
    content: str, message: str, sequences: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "events.tsv").write_text(content)
    assert_refused(tmp_path / "events.tsv", sequences[1], message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("val\tu\t1 2\t3\ntest\tu\t4\t5\n", "line 3, column user_id: this user has an earlier row"),
        ("val\tu\t\t3\n", "line 2, column history_items: an id is missing"),
        ("val\tu\t1 2\tb 3\n", "column target_item: an id has a space"),
        ("val\tu\t1 2\t3\ntest\tv\t4 5 4\t6\n", "line 3, column target_item: a row with each item once"),
        ("val\tu\t1 2\t1\n", "column target_item: a row with each item once is needed"),
    ],
)
def test_rows_that_folds_cannot_hold_are_refused_in_one_line(
    content: str, message: str, sequences: tuple[Path, Path], tmp_path: Path
) -> None:
    header = "split\tuser_id\thistory_items\ttarget_item\n"
    (tmp_path / "rows.tsv").write_text(header + content)
    assert_refused(sequences[0], tmp_path / "rows.tsv", message)
