"""Measured rows of `experiments.full_ranking` as a table: a line for each run, in a CSV file."""

import csv
import io
import json
import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open

from cllm4rec.files.writing import write_text
from cllm4rec.training.run_folder import RunFolder
from experiments.report import METRICS_FILE
from experiments.tuning.trials import DATASET, RUN

ENCODER = '"$ENCODER"'
Line = dict[str, str]  # column -> text
KEY = ("set", "protocol", "row", "seed")  # two lines of a file differ in one of these columns


def result_line(set_name: str, row: str, seed: int, result: Mapping[str, Any], run: Path) -> Line:
    """A run: its metrics with their 95 % intervals, its costs, and what it was measured with.

    Args:
        set_name: of the dataset.
        row: of the table.
        seed: of the split.
        result: of the row in results.json.
        run: its folder, evaluated on test events.
    """
    measured, description = json.loads((run / METRICS_FILE).read_text()), RunFolder.open(run).description
    quality: dict[str, float | str] = {}
    for metric, value in measured["metrics"].items():
        low, high = measured["intervals"].get(metric, ("", ""))
        quality |= {metric: value, f"{metric} low": low, f"{metric} high": high}
    versions = ", ".join(f"{name} {version}" for name, version in description.versions.items())
    cells = {
        **dict(zip(KEY, (set_name, "A", row, seed), strict=True)),
        "system": description.system,
        "users": measured["n_users"],
        **quality,
        "training_cpu_seconds": result["training_cpu_seconds"],
        "evaluation_cpu_seconds": result["evaluation_cpu_seconds"],
        "peak_mib": result["peak_mib"],
        "model_numbers": model_numbers(run),
        "versions": versions,
        **result["dataset"],
        "code_sha256": result["code_sha256"],
        "command": command(result["flags"], seed),
    }
    return {name: f"{value:.6g}" if isinstance(value, float) else str(value) for name, value in cells.items()}


def model_numbers(run: Path) -> int:
    """Numbers in the model.safetensors of the last stage of a run."""
    with safe_open(RunFolder.open(run).stage_folder() / "model.safetensors", framework="np") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118


def command(flags: Sequence[Sequence[str] | None], seed: int) -> str:
    """The commands of a run in one line, with the shell variables DATASET, RUN and ENCODER.

    Args:
        flags: of pretrain, and of finetune; None: no such stage.
        seed: of the split; CLLM4Rec trains with it too.
    """
    first, second = flags
    seeded = [] if "--system" in (first or []) else ["--seed", str(seed)]
    stages = [("pretrain", [*("--dataset", DATASET, "--output", RUN), *quoted([*(first or []), *seeded])])]
    if second is not None:
        stages.append(("finetune", ["--run", RUN, *quoted([*second, *seeded])]))
    stages.append(("evaluate", ["--run", RUN]))
    return " && ".join(" ".join(["cllm4rec", stage, *arguments]) for stage, arguments in stages)


def quoted(flags: Sequence[str]) -> list[str]:
    """Flags as typed in a shell; the value of --encoder is the variable ENCODER."""
    after = zip(["", *flags], flags, strict=False)
    return [ENCODER if before == "--encoder" else shlex.quote(flag) for before, flag in after]


def write_results(file: Path, lines: Sequence[Line]) -> None:
    """Write lines into a file, in place of those of the same set, protocol, row and seed; others stay.

    Raises:
        SystemExit: the file is another table.
    """
    kept = {}
    if file.is_file():
        with file.open(encoding="utf-8", newline="") as opened:
            before = csv.DictReader(opened)
            if not {*KEY} <= {*(before.fieldnames or ())}:
                raise SystemExit(f"error: {file} is no table of results: name another --results")
            kept = {tuple(line[name] for name in KEY): line for line in before}
    kept |= {tuple(line[name] for name in KEY): line for line in lines}
    columns = dict.fromkeys(name for line in kept.values() for name in line)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(kept.values())
    write_text(file, text.getvalue())
