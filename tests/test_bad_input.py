"""Whatever is put in: prepare makes a dataset, or ends in one line that says where and what to do, and leaves nothing."""

import csv
import gzip
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from cllm4rec import prepare
from cllm4rec.data.dataset import Dataset

GOOD = "user_id,item_id,rating,timestamp\n" + "".join(
    f"u{u},i{i},{1 + i % 5},{100 * u + i}\n" for u in range(4) for i in range(5)
)
STRANGE = [
    "a b",
    "a,b",
    'a"b',
    '"a"',
    "'a'",
    " lead",
    "trail ",
    "  ",
    "",
    "007",
    "7",
    "7.0",
    "1e3",
    "0",
    "-1",
    "9" * 30,
    "x" * 5000,
]
STRANGE += [
    "NULL",
    "null",
    "nan",
    "NaN",
    "None",
    "true",
    "N/A",
    "#1",
    "=1+1",
    "-",
    "\\",
    "a\\nb",
    "%s",
    "{}",
    "../x",
    "a;b",
    "a|b",
    "a::b",
]
STRANGE += ["\U0001f600", "e\u0301", "\u00e9", "\u05d0\u05d1", "\u202eabc", "\u2028", "\u00a0x"]
IDS = [one for one in STRANGE if one.strip()]
WHITE = ["a\tb", "a\nb", "a\r\nb", "\tx", "x\n", "a\x00b", "a\x1fb", "\ufeffx"]  # what JSON and Parquet can hold beside


def written(path: Path, content: str | bytes) -> Path:
    raw = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(raw, mtime=0) if path.suffix == ".gz" else raw)
    return path


def run(events: Path, output: Path, *flags: object) -> Dataset:
    prepare.main(["--interactions", str(events), "--output", str(output), *map(str, flags)])
    return Dataset.load(output)


def refused(events: Path, *flags: object) -> str:
    """The one line that refuses a file; no output is left."""
    output = events.parent / "refused" / "data"
    with pytest.raises(ValueError) as error:
        run(events, output, *flags)
    assert not output.parent.exists()
    assert str(error.value).isprintable()  # one line
    return str(error.value)


