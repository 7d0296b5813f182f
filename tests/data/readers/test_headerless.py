"""Tables without a header: columns by number, and advice where data is read as a header."""

from pathlib import Path

import pytest

from cllm4rec.data.readers.formats import read_raw
from cllm4rec.data.readers.source import TableFile
from cllm4rec.data.readers.split_tables import read_split_table
from cllm4rec.data.readers.tables import read_events, read_items, read_users
from tests.support.event_files import dataset_events, prepare_dataset
from tests.support.tables import refused, written

HEADERLESS = "u1,i1,5.0,1369699200\nu1,i2,3.0,1355443200\n"


def test_an_error_says_that_the_first_row_looks_like_data(tmp_path: Path) -> None:
    path = written(tmp_path / "e.csv", HEADERLESS)
    for content in (HEADERLESS, "u1,i1\nu1,i2\n", "a,2024-01-31\nb,x\n", "1,1\n1,2\n"):
        message = refused(read_events, written(path, content))
        assert (
            "the first row looks like data: give `header=False`, "
            "and columns by number (`columns` user_id=1,item_id=2)" in message
        )
    assert "looks like data" not in refused(read_events, written(path, "buyer,sku\nu1,i1\n"))


def test_the_advice_for_data_in_the_first_row_is_that_of_the_table(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", HEADERLESS)
    start = "the first row looks like data: "
    items, users = (
        f"give `header=False`, and columns by number ({flags})"
        for flags in ("`item_columns` item_id=1,title=2", "`user_columns` user_id=1")
    )
    assert refused(read_items, path).endswith(start + items)
    assert refused(read_users, path).endswith(start + users)
    assert refused(read_split_table, path).endswith(f"{start}write a header")
    for call, words in ((read_items, items), (read_users, users), (read_split_table, "write a header")):
        assert words in refused(call, written(tmp_path / "r.csv", "1,2\n1,2,3\n"))
    events = written(tmp_path / "e.csv", "7,u1\n")
    flags = ["--interactions", events, "--no-header", "--columns", "user_id=1,item_id=2"]
    flags += ["--items", written(path, "u1,One\n"), "--item-columns", "item_id=1,title=2"]
    dataset = prepare_dataset(tmp_path, *flags, "--split", "none")
    assert dataset_events(dataset) == [("7", "u1")]
    assert dataset.item_texts["title"] == ["One"]


def test_columns_of_a_table_without_a_header_are_given_by_number(tmp_path: Path) -> None:
    path = written(tmp_path / "e.csv", HEADERLESS)
    names = {"user_id": "1", "item_id": "2", "timestamp": "4"}
    assert read_events(TableFile(path, header=False), names).rows() == [
        ("u1", "i1", 1369699200),
        ("u1", "i2", 1355443200),
    ]
    message = refused(read_events, TableFile(path, header=False), {"user_id": "5"})
    assert "'user_id' cannot be read from a column '5': the table has 1, 2, 3, 4" in message
    short = written(tmp_path / "s.csv", HEADERLESS + "u2,i3\n")
    assert "line 3: 2 cells where the first row has 4" in refused(
        read_events, TableFile(short, header=False), names
    )


def test_gowalla_and_steam(tmp_path: Path) -> None:
    gowalla = written(tmp_path / "totalCheckins.txt", "0\t2010-10-19T23:55:27Z\t30.23\t-97.79\t22847\n")
    assert r"give `separator` '\t'" in refused(read_events, gowalla)
    names = {"user_id": "1", "timestamp": "2", "item_id": "5"}
    assert read_events(TableFile(gowalla, separator="\t", header=False), names).rows() == [
        ("0", "22847", 1287532527)
    ]
    steam = written(tmp_path / "steam-200k.csv", '151603712,"The Elder Scrolls, V",purchase,1.0,0\n')
    assert read_events(TableFile(steam, header=False), {"user_id": "1", "item_id": "2"}).rows() == [
        ("151603712", "The Elder Scrolls, V")
    ]


def test_no_header_is_said_of_the_tables_whose_columns_are_numbers(tmp_path: Path) -> None:
    events = written(tmp_path / "e.csv", HEADERLESS)
    items = written(tmp_path / "i.csv", "item_id,title\ni1,One\n")
    flags = ["--interactions", events, "--no-header", "--columns", "user_id=1,item_id=2,timestamp=4"]
    flags += ["--split", "none"]
    dataset = prepare_dataset(tmp_path, *flags, "--items", items)
    assert dataset_events(dataset) == [("u1", "i2"), ("u1", "i1")]
    assert dataset.item_texts["title"] == ["", "One"]
    bare = written(tmp_path / "b.csv", "i1,One\n")
    dataset = prepare_dataset(tmp_path, *flags, "--items", bare, "--item-columns", "item_id=1,title=2")
    assert dataset.item_texts["title"] == ["", "One"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--no-header"], "--no-header needs the columns by number"),
        (
            ["--no-header", "--columns", "user_id=buyer,item_id=sku"],
            "--no-header needs the columns by number",
        ),
        (
            ["--no-header", "--columns", "user_id=1,item_id=sku"],
            "--columns names a column 'sku' among numbers",
        ),
        (["--sequences", "--columns", "user_id=1"], "--sequences reads lines without columns"),
        (["--sequences", "--no-header"], "--sequences reads lines without columns"),
        (["--columns", "user_id=1,item_id=2"], "give --no-header"),
    ],
)
def test_flags_that_contradict_one_another_are_refused(tmp_path: Path, flags: list[str], words: str) -> None:
    path = written(tmp_path / "e.csv", HEADERLESS)
    assert words in refused(prepare_dataset, tmp_path, "--interactions", path, *flags)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("name", ["e.jsonl", "e.parquet", "ratings.dat"])
def test_files_whose_columns_have_names_take_neither_flag(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name, "1::2::3::4\n")
    assert "leave out `header=False`" in refused(read_raw, TableFile(path, header=False))
    assert "leave out `sequences`" in refused(read_raw, TableFile(path, sequences=True))
