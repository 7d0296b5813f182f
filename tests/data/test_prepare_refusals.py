"""Bad input ends `prepare` in one line that says where and what to do, and leaves no output."""

import gzip
import json
import random
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.support.datasets import prepared
from tests.support.tables import EVENTS_CSV, json_lines, refused, written

GZIP_REFUSAL = "cannot be read as csv: it is compressed by gzip: let its name end in .gz"
UTF_16_REFUSAL = "line 1: not UTF-8 text, it holds a zero byte: if it is UTF-16, give --encoding utf-16-le"
RATING_REFUSAL = "line 2, column rating: 'good': expected a number (1 such row)"
WHOLE_REFUSAL = "line 2, column position: '0.5': expected a whole number"
DATE_REFUSAL = "line 2, column timestamp: '01.02.2024': day and month"


def event_json(rating: str) -> str:
    """A line of JSON with this rating."""
    return f'{{"user_id":1,"item_id":1,"rating":{rating}}}\n'


def refused_by_prepare(events: Path, *flags: object) -> str:
    """The line in which `prepare` refuses a file; no output is left."""
    output = events.parent / "refused" / "data"
    message = refused(prepared, events, output, *flags)
    assert not output.parent.exists()
    return message


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("e.csv", "user_id,thing\n1,2\n", "no column for item_id: searched for item_id, item"),
        ("e.csv", "user_id,item_id\n1,2\n1\n", "line 3: 1 cells where the header has 2"),
        ("e.csv", "user_id,item_id\n1,2\n1,2,3\n", "line 3: 3 cells where the header has 2"),
        ("e.jsonl", '{"user_id":1,"item_id":1}\n{"user_id":1,\n', "line 2: cannot be read as JSON"),
        ("e.csv", "user_id,item_id,rating\n1,2,good\n", RATING_REFUSAL),
        ("e.csv", "user_id,item_id,rating\n1,2,4\n1,3,-inf\n", "line 3, column rating: '-inf'"),
        ("e.csv", "user_id,item_id,rating\n1,2,1e999\n", "line 2, column rating: '1e999'"),
        ("e.jsonl", event_json("Infinity"), "line 1, column rating: inf"),
        ("e.jsonl", event_json("true"), "line 1, column rating: True"),
        ("e.jsonl", event_json("[4]"), "line 1, column rating: [4]"),
        ("e.jsonl", event_json("1" + "0" * 400), "line 1, column rating"),
        ("e.jsonl", event_json("1" + "0" * 5000), "line 1: cannot be read as JSON"),
        ("e.csv", "", "the file is empty"),
        ("e.csv", " \n\n", "the file is empty"),
        ("e.csv", b"\xef\xbb\xbf", "the file is empty"),
        ("e.jsonl", "\n\n", "the file is empty"),
        ("e.json", "[]", "no column for user_id"),
        ("e.tsv.gz", "", "the file is empty"),
        ("e.csv", "user_id,item_id\n", "a header and no rows"),
        ("e.csv", bytes(range(256)) * 40, "e.csv"),
        ("e.tsv", b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "e.tsv"),
        ("e.csv", gzip.compress(EVENTS_CSV.encode(), mtime=0), GZIP_REFUSAL),
        ("e.csv", EVENTS_CSV.encode("utf-16-le"), UTF_16_REFUSAL),
        ("e.csv.gz", None, "cannot be read as csv: Not a gzipped file"),
        ("e.jsonl.gz", None, "cannot be read as jsonl: Not a gzipped file"),
        ("e.parquet", "PAR1 and then nothing", "cannot be read as parquet"),
        ("e.csv", EVENTS_CSV.replace(",", ";"), "give --separator ';'"),
        ("e.tsv", EVENTS_CSV, "give --separator ','"),
        ("e.xlsx", "PK", "unknown file format"),
        ("e.csv", "user_id,item_id\n1,\n", "line 2, column item_id: an empty cell: expected an id"),
        ("e.csv", "user_id,item_id\n1,  \n", "line 2, column item_id: '  ': expected an id"),
        ("e.csv", "user_id,item_id,timestamp\n1,2,1e300\n", "line 2, column timestamp: '1e300'"),
        ("e.csv", "user_id,item_id,timestamp\n1,2,01.02.2024\n", DATE_REFUSAL),
        ("e.csv", "user_id,item_id,timestamp\n1,2,31.12.24\n", "line 2, column timestamp: '31.12.24'"),
        ("e.csv", "user_id,item_id,position\n1,2,0.5\n", WHOLE_REFUSAL),
    ],
)  # fmt: skip
def test_an_unreadable_table_ends_in_one_line_and_leaves_no_output(
    tmp_path: Path, name: str, content: str | bytes | None, words: str
) -> None:
    path = tmp_path / name
    path.write_bytes(EVENTS_CSV.encode()) if content is None else written(path, content)
    message = refused_by_prepare(path)
    assert words in message
    assert name in message
    assert len(message) < 1000


