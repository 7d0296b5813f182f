"""Files as programs and publishers write them: each is read with its right values, or refused in one line."""

import errno
import gzip
import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from cllm4rec import prepare
from cllm4rec.data import formats, unpacking
from cllm4rec.data.dataset import Dataset
from cllm4rec.data.formats import TableFile, read_raw
from cllm4rec.data.memory import out_of_memory
from cllm4rec.data.preparation import build_dataset
from cllm4rec.data.readers import event_table, read_events, read_items, read_users
from cllm4rec.data.split_tables import read_split


def written(path: Path, content: str | bytes) -> Path:
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def refused(call: Callable[..., Any], *arguments: Any) -> str:
    """The one line that refuses."""
    with pytest.raises(ValueError) as error:
        call(*arguments)
    assert str(error.value).isprintable()
    return str(error.value)


def prepared(folder: Path, *flags: str) -> pl.DataFrame:
    """The events of the dataset that the command makes, as pairs of ids."""
    prepare.main([*flags, "--output", str(folder / "data"), "--split", "none"])
    dataset = Dataset.load(folder / "data")
    events = dataset.interactions
    return pl.DataFrame({"user": dataset.user_ids.names(events.users), "item": dataset.item_ids.names(events.items)})


# Quotes in tables that need none.


@pytest.mark.parametrize("header", ["user_id\titem_id", '"user_id"\t"item_id"'])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_quotes_around_all_cells_of_a_column_are_no_part_of_them(tmp_path: Path, header: str, end: str) -> None:
    path = written(tmp_path / "e.tsv", end.join([header, '"u"\t"a"', '"u"\t"b ""c"""', ""]))
    assert read_events(path).rows() == [("u", "a"), ("u", 'b "c"')]


@pytest.mark.parametrize(
    ("name", "content", "separator"),
    [
        ("e.inter", '"user_id:token"\t"item_id:token"\n"u"\t"a"\n', None),
        ("e.txt", '"user_id";"item_id"\n"u";"a"\n', ";"),
        ("e.tsv.gz", 'user_id\titem_id\n"u"\t"a"\n', None),
        ("e.tsv", 'user_id|item_id\n"u"|a\n', "|"),
    ],
)
def test_quotes_are_found_whatever_the_separator(tmp_path: Path, name: str, content: str, separator: str | None) -> None:
    assert read_events(written(tmp_path / name, content), separator=separator).rows() == [("u", "a")]


def test_a_column_is_unquoted_by_itself_and_its_empty_cells_stay_empty(tmp_path: Path) -> None:
    content = 'item_id\ttitle\tbrand\n"a"\t5" disk\t""\n"b"\t"Both"\t\n"c"\tsaid "x"\t"B"\n'
    assert read_items(written(tmp_path / "i.tsv", content)).to_dicts() == [
        {"item_id": "a", "title": '5" disk', "brand": ""},
        {"item_id": "b", "title": '"Both"', "brand": ""},
        {"item_id": "c", "title": 'said "x"', "brand": "B"},
    ]


@pytest.mark.parametrize("cell", ['"a" and "b"', '"', '"a', 'a"', '5" disk'])
def test_a_quote_that_does_not_enclose_a_cell_is_a_character_of_it(tmp_path: Path, cell: str) -> None:
    path = written(tmp_path / "i.tsv", f"item_id\ttitle\nx\t{cell}\n")
    assert read_items(path)["title"].to_list() == [cell]


def test_quoted_cells_of_a_tsv_may_hold_tabs_and_line_ends(tmp_path: Path) -> None:
    content = '"item_id"\t"title"\t"year"\n\n"a"\t"one\ttwo"\t1999\n"b"\t"three\nfour"\t\n'
    assert read_items(written(tmp_path / "i.tsv", content)).rows() == [
        ("a", "one\ttwo", "1999"),
        ("b", "three\nfour", ""),
    ]
    ragged = written(tmp_path / "r.tsv", 'item_id\ttitle\na\t"one\ttwo"\nb\tc\n')
    assert f"{ragged}, line 2: 3 cells where the header has 2" in refused(read_items, ragged)


# Tables without a header.

HEADERLESS = "u1,i1,5.0,1369699200\nu1,i2,3.0,1355443200\n"


def test_an_error_says_that_the_first_row_looks_like_data(tmp_path: Path) -> None:
    path = written(tmp_path / "e.csv", HEADERLESS)
    for content in (HEADERLESS, "u1,i1\nu1,i2\n", "a,2024-01-31\nb,x\n", "1,1\n1,2\n"):
        message = refused(read_events, written(path, content))
        assert (
            "the first row looks like data: give --no-header, and columns by number (--columns user_id=1,item_id=2)" in message
        )
    assert "looks like data" not in refused(read_events, written(path, "buyer,sku\nu1,i1\n"))


