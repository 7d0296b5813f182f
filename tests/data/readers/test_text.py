"""Text tables: separators, numbers of lines, widths of rows, encodings."""

import json
import random
from pathlib import Path

import pytest

from cllm4rec.data.readers.source import TableFile
from cllm4rec.data.readers.split_tables import read_split_table
from cllm4rec.data.readers.tables import read_events, read_items, read_users
from cllm4rec.data.readers.text import TextTable
from tests.support.tables import refused, written


def test_a_separator_may_be_given(tmp_path: Path) -> None:
    path = written(tmp_path / "e.csv", 'user_id;item_id;rating\n1;"a;b";4\n')
    assert read_events(path, separator=";").rows() == [("1", "a;b", 4.0)]
    path = written(tmp_path / "e.txt", "user_id|item_id\n1|a\n")
    assert read_events(path, separator="|").rows() == [("1", "a")]
    assert "`separator`" in refused(read_events, path)
    assert "expected one ASCII character" in refused(read_events, path, separator="||")


@pytest.mark.parametrize(
    ("name", "separator", "way"),
    [
        ("e.csv", ";", "`separator` ';'"),
        ("e.csv", "\t", r"`separator` '\t'"),
        ("e.tsv", ",", "`separator` ','"),
        ("e.csv", "|", "`separator` '|'"),
        ("e.tsv", "::", "ratings.dat"),
    ],
)
def test_a_header_that_is_one_cell_says_which_separator_it_holds(
    tmp_path: Path, name: str, separator: str, way: str
) -> None:
    path = written(tmp_path / name, f"user_id{separator}item_id\n1{separator}a\n")
    message = refused(read_events, path)
    assert str(path) in message
    assert repr(separator) in message
    assert way in message


@pytest.mark.parametrize("name", ["e.csv", "e.tsv", "e.csv.gz"])
@pytest.mark.parametrize("bad", ["3", "3,c,5,6", "3,c,", "3,,c,"])
def test_a_row_with_more_or_fewer_cells_than_the_header_is_named_by_its_line(
    tmp_path: Path, name: str, bad: str
) -> None:
    rows = [
        "user_id,item_id,rating" if bad != "3,c," else "user_id,item_id",
        "1,a,4" if bad != "3,c," else "1,a",
        "",
        bad,
    ]
    content = "\n".join(rows) + "\n"
    path = written(tmp_path / name, content.replace(",", "\t") if "tsv" in name else content)
    message = refused(read_events, path)
    assert (
        f"{path}, line 4: {bad.count(',') + 1} cells where the header has {rows[0].count(',') + 1}" in message
    )


def test_a_short_row_is_not_hidden_by_rows_whose_last_cell_is_empty(tmp_path: Path) -> None:
    rows = "".join(f"{i},x{i},\n" for i in range(50))
    assert len(read_events(written(tmp_path / "a.csv", "user_id,item_id,rating\n" + rows))) == 50
    assert "line 52: 2 cells" in refused(
        read_events, written(tmp_path / "b.csv", f"user_id,item_id,rating\n{rows}7,short\n")
    )


def test_lines_are_counted_with_blank_ones_and_cells_that_span_lines(tmp_path: Path) -> None:
    path = written(tmp_path / "e.csv", '\nuser_id,item_id,rating\n\n1,"a\nb",4\r\n\n2,"c\n\nd",bad\n')
    assert f"{path}, line 7, column rating: 'bad'" in refused(read_events, path)
    path = written(tmp_path / "e.tsv", '\n\nuser_id\titem_id\trating\n1\t"a\t4\n\n\n2\tc\tbad\n')
    assert f"{path}, line 7, column rating: 'bad'" in refused(read_events, path)


def test_the_column_of_an_error_is_named_as_in_the_file(tmp_path: Path) -> None:
    path = written(tmp_path / "e.csv", "userId,movieId,stars\n1,a,good\n")
    assert "line 2, column stars: 'good'" in refused(read_events, path)


def test_blank_lines_are_no_rows(tmp_path: Path) -> None:
    assert read_events(written(tmp_path / "e.csv", "\nuser_id,item_id\n\n1,a\n\r\n\n2,b\n\n\n")).rows() == [
        ("1", "a"),
        ("2", "b"),
    ]
    assert read_items(written(tmp_path / "i.tsv", "item_id\n\na\n\nb\n\n")).rows() == [("a",), ("b",)]


def ragged_text(generator: random.Random, quoted: bool) -> str:
    """Draw lines of cells: quotes, line ends in quotes, blank lines, rows that are too long or too short."""
    cells = ["", "a", "b c", " ", "é", "z"]
    cells += (
        ['"q"', '"x,y"', '"l\nm"', '"d""e"', '""', *(['q"r', '"'] if generator.random() < 0.1 else [])]
        if quoted
        else ['"', 'a"b']
    )
    wrong = generator.choice([0, 0, 0.15])
    sizes = [
        2 if generator.random() >= wrong else generator.choice([0, 1, 3, 4])
        for _ in range(generator.randint(0, 7))
    ]
    end = generator.choice(["\n", "\r\n"])
    lines = ["u,v", *(",".join(generator.choice(cells) for _ in range(size)) for size in sizes)]
    return end.join(lines) + generator.choice(["", end, end * 2])


