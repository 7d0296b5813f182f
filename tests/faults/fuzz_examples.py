"""Strategies of Hypothesis for the examples of the fuzzing: JSON objects for `fuzz_executor.py`."""

import base64
import gzip
import io
import json
from dataclasses import fields
from typing import Any

import polars as pl
from hypothesis import strategies as st

from cllm4rec.commands.evaluate_options import EvaluateOptions
from cllm4rec.commands.tables import EventTableOptions, TableOptions
from cllm4rec.extend import ExtendOptions
from cllm4rec.prepare import PrepareOptions
from cllm4rec.recommend import RecommendOptions
from tests.faults.mutations import of_bytes, of_file

Example = dict[str, Any]
Examples = st.SearchStrategy[Example]


def folders(files: dict[str, list[str]], target: str, commands: tuple[str, ...]) -> Examples:
    """Mutations of a dataset or run folder. Most change one file once."""

    def of(name: str) -> Examples:
        return st.fixed_dictionaries({
            "kind": st.just("folder"), "target": st.just(target),
            "command": st.sampled_from(commands), "file": st.just(name),
            "mutations": st.lists(of_file(name), min_size=1, max_size=2), "resign": st.booleans(),
        })  # fmt: skip

    return st.sampled_from(files[target]).flatmap(of)


def _names(*options: type) -> list[str]:
    return [field.name for each in options for field in fields(each)]


COMMANDS = [  # commands that are quick whatever their flags say
    ["prepare", "--interactions", "WORLD/events.csv", "--output", "out"],
    ["pretrain", "--system", "ease", "--dataset", "data", "--output", "out"],
    ["pretrain", "--system", "sasrec", "--dataset", "data", "--output", "out", "--dry-run"],
    ["evaluate", "--run", "ease"],
    ["recommend", "--run", "ease"],
    ["extend", "--run", "ease", "--items", "WORLD/items.csv", "--output", "out"],
    ["extend", "--run", "ease", "--interactions", "WORLD/events.csv", "--output", "out"],
    ["extend", "--run", "ease", "--forget", "reader-0000", "--output", "out"],
]
FLAGS = {
    "prepare": _names(PrepareOptions, TableOptions),
    "pretrain": [
        "regularization", "decay", "seed", "width", "length", "heads", "batch_size", "epochs", "system",
        "preset", "resume",
    ],
    "evaluate": _names(EvaluateOptions),
    "recommend": _names(RecommendOptions, EventTableOptions),
    "extend": _names(ExtendOptions, TableOptions),
}  # fmt: skip
CELLS = [
    "0", "1", "-1", "2", "0.5", "1e308", "nan", "inf", "-inf", "99999999999999999999", "10000000", "abc",
    "", " ", "1_000", "٣", "0x10", "true", "false", "null", "~", "[1]", "[[1]]", "{a: 1}", "auto",
    "random", "time", "none", "test", "scores", "paper", "out", "data", "nothing/here", ".", "x.csv",
    "x.parquet", "a,b", "user_id=user_id", "item_id=", "=", "\0", "\\t", "\t", "x" * 5000, "2024-01-01",
    "é", "\ud83d\ude00", "'", '"', "%s", "reader-0000", "!!python/object/apply:os.system [ls]", "&a [*a]",
    "007",
]  # fmt: skip


def configurations() -> Examples:
    """YAML texts and flags."""

    def of(command: list[str]) -> Examples:
        name = st.sampled_from([*FLAGS[command[0]], "unknown", "config", "help"])
        cell = st.sampled_from(CELLS)
        # cells that argv cannot hold occur in the file only
        typed = st.tuples(name, cell.filter(lambda text: "\0" not in text and not text.startswith("\ud83d")))
        flags = st.lists(typed, max_size=2).map(
            lambda pairs: [f"--{a.replace('_', '-')}={b}" for a, b in pairs]
        )
        line = st.tuples(name, st.sampled_from([": ", ":", ": |\n  ", ": - "]), cell).map("".join)
        text = (
            st.lists(line | st.text(max_size=20), max_size=4)
            .map("\n".join)
            .map(lambda text: text.encode(errors="replace"))
        )
        deep = st.sampled_from(
            [
                b"seed: " + b"[" * 2000,
                b"a: &a [*a]",
                b"\xff\xfe",
                b"- 1",
                b"seed: {a: {b: 1}}",
                b"? [a]\n: 1",
                b"1: 2",
            ]
        )
        yaml = st.none() | (text | deep | st.binary(max_size=30)).map(
            lambda data: base64.b64encode(data).decode()
        )
        return st.fixed_dictionaries(
            {
                "kind": st.just("config"),
                "arguments": flags.map(lambda further: [*command, *further]),
                "yaml": yaml,
            }
        )

    return st.sampled_from(COMMANDS).flatmap(of)


