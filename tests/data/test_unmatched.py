"""Warnings where the ids of two tables differ."""

from pathlib import Path

import polars as pl
import pytest

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.unmatched import unmatched_ids
from tests.support.datasets import description_of
from tests.support.event_files import prepare_dataset
from tests.support.tables import refused, written


@pytest.mark.parametrize(
    ("event_ids", "table_ids", "cause"),
    [
        (["007", "012"], ["7", "12"], "they differ in leading zeros; write both alike"),
        (["1", "2"], ["1.0", "2.0"], "they differ in a fraction .0; write both alike"),
        (["1", "2"], [" 1", "2 "], "they differ in surrounding spaces; write both alike"),
        (["b00x", "b00y"], ["B00X", "B00Y"], "they differ in upper and lower case; write both alike"),
        (["a", "b"], ['"a"', '"b"'], "they differ in quotes; write both alike"),
        (["007", "008"], [" 7.0", "8.0"], "more than one of these: surrounding spaces, leading zeros"),
        (["a", "b"], ["x", "y"], "take care that both use the same ids"),
    ],
)
def test_ids_without_a_row_give_a_warning_with_an_example_and_the_cause(
    event_ids: list[str], table_ids: list[str], cause: str
) -> None:
    events = pl.DataFrame({"user_id": event_ids, "item_id": event_ids})
    items = pl.DataFrame({"item_id": table_ids, "title": ["T", "S"]})
    users = pl.DataFrame({"user_id": table_ids})
    warnings = description_of(Dataset.from_frame(events, items, users, split="random")).warnings
    for kind, line in zip(("item", "user"), warnings, strict=True):
        assert (
            f"none of the 2 {kind}s of the events has a row in the {kind}s: {event_ids[0]!r} in the events"
            in line
        )
        assert cause in line


def test_whole_numbers_equal_their_texts_and_half_of_the_rows_suffice() -> None:
    events = pl.DataFrame({"user_id": [1, 2, 3], "item_id": [7, 8, 9]})
    for items in (["7", "8"], ["8", "9", "07"], ["7", "10", "11"]):
        dataset = Dataset.from_frame(events, pl.DataFrame({"item_id": items}), split="random")
        assert description_of(dataset).warnings == ()
    dataset = Dataset.from_frame(events, pl.DataFrame({"item_id": ["7", "08", "09"]}), split="random")
    (line,) = description_of(dataset).warnings
    assert line == (
        "2 of 3 items of the events have no row in the items: '8' in the events, '08' there: "
        "they differ in leading zeros; write both alike"
    )


def test_split_files_with_other_ids_give_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events = written(tmp_path / "e.csv", "user_id,item_id\nu,007\nu,008\nv,009\n")
    parts = written(tmp_path / "s.csv", "user_id,item_id,seed_0\nu,7,t\nv,9,e\n")
    message = refused(prepare_dataset, tmp_path, "--interactions", events, "--split", parts)
    assert "nothing is left to learn from" in message
    assert "none of the 3 items of the events has a row in s.csv: '007' in the events, '7' there" in message
    rows = written(tmp_path / "h.csv", "user_id,history_items,target_item,split\nu,7 8,9,test\n")
    prepare_dataset(tmp_path, "--interactions", events, "--split", rows)
    assert "warning: none of the 3 items of the events has a row in h.csv: '007'" in capsys.readouterr().out


def test_an_example_is_short_and_in_one_line() -> None:
    (line,) = unmatched_ids(pl.Series(["a\n" * 500]), pl.Series(["b"]), "item", "i.csv")
    assert line.isprintable()
    assert len(line) < 300