# Tables that cannot be read.


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("e.csv", "user_id,thing\n1,2\n", "no column for item_id: looked for item_id, item"),
        ("e.csv", "user_id,item_id\n1,2\n1\n", "line 3: 1 cells where the header has 2"),
        ("e.csv", "user_id,item_id\n1,2\n1,2,3\n", "line 3: 3 cells where the header has 2"),
        ("e.jsonl", '{"user_id":1,"item_id":1}\n{"user_id":1,\n', "line 2: cannot be read as JSON"),
        ("e.csv", "user_id,item_id,rating\n1,2,good\n", "line 2, column rating: 'good': a number is needed (1 such row)"),
        ("e.csv", "user_id,item_id,rating\n1,2,4\n1,3,-inf\n", "line 3, column rating: '-inf'"),
        ("e.csv", "user_id,item_id,rating\n1,2,1e999\n", "line 2, column rating: '1e999'"),
        ("e.jsonl", '{"user_id":1,"item_id":1,"rating":Infinity}\n', "line 1, column rating: inf"),
        ("e.jsonl", '{"user_id":1,"item_id":1,"rating":true}\n', "line 1, column rating: True"),
        ("e.jsonl", '{"user_id":1,"item_id":1,"rating":[4]}\n', "line 1, column rating: [4]"),
        ("e.jsonl", f'{{"user_id":1,"item_id":1,"rating":1{"0" * 400}}}\n', "line 1, column rating"),
        ("e.jsonl", f'{{"user_id":1,"item_id":1,"rating":1{"0" * 5000}}}\n', "line 1: cannot be read as JSON"),
        ("e.csv", "", "the file is empty"),
        ("e.csv", " \n\n", "the file is empty"),
        ("e.csv", b"\xef\xbb\xbf", "the file is empty"),
        ("e.jsonl", "\n\n", "the file is empty"),
        ("e.json", "[]", "no column for user_id"),
        ("e.tsv.gz", "", "the file is empty"),
        ("e.csv", "user_id,item_id\n", "a header and no rows"),
        ("e.csv", bytes(range(256)) * 40, "e.csv"),
        ("e.tsv", b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "e.tsv"),
        ("e.csv", gzip.compress(GOOD.encode()), "cannot be read as csv: it is compressed by gzip: let its name end in .gz"),
        ("e.csv", GOOD.encode("utf-16-le"), "line 1: a zero byte: not UTF-8 text (if it is UTF-16, give --encoding utf-16-le)"),
        ("e.csv.gz", None, "cannot be read as csv: Not a gzipped file"),
        ("e.jsonl.gz", None, "cannot be read as jsonl: Not a gzipped file"),
        ("e.parquet", "PAR1 and then nothing", "cannot be read as parquet"),
        ("e.csv", GOOD.replace(",", ";"), "give --separator ';'"),
        ("e.tsv", GOOD, "give --separator ','"),
        ("e.xlsx", "PK", "unknown kind of file"),
        ("e.csv", "user_id,item_id\n1,\n", "line 2, column item_id: an empty cell: an id is needed"),
        ("e.csv", "user_id,item_id\n1,  \n", "line 2, column item_id: '  ': an id is needed"),
        ("e.csv", "user_id,item_id,timestamp\n1,2,1e300\n", "line 2, column timestamp: '1e300'"),
        ("e.csv", "user_id,item_id,timestamp\n1,2,01.02.2024\n", "line 2, column timestamp: '01.02.2024': day and month"),
        ("e.csv", "user_id,item_id,timestamp\n1,2,31.12.24\n", "line 2, column timestamp: '31.12.24'"),
        ("e.csv", "user_id,item_id,position\n1,2,0.5\n", "line 2, column position: '0.5': a whole number"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_ends_in_one_line_and_leaves_nothing(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(GOOD.encode()) if content is None else written(path, content)
    message = refused(path)
    assert words in message
    assert name in message
    assert len(message) < 1000


def test_folders_missing_files_and_files_that_may_not_be_read(tmp_path, monkeypatch):
    (tmp_path / "e.csv").mkdir()
    assert "a folder without parts of a table" in refused(tmp_path / "e.csv")
    assert "there is no such file" in refused(tmp_path / "none.csv")
    good = written(tmp_path / "good.csv", GOOD)
    assert "there is no such file" in refused(good, "--items", tmp_path / "none.csv")
    assert "there is no such file, and no rule of that name: take one of random" in refused(good, "--split", "last")

    opened = Path.open

    def forbidden(self: Path, *arguments: Any, **named: Any) -> Any:
        if self == good:
            raise PermissionError(13, "Permission denied")
        return opened(self, *arguments, **named)

    monkeypatch.setattr(Path, "open", forbidden)
    assert f"{good}: cannot be read as csv: Permission denied" in refused(good)


@pytest.mark.parametrize("name", ["e.csv.gz", "e.tsv.gz", "e.jsonl.gz"])
def test_a_gzip_file_cut_anywhere_is_refused(tmp_path, name):
    rows = [line.split(",") for line in GOOD.splitlines()]
    if "jsonl" in name:
        content = "".join(json.dumps(dict(zip(rows[0], row, strict=True))) + "\n" for row in rows[1:])
    else:
        content = "\n".join(("\t" if "tsv" in name else ",").join(row) for row in rows) + "\n"
    path = written(tmp_path / name, content)
    assert len(run(path, tmp_path / "data").interactions) == 20
    whole = path.read_bytes()
    for cut in (*range(1, 12), *range(12, len(whole), 9)):
        path.write_bytes(whole[:-cut])
        assert "cannot be read as" in refused(path) or len(whole) == cut
    path.write_bytes(whole[:-8] + bytes(8))  # another check sum
    assert "cannot be read as" in refused(path)


def test_a_parquet_file_on_which_polars_panics_is_refused(tmp_path, monkeypatch):
    def panic(*_: object, **__: object) -> None:
        raise pl.exceptions.PanicException("called `Result::unwrap()`\non an `Err` value")

    monkeypatch.setattr(pl, "read_parquet", panic)
    pl.DataFrame({"user_id": [1], "item_id": [1]}).write_parquet(tmp_path / "e.parquet")
    assert "cannot be read as parquet: called `Result::unwrap()`" in refused(tmp_path / "e.parquet")


# What is read and has a rule.


def test_repeats_items_without_text_and_users_with_one_event_are_counted(tmp_path, capsys):
    events = written(tmp_path / "e.csv", GOOD + "u0,i0,5,900\nu0,i1,5,901\nalone,i0,3,5\n")
    items = written(tmp_path / "i.csv", "item_id,title\n" + "".join(f"i{i},{'T' if i else ''}\n" for i in range(5)))
    dataset = run(events, tmp_path / "data", "--items", items)
    printed = capsys.readouterr().out
    assert "latest of repeated events of a user and an item: dropped 2 events, 0 users, 0 items" in printed
    assert "title: a text for 4 of 5 items" in printed
    assert "items without any text: 1" in printed
    assert "users with fewer than 3 events, who stay whole in train: 1" in printed
    alone = dataset.interactions.users == dataset.user_ids.index(["alone"])[0]
    assert dataset.part[alone].tolist() == [0]


def ids_of(dataset: Dataset) -> tuple[list[object], list[object]]:
    return sorted(dataset.user_ids.ids.to_list(), key=str), sorted(dataset.item_ids.ids.to_list(), key=str)


@pytest.mark.parametrize("name", ["e.csv", "e.tsv", "e.jsonl", "e.parquet", "e.csv.gz", "e.json"])
def test_strange_ids_come_back_unchanged(tmp_path, name):
    kind = name.removesuffix(".gz").rsplit(".")[-1]
    ids = IDS if kind in ("csv", "tsv") else IDS + WHITE
    if kind == "csv":
        ids = ids + ["a\nb", "a\tb", "x\n"]
    pairs = [(one, other) for one in ids for other in (ids[0], ids[-1], one)]
    table = pl.DataFrame({"user_id": [user for user, _ in pairs], "item_id": [item for _, item in pairs]})
    path = tmp_path / name
    if kind == "csv":
        lines = ["user_id,item_id", *(",".join('"' + cell.replace('"', '""') + '"' for cell in pair) for pair in pairs)]
        written(path, "\n".join(lines) + "\n")
    elif kind == "tsv":
        written(path, "\n".join("\t".join(pair) for pair in [("user_id", "item_id"), *pairs]) + "\n")
    elif kind == "parquet":
        table.write_parquet(path)
    else:
        records = [dict(zip(("user_id", "item_id"), pair, strict=True)) for pair in pairs]
        written(path, json.dumps(records) if kind == "json" else "".join(json.dumps(one) + "\n" for one in records))
    dataset = run(path, tmp_path / "data", "--split", "none")
    assert ids_of(dataset) == (sorted(set(ids)), sorted(set(ids)))
    numbers = dataset.user_ids.index(ids)
    assert dataset.user_ids.names(numbers).to_list() == ids


def test_ids_as_python_writes_them_to_csv_come_back(tmp_path):
    ids = [one for one in (*IDS, "a\nb", "a\tb") if "\x00" not in one]
    with (tmp_path / "e.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("user_id", "item_id"), *((one, "x") for one in ids)])
    assert ids_of(run(tmp_path / "e.csv", tmp_path / "data", "--split", "none"))[0] == sorted(ids)


def test_mixed_types_become_text_and_one_and_the_text_one_are_one_id(tmp_path):
    rows = [{"user_id": 1, "item_id": 1}, {"user_id": "1", "item_id": "x"}, {"user_id": 2.0, "item_id": 2}]
    dataset = run(written(tmp_path / "e.jsonl", "\n".join(map(json.dumps, rows))), tmp_path / "data")
    assert ids_of(dataset) == (["1", "2"], ["1", "2", "x"])


def test_dates_in_several_forms_empty_and_negative_ones_are_ordered(tmp_path):
    cells = ["", "-86400", "1969-12-31 12:00:00", "1970-01-02", "1970-01-03T00:00:00Z", "345600", "432000000000"]
    content = "user_id,item_id,timestamp\n" + "".join(f"ann,i{i},{cell}\n" for i, cell in enumerate(cells))
    dataset = run(written(tmp_path / "e.csv", content), tmp_path / "data", "--split", "leave-last-out")
    assert dataset.item_ids.names(dataset.interactions.items).to_list() == [f"i{i}" for i in range(7)]
    assert dataset.interactions.times.tolist() == [-86401, -86400, -43200, 86400, 172800, 345600, 432000000]
    assert dataset.part.tolist() == [0, 0, 0, 0, 0, 1, 2]


# The output.


def test_an_output_that_is_something_else_is_left_alone(tmp_path):
    events = written(tmp_path / "e.csv", GOOD)
    written(tmp_path / "file", "mine")
    (tmp_path / "photos").mkdir()
    written(tmp_path / "photos" / "cat.txt", "meow")
    for output in ("file", "photos", "file/data", "file/new/data"):
        with pytest.raises(ValueError, match="name another one"):
            run(events, tmp_path / output)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["cat.txt", "e.csv", "file", "photos"]
    assert len(run(events, tmp_path / "new" / "folders" / "data").interactions) == 20


@pytest.mark.parametrize("failing", ["write_parquet", "write_text"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), pl.exceptions.ComputeError("disk\nfull")])
def test_a_disk_that_is_full_leaves_nothing_half_written_and_an_older_dataset_whole(tmp_path, monkeypatch, failing, error):
    events = written(tmp_path / "e.csv", GOOD)
    run(events, tmp_path / "old")
    before = {path.name: path.read_bytes() for path in (tmp_path / "old").iterdir()}
    calls = []

    def full(self: object, *arguments: object, **_: object) -> None:
        calls.append(arguments)
        if len(calls) % 2 == 0 or failing == "write_text":
            raise error
        Path(str(arguments[0])).write_bytes(b"half")

    monkeypatch.setattr(pl.DataFrame if failing == "write_parquet" else Path, failing, full)
    for output in (tmp_path / "old", tmp_path / "made" / "for" / "it"):
        with pytest.raises(ValueError, match="cannot be written") as ended:
            prepare.main(["--interactions", str(events), "--output", str(output)])
        assert "\n" not in str(ended.value)
        assert str(output) in str(ended.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e.csv", "old"]
    assert {path.name: path.read_bytes() for path in (tmp_path / "old").iterdir()} == before


# As typed.


def typed(*arguments: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "cllm4rec.prepare", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(prepare.__file__).parents[1])}
    return subprocess.run(line, capture_output=True, text=True, env=environment, timeout=120, check=False)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("e.csv", GOOD + "u9,i9,five,7\n"),
        ("e.csv", bytes(range(256)) * 9),
        ("e.jsonl", "{'user_id': '\\d', 'item_id': 1, 'rating': 'x'}\n"),
        ("e.parquet", b"PAR1" + bytes(40) + b"PAR1"),
    ],
)
def test_a_mistake_is_one_line_and_status_2_and_an_older_dataset_stays(tmp_path, name, content):
    run(written(tmp_path / "good.csv", GOOD), tmp_path / "old")
    before = {path.name: path.read_bytes() for path in (tmp_path / "old").iterdir()}
    path = written(tmp_path / name, content)
    for output in ("old", "new"):
        ended = typed("--interactions", path, "--output", tmp_path / output)
        assert ended.returncode == 2
        assert len(ended.stderr.splitlines()) == 1
        assert ended.stderr.startswith("error: ")
        assert ended.stdout == ""
    assert not (tmp_path / "new").exists()
    assert {path.name: path.read_bytes() for path in (tmp_path / "old").iterdir()} == before