def test_the_advice_for_data_in_the_first_row_is_that_of_the_table(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", HEADERLESS)
    start = "the first row looks like data: "
    items, users = (
        f"give --no-header, and columns by number ({flags})"
        for flags in ("--item-columns item_id=1,title=2", "--user-columns user_id=1")
    )
    assert refused(read_items, path).endswith(start + items)
    assert refused(read_users, path).endswith(start + users)
    assert refused(read_split, path).endswith(f"{start}write a header")
    for call, words in ((read_items, items), (read_users, users), (read_split, "write a header")):
        assert words in refused(call, written(tmp_path / "r.csv", "1,2\n1,2,3\n"))
    events = written(tmp_path / "e.csv", "7,u1\n")
    flags = ["--interactions", str(events), "--no-header", "--columns", "user_id=1,item_id=2"]
    flags += ["--items", str(written(path, "u1,One\n")), "--item-columns", "item_id=1,title=2"]
    assert prepared(tmp_path, *flags).rows() == [("7", "u1")]
    assert Dataset.load(tmp_path / "data").item_texts["title"] == ["One"]


def test_columns_of_a_table_without_a_header_are_given_by_number(tmp_path: Path) -> None:
    path = written(tmp_path / "e.csv", HEADERLESS)
    names = {"user_id": "1", "item_id": "2", "timestamp": "4"}
    assert read_events(TableFile(path, header=False), names).rows() == [("u1", "i1", 1369699200), ("u1", "i2", 1355443200)]
    message = refused(read_events, TableFile(path, header=False), {"user_id": "5"})
    assert "'user_id' cannot be taken from a column '5': it has 1, 2, 3, 4" in message
    short = written(tmp_path / "s.csv", HEADERLESS + "u2,i3\n")
    assert "line 3: 2 cells where the first row has 4" in refused(read_events, TableFile(short, header=False), names)


def test_gowalla_and_steam(tmp_path: Path) -> None:
    gowalla = written(tmp_path / "totalCheckins.txt", "0\t2010-10-19T23:55:27Z\t30.23\t-97.79\t22847\n")
    assert r"give --separator '\t'" in refused(read_events, gowalla)
    names = {"user_id": "1", "timestamp": "2", "item_id": "5"}
    assert read_events(TableFile(gowalla, separator="\t", header=False), names).rows() == [("0", "22847", 1287532527)]
    steam = written(tmp_path / "steam-200k.csv", '151603712,"The Elder Scrolls, V",purchase,1.0,0\n')
    assert read_events(TableFile(steam, header=False), {"user_id": "1", "item_id": "2"}).rows() == [
        ("151603712", "The Elder Scrolls, V")
    ]


def test_no_header_is_said_of_the_tables_whose_columns_are_numbers(tmp_path: Path) -> None:
    events, items = written(tmp_path / "e.csv", HEADERLESS), written(tmp_path / "i.csv", "item_id,title\ni1,One\n")
    flags = ["--interactions", str(events), "--no-header", "--columns", "user_id=1,item_id=2,timestamp=4"]
    assert prepared(tmp_path, *flags, "--items", str(items)).rows() == [("u1", "i2"), ("u1", "i1")]
    assert Dataset.load(tmp_path / "data").item_texts["title"] == ["", "One"]
    bare = written(tmp_path / "b.csv", "i1,One\n")
    prepared(tmp_path, *flags, "--items", str(bare), "--item-columns", "item_id=1,title=2")
    assert Dataset.load(tmp_path / "data").item_texts["title"] == ["", "One"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--no-header"], "--no-header needs the columns by number"),
        (["--no-header", "--columns", "user_id=buyer,item_id=sku"], "--no-header needs the columns by number"),
        (["--no-header", "--columns", "user_id=1,item_id=sku"], "--columns names a column 'sku' beside numbers"),
        (["--sequences", "--columns", "user_id=1"], "--sequences reads lines without columns"),
        (["--sequences", "--no-header"], "--sequences reads lines without columns"),
        (["--columns", "user_id=1,item_id=2"], "give --no-header"),
    ],
)
def test_flags_that_contradict_one_another_are_refused(tmp_path: Path, flags: list[str], words: str) -> None:
    path = written(tmp_path / "e.csv", HEADERLESS)
    assert words in refused(prepare.main, ["--interactions", str(path), "--output", str(tmp_path / "data"), *flags])
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("name", ["e.jsonl", "e.parquet", "ratings.dat"])
def test_files_whose_columns_have_names_take_neither_flag(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name, "1::2::3::4\n")
    assert "leave out --no-header" in refused(read_raw, TableFile(path, header=False))
    assert "leave out --sequences" in refused(read_raw, TableFile(path, sequences=True))


# Separators, escapes, encodings.


