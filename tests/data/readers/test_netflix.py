"""Files of the Netflix prize: blocks of ratings under their movies."""

from pathlib import Path

import pytest

from cllm4rec.data.readers.tables import read_event_table, read_events
from tests.support.tables import refused, written

BLOCKS = "1:\n1488844,3,2005-09-06\n822109,5,2005-05-13\n2:\n7,1,2005-01-01\n"


@pytest.mark.parametrize("name", ["combined_data_1.txt", "n.csv", "mv_0000001.txt.gz"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_blocks_of_netflix(tmp_path: Path, name: str, end: str) -> None:
    path = written(tmp_path / name, BLOCKS.replace("\n", end))
    assert read_events(path).select("user_id", "item_id", "rating", "timestamp").rows() == [
        ("1488844", "1", 3.0, 1125964800),
        ("822109", "1", 5.0, 1115942400),
        ("7", "2", 1.0, 1104537600),
    ]
    probe = written(tmp_path / "probe.txt", "1:\n30\n40\n10:\n5\n".replace("\n", end))
    assert read_events(probe).rows() == [("30", "1"), ("40", "1"), ("5", "10")]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("5,5\n", "line 6, column timestamp: an empty cell: expected a movie's number with a colon"),
        ("\n5,5,5,5\n", "line 7: expected a movie's number with a colon"),
        ("\n\n5,x,2005-01-01\n", "line 8, column rating: 'x'"),
    ],
)
def test_a_line_that_is_in_no_block_is_named(tmp_path: Path, more: str, words: str) -> None:
    path = written(tmp_path / "n.txt", BLOCKS + more)
    assert f"{path}, {words}" in refused(read_events, path)


@pytest.mark.parametrize(
    "rows", ["1:\n1488844,3,2005-09-06\n2:\n,3,2005-09-06\n", "2:\n,3,2005-09-06\n1:\n1488844,3,2005-09-06\n"]
)
def test_a_rating_without_a_user_is_refused_or_dropped_and_counted(tmp_path: Path, rows: str) -> None:
    path = written(tmp_path / "n.txt", rows)
    line = rows[: rows.index("\n,")].count("\n") + 2
    assert f"{path}, line {line}, column user_id: an empty cell: expected an id" in refused(read_events, path)
    table = read_event_table(path, drop_incomplete=True)
    assert table.frame.select("user_id", "item_id", "rating").rows() == [("1488844", "1", 3.0)]
    assert table.incomplete["events"] == 1


def test_a_movie_without_ratings_may_be_anywhere(tmp_path: Path) -> None:
    path = written(tmp_path / "n.txt", "1:\n2:\n1488844,3,2005-09-06\n3:\n4:\n7,1,2005-01-01\n5:\n")
    assert read_events(path).select("user_id", "item_id").rows() == [("1488844", "2"), ("7", "4")]
