"""Dataset folders of the experiments, made once from tables."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from cllm4rec.files.locks import locked
from cllm4rec.files.writing import write_text
from experiments.commands import run_command
from experiments.json_files import read_object

PREPARE_SECONDS = 3600.0  # in which another call prepares the same dataset


def prepare_once(dataset: Path, tables: Mapping[str, Path], flags: Mapping[str, object]) -> None:
    """Prepare a dataset folder unless it exists. A file next to it records its tables and flags.

    Args:
        dataset: the folder.
        tables: flag of prepare -> file.
        flags: other flags of prepare, with their values.

    Raises:
        ValueError: another process has been making it for an hour.
        SystemExit: the folder was made from other tables or with other flags, or a table is missing.
    """
    for flag, file in tables.items():
        if not file.is_file():
            raise SystemExit(f"error: {flag} {file}: there is no such file")
    record = dataset.with_name(f"{dataset.name}-inputs.json")
    made_from = {flag: hashlib.sha256(file.read_bytes()).hexdigest() for flag, file in tables.items()}
    made_from |= {flag: str(value) for flag, value in flags.items()}
    with locked(record.resolve(), wait=PREPARE_SECONDS):  # another call may make it
        if not dataset.is_dir():  # a record without it is of tables that were refused
            write_text(record, json.dumps(made_from, indent=2) + "\n")
            typed = [text for flag, value in {**tables, **flags}.items() for text in (flag, value)]
            run_command("prepare", *typed, "--output", dataset)
            return
        if not record.is_file():
            raise SystemExit(
                f"error: there is no {record}, so {dataset} may be other data: name another --output"
            )
        recorded = read_object(record)
        if recorded != made_from:
            differs = min(
                flag for flag in {**recorded, **made_from} if recorded.get(flag) != made_from.get(flag)
            )
            raise SystemExit(f"error: {dataset} was made with another {differs}: name another --output")
