"""Kinds of files and frames, each as its publisher writes it, and the columns that are taken from them."""

import datetime
import decimal
import gzip
import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from cllm4rec import prepare
from cllm4rec.data.dataset import Dataset
from cllm4rec.data.formats import read_raw
from cllm4rec.data.preparation import build_dataset
from cllm4rec.data.readers import event_table, read_events, read_items, read_users
from cllm4rec.data.split_tables import read_split
from cllm4rec.data.text_tables import TextTable


def written(path, content):
    """The file with that content, compressed if its name says so."""
    raw = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


def refused(call, *arguments, **settings):
    """The one line that refuses."""
    with pytest.raises(ValueError) as error:
        call(*arguments, **settings)
    assert "\n" not in str(error.value)
    return str(error.value)


def json_lines(*records):
    return "".join(json.dumps(record) + "\n" for record in records)


# Text tables.


def test_a_separator_may_be_given(tmp_path):
    path = written(tmp_path / "e.csv", 'user_id;item_id;rating\n1;"a;b";4\n')
    assert read_events(path, separator=";").rows() == [("1", "a;b", 4.0)]
    path = written(tmp_path / "e.txt", "user_id|item_id\n1|a\n")
    assert read_events(path, separator="|").rows() == [("1", "a")]
    assert "--separator" in refused(read_events, path)
    assert "one character" in refused(read_events, path, separator="||")


@pytest.mark.parametrize(
    ("name", "separator", "way"),
    [
        ("e.csv", ";", "--separator ';'"),
        ("e.csv", "\t", r"--separator '\t'"),
        ("e.tsv", ",", "--separator ','"),
        ("e.csv", "|", "--separator '|'"),
        ("e.tsv", "::", "ratings.dat"),
    ],
)
def test_a_header_that_is_one_cell_says_which_separator_it_holds(tmp_path, name, separator, way):
    path = written(tmp_path / name, f"user_id{separator}item_id\n1{separator}a\n")
    message = refused(read_events, path)
    assert str(path) in message
    assert repr(separator) in message
    assert way in message


@pytest.mark.parametrize("name", ["e.csv", "e.tsv", "e.csv.gz"])
@pytest.mark.parametrize("bad", ["3", "3,c,5,6", "3,c,", "3,,c,"])
def test_a_row_with_more_or_fewer_cells_than_the_header_is_named_by_its_line(tmp_path, name, bad):
    rows = ["user_id,item_id,rating" if bad != "3,c," else "user_id,item_id", "1,a,4" if bad != "3,c," else "1,a", "", bad]
    content = "\n".join(rows) + "\n"
    path = written(tmp_path / name, content.replace(",", "\t") if "tsv" in name else content)
    message = refused(read_events, path)
    assert f"{path}, line 4: {bad.count(',') + 1} cells where the header has {rows[0].count(',') + 1}" in message


def test_a_short_row_is_not_hidden_by_rows_whose_last_cell_is_empty(tmp_path):
    rows = "".join(f"{i},x{i},\n" for i in range(50))
    assert len(read_events(written(tmp_path / "a.csv", "user_id,item_id,rating\n" + rows))) == 50
    assert "line 52: 2 cells" in refused(read_events, written(tmp_path / "b.csv", f"user_id,item_id,rating\n{rows}7,short\n"))


def test_lines_are_counted_with_blank_ones_and_cells_that_span_lines(tmp_path):
    path = written(tmp_path / "e.csv", '\nuser_id,item_id,rating\n\n1,"a\nb",4\r\n\n2,"c\n\nd",bad\n')
    assert f"{path}, line 7, column rating: 'bad'" in refused(read_events, path)
    path = written(tmp_path / "e.tsv", '\n\nuser_id\titem_id\trating\n1\t"a\t4\n\n\n2\tc\tbad\n')
    assert f"{path}, line 7, column rating: 'bad'" in refused(read_events, path)


def test_the_column_of_an_error_is_named_as_in_the_file(tmp_path):
    path = written(tmp_path / "e.csv", "userId,movieId,stars\n1,a,good\n")
    assert "line 2, column stars: 'good'" in refused(read_events, path)


def test_blank_lines_are_no_rows(tmp_path):
    assert read_events(written(tmp_path / "e.csv", "\nuser_id,item_id\n\n1,a\n\r\n\n2,b\n\n\n")).rows() == [
        ("1", "a"),
        ("2", "b"),
    ]
    assert read_items(written(tmp_path / "i.tsv", "item_id\n\na\n\nb\n\n")).rows() == [("a",), ("b",)]


def test_quotes_inside_a_cell_without_quotes_are_taken_as_they_are(tmp_path):
    path = written(tmp_path / "e.csv", 'user_id,item_id\n1,5" disk\n2,"a ""b"" c"\n3,7" disk\n')
    assert read_events(path)["item_id"].to_list() == ['5" disk', 'a "b" c', '7" disk']


@pytest.mark.parametrize("row", ['2,"b', '2,"b" c'])
def test_a_quote_that_is_not_closed_is_named_by_the_line_it_opens_on(tmp_path, row):
    path = written(tmp_path / "e.csv", f"user_id,item_id\n1,a\n{row}\n3,c\n4,d\n")
    assert f"{path}, line 3: " in refused(read_events, path)