IDS = [
    "u1", "u2", "7", "007", "1.0", "", " ", "NULL", "nan", "a b", "a,b", 'a"b', "'x'", "é", "x" * 2000,
    "-1", "1e5", "\u2028",
]  # fmt: skip
NUMBERS = ["1", "5", "3.5", "-1", "", "nan", "NaN", "inf", "1e999", "9" * 30, "x", "1,5", "true", "0.1e-400"]
TIMES = [
    "0", "1", "-5", "1600000000", "1600000000123", "1e18", "1e300", "", "nan", "2024-01-31",
    "2024-01-31 10:00:01", "10:00:01", "24:00", "2024-01-31T10:00:01+02:00", "2024-01-31 10:00:01 UTC",
    "31.12.2024", "2024-02-30", "20240131", "0000-00-00", "+99999-01-01", "now",
    "2024-01-31T10:00:01.123456789Z", "Jan 31 2024", "1600000000.5",
]  # fmt: skip
JSON_CELLS = [
    "null", "1", "1.5", "-0", "true", '"x"', '""', '"u1"', "[]", "[1,2]", '["a",null]', '{"a":1}', "NaN",
    "1e999", "9" * 40, "[[1]]",
]  # fmt: skip
COLUMNS = {
    "user_id": IDS, "user": IDS, "item_id": IDS, "asin": IDS, "item_ids": ["a b", "a a", "", " ", "1"],
    "rating": NUMBERS, "timestamp": TIMES, "date": TIMES, "time": TIMES, "position": NUMBERS,
    "review_text": IDS, "title": IDS, "categories": IDS, "year": NUMBERS, "history_items": ["a b", ""],
    "target_item": IDS, "split": ["val", "test", "x"], "seed_0": ["t", "v", "e", "x"], "": IDS,
    "x": NUMBERS,
}  # fmt: skip
NAMES = [
    "e.csv", "e.csv", "e.tsv", "e.tsv", "e.jsonl", "e.jsonl", "e.json", "e.parquet", "e.inter", "e.csv.gz",
    "e.jsonl.gz",
]  # fmt: skip
FITTING = {
    "interactions": ("ratings.dat", "u.data"),
    "items": ("movies.dat",),
    "users": ("ratings.dat",),
}  # without a header


NEEDED = {
    "interactions": [["user_id", "item_id"]] * 4 + [["user_id", "item_ids"], ["user", "asin"], []],
    "items": [["item_id", "title"], ["item_id"], []],
    "users": [["user_id", "biography"], []],
    "split": [["user_id", "item_id", "seed_0"], ["user_id", "history_items", "target_item", "split"], []],
}  # fmt: skip
FLAGS_OF_TABLES = {
    "interactions": [
        "--split=none", "--split=time", "--split=leave-last-out", "--min-rating=3", "--k-core=2",
        "--columns=user_id=x", "--columns=user_id=1,item_id=2", "--shuffle-ties=1", "--separator=;",
        "--drop-incomplete", "--no-header", "--escape=\\", "--sequences",
    ],
    "items": ["--item-columns=title=x", "--separator=,"],
    "users": ["--user-columns=biography=x"],
    "split": ["--split-column=x", "--separator=,"],
}  # fmt: skip
NO_HEADER = {
    "ratings.dat": ("user_id", "item_id", "rating", "timestamp"),
    "u.data": ("user_id", "item_id", "rating", "timestamp"),
    "movies.dat": ("item_id", "title", "categories"),
}  # fmt: skip