def test_folders_missing_files_and_files_without_permission_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "e.csv").mkdir()
    assert "the folder holds no table" in refused_by_prepare(tmp_path / "e.csv")
    assert "there is no such file" in refused_by_prepare(tmp_path / "none.csv")
    good = written(tmp_path / "good.csv", EVENTS_CSV)
    assert "there is no such file" in refused_by_prepare(good, "--items", tmp_path / "none.csv")
    message = refused_by_prepare(good, "--split", "last")
    assert "there is no such file, and no rule of that name: take one of random" in message

    opened = Path.open

    def forbidden(self: Path, *arguments: Any, **named: Any) -> Any:
        if self == good:
            raise PermissionError(13, "Permission denied")
        return opened(self, *arguments, **named)

    monkeypatch.setattr(Path, "open", forbidden)
    assert f"{good}: cannot be read as csv: Permission denied" in refused_by_prepare(good)


@pytest.mark.parametrize("name", ["e.csv.gz", "e.tsv.gz", "e.jsonl.gz"])
def test_a_gzip_file_cut_anywhere_is_refused(tmp_path: Path, name: str) -> None:
    header, *rows = [line.split(",") for line in EVENTS_CSV.splitlines()]
    if "jsonl" in name:
        content = json_lines(*(dict(zip(header, row, strict=True)) for row in rows))
    else:
        content = EVENTS_CSV.replace(",", "\t" if "tsv" in name else ",")
    path = written(tmp_path / name, content)
    assert len(prepared(path, tmp_path / "data").interactions) == 20
    whole = path.read_bytes()
    for cut in (*range(1, 12), *range(12, len(whole), 9)):
        path.write_bytes(whole[:-cut])
        assert "cannot be read as" in refused_by_prepare(path) or len(whole) == cut
    path.write_bytes(whole[:-8] + bytes(8))  # another check sum
    assert "cannot be read as" in refused_by_prepare(path)


def test_a_parquet_file_on_which_polars_panics_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def panic(*_: object, **__: object) -> None:
        raise pl.exceptions.PanicException("called `Result::unwrap()`\non an `Err` value")

    monkeypatch.setattr(pl, "read_parquet", panic)
    pl.DataFrame({"user_id": [1], "item_id": [1]}).write_parquet(tmp_path / "e.parquet")
    assert "cannot be read as parquet: called `Result::unwrap()`" in refused_by_prepare(
        tmp_path / "e.parquet"
    )


def mutated(generator: random.Random, data: bytes) -> bytes:
    """Bytes with random pieces replaced, inserted, repeated or deleted."""
    changed = bytearray(data)
    for _ in range(generator.choice([1, 1, 1, 4])):
        start = generator.randrange(len(changed) + 1) if changed else 0
        piece = generator.choice(
            [bytes([generator.randrange(256)]), *b'"|\n|\r|,|\t||\x00|{|[|nan|1e999'.split(b"|")]
        )
        changed[start : start + generator.choice([0, 1, 1, 5])] = piece * generator.choice([1, 1, 1, 30])
    return bytes(changed[: generator.choice([len(changed)] * 9 + [generator.randrange(len(changed) + 1)])])


def good_files(folder: Path) -> dict[str, bytes]:
    """A good table of each kind, as bytes."""
    written(folder / "g.csv", EVENTS_CSV)
    table = pl.read_csv(folder / "g.csv")
    table.write_parquet(folder / "g.parquet")
    table.write_ndjson(folder / "g.jsonl")
    lines = [line.split(",") for line in EVENTS_CSV.splitlines()]
    recbole = ["user_id:token\titem_id:token", *("\t".join(line[:2]) for line in lines[1:])]
    files = {
        "e.csv": EVENTS_CSV.encode(),
        "e.tsv": EVENTS_CSV.replace(",", "\t").encode(),
        "e.parquet": (folder / "g.parquet").read_bytes(),
        "e.jsonl": (folder / "g.jsonl").read_bytes(),
        "e.json": json.dumps(table.to_dicts()).encode(),
        "ratings.dat": "\n".join("::".join(line) for line in lines[1:]).encode(),
        "e.inter": "\n".join(recbole).encode(),
        "quoted.csv": "\n".join(",".join(f'"{cell}"' for cell in line) for line in lines).encode(),
    }
    return files | {
        "e.csv.gz": gzip.compress(files["e.csv"], mtime=0),
        "e.jsonl.gz": gzip.compress(files["e.jsonl"], mtime=0),
    }


def test_any_bytes_are_prepared_or_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "good").mkdir()
    files = good_files(tmp_path / "good")
    outcomes = {"prepared": 0, "refused": 0}
    for seed in range(60):
        generator = random.Random(seed)
        for name, good in files.items():
            random_bytes = seed % 10 == 0
            data = generator.randbytes(generator.randrange(200)) if random_bytes else mutated(generator, good)
            path = tmp_path / name
            path.write_bytes(data)
            split = generator.choice(["random", "none", "leave-last-out"])
            try:
                prepared(path, tmp_path / "data", "--split", split)
            except ValueError as error:
                assert str(error)
                assert len(str(error).splitlines()) == 1, (name, data)
                outcomes["refused"] += 1
            else:
                outcomes["prepared"] += 1
    assert min(outcomes.values()) > 60, outcomes
    assert {path.name for path in tmp_path.iterdir()} == {"good", "data", *files}
