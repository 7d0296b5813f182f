"""Changes of files, as damage and hostile authors make them: of bytes, of JSON, of Parquet, of safetensors.

A mutation is a JSON object, so that an example can be printed and tried again.
"""

import io
import json
import shutil
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

from cllm4rec.files.manifest import file_record, write_manifest
from cllm4rec.training.resume import _sha256 as state_sha256
from cllm4rec.training.run_description import _sha256 as run_sha256

Mutation = dict[str, Any]
DEEP = "@deep@"  # replaced by 100,000 nested lists
DIGITS = "@digits@"  # replaced by a number of 5,000 digits
VALUES: list[Any] = [
    None, True, False, -1, 0, 1, 3, 0.5, -0.5, 1e308, 10**6, 2**31, 2**63, 10**30, float("nan"), float("inf"),
    "", "x", "ease", "sasrec", "user_id", "../..", "a\nb", "x" * 100_000,
    [], [None], [[]], {}, {"x": 1}, DEEP, DIGITS,
]  # fmt: skip
KEYS = [
    "unknown", "auto_map", "trust_remote_code", "quantization_config", "tokenizer_class", "model_type",
    "architectures", "format_version", "system", "config", "", "\ud83d", "_attn_implementation",
    "name_or_path", "__proto__",
]  # fmt: skip
HOSTILE = {  # makes transformers ask whether to run a file of the folder
    "AutoConfig": "hostile.Hostile",
    "AutoModelForCausalLM": "hostile.Hostile",
    "AutoTokenizer": ["hostile.Hostile", "hostile.Hostile"],
}
TYPES = {
    "text": pl.String,
    "int8": pl.Int8,
    "uint64": pl.UInt64,
    "float": pl.Float64,
    "bool": pl.Boolean,
    "list": pl.List(pl.Int64),
}
numbers = st.integers(0, 2**31)
shares = st.floats(0, 1, exclude_max=True, width=32)


def of_bytes() -> st.SearchStrategy[Mutation]:
    """Damage of any file."""
    return st.one_of(
        st.fixed_dictionaries({"op": st.just("flip"), "at": shares, "bit": st.integers(0, 7)}),
        st.fixed_dictionaries({"op": st.just("truncate"), "at": shares}),
        st.fixed_dictionaries({"op": st.sampled_from(["delete", "empty", "folder", "double"])}),
        st.fixed_dictionaries({"op": st.just("swap"), "with": numbers}),
        st.fixed_dictionaries({"op": st.just("zeros"), "at": shares, "n": st.integers(1, 5000)}),
        st.fixed_dictionaries(
            {"op": st.just("insert"), "at": shares, "text": st.sampled_from(['"', "\n", "{", "[", "\0", "é"])}
        ),
    )


def of_json(op: str = "json") -> st.SearchStrategy[Mutation]:
    """Edits of a value of JSON: of a file ("json"), or of a safetensors file's header or state."""
    edits = ["set", "set", "drop", "add", "rename", "wrap", "copy"]
    return st.fixed_dictionaries({
        "op": st.just(op), "node": numbers, "edit": st.sampled_from(edits),
        "value": st.integers(0, len(VALUES) - 1), "key": st.integers(0, len(KEYS) - 1),
    })  # fmt: skip


def of_parquet() -> st.SearchStrategy[Mutation]:
    edits = [
        "drop",
        "rename",
        "null",
        "some nulls",
        "lengthen",
        "shorten",
        "shuffle",
        "cast",
        "far",
        "negative",
        "empty",
        "add",
    ]
    return st.fixed_dictionaries({
        "op": st.just("parquet"), "column": numbers, "edit": st.sampled_from(edits),
        "type": st.sampled_from(sorted(TYPES)),
    })  # fmt: skip


def of_tensors() -> st.SearchStrategy[Mutation]:
    edits = [
        "nan",
        "infinite",
        "zero",
        "drop",
        "rename",
        "shorten",
        "flatten",
        "half",
        "integers",
        "add",
        "widen",
    ]
    return st.fixed_dictionaries({"op": st.just("tensor"), "which": numbers, "edit": st.sampled_from(edits)})


def of_file(name: str) -> st.SearchStrategy[Mutation]:
    """Mutations that fit a file of this name."""
    if name.endswith(("config.json", "model.json")):
        return of_bytes() | of_json() | of_json() | of_json() | st.just({"op": "auto_map"})
    if name.endswith((".json", ".jsonl")):
        return of_bytes() | of_json() | of_json() | of_json()
    if name.endswith(".parquet"):
        return of_bytes() | of_parquet() | of_parquet()
    if name.endswith("-state.safetensors"):
        return of_bytes() | of_json("header") | of_json("state") | of_json("state") | of_tensors()
    if name.endswith(".safetensors"):
        return of_bytes() | of_json("header") | of_tensors()
    return of_bytes()