def test_a_quoted_header_names_its_separator(tmp_path: Path) -> None:
    path = written(tmp_path / "e.csv", '"User-ID";"ISBN";"Book-Rating"\n"1";"034545104X";"0"\n')
    assert "give --separator ';'" in refused(read_events, path)
    names = {"user_id": "User-ID", "item_id": "ISBN", "rating": "Book-Rating"}
    assert read_events(path, names, ";").rows() == [("1", "034545104X", 0.0)]
    assert "--separator" not in refused(read_events, written(path, '"a;b"\n1\n'))


def test_quotes_after_a_backslash_are_read_with_a_flag(tmp_path: Path) -> None:
    path = written(tmp_path / "b.csv", '"ISBN";"Book-Title"\n"1";"A \\"quoted\\" word; and more"\n"2";"C:\\\\"\n')
    names = {"item_id": "ISBN", "title": "Book-Title"}
    file = TableFile(path, separator=";")
    assert f"{path}, line 2: " in refused(read_items, file, names)
    assert r"give --escape '\'" in refused(read_items, file, names)
    assert read_items(TableFile(path, separator=";", escape="\\"), names).rows() == [
        ("1", 'A "quoted" word; and more'),
        ("2", "C:\\"),
    ]
    assert "--escape ';': the cells" in refused(read_items, TableFile(path, separator=";", escape=";"), names)
    assert "--escape 'no': one character" in refused(read_items, TableFile(path, separator=";", escape="no"), names)


@pytest.mark.parametrize("name", ["i.tsv", "i.csv", "i.item", "i.txt"])
@pytest.mark.parametrize("first", ["a", '"a"'])
def test_quotes_after_a_backslash_are_refused_in_every_text_table(tmp_path: Path, name: str, first: str) -> None:
    between = {"i.csv": ",", "i.txt": ";"}.get(name, "\t")
    content = f'item_id{between}title\nz{between}"Plain"\n\n{first}{between}"A \\"x\\" y"\n'
    path = written(tmp_path / name, content)
    file = TableFile(path, separator=";" if name == "i.txt" else None)
    message = refused(read_items, file)
    assert f"{path}, line 4" in message
    assert r"give --escape '\'" in message
    expected = [("z", "Plain"), ("a", 'A "x" y')]
    assert read_items(TableFile(path, separator=file.separator, escape="\\")).rows() == expected
    split_cell = written(tmp_path / name, content.replace("x", between))
    assert r"give --escape '\'" in refused(read_items, TableFile(split_cell, separator=file.separator))


@pytest.mark.parametrize("cells", [('"A \\"x\\" y"', "bare"), ('"C:\\"', '"D"'), ('say \\"x\\"', '"B"')])
def test_other_quotes_and_backslashes_of_a_tsv_are_characters(tmp_path: Path, cells: tuple[str, str]) -> None:
    path = written(tmp_path / "i.tsv", "item_id\ttitle\n" + "".join(f"i\t{cell}\n" for cell in cells))
    inside = all(cell.startswith('"') for cell in cells)
    assert read_items(path)["title"].to_list() == [cell[1:-1] if inside else cell for cell in cells]


@pytest.mark.parametrize("name", ["e.csv", "e.csv.gz", "e.tsv", "e.txt"])
@pytest.mark.parametrize("line", ["sep=;\n", '\ufeff"sep=;"\r\n', "SEP=;\r\n"])
def test_a_first_line_that_says_the_separator_is_obeyed(tmp_path: Path, name: str, line: str) -> None:
    path = written(tmp_path / name, f"{line}user_id;item_id;rating\n1;a;4\n")
    assert read_events(path).rows() == [("1", "a", 4.0)]
    assert read_events(path, separator=";").rows() == [("1", "a", 4.0)]
    assert "its first line says sep=;, and --separator says ','" in refused(read_events, TableFile(path, separator=","))
    bad = written(tmp_path / name, f"{line}user_id;item_id;rating\n\n1;a;4\n1;a;x\n")
    assert f"{bad}, line 5, column rating: 'x'" in refused(read_events, bad)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "utf-32"])
@pytest.mark.parametrize("name", ["e.csv", "e.csv.gz", "e.jsonl"])
def test_a_byte_order_mark_says_the_encoding(tmp_path: Path, encoding: str, name: str) -> None:
    content = 'user_id,item_id\n1,"é"\n' if "csv" in name else '{"user_id": "1", "item_id": "é"}\n'
    assert read_events(written(tmp_path / name, content.encode(encoding))).rows() == [("1", "é")]