# Anything at all.


def mutated(generator: random.Random, data: bytes) -> bytes:
    """The bytes with some changed, left out, put in or doubled."""
    changed = bytearray(data)
    for _ in range(generator.choice([1, 1, 1, 4])):
        place = generator.randrange(len(changed) + 1) if changed else 0
        piece = generator.choice(
            [bytes([generator.randrange(256)]), b'"', b"\n", b"\r", b",", b"\t", b"", b"\x00", b"{", b"[", b"nan", b"1e999"]
        )
        changed[place : place + generator.choice([0, 1, 1, 5])] = piece * generator.choice([1, 1, 1, 30])
    return bytes(changed[: generator.choice([len(changed)] * 9 + [generator.randrange(len(changed) + 1)])])


def good_files(folder: Path) -> dict[str, bytes]:
    """A good table of each kind, as bytes."""
    written(folder / "g.csv", GOOD)
    table = pl.read_csv(folder / "g.csv")
    table.write_parquet(folder / "g.parquet")
    table.write_ndjson(folder / "g.jsonl")
    lines = [line.split(",") for line in GOOD.splitlines()]
    files = {
        "e.csv": GOOD.encode(),
        "e.tsv": GOOD.replace(",", "\t").encode(),
        "e.parquet": (folder / "g.parquet").read_bytes(),
    }
    files |= {"e.jsonl": (folder / "g.jsonl").read_bytes(), "e.json": json.dumps(table.to_dicts()).encode()}
    files |= {"ratings.dat": "\n".join("::".join(line) for line in lines[1:]).encode()}
    files |= {"e.inter": ("user_id:token\titem_id:token\n" + "\n".join("\t".join(line[:2]) for line in lines[1:])).encode()}
    files |= {"quoted.csv": "\n".join(",".join(f'"{cell}"' for cell in line) for line in lines).encode()}
    return files | {"e.csv.gz": gzip.compress(files["e.csv"], mtime=0), "e.jsonl.gz": gzip.compress(files["e.jsonl"], mtime=0)}


def test_any_bytes_are_prepared_or_refused_in_one_line(tmp_path):
    (tmp_path / "good").mkdir()
    files = good_files(tmp_path / "good")
    outcomes = {"prepared": 0, "refused": 0}
    for seed in range(60):
        generator = random.Random(seed)
        for name, good in files.items():
            data = generator.randbytes(generator.randrange(200)) if seed % 10 == 0 else mutated(generator, good)
            path = tmp_path / name
            path.write_bytes(data)
            try:
                run(path, tmp_path / "data", "--split", generator.choice(["random", "none", "leave-last-out"]))
            except ValueError as error:
                assert str(error)
                assert len(str(error).splitlines()) == 1, (name, data)
                outcomes["refused"] += 1
            else:
                outcomes["prepared"] += 1
    assert min(outcomes.values()) > 60, outcomes
    assert {path.name for path in tmp_path.iterdir()} == {"good", "data", *files}
