"""Splits that a table gives."""

from pathlib import Path

import polars as pl
import pytest

from cllm4rec.data.preparation import build_dataset
from cllm4rec.data.split_tables import read_split
from tests.support.datasets import parts_by_ids
from tests.support.tables import written


def test_a_split_table_gives_the_parts_by_letter_and_by_word(tmp_path: Path) -> None:
    events = pl.DataFrame({"user_id": ["1", "1", "1", "1"], "item_id": ["01", "2", "3", "4"]})
    content = (
        "userId\titemId\tseed_0\tmine\n1\t01\tt\ttest\n1\t2\tv\tvalidation\n1\t3\te\ttrain\n9\t9\tt\ttrain\n"
    )
    path = written(tmp_path / "parts.tsv", content)
    letters = build_dataset(events, split=str(path), split_table=read_split(path))
    assert parts_by_ids(letters) == {
        ("1", "01"): 0,
        ("1", "2"): 1,
        ("1", "3"): 2,
    }  # item 4 is not named: left out
    words = build_dataset(events, split=str(path), split_table=read_split(path), split_column="mine")
    assert parts_by_ids(words) == {("1", "01"): 2, ("1", "2"): 1, ("1", "3"): 0}
    assert words.about["rules"][-1]["rule"] == "named in column mine of parts.tsv"
    assert words.about["rules"][-1]["events"] == 1


def test_a_split_table_of_text_meets_integer_ids() -> None:
    events = pl.DataFrame({"user_id": [1, 1], "item_id": [5, 6]})
    table = pl.DataFrame({"user_id": ["1", "1"], "item_id": ["6", "5"], "seed_0": ["e", "t"]})
    assert parts_by_ids(build_dataset(events, split="f.tsv", split_table=table)) == {(1, 5): 0, (1, 6): 2}


def test_a_split_table_without_the_column_or_with_other_values_is_an_error() -> None:
    events = pl.DataFrame({"user_id": ["1", "1"], "item_id": ["5", "6"]})
    table = pl.DataFrame(
        {"user_id": ["1", "1"], "item_id": ["6", "5"], "seed_0": ["e", "x"], "seed_1": ["e", None]}
    )
    with pytest.raises(ValueError, match=r"no column 'seed_7': choose one of seed_0, seed_1"):
        build_dataset(events, split="f.tsv", split_table=table, seed=7)
    with pytest.raises(ValueError, match="the split, row 2, column seed_0: 'x'"):
        build_dataset(events, split="f.tsv", split_table=table)
    with pytest.raises(ValueError, match="the split, row 2, column seed_1: an empty cell"):
        build_dataset(events, split="f.tsv", split_table=table, seed=1)