def ragged_text(generator, quoted):
    """Random lines of cells: quotes, line ends inside of them, blank lines, here and there a cell too many or too few."""
    cells = ["", "a", "b c", " ", "é", "z"]
    cells += (
        ['"q"', '"x,y"', '"l\nm"', '"d""e"', '""', *(['q"r', '"'] if generator.random() < 0.1 else [])]
        if quoted
        else ['"', 'a"b']
    )
    wrong = generator.choice([0, 0, 0.15])
    sizes = [2 if generator.random() >= wrong else generator.choice([0, 1, 3, 4]) for _ in range(generator.randint(0, 7))]
    end = generator.choice(["\n", "\r\n"])
    lines = ["u,v", *(",".join(generator.choice(cells) for _ in range(size)) for size in sizes)]
    return end.join(lines) + generator.choice(["", end, end * 2])


@pytest.mark.parametrize("quoted", [True, False])
def test_the_fast_way_gives_what_the_walk_gives_or_stands_back(quoted):
    n_fast = 0
    for seed in range(1500):
        table = TextTable(ragged_text(random.Random(seed), quoted).encode(), "t", ",", quoted)
        fast = table._fast()
        if fast is not None:
            n_fast += 1
            assert (
                fast.with_columns(pl.all().fill_null("")).rows() == table._walked().with_columns(pl.all().fill_null("")).rows()
            )
    assert n_fast > 700


def test_a_clean_table_is_not_walked(monkeypatch, tmp_path):
    monkeypatch.setattr(TextTable, "_walked", None)
    for name, content in (
        ("e.csv", 'user_id,item_id,rating\r\n1,"a,b",\r\n2,c,\r\n'),
        ("e.tsv", 'user_id\titem_id\n1\t"a\n2\tb\n\n'),
    ):
        assert len(read_events(written(tmp_path / name, content))) == 2


def test_a_header_that_names_a_column_twice_is_refused(tmp_path):
    assert "item_id twice" in refused(read_events, written(tmp_path / "e.csv", "user_id,item_id,item_id\n1,a,b\n"))


def test_text_that_is_not_utf8_is_named_by_its_first_bad_line(tmp_path):
    path = written(tmp_path / "e.csv", b"user_id,item_id\n1,a\n\n2,caf\xe9\n3,\xff\n")
    assert f"{path}, line 4: not UTF-8" in refused(read_events, path)
    path = written(tmp_path / "e.jsonl", b'{"user_id":1,"item_id":2}\n{"user_id":1,"item_id":"\xe9"}\n')
    assert f"{path}, line 2: not UTF-8" in refused(read_events, path)


# RecBole, MovieLens, LLaRA.


def test_recbole_files(tmp_path):
    events = written(tmp_path / "ml.inter", "user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t2\t3.0\t8.0\n")
    assert read_events(events).rows() == [("1", "2", 3.0, 8)]
    content = (
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n2\tToy Story\t1995\tAnimation Comedy\n"
    )
    items = read_items(written(tmp_path / "ml.item", content))
    assert items.to_dicts() == [{"item_id": "2", "title": "Toy Story", "categories": "Animation Comedy", "year": "1995"}]
    assert read_users(written(tmp_path / "ml.user.gz", "user_id:token\tage:token\n1\t24\n")).rows() == [("1",)]
    assert "line 2, column rating" in refused(
        read_events, written(tmp_path / "b.inter", "user_id:token\titem_id:token\trating:float\n1\t2\tx\n")
    )


def test_movielens_files_without_a_header(tmp_path):
    for name in ("ratings.dat", "ratings.dat.gz"):
        assert read_events(written(tmp_path / name, "1::1193::5::978300760\n")).rows() == [("1", "1193", 5.0, 978300760)]
    movies = written(tmp_path / "movies.dat", "1::Am\xe9lie (2001)::Comedy|Romance\n".encode("latin-1"))
    assert read_items(movies).rows() == [("1", "Amélie (2001)", "Comedy, Romance")]
    assert read_items(written(tmp_path / "movies.dat", "1::Amélie::Comedy\n")).rows() == [("1", "Amélie", "Comedy")]
    assert read_users(written(tmp_path / "users.dat", "1::F::1::10::48067\n")).rows() == [("1",)]
    for name in ("u.data", "u1.base", "ua.test"):
        assert read_events(written(tmp_path / name, "196\t242\t3\t881250949\n")).rows() == [("196", "242", 3.0, 881250949)]
    flags = ["0"] * 19
    flags[3] = flags[4] = "1"
    cells = ["1", "Mis\xe9rables, Les (1995)", "01-Jan-1995", "", "http://x", *flags]
    item = read_items(written(tmp_path / "u.item", ("|".join(cells) + "\n").encode("latin-1")))
    assert item.rows() == [("1", "Misérables, Les (1995)", "Animation, Children's")]
    assert f"{tmp_path / 'u.data'}, line 2: 3 cells where this kind of file has 4" in refused(
        read_events, written(tmp_path / "u.data", "1\t2\t3\t4\n1\t2\t3\n")
    )
    assert "line 1, column rating" in refused(read_events, written(tmp_path / "ratings.dat", "1::2::x::3\n"))