@st.composite
def cells(draw: st.DrawFn, needed: list[str]) -> tuple[list[str], list[list[str]]]:
    """A header and rows of cells, all but a few of which are good."""
    further = draw(st.lists(st.sampled_from(sorted(COLUMNS)), max_size=3))
    names = list(draw(st.permutations(list(dict.fromkeys([*needed, *further])))))
    n = draw(st.sampled_from([12, 9, 6, 6, 3, 1, 0]))
    rows = [[good_cell(name, row) for name in names] for row in range(n)]
    for _ in range(draw(st.sampled_from([0, 0, 1, 1, 2])) if names and n else 0):
        row, column = draw(st.integers(0, n - 1)), draw(st.integers(0, len(names) - 1))
        rows[row][column] = draw(st.sampled_from(COLUMNS.get(names[column], IDS)))
    return names, rows


def good_cell(name: str, row: int) -> str:
    good = {
        "user_id": f"u{row % 3}",
        "user": f"u{row % 3}",
        "item_id": f"i{row}",
        "asin": f"i{row}",
        "item_ids": f"i{row} i{row + 1}",
    }
    good |= {
        "timestamp": str(1_600_000_000 + row),
        "date": f"2024-01-{row + 1:02}",
        "time": f"10:00:{row:02}",
        "split": "val",
    }
    good |= {
        "history_items": f"i{row}",
        "target_item": f"i{row + 1}",
        "seed_0": "tve"[row % 3],
        "title": f"A title, number {row}",
    }
    return good.get(name, str(row % 5 + 1))


@st.composite
def tables(draw: st.DrawFn) -> Example:
    """Tables as files: by a grammar, then perhaps with some bytes changed."""
    role = draw(st.sampled_from(["interactions", "interactions", *NEEDED]))
    name = draw(st.sampled_from([*NAMES, *FITTING.get(role, ())]))
    names, rows = draw(cells(draw(st.sampled_from(NEEDED[role]))))
    if name in NO_HEADER and draw(st.integers(0, 9)):
        names = list(NO_HEADER[name])
        rows = [[good_cell(name, row) for name in names] for row in range(len(rows))]
    kind = name.removesuffix(".gz").rsplit(".")[-1]
    if kind in ("jsonl", "json"):
        data = draw(as_json(names, rows, lines=kind == "jsonl")).encode()
    elif kind == "parquet":
        data = as_parquet(names, rows, draw(st.booleans()))
    else:
        data = draw(
            as_text({"csv": ",", "dat": "::"}.get(kind, "\t"), rows if name in NO_HEADER else [names, *rows])
        )
    if name.endswith(".gz"):
        data = gzip.compress(data, mtime=0)
    for mutation in draw(st.lists(of_bytes(), max_size=1)) if draw(st.integers(0, 3)) == 0 else []:
        data = changed(data, mutation)
    flags: list[str] = []
    if draw(st.booleans()):
        flags = draw(st.lists(st.sampled_from(FLAGS_OF_TABLES[role]), max_size=2, unique=True))
    return {
        "kind": "table",
        "name": name,
        "role": role,
        "flags": flags,
        "data": base64.b64encode(data).decode(),
    }


@st.composite
def as_json(draw: st.DrawFn, names: list[str], rows: list[list[str]], lines: bool) -> str:
    """Records, a line each or in an array; some values are not texts."""
    odd = [
        (draw(st.integers(0, len(rows))), draw(st.sampled_from(names or ["x"])))
        for _ in range(draw(st.sampled_from([0, 0, 1, 2])))
    ]
    records = []
    for number, row in enumerate(rows):
        values = {key: json.dumps(cell) for key, cell in zip(names, row, strict=True)}
        values |= {key: draw(st.sampled_from(JSON_CELLS)) for at, key in odd if at == number}
        records.append("{" + ", ".join(f"{json.dumps(key)}: {value}" for key, value in values.items()) + "}")
    return "\n".join(records) if lines else "[" + ", ".join(records) + "]"