@pytest.mark.parametrize("quoted", [True, False])
def test_the_fast_parser_gives_the_table_of_the_strict_one_or_none(quoted: bool) -> None:
    n_parsed_fast = 0
    for seed in range(1500):
        table = TextTable(ragged_text(random.Random(seed), quoted).encode(), "t", ",", quoted)
        fast = table._parse_fast()
        if fast is not None:
            n_parsed_fast += 1
            strict = table._parse_strict()
            assert fast.fill_null("").rows() == strict.fill_null("").rows()
    assert n_parsed_fast > 700


def test_a_clean_table_needs_no_strict_parser(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(TextTable, "_parse_strict", None)
    for name, content in (
        ("e.csv", 'user_id,item_id,rating\r\n1,"a,b",\r\n2,c,\r\n'),
        ("e.tsv", 'user_id\titem_id\n1\t"a\n2\tb\n\n'),
    ):
        assert len(read_events(written(tmp_path / name, content))) == 2


def test_a_header_that_names_a_column_twice_is_refused(tmp_path: Path) -> None:
    assert "item_id twice" in refused(
        read_events, written(tmp_path / "e.csv", "user_id,item_id,item_id\n1,a,b\n")
    )


@pytest.mark.parametrize("name", ["e.csv", "e.csv.gz", "e.tsv", "e.txt"])
@pytest.mark.parametrize("line", ["sep=;\n", '\ufeff"sep=;"\r\n', "SEP=;\r\n"])
def test_a_first_line_that_says_the_separator_is_obeyed(tmp_path: Path, name: str, line: str) -> None:
    path = written(tmp_path / name, f"{line}user_id;item_id;rating\n1;a;4\n")
    assert read_events(path).rows() == [("1", "a", 4.0)]
    assert read_events(path, separator=";").rows() == [("1", "a", 4.0)]
    assert "its first line says sep=;, and `separator` says ','" in refused(
        read_events, TableFile(path, separator=",")
    )
    bad = written(tmp_path / name, f"{line}user_id;item_id;rating\n\n1;a;4\n1;a;x\n")
    assert f"{bad}, line 5, column rating: 'x'" in refused(read_events, bad)


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


def test_a_hundred_thousand_columns(tmp_path: Path) -> None:
    names = ",".join(f"c{i}" for i in range(100_000))
    path = written(tmp_path / "w.csv", f"user_id,item_id,{names}\nu,a,{names}\n")
    assert read_events(path).rows() == [("u", "a")]
    assert "and 99,980 more" in refused(read_events, written(path, f"{names}\n{names}\n"))
    assert "the header names column c7 twice" in refused(
        read_events, written(path, f"{names},c7\n{names},1\n")
    )
    assert read_events(written(path, f"user_id,item_id{',' * 100_000}\nu,a{',' * 100_000}\n")).rows() == [
        ("u", "a")
    ]
    many = "".join(json.dumps({f"k{i}": 1, "user_id": 1}) + "\n" for i in range(20_000))
    assert "20,001 different keys" in refused(read_split_table, written(tmp_path / "s.jsonl", many))


def test_text_that_is_not_utf8_is_named_by_its_first_bad_line(tmp_path: Path) -> None:
    path = written(tmp_path / "e.csv", b"user_id,item_id\n1,a\n\n2,caf\xe9\n3,\xff\n")
    assert f"{path}, line 4: not UTF-8" in refused(read_events, path)
    path = written(tmp_path / "e.jsonl", b'{"user_id":1,"item_id":2}\n{"user_id":1,"item_id":"\xe9"}\n')
    assert f"{path}, line 2: not UTF-8" in refused(read_events, path)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "utf-32"])
@pytest.mark.parametrize("name", ["e.csv", "e.csv.gz", "e.jsonl"])
def test_a_byte_order_mark_says_the_encoding(tmp_path: Path, encoding: str, name: str) -> None:
    content = 'user_id,item_id\n1,"é"\n' if "csv" in name else '{"user_id": "1", "item_id": "é"}\n'
    assert read_events(written(tmp_path / name, content.encode(encoding))).rows() == [("1", "é")]


def test_an_encoding_is_given_for_text_that_is_not_utf8(tmp_path: Path) -> None:
    latin = written(tmp_path / "latin.csv", "user_id,bio\n1,méxico\n".encode("latin-1"))
    assert f"{latin}, line 2: not UTF-8 text" in refused(read_users, latin)
    assert "`encoding`" in refused(read_users, latin)
    for content in (
        "user_id,bio\n1,méxico\n".encode(encoding) for encoding in ("latin-1", "utf-8", "utf-16")
    ):
        path = written(tmp_path / "u.csv", content)
        assert read_users(TableFile(path, encoding="latin-1")).rows() == [("1", "méxico")]
    wide = written(tmp_path / "w.csv", "user_id,bio\n1,méxico\n".encode("utf-16-le"))
    assert "give `encoding` utf-16-le" in refused(read_users, wide)
    assert read_users(TableFile(wide, encoding="utf-16-le")).rows() == [("1", "méxico")]
    for encoding in ("nonsense", "zlib", "undefined"):
        assert "there is no such encoding" in refused(read_users, TableFile(latin, encoding=encoding))
    assert "line 2: neither UTF-8 nor ascii text" in refused(read_users, TableFile(latin, encoding="ascii"))