def test_movielens_tables_of_the_newer_sets(tmp_path):
    assert read_events(written(tmp_path / "ratings.csv", "userId,movieId,rating,timestamp\n1,2,3.5,9\n")).rows() == [
        ("1", "2", 3.5, 9)
    ]
    items = read_items(written(tmp_path / "movies.csv", 'movieId,title,genres\n2,"A, the (1995)",Adventure|Children\n'))
    assert items.rows() == [("2", "A, the (1995)", "Adventure, Children")]


def test_a_user_with_a_sequence_in_a_row_has_an_event_for_each_item_in_order(tmp_path):
    path = written(tmp_path / "s.tsv", "user_id\titem_ids\nann\t7 007  3\nbob\tx\n")
    expected = [("ann", "7", 0), ("ann", "007", 1), ("ann", "3", 2), ("bob", "x", 0)]
    assert read_events(path).select("user_id", "item_id", "position").rows() == expected
    lists = written(
        tmp_path / "s.jsonl", json_lines({"user_id": "ann", "item_ids": [7, "007", 3]}, {"user_id": "bob", "item_ids": ["x"]})
    )
    assert read_events(lists).select("user_id", "item_id", "position").rows() == expected
    assert "line 3, column item_ids" in refused(read_events, written(tmp_path / "s.tsv", "user_id\titem_ids\nann\t7\nbob\t \n"))


# Amazon and Yelp.


def test_amazon_reviews_and_metadata_of_2014(tmp_path):
    review = {
        "reviewerID": "A1",
        "asin": "B1",
        "helpful": [0, 1],
        "reviewText": "fine",
        "overall": 5.0,
        "unixReviewTime": 1252800000,
    }
    frame = read_events(written(tmp_path / "reviews.json.gz", json_lines(review)))
    assert frame.to_dicts() == [
        {"user_id": "A1", "item_id": "B1", "rating": 5.0, "timestamp": 1252800000, "review_text": "fine"}
    ]
    first = "{'asin': 'B1', 'title': 'It\\'s \"it\"', 'salesRank': {'Music': 3}, 'categories': [['Music', 'Rock'], ['Gifts']]}"
    second = "{'asin': 'B2', 'description': None, 'brand': 'b\\x41'}"
    items = read_items(written(tmp_path / "meta.json.gz", f"{first}\n{second}\n"))
    assert items.to_dicts() == [
        {"item_id": "B1", "title": 'It\'s "it"', "description": "", "categories": "Music, Rock, Gifts", "brand": ""},
        {"item_id": "B2", "title": "", "description": "", "categories": "", "brand": "bA"},
    ]


def test_amazon_metadata_of_2018(tmp_path):
    record = {
        "asin": "B1",
        "title": "T",
        "category": ["Music", "Rock"],
        "description": ["One.", "", "Two."],
        "brand": "b",
        "also_buy": [],
    }
    assert read_items(written(tmp_path / "m.json", json_lines(record))).rows() == [("B1", "T", "One. Two.", "Music, Rock", "b")]


def test_amazon_reviews_and_metadata_of_2023(tmp_path):
    review = {"rating": 4.0, "title": "of the review", "text": "good", "asin": "child", "parent_asin": "P", "user_id": "U"}
    review |= {"timestamp": 1588687728923, "images": [], "verified_purchase": True}
    frame = read_events(written(tmp_path / "r.jsonl", json_lines(review)))
    assert frame.to_dicts() == [{"user_id": "U", "item_id": "P", "rating": 4.0, "timestamp": 1588687728, "review_text": "good"}]
    metas = [
        {
            "parent_asin": f"P{i}",
            "title": "T",
            "description": [],
            "categories": ["A", "B"],
            "store": "S",
            "details": {f"key {i}": i},
        }
        for i in range(2000)
    ]
    items = read_items(written(tmp_path / "m.jsonl", json_lines(*metas)))
    assert items.row(1999, named=True) == {
        "item_id": "P1999",
        "title": "T",
        "description": "",
        "categories": "A, B",
        "brand": "S",
    }


def test_yelp(tmp_path):
    review = {"review_id": "r", "user_id": "u", "business_id": "b", "stars": 3, "text": "ok", "date": "2016-03-09 16:00:00"}
    assert read_events(written(tmp_path / "review.json", json_lines(review))).rows() == [("u", "b", 3.0, 1457539200, "ok")]
    shop = {"business_id": "b", "name": "Shop", "categories": "Food, Bars", "attributes": {"x": "1"}, "hours": None}
    assert read_items(written(tmp_path / "business.json", json_lines(shop))).rows() == [("b", "Shop", "Food, Bars")]


# JSON.


