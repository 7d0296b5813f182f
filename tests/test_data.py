"""Readers, filters, splits, the dataset folder and the hashes that all randomness comes from."""

import datetime
import gzip
import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.files import check_table_name, write_table, write_text
from cllm4rec.data.filters import Rules, k_core, latest_of_repeats
from cllm4rec.data.formats import read_raw
from cllm4rec.data.interactions import IdMap, Interactions
from cllm4rec.data.manifest import write_manifest
from cllm4rec.data.preparation import build_dataset
from cllm4rec.data.randomness import hash_ids, mix, permutation, uniform
from cllm4rec.data.readers import read_events, read_items, read_users
from cllm4rec.data.split_tables import read_split
from cllm4rec.data.splits import RULES, assign_parts
from cllm4rec.data.synthetic import checkerboard, shuffled_items, taste_world


def written(path: Path, content: str | bytes) -> Path:
    """The file with that content, compressed if its name says so."""
    raw = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


def random_events(seed: int = 0, n_users: int = 30, n_items: int = 25, reviews: bool = True) -> pl.DataFrame:
    """Events with ids as text, many equal timestamps, and a review that names its user and item."""
    generator = np.random.default_rng(seed)
    rows = [
        {"user_id": f"u{user}", "item_id": f"i{item}", "timestamp": int(generator.integers(1000, 1040))}
        for user in range(n_users)
        for item in generator.choice(n_items, int(generator.integers(1, n_items)), replace=False)
    ]
    frame = pl.DataFrame(rows)
    return frame.with_columns(review_text=pl.format("{} on {}", "user_id", "item_id")) if reviews else frame


def parts_by_ids(dataset: Dataset) -> dict[tuple[object, object], int]:
    """(user id, item id) -> part."""
    users = dataset.user_ids.names(dataset.interactions.users).to_list()
    items = dataset.item_ids.names(dataset.interactions.items).to_list()
    return dict(zip(zip(users, items, strict=True), dataset.part.tolist(), strict=True))


def same_dataset(one: Dataset, other: Dataset) -> bool:
    """Whether two datasets are equal in all but `about`, types included."""
    a, b = one.interactions, other.interactions
    return (
        one.users.equals(other.users)
        and one.items.equals(other.items)
        and one.users.schema == other.users.schema
        and one.items.schema == other.items.schema
        and np.array_equal(a.users, b.users)
        and np.array_equal(a.items, b.items)
        and (a.times is None) == (b.times is None)
        and (a.times is None or np.array_equal(a.times, b.times))
        and (a.reviews is None) == (b.reviews is None)
        and (a.reviews is None or a.reviews.to_list() == b.reviews.to_list())
        and np.array_equal(one.part, other.part)
        and (one.n_users, one.n_items) == (other.n_users, other.n_items)
    )


# Readers: each kind of file gives the same table.

ROWS = [("007", "a b", 4.0, 1700000000), ("8", "x", 3.5, 1700000001)]


@pytest.mark.parametrize("name", ["e.tsv", "e.csv", "e.jsonl", "e.json", "e.tsv.gz", "e.csv.gz", "e.jsonl.gz", "E.TSV"])
def test_every_kind_of_text_file_reads_alike(tmp_path, name):
    kind = name.lower().removesuffix(".gz").rsplit(".")[-1]
    if kind in ("jsonl", "json"):
        keys = ("user_id", "item_id", "rating", "timestamp")
        content = "".join(json.dumps(dict(zip(keys, row, strict=True))) + "\n" for row in ROWS)
    else:
        mark = "," if kind == "csv" else "\t"
        content = "".join(mark.join(map(str, row)) + "\n" for row in [("user_id", "item_id", "rating", "timestamp"), *ROWS])
    frame = read_events(written(tmp_path / name, content))
    assert frame.rows() == ROWS
    assert frame.dtypes == [pl.String, pl.String, pl.Float64, pl.Int64]


def test_text_tables_keep_ids_as_text(tmp_path):
    frame = read_events(written(tmp_path / "e.csv", "user_id,item_id\n007,1e3\n7,1000\n"))
    assert frame.rows() == [("007", "1e3"), ("7", "1000")]
    dataset = Dataset.from_frame(frame)
    assert (dataset.n_users, dataset.n_items) == (2, 2)
    assert dataset.user_ids.index(["007"]).tolist() != dataset.user_ids.index(["7"]).tolist()


def test_parquet_integer_ids_keep_their_type_through_folder_and_look_up(tmp_path):
    table = pl.DataFrame({"user_id": [7, 7, 11, 900], "item_id": [100, 2, 2, 30], "rating": [4, 5, 3, 4]})
    table.write_parquet(tmp_path / "e.parquet")
    pl.DataFrame({"item_id": [2, 30], "title": ["Two", "Thirty"]}).write_parquet(tmp_path / "i.parquet")
    dataset = Dataset.from_frame(read_events(tmp_path / "e.parquet"), read_items(tmp_path / "i.parquet"))
    dataset.save(tmp_path / "data")
    for one in (dataset, Dataset.load(tmp_path / "data")):
        assert one.users.schema["user_id"] == pl.Int64
        assert one.items.schema["item_id"] == pl.Int64
        assert sorted(one.user_ids.names(np.arange(3)).to_list()) == [7, 11, 900]
        assert one.user_ids.index([900, "900"]).tolist() == one.user_ids.index(["900", 900]).tolist()
        titles = dict(zip(one.items["item_id"].to_list(), one.items["title"].to_list(), strict=True))
        assert titles == {2: "Two", 30: "Thirty", 100: ""}


def test_a_table_of_items_with_text_ids_meets_events_with_integer_ids():
    events = pl.DataFrame({"user_id": [1, 2], "item_id": [10, 20]})
    items = pl.DataFrame({"item_id": ["20", "10", "99"], "title": ["Twenty", "Ten", "nobody took it"]})
    dataset = Dataset.from_frame(events, items)
    assert dict(dataset.items.rows()) == {10: "Ten", 20: "Twenty"}


def test_csv_understands_quotes(tmp_path):
    path = written(tmp_path / "e.csv", 'user_id,item_id,review\n1,"a,b","she said ""good"",\nthen left"\n2,c,""\n')
    assert read_events(path).rows() == [("1", "a,b", 'she said "good",\nthen left'), ("2", "c", "")]


def test_tsv_takes_quotes_as_they_are(tmp_path):
    path = written(tmp_path / "e.tsv", 'user_id\titem_id\treview\n1\t"a"\t"good, ""very\n2\tc\t"\n')
    assert read_events(path).rows() == [("1", '"a"', '"good, ""very'), ("2", "c", '"')]


def test_windows_line_ends_and_a_byte_order_mark_do_not_get_into_the_cells(tmp_path):
    assert read_events(written(tmp_path / "a.tsv", "user_id\titem_id\r\n1\tx\r\n")).rows() == [("1", "x")]
    assert read_events(written(tmp_path / "b.csv", b"\xef\xbb\xbfuser_id,item_id\n1,x\n")).rows() == [("1", "x")]


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        ("userId,movieId,rating,timestamp", ["user_id", "item_id", "rating", "timestamp"]),  # MovieLens
        ("reviewerID,asin,overall,reviewText,unixReviewTime", ["user_id", "item_id", "rating", "timestamp", "review_text"]),
        ("user_id,parent_asin,asin,rating,text,timestamp", ["user_id", "item_id", "rating", "timestamp", "review_text"]),
        ("customer_id,product_id,stars,date,other", ["user_id", "item_id", "rating", "timestamp"]),
    ],
)
def test_columns_are_found_under_their_usual_names(tmp_path, header, columns):
    assert (
        read_events(written(tmp_path / "e.csv", f"{header}\n" + ",".join("1" * len(header.split(","))) + "\n")).columns
        == columns
    )