def test_an_encoding_is_given_for_text_that_is_not_utf8(tmp_path: Path) -> None:
    latin = written(tmp_path / "latin.csv", "user_id,bio\n1,méxico\n".encode("latin-1"))
    assert f"{latin}, line 2: not UTF-8 text" in refused(read_users, latin)
    assert "--encoding" in refused(read_users, latin)
    for content in ("user_id,bio\n1,méxico\n".encode(encoding) for encoding in ("latin-1", "utf-8", "utf-16")):
        path = written(tmp_path / "u.csv", content)
        assert read_users(TableFile(path, encoding="latin-1")).rows() == [("1", "méxico")]
    wide = written(tmp_path / "w.csv", "user_id,bio\n1,méxico\n".encode("utf-16-le"))
    assert "give --encoding utf-16-le" in refused(read_users, wide)
    assert read_users(TableFile(wide, encoding="utf-16-le")).rows() == [("1", "méxico")]
    for encoding in ("nonsense", "zlib", "undefined"):
        assert "there is no such encoding" in refused(read_users, TableFile(latin, encoding=encoding))
    assert "line 2: neither UTF-8 nor ascii text" in refused(read_users, TableFile(latin, encoding="ascii"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("mac.csv", "user_id,item_id\r1,a\r"),
        ("mac.tsv", "user_id\titem_id\r1\ta\r"),
        ("tabs.tsv", "user_id\titem_id\t\t\n1\ta\t\t\n"),
        ("E.CSV", "user_id,item_id\n1,a\n"),
    ],
)
def test_line_ends_of_old_macs_and_columns_without_a_name(tmp_path: Path, name: str, content: str) -> None:
    assert read_events(written(tmp_path / name, content)).rows() == [("1", "a")]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("e.csv", b"PK\x03\x04and so on", "a zip archive or a spreadsheet"),
        ("e.tsv", b"BZh91AY", "compressed by bzip2"),
        ("e.csv", b"PAR1 and so on", "it is Parquet: let its name end in .parquet"),
        ("clicks.dat", b"1,2014-04-07T10:51:09.277Z,214536502,0\n", "give --separator ','"),
        ("e.txt", b"1::2::3::4\n", "rename it ratings.dat"),
        ("e.txt", b"\x00\x01\x02", "give --separator for a table of text"),
    ],
)
def test_a_file_of_an_unknown_kind_says_what_it_looks_like(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    path = written(tmp_path / name, content)
    assert words in refused(read_events, path)
    assert str(path) in refused(read_events, path)


# JSON objects.


@pytest.mark.parametrize("indent", [None, 1])
def test_a_json_object_keyed_by_id_is_a_table(tmp_path: Path, indent: int | None) -> None:
    def keyed(content: Any) -> Path:
        return written(tmp_path / "k.json", json.dumps(content, indent=indent))

    items = {"0": {"title": "One"}, "007": {"title": "Two", "categories": ["a", "b"]}}
    assert read_items(keyed(items)).rows() == [("0", "One", ""), ("007", "Two", "a, b")]
    assert read_users(keyed({"u": {"biography": "likes tea"}})).rows() == [("u", "likes tea")]
    sequences = read_events(keyed({"u1": ["i2", "i1"], "u2": [3]}))
    assert sequences.select("user_id", "item_id", "position").rows() == [("u1", "i2", 0), ("u1", "i1", 1), ("u2", "3", 0)]
    by_row = {"0": {"user_id": "u", "item_id": "a"}, "1": {"user_id": "v", "item_id": "a"}}
    assert read_events(keyed(by_row)).rows() == [("u", "a"), ("v", "a")]
    assert read_items(keyed({"a": {"item_id": "a", "title": "A"}})).rows() == [("a", "A")]
    assert read_events(keyed({"user_id": "u", "item_id": "a"})).rows() == [("u", "a")]


def test_items_and_sequences_of_two_json_objects_meet(tmp_path: Path) -> None:
    events = written(tmp_path / "Games.inter.json", json.dumps({"0": [0, 1], "1": [1, 0]}))
    items = written(tmp_path / "Games.item.json", json.dumps({"0": {"title": "Chess"}, "1": {"title": "Go"}}, indent=4))
    dataset = build_dataset(events, items, split="none")
    assert dict(zip(dataset.items["item_id"], dataset.item_texts["title"], strict=True)) == {"0": "Chess", "1": "Go"}


@pytest.mark.parametrize(
    ("read", "content", "words"),
    [
        (read_items, '{"0": {"title": "a"}, "1": "x"}', "key '1': 'x': a record is needed, as under key '0'"),
        (read_items, '{"0": ["a"]}', "key '0': ['a']: a record is needed"),
        (read_items, '{"0": {"title": "a"},\n "0": {"title": "b"}}', "key '0' is there twice"),
        (read_items, '{"B": {"asin": "C"}}', "key 'B': its record has another id, 'C'"),
        (read_items, '{"a": {"title": "x"},\n "b": {"title": {"en": "y"}}}', "key 'b', column title"),
        (read_events, '{"u": ["a"], "v": [["b"]]}', "key 'v': [['b']]: a list of item ids is needed"),
        (read_events, '{"data": [{"user_id": 1}]}', "key 'data'"),
        (read_events, '{"u": null, "v": ["a"]}', "key 'u': None: a record or a list is needed"),
        (read_events, '{"user_id": ["u"], "item_id": ["a"]}', "a JSON object of columns"),
        (read_events, '{"user_id": {"0": "u"}, "item_id": {"0": "a"}}', "orient='records'"),
        (read_items, '{"0": {"title": "One"},\n "1": {"title" "Two"}}', "line 2: cannot be read as JSON"),
        (read_items, '{"0": ' + "[" * 100_000, "cannot be read as JSON: maximum recursion depth"),
        (read_split, '{"u": {"item_id": "a", "seed_0": "t"}}', "no column for user_id"),
    ],
)
def test_a_json_object_that_is_no_table_is_refused(tmp_path: Path, read: Callable[..., Any], content: str, words: str) -> None:
    path = written(tmp_path / "k.json", content)
    assert words in refused(read, path)
    assert str(path) in refused(read, path)


# Lines that are no table.


@pytest.mark.parametrize("name", ["s.txt", "s.tsv", "s.csv", "s.txt.gz"])
def test_lines_of_a_user_and_the_items_in_order(tmp_path: Path, name: str) -> None:
    between = {"s.tsv": "\t", "s.csv": ","}.get(name, " ")
    path = written(tmp_path / name, "1 1 2 3\r\n\n2 5 1 \n".replace(" ", between))
    expected = [("1", "1", 0), ("1", "2", 1), ("1", "3", 2), ("2", "5", 0), ("2", "1", 1)]
    assert read_events(TableFile(path, sequences=True)).select("user_id", "item_id", "position").rows() == expected
    assert "--sequences if each line is a user" in refused(read_events, path).replace("sequences, if", "sequences if")


def test_sequences_are_told_to_the_command(tmp_path: Path) -> None:
    path = written(tmp_path / "s.txt", "u b a\nv a\n")
    assert prepared(tmp_path, "--interactions", str(path), "--sequences").rows() == [("u", "b"), ("u", "a"), ("v", "a")]
    assert "--sequences" in refused(read_events, TableFile(written(path, "1 1 2 3\n"), separator=" "))


P5 = "1 1 2 3\n2 5 1\n3 4\n"
ADVICE = "give --sequences if each line is a user and the items in order"


@pytest.mark.parametrize("name", ["p.csv", "p.tsv", "p.inter", "p.txt", "p.csv.gz"])
@pytest.mark.parametrize("between", [" ", "\t", ","])
def test_the_advice_for_sequences_reads_them(tmp_path: Path, name: str, between: str) -> None:
    path = written(tmp_path / name, P5.replace(" ", between))
    message, commas = refused(read_events, path), between == "," and ".csv" not in name
    assert (ADVICE.replace("--sequences", "--sequences --separator ','") if commas else ADVICE) in message
    file = TableFile(path, sequences=True, separator="," if commas else None)
    assert read_events(file)["item_id"].to_list() == ["1", "2", "3", "5", "1", "4"]


@pytest.mark.parametrize("content", ["u1,a,b\n", "u1,a,b\nu2,b,c\n"])
def test_a_table_and_sequences_with_commas_are_both_advised(tmp_path: Path, content: str) -> None:
    message = refused(read_events, written(tmp_path / "p.txt", content))
    sequences = ADVICE.replace("--sequences", "--sequences --separator ','")
    assert message.endswith(f"or give --separator ',' if it is a table, or {sequences}")


@pytest.mark.parametrize("name", ["p.jsonl", "p.json", "p.jsonl.gz"])
def test_sequences_that_are_named_as_json_are_to_be_renamed(tmp_path: Path, name: str) -> None:
    assert refused(read_events, written(tmp_path / name, P5)).endswith(f"it holds no JSON: name it .txt, and {ADVICE}")
    assert "--sequences" not in refused(read_items, tmp_path / name)


def test_sequences_are_not_advised_where_they_would_be_refused(tmp_path: Path) -> None:
    for content in ("u1,a,3\nu1,b,4\nu2,b,4\n", "uid,sku,when\nu1,a,3\nu2,b,4\n"):
        assert "--sequences" not in refused(read_events, written(tmp_path / "e.csv", content))
    assert "--sequences" not in refused(read_items, written(tmp_path / "i.csv", P5))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("u a\n\nu b\n", "line 3, column user_id: 'u': one line for each user is needed"),
        ("u a\nv\n", "line 2, column item_ids"),
        ("user_id item_ids\nu a\n", "this file has a header"),
        (b"u a\nv \xff\n", "line 2: not UTF-8"),
    ],
)
def test_sequences_that_cannot_be_are_refused(tmp_path: Path, content: str | bytes, words: str) -> None:
    path = written(tmp_path / "s.txt", content)
    assert words in refused(read_events, TableFile(path, sequences=True))


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
        ("5,5\n", "line 6, column timestamp: an empty cell: a movie's number with a colon"),
        ("\n5,5,5,5\n", "line 7: a movie's number with a colon"),
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
    assert f"{path}, line {line}, column user_id: an empty cell: an id is needed" in refused(read_events, path)
    table = event_table(path, drop_incomplete=True)
    assert table.frame.select("user_id", "item_id", "rating").rows() == [("1488844", "1", 3.0)]
    assert table.incomplete["events"] == 1