def test_one_json_array_is_read_as_lines_are(tmp_path):
    records = [{"user_id": 1, "item_id": 2, "rating": 3}, {"user_id": 4, "item_id": 5}]
    array = read_events(written(tmp_path / "a.json", " " + json.dumps(records, indent=1)))
    assert array.equals(read_events(written(tmp_path / "b.json", json_lines(*records))))
    assert "row 2, column rating: 'x'" in refused(
        read_events, written(tmp_path / "a.json", json.dumps([records[0], {**records[1], "rating": "x"}]))
    )
    assert "row 2: 7: a JSON object" in refused(read_events, written(tmp_path / "a.json", json.dumps([records[0], 7])))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"user_id": 1, "item_id"', "cannot be read as JSON"),
        ('{"user_id": 1, "item_id": 2} {}', "cannot be read as JSON"),
        ("{'user_id': 1, 'item_id': open('x')}", "cannot be read as JSON"),
        ("{" * 5000, "cannot be read as JSON"),
        ('{"a":' * 100_000, "cannot be read as JSON"),
        ("7", "a JSON object is needed"),
        ('"x"', "a JSON object is needed"),
        ("null", "a JSON object is needed"),
    ],
)
def test_a_bad_line_is_named_by_its_number(tmp_path, line, words):
    path = written(tmp_path / "e.jsonl", f'\n{{"user_id": 1, "item_id": 2}}\n\n{line}\n')
    assert f"{path}, line 4: " in refused(read_events, path)
    assert words in refused(read_events, path)


def test_a_cell_of_a_json_line_is_named_by_its_line(tmp_path):
    records = [json.dumps({"user_id": i, "item_id": i, "rating": 4}) for i in range(5)]
    path = written(
        tmp_path / "e.jsonl", "\n".join(["", *records[:2], "", "", *records[2:4], records[4].replace("4}", '"x"}')]) + "\n"
    )
    assert f"{path}, line 8, column rating: 'x'" in refused(read_events, path)


@pytest.mark.parametrize(
    ("values", "ids"),
    [
        ([7, 8, 900], [7, 8, 900]),
        ([7, "7", "007"], ["7", "7", "007"]),  # mixed: 7 and "7" are one id
        ([7.0, 8], [7, 8]),
        ([7, 2**70], ["7", str(2**70)]),
        ([7.0, "x"], ["7", "x"]),
    ],
)
def test_ids_of_json_are_whole_numbers_if_all_are(tmp_path, values, ids):
    path = written(tmp_path / "e.jsonl", json_lines(*({"user_id": value, "item_id": "x"} for value in values)))
    assert read_events(path)["user_id"].to_list() == ids