def test_of_several_aliases_the_first_wins(tmp_path):
    path = written(tmp_path / "e.csv", "asin,parent_asin,user_id\nchild,parent,1\n")
    assert read_events(path).rows() == [("1", "parent")]


@pytest.mark.parametrize(
    ("cell", "seconds"),
    [
        ("2024-01-31", 1706659200),
        ("2024-01-31 10:00:01", 1706695201),
        ("2024-01-31T10:00:01", 1706695201),
        ("2024-01-31T10:00:01Z", 1706695201),
        ("2024-01-31T12:00:01+02:00", 1706695201),
        ("1706695201", 1706695201),
        ("1706695201.9", 1706695201),
    ],
)
def test_iso_dates_and_seconds_are_understood(tmp_path, cell, seconds):
    path = written(tmp_path / "e.tsv", f"user_id\titem_id\ttimestamp\n1\tx\t{cell}\n")
    assert read_events(path)["timestamp"].to_list() == [seconds]


def test_dates_of_parquet_become_seconds(tmp_path):
    moment = datetime.datetime(2024, 1, 31, 10, 0, 1)
    frame = pl.DataFrame({"user_id": [1], "item_id": [1], "timestamp": [moment]})
    zoned = frame.with_columns(pl.col("timestamp").dt.replace_time_zone("Europe/Paris"))
    day = frame.with_columns(pl.col("timestamp").dt.date())
    for table, seconds in ((frame, 1706695201), (zoned, 1706695201 - 3600), (day, 1706659200)):
        table.write_parquet(tmp_path / "e.parquet")
        assert read_events(tmp_path / "e.parquet")["timestamp"].to_list() == [seconds]


def test_empty_cells_of_ratings_and_timestamps_stay_empty(tmp_path):
    frame = read_events(written(tmp_path / "e.tsv", "user_id\titem_id\trating\ttimestamp\n1\tx\t\t\n2\ty\t4\t5\n"))
    assert frame.rows() == [("1", "x", None, None), ("2", "y", 4.0, 5)]


def test_item_texts_are_stripped_empty_where_missing_and_lists_are_joined(tmp_path):
    records = [
        {"item_id": "A", "title": "  Tale ", "categories": ["Books", "Fiction"], "description": [], "year": 1999},
        {"item_id": "B", "title": None, "categories": [], "description": ["One", "two"], "year": None},
    ]
    frame = read_items(written(tmp_path / "i.jsonl", "".join(json.dumps(record) + "\n" for record in records)))
    assert frame.to_dicts() == [
        {"item_id": "A", "title": "Tale", "description": "", "categories": "Books, Fiction", "year": "1999"},
        {"item_id": "B", "title": "", "description": "One two", "categories": "", "year": ""},
    ]


def test_categories_as_lists_of_lists_are_text_too(tmp_path):
    """The form of Amazon's metadata of 2014: paths through a tree of categories."""
    path = written(tmp_path / "i.jsonl", '{"asin": "A", "categories": [["Books", "Fiction"], ["Gifts"]]}\n')
    assert read_items(path).rows() == [("A", "Books, Fiction, Gifts")]


def test_user_texts_are_read(tmp_path):
    frame = read_users(written(tmp_path / "u.csv", "user_id,bio,age\n007, likes tea ,30\n8,,31\n"))
    assert frame.rows(named=True) == [{"user_id": "007", "biography": "likes tea"}, {"user_id": "8", "biography": ""}]


# Readers: mistakes end in one line that names what is wrong.


def one_line(error: pytest.ExceptionInfo[ValueError]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


def test_a_missing_column_is_named_with_what_the_file_has(tmp_path):
    path = written(tmp_path / "e.csv", "user_id,thing\n1,2\n")
    with pytest.raises(ValueError) as error:
        read_events(path)
    message = one_line(error)
    assert str(path) in message
    assert "no column for item_id" in message
    assert "user_id, thing" in message


@pytest.mark.parametrize(
    ("column", "cells", "line", "value"),
    [
        ("rating", ["4", "good", "bad"], 3, "'good'"),
        ("rating", ["-inf", "4"], 2, "'-inf'"),
        ("timestamp", ["1", "2", "soon"], 4, "'soon'"),
        ("timestamp", ["2024-01-31", "2024-02-31"], 3, "'2024-02-31'"),
        ("position", ["1", "first"], 3, "'first'"),
    ],
)
def test_a_cell_that_is_no_number_is_named_by_file_line_column_and_value(tmp_path, column, cells, line, value):
    path = written(
        tmp_path / "e.tsv", f"user_id\titem_id\t{column}\n" + "".join(f"1\tx{i}\t{c}\n" for i, c in enumerate(cells))
    )
    with pytest.raises(ValueError) as error:
        read_events(path)
    assert f"{path}, line {line}, column {column}: {value}: " in one_line(error)


@pytest.mark.parametrize(("content", "line", "column"), [("1\tx\n\ty\n", 3, "user_id"), ("1\tx\n2\ty\n3\t\n", 4, "item_id")])
def test_an_empty_id_is_named_by_line_and_column(tmp_path, content, line, column):
    path = written(tmp_path / "e.tsv", "user_id\titem_id\n" + content)
    with pytest.raises(ValueError, match="an id is needed") as error:
        read_events(path)
    assert f"{path}, line {line}, column {column}: " in one_line(error)


def test_an_empty_id_in_quotes_or_as_null_is_refused_too(tmp_path):
    with pytest.raises(ValueError, match="line 2, column user_id"):
        read_events(written(tmp_path / "e.csv", 'user_id,item_id\n"",x\n'))
    with pytest.raises(ValueError, match="line 2, column item_id"):
        read_events(written(tmp_path / "e.jsonl", '{"user_id":1,"item_id":2}\n{"user_id":1,"item_id":null}\n'))
    with pytest.raises(ValueError, match="line 2, column item_id"):
        read_items(written(tmp_path / "i.tsv", "item_id\ttitle\n\tnameless\n"))


@pytest.mark.parametrize("name", ["e.tsv", "e.csv", "e.jsonl", "e.parquet", "e.tsv.gz", "e.jsonl.gz"])
def test_a_file_without_content_is_refused(tmp_path, name):
    with pytest.raises(ValueError) as error:
        read_events(written(tmp_path / name, ""))
    assert str(tmp_path / name) in one_line(error)


@pytest.mark.parametrize("name", ["e.tsv", "e.tsv.gz"])
def test_a_header_without_rows_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="a header and no rows"):
        read_events(written(tmp_path / name, "user_id\titem_id\n"))


@pytest.mark.parametrize("name", ["e.tsv.gz", "e.csv.gz", "e.jsonl.gz"])
@pytest.mark.parametrize("cut", [0.5, 8])  # half of the file; only the check sum at its end
def test_a_truncated_gzip_file_is_refused(tmp_path, name, cut):
    numbers = np.random.default_rng(0).random(4000).tolist()
    if "jsonl" in name:
        content = "".join(json.dumps({"user_id": str(one), "item_id": "x"}) + "\n" for one in numbers)
    else:
        mark = "\t" if "tsv" in name else ","
        content = f"user_id{mark}item_id\n" + "".join(f"{one}{mark}x\n" for one in numbers)
    path = written(tmp_path / name, content)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * cut)] if cut < 1 else whole[:-cut])
    with pytest.raises(ValueError, match="cannot be read as") as error:
        read_events(path)
    assert str(path) in one_line(error)


