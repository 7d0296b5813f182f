"""Output files: tables by the ending of their name, and text that is replaced in one step."""

from pathlib import Path

import polars as pl
import pytest

from cllm4rec.data.readers.formats import read_raw
from cllm4rec.files.writing import check_table_name, write_table, write_text


@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.jsonl"])
def test_tables_are_written_as_their_name_says(tmp_path: Path, name: str) -> None:
    table = pl.DataFrame({"user_id": ["007", "8"], "item_id": ["x,y", '"z"']})
    output = str(tmp_path / name)
    check_table_name(output)
    write_table(table, output)
    assert read_raw(output).frame.equals(table)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_table_of_unknown_kind_or_in_no_folder_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.parquet, \.csv or \.jsonl"):
        check_table_name(str(tmp_path / "t.xlsx"))
    with pytest.raises(ValueError, match="there is no folder"):
        check_table_name(str(tmp_path / "nowhere" / "t.csv"))


def test_text_is_replaced_in_one_step(tmp_path: Path) -> None:
    for text in ("old", "new"):
        write_text(tmp_path / "a.json", text)
        assert (tmp_path / "a.json").read_text() == text
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