def mutate(folder: Path, name: str, mutation: Mutation) -> bool:
    """Change a file of a folder. Whether anything changed."""
    path = folder / name
    before = path.read_bytes() if path.is_file() else b""
    op = mutation["op"]
    if op in ("json", "header", "state"):
        after = (
            _json(before, mutation, name.endswith(".jsonl")) if op == "json" else _header(before, mutation)
        )
    elif op == "auto_map":
        after = _with_code(path, before, folder)
    elif op == "parquet":
        after = _parquet(before, mutation)
    elif op == "tensor":
        after = _tensors(path, mutation)
    else:
        after = _bytes(path, before, folder, mutation)
    if path.is_file():
        path.write_bytes(after)
        return after != before
    return not path.exists() or path.is_dir()


def _bytes(path: Path, before: bytes, folder: Path, mutation: Mutation) -> bytes:
    op, data = mutation["op"], bytearray(before)
    at = int(mutation.get("at", 0) * len(data))
    if op == "flip" and data:
        data[at] ^= 1 << mutation["bit"]
    elif op == "truncate":
        del data[at:]
    elif op == "empty":
        data.clear()
    elif op == "double":
        data = data * 2
    elif op == "zeros":
        data[at : at + mutation["n"]] = bytes(len(data[at : at + mutation["n"]]))
    elif op == "insert":
        data[at:at] = mutation["text"].encode()
    elif op == "swap":
        others = sorted(file for file in folder.rglob("*") if file.is_file())
        other = others[mutation["with"] % len(others)]
        data = bytearray(other.read_bytes())
        other.write_bytes(before)
    elif op in ("delete", "folder") and not path.is_dir():
        path.unlink(missing_ok=True)
        if op == "folder":
            path.mkdir()
    return bytes(data)


