"""Quotes and escapes in text tables."""

from pathlib import Path

import pytest

from cllm4rec.data.readers.source import TableFile
from cllm4rec.data.readers.tables import read_events, read_items
from tests.support.tables import refused, written


def test_quotes_inside_a_cell_without_quotes_are_taken_as_they_are(tmp_path: Path) -> None:
    path = written(tmp_path / "e.csv", 'user_id,item_id\n1,5" disk\n2,"a ""b"" c"\n3,7" disk\n')
    assert read_events(path)["item_id"].to_list() == ['5" disk', 'a "b" c', '7" disk']


@pytest.mark.parametrize("row", ['2,"b', '2,"b" c'])
def test_a_quote_that_is_not_closed_is_named_by_the_line_it_opens_on(tmp_path: Path, row: str) -> None:
    path = written(tmp_path / "e.csv", f"user_id,item_id\n1,a\n{row}\n3,c\n4,d\n")
    assert f"{path}, line 3: " in refused(read_events, path)


@pytest.mark.parametrize("header", ["user_id\titem_id", '"user_id"\t"item_id"'])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_quotes_around_all_cells_of_a_column_are_no_part_of_them(
    tmp_path: Path, header: str, end: str
) -> None:
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
def test_quotes_are_found_whatever_the_separator(
    tmp_path: Path, name: str, content: str, separator: str | None
) -> None:
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


def test_a_quoted_header_names_its_separator(tmp_path: Path) -> None:
    path = written(tmp_path / "e.csv", '"User-ID";"ISBN";"Book-Rating"\n"1";"034545104X";"0"\n')
    assert "give `separator` ';'" in refused(read_events, path)
    names = {"user_id": "User-ID", "item_id": "ISBN", "rating": "Book-Rating"}
    assert read_events(path, names, ";").rows() == [("1", "034545104X", 0.0)]
    assert "`separator`" not in refused(read_events, written(path, '"a;b"\n1\n'))


def test_quotes_after_a_backslash_are_read_with_a_flag(tmp_path: Path) -> None:
    path = written(
        tmp_path / "b.csv", '"ISBN";"Book-Title"\n"1";"A \\"quoted\\" word; and more"\n"2";"C:\\\\"\n'
    )
    names = {"item_id": "ISBN", "title": "Book-Title"}
    file = TableFile(path, separator=";")
    assert f"{path}, line 2: " in refused(read_items, file, names)
    assert r"give `escape` '\'" in refused(read_items, file, names)
    assert read_items(TableFile(path, separator=";", escape="\\"), names).rows() == [
        ("1", 'A "quoted" word; and more'),
        ("2", "C:\\"),
    ]
    assert "`escape` ';': it separates the cells" in refused(
        read_items, TableFile(path, separator=";", escape=";"), names
    )
    assert "`escape` 'no': expected one ASCII character" in refused(
        read_items, TableFile(path, separator=";", escape="no"), names
    )


@pytest.mark.parametrize("name", ["i.tsv", "i.csv", "i.item", "i.txt"])
@pytest.mark.parametrize("first", ["a", '"a"'])
def test_quotes_after_a_backslash_are_refused_in_every_text_table(
    tmp_path: Path, name: str, first: str
) -> None:
    between = {"i.csv": ",", "i.txt": ";"}.get(name, "\t")
    content = f'item_id{between}title\nz{between}"Plain"\n\n{first}{between}"A \\"x\\" y"\n'
    path = written(tmp_path / name, content)
    file = TableFile(path, separator=";" if name == "i.txt" else None)
    message = refused(read_items, file)
    assert f"{path}, line 4" in message
    assert r"give `escape` '\'" in message
    expected = [("z", "Plain"), ("a", 'A "x" y')]
    assert read_items(TableFile(path, separator=file.separator, escape="\\")).rows() == expected
    split_cell = written(tmp_path / name, content.replace("x", between))
    assert r"give `escape` '\'" in refused(read_items, TableFile(split_cell, separator=file.separator))


@pytest.mark.parametrize("cells", [('"A \\"x\\" y"', "bare"), ('"C:\\"', '"D"'), ('say \\"x\\"', '"B"')])
def test_other_quotes_and_backslashes_of_a_tsv_are_characters(tmp_path: Path, cells: tuple[str, str]) -> None:
    path = written(tmp_path / "i.tsv", "item_id\ttitle\n" + "".join(f"i\t{cell}\n" for cell in cells))
    inside = all(cell.startswith('"') for cell in cells)
    assert read_items(path)["title"].to_list() == [cell[1:-1] if inside else cell for cell in cells]