@st.composite
def as_text(draw: st.DrawFn, usual: str, rows: list[list[str]]) -> bytes:
    """A text table: separator, quotes, line ends, encoding."""
    separator = draw(st.sampled_from([usual] * 12 + [";", "|", ",", "\t"]))
    quote, end = (
        draw(st.sampled_from(["none", "some", "some", "all"])),
        draw(st.sampled_from(["\n", "\n", "\r\n", "\r"])),
    )

    def cell(text: str) -> str:
        needed = quote == "all" or (
            quote == "some" and any(special in text for special in (separator, '"', "\n"))
        )
        return '"' + text.replace('"', '""') + '"' if needed else text

    text = end.join(separator.join(map(cell, line)) for line in rows) + end
    text = draw(st.sampled_from(["", "", "", "", "", "\ufeff", "sep=;\n", "\n\n", "# c\n"])) + text
    return text.encode(draw(st.sampled_from(["utf-8"] * 9 + ["utf-16", "latin-1", "cp1252"])), "replace")


def changed(data: bytes, mutation: Example) -> bytes:
    """Some mutations of bytes, without a file."""
    at = int(mutation.get("at", 0) * len(data))
    if mutation["op"] == "truncate":
        return data[:at]
    if mutation["op"] == "insert":
        return data[:at] + mutation["text"].encode() + data[at:]
    if mutation["op"] == "flip" and data:
        return data[:at] + bytes([data[at] ^ 1 << mutation["bit"]]) + data[at + 1 :]
    if mutation["op"] == "zeros":
        return data[:at] + bytes(len(data[at : at + mutation["n"]])) + data[at + mutation["n"] :]
    return data * 2 if mutation["op"] == "double" else data


def as_parquet(names: list[str], rows: list[list[str]], typed: bool) -> bytes:
    columns: dict[str, Any] = {name: [row[at] for row in rows] for at, name in enumerate(names)}
    frame = pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String))
    if typed and frame.width:
        name = frame.columns[len(rows) % frame.width]
        kind = [pl.Int64, pl.Float32, pl.Categorical, pl.Date, pl.Boolean, pl.Binary, pl.UInt8][len(rows) % 7]
        try:
            frame = frame.with_columns(pl.col(name).cast(kind, strict=False))
        except pl.exceptions.PolarsError:
            pass
    written = io.BytesIO()
    frame.write_parquet(written)
    return written.getvalue()


def frames() -> Examples:
    """Columns of Python values, for Dataset.from_frame."""
    values = [
        "null", "1", "2", "2.0", "1.5", "true", '"a"', '"b"', '""', '" "', "NaN", "[1]", '["a"]', '{"a": 1}',
        "1e30", str(2**63), '"2024-01-01"',
    ]  # fmt: skip
    cell = st.sampled_from(values)
    good = st.sampled_from(['"a"', '"b"', '"c"', "1"])
    column = st.lists(good, min_size=4, max_size=4)
    odd = st.lists(cell, min_size=4, max_size=4)
    further = st.dictionaries(
        st.sampled_from(["rating", "timestamp", "position", "review_text", "part", "title"]), odd, max_size=2
    )
    columns = st.tuples(st.fixed_dictionaries({"user_id": column, "item_id": column}), further).map(
        lambda pair: pair[0] | pair[1]
    )
    return st.fixed_dictionaries({
        "kind": st.just("frame"), "columns": columns, "pandas": st.booleans(),
        "split": st.sampled_from([None, "none", "random", "time"]),
    })  # fmt: skip


def groups(files: dict[str, list[str]]) -> dict[str, tuple[Examples, int]]:
    """Name -> examples of a group, and how many of them CI runs."""
    ranks = ("evaluate", "recommend", "verify")
    return {
        "datasets": (folders(files, "data", ("recommend", "evaluate", "pretrain")), 450),
        "runs of ease": (folders(files, "ease", ranks), 200),
        "runs of sasrec": (folders(files, "sasrec", ranks), 150),
        "runs of cllm4rec": (folders(files, "cllm4rec", (*ranks, "dry-run")), 200),
        "runs of rsllm": (folders(files, "rsllm", (*ranks, "dry-run")), 200),
        "interrupted runs": (
            folders(files, "stopped", ("resume",)) | folders(files, "stopped-sasrec", ("resume",)),
            100,
        ),
        "configurations": (configurations(), 200),
        "tables": (tables(), 400),
        "frames": (frames(), 100),
    }