def test_a_movie_without_ratings_may_be_anywhere(tmp_path: Path) -> None:
    path = written(tmp_path / "n.txt", "1:\n2:\n1488844,3,2005-09-06\n3:\n4:\n7,1,2005-01-01\n5:\n")
    assert read_events(path).select("user_id", "item_id").rows() == [("1488844", "2"), ("7", "4")]


# Folders of parts.


def test_parts_of_parquet_are_read_whole_in_order_of_their_names(tmp_path: Path) -> None:
    folder = tmp_path / "events.parquet"
    folder.mkdir()
    pl.DataFrame({"user_id": [1], "item_id": [8], "rating": [4]}, schema_overrides={"user_id": pl.Int32}).write_parquet(
        folder / "part-00001.parquet"
    )
    pl.DataFrame({"user_id": [2**40], "item_id": [9], "rating": [4.5]}).write_parquet(folder / "part-00000.parquet")
    pl.DataFrame({"user_id": [None], "item_id": [None], "rating": [None]}).clear().write_parquet(folder / "part-00002.parquet")
    for other in ("_SUCCESS", "_metadata", ".part-00000.parquet.crc", "part-00000.crc", ".DS_Store"):
        (folder / other).write_bytes(b"no table")
    assert read_events(folder).rows() == [(2**40, 9, 4.5), (1, 8, 4.0)]
    pl.DataFrame({"user_id": [5], "item_id": [6], "rating": [float("inf")]}).write_parquet(folder / "part-00003.parquet")
    assert f"{folder}, part-00003.parquet, row 1, column rating: inf" in refused(read_events, folder)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"user_id": ["x"], "item_id": [1]}, "column user_id is Int64 in a.parquet and String in b.parquet"),
        ({"user_id": [1]}, "b.parquet has no column item_id, and a.parquet has"),
        ({"user_id": [1], "item_id": [1], "rating": [1]}, "a.parquet has no column rating, and b.parquet has"),
        ({"user_id": [1.5], "item_id": [1]}, "column user_id is Int64 in a.parquet and Float64 in b.parquet"),
    ],
)
def test_parts_whose_columns_differ_are_refused(tmp_path: Path, columns: dict[str, list[Any]], words: str) -> None:
    pl.DataFrame({"user_id": [2**60], "item_id": [1]}).write_parquet(tmp_path / "a.parquet")
    pl.DataFrame(columns).write_parquet(tmp_path / "b.parquet")
    assert f"{tmp_path}: {words}" in refused(read_events, tmp_path)