def test_a_missing_file_and_an_unknown_kind_are_refused(tmp_path):
    with pytest.raises(ValueError, match="nowhere.tsv: there is no such file"):
        read_raw(tmp_path / "nowhere.tsv")
    with pytest.raises(ValueError, match="a folder without parts of a table"):
        read_raw(tmp_path)
    with pytest.raises(ValueError, match=r"unknown kind of file: name it \.tsv"):
        read_raw(written(tmp_path / "e.xlsx", "x"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("e.csv", "user_id,item_id\n1,2,3\n", "line 2: 3 cells where the header has 2"),
        ("e.csv", b"user_id,item_id\n1,caf\xe9\n", "line 2: not UTF-8 text"),
        ("e.jsonl", '{"user_id": 1, "item_id"\n', "line 1: cannot be read as JSON"),
        ("e.json", '[{"user_id": 1, "item_id": 2}', "cannot be read as one JSON array"),
        ("e.parquet", "user_id,item_id\n1,2\n", "cannot be read as parquet"),
    ],
)
def test_a_broken_file_is_refused_in_one_line(tmp_path, name, content, message):
    path = written(tmp_path / name, content)
    with pytest.raises(ValueError, match=message) as error:
        read_events(path)
    assert str(path) in one_line(error)


# Filters.


def plain_core(pairs: list[tuple[str, str]], k: int) -> set[tuple[str, str]]:
    """One user or item at a time, until nothing changes."""
    left = set(pairs)
    while True:
        for place in (0, 1):
            names = [pair[place] for pair in left]
            rare = next((name for name in sorted(set(names)) if names.count(name) < k), None)
            if rare is not None:
                left = {pair for pair in left if pair[place] != rare}
                break
        else:
            return left


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
@pytest.mark.parametrize("k", [2, 3, 5])
def test_the_core_is_the_fixed_point_of_dropping(seed, k):
    generator = np.random.default_rng(seed)
    cells = np.argwhere(generator.random((25, 20)) < 0.18)
    pairs = [(f"u{user}", f"i{item}") for user, item in cells.tolist()]
    kept = k_core(pl.DataFrame(pairs, schema=["user_id", "item_id"], orient="row"), k)
    assert set(kept.rows()) == plain_core(pairs, k)
    assert len(kept) == len(set(kept.rows()))


def test_the_core_drops_what_only_the_drops_made_rare():
    """u3's only other item goes, then u3, and with it the last item that kept u4."""
    chain = [
        ("u1", "a"),
        ("u1", "b"),
        ("u2", "a"),
        ("u2", "b"),
        ("u3", "c"),
        ("u3", "d"),
        ("u4", "d"),
        ("u4", "e"),
        ("u5", "e"),
    ]
    kept = k_core(pl.DataFrame(chain, schema=["user_id", "item_id"], orient="row"), 2)
    assert kept.rows() == chain[:4]


def test_of_repeated_events_the_latest_stays():
    columns = ["user_id", "item_id", "timestamp", "rating"]
    rows = [
        ("u", "i", 5, 1.0),
        ("u", "i", 9, 2.0),
        ("u", "i", None, 3.0),
        ("u", "j", 1, 4.0),
        ("u", "i", 9, 5.0),
        ("v", "i", 2, 6.0),
    ]
    events = pl.DataFrame(rows, schema=columns, orient="row")
    assert sorted(latest_of_repeats(events)["rating"].to_list()) == [4.0, 5.0, 6.0]  # of equal times the later row
    by_position = events.with_columns(position=pl.Series([9, 1, 2, 3, 4, 5]))
    assert sorted(latest_of_repeats(by_position)["rating"].to_list()) == [1.0, 4.0, 6.0]
    assert sorted(latest_of_repeats(events.drop("timestamp"))["rating"].to_list()) == [4.0, 5.0, 6.0]


def test_ids_that_share_a_hash_stay_apart(monkeypatch):
    """A hash that tells lengths alone: what is made of the events is what the true one makes of them."""
    events, hashed = random_events(), pl.Series.hash
    expected = build_dataset(events, min_core=2)
    asked = []

    def poor(texts, seed=0):
        asked.append(seed)
        return texts.str.len_bytes().cast(pl.UInt64) if seed == 0 else hashed(texts, seed)

    monkeypatch.setattr(pl.Series, "hash", poor)
    found = build_dataset(events, min_core=2)
    assert 1 in asked
    assert (found.fingerprint, found.about) == (expected.fingerprint, expected.about)


def test_whole_numbers_and_their_texts_are_filtered_alike():
    """Ids far apart and below zero, which are no numbers from 0."""
    generator = np.random.default_rng(0)
    users, items = generator.integers(0, 40, 400) * 10**15 - 10**16, generator.integers(-30, 0, 400)
    events = pl.DataFrame({"user_id": users, "item_id": items, "timestamp": generator.integers(0, 9, 400)})
    as_text = events.with_columns(pl.col("user_id", "item_id").cast(pl.String))
    for split in ("random", "leave-last-out", "none"):
        one, other = build_dataset(events, min_core=7, split=split), build_dataset(as_text, min_core=7, split=split)
        assert 0 < len(one.interactions) < 400
        assert (one.fingerprint, one.split_fingerprint, one.about) == (other.fingerprint, other.split_fingerprint, other.about)
        assert one.users["user_id"].dtype == pl.Int64 and other.users["user_id"].dtype == pl.String


def test_every_rule_accounts_for_what_it_dropped():
    events = pl.DataFrame(
        [
            ("a", "x", 5.0, 1),
            ("a", "y", 4.0, 2),
            ("a", "y", 5.0, 3),  # repeat
            ("b", "x", 5.0, 1),
            ("b", "y", 4.0, 1),
            ("b", "z", 4.0, 1),  # z goes with the 2-core
            ("c", "x", 2.0, 1),  # below 4: c goes, and w
            ("c", "w", None, 1),  # without a rating
        ],
        schema=["user_id", "item_id", "rating", "timestamp"],
        orient="row",
    )
    dataset = build_dataset(events, min_rating=4, min_core=2, split="none")
    dropped = [(one["users"], one["items"], one["events"]) for one in dataset.about["rules"]]
    assert dropped == [(0, 0, 1), (1, 1, 2), (0, 1, 1)]
    assert sum(events_ for *_, events_ in dropped) + len(dataset.interactions) == len(events)
    assert [one["rule"] for one in dataset.about["rules"]] == [
        "latest of repeated events of a user and an item",
        "rating >= 4",
        "2-core",
    ]