def _nodes(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value within a value, few of long lists and of large objects such as vocabularies."""
    found = [path]
    pairs = list(
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, item in pairs if len(pairs) < 100 else pairs[:: len(pairs) // 5]:
        found += _nodes(item, (*path, key))
    return found


def _edited(value: Any, mutation: Mutation) -> Any:
    nodes = _nodes(value)
    path = nodes[mutation["node"] % len(nodes)]
    key, new = KEYS[mutation["key"]], VALUES[mutation["value"]]
    above, here = None, value
    for step in path:
        above, here = here, here[step]
    if mutation["edit"] == "add" and isinstance(here, dict):
        here[key] = new
    elif mutation["edit"] == "copy" and isinstance(here, list):
        here.extend(here * 3)
    elif above is None:
        return [value] if mutation["edit"] == "wrap" else new if mutation["edit"] == "set" else value
    elif mutation["edit"] == "drop":
        del above[path[-1]]
    elif mutation["edit"] == "rename" and isinstance(above, dict):
        above[key] = above.pop(path[-1])
    elif mutation["edit"] == "wrap":
        above[path[-1]] = [here]
    else:
        above[path[-1]] = new
    return value


def _dumped(value: Any) -> str:
    text = json.dumps(value)
    return text.replace(f'"{DEEP}"', "[" * 100_000 + "]" * 100_000).replace(f'"{DIGITS}"', "9" * 5000)


def _json(before: bytes, mutation: Mutation, lines: bool) -> bytes:
    try:
        if lines:
            rows = before.decode().splitlines()
            at = mutation["key"] % max(1, len(rows))
            rows[at] = _dumped(_edited(json.loads(rows[at]), mutation))
            return ("\n".join(rows) + "\n").encode()
        return _dumped(_edited(json.loads(before), mutation)).encode()
    except (ValueError, RecursionError, IndexError):  # damaged by a mutation before
        return before


def _with_code(path: Path, before: bytes, folder: Path) -> bytes:
    """A configuration that names code in its folder. That of model.json names such a backbone."""
    try:
        described = json.loads(before)
        if path.name == "model.json":
            backbone = path.parent / "backbone"
            described["config"] |= {"backbone": str(backbone), "tune": "frozen"}
            for name in ("config.json", "tokenizer_config.json"):
                (backbone / name).write_bytes(
                    _with_code(backbone / name, (backbone / name).read_bytes(), folder)
                )
        else:
            (path.parent / "hostile.py").write_text(
                f"open({str(folder.parent / 'code-ran')!r}, 'w')\nclass Hostile: pass\n"
            )
            kind = {"model_type": "hostile"} if path.name == "config.json" else {"tokenizer_class": "Hostile"}
            described |= {"auto_map": HOSTILE, **kind}
        return json.dumps(described).encode()
    except (
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        OSError,
    ):  # damaged before, or without a backbone
        return before


def _header(before: bytes, mutation: Mutation) -> bytes:
    """An edit of the header of a safetensors file, or of the state that it holds."""
    try:
        (size,) = struct.unpack("<Q", before[:8])
        header = json.loads(before[8 : 8 + size])
        if mutation["op"] == "state":
            header["__metadata__"]["state"] = _dumped(
                _edited(json.loads(header["__metadata__"]["state"]), mutation)
            )
        else:
            header = _edited(header, mutation)
        text = _dumped(header).encode()
        text += b" " * (-len(text) % 8)
        return struct.pack("<Q", len(text)) + text + before[8 + size :]
    except (ValueError, KeyError, TypeError, RecursionError, struct.error):
        return before


def _parquet(before: bytes, mutation: Mutation) -> bytes:
    try:
        frame = pl.read_parquet(io.BytesIO(before))
        written = io.BytesIO()
        _edited_frame(frame, mutation).write_parquet(written)
        return written.getvalue()
    except (
        pl.exceptions.PolarsError,
        pl.exceptions.PanicException,
        OSError,
    ):  # damaged before, or no such cast
        return before


def _edited_frame(frame: pl.DataFrame, mutation: Mutation) -> pl.DataFrame:
    if not frame.width:
        return frame
    name = frame.columns[mutation["column"] % frame.width]
    column, edit = frame[name], mutation["edit"]
    number = column.dtype.is_numeric()
    if edit == "drop":
        return frame.drop(name)
    if edit == "rename":
        return frame.rename({name: "renamed"})
    if edit in ("lengthen", "shorten", "empty"):
        return (
            pl.concat([frame, frame.head(3)])
            if edit == "lengthen"
            else frame.head(len(frame) - 1 if edit == "shorten" else 0)
        )
    if edit == "shuffle":
        return frame.with_columns(column.reverse())
    if edit == "add":
        return frame.with_columns(pl.lit(1).alias("added"))
    rows = pl.Series(range(len(frame)))
    new: Any = {
        "null": pl.lit(None, dtype=column.dtype),
        "some nulls": pl.when(rows % 3 == 0).then(None).otherwise(column),
        "cast": column.cast(TYPES[mutation["type"]], strict=False)
        if mutation["type"] != "list"
        else pl.concat_list(column),
        "far": pl.when(rows % 3 == 0).then(pl.lit(120)).otherwise(column).cast(column.dtype)
        if number
        else column,
        "negative": pl.when(rows % 3 == 0).then(pl.lit(-1)).otherwise(column.cast(pl.Int64))
        if number
        else column,
    }[edit]
    return frame.with_columns(new.alias(name) if isinstance(new, pl.Expr) else pl.Series(name, new))


def _tensors(path: Path, mutation: Mutation) -> bytes:
    try:
        with safe_open(path, framework="numpy") as file:
            metadata, arrays = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}
    except Exception:  # damaged by a mutation before
        return path.read_bytes() if path.is_file() else b""
    if not arrays:
        return path.read_bytes()
    name, edit = sorted(arrays)[mutation["which"] % len(arrays)], mutation["edit"]
    save_file(_edited_arrays(arrays, name, edit), path, metadata)
    return path.read_bytes()


def _edited_arrays(arrays: dict[str, np.ndarray], name: str, edit: str) -> dict[str, np.ndarray]:
    array = arrays[name]
    if edit == "drop":
        return {other: values for other, values in arrays.items() if other != name}
    if edit == "rename":
        return {"renamed" if other == name else other: values for other, values in arrays.items()}
    if edit == "add":
        return arrays | {"added": np.zeros(3, np.float32)}
    with np.errstate(all="ignore"):
        types = {"half": np.float16, "integers": np.int64, "widen": np.float64}
        values = {"nan": np.nan, "infinite": np.inf, "zero": 0.0}
        if edit in types:
            array = array.astype(types[edit])
        elif edit in values:
            array = np.full_like(array, values[edit] if array.dtype.kind == "f" else 0)
        elif edit == "shorten" and array.ndim:
            array = array[:-1].copy()
        elif edit == "flatten":
            array = array.reshape(-1)
    return arrays | {name: array}


def resign(folder: Path) -> None:
    """Bring every hash below a folder in line with the files, as a hostile author would."""
    for manifest in sorted(folder.rglob("manifest.json"), key=lambda path: -len(path.parts)):
        with suppress(ValueError, OSError):  # what cannot be hashed stays as it is
            write_manifest(manifest.parent)
    for state in folder.rglob("*-state.safetensors"):
        with suppress(Exception), safe_open(state, framework="pt") as file:
            tensors, text = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()["state"]
            save_torch(tensors, state, {"state": text, "sha256": state_sha256(tensors, text)})
    for run in folder.rglob("run.json"):
        with suppress(ValueError, RecursionError, OSError, AttributeError, TypeError):
            described = json.loads(run.read_text())
            described.pop("sha256", None)
            with suppress(OSError, AttributeError, TypeError, KeyError):  # whatever was mutated
                for stage, settings in described["stages"].items():
                    settings["manifest_sha256"] = file_record(run.parent / stage / "manifest.json").sha256
            text = json.dumps(described | {"sha256": run_sha256(described)})
            run.write_text(text.replace(f'"{DEEP}"', "[" * 100_000 + "]" * 100_000))


def restore(world: Path, target: Path) -> None:
    """A fresh copy of a folder."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(world, target)
