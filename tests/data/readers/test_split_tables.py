"""Split tables: the part of each event, given in a file."""

from pathlib import Path

import polars as pl
import pytest

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.readers.split_tables import read_split_table
from tests.support.datasets import description_of
from tests.support.event_files import prepare_dataset
from tests.support.tables import json_lines, written


@pytest.mark.parametrize("part", ["validation", "test", "history"])
def test_a_word_of_a_held_out_review_is_not_among_the_reviews_of_train(tmp_path: Path, part: str) -> None:
    rows = [
        {"user_id": f"u{u}", "item_id": f"i{i}", "review_text": f"plain words {u}"}
        for u in range(4)
        for i in range(5)
    ]
    rows[7]["review_text"] = "a zyzzyva here"
    table = pl.DataFrame([{**row, "seed_0": part if n == 7 else "train"} for n, row in enumerate(rows)])
    written(tmp_path / "e.jsonl", json_lines(*rows))
    table.select("user_id", "item_id", "seed_0").write_csv(tmp_path / "s.csv")
    dataset = prepare_dataset(tmp_path, "--interactions", tmp_path / "e.jsonl", "--split", tmp_path / "s.csv")
    assert "zyzzyva" in " ".join(dataset.only(part).interactions.reviews)
    assert "zyzzyva" not in " ".join(dataset.train.interactions.reviews)
    assert len(dataset.train.interactions) == 19
    assert ("zyzzyva" in " ".join(dataset.seen.interactions.reviews)) == (part == "history")


def test_a_pair_in_two_parts_of_a_split_file_is_refused_by_line(tmp_path: Path) -> None:
    (tmp_path / "s.tsv").write_text("user_id\titem_id\tseed_0\nu\ta\tt\nu\tb\tt\nu\ta\te\n")
    with pytest.raises(
        ValueError,
        match=r"s.tsv, line 2, column seed_0: 't': expected one part for a user and an item \(2 such",
    ):
        Dataset.from_frame(
            pl.DataFrame({"user_id": ["u", "u"], "item_id": ["a", "b"]}),
            split=tmp_path / "s.tsv",
        )


def test_rows_of_a_split_file_without_an_event_are_counted(tmp_path: Path) -> None:
    (tmp_path / "s.tsv").write_text("user_id\titem_id\tseed_0\nu\ta\tt\nu\ta\tt\nv\tb\tt\nu\tc\te\n")
    dataset = Dataset.from_frame(
        pl.DataFrame({"user_id": ["u", "u"], "item_id": ["a", "b"]}),
        split=tmp_path / "s.tsv",
    )
    assert description_of(dataset).split.rows_without_events == 2
    assert len(dataset.interactions) == 1


def test_a_split_table_names_the_columns_that_hold_no_parts() -> None:
    table = read_split_table(
        pl.DataFrame({"userId": [1], "asin": [2], "seed_0": ["t"], "fold": ["e"], "asin_title": ["x"]})
    )
    assert table.unread("seed_0") == ["fold", "asin_title"]
    assert table.unread("fold") == ["seed_0", "asin_title"]