@pytest.mark.parametrize(
    ("split", "left"),
    [("random", ["b"]), ("none", ["b"]), ("file", ["b"]), ("leave-last-out", ["a", "b"])],
)
def test_the_rating_that_counts_is_that_of_the_event_that_stays(split, left):
    """Rated 5 and later 1: the latest of repeats is no event rated 4 and more. In splits in time the first stays."""
    rows = [("u", "a", 5, 1), ("u", "a", 1, 2), ("u", "b", 5, 3), ("v", "c", 1, 4), ("v", "c", 5, 5), ("v", "d", 5, 6)]
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "rating", "timestamp"], orient="row")
    parts = events.select("user_id", "item_id", seed_0=pl.lit("t")).unique() if split == "file" else None
    for order in (events, events.reverse()):
        dataset = build_dataset(order, min_rating=4, split=split, split_table=parts)
        names = dataset.item_ids.names(dataset.interactions.items).to_list()
        assert [name for name in sorted(names) if name in "ab"] == left
        assert ("c" in names) == (split != "leave-last-out")
        assert [rule["rule"].split()[0] for rule in dataset.about["rules"]][-1] == "rating"
        assert "of repeats the" in dataset.about["split"]["rule"]
        assert "with its rating" in dataset.about["split"]["rule"]


def test_a_latest_event_without_a_rating_is_not_liked():
    rows = [("u", "a", 5.0, 1), ("u", "a", None, 2), ("u", "b", 5.0, 3)]
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "rating", "timestamp"], orient="row")
    dataset = build_dataset(events, min_rating=4, split="none")
    assert dataset.items["item_id"].to_list() == ["b"]


def test_a_core_holds_after_a_split_file_has_left_out_events():
    """Without the event of c that the file does not name, user v and then item d are below a 2-core."""
    rows = [("u", "a"), ("u", "b"), ("w", "a"), ("w", "b"), ("v", "c"), ("v", "d"), ("w", "d")]
    events = pl.DataFrame(rows, schema=["user_id", "item_id"], orient="row")
    table = events.filter(pl.col("item_id") != "c").with_columns(seed_0=pl.lit("t"))
    dataset = build_dataset(events, min_core=2, split="f", split_table=table)
    assert sorted(dataset.items["item_id"].to_list()) == ["a", "b"]
    assert sorted(dataset.users["user_id"].to_list()) == ["u", "w"]
    assert dataset.about["split"]["rows_without_events"] == 0
    assert [rule["rule"] for rule in dataset.about["rules"]][1:] == ["named in column seed_0 of f", "2-core"]


def test_an_account_reads_as_a_sentence():
    rules = Rules(pl.DataFrame({"user_id": ["a", "b"], "item_id": ["x", "x"]}))
    rules.apply("only a", lambda frame: frame.filter(pl.col("user_id") == "a"))
    assert str(rules.dropped[0]) == "only a: dropped 1 event, 1 user, 0 items"


def test_a_rating_filter_without_ratings_and_filters_that_leave_nothing_are_errors():
    events = random_events()
    with pytest.raises(ValueError, match="needs a rating column"):
        build_dataset(events, min_rating=4)
    with pytest.raises(ValueError, match="nothing is left"):
        build_dataset(events, min_core=1000)


# Splits.


@pytest.mark.parametrize(
    ("n", "held"),
    [(1, 0), (2, 0), (3, 1), (4, 1), (9, 1), (10, 1), (14, 1), (15, 2), (16, 2), (24, 2), (25, 2), (26, 3), (94, 9), (96, 10)],
)
def test_random_split_holds_out_a_tenth_but_at_least_one_of_three(n, held):
    """max(1, round(0.1 n)) to test and as many to validation; 1.5 -> 2 and 2.5 -> 2, as Python rounds."""
    others = [("z", f"i{item}") for item in range(100)]
    events = pl.DataFrame([("a", f"i{i}") for i in range(n)] + others, schema=["user_id", "item_id"], orient="row")
    dataset = build_dataset(events)
    own = dataset.part[dataset.interactions.users == dataset.user_ids.index(["a"])[0]]
    assert [(own == part).sum() for part in (0, 1, 2)] == [n - 2 * held, held, held]


def test_random_split_depends_on_neither_the_order_of_rows_nor_the_other_users():
    events = random_events(3)
    whole = parts_by_ids(build_dataset(events, seed=4))
    assert parts_by_ids(build_dataset(events.sample(fraction=1, shuffle=True, seed=1), seed=4)) == whole
    some = parts_by_ids(build_dataset(events.filter(pl.col("user_id").is_in(["u1", "u5", "u6", "u20"])), seed=4))
    assert some == {pair: part for pair, part in whole.items() if pair[0] in ("u1", "u5", "u6", "u20")}


def test_random_splits_of_different_seeds_differ():
    events = random_events(3)
    first, second = (parts_by_ids(build_dataset(events, seed=seed)) for seed in (0, 1))
    moved = [pair for pair in first if first[pair] != second[pair]]
    assert len(moved) > 0.15 * len(first)  # about 2 * 0.2 * 0.8 expected