def test_parts_of_text_and_json(tmp_path: Path) -> None:
    for number, content in enumerate(("user_id,item_id\nu,a\n", "", "user_id,item_id\n", "user_id,item_id\nv,b\n")):
        written(tmp_path / "csv" / f"part-{number:05d}-c000.csv", content)
    assert read_events(tmp_path / "csv").rows() == [("u", "a"), ("v", "b")]
    written(tmp_path / "csv" / "part-00009.csv", "user_id,item_id,rating\n1,a,3\n")
    assert "part-00000-c000.csv has no column rating" in refused(read_events, tmp_path / "csv")
    written(tmp_path / "json" / "part-0.json.gz", '{"user_id": "u", "item_id": 1}\n')
    written(tmp_path / "json" / "part-1.json.gz", '{"user_id": "v", "item_id": "x", "rating": 2}\n')
    assert read_events(tmp_path / "json").rows() == [("u", "1", None), ("v", "x", 2.0)]
    bad = written(tmp_path / "json" / "part-2.json.gz", '\n{"user_id": ""}\n')
    assert "part-2.json.gz, line 2, column user_id: ''" in refused(read_events, bad.parent)


def test_folders_that_hold_no_parts_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    written(tmp_path / "marked" / "_SUCCESS", "")
    for name in ("empty", "marked"):
        assert "a folder without parts of a table" in refused(read_events, tmp_path / name)
    written(tmp_path / "mixed" / "ratings.dat", "1::2::3::4\n")
    written(tmp_path / "mixed" / "README", "x")
    assert "its files are not parts of one table (README and ratings.dat)" in refused(read_events, tmp_path / "mixed")
    (tmp_path / "hive" / "year=2020").mkdir(parents=True)
    assert "year=2020 is not a file" in refused(read_events, tmp_path / "hive")
    (tmp_path / "delta" / "_delta_log").mkdir(parents=True)
    assert "a Delta table" in refused(read_events, tmp_path / "delta")