@pytest.mark.parametrize("n", [60_000])
def test_columns_of_several_chunks_are_one_column(tmp_path, n):
    lines = [json.dumps({"user_id": i, "item_id": i, "rating": None if i < n // 2 else 4.5}) for i in range(n)]
    frame = read_events(written(tmp_path / "e.jsonl", "\n".join(lines)))
    assert (frame["user_id"].dtype, frame["user_id"][-1], frame["rating"][-1], frame["rating"].null_count()) == (
        pl.Int64,
        n - 1,
        4.5,
        n // 2,
    )
    lines[-1] = json.dumps({"user_id": "last", "item_id": 1.0})
    mixed = read_events(written(tmp_path / "e.jsonl", "\n".join(lines)))
    assert (mixed["user_id"][0], mixed["user_id"][-1], mixed["item_id"].dtype) == ("0", "last", pl.Int64)


@pytest.mark.parametrize("value", [True, [1], {"a": 1}, 1.5, "NaN-as-number", "\ud800"])
def test_ids_that_are_neither_text_nor_whole_numbers_are_refused(tmp_path, value):
    line = json.dumps({"user_id": 2, "item_id": value}).replace('"NaN-as-number"', "NaN")
    path = written(tmp_path / "e.jsonl", json_lines({"user_id": 1, "item_id": 3}) + line + "\n")
    assert f"{path}, line 2, column item_id: " in refused(read_events, path)


def test_texts_that_are_records_are_refused_and_half_a_surrogate_pair_is_replaced(tmp_path):
    path = written(tmp_path / "i.jsonl", '{"item_id": 1, "title": "a\\ud83d"}\n{"item_id": 2, "title": 7}\n')
    assert read_items(path)["title"].to_list() == ["a?", "7"]
    path = written(tmp_path / "i.jsonl", '{"item_id": 1, "title": "a"}\n{"item_id": 2, "title": {"en": "b"}}\n')
    assert f"{path}, line 2, column title: " in refused(read_items, path)


# Timestamps.


@pytest.mark.parametrize(
    ("cell", "seconds"),
    [
        ("1588687728923", 1588687728),
        ("99999999999", 99999999999),
        ("-5", -5),
        ("-1588687728923", -1588687729),
        ("2016-03-09", 1457481600),
        ("2016-03-09 16:00", 1457539200),
        ("20160309T160000Z", 1457539200),
        ("1969-12-31 23:59:59", -1),
        (" 7 ", 7),
        ("", None),
        ("1e300", "refused"),
        ("1e15", 1_000_000_000),
        ("1e21", "refused"),
        ("inf", "refused"),
        ("nan", None),
        ("09/03/2016", "ambiguous"),
        ("yesterday", "refused"),
    ],
)
def test_timestamps(tmp_path, cell, seconds):
    path = written(tmp_path / "e.csv", f"user_id,item_id,timestamp\n1,x,{cell}\n1,y,5\n2,z,2024-01-31T10:00:01+02:00\n")
    if seconds == "ambiguous":
        assert f"line 2, column timestamp: {cell!r}: day and month cannot be told apart" in refused(read_events, path)
    elif seconds == "refused":
        assert f"{path}, line 2, column timestamp: {cell!r}: seconds, milliseconds or a date" in refused(read_events, path)
    else:
        assert read_events(path)["timestamp"].to_list() == [seconds, 5, 1706688001]


@pytest.mark.parametrize("cell", ["1.5", "inf", "1e300", "x"])
def test_positions_are_whole_numbers(tmp_path, cell):
    path = written(tmp_path / "e.csv", f"user_id,item_id,position\n1,x,{cell}\n1,y,5.0\n")
    assert f"line 2, column position: {cell!r}: a whole number" in refused(read_events, path)
    frame = pl.DataFrame({"user_id": ["1"], "item_id": ["x"], "position": [1.5]})
    assert "the events, row 1, column position: 1.5" in refused(Dataset.from_frame, frame)


# Columns by name.


def test_columns_may_be_named(tmp_path):
    path = written(tmp_path / "e.csv", "buyer,sku,when,item_id,stars\nann,7,5,other,4\n")
    frame = read_events(path, {"user_id": "buyer", "item_id": "sku", "timestamp": "when"})
    assert frame.to_dicts() == [{"user_id": "ann", "item_id": "7", "rating": 4.0, "timestamp": 5}]
    records = written(tmp_path / "e.jsonl", json_lines({"buyer": "ann", "sku": 7, "note": ["a", "b"]}))
    names = {"user_id": "buyer", "item_id": "sku", "review_text": "note"}
    assert read_events(records, names).to_dicts() == [{"user_id": "ann", "item_id": 7, "review_text": "a b"}]
    message = refused(read_events, path, {"user_id": "customer"})
    assert "'customer'" in message
    assert "user_id, item_id" in message
    assert "buyer, sku, when, item_id, stars" in message


def test_prepare_takes_names_and_a_separator_and_says_what_it_took(tmp_path, capsys):
    written(tmp_path / "e.csv", "buyer;sku;when\n" + "".join(f"u{i % 3};i{i};{i}\n" for i in range(12)))
    written(tmp_path / "i.csv", "sku;label\ni0;Zero\ni0;Nought\ni1;\nnobody;Took\n")
    written(tmp_path / "u.jsonl", json_lines({"buyer": "u0", "about": "likes tea"}, {"buyer": "u9", "about": ""}))
    flags = ["--interactions", "e.csv", "--items", "i.csv", "--users", "u.jsonl", "--separator", ";", "--output", "data"]
    flags = [str(tmp_path / flag) if "." in flag or flag == "data" else flag for flag in flags]
    names = ["--columns", "user_id=buyer,item_id=sku,timestamp=when", "--item-columns", "item_id=sku,title=label"]
    prepare.main([*flags, *names, "--user-columns", "user_id=buyer,biography=about"])
    printed = capsys.readouterr().out
    assert "e.csv: user_id from buyer, item_id from sku, timestamp from when" in printed
    assert "i.csv: item_id from sku, title from label" in printed
    rows = "rows that repeat an id: 1 (the first is kept); rows without events: 1 (left out)"
    assert f"items: {rows}; items with events and no row: 10" in printed
    assert "title: a text for 1 of 12 items" in printed
    assert "items without any text: 11" in printed
    about = Dataset.load(tmp_path / "data").about
    assert about["columns"]["interactions"] == {"user_id": "buyer", "item_id": "sku", "timestamp": "when"}
    assert about["tables"]["items"] == {"repeated_rows": 1, "rows_without_events": 1, "without_a_row": 10}
    assert about["tables"]["users"] == {"repeated_rows": 0, "rows_without_events": 1, "without_a_row": 2}
    for flag, words in (("user=buyer", "user_id, item_id"), ("user_id", "OUR_NAME=COLUMN"), ("user_id=a,user_id=b", "once")):
        assert words in refused(prepare.main, [*flags, "--columns", flag])


def test_names_of_columns_without_their_table_are_refused(tmp_path):
    path = written(tmp_path / "e.csv", "user_id,item_id\n1,a\n")
    for table in ("item", "user"):
        flags = ["--interactions", str(path), "--output", str(tmp_path / "data"), f"--{table}-columns", f"{table}_id=x"]
        assert f"give --{table}s too" in refused(prepare.main, flags)
    assert "'colour' cannot be taken from a column 'x'" in refused(read_events, path, {"colour": "x"})


def test_users_with_fewer_than_three_events_are_counted_and_stay_in_train(tmp_path, capsys):
    path = written(tmp_path / "e.csv", "user_id,item_id,timestamp\nann,x,1\nbob,x,1\nbob,y,2\ncid,x,1\ncid,y,2\ncid,z,3\n")
    prepare.main(["--interactions", str(path), "--split", "leave-last-out", "--output", str(tmp_path / "data")])
    assert "users with fewer than 3 events, who stay whole in train: 2" in capsys.readouterr().out
    dataset = Dataset.load(tmp_path / "data")
    assert dataset.about["n_users_below_3_events"] == 2
    assert dataset.part[dataset.interactions.users != dataset.user_ids.index(["cid"])[0]].tolist() == [0, 0, 0]


# Frames.

CELLS = {
    "userId": [7, 7, 8, 8, 8],
    "asin": ["a", "007", "a", "é", "x y"],
    "overall": [4.0, None, 3.5, 1.0, 5.0],
    "when": [datetime.datetime(2024, 1, 31, 10, 0, second) for second in range(5)],
    "review": ["good", None, "", "so so", "fine"],
}
NAMED = {**{name: cells for name, cells in CELLS.items() if name != "when"}, "time": CELLS["when"]}


@pytest.mark.parametrize("kind", ["pandas", "pandas object", "polars", "lazy", "arrow", "batch"])
def test_frames_of_every_kind_give_one_dataset(kind):
    expected = build_dataset(pl.DataFrame(NAMED), split="none")
    frame = {
        "pandas": lambda: pd.DataFrame(NAMED),
        "pandas object": lambda: pd.DataFrame({name: pd.Series(cells, dtype=object) for name, cells in NAMED.items()}),
        "polars": lambda: pl.DataFrame(NAMED),
        "lazy": lambda: pl.LazyFrame(NAMED),
        "arrow": lambda: pa.table(NAMED),
        "batch": lambda: pa.RecordBatch.from_pydict(NAMED),
    }[kind]()
    for dataset in (build_dataset(frame, split="none"), Dataset.from_frame(frame)):
        assert dataset.fingerprint == expected.fingerprint
        assert dataset.users.schema["user_id"] == pl.Int64
        assert dataset.interactions.times.min() == 1706695200


def test_pandas_does_not_need_arrow():
    code = """
import sys
sys.modules["pyarrow"] = None
import pandas as pd
from cllm4rec.data.dataset import Dataset
frame = pd.DataFrame({"user_id": ["a", "b", "b"], "item_id": [1, 2, 3], "rating": [1.0, None, 2], "review": ["x", None, "y"]})
frame["timestamp"] = pd.to_datetime(["2024-01-31", None, "2024-02-01"])
events = Dataset.from_frame(frame, pd.DataFrame({"item_id": [1, 2, 3], "title": ["One", None, "Three"]})).interactions
assert sorted(events.times) == [-1, 1706659200, 1706745600], events.times
assert sorted(events.reviews) == ["", "x", "y"]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_whole_floats_of_pandas_are_whole_ids():
    frame = pd.DataFrame({"user_id": [1.0, 2.0], "item_id": pd.Series([1, "x"], dtype=object), "when": pd.NaT})
    dataset = Dataset.from_frame(frame)
    assert sorted(dataset.user_ids.ids) == [1, 2]
    assert sorted(dataset.item_ids.ids) == ["1", "x"]
    categories = pd.DataFrame({"user_id": pd.Categorical(["a", "b"]), "item_id": pd.array([1, 2], dtype="Int64")})
    assert sorted(Dataset.from_frame(categories).user_ids.ids) == ["a", "b"]


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (
            pd.DataFrame({"user_id": [1, None], "item_id": [1, 2]}),
            "the events, row 2, column user_id: an empty cell: an id is needed",
        ),
        (
            pd.DataFrame({"user_id": [1, 1.5], "item_id": [1, 2]}),
            "the events, row 2, column user_id: 1.5: a text or a whole number",
        ),
        (pd.DataFrame({"user_id": [True], "item_id": [1]}), "the events, row 1, column user_id: True"),
        (pl.DataFrame({"user_id": [decimal.Decimal("1.5")], "item_id": [1]}), "the events, row 1, column user_id"),
        (pl.DataFrame({"user_id": [[1]], "item_id": [1]}), "the events, row 1, column user_id: [1]"),
        (pl.DataFrame({"user_id": [1], "item_id": [1], "rating": [float("inf")]}), "the events, row 1, column rating: inf"),
        (
            pl.DataFrame({"user_id": [1], "item_id": [1], "rating": [datetime.date(2024, 1, 1)]}),
            "the events, row 1, column rating",
        ),
        (pa.table({"user": ["a"], "thing": ["b"]}), "the events: no column for item_id"),
        (pd.DataFrame([[1, 2, 3]], columns=["user_id", "item_id", "item_id"]), "two columns item_id"),
        ([("a", "b")], "a pandas, Polars or Arrow table is needed, not list"),
        (None, "not NoneType"),
    ],
)
def test_frames_are_checked_as_files_are(frame, words):
    for call in (Dataset.from_frame, build_dataset):
        assert words in refused(call, frame)


def test_tables_of_items_and_users_are_checked_too():
    events = pl.DataFrame({"user_id": ["a"], "item_id": ["x"]})
    items = pd.DataFrame({"asin": ["x", "y"], "name": ["Title", None], "categories": [["A", "B"], None]})
    assert Dataset.from_frame(events, items).item_texts == {"title": ["Title"], "categories": ["A, B"]}
    assert "the items, row 2, column asin" in refused(Dataset.from_frame, events, pd.DataFrame({"asin": ["x", None]}))
    assert "the users: no column for user_id" in refused(build_dataset, events, None, pl.DataFrame({"x": [1]}))


def test_parquet_takes_only_what_is_needed_and_names_rows(tmp_path):
    frame = pl.DataFrame({"user_id": [1, 2], "item_id": [1, 2], "rating": [4.0, float("inf")], "other": [{"a": 1}, None]})
    frame.write_parquet(tmp_path / "e.parquet")
    assert f"{tmp_path / 'e.parquet'}, row 2, column rating: inf" in refused(read_events, tmp_path / "e.parquet")
    assert read_raw(tmp_path / "e.parquet", {"user_id": None}).frame.columns == ["user_id"]
    nested = pl.DataFrame({"item_id": [1], "categories": [[["A"], ["B", "C"]]], "year": [1999.0]})
    nested.write_parquet(tmp_path / "i.parquet")
    assert read_items(tmp_path / "i.parquet").rows() == [(1, "A, B, C", "1999")]


# Reviews.


@pytest.mark.parametrize("part", ["validation", "test", "history"])
def test_a_word_of_a_held_out_review_is_not_among_the_reviews_of_train(tmp_path, part):
    rows = [{"user_id": f"u{u}", "item_id": f"i{i}", "review_text": f"plain words {u}"} for u in range(4) for i in range(5)]
    rows[7]["review_text"] = "a zyzzyva here"
    table = pl.DataFrame([{**row, "seed_0": part if n == 7 else "train"} for n, row in enumerate(rows)])
    written(tmp_path / "e.jsonl", json_lines(*rows))
    table.select("user_id", "item_id", "seed_0").write_csv(tmp_path / "s.csv")
    flags = [
        "--interactions",
        str(tmp_path / "e.jsonl"),
        "--split",
        str(tmp_path / "s.csv"),
        "--output",
        str(tmp_path / "data"),
    ]
    prepare.main(flags)
    dataset = Dataset.load(tmp_path / "data")
    assert "zyzzyva" in " ".join(dataset.only(part).interactions.reviews)
    assert "zyzzyva" not in " ".join(dataset.train.interactions.reviews)
    assert len(dataset.train.interactions) == 19
    assert ("zyzzyva" in " ".join(dataset.seen.interactions.reviews)) == (part == "history")


# Held-out rows.

EVENTS = "user_id\titem_id\ttimestamp\trating\treview\n" + "".join(
    f"u{u}\ti{i}\t{10 * u + i}\t{1 + i % 5}\tof {u} on {i}\n" for u in range(4) for i in range(6)
)


def events_of(dataset, user):
    """(item, part) of a user's events in order."""
    mine = dataset.interactions.users == dataset.user_ids.index([user])[0]
    items = dataset.item_ids.names(dataset.interactions.items[mine]).to_list()
    return list(zip(items, dataset.part[mine].tolist(), strict=True))


def test_held_out_rows_of_named_users(tmp_path):
    written(tmp_path / "e.tsv", EVENTS)
    rows = "split\tuser_id\thistory_items\ttarget_item\nval\tu1\ti4 i2\ti0\ntest\tu2\ti5 new\ti1\n"
    written(tmp_path / "s.tsv", rows)
    flags = ["--interactions", str(tmp_path / "e.tsv"), "--split", str(tmp_path / "s.tsv"), "--output", str(tmp_path / "data")]
    prepare.main(flags)
    dataset = Dataset.load(tmp_path / "data")
    assert events_of(dataset, "u1") == [("i4", 3), ("i2", 3), ("i0", 1)]
    assert events_of(dataset, "u2") == [("i5", 3), ("new", 3), ("i1", 2)]
    assert events_of(dataset, "u0") == [(f"i{i}", 0) for i in range(6)]
    mine = dataset.interactions.users == dataset.user_ids.index(["u1"])[0]
    assert dataset.interactions.times[mine].tolist() == [14, 12, 10]
    assert dataset.interactions.reviews.filter(pl.Series(mine)).to_list() == ["of 1 on 4", "of 1 on 2", "of 1 on 0"]
    assert dataset.about["split"]["n_validation_rows"] == dataset.about["split"]["n_test_rows"] == 1
    for more in (["--min-rating", "3"], ["--k-core", "2"], ["--preset", "paper"]):
        assert "held-out rows are exact" in refused(prepare.main, [*flags, *more])


def test_held_out_rows_without_users_are_new_users(tmp_path):
    written(tmp_path / "e.tsv", EVENTS)
    written(tmp_path / "s.tsv", "split\thistory_items\ttarget_item\nval\ti0 i1\ti2\ntest\ti9\ti3\nval\ti5\ti4\n")
    events, table = read_events(tmp_path / "e.tsv"), read_split(tmp_path / "s.tsv")
    dataset = build_dataset(events, split="s.tsv", split_table=table)
    assert events_of(dataset, "val-1") == [("i0", 3), ("i1", 3), ("i2", 1)]
    assert events_of(dataset, "val-2") == [("i5", 3), ("i4", 1)]
    assert events_of(dataset, "test-1") == [("i9", 3), ("i3", 2)]
    assert (dataset.n_users, len(dataset.train.interactions), len(dataset.seen.interactions)) == (7, 24, 28)
    with pytest.raises(ValueError, match="'val-1' is to be made, and is in the events"):
        build_dataset(events.with_columns(user_id=pl.lit("val-1")), split="s.tsv", split_table=table)


def test_held_out_rows_meet_whole_numbers():
    events = pl.DataFrame({"user_id": [1, 1, 2], "item_id": [5, 6, 5]})
    rows = pl.DataFrame({"user_id": [2], "history_items": ["6 7"], "target_item": [5], "split": ["test"]})
    dataset = build_dataset(events, split="s.tsv", split_table=rows)
    assert (dataset.users.schema["user_id"], dataset.items.schema["item_id"]) == (pl.Int64, pl.Int64)
    assert events_of(dataset, 2) == [(6, 3), (7, 3), (5, 2)]
    new = build_dataset(events, split="s.tsv", split_table=rows.drop("user_id"))
    assert sorted(new.user_ids.ids) == ["1", "2", "test-1"]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("split\tuser_id\thistory_items\ttarget_item\ntrain\tu1\ti1\ti2\n", "line 2, column split: 'train': val or test"),
        ("split\tuser_id\thistory_items\ttarget_item\nval\tu1\t\ti2\n", "line 2, column history_items"),
        (
            "split\tuser_id\thistory_items\ttarget_item\nval\tu1\ti1 i2\ti2\n",
            "line 2, column target_item: 'i2': a row with each item once",
        ),
        (
            "split\tuser_id\thistory_items\ttarget_item\nval\tu1\ti1\ti2\ntest\tu1\ti3\ti4\n",
            "line 3, column user_id: 'u1': one row a user",
        ),
        ("split\thistory_items\nval\ti1\n", "no column for target_item"),
    ],
)
def test_held_out_rows_that_cannot_be_are_refused(tmp_path, rows, words):
    written(tmp_path / "e.tsv", EVENTS)
    written(tmp_path / "s.tsv", rows)
    flags = ["--interactions", str(tmp_path / "e.tsv"), "--split", str(tmp_path / "s.tsv"), "--output", str(tmp_path / "data")]
    assert words in refused(prepare.main, flags)
    assert not (tmp_path / "data").exists()


def test_numbers_of_numpy_in_a_pandas_column_are_numbers():
    frame = pd.DataFrame({"user_id": pd.Series([np.int64(3), np.int64(4)], dtype=object), "item_id": [1, 2]})
    assert sorted(Dataset.from_frame(frame).user_ids.ids) == [3, 4]


def test_parquet_may_be_compressed_once_more(tmp_path: Path) -> None:
    frame = pl.DataFrame({"user_id": [1, 2], "item_id": ["a", "b"]})
    frame.write_parquet(tmp_path / "e.parquet")
    (tmp_path / "e.parquet.gz").write_bytes(gzip.compress((tmp_path / "e.parquet").read_bytes()))
    assert read_events(tmp_path / "e.parquet.gz").equals(frame)


def test_a_pair_in_two_parts_of_a_split_file_is_refused_by_line(tmp_path: Path) -> None:
    (tmp_path / "s.tsv").write_text("user_id\titem_id\tseed_0\nu\ta\tt\nu\tb\tt\nu\ta\te\n")
    with pytest.raises(
        ValueError, match=r"s.tsv, line 2, column seed_0: 't': one part for a user and an item is needed \(2 such"
    ):
        build_dataset(
            pl.DataFrame({"user_id": ["u", "u"], "item_id": ["a", "b"]}), split="s.tsv", split_table=tmp_path / "s.tsv"
        )


def test_rows_of_a_split_file_without_an_event_are_counted(tmp_path: Path) -> None:
    (tmp_path / "s.tsv").write_text("user_id\titem_id\tseed_0\nu\ta\tt\nu\ta\tt\nv\tb\tt\nu\tc\te\n")
    dataset = build_dataset(
        pl.DataFrame({"user_id": ["u", "u"], "item_id": ["a", "b"]}), split="s.tsv", split_table=tmp_path / "s.tsv"
    )
    assert dataset.about["split"]["rows_without_events"] == 2
    assert len(dataset.interactions) == 1


def test_a_column_is_taken_once(tmp_path: Path) -> None:
    """Named for one purpose, a column is not found for another too."""
    (tmp_path / "e.csv").write_text("user_id,item_id,score\nu,a,5\n")
    taken = event_table(tmp_path / "e.csv", {"position": "score"}).taken
    assert taken == {"user_id": "user_id", "item_id": "item_id", "position": "score"}


@pytest.mark.parametrize("blank", [0, 1, 2])
def test_a_record_below_a_blank_line_is_named_by_its_line(blank: int, tmp_path: Path) -> None:
    lines = ['{"user_id": "u", "item_id": "a"}', '{"user_id": "u", "item_id": ""}']
    lines.insert(blank, "")
    (tmp_path / "e.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match=f"line {2 if blank == 2 else 3}, column item_id"):
        read_events(tmp_path / "e.jsonl")