def test_random_split_takes_early_and_late_events_alike():
    rows = [(f"u{user}", f"i{item}", item) for user in range(400) for item in range(20)]
    dataset = build_dataset(pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row"))
    places = dataset.test.interactions.times
    assert places is not None
    assert places.mean() == pytest.approx(9.5, abs=0.7)  # standard error 0.2
    assert set(places.tolist()) == set(range(20))


def test_leave_last_out_holds_out_the_last_two_events():
    rows = [("a", "x", 30), ("a", "y", 10), ("a", "z", 20), ("a", "w", 5), ("b", "x", 1), ("b", "y", 2)]
    dataset = build_dataset(
        pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row"), split="leave-last-out"
    )
    assert parts_by_ids(dataset) == {
        ("a", "x"): 2,
        ("a", "z"): 1,
        ("a", "y"): 0,
        ("a", "w"): 0,
        ("b", "x"): 0,
        ("b", "y"): 0,
    }


def test_leave_last_out_goes_by_position_before_timestamp_and_not_by_row_order_in_ties():
    events = random_events(5)
    shuffled = events.sample(fraction=1, shuffle=True, seed=2)
    assert parts_by_ids(build_dataset(events, split="leave-last-out")) == parts_by_ids(
        build_dataset(shuffled, split="leave-last-out")
    )
    rows = [("a", "x", 3, 10), ("a", "y", 2, 20), ("a", "z", 1, 30)]
    placed = pl.DataFrame(rows, schema=["user_id", "item_id", "position", "timestamp"], orient="row")
    assert parts_by_ids(build_dataset(placed, split="leave-last-out")) == {("a", "x"): 2, ("a", "y"): 1, ("a", "z"): 0}


def test_time_split_cuts_at_one_moment_for_all_and_keeps_a_second_together():
    rows = [(f"u{i % 4}", f"i{i}", i) for i in range(20)]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    parts = {int(item[1:]): part for (_, item), part in parts_by_ids(build_dataset(frame, split="time")).items()}
    assert parts == {i: 0 if i < 16 else 1 if i < 18 else 2 for i in range(20)}
    tied = frame.with_columns(timestamp=pl.col("timestamp").replace({17: 18, 15: 16}))
    parts = {int(item[1:]): part for (_, item), part in parts_by_ids(build_dataset(tied, split="time")).items()}
    assert parts == {i: 0 if i < 15 else 1 if i < 17 else 2 for i in range(20)}


def test_time_split_of_events_that_share_a_moment_is_an_error():
    frame = random_events().with_columns(timestamp=pl.lit(7))
    with pytest.raises(ValueError, match="share one timestamp"):
        build_dataset(frame, split="time")


def tied_events(seed: int, split: str) -> pl.DataFrame:
    """Few users, items and moments: many ties, repeats and empty cells; the review numbers the row."""
    generator = np.random.default_rng(seed)
    n = int(generator.integers(6, 40))
    draw = {"position": [None, 0, 1, 2], "timestamp": [None, 10, 20, 30, 40, 50]}
    columns = {name: [values[i] for i in generator.integers(0, len(values), n)] for name, values in draw.items()}
    columns |= {name: [f"{name[0]}{i}" for i in generator.integers(0, 6, n)] for name in ("user_id", "item_id")}
    kept = [("timestamp",), ("position", "timestamp"), ("position",) if split != "time" else ("timestamp",)][seed % 3]
    columns = {name: cells for name, cells in columns.items() if name.endswith("_id") or name in kept}
    return pl.DataFrame(columns, schema_overrides=dict.fromkeys(kept, pl.Int64)).with_columns(
        review_text=pl.format("row {}", pl.int_range(pl.len()))
    )


def moment(row: dict, *names: str) -> list[float]:
    """When an event took place; an empty cell is before everything."""
    return [-math.inf if row.get(name) is None else row[name] for name in names]


def plain_rows(events: pl.DataFrame, split: str) -> list[dict]:
    """One event a user and item, as the split's rule has it, in the order of each user's events."""
    order = ("timestamp", "position") if split == "time" else ("position", "timestamp")
    stays: dict[tuple[str, str], dict] = {}
    for row in events.to_dicts():
        known = stays.setdefault((row["user_id"], row["item_id"]), row)
        earlier, later = moment(row, *order) < moment(known, *order), moment(row, *order) >= moment(known, *order)
        if earlier if split in ("leave-last-out", "time") else later:
            stays[row["user_id"], row["item_id"]] = row
    return sorted(stays.values(), key=lambda row: (row["user_id"], moment(row, "position", "timestamp"), hashed(row)))


def hashed(row: dict, *key: int) -> int:
    return int(mix(*key, *hash_ids([row["user_id"], row["item_id"]]).tolist())[0])


def plain_parts(rows: list[dict], split: str, seed: int) -> list[int]:
    """The part of each row."""
    part = {id(row): 0 for row in rows}
    if split == "time":
        times = sorted(moment(row, "timestamp")[0] for row in rows)
        marks = times[int(0.8 * len(rows))], times[int(0.9 * len(rows))]
        if marks[0] == marks[1] or marks[0] == times[0]:
            raise ValueError("too many events share one timestamp")
        part = {id(row): sum(moment(row, "timestamp")[0] >= mark for mark in marks) for row in rows}
    for user in {row["user_id"] for row in rows} if split in ("random", "leave-last-out") else ():
        mine = [row for row in rows if row["user_id"] == user]
        held = max(1, round(0.1 * len(mine))) if split == "random" else 1
        if split == "random":
            mine.sort(key=lambda row: -hashed(row, seed))
        if len(mine) >= 3:
            part |= {id(row): 1 for row in mine[-2 * held :]} | {id(row): 2 for row in mine[-held:]}
    return [part[id(row)] for row in rows]


@pytest.mark.parametrize("split", list(RULES))
def test_every_split_equals_its_rule_in_plain_python(split):
    compared = 0
    for seed in range(120):
        events = tied_events(seed, split)
        try:
            rows = plain_rows(events, split)
            parts = plain_parts(rows, split, seed)
        except ValueError:
            with pytest.raises(ValueError, match="share one timestamp"):
                build_dataset(events, split=split, seed=seed)
            continue
        dataset = build_dataset(events, split=split, seed=seed)
        kept = dataset.interactions
        names = dataset.user_ids.names(kept.users).to_list(), dataset.item_ids.names(kept.items).to_list()
        got = list(zip(*names, kept.reviews.to_list(), dataset.part.tolist(), strict=True))
        expected = [(row["user_id"], row["item_id"], row["review_text"], part) for row, part in zip(rows, parts, strict=True)]
        assert sorted(got, key=lambda row: row[0]) == expected  # a stable sort: each user's order is compared too
        compared += 1
    assert compared > 50


def test_the_last_events_are_not_taken_back_to_an_earlier_place_by_a_repeat():
    """Keeping the latest of repeats would take x out of the past of a user who came back to it in the end."""
    rows = [("a", "x", 1), ("a", "y", 2), ("a", "z", 3), ("a", "x", 9)]
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    assert parts_by_ids(build_dataset(events, split="leave-last-out")) == {("a", "x"): 0, ("a", "y"): 1, ("a", "z"): 2}
    latest = build_dataset(events, split="none")
    assert latest.interactions.times.tolist() == [2, 3, 9]


def test_the_part_history_is_seen_and_not_learned_from(tmp_path):
    events = pl.DataFrame({"user_id": ["a"] * 4, "item_id": list("wxyz"), "position": [0, 1, 2, 3]})
    parts = ["train", "history", "validation", "test"]
    dataset = Dataset.from_frame(events.with_columns(part=pl.Series(parts)))
    dataset.save(tmp_path / "data")
    for one in (dataset, Dataset.load(tmp_path / "data")):
        assert one.part.tolist() == [0, 3, 1, 2]
        assert one.item_ids.names(one.seen.interactions.items).to_list() == ["w", "x"]
        assert one.item_ids.names(one.train.interactions.items).to_list() == ["w"]
    about = json.loads((tmp_path / "data" / "dataset.json").read_text())
    assert about["n_events_by_part"] == {"train": 1, "validation": 1, "test": 1, "history": 1}
    table = pl.DataFrame({"user_id": ["a"] * 4, "item_id": list("wxyz"), "seed_0": ["t", "h", "val", "e"]})
    assert build_dataset(events, split="f", split_table=table).part.tolist() == [0, 3, 1, 2]
    assert build_dataset(events, split="f", split_table=table.with_columns(seed_0=pl.Series(parts))).part.tolist() == [
        0,
        3,
        1,
        2,
    ]
    with pytest.raises(ValueError, match="part 'later' is unknown"):
        Dataset.from_frame(events.with_columns(part=pl.lit("later")))


def test_none_holds_nothing_out():
    dataset = build_dataset(random_events(), split="none")
    assert not dataset.part.any()
    assert len(dataset.train.interactions) == len(dataset.interactions)


@pytest.mark.parametrize("split", ["leave-last-out", "time"])
def test_splits_in_time_without_times_are_an_error(split):
    with pytest.raises(ValueError, match=f"--split {split}"):
        build_dataset(random_events().drop("timestamp"), split=split)


def test_an_unknown_split_is_an_error_that_names_the_known_ones():
    for call in (
        lambda: build_dataset(random_events(), split="by luck"),
        lambda: assign_parts(build_dataset(random_events()), "by luck"),
    ):
        with pytest.raises(ValueError, match="'by luck' is unknown") as error:
            call()
        assert all(rule in str(error.value) for rule in RULES)


def test_a_split_table_gives_the_parts_by_letter_and_by_word(tmp_path):
    events = pl.DataFrame({"user_id": ["1", "1", "1", "1"], "item_id": ["01", "2", "3", "4"]})
    content = "userId\titemId\tseed_0\tmine\n1\t01\tt\ttest\n1\t2\tv\tvalidation\n1\t3\te\ttrain\n9\t9\tt\ttrain\n"
    path = written(tmp_path / "parts.tsv", content)
    letters = build_dataset(events, split=str(path), split_table=read_split(path))
    assert parts_by_ids(letters) == {("1", "01"): 0, ("1", "2"): 1, ("1", "3"): 2}  # item 4 is not named: left out
    words = build_dataset(events, split=str(path), split_table=read_split(path), split_column="mine")
    assert parts_by_ids(words) == {("1", "01"): 2, ("1", "2"): 1, ("1", "3"): 0}
    assert words.about["rules"][-1]["rule"] == "named in column mine of parts.tsv"
    assert words.about["rules"][-1]["events"] == 1


def test_a_split_table_of_text_meets_integer_ids():
    events = pl.DataFrame({"user_id": [1, 1], "item_id": [5, 6]})
    table = pl.DataFrame({"user_id": ["1", "1"], "item_id": ["6", "5"], "seed_0": ["e", "t"]})
    assert parts_by_ids(build_dataset(events, split="f.tsv", split_table=table)) == {(1, 5): 0, (1, 6): 2}


def test_a_split_table_without_the_column_or_with_other_values_is_an_error():
    events = pl.DataFrame({"user_id": ["1", "1"], "item_id": ["5", "6"]})
    table = pl.DataFrame({"user_id": ["1", "1"], "item_id": ["6", "5"], "seed_0": ["e", "x"], "seed_1": ["e", None]})
    with pytest.raises(ValueError, match=r"no column 'seed_7': choose one of seed_0, seed_1"):
        build_dataset(events, split="f.tsv", split_table=table, seed=7)
    with pytest.raises(ValueError, match="the split, row 2, column seed_0: 'x'"):
        build_dataset(events, split="f.tsv", split_table=table)
    with pytest.raises(ValueError, match="the split, row 2, column seed_1: an empty cell"):
        build_dataset(events, split="f.tsv", split_table=table, seed=1)


def test_the_dataset_says_how_it_was_split():
    about = build_dataset(random_events(), split="random", seed=3).about
    assert about["split"] == {"method": "random", "seed": 3, "rule": RULES["random"]}


# Interactions and ids.


def test_histories_of_several_users_equal_those_of_each():
    dataset = build_dataset(random_events(1)).train
    users = np.array([4, 0, 4, 29, 7])
    events, lengths = dataset.interactions.histories(users)
    pieces = np.split(dataset.interactions.items[events], np.cumsum(lengths)[:-1])
    for user, items in zip(users.tolist(), pieces, strict=True):
        np.testing.assert_array_equal(items, dataset.interactions.history(user))
    times = dataset.interactions.times
    assert times is not None
    assert all((np.diff(times[dataset.interactions.users == user]) >= 0).all() for user in range(dataset.n_users))


def test_the_matrix_is_binary_and_has_rows_for_users_without_events():
    events = Interactions(np.array([0, 0, 2]), np.array([1, 1, 3]), n_users=4, n_items=5)
    expected = np.zeros((4, 5), dtype=np.float32)
    expected[0, 1] = expected[2, 3] = 1
    np.testing.assert_array_equal(events.matrix.toarray(), expected)


def test_numbers_out_of_range_and_unsorted_users_are_refused():
    with pytest.raises(ValueError, match="item number 5 is out of range: there are 5 items"):
        Interactions(np.array([0]), np.array([5]), 1, 5)
    with pytest.raises(ValueError, match="user number -1 is out of range"):
        Interactions(np.array([-1]), np.array([0]), 1, 5)
    with pytest.raises(ValueError, match="not sorted by user"):
        Interactions(np.array([1, 0]), np.array([0, 0]), 2, 5)


def test_ids_are_found_by_their_text_and_unknown_ones_are_named():
    ids = IdMap(pl.Series(["007", "b", "7"]))
    assert ids.index(["7", "007", "7"]).tolist() == [2, 0, 2]
    assert ids.find(["b", "nobody"]).tolist() == [1, -1]
    assert IdMap(pl.Series([30, 7])).index(["7", 30]).tolist() == [1, 0]
    assert ids.names(np.array([2, 0])).to_list() == ["7", "007"]
    with pytest.raises(ValueError, match=r"user 'nobody' is not in the data \(2 of 3 unknown\)"):
        ids.index(["b", "nobody", "else"], "user")


# The dataset and its folder.


def test_numbers_do_not_depend_on_the_order_of_rows():
    events = random_events(2).unique(["user_id", "item_id"], maintain_order=True)
    items = pl.DataFrame({"item_id": [f"i{i}" for i in range(25)], "title": [f"Title {i}" for i in range(25)]})
    one = Dataset.from_frame(events, items)
    other = Dataset.from_frame(events.sample(fraction=1, shuffle=True, seed=5), items.reverse())
    assert same_dataset(one, other)
    assert one.fingerprint == other.fingerprint
    np.testing.assert_array_equal(one.tie_order, other.tie_order)


def test_the_order_of_ties_is_stored_and_is_the_same_without_the_file(tmp_path):
    dataset = build_dataset(taste_world(1, n_users=20, n_items=50, n_events=8).events)
    dataset.save(tmp_path / "data")
    loaded = Dataset.load(tmp_path / "data")
    assert loaded.ties is not None
    for part in (loaded, loaded.train, loaded.only("train", "test")):
        np.testing.assert_array_equal(part.tie_order, dataset.tie_order)
    assert loaded.items.equals(dataset.items)
    np.testing.assert_array_equal(replace(loaded, ties=None).tie_order, dataset.tie_order)
    assert loaded.fingerprint == dataset.fingerprint


@pytest.mark.parametrize("n_asked", [2, 150])
def test_ids_are_found_with_and_without_a_dictionary_of_all(n_asked):
    ids = pl.Series(["a b", "007", "7", " x", "é"] + [f"id {i}" for i in range(300)])
    asked = (["7", "nobody", "é", "007"] * n_asked)[:n_asked]
    assert IdMap(ids).find(asked).tolist() == [{"7": 2, "nobody": -1, "é": 4, "007": 1}[one] for one in asked]
    assert IdMap(pl.Series([5, 7, 12])).find([12, "5", 6][:n_asked]).tolist() == [2, 0, -1][:n_asked]


def test_numbers_say_nothing_about_popularity_or_age():
    rows = [(f"u{user}", f"i{item}", item) for item in range(200) for user in range(1 + item)]
    dataset = Dataset.from_frame(pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row"))
    popularity = np.bincount(dataset.interactions.items)
    for order in (np.arange(200), dataset.tie_order):
        assert abs(np.corrcoef(order, popularity)[0, 1]) < 0.25  # standard error 0.07


def test_reviews_travel_with_their_event_through_sorting_splitting_and_the_folder(tmp_path):
    dataset = build_dataset(random_events(6).sample(fraction=1, shuffle=True, seed=0))
    dataset.save(tmp_path / "data")
    for whole in (dataset, Dataset.load(tmp_path / "data")):
        for part in (whole, whole.train, whole.validation, whole.test):
            events = part.interactions
            assert events.reviews is not None
            users, items = part.user_ids.names(events.users), part.item_ids.names(events.items)
            expected = [f"{user} on {item}" for user, item in zip(users, items, strict=True)]
            assert events.reviews.to_list() == expected
            assert len(events) > 0


def test_parts_keep_all_users_and_items_and_only_their_own_events():
    dataset = build_dataset(random_events(7))
    together = dataset.only("train", "test")
    assert (together.n_users, together.n_items) == (dataset.n_users, dataset.n_items)
    assert set(together.part.tolist()) == {0, 2}
    assert len(together.interactions) == len(dataset.train.interactions) + len(dataset.test.interactions)
    assert len(dataset.only().interactions) == 0
    pairs = [set(parts_by_ids(part)) for part in (dataset.train, dataset.validation, dataset.test)]
    assert set.union(*pairs) == set(parts_by_ids(dataset))
    assert sum(map(len, pairs)) == len(dataset.interactions)


def test_reviews_and_timestamps_may_be_missing_in_places_or_everywhere(tmp_path):
    frame = pl.DataFrame({"user_id": ["a", "a"], "item_id": ["x", "y"], "review_text": ["fine", None], "timestamp": [5, None]})
    dataset = Dataset.from_frame(frame)
    assert sorted(dataset.interactions.reviews.to_list()) == ["", "fine"]
    assert dataset.interactions.times.tolist() == [-1, 5]  # an event without a time comes first
    bare = Dataset.from_frame(frame.select("user_id", "item_id"))
    bare.save(tmp_path / "bare")
    assert Dataset.load(tmp_path / "bare").interactions.reviews is None
    assert Dataset.load(tmp_path / "bare").interactions.times is None


def test_a_folder_round_trip_gives_the_same_dataset(tmp_path):
    items = pl.DataFrame({"item_id": [f"i{i}" for i in range(25)], "title": [f"Title {i}" for i in range(25)], "brand": "é"})
    users = pl.DataFrame({"user_id": ["u1"], "biography": ["likes\ntea"]})
    dataset = build_dataset(random_events(8), items, users, min_core=2, seed=5)
    dataset.save(tmp_path / "data")
    loaded = Dataset.load(tmp_path / "data")
    assert same_dataset(dataset, loaded)
    assert loaded.fingerprint == dataset.fingerprint
    assert loaded.split_fingerprint == dataset.split_fingerprint
    assert loaded.item_texts == dataset.item_texts
    assert loaded.user_texts == dataset.user_texts
    assert {name: loaded.about[name] for name in dataset.about} == dataset.about
    assert loaded.about["data_sha256"] == dataset.fingerprint
    loaded.save(tmp_path / "again")
    assert same_dataset(dataset, Dataset.load(tmp_path / "again"))
    assert (tmp_path / "again" / "dataset.json").read_text() == (tmp_path / "data" / "dataset.json").read_text()


def test_the_fingerprint_tells_data_apart_and_the_split_has_its_own():
    events = random_events(9)
    dataset = build_dataset(events)
    changed = events.with_columns(review_text=pl.when(pl.arange(pl.len()) == 3).then(pl.lit("!")).otherwise("review_text"))
    assert build_dataset(changed).fingerprint != dataset.fingerprint
    assert build_dataset(events.head(len(events) - 1)).fingerprint != dataset.fingerprint
    other_split = build_dataset(events, seed=1)
    assert other_split.fingerprint == dataset.fingerprint
    assert other_split.split_fingerprint != dataset.split_fingerprint


def test_the_counts_in_the_folder_are_those_of_the_events_saved(tmp_path):
    dataset = build_dataset(random_events(8))
    dataset.save(tmp_path / "data")
    for name, part in (("fresh", dataset.train), ("loaded", Dataset.load(tmp_path / "data").train)):
        part.save(tmp_path / name)
        about = json.loads((tmp_path / name / "dataset.json").read_text())
        n = len(dataset.train.interactions)
        assert about["n_events"] == n
        assert about["n_events_by_part"] == {"train": n, "validation": 0, "test": 0, "history": 0}


def test_another_format_version_and_a_folder_without_a_dataset_are_clear_errors(tmp_path):
    build_dataset(random_events()).save(tmp_path / "data")
    about = json.loads((tmp_path / "data" / "dataset.json").read_text())
    (tmp_path / "data" / "dataset.json").write_text(json.dumps(about | {"format_version": 99}))
    with pytest.raises(ValueError, match="format_version 99 is unknown.* prepare the dataset again"):
        Dataset.load(tmp_path / "data")
    with pytest.raises(ValueError, match="not a dataset folder"):
        Dataset.load(tmp_path)


def test_save_refuses_what_is_not_a_dataset(tmp_path):
    dataset = build_dataset(random_events())
    foreign = tmp_path / "photos"
    foreign.mkdir()
    (foreign / "cat.txt").write_text("meow")
    (tmp_path / "file").write_text("x")
    for place in (foreign, tmp_path / "file"):
        with pytest.raises(ValueError, match="name another one"):
            dataset.save(place)
    assert (foreign / "cat.txt").read_text() == "meow"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "photos"]


def test_save_replaces_an_older_dataset_and_fills_an_empty_folder(tmp_path):
    first, second = build_dataset(random_events(1)), build_dataset(random_events(2, reviews=False))
    (tmp_path / "data").mkdir()
    first.save(tmp_path / "data")
    (tmp_path / "data" / "stale.txt").write_text("a listed file of the older dataset")
    write_manifest(tmp_path / "data")
    second.save(tmp_path / "data")
    assert same_dataset(Dataset.load(tmp_path / "data"), second)
    assert not (tmp_path / "data" / "stale.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    second.save(tmp_path / "new" / "folders" / "data")
    assert same_dataset(Dataset.load(tmp_path / "new" / "folders" / "data"), second)


def test_a_folder_that_holds_a_foreign_file_is_not_replaced(tmp_path):
    dataset = build_dataset(random_events(1))
    dataset.save(tmp_path / "data")
    (tmp_path / "data" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="data holds notes.txt, which is not a file of this package: move it"):
        dataset.save(tmp_path / "data")
    assert (tmp_path / "data" / "notes.txt").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_save_that_fails_leaves_nothing_behind(tmp_path):
    dataset = build_dataset(random_events(1))
    unwritable = replace(dataset, about={"thing": object()})
    with pytest.raises(TypeError):
        unwritable.save(tmp_path / "data")
    assert list(tmp_path.iterdir()) == []
    dataset.save(tmp_path / "data")
    with pytest.raises(TypeError):
        unwritable.save(tmp_path / "data")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert same_dataset(Dataset.load(tmp_path / "data"), dataset)


def test_no_events_are_an_error():
    with pytest.raises(ValueError, match="no events"):
        Dataset.from_frame(pl.DataFrame({"user_id": [], "item_id": []}, schema={"user_id": pl.String, "item_id": pl.String}))


@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.jsonl"])
def test_tables_are_written_as_their_name_says(tmp_path, name):
    table = pl.DataFrame({"user_id": ["007", "8"], "item_id": ["x,y", '"z"']})
    path = str(tmp_path / name)
    check_table_name(path)
    write_table(table, path)
    assert read_raw(path).frame.equals(table)
    assert [one.name for one in tmp_path.iterdir()] == [name]


def test_a_table_of_unknown_kind_or_in_no_folder_is_refused_before_any_work(tmp_path):
    with pytest.raises(ValueError, match=r"\.parquet, \.csv or \.jsonl"):
        check_table_name(str(tmp_path / "t.xlsx"))
    with pytest.raises(ValueError, match="there is no folder"):
        check_table_name(str(tmp_path / "nowhere" / "t.csv"))


def test_text_is_replaced_in_one_step(tmp_path):
    for text in ("old", "new"):
        write_text(tmp_path / "a.json", text)
        assert (tmp_path / "a.json").read_text() == text
    assert [one.name for one in tmp_path.iterdir()] == ["a.json"]


# Randomness.


def test_mix_gives_known_values():
    """The first two are SplitMix64's published first outputs for the seeds 0 and 1234567."""
    assert int(mix(0)[0]) == 0xE220A8397B1DCDAF
    assert int(mix(1234567)[0]) == 6457827717110365317
    assert mix(1, np.array([2, -1])).tolist() == [13608149317741381227, 11917333196513764506]


def test_mix_equals_splitmix64_in_whole_numbers_of_any_size():
    def plain(*parts: int) -> int:
        mask, state = 2**64 - 1, 0
        for part in parts:
            state = ((state ^ (part & mask)) + 0x9E3779B97F4A7C15) & mask
            state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
            state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
            state ^= state >> 31
        return state

    generator = np.random.default_rng(0)
    parts = generator.integers(-(2**63), 2**63 - 1, (3, 50))
    assert mix(*parts).tolist() == [plain(*column) for column in parts.T.tolist()]


def test_the_order_and_the_number_of_parts_matter_and_arrays_broadcast():
    assert mix(1, 2)[0] != mix(2, 1)[0]
    assert mix(1)[0] != mix(1, 0)[0]
    table = mix(7, np.arange(4)[:, None], np.arange(3))
    assert table.shape == (4, 3)
    assert all(table[a, b] == mix(7, a, b)[0] for a in range(4) for b in range(3))
    assert len(np.unique(mix(0, np.arange(100_000)))) == 100_000


@pytest.mark.parametrize("key", [(0,), (1, 2), (0, -1, 5)])
def test_uniform_numbers_are_uniform(key):
    draws = uniform(*key, np.arange(100_000))
    assert 0 <= draws.min() and draws.max() < 1
    assert draws.mean() == pytest.approx(0.5, abs=0.005)  # standard error 0.0009
    assert draws.var() == pytest.approx(1 / 12, abs=0.001)
    counts = np.bincount((draws * 20).astype(int), minlength=20)
    assert ((counts - 5000) ** 2 / 5000).sum() < 50  # chi-square with 19 degrees of freedom, p < 0.0002
    assert abs(np.corrcoef(draws[1:], draws[:-1])[0, 1]) < 0.015


def test_hashes_of_ids_go_by_their_text_alone():
    expected = int.from_bytes(hashlib.blake2b(b"007", digest_size=8).digest(), "big") % 2**63
    assert hash_ids(["007", "7", 7]).tolist()[0] == expected
    assert hash_ids(["7"]).tolist() == hash_ids([7]).tolist() == hash_ids(pl.Series([7])).tolist()
    assert (hash_ids(range(1000)) >= 0).all()


def test_permutations_hold_every_number_once_and_differ_by_key():
    orders = [permutation(500, seed, epoch).tolist() for seed in range(3) for epoch in range(3)]
    assert all(sorted(order) == list(range(500)) for order in orders)
    assert len(set(map(tuple, orders))) == 9
    assert permutation(500, 1, 2).tolist() == permutation(500, 1, 2).tolist()
    firsts = np.array([permutation(10, seed)[0] for seed in range(2000)])
    assert ((np.bincount(firsts, minlength=10) - 200) ** 2 / 200).sum() < 33  # chi-square, 9 degrees, p < 0.0002


# Small worlds.


def test_worlds_are_determined_by_their_seed():
    one, same, other = (taste_world(seed, n_users=20, n_items=30, n_events=8) for seed in (1, 1, 2))
    assert one.events.equals(same.events) and one.items.equals(same.items)
    assert not one.events.equals(other.events)
    assert np.exp(one.preference).sum(1) == pytest.approx(np.ones(20))
    assert one.events.unique(["user_id", "item_id"]).height == one.events.height


def test_the_control_world_keeps_users_and_loses_their_taste():
    events = checkerboard(20, 30)
    assert all(int(user[1:]) % 2 == int(item[1:]) % 2 for user, item in events.select("user_id", "item_id").rows())
    control = shuffled_items(events)
    assert set(control["user_id"]) == set(events["user_id"])
    assert control.unique(["user_id", "item_id"]).height == control.height
    matching = sum(int(user[1:]) % 2 == int(item[1:]) % 2 for user, item in control.select("user_id", "item_id").rows())
    assert matching / control.height == pytest.approx(0.5, abs=0.1)


# Real data.


def test_movielens_100k_filtered_as_in_the_papers_has_the_known_size(shared):
    events = read_events(shared / "data" / "ml-100k" / "interactions.tsv.gz")
    items = read_items(shared / "data" / "ml-100k" / "items.tsv.gz")
    dataset = build_dataset(events, items, min_rating=4, min_core=5)
    assert (dataset.n_users, dataset.n_items, len(dataset.interactions)) == (938, 1008, 54413)
    assert dataset.about["texts"]["title"] == 1008
    assert sum(rule["events"] for rule in dataset.about["rules"]) == 100_000 - 54_413
    title = dict(zip(dataset.items["item_id"].to_list(), dataset.items["title"].to_list(), strict=True))["1"]
    assert title == "Toy Story (1995)"


def test_movielens_100k_takes_the_parts_of_a_split_file(shared):
    folder = shared / "data" / "ml-100k"
    events, table = read_events(folder / "interactions.tsv.gz"), read_split(folder / "split_A.tsv.gz")
    dataset = build_dataset(events, min_rating=4, min_core=5, split=str(folder / "split_A.tsv.gz"), split_table=table)
    assert (dataset.n_users, dataset.n_items, len(dataset.interactions)) == (938, 1008, 54413)
    assert dataset.about["rules"][-1]["events"] == 0
    expected = {(user, item): "tve".index(part) for user, item, part in table.select("user_id", "item_id", "seed_0").rows()}
    assert parts_by_ids(dataset) == expected


def test_a_pair_of_user_and_item_that_comes_twice_is_refused_by_name():
    with pytest.raises(ValueError, match="'ann' has item 'x' more than once"):
        Dataset.from_frame(pl.DataFrame({"user_id": ["ann", "ann"], "item_id": ["x", "x"]}))


def test_other_histories_keep_the_items_as_they_are_numbered():
    dataset = Dataset.from_frame(pl.DataFrame({"user_id": ["ann", "ann", "bob"], "item_id": ["x", "y", "z"]}))
    other = dataset.with_histories(pl.DataFrame({"user_id": ["carl", "carl"], "item_id": ["z", "x"], "timestamp": [1, 2]}))
    assert other.item_ids.ids.equals(dataset.item_ids.ids)
    assert other.user_ids.ids.to_list() == ["carl"]
    assert other.item_ids.names(other.interactions.history(0)).to_list() == ["z", "x"]
    with pytest.raises(ValueError, match="item 'w'"):
        dataset.with_histories(pl.DataFrame({"user_id": ["carl"], "item_id": ["w"]}))


def test_a_place_without_an_item_has_no_name():
    with pytest.raises(ValueError, match="-1"):
        Dataset.from_frame(pl.DataFrame({"user_id": ["ann"], "item_id": ["x"]})).item_ids.names(np.array([0, -1]))


@pytest.mark.parametrize("damaged", ["events.parquet", "items.parquet", "dataset.json"])
def test_a_damaged_dataset_folder_ends_in_an_error_that_names_it(damaged, tmp_path):
    Dataset.from_frame(pl.DataFrame({"user_id": ["ann"], "item_id": ["x"]})).save(tmp_path / "data")
    (tmp_path / "data" / damaged).write_text("{ not this")
    with pytest.raises(ValueError, match="data is damaged"):
        Dataset.load(tmp_path / "data")