# What is unpacked.


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gibibyte is 64 KiB, so that limits are met by small files."""
    monkeypatch.setattr(unpacking, "GIB", 2**16)


@pytest.mark.usefixtures("small_limits")
@pytest.mark.parametrize("name", ["e.tsv.gz", "e.jsonl.gz", "e.json.gz", "members.tsv.gz"])
def test_what_gzip_unpacks_to_is_bounded(tmp_path: Path, name: str) -> None:
    n = 100_000
    content = "user_id\titem_id\n" + "u\ta\n" * n if "tsv" in name else '{"user_id":"u","item_id":"a"}\n' * n
    if name == "e.json.gz":
        content = "[" + ",".join(content.split()) + "]"
    path = written(tmp_path / name, content)
    if name == "members.tsv.gz":
        path.write_bytes(b"".join(gzip.compress(content[at : at + 5000].encode()) for at in range(0, len(content), 5000)))
        path.write_bytes(gzip.compress(path.read_bytes()[:0]) + path.read_bytes())
    limit = TableFile(path, max_unpacked_gib=2)
    assert f"{path}: it unpacks to more than " in refused(read_events, limit)
    assert "--max-unpacked-gib" in refused(read_events, limit)
    assert len(read_events(TableFile(path, max_unpacked_gib=100))) == n


@pytest.mark.usefixtures("small_limits")
def test_what_parquet_unpacks_to_is_bounded_by_rows_and_by_bytes(tmp_path: Path) -> None:
    rows, texts = tmp_path / "rows.parquet", tmp_path / "texts.parquet"
    pl.DataFrame({"user_id": [1], "item_id": [2]}).select(pl.all().repeat_by(100_000).explode()).write_parquet(rows)
    pl.DataFrame({"user_id": ["x" * 2**20], "item_id": ["y"], "other": ["z" * 2**24]}).write_parquet(texts)
    for path, n in ((rows, 100_000), (texts, 1)):
        assert f"{path}: it unpacks to more than 1 GiB" in refused(read_events, TableFile(path, max_unpacked_gib=1))
        assert len(read_events(TableFile(path, max_unpacked_gib=40))) == n  # `other` is not read
        (tmp_path / "z.parquet.gz").write_bytes(gzip.compress(path.read_bytes()))
        assert "it unpacks to more than" in refused(read_events, TableFile(tmp_path / "z.parquet.gz", max_unpacked_gib=1))


@pytest.mark.usefixtures("small_limits")
def test_without_the_flag_the_limit_is_a_hundred_times_the_size(tmp_path: Path) -> None:
    header, row = "user_id\titem_id\n", "u\ta\n"
    assert len(read_events(written(tmp_path / "small.tsv.gz", header + row * 16_000))) == 16_000
    assert "it unpacks to more than 1 GiB" in refused(read_events, written(tmp_path / "equal.tsv.gz", header + row * 17_000))
    honest = "".join(f"u{i}\ti{i * 7919 % 10_007}\n" for i in range(17_000))
    assert len(read_events(written(tmp_path / "honest.tsv.gz", header + honest))) == 17_000


@pytest.mark.usefixtures("small_limits")
def test_parts_share_one_limit(tmp_path: Path) -> None:
    for number in range(4):
        written(tmp_path / f"part-{number}.tsv.gz", "user_id\titem_id\n" + "u\ta\n" * 6000)
    assert len(read_events(TableFile(tmp_path / "part-0.tsv.gz", max_unpacked_gib=1))) == 6000
    assert "part-2.tsv.gz: it unpacks to more than 1 GiB" in refused(read_events, TableFile(tmp_path, max_unpacked_gib=1))


def test_the_limit_is_a_number_above_zero_and_a_flag(tmp_path: Path) -> None:
    path = written(tmp_path / "e.csv.gz", "user_id,item_id\nu,a\n")
    for limit in (0.0, -1.0, float("nan"), float("inf")):
        assert "a number above 0 is needed" in refused(read_events, TableFile(path, max_unpacked_gib=limit))
    flags = ["--interactions", str(path), "--max-unpacked-gib", "1e-9", "--output", str(tmp_path / "data")]
    assert "it unpacks to more than" in refused(prepare.main, flags)


@pytest.mark.parametrize("name", ["e.csv", "e.csv.gz", "e.tsv", "e.jsonl", "e.jsonl.gz"])
def test_blank_lines_without_end_are_no_table(tmp_path: Path, name: str) -> None:
    row = (
        '{"user_id": 1, "item_id": 2}'
        if "json" in name
        else "user_id,item_id\n1,2".replace(",", "," if "csv" in name else "\t")
    )
    few, many = (f"{row}\n{end * n}{row[-3:] if 'json' not in name else row}\n" for end, n in (("\n", 1000), ("\r\n", 70_000)))
    assert len(read_events(written(tmp_path / name, few))) == 2
    line = 2 if "json" in name else 3
    assert f"line {line}: more than 65,536 blank lines follow" in refused(read_events, written(tmp_path / name, many))


def test_a_first_line_without_end_is_refused_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "FIRST_RECORD", 16 * unpacking.BLOCK)
    for filler in (b"\0", b"\n", b"x"):
        path = written(tmp_path / "e.tsv.gz", filler * 2**25)
        assert "no line of text ends in its first 16 MiB" in refused(read_events, path)
    path = written(tmp_path / "e.jsonl.gz", b"\0" * 2**25)
    assert "a line of more than 16 MiB" in refused(read_events, path)


def test_lines_are_numbered_alike_wherever_a_block_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(300):
        generator = random.Random(seed)
        pieces = generator.choices([b"{a}", b"{bc d}", b"\n", b"\r\n", b" ", b"\n\n", b"\n"], k=generator.randint(0, 30))
        content = b"".join(pieces)
        monkeypatch.setattr(unpacking, "BLOCK", generator.choice([1, 2, 3, 7, 1000]))
        found = [(number, line.strip()) for number, line in unpacking.lines_of(io.BytesIO(content), "f")]
        lines = enumerate(content.split(b"\n"), 1)
        assert [pair for pair in found if pair[1]] == [(number, line.strip()) for number, line in lines if line.strip()]


def test_a_footer_of_parquet_that_is_damaged_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "e.parquet"
    pl.DataFrame({"user_id": ["u", "v"] * 50, "item_id": range(100)}).write_parquet(path)
    whole = path.read_bytes()
    for seed in range(200):
        generator, data = random.Random(seed), bytearray(whole)
        data[generator.randrange(len(data) - 200, len(data))] ^= 1 << generator.randrange(8)
        path.write_bytes(data)
        try:
            read_events(path)
        except ValueError as error:
            assert str(path) in str(error)
            assert str(error).isprintable()


@pytest.mark.parametrize(("tail", "words"), [(b"more", "bytes that are not gzip follow"), (b"\0" * 512, "")])
def test_bytes_after_the_compressed_ones(tmp_path: Path, tail: bytes, words: str) -> None:
    path = tmp_path / "e.csv.gz"
    path.write_bytes(gzip.compress(b"user_id,item_id\nu,a\n") + tail)
    if words:
        assert words in refused(read_events, path)
    else:
        assert read_events(path).rows() == [("u", "a")]


def test_a_hundred_thousand_columns(tmp_path: Path) -> None:
    names = ",".join(f"c{i}" for i in range(100_000))
    path = written(tmp_path / "w.csv", f"user_id,item_id,{names}\nu,a,{names}\n")
    assert read_events(path).rows() == [("u", "a")]
    assert "and 99,980 more" in refused(read_events, written(path, f"{names}\n{names}\n"))
    assert "the header names column c7 twice" in refused(read_events, written(path, f"{names},c7\n{names},1\n"))
    assert read_events(written(path, f"user_id,item_id{',' * 100_000}\nu,a{',' * 100_000}\n")).rows() == [("u", "a")]
    many = "".join(json.dumps({f"k{i}": 1, "user_id": 1}) + "\n" for i in range(20_000))
    assert "20,001 different keys" in refused(read_split, written(tmp_path / "s.jsonl", many))


# Little memory.


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (MemoryError(), True),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (pl.exceptions.ComputeError("Cannot allocate memory (os error 12)"), True),
        (pl.exceptions.ComputeError("failed (os error 12)"), True),
        (pl.exceptions.ComputeError("Disk quota exceeded (os error 122)"), False),
        (pl.exceptions.ComputeError("Required key not available (os error 126)"), False),
        (OSError("Cannot allocate memory (os error 12)"), True),
        (OSError("Disk quota exceeded (os error 122)"), False),
        (OSError("No such file or directory (os error 2): /data/out of memory/e.csv"), False),
        (OSError(errno.EACCES, "Permission denied", "/data/out of memory/e.csv"), False),
        (OSError(errno.ENOMEM, "Cannot allocate memory", "/data/e.csv"), True),
        (OSError(errno.ENOENT, "No such file or directory"), False),
        (ValueError("damaged"), False),
    ],
)
def test_lack_of_memory_is_told_from_damage(error: Exception, is_memory: bool) -> None:
    assert out_of_memory(error) is is_memory
    try:
        raise RuntimeError("while reading") from error
    except RuntimeError as outer:
        assert out_of_memory(outer) is is_memory


@pytest.mark.parametrize("name", ["e.tsv", "e.jsonl", "e.parquet"])
def test_where_memory_runs_out_the_error_says_so(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise MemoryError

    for reader in ("text_of", "read_json", "read_parquet"):
        monkeypatch.setattr(formats, reader, fails)
    path = written(tmp_path / name, "x")
    message = refused(read_events, path)
    assert f"{path}: there is not enough memory to read it" in message
    assert "cannot be read as" not in message
